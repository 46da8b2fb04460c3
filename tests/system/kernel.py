"""Gets namespaces from the kernel, runs programs in them, and waits for what they do, always with a deadline.

A namespace is held by an open file of this process and never by a name or a mount. Whatever way this process ends,
SIGKILL included, the kernel therefore takes the lab's interfaces, addresses, rules, mounts and disks away.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STEP_SECONDS = 0.02

Output = Union[int, IO[bytes], None]


class LabError(Exception):
    """The lab itself failed: a test that meets it says nothing about the agent."""


def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Looks every 20 ms; the only place in the lab that waits without being woken."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            message = f"waited {seconds:g} s in vain for {what}"
            raise LabError(message)
        time.sleep(STEP_SECONDS)


def tool(argv: Sequence[str], stdin: str = "", env: Mapping[str, str] | None = None) -> str:
    """Runs one of the machine's own programs, and shows its words when it fails."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, env=env)
    if done.returncode != 0:
        message = f"{' '.join(argv)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}"
        raise LabError(message)
    return done.stdout


# Processes bound to this one are started from a thread that lasts as long as the interpreter: the kernel's
# parent-death signal means the parent *thread*, and a test may start hosts from a short-lived pool.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-spawner")
atexit.register(_spawner.shutdown)


def spawn_bound(
    argv: Sequence[str],
    output: Output = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a program which the kernel kills when this process ends, in whatever way."""

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            env=env,
            start_new_session=True,
        )

    return _spawner.submit(start).result()


def end(process: subprocess.Popen[bytes], how: signal.Signals | None = signal.SIGKILL) -> None:
    """Ends one process that the lab started, or waits for an end that is certain (`None`), and reaps it."""
    if process.poll() is None and how is not None:
        process.send_signal(how)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def only_child(pid: int) -> int | None:
    """The child of a program that forked once, as nsenter and unshare do; None while there is none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def control_groups() -> Path:
    """Where the control groups of version 2 are, on a machine that has them alone or beside those of version 1."""
    root = Path("/sys/fs/cgroup")
    return root / "unified" if (root / "unified").is_dir() else root


def remove_control_group(group: Path) -> None:
    if group.is_dir():
        for folder in (*sorted(group.rglob("*/"), reverse=True), group):
            folder.rmdir()


def listening(pid: int | str) -> set[int]:
    """The TCP ports that something listens on in the network namespace of a process; none once it has ended."""
    ports: set[int] = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            return set()
        cells = [row.split() for row in rows]
        ports |= {int(cell[1].rpartition(":")[2], 16) for cell in cells if cell[3] == "0A"}
    return ports


@dataclass(frozen=True)
class Namespace:
    """One namespace, alive while this object's file is open or a process is in it."""

    kind: str
    file: int

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.file}"

    @property
    def inode(self) -> int:
        return os.fstat(self.file).st_ino

    def members(self) -> list[int]:
        """Every process of the machine that is in it."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                if (entry / "ns" / self.kind).stat().st_ino == self.inode:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        os.close(self.file)


def unshared(kind: str, script: str, *arguments: str) -> Namespace:
    """Makes a namespace ('net' or 'mnt'), sets it up with a shell script, and keeps it."""
    flags = {"net": ["--net"], "mnt": ["--mount", "--propagation", "private"]}[kind]
    maker = subprocess.Popen(
        ["unshare", *flags, "sh", "-ec", f"{script}\necho ready\nread _ || :", "lab", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert maker.stdout is not None
    assert maker.stderr is not None
    if maker.stdout.readline() != b"ready\n":
        message = f"no {kind} namespace: {maker.stderr.read().decode(errors='replace')}"
        end(maker)
        raise LabError(message)
    namespace = Namespace(kind, os.open(f"/proc/{maker.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
    end(maker)
    return namespace
