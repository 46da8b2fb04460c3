"""A real sshd of this machine on 127.0.0.1, with keys of its own, and an OpenSSH configuration that leads to it."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.fleet_model import Target
from agent.ssh.config import SshConfig
from agent.ssh.connection import SocketCancelToken, SshConnection, SshTimeouts, connect
from agent.ssh.identities import IdentityStore
from agent.ssh.known_hosts import KnownHosts
from agent.ssh.login_limit import LoginLimiter

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

PROGRAM = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def keygen(path: Path, *words: str, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a pair of keys with OpenSSH's own tool."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path), *words],
        check=True,
    )
    return path


def fingerprint(path: Path) -> str:
    """What OpenSSH says of a key."""
    done = subprocess.run(["ssh-keygen", "-lf", str(path)], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


class Sshd:
    """Runs while the block does. `lines` are added to its configuration; `kinds` are its host keys' types."""

    def __init__(self, *lines: str, kinds: tuple[str, ...] = ("ed25519",)) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sshd-of-tests-"))
        self.folder.chmod(0o755)
        self.key = keygen(self.folder / "user")
        self.authorized = self.folder / "authorized"
        self.authorize(self.key)
        self.host_keys = [keygen(self.folder / f"host_{kind}", kind=kind) for kind in kinds]
        self.known = self.folder / "known_hosts"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.configure(*lines)

    def configure(self, *lines: str) -> None:
        settings = [
            *lines,  # the first word on anything counts
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            *(f"HostKey {key}" for key in self.host_keys),
            f"AuthorizedKeysFile {self.authorized}",
            f"PidFile {self.folder / 'pid'}",
            "StrictModes no",
            "UsePAM no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "MaxStartups 100",
            "SetEnv SHLVL=5",  # or bash reads what root has in ~/.bashrc, which takes a while on some machines
        ]
        (self.folder / "sshd_config").write_text("\n".join(settings) + "\n")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        assert PROGRAM is not None
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [PROGRAM, "-D", "-e", "-f", str(self.folder / "sshd_config")],
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if b"Server listening" in line:
                return
        raise AssertionError(f"sshd does not start: {self._process.wait(5)}")

    def stop(self) -> None:
        """End the server and every connection it serves."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self._process.wait(10)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def signal(self, number: signal.Signals) -> None:
        """Send it to the server and to all processes of its connections, which have sessions of their own."""
        for pid in family(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def authorize(self, *keys: Path) -> None:
        self.authorized.write_text("".join(Path(f"{key}.pub").read_text() for key in keys))

    def trust(self, *kinds: str) -> None:
        """Let the user know its host keys, or only those of some types."""
        names = [f"host_{kind}.pub" for kind in kinds] or [f"{key.name}.pub" for key in self.host_keys]
        lines = [f"[127.0.0.1]:{self.port} {(self.folder / name).read_text()}" for name in names]
        self.known.write_text("".join(lines))

    def config(self, *lines: str, name: str = "box") -> SshConfig:
        """A configuration of the user with one host; `lines` come first in it."""
        path = self.folder / "ssh_config"
        settings = [
            f"Host {name}",
            *lines,
            "HostName 127.0.0.1",
            f"Port {self.port}",
            f"User {getpass.getuser()}",
            f"IdentityFile {self.key}",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known}",
            "GlobalKnownHostsFile none",
        ]
        path.write_text("\n  ".join(settings) + "\n")
        return SshConfig.read(path)

    def connect(
        self,
        *lines: str,
        trust_new: bool = False,
        known: KnownHosts | None = None,
        identity_store: IdentityStore | None = None,
        cancel_token: SocketCancelToken | None = None,
        gate: LoginLimiter | None = None,
        patience: SshTimeouts | None = None,
    ) -> SshConnection:
        return connect(
            self.config(*lines).route(Target("box", "box")),
            known=known or KnownHosts(),
            identity_store=identity_store or IdentityStore(),
            trust_new=trust_new,
            cancel_token=cancel_token or SocketCancelToken(),
            login_limiter=gate or LoginLimiter(),
            timeouts=patience or SshTimeouts(),
        )


@dataclass(frozen=True)
class Ran:
    """A command that has ended over a link."""

    status: int | None
    out: bytes
    err: bytes


def run(link: SshConnection, command: str) -> Ran:
    """Run a command over a link to its end, without input."""
    with link.open_command(command) as talk:
        talk.close_stdin()
        out = b"".join(iter(talk.receive, b""))
        return Ran(talk.status(), out, talk.errors())


def family(pid: int) -> list[int]:
    """A process and all that come from it; one that ends meanwhile has no more to tell."""
    found = [pid]
    for each in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in Path(f"/proc/{each}/task").glob("*/children"):
                found += [int(child) for child in task.read_text().split()]
    return found
