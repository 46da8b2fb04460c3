"""The client packages that AWS has published: a closed list, since a name that looks like one of them proves nothing.

`cloudhsm-exporter` may be a site's own. What is not listed here is never reported, judged, repaired or removed.
"""

from __future__ import annotations

# name -> (SDK, component), as rpm's and dpkg's databases have it (facts 1.1, 2.1, 2.3)
LINUX = {
    "cloudhsm-cli": (5, "cli"),
    "cloudhsm-pkcs11": (5, "pkcs11"),
    "cloudhsm-jce": (5, "jce"),
    "cloudhsm-dyn": (5, "dyn"),
    "cloudhsm-openssl-provider": (5, "openssl-provider"),
    "cloudhsm-client": (3, "cli"),
    "cloudhsm-client-pkcs11": (3, "pkcs11"),
    "cloudhsm-client-dyn": (3, "dyn"),
    "cloudhsm-client-jce": (3, "jce"),
    # the utility on its own, for hosts without the daemon: the cli holds it as well, so no component of ours
    "cloudhsm-mgmt-util": (3, "mgmt-util"),
}
# the same as the vendor's files for Windows are called, without their version
WINDOWS = {
    "AWSCloudHSMCLI": (5, "cli"),
    "AWSCloudHSMPKCS11": (5, "pkcs11"),
    "AWSCloudHSMJCE": (5, "jce"),
    "AWSCloudHSMKSP": (5, "ksp"),
    "AWSCloudHSMClient": (3, "cli"),
    "AWSCloudHSMManagementUtil": (3, "mgmt-util"),
}
PACKAGES = {**LINUX, **WINDOWS}
