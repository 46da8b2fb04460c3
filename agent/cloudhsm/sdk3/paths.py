"""Where SDK 3 keeps its things: one tool, one daemon, two configuration files (configure-sdk-3)."""

from __future__ import annotations

from dataclasses import dataclass

# the management utility connects to a port of its own
PORT_CMU = 2225


@dataclass(frozen=True)
class Sdk3Paths:
    """SDK 3 on one kind of system. `cluster_cache` is what the daemon writes when it is connected, where known.

    `leftovers` is what its packages leave behind when they are removed.
    """

    configure: str
    daemon_config: str
    utility: str
    utility_config: str
    daemon: str
    service: str
    cluster_cache: str | None
    leftovers: tuple[str, ...]

    @property
    def configs(self) -> tuple[str, str]:
        return self.daemon_config, self.utility_config


LINUX = Sdk3Paths(
    configure="/opt/cloudhsm/bin/configure",
    daemon_config="/opt/cloudhsm/etc/cloudhsm_client.cfg",
    utility="/opt/cloudhsm/bin/cloudhsm_mgmt_util",
    utility_config="/opt/cloudhsm/etc/cloudhsm_mgmt_util.cfg",
    daemon="/opt/cloudhsm/bin/cloudhsm_client",
    service="cloudhsm-client",
    cluster_cache="/opt/cloudhsm/daemon/1/cluster.info",
    leftovers=("/opt/cloudhsm/etc/cloudhsm_client.cfg", "/opt/cloudhsm/daemon"),
)


def windows(programs: str, data: str) -> Sdk3Paths:
    """Return the paths below the vendor's folders for programs and data; the cache is not documented (facts 3.3)."""
    return Sdk3Paths(
        configure=rf"{programs}\configure.exe",
        daemon_config=rf"{data}\data\cloudhsm_client.cfg",
        utility=rf"{programs}\cloudhsm_mgmt_util.exe",
        utility_config=rf"{data}\data\cloudhsm_mgmt_util.cfg",
        daemon=rf"{programs}\cloudhsm_client.exe",
        service="AWSCloudHSMClient",
        cluster_cache=None,
        leftovers=(rf"{data}\data\cloudhsm_client.cfg", rf"{programs}\daemon"),
    )
