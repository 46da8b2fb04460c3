"""The components of AWS's client, one row each: a closed list, since a name that resembles one of them proves nothing.

`cloudhsm-exporter` may be a site's own. A package that is not listed here is never reported, judged, repaired or
removed. Which versions there are for which platform is in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClientComponent:
    """One component of one SDK. Its configure tool and configuration file are named after it.

    `linux` is its name in rpm's and dpkg's databases, `windows` that of the vendor's file for Windows without the
    version; None where AWS publishes no such package (facts 1.1, 2.1, 2.3). What it calls itself in the list of
    programs of Windows is not published (facts 11): `title` is a pattern of the full name without `AWS CloudHSM`,
    `keyword` one of the words that tell it from the others. `library` is a part of the name of its shared library.
    `log_type` is where a fresh package logs to (facts 3.1).
    """

    sdk: int
    name: str
    linux: str | None = None
    windows: str | None = None
    title: str = ""
    keyword: str = ""
    library: str | None = None
    log_type: str = "file"


COMPONENTS = (
    ClientComponent(
        5, "cli", linux="cloudhsm-cli", windows="AWSCloudHSMCLI",
        title="cli|command line (interface|tool)", keyword=r"\bcli\b|command line",
    ),
    ClientComponent(
        5, "pkcs11", linux="cloudhsm-pkcs11", windows="AWSCloudHSMPKCS11", library="cloudhsm_pkcs11",
        title="pkcs ?11", keyword="pkcs ?(11)?",
    ),
    ClientComponent(
        # the name of the library is not documented
        5, "jce", linux="cloudhsm-jce", windows="AWSCloudHSMJCE", library="cloudhsm_jce",
        title="jce|java cryptography extension", keyword=r"\bjce\b|java cryptography extension|java",
    ),
    ClientComponent(5, "dyn", linux="cloudhsm-dyn", library="cloudhsm_openssl_engine", log_type="term"),
    ClientComponent(
        # the name of the library is printed with a typing error in the docs (openssl-provider-install)
        5, "openssl-provider", linux="cloudhsm-openssl-provider", library="openssl_provider", log_type="term",
    ),
    ClientComponent(
        5, "ksp", windows="AWSCloudHSMKSP", library="cloudhsm-ksp",
        title="ksp|cng|(cng )?key storage", keyword=r"\bksp\b|key storage|\bcng\b",
    ),
    ClientComponent(
        3, "cli", linux="cloudhsm-client", windows="AWSCloudHSMClient", title="client", keyword="client"
    ),
    ClientComponent(3, "pkcs11", linux="cloudhsm-client-pkcs11"),
    ClientComponent(3, "dyn", linux="cloudhsm-client-dyn"),
    ClientComponent(3, "jce", linux="cloudhsm-client-jce"),
    ClientComponent(
        # the utility on its own, for hosts without the daemon: the cli holds it as well, so no option names it
        3, "mgmt-util", linux="cloudhsm-mgmt-util", windows="AWSCloudHSMManagementUtil",
        title="management util(ity)?|managementutil", keyword="management|util(ity)?",
    ),
)  # fmt: skip

# what can be asked for, in the order in which it is installed and configured
SDK5 = {each.name: each for each in COMPONENTS if each.sdk == 5}
NAMES = tuple(SDK5)
LINUX_PACKAGES = tuple(each.linux for each in COMPONENTS if each.linux is not None)
_BY_PACKAGE = {
    package: each for each in COMPONENTS for package in (each.linux, each.windows) if package is not None
}
# the names of all packages, as alternatives of a regular expression
PACKAGE_PATTERN = "|".join(_BY_PACKAGE)


def component_of(package: str) -> ClientComponent | None:
    """Return the component that a package holds, None for a package that AWS did not publish."""
    return _BY_PACKAGE.get(package)
