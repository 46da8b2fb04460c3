"""Stand-in client packages: the real dpkg-deb and rpmbuild, into a mirror laid out as the vendor's."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.lab.elf import shared_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STANDIN = Path(__file__).resolve().parent / "standin"
COMPONENTS = ("cli", "pkcs11", "jce", "dyn", "openssl-provider")
SDK3 = (
    "cloudhsm-client",
    "cloudhsm-client-pkcs11",
    "cloudhsm-client-dyn",
    "cloudhsm-client-jce",
    "cloudhsm-mgmt-util",
)
# What can be wrong with a package; "" is a good one.
FAULTS = (
    "",
    "broken-preinst",  # refuses before anything is unpacked
    "broken-postinst",  # fails after its files are there
    "slow-postinst",  # waits while somebody holds HOLD (a FIFO) open for writing
    "unmet-dependency",  # needs a C library that does not exist
    "missing-library",  # its shared object needs a library that does not exist
)
# On the host: make this FIFO, start the installation, open the FIFO for writing (which returns once the
# package's script waits in it), look, and close it: the installation goes on. Absent: no wait.
HOLD = "/run/cloudhsm-standin/hold"
MISSING = "libcloudhsm_standin_missing.so.1"
EPOCH = 1_767_225_600  # 2026-01-01, the time of every file and package: the same input gives the same bytes
LIMIT_SECONDS = 300.0
_MEBIBYTE = 1024 * 1024

_LIBRARIES = {
    "pkcs11": ("libcloudhsm_pkcs11.so", ("C_GetFunctionList",)),
    "dyn": ("libcloudhsm_openssl_engine.so", ("bind_engine", "v_check")),
    "openssl-provider": ("libcloudhsm_openssl_provider.so", ("OSSL_provider_init",)),
}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "x86_64": "x86_64", "aarch64": "aarch64"}
_DIRECTORIES = ("bin", "etc", "lib", "run")


class BuildError(Exception):
    """A package tool is missing or refused; its own words."""


@dataclass(frozen=True)
class File:
    """One file of a package."""

    data: bytes
    mode: int = 0o644


@dataclass(frozen=True)
class Package:
    """What is in a package before it is a deb or an rpm. Paths are absolute; scripts are for /bin/sh."""

    name: str
    version: str
    release: str
    arch: str
    files: Mapping[str, File]
    directories: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()  # (name, least version or "")
    conflicts: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    before_removal: str = ""


def build(
    mirror: Path,
    path: str,
    package: str,
    version: str,
    *,
    interpreter: str = "/usr/bin/python3",
    fault: str = "",
    padding_mb: int = 0,
) -> str:
    """Build one stand-in package at `mirror`/`path` and return its SHA-256 in hex.

    `path` is as the vendor names it, such as `Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb`,
    `Amzn2023/cloudhsm-cli-5.18.0-1.amzn2023.x86_64.rpm` or a `latest` name; format, processor and rpm suffix
    are taken from it. `package` is its own name, `version` is `5.18.0` or `5.18.0-1`. `interpreter` is the
    Python of the host it will be installed on. `padding_mb` makes it as large as a real one. Safe to call
    from several threads for several paths.
    """
    name = Path(path).name
    if fault not in FAULTS:
        raise ValueError(f"unknown fault {fault}, known: {' '.join(FAULTS)}")
    number, _, release = version.partition("-")
    target = mirror / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as folder:
        work = Path(folder)
        if name.endswith(".deb"):
            arch = name[: -len(".deb")].rsplit("_", 1)[-1]
            wanted = describe(
                package, number, arch=arch, interpreter=interpreter, release=release or "1", deb=True
            )
            built = _deb(_broken(wanted, fault), work, padding_mb)
        elif name.endswith(".rpm"):
            suffix, arch = name[: -len(".rpm")].rsplit(".", 2)[-2:]
            release = f"{release or '1'}.{suffix}"
            wanted = describe(package, number, arch=arch, interpreter=interpreter, release=release, deb=False)
            built = _rpm(_broken(wanted, fault), work, padding_mb)
        else:
            raise ValueError(f"neither .deb nor .rpm: {path}")
        built.chmod(0o644)
        built.replace(target)
    digest = hashlib.sha256()
    with target.open("rb") as file:
        while block := file.read(_MEBIBYTE):
            digest.update(block)
    return digest.hexdigest()


def describe(
    package: str, version: str, *, arch: str, interpreter: str, release: str = "1", deb: bool = True
) -> Package:
    """Say what is in a package; `install` lays it out without a package manager."""
    libc = "libc6" if deb else "glibc"
    machine = _MACHINES[arch]
    base = Package(
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
        f"/opt/cloudhsm/etc/cloudhsm-{component}.cfg": File(fresh_cfg(component).encode()),
    }
    if component == "cli":
        files["/opt/cloudhsm/bin/cloudhsm-cli"] = _program("cloudhsm-cli", interpreter, version)
    if component == "jce":
        files[f"/opt/cloudhsm/java/cloudhsm-jce-{version}.jar"] = File(b"a stand-in, not a jar\n")
    if component == "pkcs11":
        files["/opt/cloudhsm/include/pkcs11/cloudhsm_pkcs11_vendor_defs.h"] = File(b"/* a stand-in */\n")
    if component in _LIBRARIES:
        files.update(_library(component, machine))
    # cloudhsm-facts 8 #15: removing an rpm keeps the file as .rpmsave, and installing brings the placeholder
    cfg = f"/opt/cloudhsm/etc/cloudhsm-{component}.cfg"
    kept = "" if deb else f'if [ "$1" = 0 ] && [ -f {cfg} ]; then cp -p {cfg} {cfg}.rpmsave; fi\n'
    return replace(base, files=files, before_removal=kept)


def install(root: Path, package: Package) -> None:
    """Lay a package's files out below `root`, without its scripts: for tests of the stand-ins themselves."""
    _lay_out(root, package, 0)


def fresh_cfg(
    component: str, *, ca: str = "/opt/cloudhsm/etc/customerCA.crt", logs: str = "/opt/cloudhsm/run/"
) -> str:
    """Return the configuration file a fresh SDK 5 package ships: never configured, cloudhsm-facts 3.4.

    `ca` and `logs` are the default CA and the start of the log's path, of the system the package is for.
    """
    logging: dict[str, str] = {"log_type": "file", "log_file": f"{logs}cloudhsm-{component}.log"}
    if component in ("dyn", "openssl-provider"):  # facts 3.1: these two log to standard error by default
        logging = {"log_type": "term"}
    logging.update(log_level="info", log_interval="daily")
    server = {"hostname": "%%HSM_IP_ADDRESS%%", "port": 2223, "enable": True}
    cluster = {"hsm_ca_file": ca, "servers": [server]}
    document = {"clusters": [{"type": "hsm1", "cluster": cluster}], "logging": logging}
    return json.dumps(document, indent=2) + "\n"


def fresh_sdk3_cfg(name: str, *, etc: str = "/opt/cloudhsm/etc/") -> str:
    """Return what SDK 3 ships as cloudhsm_client.cfg or cloudhsm_mgmt_util.cfg, cloudhsm-facts 3.5.

    `etc` is the start of the paths of its certificates, of the system the package is for.
    """
    pair = {"certificate": f"{etc}client.crt", "pkey": f"{etc}client.key"}
    if name == "cloudhsm_mgmt_util.cfg":
        server = {"name": "%%SERVER_ADDR%%", "hostname": "%%SERVER_ADDR%%", "port": 2225, **pair}
        server.update(CAfile="", CApath=f"{etc}certs", ssl_ciphers="", server_ssl="yes", enable="yes")
        server["e2e_encryption"] = {"enable": "yes", "owner_cert_path": f"{etc}customerCA.crt"}
        card = {"enable": "no", "certificate": "cert-sc", "pkey": "pkey-sc", "port": 2225}
        return json.dumps({"scard": card, "servers": [server]}, indent=2) + "\n"
    client = {
        "socket_type": "UNIXSOCKET",
        "tcp_port": 1111,
        "zoneid": 0,
        "workers": 1,
        "daemon_id": 1,
        "reconnect_attempts": -1,
        "reconnect_interval": 3,
        "log_level": "INFO",
        "sslreneg": 0,
        "CriticalAlertScript": "",
        "create_object_minimum_nodes": 1,
        "e2e_owner_crt_path": f"{etc}customerCA.crt",
        "enable_3des_key_reuse": "no",
    }
    balance = {
        "enable": "yes",
        "prefer_same_zone": "no",
        "relative_idleness_weight": 1,
        "sucess_rate_weight": 1,  # the vendor spells it so
    }
    dual = {
        "enable": "no",
        "port": 2225,
        **pair,
        "dualfactor_ssl": "yes",
        "dualfactor_ch_ssl_ciphers": "default",
    }
    ssl = {**pair, "CApath": f"{etc}certs", "server_ssl": "yes", "server_ch_ssl_ciphers": "default"}
    server = {"hostname": "%%SERVER_ADDR%%", "port": 2223}
    document = {"ssl": ssl, "client": client, "loadbalance": balance, "dualfactor": dual, "server": server}
    return json.dumps(document, indent=2) + "\n"


def program(name: str, interpreter: str, **constants: str) -> bytes:
    """Return a script of standin/ with its first line, and those of its constants it has, as a package wants them."""
    first, rest = (STANDIN / name).read_text(encoding="utf-8").split("\n", 1)
    if not first.startswith("#!") or " " in interpreter:
        raise BuildError(f"cannot give {name} the interpreter {interpreter!r}")
    lines = [f"#!{interpreter} -IS"]
    for line in rest.split("\n"):
        constant = line.partition(" = ")[0]
        lines.append(f"{constant} = {constants[constant]!r}" if constant in constants else line)
    return "\n".join(lines).encode()


def _program(name: str, interpreter: str, version: str) -> File:
    return File(program(name, interpreter, VERSION=version), 0o755)


def _library(component: str, machine: str, *needed: str) -> dict[str, File]:
    soname, exports = _LIBRARIES[component]
    data = shared_object(machine, soname, exports=exports, needed=("libc.so.6", *needed))
    return {f"/opt/cloudhsm/lib/{soname}": File(data, 0o755)}


def _sdk3(base: Package, interpreter: str, machine: str, *, deb: bool) -> Package:
    etc, version = "/opt/cloudhsm/etc", base.version
    tools = {
        "/opt/cloudhsm/bin/cloudhsm_mgmt_util": _program("cloudhsm_mgmt_util", interpreter, version),
        "/opt/cloudhsm/bin/configure": _program("configure3", interpreter, version),
        f"{etc}/cloudhsm_mgmt_util.cfg": File(fresh_sdk3_cfg("cloudhsm_mgmt_util.cfg").encode()),
        f"{etc}/client.crt": File(b"a stand-in for the client certificate that ships with SDK 3\n"),
        f"{etc}/client.key": File(b"a stand-in for its key\n", 0o600),
    }
    if base.name == "cloudhsm-mgmt-util":
        return replace(base, files=tools, conflicts=("cloudhsm-cli", "cloudhsm-client"))
    if base.name != "cloudhsm-client":
        # facts 1.1: same version, and they need the daemon
        component = base.name[len("cloudhsm-client-") :]
        files = _library(component, machine) if component in _LIBRARIES else {}
        if component == "jce":
            files[f"/opt/cloudhsm/java/cloudhsm-{version}.jar"] = File(b"a stand-in, not a jar\n")
        needs = (*base.needs, ("cloudhsm-client", version))
        return replace(base, files=files, needs=needs, conflicts=("cloudhsm-cli", f"cloudhsm-{component}"))
    units = "/lib/systemd/system" if deb else "/usr/lib/systemd/system"
    files = {
        **tools,
        "/opt/cloudhsm/bin/cloudhsm_client": _program("cloudhsm_client", interpreter, version),
        f"{etc}/cloudhsm_client.cfg": File(fresh_sdk3_cfg("cloudhsm_client.cfg").encode()),
        f"{units}/cloudhsm-client.service": File((STANDIN / "cloudhsm-client.service").read_bytes()),
    }
    return replace(
        base,
        files=files,
        directories=(*base.directories, f"{etc}/certs", "/opt/cloudhsm/daemon", "/opt/cloudhsm/daemon/1"),
        conflicts=("cloudhsm-cli", "cloudhsm-mgmt-util"),
        after=_SDK3_AFTER,
        before_removal=_SDK3_BEFORE_REMOVAL,
    )


# useradd when it is there, else by hand: a package may need nothing but /bin/sh
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
# dpkg says "remove" or "upgrade", rpm how many will be left
_SDK3_BEFORE_REMOVAL = """\
if [ -d /run/systemd/system ] && { [ "$1" = remove ] || [ "$1" = 0 ]; }; then
  systemctl stop cloudhsm-client.service || true
fi
"""


def _broken(package: Package, fault: str) -> Package:
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


def _lay_out(root: Path, package: Package, padding_mb: int) -> None:
    for directory in package.directories:
        (root / directory[1:]).mkdir(parents=True, exist_ok=True)
    for path, file in package.files.items():
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.data)
        target.chmod(file.mode)
    if padding_mb:
        with (root / _padding(package)[1:]).open("wb") as padding:
            for number in range(padding_mb):
                padding.write(random.Random(number).randbytes(_MEBIBYTE))  # noqa: S311, the same every time
    for folder, _, names in os.walk(root):
        for name in (*names, "."):
            os.utime(Path(folder) / name, (EPOCH, EPOCH))


def _padding(package: Package) -> str:
    return f"/opt/cloudhsm/lib/.{package.name}.padding"


def _deb(package: Package, work: Path, padding_mb: int) -> Path:
    tree, built = work / "tree", work / "built.deb"
    tree.mkdir(mode=0o755)
    _lay_out(tree, package, padding_mb)
    control = tree / "DEBIAN"
    control.mkdir(mode=0o755)
    depends = ", ".join(f"{name} (>= {least})" for name, least in package.needs)
    fields = {
        "Package": package.name,
        "Version": f"{package.version}-{package.release}",
        "Architecture": package.arch,
        "Maintainer": "hsm-agent lab <lab@example.invalid>",
        "Section": "utils",
        "Priority": "optional",
        "Depends": depends,
        "Conflicts": ", ".join(package.conflicts),
        "Description": "stand-in for the AWS CloudHSM client, for demonstration and test",
    }
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items() if value))
    scripts = {"preinst": package.before, "postinst": package.after, "prerm": package.before_removal}
    for name, body in scripts.items():
        if body:
            (control / name).write_text(f"#!/bin/sh\nset -e\n{body}")
            (control / name).chmod(0o755)
    for file in (control, *control.iterdir()):
        os.utime(file, (EPOCH, EPOCH))
    # no compression: fast, and the size is the size
    _run(["dpkg-deb", "-Znone", "--root-owner-group", "--build", str(tree), str(built)])
    return built


def _rpm(package: Package, work: Path, padding_mb: int) -> Path:
    tree = work / "tree"
    tree.mkdir(mode=0o755)
    _lay_out(tree, package, padding_mb)
    requires = "".join(f"Requires: {name} >= {least}\n" for name, least in package.needs)
    conflicts = "".join(f"Conflicts: {name}\n" for name in package.conflicts)
    listed = [f'%dir %attr(0755,root,root) "{path}"' for path in package.directories]
    listed += [f'%attr({file.mode:04o},root,root) "{path}"' for path, file in package.files.items()]
    if padding_mb:
        listed.append(f'%attr(0644,root,root) "{_padding(package)}"')
    scripts = {"%pre": package.before, "%post": package.after, "%preun": package.before_removal}
    spec = work / "package.spec"
    spec.write_text(
        f"Name: {package.name}\nVersion: {package.version}\nRelease: {package.release}\n"
        "Summary: stand-in for the AWS CloudHSM client, for demonstration and test\nLicense: test\n"
        f"AutoReqProv: no\n{requires}{conflicts}"
        "%global debug_package %{nil}\n%global __os_install_post %{nil}\n%global _build_id_links none\n"
        "%global _binary_payload w1.gzdio\n%global use_source_date_epoch_as_buildtime 1\n"
        "%global clamp_mtime_to_source_date_epoch 1\n%global _buildhost lab\n"
        f"%description\nstand-in\n%install\nmkdir -p %{{buildroot}}\ncp -a {tree}/. %{{buildroot}}/\n"
        + "".join(f"{name}\n{_escaped(body)}" for name, body in scripts.items() if body)
        + "%files\n"
        + "\n".join(listed)
        + "\n"
    )
    defines = {"_topdir": str(work / "rpm"), "_dbpath": str(work / "db")}
    argv = ["rpmbuild", "-bb", "--quiet", "--target", package.arch]
    for key, value in defines.items():
        argv += ["--define", f"{key} {value}"]
    _run([*argv, str(spec)])
    return next((work / "rpm" / "RPMS").rglob("*.rpm"))


def _escaped(script: str) -> str:
    return script.replace("%", "%%")


def _run(argv: Sequence[str]) -> None:
    if shutil.which(argv[0]) is None:
        raise BuildError(f"{argv[0]} is not installed here")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C"}
    done = subprocess.run(argv, capture_output=True, check=False, timeout=LIMIT_SECONDS, env=environment)
    if done.returncode != 0:
        raise BuildError(f"{argv[0]}: {done.stderr.decode(errors='replace')[-2000:]}")
