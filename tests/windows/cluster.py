"""The stand-in cluster beside Wine: its HSMs are processes of Linux in the same sandbox, switched by files that both see."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.demo import hsm_server, pki

# Two HSMs of one cluster, one of a type that old clients cannot talk to, and an address where nothing listens.
FIRST, SECOND, NEW_TYPE, NOBODY = "10.77.0.2", "10.77.0.3", "10.77.0.4", "10.77.0.9"
TYPES = {FIRST: "hsm1.medium", SECOND: "hsm1.medium", NEW_TYPE: "hsm2m.medium"}
USERS = ("app",)
FOLDER = "cluster"
# What stands before a program that runs inside while the cluster runs beside it; `prepare` comes first. The variable
# tells the Python of Windows where its compiled files go, and has no meaning to that of Linux.
BESIDE = ("env", "-u", "PYTHONPYCACHEPREFIX", "python3", "-m", "tests.windows.cluster")


@dataclass(frozen=True)
class Cluster:
    r"""The folder where it lies: /scratch/cluster for its HSMs, Z:\scratch\cluster for a suite inside Wine."""

    folder: Path

    @property
    def ca(self) -> Path:
        """Return the CA that issued the HSMs' certificate."""
        return self.folder / "customerCA.crt"

    @property
    def other_ca(self) -> Path:
        return self.folder / "otherCA.crt"

    @property
    def client(self) -> pki.KeyPair:
        """Return what an HSM in the mode mtls asks for."""
        return pki.KeyPair(self.folder / "client.crt", self.folder / "client.key")

    def mode(self, word: str, *addresses: str) -> None:
        """Switch HSMs, all of them if none is named, to one of agent.demo.hsm_server's modes; the next connection sees it."""
        for address in addresses or TYPES:
            hsm_server.set_mode(self.folder / f"{address}.mode", word)

    def connections(self, address: str) -> list[dict[str, Any]]:
        """Return what an HSM noted: port, mode and what was said, one entry for each connection that has ended."""
        log = self.folder / f"{address}.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def hsm(self, address: str) -> hsm_server.HsmServer:
        return hsm_server.HsmServer(
            address=address,
            identity=self._pair("hsm"),
            other=self._pair("other-hsm"),
            client_ca=self.folder / "clientCA.crt",
            state=self.folder / f"{address}.mode",
            hsm_type=TYPES[address],
            users=USERS,
            peers=(FIRST, SECOND) if address in (FIRST, SECOND) else (address,),
            log=self.folder / f"{address}.log",
        )

    def _pair(self, name: str) -> pki.KeyPair:
        return pki.KeyPair(self.folder / f"{name}.crt", self.folder / f"{name}.key")


def prepare(scratch: Path) -> None:
    """Make the certificates on the Linux side, where openssl is. They are for whoever is inside, keys as well."""
    folder = scratch / FOLDER
    pki.make(folder)
    folder.chmod(0o777)
    for each in folder.iterdir():
        each.chmod(0o644)


def main(argv: list[str]) -> int:
    with contextlib.ExitStack() as stack:
        for address in TYPES:
            stack.enter_context(hsm_server.running(Cluster(Path("/scratch", FOLDER)).hsm(address)))
        return subprocess.run(argv, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
