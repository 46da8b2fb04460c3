"""The client's configuration files, which only the vendor's configure tools write and the agent reads.

Their form is not documented: it is known from files that users published (SDK 5: GitHub issue
ThalesGroup/crypto11#87). So keys that are not known there pass. But what is known there has one form, and a client that
finds another does not start: whatever is in another form is a fault, and never what was wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.cloudhsm import lenient_json
from agent.cloudhsm.client_options import ClientOption, ClientOptions, options_in
from agent.cloudhsm.config_document import (
    PLACEHOLDER,
    is_good,
    objects_in,
    parse_document,
    shown,
    to_bytes,
    value_of,
)
from agent.cloudhsm.paths import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FRESH_SERVER = {"hostname": "%%HSM_IP_ADDRESS%%", "port": PORT, "enable": True}
_CHECK = "disable_key_availability_check"


class Server(NamedTuple):
    """One HSM that a client is configured to connect to."""

    hostname: str
    port: int
    enable: bool


class SavedConfig(NamedTuple):
    """A configuration file as it once was: its bytes, mode and owner (uid, gid)."""

    data: bytes
    mode: int
    owner: tuple[int, int]


@dataclass(frozen=True)
class ClientConfig:
    """An SDK 5 component's file: `servers` of every cluster in it, the rest of the first that has it.

    `faults` are clauses on what the client does not read, or reads as something else.
    """

    servers: tuple[Server, ...]
    ca_file: str | None
    cluster_id: str | None
    key_availability_check_disabled: bool
    options: ClientOptions
    clusters: int
    placeholder: bool
    faults: tuple[str, ...] = ()


def parse_client_config(data: bytes) -> ClientConfig:
    """Read an SDK 5 configuration file; ValueError, with a clause about "it", when it is no JSON object."""
    document, faults = parse_document(data)
    entries = objects_in(document, "clusters", faults)
    clusters = [value_of(entry, "cluster", dict, faults, needed=True) or {} for entry in entries]
    checks_of = [value_of(cluster, "options", dict, faults) or {} for cluster in clusters]
    logging = value_of(document, "logging", dict, faults) or {}
    servers = [server for cluster in clusters for server in _servers(cluster, faults)]
    if not entries and not faults:
        faults.append("it has no cluster")
    checks = [value_of(option, _CHECK, bool, faults) for option in checks_of]
    for entry in entries:
        value_of(entry, "type", str, faults)

    def first(key: str) -> str | None:
        found = [value_of(cluster, key, str, faults) for cluster in clusters]
        faults.extend(f"{key} is empty" for value in found if value == "")
        return next((value for value in found if value), None)

    return ClientConfig(
        servers=tuple(servers),
        ca_file=first("hsm_ca_file"),
        cluster_id=first("cluster_id"),
        # of any cluster: a key that may be on one HSM only is worth a warning
        key_availability_check_disabled=any(checks),
        options=_options(
            # an empty path is not as good as none: the client looks for a file without a name, and stops
            {option: first(option.key) for option in options_in("cluster")}
            | {option: _logged(logging, option, faults) for option in options_in("logging")}
        ),
        clusters=len(entries),
        placeholder=any(PLACEHOLDER in server.hostname for server in servers),
        faults=tuple(dict.fromkeys(faults)),
    )


def repaired(data: bytes, *, ca: str, logging: Mapping[str, str], without: tuple[str, ...] = ()) -> bytes:
    """Return a file with what a fresh package holds in the place of each fault, and all else as it was.

    `logging` is what a fresh package says of logs; the keys in `without` are taken out. Raises ValueError, with a
    clause about "it", for what is no JSON object.
    """
    document, _ = parse_document(data)
    entries = [lenient_json.as_object(each) for each in lenient_json.as_array(document.get("clusters"))] or [
        {"type": "hsm1"}
    ]
    document["clusters"] = entries
    for entry in entries:
        if "type" in entry and not is_good(entry, "type", str):
            entry["type"] = "hsm1"
        entry["cluster"] = _mended_cluster(lenient_json.as_object(entry.get("cluster")), ca, without)
    if "logging" in document:
        document["logging"] = _mended_logging(document["logging"], logging, without)
    return to_bytes(document)


def _mended_cluster(cluster: dict[str, Any], ca: str, without: tuple[str, ...]) -> dict[str, Any]:
    wrong: list[str] = []
    if not list(_servers(cluster, wrong)) or wrong:
        cluster["servers"] = [_FRESH_SERVER]
    if not is_good(cluster, "hsm_ca_file", str):
        cluster["hsm_ca_file"] = ca
    for key in ("cluster_id", *(option.key for option in options_in("cluster"))):
        if key in without or not is_good(cluster, key, str):
            cluster.pop(key, None)
    if not is_good(cluster, "options", dict):
        cluster.pop("options", None)
    elif not is_good(cluster["options"], _CHECK, bool):
        cluster["options"].pop(_CHECK, None)
    return cluster


def _mended_logging(found: object, fresh: Mapping[str, str], without: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(found, dict):
        return dict(fresh)
    for option in options_in("logging"):
        wrong: list[str] = []
        _logged(found, option, wrong)
        if not wrong and option.key not in without:
            continue
        found.pop(option.key, None)
        if option.key in fresh:
            found[option.key] = fresh[option.key]
    return found


def _logged(logging: dict[str, Any], option: ClientOption, faults: list[str]) -> str | None:
    value: str | None = value_of(logging, option.key, str, faults)
    if value is not None and not (value if option.is_path else value in (*option.words, *option.in_files)):
        faults.append(f"{option.key} is {shown(value)}")
        return None
    return value


def _options(found: Mapping[ClientOption, str | None]) -> ClientOptions:
    return ClientOptions({option.name: value for option, value in found.items() if value is not None})


def _servers(cluster: dict[str, Any], faults: list[str]) -> Iterator[Server]:
    for each in objects_in(cluster, "servers", faults):
        hostname = value_of(each, "hostname", str, faults, needed=True)
        port = value_of(each, "port", int, faults, needed=True)
        enable = value_of(each, "enable", bool, faults, needed=True)
        if hostname:
            yield Server(hostname, PORT if port is None else port, enable is not False)
