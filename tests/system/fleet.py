"""A fleet in the lab: hosts, the operator's seat with ssh as people have it, and `hsm-agent fleet` run there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .agent_install import CHECKOUT
from .scene import ROWS, Scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .host import LabHost

USER = "ec2-user"


@dataclass
class Ran:
    """One call of `hsm-agent fleet`."""

    exit_status: int
    report: dict[str, Any]
    err: str

    @property
    def outcomes(self) -> dict[str, str]:
        return {host["name"]: host["outcome"] for host in self.report["hosts"]}

    @property
    def codes(self) -> dict[str, str | None]:
        return {host["name"]: host["code"] for host in self.report["hosts"]}

    @property
    def changed(self) -> dict[str, bool]:
        return {host["name"]: host["changed"] for host in self.report["hosts"]}

    def host(self, name: str) -> dict[str, Any]:
        return next(dict(host) for host in self.report["hosts"] if host["name"] == name)


@dataclass
class Operator:
    """Who runs the fleet, from 10.77.0.1: a home of its own, with ssh's configuration, keys and known hosts."""

    scene: Scene
    home: Path
    tree: Path
    hosts: dict[str, LabHost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        self.ssh_config()

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh" / "known_hosts"

    def ssh_config(self, *more: str) -> None:
        """Write ~/.ssh/config: the lab's key and user for every host, after what is given."""
        key = self.scene.lab.ssh_key
        lines = [*more, "Host *", f"  User {USER}", f"  IdentityFile {key}", "  IdentitiesOnly yes"]
        lines.append(f"  UserKnownHostsFile {self.known_hosts}")
        (self.home / ".ssh" / "config").write_text("\n".join(lines) + "\n")

    def meet(self, *hosts: LabHost) -> None:
        """Add hosts to the fleet, and their keys to known_hosts."""
        with self.known_hosts.open("a") as known:
            for host in hosts:
                self.hosts[host.name] = host
                words = host.get("/etc/ssh/ssh_host_ed25519_key.pub").decode().split()
                known.write(f"{host.ip} {words[0]} {words[1]}\n")

    def knows(self, host: LabHost) -> bool:
        """Ask OpenSSH whether the host is in known_hosts, plain or hashed."""
        argv = ["ssh-keygen", "-F", host.ip, "-f", str(self.known_hosts)]
        return subprocess.run(argv, stdout=subprocess.DEVNULL, check=False).returncode == 0

    def inventory(self, names: Iterable[str] | None = None, *, more: str = "") -> Path:
        """Write the fleet as TOML; a host that is not of the catalogue gets its platform."""
        lines = [more]
        for name in names or self.hosts:
            host = self.hosts[name]
            lines += [f"[hosts.{name}]", f'address = "{host.ip}"']
            if host.image.name == "bullseye":
                lines.append(f'client.platform = "{ROWS["bullseye"][0]}"')
        path = self.home / "fleet.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def options(self) -> list[str]:
        """Return the options of a roll-out: the CA and the packages lie here, hosts get them from here."""
        scene = self.scene
        argv = [word for address in scene.addresses for word in ("--hsm-ip", address)]
        argv += ["--ca-cert", str(scene.made.ca.cert), "--package-source", str(scene.folder / "mirror")]
        return [
            *argv,
            *(word for file, digest in scene.sums.items() for word in ("--sha256", f"{file}={digest}")),
        ]

    def argv(self, command: str, *more: str) -> list[str]:
        python = [sys.executable, "-m", "agent", "fleet", command, *more]
        if command == "status":
            return python
        # ssh itself looks for its configuration where the user database says, not in HOME
        return [*python, "--tree", str(self.tree), "--ssh-config", str(self.home / ".ssh" / "config")]

    @property
    def env(self) -> Mapping[str, str]:
        places = {"HOME": str(self.home), "XDG_STATE_HOME": str(self.home / "state"), "XDG_CACHE_HOME": ""}
        return {**places, "PYTHONPATH": str(CHECKOUT), "SSH_AUTH_SOCK": ""}

    def run(self, command: str, *more: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return self.scene.lab.operator.run(self.argv(command, *more), timeout=timeout, env=self.env)

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        """Start a roll-out of the whole fleet, or of what is left of one, in the background."""
        given = [] if "--resume" in more else self.everything()
        argv = self.argv("rollout", *given, *more, "--output", "json")
        return subprocess.Popen(
            self.scene.lab.operator.inside(argv),
            env={**os.environ, **self.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @staticmethod
    def ended(controller: subprocess.Popen[bytes]) -> Ran:
        out, err = controller.communicate(timeout=120)
        return _ran(controller.returncode, out.decode(), err.decode())

    def last_run(self) -> Path:
        return max((self.home / "state/hsm-agent/runs").iterdir())

    def ends(self) -> list[str]:
        """Return what the journal of the last run has as ended, read by us."""
        lines = (self.last_run() / "journal.jsonl").read_text().splitlines()
        return [line for line in lines if '"kind": "ended"' in line]

    def everything(self) -> list[str]:
        return ["--inventory", str(self.home / "fleet.toml"), *self.options()]

    def fleet(self, command: str, *more: str, timeout: float = 240) -> Ran:
        done = self.run(command, *more, "--output", "json", timeout=timeout)
        return _ran(done.returncode, done.stdout, done.stderr)

    def rollout(self, *more: str, timeout: float = 240) -> Ran:
        inventory = [] if "--resume" in more else self.everything()
        return self.fleet("rollout", *inventory, *more, timeout=timeout)


def _ran(status: int, out: str, err: str) -> Ran:
    assert out, f"exit {status}: {err}"
    return Ran(status, json.loads(out), err)
