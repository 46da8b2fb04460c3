"""The client's configuration files, which only the vendor's configure tools write and the agent only reads.

Their form is not documented: it is known from files that users published (SDK 5: GitHub issue
ThalesGroup/crypto11#87). So unknown keys pass, and a value of another type counts as absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from agent.cloudhsm import loose
from agent.cloudhsm.layout import PORT

# a real file has 1 to 2 kB
_MOST_BYTES = 1024 * 1024
# A fresh package ships %%HSM_IP_ADDRESS%% (SDK 5) or %%SERVER_ADDR%% (SDK 3): never configured.
_PLACEHOLDER = "%%"


class Server(NamedTuple):
    """One HSM a client is told to connect to."""

    hostname: str
    port: int
    enable: bool


@dataclass(frozen=True)
class Settings:
    """An SDK 5 component's file: `servers` of every cluster in it, the rest of the first that says it.

    `client_cert` and `client_key` are those of mutual TLS with the HSM; the empty string is kept, since a
    blanked entry stops the client while an absent one does not.
    """

    servers: tuple[Server, ...]
    ca_file: str | None
    cluster_id: str | None
    key_availability_check_disabled: bool
    client_cert: str | None
    client_key: str | None
    log_type: str | None
    log_file: str | None
    log_level: str | None
    log_interval: str | None
    clusters: int
    placeholder: bool


@dataclass(frozen=True)
class Settings3:
    """SDK 3's cloudhsm_client.cfg: the daemon knows one HSM and learns the others from it."""

    hostname: str | None
    port: int
    ca_file: str | None
    placeholder: bool


def parse_settings(data: bytes) -> Settings:
    """Read an SDK 5 configuration file; ValueError, with a clause about "it", when it is no JSON object."""
    whole = _document(data)
    entries = [loose.table(entry) for entry in loose.rows(whole.get("clusters"))]
    clusters = [loose.table(entry.get("cluster")) for entry in entries]
    options = [loose.table(cluster.get("options")) for cluster in clusters]
    logging = loose.table(whole.get("logging"))
    servers = tuple(
        _server(loose.table(server)) for cluster in clusters for server in loose.rows(cluster.get("servers"))
    )

    def first(key: str) -> str | None:
        found = [loose.text(cluster.get(key)) for cluster in clusters]
        return next((value for value in found if value is not None), None)

    return Settings(
        servers=tuple(server for server in servers if server is not None),
        ca_file=first("hsm_ca_file"),
        cluster_id=first("cluster_id"),
        # of any cluster: a key that may be on one HSM only is worth a warning
        key_availability_check_disabled=any(
            option.get("disable_key_availability_check") is True for option in options
        ),
        client_cert=first("client_cert_hsm_tls_path"),
        client_key=first("client_key_hsm_tls_path"),
        log_type=loose.text(logging.get("log_type")),
        log_file=loose.text(logging.get("log_file")),
        log_level=loose.text(logging.get("log_level")),
        log_interval=loose.text(logging.get("log_interval")),
        clusters=len(entries),
        placeholder=any(_PLACEHOLDER in server.hostname for server in servers if server is not None),
    )


def parse_settings3(client_cfg: bytes) -> Settings3:
    """Read SDK 3's cloudhsm_client.cfg; ValueError, with a clause about "it", when it is no JSON object."""
    whole = _document(client_cfg)
    server = _server(loose.table(whole.get("server")))
    return Settings3(
        hostname=server.hostname if server else None,
        port=server.port if server else PORT,
        ca_file=loose.text(loose.table(whole.get("client")).get("e2e_owner_crt_path")),
        placeholder=server is not None and _PLACEHOLDER in server.hostname,
    )


def parse_cmu(mgmt_cfg: bytes) -> tuple[str, ...]:
    """Return the HSMs SDK 3's cloudhsm_mgmt_util.cfg names, none when it was never configured; ValueError as above."""
    found = [_server(loose.table(each)) for each in loose.rows(_document(mgmt_cfg).get("servers"))]
    return tuple(
        each.hostname for each in found if each and each.enable and _PLACEHOLDER not in each.hostname
    )


def _document(data: bytes) -> dict[str, object]:
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes, more than any configuration file")
    if not data.strip():
        raise ValueError("it is empty")
    try:
        found = loose.DECODER.decode(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")  # noqa: TRY004 - one exception for all a file can be
    return found


def _server(server: dict[str, object]) -> Server | None:
    hostname = loose.text(server.get("hostname"))
    if hostname is None:
        return None
    port = loose.whole(server.get("port"))
    return Server(
        hostname,
        PORT if port is None else port,
        # SDK 3 writes "yes" and "no"
        server.get("enable") not in (False, "no", "false"),
    )
