"""An Ubuntu 24.04 host in memory with apt, the vendor's packages, tools and client, behaving as documented."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.core.host import Done
from tests.doubles.memory import Memory

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

OS_RELEASE = b'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\nID_LIKE=debian\n'
KEY_TEXT = (
    "    Signature Algorithm: sha256WithRSAEncryption\n"
    "            Public Key Algorithm: rsaEncryption\n"
    "                Public-Key: (2048 bit)\n"
)
ETC = "/opt/cloudhsm/etc"
CA = f"{ETC}/customerCA.crt"
# what the catalogue's checksum is compared with: these bytes stand for the vendor's file
MIRROR = "/mirror"


@dataclass
class Vendor:
    """The outside world of one host: its package database, its HSMs, and how its tools misbehave."""

    addresses: tuple[str, ...] = ("10.0.1.6", "10.0.2.9")
    installed: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    # a tool's name -> lie, fail, fail-with-effect, hang, half
    moods: dict[str, str] = field(default_factory=dict)
    activated: bool = True
    noise: str = ""
    missing_libraries: bool = False
    client_says: str | None = None

    def machine(self, now: dt.datetime) -> Memory:
        memory = Memory(
            {"/etc/os-release": OS_RELEASE, "/usr/bin/apt-get": b"", "/opt/.keep": b""},
            answers={("uname", "-m"): Done(0, "x86_64\n", "")},
            programs={
                "dpkg-query": self._dpkg_query,
                "apt-get": self._apt_get,
                "dpkg": self._dpkg,
                "openssl": Done(0, KEY_TEXT, ""),
                "ldd": self._ldd,
                "/opt/cloudhsm/bin/cloudhsm-cli": self._cli,
                "systemctl": Done(0, "active\n", ""),
                **{
                    f"/opt/cloudhsm/bin/configure-{each}": self._configure
                    for each in ("cli", "pkcs11", "jce", "dyn")
                },
            },
            ports={(address, 2223): None for address in self.addresses},
            started=now,
        )
        for component in ("cli", "pkcs11", "jce", "dyn"):
            file = f"cloudhsm-{component}_5.18.0-1_u24.04_amd64.deb"
            memory.place(f"{MIRROR}/Noble/{file}", file.encode())
        for package in self.installed:
            self._unpack(memory, package)
        return memory

    def checksums(self, *components: str) -> tuple[str, ...]:
        """Return --sha256 values for the mirror's made-up files."""
        files = [f"cloudhsm-{each}_5.18.0-1_u24.04_amd64.deb" for each in components]
        return tuple(f"{file}={hashlib.sha256(file.encode()).hexdigest()}" for file in files)

    def configured(self, memory: Memory, component: str) -> dict[str, Any]:
        tree: dict[str, Any] = json.loads(memory.read(f"{ETC}/cloudhsm-{component}.cfg") or b"{}")
        return tree

    def _unpack(self, memory: Memory, package: str) -> None:
        component = package[len("cloudhsm-") :]
        memory.place(f"{ETC}/{package}.cfg", _settings(["%%HSM_IP_ADDRESS%%"], CA, off=False))
        memory.place(f"/opt/cloudhsm/bin/configure-{component}", b"#!")
        memory.place("/opt/cloudhsm/run/.keep", b"")
        if component == "pkcs11":
            memory.place("/opt/cloudhsm/lib/libcloudhsm_pkcs11.so", b"\x7fELF")

    def _dpkg_query(self, argv: Sequence[str], memory: Memory) -> Done:
        rows = []
        for package, version in sorted({**self.installed, **self.broken}.items()):
            words = (
                ("iU", "install ok unpacked") if package in self.broken else ("ii", "install ok installed")
            )
            rows.append(f"{package}\t{version}\t{words[0]} \t{words[1]}\n")
        return Done(0 if rows else 1, "".join(rows), "" if rows else "dpkg-query: no packages found\n")

    def _dpkg(self, argv: Sequence[str], memory: Memory) -> Done:
        if argv[1] == "--remove":
            for package in argv[2:]:
                self.installed.pop(package, None)
                memory.entries.pop(f"{ETC}/{package}.cfg", None)
            return Done(0, "", "")
        self.installed.update(self.broken)
        self.broken.clear()
        return Done(0, "", "")

    def _apt_get(self, argv: Sequence[str], memory: Memory) -> Done:
        mood = self.moods.get("apt-get")
        if mood == "fail":
            return Done(100, "", "E: Sub-process /usr/bin/dpkg returned an error code (1)\n")
        files = [each for each in argv if each.endswith(".deb")]
        for file in files if mood != "lie" else []:
            package, version = file.rsplit("/", 1)[1].split("_")[:2]
            if mood == "half":
                self.broken[package] = version
                return Done(1, "", "dpkg: error processing package\n")
            self.installed[package] = version
            self._unpack(memory, package)
        return Done(0, "Setting up\n", "")

    def _configure(self, argv: Sequence[str], memory: Memory) -> Done:
        tool = argv[0].rsplit("/", 1)[1]
        mood = self.moods.get(tool, "")
        path = f"{ETC}/cloudhsm-{tool[len('configure-') :]}.cfg"
        words = list(argv[1:])
        servers = words[words.index("-a") + 1 : words.index("--hsm-ca-cert")]
        ca = words[words.index("--hsm-ca-cert") + 1]
        off = "--disable-key-availability-check" in words
        if mood == "hang":
            return Done(None, "", "")
        if mood == "half":
            memory.place(path, b'{"clusters": [{')
        elif mood not in ("lie", "fail"):
            memory.place(path, _settings(servers, ca, off=off))
        if mood.startswith("fail"):
            return Done(1, "", "something the documents do not say\n")
        return Done(0, "noise {\n", "")

    def _ldd(self, argv: Sequence[str], memory: Memory) -> Done:
        if self.missing_libraries:
            return Done(0, "\tlibssl.so.99 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n", "")
        return Done(0, "\tlibc.so.6 => /lib/libc.so.6 (0x1)\n", "")

    def _cli(self, argv: Sequence[str], memory: Memory) -> Done:
        mood = self.moods.get("cloudhsm-cli", "")
        if mood == "hang":
            return Done(None, "", "")
        if self.client_says is not None:
            return Done(1, json.dumps({"error_code": 1, "data": self.client_says}), "")
        tree = self.configured(memory, "cli")
        servers = [each["hostname"] for each in tree["clusters"][0]["cluster"]["servers"]]
        alive = [each for each in servers if each in self.addresses and each not in self.down]
        if not alive or not memory.read(CA):
            return Done(1, json.dumps({"error_code": 1, "data": "no HSM"}), "")
        if tuple(argv[1:3]) == ("user", "list"):
            role = "admin" if self.activated else "unactivated-admin"
            data: Any = {"users": [{"username": "admin", "role": role, "cluster-coverage": "full"}]}
        else:
            data = {"hsms": [{"serial-number": f"5.3G{address}"} for address in alive]}
        return Done(0, self.noise + json.dumps({"error_code": 0, "data": data}) + self.noise, "")


def _settings(servers: Sequence[str], ca: str, *, off: bool) -> bytes:
    rows = [{"hostname": each, "port": 2223, "enable": True} for each in servers]
    cluster: dict[str, Any] = {"hsm_ca_file": ca, "servers": rows}
    if off:
        cluster["options"] = {"disable_key_availability_check": True}
    tree = {
        "clusters": [{"type": "hsm1", "cluster": cluster}],
        "logging": {
            "log_type": "file",
            "log_file": "/opt/cloudhsm/run/cloudhsm-cli.log",
            "log_level": "info",
        },
    }
    return json.dumps(tree).encode()
