"""The one question: which row of the catalogue is this host's? One, or a refusal that names the nearest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.catalogue.loader import ARCHES
from agent.catalogue.versions import base_version, parse_version
from agent.core.errors import AgentError
from agent.core.model import Notice

if TYPE_CHECKING:
    from agent.catalogue.loader import Catalogue, ClientRow, HostRow, PlatformRow
    from agent.facts import Facts

_SPELLINGS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# the version of a Windows as its own tools print it; hosts are listed by the build alone
_WINDOWS = re.compile(r"\d{1,9}\.\d{1,9}\.(\d{4,9})(\.\d{1,9})?")


@dataclass(frozen=True)
class PlatformMatch:
    """A row and why it fits this host: listed, or `forced` by the operator.

    `title` is the host's name for people. `first` and `last` bound the client versions made for this host, in addition
    to those of the row; None is no bound.
    """

    row: PlatformRow
    arch: str
    title: str
    forced: bool = False
    first: str | None = None
    last: str | None = None
    notices: tuple[Notice, ...] = ()


def architecture(arch: str) -> str:
    """Return the name `uname -m` has for a processor, also for Debian's and Windows' spelling of it."""
    name = _SPELLINGS.get(arch.lower())
    if name is None:
        raise AgentError(
            "platform-unsupported",
            f"AWS makes no CloudHSM client for the processor {arch or '(unknown)'}",
            saw=arch,
            want=" or ".join(ARCHES),
            hint="no row can fit; use an x86_64 or aarch64 (Graviton) instance",
        )
    return name


def match_platform(
    catalogue: Catalogue,
    *,
    os: str,
    os_version: str,
    arch: str,
    id_like: tuple[str, ...] = (),
    platform: str | None = None,
) -> PlatformMatch:
    """Return the row for a host by the ID, VERSION_ID and ID_LIKE of its os-release.

    On Windows `os` is `windows` and `os_version` the build, or the dotted version around it. `id_like` never
    makes a row fit. `platform` takes that row instead and lifts the last version of the host's own (CentOS 8
    treated as `el8`); where it names the row that fits anyway it changes nothing.
    Raises AgentError `platform-unsupported`.
    """
    machine = architecture(arch)
    if os == "windows":
        os_version = _WINDOWS.sub(r"\1", os_version)
    host = _listed(catalogue, os, os_version, machine)
    if platform is not None and (host is None or host.platform != platform or host.last):
        row = _row(catalogue, platform)
        return _forced(catalogue, row, host, os=os, os_version=os_version, arch=machine)
    if host is None:
        raise _unlisted(catalogue, os, os_version, machine, id_like)
    row = _row(catalogue, host.platform)
    notices = _old_minor(catalogue, row, host.title, os_version)
    fit = PlatformMatch(row, machine, host.title, first=host.first, last=host.last, notices=notices)
    made = _arches(catalogue, fit)
    if machine not in made:
        raise AgentError(
            "platform-unsupported",
            f"AWS makes no CloudHSM client for {host.title} on {machine}",
            saw=f"{os} {os_version} {machine}",
            want=" or ".join(made),
            hint="use a newer operating system, or an instance with the other processor",
        )
    return fit


def fit_host(facts: Facts, platform: str | None, catalogue: Catalogue) -> PlatformMatch:
    """Return the catalogue row of this host. Raises AgentError `platform-unsupported`."""
    fit = match_platform(
        catalogue,
        os=facts.os,
        os_version=facts.os_version,
        arch=facts.arch,
        id_like=facts.id_like,
        platform=platform,
    )
    if fit.row.format != facts.format:
        raise AgentError(
            "platform-unsupported",
            f"row {fit.row.name} is made of {fit.row.format} packages",
            saw=f"{facts.title}, which has {facts.format or 'neither apt nor dnf'}",
            want=fit.row.format,
            hint=_rows_for(facts, catalogue),
        )
    return fit


def _rows_for(facts: Facts, catalogue: Catalogue) -> str:
    """Say which rows a host can be treated as: those whose packages its manager installs."""
    rows = [f"`{row.name}`" for row in catalogue.rows if row.format == facts.format]
    if not rows:
        return (
            "AWS's clients come as rpm and deb packages: install dnf (`microdnf install dnf`) or apt-get, or use "
            "another operating system"
        )
    return f"leave `--platform` out, or take a row of {facts.format} packages: {', '.join(rows)}"


def within(client: ClientRow, fit: PlatformMatch, arch: str) -> bool:
    """Return whether a row of clients holds any version that this host can take."""
    return (
        client.platform == fit.row.name
        and arch in client.arch
        and (fit.last is None or base_version(client.first) <= base_version(fit.last))
        and (fit.first is None or client.last is None or base_version(fit.first) <= base_version(client.last))
    )


def nearest(
    catalogue: Catalogue, os: str, os_version: str, arch: str, id_like: tuple[str, ...]
) -> tuple[PlatformRow, ...]:
    """Return the rows that an operator could try for a host that is not listed, in the catalogue's order.

    Rows of the same family and version; else the neighbours among the rows of the same system; else every row
    of the family that still gets clients. Empty when nothing is near.
    """
    usable = {client.platform for client in catalogue.clients if arch in client.arch}
    words = {os, *id_like}
    hosts = [host for host in catalogue.hosts if host.platform in usable]
    family = {row.name for row in catalogue.rows if row.name in usable and words.intersection(row.like)}
    family.update(host.platform for host in hosts if host.os in words)
    names = {host.platform for host in hosts if host.platform in family and _leads(host.version, os_version)}
    own = {parse_version(host.version): host.platform for host in hosts if host.os == os}
    if not names and own and os_version:
        here = parse_version(os_version)
        below = sorted(version for version in own if version < here)[-1:]
        above = sorted(version for version in own if version > here)[:1]
        names = {own[version] for version in (*below, *above)}
    if not names:
        names = {name for name in family if _still_made(catalogue, name)}
    return tuple(row for row in catalogue.rows if row.name in names)


def _still_made(catalogue: Catalogue, name: str) -> bool:
    return any(client.platform == name and client.last is None for client in catalogue.clients)


def _leads(version: str, os_version: str) -> bool:
    """Return whether `version` is the leading parts of the other: 9 leads 9.4 and 9, not 90."""
    return f"{os_version}.".startswith(f"{version}.")


def _listed(catalogue: Catalogue, os: str, os_version: str, arch: str) -> HostRow | None:
    for host in catalogue.hosts:
        if host.os == os and arch in host.arch and _leads(host.version, os_version):
            return host
    return None


def _old_minor(catalogue: Catalogue, row: PlatformRow, title: str, os_version: str) -> tuple[Notice, ...]:
    if row.min_minor is None:
        return ()
    for host in catalogue.hosts:
        if host.platform != row.name or not _leads(host.version, os_version):
            continue
        minor = parse_version(os_version[len(host.version) + 1 :])[:1]
        if minor and minor[0] < row.min_minor:
            oldest = f"{host.version}.{row.min_minor}"
            text = f"{title}: {os_version} is older than {oldest}, the oldest minor release AWS names"
            return (Notice("os-minor-old", text),)
    return ()


def _row(catalogue: Catalogue, platform: str) -> PlatformRow:
    for row in catalogue.rows:
        if row.name == platform:
            return row
    rows = ", ".join(row.name for row in catalogue.rows)
    raise AgentError(
        "platform-unsupported",
        f"the catalogue has no row `{platform}`",
        saw=platform,
        want=f"one of {rows}",
        hint=f"`--platform` takes one of {rows}",
    )


def _forced(
    catalogue: Catalogue, row: PlatformRow, host: HostRow | None, *, os: str, os_version: str, arch: str
) -> PlatformMatch:
    name = _words(os, os_version)
    title = host.title if host else f"{name} as {row.title}"
    made = _arches(catalogue, PlatformMatch(row, arch, title))
    if (row.format == "msi") != (os == "windows") or arch not in made:
        raise AgentError(
            "platform-unsupported",
            f"this host cannot be treated as `{row.name}`: AWS makes {row.format} packages for "
            f"{' and '.join(made)} there",
            saw=f"{name} {arch}",
            want=f"a row for {'Windows' if os == 'windows' else 'Linux'} on {arch}",
            hint="leave `--platform` out to see the rows that are near",
        )
    if host is None:
        why = f"AWS does not list {name} on {arch}"
    elif host.platform != row.name:
        why = f"AWS lists {host.title} as {host.platform}"
    else:
        why = f"the last client AWS made for {host.title} is {host.last}"
    notice = Notice("platform-forced", f"treated as {row.name} because `--platform` says so; {why}")
    notices = (notice, *_old_minor(catalogue, row, title, os_version))
    return PlatformMatch(row, arch, title, forced=True, notices=notices)


def _arches(catalogue: Catalogue, fit: PlatformMatch) -> tuple[str, ...]:
    return tuple(arch for arch in ARCHES if any(within(client, fit, arch) for client in catalogue.clients))


def _words(os: str, os_version: str) -> str:
    return f"{os or 'unknown'} {os_version or '(no version)'}"


def _unlisted(
    catalogue: Catalogue, os: str, os_version: str, arch: str, id_like: tuple[str, ...]
) -> AgentError:
    name = _words(os, os_version)
    near = nearest(catalogue, os, os_version, arch, id_like)
    if near:
        flags = " or ".join(f"`--platform {row.name}`" for row in near)
        hint = f"nearest: {flags} treats this host as such, unsupported by AWS and said so in every report"
    else:
        hint = "no row is near: use a listed system, or name a compatible row with `--platform ROW`"
    made = ", ".join(row.name for row in catalogue.rows if _still_made(catalogue, row.name))
    return AgentError(
        "platform-unsupported",
        f"AWS publishes no CloudHSM client for {name} on {arch}",
        saw=f"{name} {arch}" + (f", like {' '.join(id_like)}" if id_like else ""),
        want=f"one of {made}",
        hint=hint,
    )
