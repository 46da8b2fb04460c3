"""The catalogue's two files -> frozen rows; an unknown, missing or duplicate entry is an error."""

from __future__ import annotations

import datetime as dt
import re
import sys
from dataclasses import dataclass
from pkgutil import get_data
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.catalogue.versions import parse_version

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser, from the index, on the Pythons before it moved into the standard library
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PLATFORMS = "platforms.toml"
CHECKSUMS = "checksums.toml"

# the processors that AWS makes clients for, by the names of `uname -m`
ARCHES = ("x86_64", "aarch64")


# Named tuples, since every start pays for these definitions and a frozen dataclass costs four times as much.


class PlatformRow(NamedTuple):
    """A platform the vendor builds for. `min_minor` is the oldest minor release that AWS names."""

    name: str
    title: str
    directory: str
    suffix: str
    format: str
    source: str
    seen: dt.date
    min_minor: int | None = None
    like: tuple[str, ...] = ()


class HostRow(NamedTuple):
    """An operating system that a platform row is for; `first` and `last` bound the clients made for it."""

    os: str
    version: str
    title: str
    platform: str
    source: str
    seen: dt.date
    first: str | None = None
    last: str | None = None
    arch: tuple[str, ...] = ARCHES


class ClientRow(NamedTuple):
    """Components made for a platform from `first` to `last`; no `last`: they still are."""

    sdk: int
    platform: str
    arch: tuple[str, ...]
    component: tuple[str, ...]
    first: str
    source: str
    seen: dt.date
    last: str | None = None


class PackageRow(NamedTuple):
    """The names of a component: `package` in an rpm or deb database, `msi` in a file name on Windows."""

    sdk: int
    component: str
    source: str
    seen: dt.date
    package: str | None = None
    msi: str | None = None


class Release(NamedTuple):
    """A version of one SDK; `end_of_support` holds for all before it as well."""

    version: str
    release: str
    date: dt.date
    end_of_support: bool
    sdk: int
    source: str
    seen: dt.date


@dataclass(frozen=True)
class Catalogue:
    """The vendor's publications. `checksums` has the SHA-256 in hex for a path below `base_url`."""

    base_url: str
    rows: tuple[PlatformRow, ...]
    hosts: tuple[HostRow, ...]
    clients: tuple[ClientRow, ...]
    packages: tuple[PackageRow, ...]
    releases: tuple[Release, ...]
    checksums: Mapping[str, str]

    def published(self, file: str) -> str | None:
        """Return the SHA-256 that the vendor published for a file of this name, None for no such file."""
        return next((sha256 for path, sha256 in self.checksums.items() if path.endswith(f"/{file}")), None)


_PROVENANCE: dict[str, type] = {"source": str, "seen": dt.date}
# table -> the required and the optional fields of a row
_SHAPES: dict[str, tuple[dict[str, type], dict[str, type]]] = {
    "vendor": ({"base_url": str}, {}),
    "package": ({"sdk": int, "component": str}, {"package": str, "msi": str}),
    "release": (
        {"version": str, "release": str, "date": dt.date, "end_of_support": bool, "sdk": int},
        {},
    ),
    "platform": (
        {"name": str, "title": str, "directory": str, "suffix": str, "format": str},
        {"min_minor": int, "like": list},
    ),
    "host": (
        {"os": str, "version": str, "title": str, "platform": str},
        {"first": str, "last": str, "arch": list},
    ),
    "client": (
        {"sdk": int, "platform": str, "arch": list, "component": list, "first": str},
        {"last": str},
    ),
}
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def load() -> Catalogue:
    """Read the catalogue that came with the agent. Nothing is cached: call it once and pass the value on."""
    # pkgutil and not pathlib, which takes six times as long to import
    return parse(_shipped(PLATFORMS), _shipped(CHECKSUMS))


def _shipped(file: str) -> str:
    data = get_data("agent.catalogue", file)
    if data is None:
        raise ValueError(f"{file}: cannot be read from where this agent is installed")
    return data.decode()


def parse(platforms: str, checksums: str) -> Catalogue:
    """Return the catalogue of two TOML texts, or raise ValueError with the file, the row and the fault."""
    document = _document(platforms, PLATFORMS)
    for table in document:
        if table not in _SHAPES:
            raise ValueError(f"{PLATFORMS}: unknown table `{table}`")
    vendor = _fields(document.get("vendor"), "vendor", f"{PLATFORMS} [vendor]")
    packages = tuple(_packages(document))
    releases = tuple(_releases(document))
    rows = tuple(_platforms(document))
    hosts = tuple(_hosts(document, rows))
    clients = tuple(_clients(document, rows, packages))
    hashes = _checksums(_document(checksums, CHECKSUMS), rows, releases)
    return Catalogue(vendor["base_url"], rows, hosts, clients, packages, releases, MappingProxyType(hashes))


def _document(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file}: {error}") from error


def _table(document: Mapping[str, Any], table: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of an array of tables with its place, counted from 1 as a reader does."""
    rows = document.get(table)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{PLATFORMS}: has no [[{table}]]")
    for count, raw in enumerate(rows, start=1):
        place = f"{PLATFORMS} [[{table}]] {count}"
        yield place, _fields(raw, table, place)


def _fields(raw: object, table: str, place: str) -> dict[str, Any]:
    required, optional = _SHAPES[table]
    return _shaped(raw, place, {**required, **_PROVENANCE}, optional)


def _shaped(
    raw: object, place: str, required: Mapping[str, type], optional: Mapping[str, type]
) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError(f"{place}: is not a table")  # noqa: TRY004  a fault of the text, not of the call
    fields: dict[str, Any] = {}
    for key, value in raw.items():
        kind = required.get(key) or optional.get(key)
        if kind is None:
            raise ValueError(f"{place}: unknown key `{key}`")
        # an exact type, because a bool is an int and a date-time is a date
        if type(value) is not kind:
            raise ValueError(f"{place}: `{key}` is not of type {kind.__name__}")
        if value == "" and key != "suffix":
            raise ValueError(f"{place}: `{key}` is empty")
        fields[key] = _words(value, f"{place}: `{key}`") if isinstance(value, list) else value
    for key in required:
        if key not in fields:
            raise ValueError(f"{place}: `{key}` is missing")
    return fields


def _words(values: list[Any], place: str) -> tuple[str, ...]:
    if not values or not all(isinstance(value, str) and value for value in values):
        raise ValueError(f"{place} is not a list of words")
    if len(set(values)) != len(values):
        raise ValueError(f"{place} has a word twice")
    return tuple(values)


def _once(seen: set[object], key: object, place: str, words: str) -> None:
    if key in seen:
        raise ValueError(f"{place}: {words} is there twice")
    seen.add(key)


def _one_of(value: object, allowed: tuple[object, ...], place: str, key: str) -> None:
    if value not in allowed:
        raise ValueError(f"{place}: `{key}` is {value}, not one of {', '.join(map(str, allowed))}")


def _versions(fields: Mapping[str, Any], place: str, *keys: str) -> None:
    for key in keys:
        if key in fields and not _VERSION.fullmatch(fields[key]):
            raise ValueError(f"{place}: `{key}` is {fields[key]}, not X.Y.Z")
    if (
        "first" in fields
        and "last" in fields
        and parse_version(fields["first"]) > parse_version(fields["last"])
    ):
        raise ValueError(f"{place}: `first` is after `last`")


def _packages(document: Mapping[str, Any]) -> Iterator[PackageRow]:
    seen: set[object] = set()
    for place, fields in _table(document, "package"):
        package = PackageRow(**fields)
        _one_of(package.sdk, (3, 5), place, "sdk")
        _once(seen, (package.sdk, package.component), place, f"SDK {package.sdk} {package.component}")
        if package.package is None and package.msi is None:
            raise ValueError(f"{place}: has neither `package` nor `msi`")
        yield package


def _releases(document: Mapping[str, Any]) -> Iterator[Release]:
    seen: set[object] = set()
    for place, fields in _table(document, "release"):
        _versions(fields, place, "version")
        release = Release(**fields)
        _one_of(release.sdk, (3, 5), place, "sdk")
        _once(seen, release.version, place, release.version)
        if not release.release.isdecimal():
            raise ValueError(f"{place}: `release` is {release.release}, not a number")
        yield release


def _platforms(document: Mapping[str, Any]) -> Iterator[PlatformRow]:
    seen: set[object] = set()
    for place, fields in _table(document, "platform"):
        row = PlatformRow(**fields)
        _one_of(row.format, ("rpm", "deb", "msi"), place, "format")
        _once(seen, row.name, place, row.name)
        yield row


def _hosts(document: Mapping[str, Any], rows: tuple[PlatformRow, ...]) -> Iterator[HostRow]:
    names = tuple(row.name for row in rows)
    seen: set[object] = set()
    for place, fields in _table(document, "host"):
        _versions(fields, place, "first", "last")
        host = HostRow(**fields)
        _one_of(host.platform, names, place, "platform")
        for arch in host.arch:
            _one_of(arch, ARCHES, place, "arch")
        _once(seen, (host.os, host.version), place, f"{host.os} {host.version}")
        yield host


def _clients(
    document: Mapping[str, Any], rows: tuple[PlatformRow, ...], packages: tuple[PackageRow, ...]
) -> Iterator[ClientRow]:
    formats = {row.name: row.format for row in rows}
    seen: set[object] = set()
    for place, fields in _table(document, "client"):
        _versions(fields, place, "first", "last")
        client = ClientRow(**fields)
        _one_of(client.platform, tuple(formats), place, "platform")
        windows = formats[client.platform] == "msi"
        made = tuple(
            package.component
            for package in packages
            if package.sdk == client.sdk and (package.msi if windows else package.package)
        )
        for component in client.component:
            _one_of(component, made, place, "component")
        for arch in client.arch:
            _one_of(arch, ARCHES, place, "arch")
            for component in client.component:
                words = f"SDK {client.sdk} {component} for {client.platform} {arch}"
                _once(seen, (client.sdk, client.platform, arch, component), place, words)
        yield client


def _checksums(
    document: Mapping[str, Any], rows: tuple[PlatformRow, ...], releases: tuple[Release, ...]
) -> dict[str, str]:
    if set(document) != {"release"} or not isinstance(document["release"], dict):
        raise ValueError(f"{CHECKSUMS}: has more or less than the tables [release.'X.Y.Z-N']")
    known = tuple(f"{release.version}-{release.release}" for release in releases)
    directories = tuple(row.directory for row in rows)
    hashes: dict[str, str] = {}
    for version, raw in document["release"].items():
        place = f"{CHECKSUMS} [release.'{version}']"
        _one_of(version, known, place, "release")
        for path, digest in _shaped(raw, place, {"sha256": dict, **_PROVENANCE}, {})["sha256"].items():
            where = f"{place} '{path}'"
            # the SDK 3 MSIs carry the version alone
            if version.split("-")[0] not in path:
                raise ValueError(f"{where}: is not a file of {version}")
            _one_of(path.partition("/")[0], directories, where, "directory")
            if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
                raise ValueError(f"{where}: is not a SHA-256 of 64 lower-case hex digits")
            hashes[path] = digest
    return hashes
