"""What the catalogue has for each host, and how many checksums of each release.

`pytest tests/golden --update-golden` writes the file; compare its difference with AWS's pages.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from agent.catalogue import components, load, match_platform, newest
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from agent.catalogue.loader import HostRow

GOLDEN = Path(__file__).parent / "published.txt"
CATALOGUE = load()


def offered(host: HostRow, arch: str, sdk: int) -> str:
    """Return the newest version for a host, and the components of it."""
    fit = match_platform(CATALOGUE, os=host.os, os_version=host.version, arch=arch, platform=None)
    fitting = components(CATALOGUE, fit, arch, sdk)
    versions = sorted({newest(CATALOGUE, fit, arch, component, sdk) or "none" for component in fitting})
    return " ".join([*versions, *fitting]) or "nothing"


def lines() -> Iterator[str]:
    for host in CATALOGUE.hosts:
        for arch in ("x86_64", "aarch64"):
            try:
                found = "; ".join(f"SDK {sdk}: {offered(host, arch, sdk)}" for sdk in (5, 3))
            except AgentError as refused:
                found = refused.code.name
            yield f"{host.os} {host.version} {arch}: {found}"
    released = [f"{each.version}-{each.release}" for each in CATALOGUE.releases]
    for release, files in sorted(Counter(_release(path, released) for path in CATALOGUE.checksums).items()):
        yield f"checksums of {release}: {files}"


def _release(path: str, released: list[str]) -> str:
    # a file for Windows has no release number
    return next(each for each in released if each in path or each.rpartition("-")[0] in path)


def test_what_is_published_is_what_was_reviewed(pytestconfig: pytest.Config) -> None:
    found = "\n".join([*lines(), ""])
    if pytestconfig.getoption("--update-golden"):
        GOLDEN.write_text(found, encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == found
