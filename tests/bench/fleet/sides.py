"""The sides: `hsm-agent fleet rollout` and what careful users of its peers write for the same hosts and end state."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from tests.system import images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.system.fleet import Operator
    from tests.system.host import LabHost

HERE = Path(__file__).parent / "peers"
PINS = ("pyinfra==3.10.*", "ansible-core==2.19.*")
PARALLEL = 32
VERSION = "5.18.0-1"


def peers() -> Path:
    """Return the environment with the peers, made by pip the first time: they are no dependencies of the project."""
    folder = images.CACHE / "bench" / "-".join(pin.replace("==", "-").rstrip(".*") for pin in PINS)
    if not folder.exists():
        draft = folder.with_suffix(".tmp")
        shutil.rmtree(draft, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(draft)], check=True, timeout=300)
        subprocess.run(
            [str(draft / "bin/python"), "-m", "pip", "install", "-q", *PINS], check=True, timeout=600
        )
        draft.rename(folder)
    return folder


@dataclass(frozen=True)
class Ground:
    """What a side works on: fresh hosts, an operator who knows them, and the package."""

    operator: Operator
    hosts: Sequence[LabHost]
    package: Path
    peers: Path

    @property
    def wanted(self) -> str:
        scene = self.operator.scene
        return json.dumps(
            {
                "addresses": list(scene.addresses),
                "ca": str(scene.made.ca.cert),
                "package": str(self.package),
                "version": VERSION,
                "proof": str(HERE / "proof.sh"),
            }
        )

    def program(self, name: str) -> list[str]:
        # by its interpreter: the first line of the program has the folder in which it was built
        return [str(self.peers / "bin/python"), str(self.peers / "bin" / name)]

    def write(self, name: str, text: str) -> str:
        path = self.operator.home / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True)
class Command:
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Side:
    """One side: its command, which is the same for both passes, and how often its second pass is run in a turn.

    One that is `slow` has a turn in the first round only: it takes longer than all others together.
    """

    name: str
    command: Callable[[Ground], Command]
    seconds: int = 2
    slow: bool = False
    after: Callable[[Ground], None] = lambda _ground: None


def ours(ground: Ground) -> Command:
    """All hosts in one wave, since the peers have none."""
    operator = ground.operator
    operator.inventory()
    pace = ("--waves", "100%", "--parallel", str(PARALLEL), "--quiet")
    return Command(operator.argv("rollout", *operator.everything(), *pace), operator.env)


def pyinfra(ground: Ground) -> Command:
    operator = ground.operator
    login = {
        "ssh_user": "ec2-user",
        "ssh_key": str(operator.scene.lab.ssh_key),
        "ssh_known_hosts_file": str(operator.known_hosts),
        "ssh_strict_host_key_checking": "yes",
        "ssh_allow_agent": False,
        "ssh_look_for_keys": False,
    }
    names: list[tuple[str, dict[str, str]]] = [(host.ip, {}) for host in ground.hosts]
    inventory = ground.write("inventory.py", f"hosts = ({names!r}, {login!r})\n")
    argv = [*ground.program("pyinfra"), "-y", "--parallel", str(PARALLEL), inventory, str(HERE / "deploy.py")]
    return Command(argv, {**operator.env, "BENCH_WANTED": ground.wanted})


def ansible(ground: Ground) -> Command:
    operator = ground.operator
    lines = [*(host.ip for host in ground.hosts), "[all:vars]", "ansible_user=ec2-user"]
    lines += [f"ansible_ssh_private_key_file={operator.scene.lab.ssh_key}"]
    lines += ["ansible_python_interpreter=/usr/bin/python3"]
    inventory = ground.write("inventory.ini", "\n".join(lines) + "\n")
    config = operator.home / ".ssh" / "config"
    argv = [
        *ground.program("ansible-playbook"),
        "-i",
        inventory,
        "-e",
        json.dumps({"wanted": json.loads(ground.wanted)}),
    ]
    env = {
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_FORKS": str(PARALLEL),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_SSH_ARGS": f"-F {config} -o ControlMaster=auto -o ControlPersist=60s",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(_sockets(ground)),
        "ANSIBLE_HOME": str(operator.home / "ansible"),
        "PATH": f"{ground.peers / 'bin'}:{os.environ['PATH']}",
    }
    return Command([*argv, str(HERE / "playbook.yml")], {**operator.env, **env})


def _sockets(ground: Ground) -> Path:
    return ground.operator.home / "cp"


def hang_up(ground: Ground) -> None:
    """End the connections that Ansible leaves open for a minute: every pass begins without any."""
    for path in _sockets(ground).glob("*"):
        argv = ["ssh", "-O", "exit", "-o", f"ControlPath={path}", "any"]
        ground.operator.scene.lab.operator.run(argv)


def openssh(ground: Ground) -> Command:
    scene = ground.operator.scene
    hosts = ground.write("addresses", "".join(f"{host.ip}\n" for host in ground.hosts))
    config = ground.operator.home / ".ssh" / "config"
    script = [str(HERE / "push.sh"), str(config), str(scene.made.ca.cert), str(ground.package), VERSION]
    script += [str(HERE / "proof.sh"), "@", *scene.addresses]
    return Command(["xargs", "-a", hosts, "-P", str(PARALLEL), "-I@", "bash", *script], ground.operator.env)


SIDES = (
    Side("hsm-agent", ours),
    Side("pyinfra", pyinfra),
    Side("Ansible", ansible, seconds=1, slow=True, after=hang_up),
    Side("OpenSSH", openssh),
)
