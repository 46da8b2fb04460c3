"""SDK 3's two configuration files, which its one configure tool writes and the agent reads (facts 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.cloudhsm import lenient_json
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
from agent.cloudhsm.sdk3.paths import PORT_CMU

if TYPE_CHECKING:
    from agent.cloudhsm.sdk3.paths import Sdk3Paths

_FRESH_NAME = "%%SERVER_ADDR%%"
_CA_FILE = "e2e_owner_crt_path"


@dataclass(frozen=True)
class DaemonConfig:
    """cloudhsm_client.cfg: the daemon knows one HSM and learns the others from it. `faults` are as in ClientConfig."""

    hostname: str | None
    ca_file: str | None
    placeholder: bool
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class UtilityConfig:
    """cloudhsm_mgmt_util.cfg: the HSMs it names, none when it was never configured. `faults` are as in ClientConfig."""

    servers: tuple[str, ...]
    faults: tuple[str, ...] = ()


def parse_daemon_config(client_cfg: bytes) -> DaemonConfig:
    """Read SDK 3's cloudhsm_client.cfg; ValueError, with a clause about "it", when it is no JSON object."""
    document, faults = parse_document(client_cfg)
    server = value_of(document, "server", dict, faults, needed=True) or {}
    client = value_of(document, "client", dict, faults, needed=True) or {}
    hostname = value_of(server, "hostname", str, faults, needed=True)
    _require(server, "port", (PORT,), faults)
    ca_file = value_of(client, _CA_FILE, str, faults)
    placeholder = hostname is not None and PLACEHOLDER in hostname
    return DaemonConfig(hostname or None, ca_file, placeholder, tuple(faults))


def parse_utility_config(mgmt_cfg: bytes) -> UtilityConfig:
    """Read SDK 3's cloudhsm_mgmt_util.cfg; ValueError as above."""
    document, faults = parse_document(mgmt_cfg)
    names = []
    for each in objects_in(document, "servers", faults):
        name = value_of(each, "hostname", str, faults, needed=True)
        _require(each, "port", (PORT_CMU,), faults)
        _require(each, "enable", ("yes", "no"), faults)
        if name and PLACEHOLDER not in name and each.get("enable") != "no":
            names.append(name)
    return UtilityConfig(tuple(names), tuple(faults))


def repaired_daemon_config(client_cfg: bytes) -> bytes:
    """Return a cloudhsm_client.cfg whose server has its one form; what else is wrong stays. ValueError as above."""
    document, _ = parse_document(client_cfg)
    server = lenient_json.as_object(document.get("server"))
    if not is_good(server, "hostname", str):
        server["hostname"] = _FRESH_NAME
    document["server"] = {**server, "port": PORT}
    return to_bytes(document)


def repaired_utility_config(mgmt_cfg: bytes) -> bytes:
    """Return a cloudhsm_mgmt_util.cfg whose servers have their one form; what else is wrong stays. As above."""
    document, _ = parse_document(mgmt_cfg)
    for each in lenient_json.as_array(document.get("servers")):
        if isinstance(each, dict):
            each["port"] = PORT_CMU
            each["enable"] = "no" if each.get("enable") == "no" else "yes"
            if not is_good(each, "hostname", str):
                each["hostname"] = _FRESH_NAME
    return to_bytes(document)


def _require(holder: dict[str, Any], key: str, values: tuple[object, ...], faults: list[str]) -> None:
    """Add a fault where a key does not have one of the values, all of a type, that it can have."""
    found = value_of(holder, key, type(values[0]), faults, needed=True)
    if found is not None and found not in values:
        faults.append(f"{key} is {shown(found)}")


def servers_and_faults(
    paths: Sdk3Paths, path: str, data: bytes
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """Return the HSMs that one of the two files names, and its faults; None for any other file. ValueError as above."""
    if path == paths.utility_config:
        utility = parse_utility_config(data)
        return utility.servers, utility.faults
    if path == paths.daemon_config:
        daemon = parse_daemon_config(data)
        is_named = daemon.hostname is not None and not daemon.placeholder
        return (str(daemon.hostname),) if is_named else (), daemon.faults
    return None
