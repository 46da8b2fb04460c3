"""The client's configuration files, which only the vendor's configure tools write and the agent reads.

Their form is not documented: it is known from files that users published (SDK 5: GitHub issue
ThalesGroup/crypto11#87). So keys that are not known there pass. But what is known there has one form, and a client that
finds another does not start: whatever is in another form is a fault, and never what was wanted.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from agent.cloudhsm import lenient_json
from agent.cloudhsm.client_options import ClientOption, ClientOptions, options_in
from agent.cloudhsm.paths import PORT, PORT_CMU

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# a real file has 1 to 2 kB
_MOST_BYTES = 1024 * 1024
_MOST_DIGITS = 20
_MOST_SHOWN = 40
# A fresh package ships %%HSM_IP_ADDRESS%% (SDK 5) or %%SERVER_ADDR%% (SDK 3): never configured.
_PLACEHOLDER = "%%"
_FRESH_SERVER = {"hostname": "%%HSM_IP_ADDRESS%%", "port": PORT, "enable": True}
_FRESH_NAME3 = "%%SERVER_ADDR%%"
_CA3 = "e2e_owner_crt_path"
_CHECK = "disable_key_availability_check"


class Server(NamedTuple):
    """One HSM a client is told to connect to."""

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


@dataclass(frozen=True)
class DaemonConfig:
    """SDK 3's cloudhsm_client.cfg: the daemon knows one HSM and learns the others from it. `faults` as above."""

    hostname: str | None
    ca_file: str | None
    placeholder: bool
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class UtilityConfig:
    """SDK 3's cloudhsm_mgmt_util.cfg: the HSMs it names, none when it was never configured. `faults` as above."""

    servers: tuple[str, ...]
    faults: tuple[str, ...] = ()


def parse_client_config(data: bytes) -> ClientConfig:
    """Read an SDK 5 configuration file; ValueError, with a clause about "it", when it is no JSON object."""
    whole, faults = _document(data)
    entries = _entries(whole, "clusters", faults)
    clusters = [_known(entry, "cluster", dict, faults, needed=True) or {} for entry in entries]
    checks_of = [_known(cluster, "options", dict, faults) or {} for cluster in clusters]
    logging = _known(whole, "logging", dict, faults) or {}
    servers = [server for cluster in clusters for server in _servers(cluster, faults)]
    if not entries and not faults:
        faults.append("it has no cluster")
    checks = [_known(option, _CHECK, bool, faults) for option in checks_of]
    for entry in entries:
        _known(entry, "type", str, faults)

    def first(key: str) -> str | None:
        found = [_known(cluster, key, str, faults) for cluster in clusters]
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
        placeholder=any(_PLACEHOLDER in server.hostname for server in servers),
        faults=tuple(dict.fromkeys(faults)),
    )


def repaired(data: bytes, *, ca: str, logging: Mapping[str, str], without: tuple[str, ...] = ()) -> bytes:
    """Return a file with what a fresh package holds in the place of each fault, and all else as it was.

    `logging` is what a fresh package says of logs; the keys in `without` are taken out. Raises ValueError, with a
    clause about "it", for what is no JSON object.
    """
    whole, _ = _document(data)
    entries = [lenient_json.as_object(each) for each in lenient_json.as_array(whole.get("clusters"))] or [
        {"type": "hsm1"}
    ]
    whole["clusters"] = entries
    for entry in entries:
        if "type" in entry and not _is_good(entry, "type", str):
            entry["type"] = "hsm1"
        entry["cluster"] = _mended_cluster(lenient_json.as_object(entry.get("cluster")), ca, without)
    if "logging" in whole:
        whole["logging"] = _mended_logging(whole["logging"], logging, without)
    return _text(whole)


def _mended_cluster(cluster: dict[str, Any], ca: str, without: tuple[str, ...]) -> dict[str, Any]:
    wrong: list[str] = []
    if not list(_servers(cluster, wrong)) or wrong:
        cluster["servers"] = [_FRESH_SERVER]
    if not _is_good(cluster, "hsm_ca_file", str):
        cluster["hsm_ca_file"] = ca
    for key in ("cluster_id", *(option.key for option in options_in("cluster"))):
        if key in without or not _is_good(cluster, key, str):
            cluster.pop(key, None)
    if not _is_good(cluster, "options", dict):
        cluster.pop("options", None)
    elif not _is_good(cluster["options"], _CHECK, bool):
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
    value: str | None = _known(logging, option.key, str, faults)
    if value is not None and not (value if option.is_path else value in (*option.words, *option.in_files)):
        faults.append(f"{option.key} is {_shown(value)}")
        return None
    return value


def _options(found: Mapping[ClientOption, str | None]) -> ClientOptions:
    return ClientOptions({option.name: value for option, value in found.items() if value is not None})


def _entries(holder: dict[str, Any], key: str, faults: list[str]) -> list[dict[str, Any]]:
    """Return the objects in a list; anything else in it is a fault, and counts as one that holds nothing."""
    found = []
    for each in _known(holder, key, list, faults, needed=True) or []:
        if not isinstance(each, dict):
            faults.append(f"{key} holds {_shown(each)}")
        found.append(lenient_json.as_object(each))
    return found


def _servers(cluster: dict[str, Any], faults: list[str]) -> Iterator[Server]:
    for each in _entries(cluster, "servers", faults):
        hostname = _known(each, "hostname", str, faults, needed=True)
        port = _known(each, "port", int, faults, needed=True)
        enable = _known(each, "enable", bool, faults, needed=True)
        if hostname:
            yield Server(hostname, PORT if port is None else port, enable is not False)


def _known(holder: dict[str, Any], key: str, kind: type, faults: list[str], *, needed: bool = False) -> Any:
    """Return the value of a key that has its one form; None without it, and with a fault for another."""
    if key not in holder:
        if needed:
            faults.append(f"it has no {key}")
        return None
    value = holder[key]
    if type(value) is kind and not (
        kind is str and lenient_json.as_str(value) != value
    ):  # a bool is an int to Python
        return value
    faults.append(f"{key} is {_shown(value)}")
    return lenient_json.as_str(value) if kind is str else None


def _is_good(holder: dict[str, Any], key: str, kind: type) -> bool:
    faults: list[str] = []
    value = _known(holder, key, kind, faults, needed=True)
    return not faults and value != ""


def _shown(value: object) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def parse_daemon_config(client_cfg: bytes) -> DaemonConfig:
    """Read SDK 3's cloudhsm_client.cfg; ValueError, with a clause about "it", when it is no JSON object."""
    whole, faults = _document(client_cfg)
    server = _known(whole, "server", dict, faults, needed=True) or {}
    client = _known(whole, "client", dict, faults, needed=True) or {}
    hostname = _known(server, "hostname", str, faults, needed=True)
    _require(server, "port", (PORT,), faults)
    ca_file = _known(client, _CA3, str, faults)
    placeholder = hostname is not None and _PLACEHOLDER in hostname
    return DaemonConfig(hostname or None, ca_file, placeholder, tuple(faults))


def parse_utility_config(mgmt_cfg: bytes) -> UtilityConfig:
    """Read SDK 3's cloudhsm_mgmt_util.cfg; ValueError as above."""
    whole, faults = _document(mgmt_cfg)
    names = []
    for each in _entries(whole, "servers", faults):
        name = _known(each, "hostname", str, faults, needed=True)
        _require(each, "port", (PORT_CMU,), faults)
        _require(each, "enable", ("yes", "no"), faults)
        if name and _PLACEHOLDER not in name and each.get("enable") != "no":
            names.append(name)
    return UtilityConfig(tuple(names), tuple(faults))


def repaired_daemon_config(client_cfg: bytes) -> bytes:
    """Return a cloudhsm_client.cfg whose server has its one form; what else is wrong stays. ValueError as above."""
    whole, _ = _document(client_cfg)
    server = lenient_json.as_object(whole.get("server"))
    if not _is_good(server, "hostname", str):
        server["hostname"] = _FRESH_NAME3
    whole["server"] = {**server, "port": PORT}
    return _text(whole)


def repaired_utility_config(mgmt_cfg: bytes) -> bytes:
    """Return a cloudhsm_mgmt_util.cfg whose servers have their one form; what else is wrong stays. As above."""
    whole, _ = _document(mgmt_cfg)
    for each in lenient_json.as_array(whole.get("servers")):
        if isinstance(each, dict):
            each["port"] = PORT_CMU
            each["enable"] = "no" if each.get("enable") == "no" else "yes"
            if not _is_good(each, "hostname", str):
                each["hostname"] = _FRESH_NAME3
    return _text(whole)


def _require(holder: dict[str, Any], key: str, values: tuple[object, ...], faults: list[str]) -> None:
    """Add a fault where a key does not have one of the values, all of a type, that it can have."""
    found = _known(holder, key, type(values[0]), faults, needed=True)
    if found is not None and found not in values:
        faults.append(f"{key} is {_shown(found)}")


def _text(whole: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode()
    except (ValueError, RecursionError):
        raise ValueError("it holds a number that is none, or is nested too deeply") from None


def _document(data: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return what a file holds, and what of its spelling a stricter reader than Python's would not take."""
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes, more than any configuration file")
    if not data.strip():
        raise ValueError("it is empty")
    faults = ["it begins with a byte order mark"] if data.startswith(codecs.BOM_UTF8) else []
    try:
        found = _decoder(faults).decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one exception for all a file can be
    return found, faults


def _decoder(faults: list[str]) -> json.JSONDecoder:
    """Return a decoder that adds a fault for each key that stands twice in an object."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, value in pairs:
            if key in members:
                faults.append(f"{_shown(key)} stands there twice")
            members[key] = value
        return members

    return json.JSONDecoder(parse_int=_whole, parse_constant=_refuse, object_pairs_hook=once)


def _whole(digits: str) -> int | float:
    """Read a whole number; a very long one as a float, so that a million digits cost nothing."""
    return int(digits) if len(digits) < _MOST_DIGITS else float(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
