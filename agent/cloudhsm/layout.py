"""Where the vendor's software keeps its things (AWS CloudHSM User Guide: cluster-connect, configure-tool-syntax5)."""

from __future__ import annotations

from dataclasses import dataclass

COMPONENTS = ("cli", "pkcs11", "jce", "dyn", "openssl-provider", "ksp")

# Which port SDK 5 clients and the SDK 3 daemon talk to; the SDK 3 management utility uses 2225.
PORT = 2223
PORT_CMU = 2225


@dataclass(frozen=True)
class Layout:
    """The paths of one SDK generation on one kind of host."""

    root: str
    ca: str
    cli: str
    etc: str
    run: str
    lib: str

    def tool(self, component: str) -> str:
        """Return the configure tool of an SDK 5 component."""
        return f"{self.root}/bin/configure-{component}"

    def settings(self, component: str) -> str:
        """Return the configuration file of an SDK 5 component (dyn and openssl-provider by pattern only)."""
        return f"{self.etc}/cloudhsm-{component}.cfg"

    def log(self, component: str) -> str:
        """Return the log a component writes by default (dyn and openssl-provider write to standard error)."""
        return f"{self.run}/cloudhsm-{component}.log"


LINUX = Layout(
    root="/opt/cloudhsm",
    ca="/opt/cloudhsm/etc/customerCA.crt",
    cli="/opt/cloudhsm/bin/cloudhsm-cli",
    etc="/opt/cloudhsm/etc",
    run="/opt/cloudhsm/run",
    lib="/opt/cloudhsm/lib",
)

# Part of the name of each component's shared library. The provider's is printed with a typing error in the docs
# (openssl-provider-install), and that of jce is not documented: parts of names tolerate both.
LIBRARIES = {
    "pkcs11": "cloudhsm_pkcs11",
    "dyn": "cloudhsm_openssl_engine",
    "openssl-provider": "openssl_provider",
    "jce": "cloudhsm_jce",
}

# SDK 3 on Linux (configure-sdk-3): one tool, one daemon, two configuration files
CONFIGURE3 = "/opt/cloudhsm/bin/configure"
CLIENT3_SETTINGS = "/opt/cloudhsm/etc/cloudhsm_client.cfg"
CMU_SETTINGS = "/opt/cloudhsm/etc/cloudhsm_mgmt_util.cfg"
CMU = "/opt/cloudhsm/bin/cloudhsm_mgmt_util"
DAEMON3 = "/opt/cloudhsm/bin/cloudhsm_client"
SERVICE3 = "cloudhsm-client"
CLUSTER_CACHE = "/opt/cloudhsm/daemon/1/cluster.info"


def component_of(package: str) -> tuple[int, str] | None:
    """Return (SDK, component) of a package in the database, None for one that is not a client component."""
    sdk3 = {
        "cloudhsm-client": "cli",
        "cloudhsm-client-pkcs11": "pkcs11",
        "cloudhsm-client-dyn": "dyn",
        "cloudhsm-client-jce": "jce",
        # the utility on its own, for hosts without the daemon: the cli holds it as well, so no component of ours
        "cloudhsm-mgmt-util": "mgmt-util",
    }
    if package in sdk3:
        return 3, sdk3[package]
    name = package[len("cloudhsm-") :] if package.startswith("cloudhsm-") else ""
    return (5, name) if name in COMPONENTS else None
