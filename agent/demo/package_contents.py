"""The content of a stand-in client package, and its possible faults: names, files and scripts like the vendor's."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cloudhsm import components
from agent.demo.default_config import fresh_cfg, fresh_sdk3_cfg
from agent.demo.elf import shared_object

if TYPE_CHECKING:
    from collections.abc import Mapping

STANDIN = Path(__file__).resolve().parent / "standin"
COMPONENTS = tuple(each.name for each in components.COMPONENTS if each.sdk == 5 and each.linux)
SDK3 = tuple(each.linux for each in components.COMPONENTS if each.sdk == 3 and each.linux)
# The faults of a package; "" is a good one.
FAULTS = (
    "",
    "broken-preinst",  # fails before any file is unpacked
    "broken-postinst",  # fails after its files are in place
    "slow-postinst",  # waits while HOLD (a FIFO) is open for writing
    "unmet-dependency",  # needs a C library that does not exist
    "missing-library",  # its shared object needs a library that does not exist
)
# On the host: make this FIFO, start the installation, open the FIFO for writing (which returns once the
# package's script waits in it), check, and close it: the installation continues. Absent: no wait.
HOLD = "/run/cloudhsm-standin/hold"
MISSING = "libcloudhsm_standin_missing.so.1"

_LIBRARIES = {
    "pkcs11": ("libcloudhsm_pkcs11.so", ("C_GetFunctionList",)),
    "dyn": ("libcloudhsm_openssl_engine.so", ("bind_engine", "v_check")),
    "openssl-provider": ("libcloudhsm_openssl_provider.so", ("OSSL_provider_init",)),
}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "x86_64": "x86_64", "aarch64": "aarch64"}
_DIRECTORIES = ("bin", "etc", "lib", "run")


@dataclass(frozen=True)
class PackageFile:
    """One file of a package."""

    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class PackageContents:
    """The content of a package before it is a deb or an rpm. Paths are absolute; scripts are for /bin/sh."""

    name: str
    version: str
    release: str
    arch: str
    files: Mapping[str, PackageFile]
    directories: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()  # (name, lowest version or "")
    conflicts: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    before_removal: str = ""


def describe(
    package: str, version: str, *, arch: str, interpreter: str, release: str = "1", deb: bool = True
) -> PackageContents:
    """Return the content of a package; `install` writes it without a package manager."""
    libc = "libc6" if deb else "glibc"
    machine = _MACHINES[arch]
    base = PackageContents(
        package,
        version,
        release,
        arch,
        files={},
        directories=tuple(f"/opt/cloudhsm/{one}" for one in _DIRECTORIES),
        needs=((libc, "2.17"),),
    )
    if package in SDK3:
        return _sdk3(base, interpreter, machine, deb=deb)
    component = package[len("cloudhsm-") :]
    if not package.startswith("cloudhsm-") or component not in COMPONENTS:
        raise ValueError(f"unknown package {package}")
    files = {
        f"/opt/cloudhsm/bin/configure-{component}": _program("configure", interpreter, version),
        f"/opt/cloudhsm/etc/cloudhsm-{component}.cfg": PackageFile(fresh_cfg(component).encode()),
    }
    if component == "cli":
        files["/opt/cloudhsm/bin/cloudhsm-cli"] = _program("cloudhsm-cli", interpreter, version)
    if component == "jce":
        files[f"/opt/cloudhsm/java/cloudhsm-jce-{version}.jar"] = PackageFile(_jar())
    if component == "pkcs11":
        files["/opt/cloudhsm/include/pkcs11/cloudhsm_pkcs11_vendor_defs.h"] = PackageFile(
            b"/* a stand-in */\n"
        )
    if component in _LIBRARIES:
        files.update(_library(component, machine))
    # cloudhsm-facts 8 #15: removing an rpm keeps the file as .rpmsave, and installing brings the placeholder
    cfg = f"/opt/cloudhsm/etc/cloudhsm-{component}.cfg"
    kept = "" if deb else f'if [ "$1" = 0 ] && [ -f {cfg} ]; then cp -p {cfg} {cfg}.rpmsave; fi\n'
    return replace(base, files=files, before_removal=kept)


def program(name: str, interpreter: str, **constants: str) -> bytes:
    """Return a script of standin/ with its first line, and with values for the constants in it."""
    first, rest = (STANDIN / name).read_text(encoding="utf-8").split("\n", 1)
    if not first.startswith("#!") or " " in interpreter:
        raise ValueError(f"cannot give {name} the interpreter {interpreter!r}")
    lines = [f"#!{interpreter} -IS"]
    for line in rest.split("\n"):
        constant = line.partition(" = ")[0]
        lines.append(f"{constant} = {constants[constant]!r}" if constant in constants else line)
    return "\n".join(lines).encode()


def _program(name: str, interpreter: str, version: str) -> PackageFile:
    return PackageFile(program(name, interpreter, VERSION=version), 0o755)


def _library(component: str, machine: str, *needed: str) -> dict[str, PackageFile]:
    soname, exports = _LIBRARIES[component]
    data = shared_object(machine, soname, exports=exports, needed=("libc.so.6", *needed))
    return {f"/opt/cloudhsm/lib/{soname}": PackageFile(data, 0o755)}


def _jar() -> bytes:
    """Return a jar with the name of the provider's class in it, always the same bytes."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as jar:
        jar.writestr(
            zipfile.ZipInfo("com/amazonaws/cloudhsm/jce/provider/CloudHsmProvider.class"), b"a stand-in"
        )
    return written.getvalue()


def _sdk3(base: PackageContents, interpreter: str, machine: str, *, deb: bool) -> PackageContents:
    etc, version = "/opt/cloudhsm/etc", base.version
    tools = {
        "/opt/cloudhsm/bin/cloudhsm_mgmt_util": _program("cloudhsm_mgmt_util", interpreter, version),
        "/opt/cloudhsm/bin/configure": _program("configure3", interpreter, version),
        f"{etc}/cloudhsm_mgmt_util.cfg": PackageFile(fresh_sdk3_cfg("cloudhsm_mgmt_util.cfg").encode()),
        f"{etc}/client.crt": PackageFile(b"a stand-in for the client certificate that ships with SDK 3\n"),
        f"{etc}/client.key": PackageFile(b"a stand-in for its key\n", 0o600),
    }
    if base.name == "cloudhsm-mgmt-util":
        return replace(base, files=tools, conflicts=("cloudhsm-cli", "cloudhsm-client"))
    if base.name != "cloudhsm-client":
        # facts 1.1: same version, and they need the daemon
        component = base.name[len("cloudhsm-client-") :]
        files = _library(component, machine) if component in _LIBRARIES else {}
        if component == "jce":
            files[f"/opt/cloudhsm/java/cloudhsm-{version}.jar"] = PackageFile(_jar())
        needs = (*base.needs, ("cloudhsm-client", version))
        return replace(base, files=files, needs=needs, conflicts=("cloudhsm-cli", f"cloudhsm-{component}"))
    units = "/lib/systemd/system" if deb else "/usr/lib/systemd/system"
    files = {
        **tools,
        "/opt/cloudhsm/bin/cloudhsm_client": _program("cloudhsm_client", interpreter, version),
        f"{etc}/cloudhsm_client.cfg": PackageFile(fresh_sdk3_cfg("cloudhsm_client.cfg").encode()),
        f"{units}/cloudhsm-client.service": PackageFile((STANDIN / "cloudhsm-client.service").read_bytes()),
    }
    return replace(
        base,
        files=files,
        directories=(*base.directories, f"{etc}/certs", "/opt/cloudhsm/daemon", "/opt/cloudhsm/daemon/1"),
        conflicts=("cloudhsm-cli", "cloudhsm-mgmt-util"),
        after=_SDK3_AFTER,
        before_removal=_SDK3_BEFORE_REMOVAL,
    )


# useradd if it exists, else by hand: a package may need nothing but /bin/sh
_SDK3_AFTER = """\
if ! grep -q '^hsmuser:' /etc/passwd; then
  if command -v useradd >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir /opt/cloudhsm --shell /usr/sbin/nologin hsmuser
  else
    echo 'hsmuser:x:979:979::/opt/cloudhsm:/usr/sbin/nologin' >>/etc/passwd
    echo 'hsmuser:x:979:' >>/etc/group
  fi
fi
chown -R hsmuser:hsmuser /opt/cloudhsm/etc /opt/cloudhsm/run /opt/cloudhsm/daemon
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
"""
# dpkg passes "remove" or "upgrade", rpm the number of versions that will be left
_SDK3_BEFORE_REMOVAL = """\
if [ -d /run/systemd/system ] && { [ "$1" = remove ] || [ "$1" = 0 ]; }; then
  systemctl stop cloudhsm-client.service || true
fi
"""


def with_fault(package: PackageContents, fault: str) -> PackageContents:
    """Return the package with one of the faults."""
    words = f"echo '{package.name}: stand-in of a package whose script fails' >&2\nexit 1\n"
    if fault == "broken-preinst":
        return replace(package, before=words)
    if fault == "broken-postinst":
        return replace(package, after=words)
    if fault == "slow-postinst":
        return replace(
            package, after=f"{package.after}if [ -p {HOLD} ]; then read -r _ <{HOLD} || true; fi\n"
        )
    if fault == "unmet-dependency":
        return replace(package, needs=tuple((name, "99") for name, _ in package.needs))
    if fault == "missing-library":
        component = package.name.rsplit("cloudhsm-", 1)[-1].replace("client-", "", 1)
        if component not in _LIBRARIES:
            raise ValueError(f"{package.name} has no library that could miss another")
        library = _library(component, _MACHINES[package.arch], MISSING)
        return replace(package, files={**package.files, **library})
    return package
