"""Hosts in memory, Ubuntu 24.04 and Windows Server 2022: the vendor's packages, tools and client, as documented."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, ClassVar

from agent.catalogue import load
from agent.cloudhsm.components import component_of
from agent.cloudhsm.paths import LINUX, client_paths
from agent.core.host import CommandResult
from agent.core.registry import RegistryKey
from agent.core.system import windows
from agent.demo import package_contents
from agent.windows.authenticode_query import ARGV
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from agent.cloudhsm.paths import ClientPaths
    from agent.core.system import System

OS_RELEASE = b'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\nID_LIKE=debian\n'
ETC = "/opt/cloudhsm/etc"
CA = f"{ETC}/customerCA.crt"
# what the catalogue's checksum is compared with: these bytes stand for the vendor's file
MIRROR = "/mirror"
# read once: every machine of every example asks it for the digests of its mirror, and every run for what fits
catalogue = functools.cache(load)


STATES = {
    "i": "installed", "U": "unpacked", "F": "half-configured", "H": "half-installed", "t": "triggers-pending",
    "W": "triggers-awaited",
}  # fmt: skip

FLAGS = (
    ("--log-type", "logging", "log_type"),
    ("--log-file", "logging", "log_file"),
    ("--log-level", "logging", "log_level"),
    ("--log-rotation", "logging", "log_interval"),
    ("--client-cert-hsm-tls-file", "cluster", "client_cert_hsm_tls_path"),
    ("--client-key-hsm-tls-file", "cluster", "client_key_hsm_tls_path"),
)
UNINSTALL = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall"
SESSION_MANAGER = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager"
VERSION = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
CRYPTOGRAPHY = r"HKLM\SOFTWARE\Microsoft\Cryptography"
ENVIRONMENT = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Environment"


@dataclass
class Vendor:
    """The outside world of one host: its package database, its HSMs, and how its tools misbehave."""

    addresses: tuple[str, ...] = ("10.0.1.6", "10.0.2.9")
    installed: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    # a tool's name, or `installer` -> lie, fail, fail-with-effect, hang, half
    moods: dict[str, str] = field(default_factory=dict)
    activated: bool = True
    noise: str = ""
    missing_libraries: bool = False
    client_says: str | None = None
    # what dpkg says of the packages in `broken`: U, F, H, t or W
    half: str = "U"
    # of each component's package: path -> content
    libraries: dict[str, dict[str, bytes]] = field(default_factory=dict)

    layout: ClassVar[ClientPaths] = LINUX
    components: ClassVar[tuple[str, ...]] = ("cli", "pkcs11", "jce", "dyn")

    def machine(self, now: dt.datetime) -> Memory:
        memory = Memory(
            {
                "/etc/os-release": OS_RELEASE,
                "/etc/machine-id": b"5" * 32 + b"\n",
                "/usr/bin/apt-get": b"",
                "/opt/.keep": b"",
            },
            answers={("uname", "-m"): CommandResult(0, "x86_64\n", "")},
            programs={
                "dpkg-query": self._dpkg_query,
                "apt-get": self._apt_get,
                "dpkg": self._dpkg,
                "ldd": self._ldd,
                "systemctl": CommandResult(0, "active\n", ""),
                **self._tools(),
            },
            ports={(address, 2223): None for address in self.addresses},
            started=now,
        )
        # now, since the agent whose stand-ins these are may be gone when they are asked for
        self.libraries.update({component: _libraries_of(component) for component in self.components})
        memory.digests = self.digests()
        self._furnish(memory)
        return memory

    def file(self, component: str) -> str:
        """Return a package's name below the mirror; its content is the last part of it."""
        return f"Noble/cloudhsm-{component}_5.18.0-1_u24.04_amd64.deb"

    def checksums(self) -> dict[str, str]:
        """Return file -> SHA-256 for the mirror's files, as `--sha256` gives them."""
        return {content.decode(): digest for content, digest in self.digests().items()}

    def digests(self) -> dict[bytes, str]:
        """Return content -> SHA-256 of the mirror's files: made-up bytes in the place of those that AWS published."""
        files = [self.file(each).rpartition("/")[2] for each in self.components]
        published = catalogue()
        return {
            file.encode(): published.published(file) or hashlib.sha256(file.encode()).hexdigest()
            for file in files
        }

    def _tools(self) -> dict[str, Callable[[Sequence[str], Memory], CommandResult]]:
        configure = {self.layout.tool(each): self._configure for each in self.components}
        return {self.layout.cli: self._cli, **configure}

    def _furnish(self, memory: Memory) -> None:
        for component in self.components:
            file = self.file(component)
            memory.place(f"{MIRROR}/{file}", file.rpartition("/")[2].encode())
        for package in self.installed:
            self._unpack(memory, package)

    def configured(self, memory: Memory, component: str) -> dict[str, Any]:
        tree: dict[str, Any] = json.loads(memory.read(self.layout.settings(component, memory)) or b"{}")
        return tree

    def _unpack(self, memory: Memory, package: str) -> None:
        known = component_of(package)
        component = known.name if known else ""
        here = self.layout
        memory.place(
            here.settings(component, memory), self._settings(["%%HSM_IP_ADDRESS%%"], here.ca, off=False)
        )
        memory.place(here.tool(component), b"#!", mode=0o755)
        memory.place("/opt/cloudhsm/run/.keep", b"")
        for path, data in self.libraries.get(component, {}).items():
            memory.place(path, data)

    def _dpkg_query(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        if argv[1] == "-L":
            known = component_of(argv[2])
            component = known.name if known else ""
            return CommandResult(
                0, "\n".join(("/.", self.layout.tool(component), *self.libraries.get(component, {}))), ""
            )
        rows = []
        for package, version in sorted({**self.installed, **self.broken}.items()):
            letter = self.half if package in self.broken else "i"
            rows.append(f"{package}\t{version}\ti{letter} \tinstall ok {STATES[letter]}\n")
        return CommandResult(
            0 if rows else 1, "".join(rows), "" if rows else "dpkg-query: no packages found\n"
        )

    def _dpkg(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        if argv[1] == "--remove":
            for package in argv[2:]:
                self.installed.pop(package, None)
                self.broken.pop(package, None)
                memory.entries.pop(f"{ETC}/{package}.cfg", None)
            return CommandResult(0, "", "")
        if self.moods.get("installer") == "half":
            return self._half(argv, memory)
        self.installed.update(self.broken)
        self.broken.clear()
        for file in (each for each in argv if each.endswith(".deb")):
            self._unpack(memory, file.rsplit("/", 1)[1].split("_")[0])
        return CommandResult(0, "", "")

    def _half(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        """Unpack what is given, with its fresh configuration; then its script fails."""
        for file in (each for each in argv if each.endswith(".deb")):
            package, version = file.rsplit("/", 1)[1].split("_")[:2]
            self.installed.pop(package, None)
            self.broken[package], self.half = version, "F"
            self._unpack(memory, package)
        return CommandResult(1, "", "dpkg: error processing package\n")

    def _apt_get(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        mood = self.moods.get("installer")
        if mood == "fail":
            return CommandResult(100, "", "E: Sub-process /usr/bin/dpkg returned an error code (1)\n")
        files = [each for each in argv if each.endswith(".deb")]
        for file in files if mood != "lie" else []:
            package, version = file.rsplit("/", 1)[1].split("_")[:2]
            if mood == "half":
                return self._half(argv, memory)
            self.broken.pop(package, None)
            self.installed[package] = version
            self._unpack(memory, package)
        return CommandResult(0, "Setting up\n", "")

    def _configure(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        component = next(each for each in self.components if self.layout.tool(each) == argv[0])
        mood = self.moods.get(f"configure-{component}", "")
        path = self.layout.settings(component, memory)
        words = list(argv[1:])
        servers = words[words.index("-a") + 1 : words.index("--hsm-ca-cert")]
        ca = words[words.index("--hsm-ca-cert") + 1]
        if mood == "hang":
            return CommandResult(None, "", "")
        if mood == "half":
            memory.place(memory._goal(path), b'{"clusters": [{')  # noqa: SLF001 -- as below
        elif mood not in ("lie", "fail"):
            self._add(memory, path, words, servers, ca)
        if mood.startswith("fail"):
            return CommandResult(1, "", "something the documents do not say\n")
        return CommandResult(0, "noise {\n", "")

    def _add(self, memory: Memory, path: str, words: list[str], servers: Sequence[str], ca: str) -> None:
        """Change what was said and leave the rest, in place, as the vendor's tools do."""
        try:
            tree = json.loads(memory.read(path) or b"")
            cluster = tree["clusters"][0]["cluster"]
        except (ValueError, KeyError, TypeError):
            tree = json.loads(self._settings([], ca, off=False))
            cluster = tree["clusters"][0]["cluster"]
        cluster.update(json.loads(self._settings(servers, ca, off=False))["clusters"][0]["cluster"])
        for switch, off in (
            ("--disable-key-availability-check", True),
            ("--enable-key-availability-check", False),
        ):
            if switch in words:
                cluster["options"] = {**cluster.get("options", {}), "disable_key_availability_check": off}
        for flag, holder, key in FLAGS:
            if flag in words:
                inner = tree.setdefault("logging", {}) if holder == "logging" else cluster
                inner[key] = words[words.index(flag) + 1]
        place = memory._goal(path)  # noqa: SLF001 -- a tool writes through a link
        old = memory.entries.get(place)
        rights = {"mode": old.mode, "uid": old.uid, "gid": old.gid} if old else {}
        memory.place(place, json.dumps(tree).encode(), **rights)

    def _ldd(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        if self.missing_libraries:
            return CommandResult(0, "\tlibssl.so.99 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n", "")
        return CommandResult(0, "\tlibc.so.6 => /lib/libc.so.6 (0x1)\n", "")

    def _cli(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        mood = self.moods.get("cloudhsm-cli", "")
        if mood == "hang":
            return CommandResult(None, "", "")
        if self.client_says is not None:
            return CommandResult(1, json.dumps({"error_code": 1, "data": self.client_says}), "")
        tree = self.configured(memory, "cli")
        servers = [each["hostname"] for each in tree["clusters"][0]["cluster"]["servers"]]
        alive = [each for each in servers if each in self.addresses and each not in self.down]
        if not alive or not memory.read(self.layout.ca):
            return CommandResult(1, json.dumps({"error_code": 1, "data": "no HSM"}), "")
        if tuple(argv[1:3]) == ("user", "list"):
            role = "admin" if self.activated else "unactivated-admin"
            data: Any = {"users": [{"username": "admin", "role": role, "cluster-coverage": "full"}]}
        else:
            data = {"hsms": [{"serial-number": f"5.3G{address}"} for address in alive]}
        return CommandResult(0, self.noise + json.dumps({"error_code": 0, "data": data}) + self.noise, "")

    def _settings(self, servers: Sequence[str], ca: str, *, off: bool) -> bytes:
        rows = [{"hostname": each, "port": 2223, "enable": True} for each in servers]
        cluster: dict[str, Any] = {"hsm_ca_file": ca, "servers": rows}
        if off:
            cluster["options"] = {"disable_key_availability_check": True}
        logging = {"log_type": "file", "log_file": self.layout.log("cli"), "log_level": "info"}
        return json.dumps({"clusters": [{"type": "hsm1", "cluster": cluster}], "logging": logging}).encode()


@dataclass
class WindowsVendor(Vendor):
    """The same on Windows Server 2022: the registry, Windows Installer, tools that end in .exe."""

    pending: list[str] = field(default_factory=list)

    system: ClassVar[System] = windows()
    layout: ClassVar[ClientPaths] = client_paths(windows())
    components: ClassVar[tuple[str, ...]] = ("cli", "pkcs11", "jce", "ksp")

    def machine(self, now: dt.datetime) -> Memory:
        memory = Memory(
            programs={
                "msiexec": self._msiexec,
                "powershell": self._powershell,
                **self._tools(),
            },
            ports={(address, 2223): None for address in self.addresses},
            started=now,
            system=self.system,
        )
        memory.digests = self.digests()
        memory.keys = {
            VERSION: RegistryKey(
                {"CurrentBuild": "20348", "InstallationType": "Server", "ProductName": "Windows Server 2022"}
            ),
            ENVIRONMENT: RegistryKey({"PROCESSOR_ARCHITECTURE": "AMD64"}),
            CRYPTOGRAPHY: RegistryKey({"MachineGuid": str(uuid.uuid5(uuid.NAMESPACE_DNS, "a host"))}),
        }
        memory.other_keys = self._registry
        self._furnish(memory)
        return memory

    def file(self, component: str) -> str:
        return f"Windows/AWSCloudHSM{component.upper()}-5.18.0-1.msi"

    def restart(self) -> None:
        """Start Windows anew: what was in use is replaced now."""
        self.pending.clear()

    def _powershell(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        assert tuple(argv) == ARGV
        by = base64.b64encode(b"CN=Amazon Web Services, Inc.").decode()
        return CommandResult(
            0, json.dumps({"status": self.moods.get("signature", "Valid"), "by": by}) + "\n", ""
        )

    def _registry(self, key: str) -> RegistryKey | None:
        """Say what changes in the registry; the firewall is one that nobody has set up."""
        if key == SESSION_MANAGER:
            moves = [name for path in self.pending for name in (rf"\??\{path}.new", rf"!\??\{path}")]
            return RegistryKey({"PendingFileRenameOperations": tuple(moves)})
        programs = {
            rf"{UNINSTALL}\{_code(package)}": RegistryKey({"DisplayName": package, "DisplayVersion": version})
            for package, version in self.installed.items()
        }
        if key == UNINSTALL:
            return RegistryKey(subkeys=tuple(sorted(path.rpartition("\\")[2] for path in programs)))
        return programs.get(key)

    def _msiexec(self, argv: Sequence[str], memory: Memory) -> CommandResult:
        mood = self.moods.get("installer")
        if argv[1] == "/x":
            gone = next(each for each in self.installed if _code(each) == argv[2])
            del self.installed[gone]
            return CommandResult(0, "", "")
        if mood in ("fail", "half"):
            memory.place(argv[-1], b"Error 1920. Service failed to start.\r\n")
            return CommandResult(1603, "", "")
        if mood != "lie":
            package, version, _ = argv[2].rpartition("\\")[2].split("-")
            self.installed[package] = version
            self._unpack(memory, package)
        if mood == "reboot":
            self.pending.append(rf"{self.layout.root}\bin\{package}.dll")
            return CommandResult(3010, "", "")
        return CommandResult(0, "", "")


def _libraries_of(component: str) -> dict[str, bytes]:
    """Return the libraries of a component's package: path -> content."""
    if component not in package_contents.COMPONENTS:
        return {}
    made = package_contents.describe(f"cloudhsm-{component}", "5.18.0", arch="amd64", interpreter="/bin/sh")
    return {path: file.data for path, file in made.files.items() if path.endswith((".so", ".jar"))}


def _code(package: str) -> str:
    """A product code; each package has its own."""
    return f"{{{uuid.uuid5(uuid.NAMESPACE_DNS, package)}}}".upper()
