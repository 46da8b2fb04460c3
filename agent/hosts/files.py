"""Files of this machine: read without ever blocking, replace atomically, remove without following links."""

# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH112, PTH115, PTH116, PTH118, PTH120, PTH208, PTH211
# (names are strings in the Host interface)

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import sys

from agent.core.codes import fix
from agent.core.errors import AgentError, immutable, is_exhaustion
from agent.core.host import Stat, no_file
from agent.core.system import is_stream
from agent.hosts import linux

# An access list beside the mode (acl(5)), in the kernel's format: a version; then tag, rights and number of each entry.
_LIST, _VERSION, _ENTRY = "system.posix_acl_access", struct.Struct("<I"), struct.Struct("<HHI")
# SELinux's, by which it decides which confined programs may read a file; a site may have chosen another than the usual
_LABEL = "security.selinux"
_NAMED, _WRITES = {0x02: "user", 0x08: "group"}, 0o2
_PIECE = 1024 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


def read(path: str, offset: int, limit: int) -> bytes | None:
    """Do what HostView.read promises.

    The kind is checked before the file is opened as well as after: opening alone can start a watchdog or
    rewind a tape, and a name can become a FIFO in between.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise read_error(path, no_file(_kind_of(os.stat(path).st_mode)))
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise read_error(path, "it changed while it was opened")
            if offset:
                file.seek(offset)
            data = bytearray()
            while len(data) <= limit:
                # what is asked for is allocated at once, however short the file is
                piece = os.read(file.fileno(), min(_PIECE, limit + 1 - len(data)))
                if not piece:
                    return bytes(data)
                data += piece
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise os_read_error(error, path) from error
    except ValueError as error:  # a zero byte, or text that is no file name
        raise read_error(path, str(error)) from error
    raise read_error(path, f"more than {limit} bytes", want=f"at most {limit} bytes")


def lstat(path: str) -> Stat | None:
    """Do what HostView.stat promises."""
    try:
        seen = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise os_read_error(error, path) from error
    except ValueError as error:
        raise read_error(path, str(error)) from error
    return Stat(
        _kind_of(seen.st_mode),
        stat.S_IMODE(seen.st_mode),
        seen.st_uid,
        seen.st_gid,
        seen.st_size,
        seen.st_mtime,
        seen.st_nlink if stat.S_ISREG(seen.st_mode) else 1,
        _writers(path) if seen.st_mode & stat.S_IWGRP and not stat.S_ISLNK(seen.st_mode) else (),
    )


def _writers(path: str) -> tuple[tuple[str, int], ...]:
    """Return the users and groups that an access list lets write; the mode shows its mask as the group's rights."""
    if sys.platform != "linux":
        return ()
    try:
        data = os.getxattr(path, _LIST, follow_symlinks=False)
    except OSError:  # the file has none, or the file system does not support them
        return ()
    entries = _ENTRY.iter_unpack(data[_VERSION.size :])
    return tuple(
        (_NAMED[tag], number) for tag, rights, number in entries if tag in _NAMED and rights & _WRITES
    )


def _keep_access(path: str, fd: int) -> None:
    """Give a new file the access list and the label of the one that it replaces: who may read it can still do so."""
    for name in (_LIST, _LABEL) if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):  # there is none, or the file system does not support them
            os.setxattr(fd, name, os.getxattr(path, name, follow_symlinks=False))


def readlink(path: str) -> str | None:
    """Do what HostView.readlink promises."""
    try:
        return os.readlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # not a link
            return None
        raise os_read_error(error, path) from error
    except ValueError as error:
        raise read_error(path, str(error)) from error


def names(path: str) -> tuple[str, ...]:
    """Do what HostView.list_dir promises; anything but a folder is unreadable."""
    try:
        return tuple(sorted(os.listdir(path)))
    except FileNotFoundError:
        return ()
    except NotADirectoryError as error:
        if os.path.lexists(path):
            raise read_error(path, "not a directory", want="a directory") from error
        return ()
    except OSError as error:
        raise os_read_error(error, path, want="a directory") from error
    except ValueError as error:
        raise read_error(path, str(error), want="a directory") from error


def replace(path: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    """Do what Host.write promises.

    A link is replaced, not followed. Without `owner` the file belongs to the user the agent runs as.
    """
    folder, name = os.path.split(path)
    temporary = ""
    try:
        if is_stream(path):
            return _pour(path, data)
        _require_file(path)
        make_folders(folder)
        _clear(folder, name)
        temporary = os.path.join(folder, f".{name}.hsm-agent-{os.urandom(4).hex()}")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            fcntl.flock(fd, fcntl.LOCK_EX)  # distinguishes a write in progress from a leftover, see _clear
            file.write(data)
            file.flush()
            if owner is not None:
                os.fchown(fd, *owner)  # before the mode: chown clears setuid bits
            _keep_access(path, fd)
            os.fchmod(
                fd, mode
            )  # after the list: what that lets others do is no more than the mode lets the group
            os.fsync(fd)
            os.rename(temporary, path)
        temporary = ""
        sync_folder(folder)
    except OSError as error:
        raise write_error(error, path) from error
    except ValueError as error:
        raise AgentError("write-failed", f"{path!r} is not a file name", saw=str(error)) from error
    finally:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def symlink(path: str, target: str) -> None:
    """Do what Host.symlink promises."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.hsm-agent-{os.urandom(4).hex()}")
    try:
        make_folders(folder)
        os.symlink(target, temporary)
        try:
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
        sync_folder(folder)
    except OSError as error:
        raise write_error(error, path) from error
    except ValueError as error:
        raise AgentError("write-failed", f"{path!r} is not a file name", saw=str(error)) from error


def chmod(path: str, mode: int, owner: tuple[int, int] | None) -> None:
    """Do what Host.chmod promises, by a descriptor: a name can become a link in between."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            if owner is not None:
                os.fchown(fd, *owner)  # before the mode: chown clears setuid bits
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise write_error(error, path) from error
    except ValueError as error:
        raise AgentError("write-failed", f"{path!r} is not a file name", saw=str(error)) from error


def _pour(path: str, data: bytes) -> None:
    """Write to a stream or device, without waiting for a device that is not ready. Raises OSError."""
    number = re.search(r"/fd/(\d+)$", path)
    own = {"/dev/stdout": 1, "/dev/stderr": 2}.get(path, int(number[1]) if number else -1)
    # opened by its name, a file behind standard output would be overwritten from its start
    fd = os.dup(own) if own >= 0 else os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "wb", buffering=0) as file:
        if own < 0 and not stat.S_ISCHR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no device")
        left = memoryview(data)
        while left:
            left = left[file.write(left) or 0 :]


def _require_file(path: str) -> None:
    """Raise OSError when `path` is neither a file nor a link: replacing it would remove a device or FIFO."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise OSError(errno.EINVAL, f"it is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, and no file")


_KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip


def remove(path: str) -> None:
    """Do what Host.remove promises."""
    name = path.rstrip("/")  # with a slash at its end a link would be followed
    if not name:
        raise AgentError("write-failed", f"{path!r} is never removed", saw=path)
    try:
        if stat.S_ISDIR(os.lstat(name).st_mode):
            import shutil  # noqa: PLC0415 -- 2 ms, which a read-only command need not pay

            shutil.rmtree(name)
        else:
            os.unlink(name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise write_error(error, path) from error


def make_folders(folder: str) -> None:
    """Make a folder and its parents with 0711, whatever the umask; existing ones stay. Raises OSError."""
    if not folder or os.path.isdir(folder):
        return
    make_folders(os.path.dirname(folder.rstrip("/")))
    try:
        os.mkdir(folder, 0o711)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise
        return
    os.chmod(folder, 0o711)  # noqa: S103 -- its entries can be reached by name, and not listed
    sync_folder(os.path.dirname(folder.rstrip("/")) or ".")


def open_to_read(path: str) -> int:
    """Return a descriptor of a regular file, without ever blocking. Raises OSError; EINVAL for anything else."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def open_own(path: str) -> int:
    """Return a descriptor of a file that belongs to this user alone; create it if absent. Raises OSError.

    Any user who can open a file can lock it. A file that another user owns or may open by that name, a link, a FIFO and
    a second name of some file are removed: a name in a folder of the agent belongs to the agent.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        if not _is_own(os.lstat(path)):
            os.unlink(path)
    fd = os.open(path, flags, 0o600)
    if _is_own(os.fstat(fd)):
        return fd
    os.close(fd)
    raise OSError(errno.EPERM, "somebody else made a file of this name just now")


def _is_own(seen: os.stat_result) -> bool:
    return (
        stat.S_ISREG(seen.st_mode)
        and seen.st_uid == os.geteuid()
        and seen.st_nlink == 1
        and not seen.st_mode & 0o077
    )


def open_part(path: str) -> int:
    """Return a descriptor for writing a part of a download that only its owner may read. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


def publish(part: str, path: str) -> None:
    """Give a finished download its final name, readable for all users. Raises OSError."""
    os.chmod(part, 0o644)
    os.rename(part, path)
    sync_folder(os.path.dirname(path))


def local_path(rest: str) -> str:
    """Return the path in what follows `file:`."""
    from urllib.parse import unquote  # noqa: PLC0415 -- 3 ms that only a download pays

    return unquote(rest)


def sync_folder(folder: str) -> None:
    """Make a rename in this folder last through a power cut. Raises OSError."""
    fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_error(error: OSError, path: str) -> AgentError:
    """Return the error for a change that the system refused, by its cause."""
    reason = error.strerror or str(error)
    limit = exhausted(error, path)
    if limit is not None:
        return limit
    fixed = [
        each for each in (path, os.path.dirname(path)) if error.errno == errno.EPERM and linux.is_fixed(each)
    ]
    if fixed:
        return immutable(fixed[0])
    if error.errno in _FULL:
        return AgentError("no-space", f"there is no room for {path}", saw=f"{path}: {reason}")
    if error.errno == errno.EROFS:
        hint = fix("read-only", PATH=path)
        return AgentError("read-only", f"{path} cannot be written", saw=f"{path}: {reason}", hint=hint)
    hint = fix("write-failed", PATH=path)
    return AgentError("write-failed", f"{path} cannot be written", saw=f"{path}: {reason}", hint=hint)


def exhausted(error: OSError, what: str) -> AgentError | None:
    """Return the error for an exhausted limit of the machine, None for any other cause; no file is to blame for it."""
    if error.errno == errno.EAGAIN or not is_exhaustion(error):  # EAGAIN is the answer of a busy file
        return None
    return AgentError(
        "no-resources",
        f"this machine had nothing left for {what}",
        saw=error.strerror or str(error),
        want="files, processes and memory for a run",
    )


def os_read_error(error: OSError, path: str, *, want: str = "a regular file that can be read") -> AgentError:
    """Return the error for a read that the system refused, by its cause."""
    return exhausted(error, path) or read_error(path, error.strerror or str(error), want=want)


def read_error(path: str, saw: str, *, want: str = "a regular file that can be read") -> AgentError:
    return AgentError("unreadable", f"{path!r} cannot be read", saw=saw, want=want)


def _clear(folder: str, name: str) -> None:
    """Remove what killed runs left of earlier writes of this name; a write under way holds its lock."""
    for each in os.listdir(folder or "."):
        if each.startswith(f".{name}.hsm-agent-"):
            leftover = os.path.join(folder, each)
            with contextlib.suppress(OSError):
                fd = os.open(leftover, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(leftover)
                finally:
                    os.close(fd)


def _kind_of(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "link" if stat.S_ISLNK(mode) else "other"
