"""The effects of time on a host: a client out of support, a newer version, a system without updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.catalogue.artefacts import components, newest, newest_in, out_of_support, version_range_of
from agent.catalogue.versions import base_version
from agent.core.model import Notice

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.catalogue.loader import Catalogue
    from agent.catalogue.match import PlatformMatch


def life_cycle(catalogue: Catalogue, fit: PlatformMatch, installed: Mapping[str, str]) -> tuple[Notice, ...]:
    """Return notices about age; `installed` is package name -> version, as in the package database.

    Codes: `client-out-of-support`, `client-newer-available`, `component-out-of-support`, `os-out-of-support`.
    Packages in the same state share a notice; an invalid version causes none.
    """
    top = max((release.version for release in catalogue.releases if release.sdk == 5), key=base_version)
    fitting = components(catalogue, fit, fit.arch)
    best = newest(catalogue, fit, fit.arch, fitting[0]) if fitting else ""
    fates: dict[tuple[str, str], list[str]] = {}
    for name, version in installed.items():
        if base_version(version):
            for fate in _fates(catalogue, fit, name, version, best):
                fates.setdefault(fate, []).append(name)
    notices = [Notice(code, f"{', '.join(names)}: {text}") for (code, text), names in fates.items()]
    if not best:
        text = f"only SDK 3 was made for {fit.title}; SDK 5 needs another operating system"
        notices.append(Notice("os-out-of-support", text))
    elif base_version(best) < base_version(top):
        text = f"the newest client for {fit.title} is {best}; {top} needs another operating system"
        notices.append(Notice("os-out-of-support", text))
    return tuple(notices)


def _fates(
    catalogue: Catalogue, fit: PlatformMatch, name: str, version: str, best: str
) -> Iterator[tuple[str, str]]:
    """Yield code and text for one installed package, the text without its name."""
    sdk = 3 if base_version(version) < (4,) else 5
    if out_of_support(catalogue, sdk, version):
        text = f"{version} is out of support, and the service may refuse its connections"
        yield "client-out-of-support", text
    for package in catalogue.packages:
        if package.sdk != sdk or name not in (package.package, package.msi):
            continue
        span = version_range_of(catalogue, fit, fit.arch, package.component, sdk)
        if span is None:
            continue
        own = newest_in(catalogue, span, sdk)
        if base_version(version) < base_version(own):
            yield "client-newer-available", f"{version} is installed, {own} is the newest for {fit.title}"
        if sdk == 5 and base_version(own) < base_version(best):
            text = f"made for {fit.title} up to {own} only, while other components go on to {best}"
            yield "component-out-of-support", text
