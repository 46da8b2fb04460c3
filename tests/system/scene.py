"""A cluster in the lab: HSM stand-ins with their own addresses, a mirror of stand-in packages, and one host."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.demo import mirror, packages, pki
from agent.demo.hsm_server import HsmServer, set_mode

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence

    from .host import LabHost
    from .lab import Lab
    from .network import HsmSeat

CA = "/opt/cloudhsm/etc/customerCA.crt"
ETC = "/opt/cloudhsm/etc"
STATE = "/var/lib/hsm-agent"
MIRROR_PORT = 8080

# image -> the catalogue row its host is, and the vendor's folder and file ending for it
ROWS: Mapping[str, tuple[str, str, str]] = {
    "bullseye": ("u22.04", "Jammy", "_{version}_u22.04_amd64.deb"),
    "ubuntu22.04": ("u22.04", "Jammy", "_{version}_u22.04_amd64.deb"),
    "ubuntu24.04": ("u24.04", "Noble", "_{version}_u24.04_amd64.deb"),
    "amzn2023": ("amzn2023", "Amzn2023", "-{version}.amzn2023.x86_64.rpm"),
    "rhel8": ("el8", "EL8", "-{version}.el8.x86_64.rpm"),
    "rhel9": ("el9", "EL9", "-{version}.el9.x86_64.rpm"),
    "rhel10": ("el10", "EL10", "-{version}.el10.x86_64.rpm"),
}


@dataclass
class Scene:
    """What surrounds a host. `folder` holds mirror, certificates and switches on the machine that runs the tests."""

    lab: Lab
    folder: Path
    made: pki.Pki
    hsms: tuple[HsmSeat, ...]
    sums: dict[str, str] = field(default_factory=dict)
    url: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(seat.ip for seat in self.hsms)

    def package(
        self,
        image: str,
        package: str = "cloudhsm-cli",
        version: str = "5.18.0-1",
        *,
        fault: str = "",
        padding_mb: int = 0,
    ) -> str:
        """Build a stand-in package into the mirror and return its file name; its checksum is kept."""
        _, directory, ending = ROWS[image.split("+", maxsplit=1)[0]]
        file = package + ending.format(version=version)
        path = f"{directory}/{file}"
        self.sums[file] = packages.build(
            self.folder / "mirror", path, package, version, fault=fault, padding_mb=padding_mb
        )
        return file

    def mode(self, mode: str, *which: int) -> None:
        """Switch HSMs to a mode of `agent.demo.hsm_server`; all of them when none is named."""
        for number in which or range(len(self.hsms)):
            set_mode(self.folder / f"mode-{self.hsms[number].ip}", mode)

    def mirror_faults(self, **faults: str) -> None:
        mirror.set_faults(
            self.folder / "mirror.json", {name.replace("_", "*"): fault for name, fault in faults.items()}
        )

    def options(self, image: str) -> list[str]:
        """Return the options that a first run on a host of this image needs."""
        named = [word for address in self.addresses for word in ("--hsm-ip", address)]
        return [*named, *self.sources(image)]

    def sources(self, image: str) -> list[str]:
        """Return those that say where the CA and the packages come from, and leave open where the HSMs are."""
        row, _, _ = ROWS[image.split("+", maxsplit=1)[0]]
        argv = ["--ca-cert", "/root/customerCA.crt", "--package-source", self.url]
        argv += [word for file, digest in self.sums.items() for word in ("--sha256", f"{file}={digest}")]
        return [*argv, *(("--platform", row) if image == "bullseye" else ())]


@contextlib.contextmanager
def cluster(
    lab: Lab, folder: Path, count: int = 2, kind: str = "normal", addresses: Sequence[str] = ()
) -> Any:
    """Give a Scene with `count` HSMs, or those at these addresses, and a mirror, and end it."""
    made = pki.make(folder / "pki", kind)
    (folder / "mirror").mkdir()
    places: Sequence[str | None] = addresses or [None] * count
    seats = tuple(lab.hsm(ip) for ip in places)
    scene = Scene(lab, folder, made, seats)
    try:
        for seat in seats:
            serve(scene, seat)
        wanted = mirror.Mirror(
            folder / "mirror", folder / "mirror.json", lab.operator.ip, MIRROR_PORT, log=folder / "log"
        )
        server = lab.operator.start(
            ["python3", "-m", "agent.demo.mirror", *wanted.arguments()], [MIRROR_PORT], _PATH
        )
        scene.url = wanted.url(MIRROR_PORT)
        yield scene
        server.terminate()
    finally:
        lab.operator.stop()
        for seat in seats:
            lab.end(seat)


_PATH = {"PYTHONPATH": str(Path(__file__).parents[2])}


def serve(scene: Scene, seat: HsmSeat) -> None:
    """Start the HSM stand-in of a seat."""
    hsm = HsmServer(
        seat.ip,
        scene.made.hsm,
        scene.made.other_hsm,
        scene.made.client_ca.cert,
        scene.folder / f"mode-{seat.ip}",
    )
    seat.serve(["python", "-m", "agent.demo.hsm_server", *hsm.arguments()], env=_PATH)


def prepare(host: LabHost, scene: Scene) -> None:
    """Put onto a host what an operator brings along: the CA, one of another cluster, a client certificate."""
    host.put("/root/customerCA.crt", scene.made.ca.cert.read_bytes())
    host.put("/root/otherCA.crt", scene.made.other_ca.cert.read_bytes())
    host.put("/root/client.crt", scene.made.client.cert.read_bytes())
    host.put("/root/client.key", scene.made.client.key.read_bytes(), 0o600)


@dataclass(frozen=True)
class Ran:
    """One call of hsm-agent on a host."""

    exit_status: int
    report: dict[str, Any]
    err: str

    @property
    def code(self) -> str | None:
        code: str | None = self.report["code"]
        return code

    def outcome(self, step: str) -> str:
        found: str = next(each["outcome"] for each in self.report["steps"] if each["id"] == step)
        return found

    def step(self, step: str) -> dict[str, Any]:
        return next(dict(each) for each in self.report["steps"] if each["id"] == step)

    @property
    def outcomes(self) -> set[str]:
        return {each["outcome"] for each in self.report["steps"]}

    @property
    def told(self) -> set[str]:
        return {each["code"] for each in self.report["warnings"]}


def agent(
    host: LabHost, *argv: str, env: Mapping[str, str] | None = None, timeout: float = 120, stdin: bytes = b""
) -> Ran:
    """Run `hsm-agent … --output json --quiet` as root on a host."""
    return read(host.run(["hsm-agent", *argv, "--output", "json", "--quiet"], stdin, timeout, env))


def read(done: subprocess.CompletedProcess[str]) -> Ran:
    assert done.stdout, f"exit {done.returncode}: {done.stderr}"
    return Ran(done.returncode, json.loads(done.stdout), done.stderr)


def settings(host: LabHost, component: str = "cli") -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(host.get(f"{ETC}/cloudhsm-{component}.cfg"))
    return tree


def servers(host: LabHost, component: str = "cli") -> list[str]:
    """Return the addresses in a configuration file, read by us and not by the agent."""
    return [each["hostname"] for each in settings(host, component)["clusters"][0]["cluster"]["servers"]]


def proven(host: LabHost, scene: Scene) -> bool:
    """Judge a host by other means than the agent."""
    package = host.testinfra.package("cloudhsm-cli")
    ca = host.testinfra.file(CA)
    answer = host.run(["/opt/cloudhsm/bin/cloudhsm-cli", "cluster", "hsm-info"])
    return bool(
        package.is_installed
        and ca.content == scene.made.ca.cert.read_bytes()
        and servers(host) == list(scene.addresses)
        and answer.stdout.count("serial-number") == len(scene.addresses)
    )


def misbehave(host: LabHost, tool: str, word: str | None) -> None:
    """Make a stand-in tool of the host misbehave, or behave again."""
    path = f"/etc/cloudhsm-standin/{tool}"
    if word is None:
        host.must(["rm", "-f", path])
    else:
        host.put(path, word.encode())


_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def hold(host: LabHost, path: str) -> subprocess.Popen[bytes]:
    """Lock as apt, dpkg and rpm do, from a real process, until its standard input is closed."""
    holder = host.start(["python3", "-c", _LOCK, path])
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def release(holder: subprocess.Popen[bytes]) -> None:
    assert holder.stdin is not None
    holder.stdin.close()
    holder.wait()
