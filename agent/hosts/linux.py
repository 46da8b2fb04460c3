"""What Linux reports of locks, of programs that have files mapped, and of the space on a file system."""

# ruff: noqa: PTH100, PTH110, PTH116, PTH120, PTH123, PTH208
# (names are strings in the Host interface)

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from typing import TYPE_CHECKING

from agent.core.host import DiskSpace, LockHolder, ProcessInfo

if TYPE_CHECKING:
    from collections.abc import Callable

# struct flock of 64-bit Linux: type, whence, start, length, pid
_FLOCK = "hhqqi4x"
# bytes: 15 of a program; only a kernel thread has more
_COMM = 64
# of the list of what a process has mapped; the kernel takes a millisecond or two to write as much
_PIECE = 64 * 1024
# FS_IOC_GETFLAGS of 64-bit Linux, and two of its bits
_GET_FLAGS, _IMMUTABLE, _APPEND = 0x80086601, 0x10, 0x20


def holder(path: str) -> LockHolder | None:
    """Return who holds the fcntl lock on `path`, None when it is free or absent.

    Raises OSError. Beware: POSIX drops all fcntl locks a process has on a file when it closes any descriptor
    of it, as this does. So never call it for a file that this process itself has locked that way.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, asked)
    finally:
        os.close(fd)
    found, _, _, _, pid = struct.unpack(_FLOCK, answer)
    return None if found == fcntl.F_UNLCK else LockHolder(pid, name_of(pid))


def mapped(pid: int, prefix: str, check_time: Callable[[], None]) -> tuple[str, ...]:
    """Return the files below `prefix` that a process has mapped; a file removed since ends with ` (deleted)`.

    `check_time` is called often, and may raise. Raises OSError when the process has ended or may not be read.
    """
    wanted, rest, lines = os.fsencode(prefix), b"", []
    with open(f"/proc/{pid}/maps", "rb", buffering=0) as file:
        while True:
            check_time()
            piece = file.read(_PIECE)
            if not piece:
                break
            whole, _, rest = (rest + piece).rpartition(b"\n")
            if wanted in whole:
                lines += [line.split(b" ", 5) for line in whole.split(b"\n") if wanted in line]
    names = (os.fsdecode(words[5].lstrip(b" ")) for words in lines if len(words) == 6)
    paths = {name.replace("\\012", "\n") for name in names if name.startswith(prefix)}
    return tuple(sorted(paths)) if paths and _has_our_root(pid) else ()


def _has_our_root(pid: int) -> bool:
    """Tell whether a process names files as this one does: in a container the same name is another file."""
    return os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/"))


def mapping(prefix: str, check_time: Callable[[], None]) -> tuple[ProcessInfo, ...]:
    """Return the programs that have a file below `prefix` mapped, from /proc alone."""
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(OSError):  # ended meanwhile, or not readable for this user
            paths = mapped(pid, prefix, check_time)
            if paths:
                found.append(ProcessInfo(pid, name_of(pid), *_owner_of(pid), started(pid), paths))
    return tuple(found)


def name_of(pid: int) -> str:
    """Return the kernel's name of a program, printable. A longer name in its arguments is the program's own choice."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read(_COMM).decode("utf-8", "replace").rstrip("\n")
    except OSError:
        return ""
    return "".join(char if char.isprintable() else "?" for char in name)


def started(pid: int) -> float:
    """Return when a process began, to a hundredth of a second.

    The running clock is used and not `btime`, which counts full seconds: a program that was restarted right after a
    file changed would seem to be older than the file, and for ever.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        # the name in parentheses may contain anything; after it the 20th field is the start in ticks since boot
        ticks = int(file.read().rsplit(b")", 1)[1].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def room(path: str) -> DiskSpace:
    """Return the space where `path` is, or would be.

    Whether it can be written is checked for root alone (an immutable folder refuses root too): a refusal of another
    user is a fact about that user, not about the file system.
    """
    place = os.path.abspath(path)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    space = os.statvfs(place)
    writable = not space.f_flag & os.ST_RDONLY
    if writable and os.geteuid() == 0:
        writable = os.access(place, os.W_OK)
    fixed = os.geteuid() == 0 and is_fixed(place)
    return DiskSpace(
        free=space.f_bavail * space.f_frsize,
        writable=writable or fixed,
        inodes=space.f_favail if space.f_files else None,
        executable=not space.f_flag & os.ST_NOEXEC,
        fixed=fixed,
    )


def is_fixed(path: str) -> bool:
    """Tell whether an attribute of ext4, xfs or btrfs (`chattr +i`, `+a`) prevents even root from changing a name."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            flags = bytearray(8)
            fcntl.ioctl(fd, _GET_FLAGS, flags)
        finally:
            os.close(fd)
    except OSError:  # absent, or a file system without attributes
        return False
    return bool(struct.unpack("=i", flags[:4])[0] & (_IMMUTABLE | _APPEND))


def _owner_of(pid: int) -> tuple[int, int]:
    with open(f"/proc/{pid}/status", "rb") as file:
        ids = {line.split()[0]: line.split()[2] for line in file if line.startswith((b"Uid:", b"Gid:"))}
    return int(ids[b"Uid:"]), int(ids[b"Gid:"])
