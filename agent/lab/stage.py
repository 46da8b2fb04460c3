"""A throw-away root: this machine's own files under an overlay, in namespaces that end with their first process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT_SECONDS = 120.0
# file systems that hold a machine's files, so that /var on a partition of its own is there in the copy too
_ON_DISK = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "overlay")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}


def enter(module: str, arguments: Sequence[str]) -> int:
    """Run `python -m MODULE FOLDER ARGUMENTS` in namespaces of its own and return its exit status.

    FOLDER is private to it. When it ends, however it ends, the kernel drops its mounts, addresses and processes.
    Raises AgentError `not-root`, `demo-unavailable`.
    """
    if os.geteuid() != 0:
        raise AgentError(
            "not-root", "a throw-away root needs root", saw="an ordinary user", want="root",
            hint="run it with sudo; the machine is left as it is",
        )  # fmt: skip
    missing = [each for each in ("unshare", "ip", "chroot", "openssl") if shutil.which(each) is None]
    if missing:
        raise AgentError(
            "demo-unavailable", "programs are missing", saw=f"no {', no '.join(missing)}", want="util-linux, iproute2, openssl"
        )  # fmt: skip
    folder = tempfile.mkdtemp(prefix="hsm-agent-demo-")
    spaces = (
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
    try:
        argv = ["unshare", *spaces, sys.executable, "-m", module, folder, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        return subprocess.run(argv, env=environment, check=False, stdin=subprocess.DEVNULL).returncode
    finally:
        # the mounts below it were in a namespace that is gone
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Stage:
    """A root that can be thrown away. Made inside the namespaces that `enter` gives."""

    root: Path

    def run(self, argv: Sequence[str], **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a program with this root as `/`, on these files alone, with its output captured."""
        return subprocess.run(
            ["chroot", str(self.root), *argv],
            env={**_ENVIRONMENT, **extra}, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def path(self, inside: str) -> Path:
        """Return where a path of the stage is to be found from outside of it."""
        return self.root / inside.lstrip("/")


def build(folder: Path) -> Stage:
    """Lay overlays over every file system of this machine, and give the copy its own /proc, /run and /tmp.

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
    stage = Stage(root)
    for needed in (sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2])):
        inside = stage.path(needed)
        if not inside.exists():  # on a file system that cannot be laid over, such as a network one
            inside.mkdir(parents=True)
            _call("mount", "--bind", needed, str(inside))
    return stage


def _file_systems() -> list[str]:
    rows = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    places = {row[1] for row in rows if row[2] in _ON_DISK and Path(row[1]).is_dir() and "\\" not in row[1]}
    return sorted({"/", *places}, key=lambda place: (place != "/", place))


def _call(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS)
    if done.returncode != 0:
        raise AgentError(
            "demo-unavailable",
            "this machine does not give a throw-away root",
            saw=f"`{' '.join(argv[:4])}`: {done.stderr.strip()}",
            want="mount and network namespaces, overlayfs",
        )
