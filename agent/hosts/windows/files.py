"""Files of Windows: read without ever blocking, replaced in one step even while others read, each with its own list."""

# ruff: noqa: PTH101, PTH106, PTH108, PTH112, PTH116, PTH208
# (names are strings in the Host interface)

from __future__ import annotations

import contextlib
import errno
import ntpath
import os
import stat
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.host import DiskSpace, Stat, no_file
from agent.hosts.windows import acl, paths, win32

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PIECE = 1024 * 1024
_FULL = (win32.DISK_FULL, win32.HANDLE_DISK_FULL)
# The errors of a change while another program, such as a virus scanner, reads the file; they pass.
_BUSY = (win32.DENIED, win32.SHARING, win32.LOCKED, win32.NOT_EMPTY)
_TURN = 0.05
_ABSENT = (FileNotFoundError, NotADirectoryError)
_FOLDER_MODE = 0o711


@dataclass(frozen=True)
class Files:
    """The files of this machine. A change whose target is in use is tried again for `patience` seconds."""

    patience: float = 5.0
    me: str = field(default_factory=win32.user)

    def read(self, path: str, offset: int, limit: int) -> bytes | None:
        """Do what HostView.read promises."""
        try:
            where = _full(path)
            kind = _kind_of(os.stat(where))
            if kind != "file":
                raise read_error(path, no_file(kind))
            with os.fdopen(win32.open_file(where), "rb", buffering=0) as file:
                if offset:
                    file.seek(offset)
                data = bytearray()
                while len(data) <= limit:
                    # what is asked for is allocated at once, however short the file is
                    piece = file.read(min(_PIECE, limit + 1 - len(data)))
                    if not piece:
                        return bytes(data)
                    data += piece
        except _ABSENT:
            return None
        except OSError as error:
            raise read_error(path, _reason(error)) from error
        except ValueError as error:
            raise read_error(path, str(error)) from error
        raise read_error(path, f"more than {limit} bytes", want=f"at most {limit} bytes")

    def lstat(self, path: str) -> Stat | None:
        """Do what HostView.stat promises; the mode follows from the access control list, the owner is not given."""
        try:
            where = _full(path)
            seen = os.lstat(where)
            kind = _kind_of(seen)
            folder = kind == "directory"
            writable = not seen.st_file_attributes & stat.FILE_ATTRIBUTE_READONLY
            mode = 0o777  # of a link, as on Linux
            if kind != "link":
                mode = acl.mode(win32.security(where), folder=folder, writable=writable, me=self.me)
        except _ABSENT:
            return None
        except OSError as error:
            raise read_error(path, _reason(error)) from error
        except ValueError as error:
            raise read_error(path, str(error)) from error
        names = seen.st_nlink if kind == "file" else 1
        return Stat(kind, mode, *acl.NOBODY_ASKED, seen.st_size, seen.st_mtime, names)

    def readlink(self, path: str) -> str | None:
        """Do what HostView.readlink promises; of a junction, too."""
        try:
            where = _full(path)
            if _kind_of(os.lstat(where)) != "link":
                return None
            return os.readlink(where).removeprefix("\\\\?\\")  # noqa: PTH115 -- as above
        except _ABSENT:
            return None
        except OSError as error:
            raise read_error(path, _reason(error)) from error
        except ValueError as error:
            raise read_error(path, str(error)) from error

    def names(self, path: str) -> tuple[str, ...]:
        """Do what HostView.list_dir promises."""
        try:
            return tuple(sorted(os.listdir(_full(path))))
        except FileNotFoundError:
            return ()
        except NotADirectoryError as error:
            if os.path.lexists(_full(path)):
                raise read_error(path, "not a directory", want="a directory") from error
            return ()
        except OSError as error:
            raise read_error(path, _reason(error), want="a directory") from error
        except ValueError as error:
            raise read_error(path, str(error), want="a directory") from error

    def replace(self, path: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
        """Do what Host.write promises.

        A folder cannot be synced to the disk here, and need not be: NTFS keeps a journal of its names.
        """
        if owner not in (None, acl.NOBODY_ASKED):
            raise AgentError(
                "write-failed", f"{path} cannot be given to {owner}", saw="Windows has no numbers for users",
                want="no owner", hint="leave the owner out: a file belongs to the user that the agent runs as",
            )  # fmt: skip
        temporary = ""
        try:
            where = _full(path)
            descriptor = acl.descriptor(mode)
            folder, name = ntpath.split(where)
            self.make_folders(folder)
            _clear(folder, name)
            if _is_folder(where):
                raise write_error(OSError(errno.EISDIR, "it is a directory"), path)
            temporary = ntpath.join(folder, f".{name}.hsm-agent-{os.urandom(4).hex()}")
            with os.fdopen(win32.create_file(temporary, descriptor), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._require(temporary, path, mode)
            self._rename(temporary, where)
            temporary = ""
        except OSError as error:
            raise write_error(error, path) from error
        except ValueError as error:
            raise AgentError("write-failed", f"{path!r} cannot be written", saw=str(error)) from error
        finally:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def symlink(self, path: str, target: str) -> None:
        """Do what Host.symlink promises."""
        temporary = ""
        try:
            where = _full(path)
            folder, name = ntpath.split(where)
            self.make_folders(folder)
            temporary = ntpath.join(folder, f".{name}.hsm-agent-{os.urandom(4).hex()}")
            os.symlink(target, temporary)  # noqa: PTH211 -- as above
            self._rename(temporary, where)
            temporary = ""
        except OSError as error:
            raise write_error(error, path) from error
        except ValueError as error:
            raise AgentError("write-failed", f"{path!r} cannot be written", saw=str(error)) from error
        finally:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)

    def remove(self, path: str) -> None:
        """Do what Host.remove promises."""
        try:
            where = _full(path) if path else ""
            if not where or paths.is_root(where):
                raise AgentError("write-failed", f"{path!r} is never removed", saw=path)
            self._remove(where)
        except _ABSENT:
            return
        except OSError as error:
            raise write_error(error, path) from error
        except ValueError as error:
            raise AgentError("write-failed", f"{path!r} cannot be removed", saw=str(error)) from error

    def make_folders(self, folder: str) -> None:
        """Make a folder and its parents; any user may pass through, none may list them. Raises OSError, ValueError."""
        where = _full(folder)
        if paths.is_root(where) or os.path.isdir(where):
            return
        self.make_folders(ntpath.dirname(where))
        try:
            win32.create_folder(where, acl.descriptor(_FOLDER_MODE, folder=True))
        except FileExistsError:
            if not os.path.isdir(where):
                raise

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[int | None]:
        """Hold a file of the administrators alone, for writing; yield its descriptor, None when another holds it.

        Raises AgentError `write-failed` or another code of `write_error`.
        """
        with contextlib.ExitStack() as stack:
            try:
                fd = stack.enter_context(win32.exclusive(_full(path), acl.descriptor(0o600)))
            except OSError as error:
                raise write_error(error, path) from error
            except ValueError as error:
                raise AgentError("write-failed", f"{path!r} cannot be locked", saw=str(error)) from error
            yield fd

    def write_error(self, error: OSError, path: str) -> AgentError:
        return write_error(error, path)

    def open_to_read(self, path: str) -> int:
        """Return a descriptor of a regular file. Raises OSError; `errno.EINVAL` for anything else."""
        where = _full_or_oserror(path)
        if _kind_of(os.stat(where)) != "file":
            raise OSError(errno.EINVAL, "not a regular file")
        return win32.open_file(where)

    def open_part(self, path: str) -> int:
        """Return a descriptor for writing a file that only the administrators may read. Raises OSError."""
        return win32.continue_file(_full_or_oserror(path), acl.descriptor(0o600))

    def publish(self, part: str, path: str) -> None:
        """Give a finished download its final name; only the administrators can read it. Raises OSError."""
        self._rename(_full_or_oserror(part), _full_or_oserror(path))

    def local_path(self, rest: str) -> str:
        """Return the path in what follows `file:`."""
        from urllib.request import url2pathname  # noqa: PLC0415 -- slow to load, and only a local mirror pays

        return url2pathname(rest)

    def room(self, path: str) -> DiskSpace:
        """Do what HostView.disk_space promises."""
        import shutil  # noqa: PLC0415 -- 2 ms, which not every check need pay

        try:
            place = _full(path)
            while not os.path.isdir(place) and not paths.is_root(place):
                place = ntpath.dirname(place)
            return DiskSpace(shutil.disk_usage(place).free, not win32.read_only_volume(place))
        except (OSError, ValueError) as error:
            raise read_error(path, str(error), want="a directory") from error

    def require_own(self, folder: str, root: str) -> None:
        """Raise AgentError `write-failed` when another user may write in a folder; create it if absent.

        In %ProgramData% any user may make folders: a folder that existed before could belong to any of them, who could
        replace a package in it after its checksum was compared. So each folder below `root` is checked, from above: a
        name in a folder that only administrators can change stays what it was at the check.
        """
        for each in _below(folder, root):
            try:
                self.make_folders(each)
                saw = self._fault_of(_full(each))
            except (OSError, ValueError) as error:
                raise AgentError("write-failed", f"{each} cannot be made", saw=str(error)) from error
            if saw:
                raise AgentError(
                    "write-failed", f"{each} belongs to others, too", saw=saw,
                    want="a directory of the administrators alone",
                    hint=f"check what is in {each}, then remove it: it is created again with its own permissions",
                )  # fmt: skip

    def _fault_of(self, where: str) -> str | None:
        if _kind_of(os.lstat(where)) != "directory":
            return "a link, or no directory"
        who = acl.untrusted_writer(win32.security(where), self.me)
        return f"a directory that others may write to: {who}" if who else None

    def _require(self, temporary: str, path: str, mode: int) -> None:
        """Raise unless the new file is as protected as its mode asks; some file systems have no lists at all."""
        got = acl.mode(win32.security(temporary), me=self.me)
        want = acl.comparable(mode)
        if got != want:
            raise AgentError(
                "write-failed", f"{path} cannot be protected", saw=f"mode {got:04o}", want=f"mode {want:04o}",
                hint="use a directory on a file system that keeps permissions, such as NTFS",
            )  # fmt: skip

    def _rename(self, temporary: str, where: str) -> None:
        """Replace a file that another program may have open, or that may be marked read-only."""
        marked = _is_marked(where)
        try:
            if marked:
                os.chmod(where, stat.S_IWRITE)
            self._retry(lambda: win32.move(temporary, where))
        except OSError:
            if marked:
                os.chmod(where, stat.S_IREAD)
            raise

    def _remove(self, where: str) -> None:
        seen = os.lstat(where)
        if seen.st_file_attributes & stat.FILE_ATTRIBUTE_READONLY:
            os.chmod(where, stat.S_IWRITE)
        if not seen.st_file_attributes & stat.FILE_ATTRIBUTE_DIRECTORY:
            self._retry(lambda: os.unlink(where))
            return
        # the target of a link does not belong to the agent
        if not seen.st_file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT:
            for name in os.listdir(where):
                with contextlib.suppress(*_ABSENT):
                    self._remove(ntpath.join(where, name))
        self._retry(lambda: os.rmdir(where))

    def _retry(self, change: Callable[[], None]) -> None:
        """Make the change; try again while another program is in the way."""
        deadline = time.monotonic() + self.patience
        while self._is_refused(change, last=time.monotonic() >= deadline):
            time.sleep(_TURN)

    def _is_refused(self, change: Callable[[], None], *, last: bool) -> bool:
        """Try once, and tell whether another program was in the way; raise the error if this is the `last` attempt."""
        try:
            change()
        except OSError as error:
            if last or error.winerror not in _BUSY:
                raise
            return True
        return False


def write_error(error: OSError, path: str) -> AgentError:
    """Return the error for a change that the system refused, by its cause."""
    saw = f"{path}: {_reason(error)}"
    if error.winerror in _FULL or error.errno == errno.ENOSPC:
        return AgentError("no-space", f"there is no room for {path}", saw=saw)
    if error.winerror == win32.WRITE_PROTECT:
        return AgentError("read-only", f"{path} cannot be written", saw=saw)
    if error.winerror in _BUSY:
        return AgentError(
            "write-failed", f"{path} cannot be written", saw=saw, want="a file that no other program holds open",
            hint="end the program that has it open (the Resource Monitor names it), or take the permission that is "
            "missing: `icacls` shows who has which",
        )  # fmt: skip
    return AgentError("write-failed", f"{path} cannot be written", saw=saw)


def read_error(path: str, saw: str, *, want: str = "a regular file that can be read") -> AgentError:
    return AgentError("unreadable", f"{path!r} cannot be read", saw=saw, want=want)


def _full(path: str) -> str:
    return paths.full(path, os.getcwd())  # noqa: PTH109 -- as above


def _full_or_oserror(path: str) -> str:
    try:
        return _full(path)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from error


def _reason(error: OSError) -> str:
    return (
        f"{error.strerror or error} (Windows error {error.winerror})"
        if error.winerror
        else str(error.strerror)
    )


def _below(folder: str, root: str) -> list[str]:
    """Return a folder and its parents below `root`, from above; the folder alone if it is not below `root`."""
    above = root.rstrip("\\")
    if not folder.lower().startswith(f"{above}\\".lower()):
        return [folder]
    parts = folder[len(above) :].strip("\\").split("\\")
    return ["\\".join((folder[: len(above)], *parts[:end])) for end in range(1, len(parts) + 1)]


def _is_marked(where: str) -> bool:
    with contextlib.suppress(OSError):
        seen = os.lstat(where).st_file_attributes
        return bool(seen & stat.FILE_ATTRIBUTE_READONLY) and not seen & stat.FILE_ATTRIBUTE_DIRECTORY
    return False


def _is_folder(where: str) -> bool:
    with contextlib.suppress(OSError):
        return _kind_of(os.lstat(where)) == "directory"
    return False


def _clear(folder: str, name: str) -> None:
    """Remove what killed runs left of earlier writes of this name; a file that is being written cannot be removed."""
    for each in os.listdir(folder):
        if each.startswith(f".{name}.hsm-agent-"):
            with contextlib.suppress(OSError):
                os.unlink(ntpath.join(folder, each))


def _kind_of(seen: os.stat_result) -> str:
    if stat.S_ISLNK(seen.st_mode) or seen.st_reparse_tag == stat.IO_REPARSE_TAG_MOUNT_POINT:
        return "link"
    if stat.S_ISREG(seen.st_mode):
        return "file"
    return "directory" if stat.S_ISDIR(seen.st_mode) else "other"
