"""A host: a disk over an image, an address, and processes under a pid 1 of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import testinfra.backend.base  # type: ignore[import-untyped]
import testinfra.host  # type: ignore[import-untyped]

from .images import HERE, SYSTEMD, Image
from .kernel import (
    LabError,
    control_groups,
    end,
    listening,
    only_child,
    remove_control_group,
    spawn_bound,
    tool,
    unshared,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .network import Seat

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "USER": "root",
        "LANG": "C.UTF-8",
    },
)
_NOTHING: Mapping[str, str] = MappingProxyType({})
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_BOUND = ("setpriv", "--pdeathsig", "KILL", "--")
_DEAD_SECONDS = 10


class NamespaceBackend(testinfra.backend.base.BaseBackend):  # type: ignore[misc]
    """Lets testinfra look at a host through its namespaces: no ssh, no agent, nothing installed for it."""

    NAME = "lab"

    def __init__(self, host: LabHost) -> None:
        super().__init__(host.name)
        self._lab_host = host

    def run(self, command: str, *args: str, **_: Any) -> testinfra.backend.base.CommandResult:
        line = self.get_command(command, *args)
        done = self._lab_host.run_bytes(["/bin/sh", "-c", line])
        return self.result(done.returncode, self.encode(line), done.stdout, done.stderr)


class LabHost:
    """One machine of the lab. Commands run as root in it, and their output is text."""

    def __init__(
        self,
        name: str,
        image: Image,
        seat: Seat,
        *,
        init: str = "sshd",
        layers: Sequence[Path] = (),
        ssh_key: str = "",
        tag: str = "hsmlab",
        disk_megabytes: int = 2048,
        disk_folder: Path | None = None,
        disk_copy: Path | None = None,
    ) -> None:
        self.name = name
        self.image = image
        self.seat = seat
        self.init = init
        self._cgroup = control_groups() / f"{tag}-{name}"
        lowers = ":".join(str(lower) for lower in (*layers, *image.lowers))
        set_up = f"LAB_KEY='{ssh_key}' LAB_DISK='{disk_folder or ''}' LAB_COPY='{disk_copy or ''}'"
        script = f"{set_up}\n{(HERE / 'disk.sh').read_text()}"
        self.disk = unshared("mnt", script, name, seat.ip, lowers, str(disk_megabytes))
        self._unshare: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._started: list[subprocess.Popen[bytes]] = []
        self._console = tempfile.TemporaryFile("w+b")  # noqa: SIM115, closed in `close`
        self.seconds_to_boot = 0.0

    def __repr__(self) -> str:
        return f"<LabHost {self.name} {self.image.name} {self.ip}>"

    # ---- power

    def boot(self) -> LabHost:
        """Switches it on, and returns when it is up: its files are as they were, /run and processes are new."""
        started = time.monotonic()
        argv = ["nsenter", f"--net={self.seat.net.path}", f"--mount={self.disk.path}", "--", "unshare"]
        argv += [
            "--mount",
            "--uts",
            "--ipc",
            "--cgroup",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]
        argv += ["sh", "-ec", (HERE / "boot.sh").read_text(), "lab-boot", self.name, self.init]
        if self.init == "systemd":
            # Each systemd opens several inotify instances, and the usual limit is used up at some twenty hosts.
            if int(_INOTIFY.read_text()) < 8192:
                _INOTIFY.write_text("8192")
            self._cgroup.mkdir(exist_ok=True)
            join = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
            argv = ["sh", "-ec", join, str(self._cgroup), *argv]
        self._unshare = spawn_bound(argv, self._console)
        until(self._has_pid_1, f"pid 1 of {self.name}: {self.console()}")
        try:
            until(self._is_up, f"{self.init} on {self.name}", 30)
        except LabError as error:
            message = f"{error}; it said: {self.console()}"
            raise LabError(message) from None
        self.seconds_to_boot = time.monotonic() - started
        return self

    def _has_pid_1(self) -> bool:
        assert self._unshare is not None
        if self._unshare.poll() is not None:
            message = f"{self.name} did not boot: {self.console()}"
            raise LabError(message)
        self._pid = only_child(self._unshare.pid)
        return self._pid is not None

    def _is_up(self) -> bool:
        assert self._unshare is not None
        if self._unshare.poll() is not None:
            message = f"{self.name} died: {self.console()}"
            raise LabError(message)
        if b"lab-boot" in Path(f"/proc/{self.pid}/cmdline").read_bytes() or (self.root / ".old").exists():
            return False  # boot.sh is still at work
        if self.init == "sshd":
            return 22 in listening(self.pid)
        if self.init == "systemd":
            # It answers no question in its first moments; later this one waits until the last unit is up.
            return self.run(["systemctl", "is-system-running", "--wait"]).stdout.strip() == "running"
        return True

    @property
    def up(self) -> bool:
        return self._unshare is not None and self._unshare.poll() is None

    def kill9(self) -> None:
        """Power cut: every process ends where it stands (what it had written stays, for the disk is in memory)."""
        if self._unshare is not None:
            if self._pid is not None and self.up:
                with suppress(ProcessLookupError):  # it may go down by itself just now
                    os.kill(self._pid, signal.SIGKILL)
            try:
                self._unshare.wait(timeout=_DEAD_SECONDS)
            finally:
                end(self._unshare)
        self._off()

    def _off(self) -> None:
        self._unshare = self._pid = None
        for process in self._started:
            end(process, None)
        self._started.clear()
        remove_control_group(self._cgroup)

    def reboot(self) -> None:
        """In order where systemd is pid 1, else by ending every process; then on again."""
        if self.init == "systemd" and self.up:
            assert self._unshare is not None
            self.run(["systemctl", "reboot"])
            until(self._has_left, f"{self.name} to go down", 30)
        self.kill9()
        self.boot()

    def _has_left(self) -> bool:
        """systemd stops every process for a moment; an nsenter whose child it catches so stops too, and reaps no more."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
        return not self.up

    def copy_disk(self, to: Path) -> Path:
        """Copy what was written on its disk since it was made, for other hosts to begin with; it may stay on."""
        tool(["nsenter", f"--mount={self.disk.path}", "--", "cp", "-a", "/mnt/upper/.", str(to)])
        return to

    def close(self) -> None:
        """Switches it off for good. `Lab.end` calls this, and lets its namespaces go when nothing is left in them."""
        self.kill9()
        self.seat.close()
        if not self._console.closed:
            self._console.close()

    # ---- what is where

    @property
    def ip(self) -> str:
        return self.seat.ip

    @property
    def pid(self) -> int:
        """Its pid 1, as the machine numbers it."""
        if self._pid is None:
            message = f"{self.name} is switched off"
            raise LabError(message)
        return self._pid

    @property
    def root(self) -> Path:
        """Its disk seen from outside. An absolute link on it leads out into the machine: write with `put`."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def enter(self) -> str:
        """What to type on the machine to get a shell in it."""
        return f"nsenter -t {self.pid} -a"

    def console(self) -> str:
        if self._console.closed:
            return ""
        size = os.fstat(self._console.fileno()).st_size
        return os.pread(self._console.fileno(), 4000, max(0, size - 4000)).decode(errors="replace")

    # ---- programs

    def _argv(self, argv: Sequence[str], user: str | None) -> list[str]:
        # Killing nsenter would leave its child running in the host; the child is therefore bound to it.
        become = ["runuser", "-u", user, "--", *_BOUND] if user else []
        return ["nsenter", "-t", str(self.pid), "-a", "--", *_BOUND, *become, *argv]

    def run_bytes(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        process = self._popen(argv, env, user)
        try:
            out, err = process.communicate(stdin, timeout)
        except BaseException:
            self.signal(process, signal.SIGKILL)
            end(process, None)
            raise
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)

    def run(
        self,
        argv: Sequence[str],
        stdin: bytes = b"",
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program in the host to its end. `env` is added to a plain root environment."""
        done = self.run_bytes(argv, stdin, timeout, env, user)
        return subprocess.CompletedProcess(
            list(argv),
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )

    def must(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60) -> str:
        """Runs a program that prepares the scene: returns what it printed, and fails the test if it fails."""
        done = self.run(argv, stdin, timeout)
        if done.returncode != 0:
            message = f"{self!r}: {' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            raise LabError(message)
        return done.stdout

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a program in the background, with pipes on its three streams; it ends with the host at the latest.

        The Popen is nsenter's, and its return code that of the program (negative for a signal). To signal or kill the
        program use `signal`: nsenter passes nothing on, and a zombie of its own would wait for the machine's pid 1.
        """
        process = self._popen(argv, env, user)
        self._started.append(process)
        return process

    def _popen(
        self,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        user: str | None,
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._argv(argv, user),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**ENVIRONMENT, **(env or _NOTHING)},
            start_new_session=True,
        )

    def signal(self, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
        """Signals the program that `start` started, as `kill -NUMBER` would; if it has ended, nothing happens."""
        until(
            lambda: process.poll() is not None or only_child(process.pid) is not None,
            "what nsenter starts",
        )
        child = only_child(process.pid)
        if child is not None:
            with suppress(ProcessLookupError):
                os.kill(child, number)

    def wait_for_port(self, port: int, seconds: float = 10) -> None:
        until(lambda: port in listening(self.pid), f"port {port} of {self.name}", seconds)

    # ---- files

    def put(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Writes a file in the host, as root there, with its folders."""
        self.must(["install", "-D", "-m", f"{mode:o}", "/dev/stdin", path], content)

    def get(self, path: str) -> bytes:
        done = self.run_bytes(["cat", path])
        if done.returncode != 0:
            raise FileNotFoundError(done.stderr.decode(errors="replace"))
        return done.stdout

    def mount_small(self, path: str, kb: int) -> None:
        """A disk of that size at a folder, for tests in which it gets full."""
        self.must(["mkdir", "-p", path])
        self.must(["mount", "-t", "tmpfs", "-o", f"size={kb}k,mode=755", "lab-small", path])

    def remount_ro(self, path: str) -> None:
        """Makes a folder (or `/`) read-only until `remount_rw` or a reboot; mounts below it stay as they are."""
        if self.run(["mountpoint", "-q", path]).returncode != 0:
            self.must(["mount", "--bind", path, path])
        self.must(["mount", "-o", "remount,bind,ro", path])

    def remount_rw(self, path: str) -> None:
        self.must(["mount", "-o", "remount,bind,rw", path])

    # ---- judgement

    @cached_property
    def testinfra(self) -> testinfra.host.Host:
        """The host in the eyes of pytest-testinfra, which judges it: our own `verify` never does."""
        return testinfra.host.Host(NamespaceBackend(self))


def init_of(name: str, asked: str | None) -> str:
    """The pid 1 for an image's name: systemd where the name says so, else sshd unless the test asks for another."""
    return asked or ("systemd" if name.endswith(SYSTEMD) else "sshd")
