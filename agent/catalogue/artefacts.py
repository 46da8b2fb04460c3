"""A component for a host -> the vendor's file: its name, its path below the mirror, its checksum."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.catalogue.match import architecture, within
from agent.catalogue.versions import base_version, parse_version
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.catalogue.loader import Catalogue, PackageRow, PlatformRow
    from agent.catalogue.match import PlatformMatch

LATEST = "latest"

_DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
_VERSIONED = re.compile(
    r"([^/]+)/([^/]+?[-_])(\d{1,9}\.\d{1,9}\.\d{1,9}(?:-\d{1,9})?|latest)([^/]+)", re.ASCII
)
_PINNED = re.compile(r"(\d{1,9}\.\d{1,9}\.\d{1,9})(-\d{1,9})?")


@dataclass(frozen=True)
class Artefact:
    """One published file. `package` is its name in the package database; no `sha256`, none is known."""

    component: str
    package: str
    version: str
    file: str
    path: str
    sha256: str | None
    end_of_support: bool


@dataclass(frozen=True)
class Published:
    """The names of the vendor's files: folder, and the text before and after the version."""

    shapes: frozenset[tuple[str, str, str]]

    def version(self, path: str) -> str | None:
        """Return the version in the path of a file, None when the vendor makes none that is called like it."""
        found = _VERSIONED.fullmatch(path)
        return found[3] if found and (found[1], found[2], found[4]) in self.shapes else None


@dataclass(frozen=True)
class VersionRange:
    """The versions of a component a host can take, X.Y.Z; `last` is None while AWS still makes it.

    `cut`: the host's own bound ends it, and other hosts of its row can have newer ones.
    """

    first: str
    last: str | None
    cut: bool


def components(catalogue: Catalogue, fit: PlatformMatch, arch: str, sdk: int = 5) -> tuple[str, ...]:
    """Return the components made in the newest client this host can take; none when that SDK left it out."""
    newest_of: dict[str, tuple[int, ...]] = {}
    for package in catalogue.packages:
        span = version_range_of(catalogue, fit, arch, package.component, sdk) if package.sdk == sdk else None
        if span is not None:
            newest_of[package.component] = base_version(newest_in(catalogue, span, sdk))
    top = max(newest_of.values(), default=())
    return tuple(component for component, version in newest_of.items() if version == top)


def newest(catalogue: Catalogue, fit: PlatformMatch, arch: str, component: str, sdk: int = 5) -> str:
    """Return the newest version and release made for a host, as `5.18.0-1`; raises as `resolve_artefact` does."""
    span = _span_or_refuse(catalogue, fit, arch, component, sdk)
    return _with_release(catalogue, fit.row, sdk, newest_in(catalogue, span, sdk))


def resolve_artefact(
    catalogue: Catalogue, fit: PlatformMatch, arch: str, component: str, version: str | None, *, sdk: int = 5
) -> Artefact:
    """Return the file to install. `version` is X.Y.Z, X.Y.Z-N, `latest`, or None for this component's newest.

    A version that the catalogue does not list but that lies in the component's range is allowed, without a
    checksum. Raises AgentError `component-unsupported`, `client-end-of-support`, or `config-invalid` for what
    is no version.
    """
    span = _span_or_refuse(catalogue, fit, arch, component, sdk)
    wanted = newest_in(catalogue, span, sdk) if version is None or version == LATEST else version
    pinned = _PINNED.fullmatch(wanted)
    if pinned is None:
        raise AgentError(
            "config-invalid",
            f"`{version}` is not a client version",
            saw=wanted,
            want="X.Y.Z, X.Y.Z-N or latest",
            hint=f"the newest {component} for this host is {newest(catalogue, fit, arch, component, sdk)}",
        )
    package = _package(catalogue, component, sdk)
    if version == LATEST and span.cut:
        raise _out_of_range(catalogue, fit, arch, package, LATEST)
    if base_version(wanted) < base_version(span.first) or (
        span.last is not None and base_version(wanted) > base_version(span.last)
    ):
        raise _out_of_range(catalogue, fit, arch, package, wanted)
    if version == LATEST:
        full = LATEST
    elif pinned[2] is None or _unnumbered(fit.row, sdk):
        full = _with_release(catalogue, fit.row, sdk, pinned[1])
    else:
        full = wanted
    file = _file(fit.row, package, full, architecture(arch))
    path = f"{fit.row.directory}/{file}"
    return Artefact(
        component,
        _name(fit.row, package),
        full,
        file,
        path,
        catalogue.checksums.get(path),
        out_of_support(catalogue, sdk, wanted),
    )


def published(catalogue: Catalogue) -> Published:
    """Return what the vendor's files are called, of all hosts and all components."""
    rows = {row.name: row for row in catalogue.rows}
    shapes = set()
    for client in catalogue.clients:
        row = rows[client.platform]
        for package in catalogue.packages:
            if package.sdk == client.sdk and package.component in client.component:
                for arch in client.arch:
                    begin, _, end = _file(row, package, "/", arch).partition("/")
                    shapes.add((row.directory, begin, end))
    return Published(frozenset(shapes))


def out_of_support(catalogue: Catalogue, sdk: int, version: str) -> bool:
    """Return whether AWS ended support for this version: "and earlier" is part of its word."""
    return any(
        release.end_of_support
        and release.sdk == sdk
        and base_version(version) <= base_version(release.version)
        for release in catalogue.releases
    )


def version_range_of(
    catalogue: Catalogue, fit: PlatformMatch, arch: str, component: str, sdk: int
) -> VersionRange | None:
    """Return which versions of a component this host can take, None when there never was one."""
    machine = architecture(arch)
    for client in catalogue.clients:
        if client.sdk == sdk and component in client.component and within(client, fit, machine):
            first = max((client.first, fit.first or client.first), key=base_version)
            cut = fit.last is not None and (
                client.last is None or base_version(fit.last) < base_version(client.last)
            )
            return VersionRange(first, fit.last if cut else client.last, cut)
    return None


def _span_or_refuse(
    catalogue: Catalogue, fit: PlatformMatch, arch: str, component: str, sdk: int
) -> VersionRange:
    span = version_range_of(catalogue, fit, arch, component, sdk)
    if span is not None:
        return span
    host = f"{fit.title} {architecture(arch)}"
    here = components(catalogue, fit, arch, sdk)
    if here:
        raise AgentError(
            "component-unsupported",
            f"AWS makes no {component} of SDK {sdk} for {host}",
            saw=host,
            want=component,
            hint=f"these fit: {', '.join(here)}",
        )
    other = 3 if sdk == 5 else 5
    there = components(catalogue, fit, arch, other)
    raise AgentError(
        "client-end-of-support",
        f"AWS makes no client of SDK {sdk} for {host}",
        saw=host,
        want=f"SDK {sdk}",
        hint=f"`--sdk {other}` has: {', '.join(there)}" if there else "no client of any SDK fits this host",
    )


def _out_of_range(
    catalogue: Catalogue, fit: PlatformMatch, arch: str, package: PackageRow, wanted: str
) -> AgentError:
    span = _span_or_refuse(catalogue, fit, arch, package.component, package.sdk)
    top = newest(catalogue, fit, arch, package.component, package.sdk)
    made = f"{span.first} or newer" if span.last is None else f"{span.first} to {span.last}"
    return AgentError(
        "client-end-of-support",
        f"{_name(fit.row, package)} {wanted} is not made for {fit.title} {architecture(arch)}",
        saw=f"made: {made}",
        want=wanted,
        hint=f"choose a version that is made for it ({made}); the newest known is {top}",
    )


def newest_in(catalogue: Catalogue, span: VersionRange, sdk: int) -> str:
    """Return the newest version of a span, X.Y.Z; a last one is known to exist though no release lists it."""
    if span.last is not None:
        return span.last
    return max((release.version for release in catalogue.releases if release.sdk == sdk), key=base_version)


def _with_release(catalogue: Catalogue, row: PlatformRow, sdk: int, version: str) -> str:
    if _unnumbered(row, sdk):
        return version
    for release in catalogue.releases:
        if parse_version(release.version) == parse_version(version):
            return f"{version}-{release.release}"
    return f"{version}-1"


def _unnumbered(row: PlatformRow, sdk: int) -> bool:
    # AWSCloudHSMClient-3.4.4.msi, but AWSCloudHSMCLI-5.18.0-1.msi
    return row.format == "msi" and sdk == 3


def _package(catalogue: Catalogue, component: str, sdk: int) -> PackageRow:
    return next(
        package for package in catalogue.packages if package.sdk == sdk and package.component == component
    )


def _name(row: PlatformRow, package: PackageRow) -> str:
    # the loader has seen to it that what is made for a row has a name there
    return (package.msi if row.format == "msi" else package.package) or ""


def _file(row: PlatformRow, package: PackageRow, version: str, arch: str) -> str:
    name = _name(row, package)
    if row.format == "rpm":
        return f"{name}-{version}.{row.suffix}.{arch}.rpm"
    if row.format == "deb":
        return "_".join(part for part in (name, version, row.suffix, _DEB_ARCH[arch]) if part) + ".deb"
    return f"{name}-{version}.msi"
