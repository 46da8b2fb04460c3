"""A throw-away root: this machine's own files under an overlay, in namespaces that end with their first process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.render.output import UnreadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LIMIT_SECONDS = 120.0
# how long killed processes may take to disappear
_GONE_SECONDS = 10.0
# file systems that hold a machine's files, so that a /var on its own partition is in the copy too
_ON_DISK = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_SPACES = (
    "--mount",
    "--net",
    "--pid",
    "--ipc",
    "--uts",
    "--fork",
    "--kill-child",
    "--propagation",
    "private",
)
# Every Linux has this folder and nothing here reads it: a file system of the sandbox's own hides it, and the sandbox
# is built there. So no folder has to be made that a killed demo would leave behind.
_GROUND = "/sys"
# the package of each program, for apt and for dnf
_BROUGHT_BY = {
    "unshare": ("util-linux", "util-linux"),
    "ip": ("iproute2", "iproute"),
    "chroot": ("coreutils", "coreutils"),
    "openssl": ("openssl", "openssl"),
    "dpkg-deb": ("dpkg", "dpkg"),
    "rpmbuild": ("rpm", "rpm-build"),
}
_PR_SET_PDEATHSIG = 1


def enter(module: str, arguments: Sequence[str]) -> int:
    """Run `python -m MODULE FOLDER FD ARGUMENTS` in namespaces of its own and return its exit status.

    FOLDER is private to it; an AgentError goes back through the file descriptor FD, see `send_errors`. When it ends,
    however it ends, the kernel drops its mounts, addresses, files and processes; it ends when this process does.
    Raises AgentError `not-root`, `demo-unavailable`, `interrupted`, and what came through FD.
    """
    if os.geteuid() != 0:
        raise AgentError(
            "not-root", "a throw-away root needs root", saw="an ordinary user", want="root",
            hint="run it with sudo; the machine is left as it is",
        )  # fmt: skip
    try:
        with _ended_by_signals():
            _require_programs()
            _call("unshare", *_SPACES, "true")
            messages, status = _entered(module, arguments)
    except KeyboardInterrupt as interrupt:
        raise AgentError(
            "interrupted", "the demo was interrupted", saw=str(interrupt) or "Ctrl-C", hint="the machine is as it was"
        ) from None  # fmt: skip
    except OSError as error:
        raise AgentError("demo-unavailable", "the stage could not be entered", saw=str(error)) from error
    if messages:
        tree = json.loads(messages)
        raise AgentError(tree.pop("code"), tree.pop("sentence"), **tree)
    return status


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Handle the other signals that ask to end like Ctrl-C. Ignored signals stay ignored."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _entered(module: str, arguments: Sequence[str]) -> tuple[str, int]:
    """Return the module's message and its exit status. An interrupt is passed on when all its processes are gone."""
    read, write = os.pipe()
    argv = ["unshare", *_SPACES, sys.executable, "-m", module, _GROUND, str(write), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with os.fdopen(read, encoding="utf-8") as messages, subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, pass_fds=(write,), preexec_fn=_ends_with_us  # noqa: PLW1509 -- no threads here
    ) as process:  # fmt: skip
        os.close(write)
        try:
            return messages.read(), process.wait()
        except KeyboardInterrupt:
            process.kill()
            # the first process of the namespaces holds the other end, and dies after its parent
            select.select([messages], [], [], _GONE_SECONDS)
            raise


def send_errors(fd: int, body: Callable[[], int]) -> int:
    """Run a body inside the namespaces and send its AgentError to `enter`. It ends if nothing reads its output."""
    try:
        return body()
    except UnreadError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except AgentError as error:
        ended = error
    except (OSError, subprocess.TimeoutExpired) as error:
        ended = AgentError("demo-unavailable", "the demo could not go on", saw=str(error))
    fields = {
        "code": ended.code.name,
        "sentence": ended.sentence,
        "saw": ended.saw,
        "want": ended.want,
        "hint": ended.hint,
    }
    os.write(fd, json.dumps(fields).encode())
    return ended.code.exit_status


def _ends_with_us() -> None:
    import ctypes  # noqa: PLC0415 -- the interpreter of the agent's own build for Linux has no ctypes

    # A terminal's Ctrl-C reaches all of them. It is for the process outside, which ends the others; one that has just
    # begun to load its modules would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _require_programs() -> None:
    if find_spec("_ctypes") is None:
        raise AgentError(
            "demo-unavailable", "this interpreter can install and prove, but not play the demo",
            saw="no module ctypes", want="a distribution's Python",
            hint="play it on another host, from the tree or a package",
        )  # fmt: skip
    is_deb = Path("/usr/bin/apt-get").exists()
    needed = ("unshare", "ip", "chroot", "openssl", "dpkg-deb" if is_deb else "rpmbuild")
    missing = [each for each in needed if shutil.which(each) is None]
    if missing:
        brought = " ".join(_BROUGHT_BY[each][0 if is_deb else 1] for each in missing)
        raise AgentError(
            "demo-unavailable", "programs are missing", saw=f"no {', no '.join(missing)}", want=", ".join(needed),
            hint=f"`{'apt-get' if is_deb else 'dnf'} install {brought}`, then run it again",
        )  # fmt: skip


@dataclass(frozen=True)
class Sandbox:
    """A root that can be thrown away. Made inside the namespaces that `enter` creates."""

    root: Path

    def run(self, argv: Sequence[str], **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a program with this root as `/`, on these files alone, with its output captured."""
        return subprocess.run(
            ["chroot", str(self.root), *argv],
            env={**_ENVIRONMENT, **extra}, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def path(self, inside: str) -> Path:
        """Return the path outside of the sandbox for a path inside."""
        return self.root / inside.lstrip("/")


def build(folder: Path) -> Sandbox:
    """Mount overlays over every file system of this machine, and give the copy its own /proc, /run and /tmp.

    Raises AgentError `demo-unavailable` when this kernel refuses.
    """
    _call("mount", "-t", "tmpfs", "-o", "mode=755", "hsm-agent-demo", str(folder))
    root = folder / "root"
    for number, place in enumerate(_file_systems()):
        upper, work = folder / f"upper{number}", folder / f"work{number}"
        for each in (upper, work):
            each.mkdir()
        shutil.copymode(place, upper)
        target = root / place.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={place},upperdir={upper},workdir={work}"
        _call("mount", "-t", "overlay", "hsm-agent-demo", "-o", options, str(target))
    _call("mount", "-t", "proc", "proc", str(root / "proc"))
    _call("mount", "--rbind", "/dev", str(root / "dev"))
    for fresh, mode in (("run", "755"), ("tmp", "1777")):
        _call("mount", "-t", "tmpfs", "-o", f"mode={mode}", "hsm-agent-demo", str(root / fresh))
    _call("ip", "link", "set", "lo", "up")
    stage = Sandbox(root)
    # the shortest first: a virtual environment inside a checkout comes with it
    for needed in sorted({sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2])}, key=len):
        inside = stage.path(needed)
        if not inside.exists():  # below /tmp, or on a file system without overlays, such as a network one
            inside.mkdir(parents=True)
            _call("mount", "--bind", needed, str(inside))
            _call("mount", "-o", "remount,bind,ro", str(inside))
    return stage


def give_address(address: str) -> None:
    """Add an address to this network namespace; outside of it nothing changes."""
    _call("ip", "address", "add", f"{address}/32", "dev", "lo")


def _file_systems() -> list[str]:
    """Return the root and other mounts of disks; a name that overlayfs would misread is left out."""
    rows = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    places = {
        row[1]
        for row in rows
        if row[2] in _ON_DISK and Path(row[1]).is_dir() and not set(row[1]) & set("\\:,")
    }
    return sorted({"/", *places}, key=lambda place: (place != "/", place))


def _call(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    if done.returncode != 0:
        raise AgentError(
            "demo-unavailable",
            "this machine does not give a throw-away root",
            saw=f"`{' '.join(argv)}`: {done.stderr.strip()}",
            want="mount, network and process namespaces, and overlayfs",
        )
