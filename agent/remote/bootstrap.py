"""The bootstrap program of a roll-out: it puts the agent's archive in place, then becomes the agent in it.

Its source goes over every connection and is run by the host's own Python, 3.9 or newer, so it needs the standard
library alone. `agent.fleet.launch` puts the text of `protocol.py` in the place of the one import below.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import signal
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from agent.remote.protocol import (
    KEPT,
    PATIENCE,
    STAGING_PREFIX,
    ArchiveRef,
    Failed,
    Hello,
    RecordStream,
    WantTree,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, NoReturn

TREES = Path("/var/lib/hsm-agent/trees")
# A file in every archive on disk: the checksum of each other file.
MANIFEST = ".manifest"
# Free space that an archive needs where it is not kept, in bytes and in files.
_ROOM = 32 * 1024 * 1024
_FILES = 1000


class TimedReader:
    """A stream that is read with an alarm set: a connection can break silently, and nothing else would end the wait."""

    def __init__(self, stream: BinaryIO, patience: int = PATIENCE) -> None:
        self._stream = stream
        self._patience = patience

    def readline(self, most: int) -> bytes:
        return self._bounded(self._stream.readline, most)

    def read(self, most: int) -> bytes:
        return self._bounded(self._stream.read, most)

    def _bounded(self, read: Callable[[int], bytes], most: int) -> bytes:
        def ring(_number: int, _frame: object) -> NoReturn:
            raise ConnectionError(f"nothing came over the link for {self._patience} s")

        before = signal.signal(signal.SIGALRM, ring)
        signal.alarm(self._patience)
        try:
            return read(most)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


class ArchiveStore:
    """The unpacked archives on a host: a directory each, named by the SHA-256 of its archive once it is complete.

    One in use is held by a lock that the kernel drops with its process; only others are pruned.
    """

    def __init__(self, folder: Path = TREES) -> None:
        self._folder = folder

    def hold(self, sha256: str) -> Path | None:
        """Return the directory of an archive, held until this process ends; None when it is absent or damaged."""
        folder = self._folder / sha256
        if not (_is_own(self._folder.parent) and _is_own(self._folder)):
            return None
        fd = _locked(folder)
        if fd is not None and not is_complete(folder):
            os.close(fd)
            return None
        return None if fd is None else folder

    def unpack(self, sha256: str, archive: bytes) -> Path:
        """Unpack an archive, completely or not at all, and prune the oldest. Raises OSError."""
        import shutil  # noqa: PLC0415 -- only once for each version

        self._make()
        place, draft = self._folder / sha256, self._draft()
        held = None
        try:
            extract(archive, draft)
            seal(draft, place)
            draft.chmod(0o755)
            os.sync()  # once for all files; an fsync of each takes seconds on a slow disk
            self._clear(place)
            # another process was first, or runs from a copy that was damaged since
            with contextlib.suppress(OSError):
                draft.rename(place)
            held = self.hold(sha256) or (draft if is_complete(draft) else None)
        finally:
            if held != draft:
                shutil.rmtree(draft, ignore_errors=True)
        if held is None:
            raise FileNotFoundError(f"{place} was removed or damaged as soon as it was there")
        self._prune(sha256)
        return held

    def _make(self) -> None:
        """Make the directory of all archives. One that others could write to is closed, and what lies in it is gone."""
        import shutil  # noqa: PLC0415 -- as above

        parent = self._folder.parent
        parent.mkdir(0o711, parents=True, exist_ok=True)
        if not _is_own(parent):
            os.chown(parent, os.geteuid(), -1)
            parent.chmod(parent.stat().st_mode & 0o755)
            shutil.rmtree(self._folder, ignore_errors=True)
        elif self._folder.exists() and not _is_own(self._folder):
            shutil.rmtree(self._folder)
        # closed to others: any process that can open a directory can lock it, and make us wait
        self._folder.mkdir(0o700, exist_ok=True)

    def _draft(self) -> Path:
        """Make a locked directory to unpack into. One that another process prunes before it is locked is made again."""
        import tempfile  # noqa: PLC0415 -- as above

        while True:
            draft = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self._folder))
            if _locked(draft) is not None:
                return draft

    def _clear(self, folder: Path) -> None:
        """Move a damaged copy away, unless a process runs from it."""
        import fcntl  # noqa: PLC0415 -- as below

        if not is_complete(folder):
            with contextlib.suppress(OSError), _opened(folder) as fd:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # pruned with the drafts
                folder.rename(self._folder / f"{STAGING_PREFIX}damaged-{folder.name}-{os.getpid()}")

    def _prune(self, sha256: str) -> None:
        import fcntl  # noqa: PLC0415 -- as below
        import shutil  # noqa: PLC0415 -- as above

        found = [path for path in self._folder.iterdir() if path.name != sha256]
        drafts = [path for path in found if path.name.startswith(STAGING_PREFIX)]
        trees = sorted(set(found) - set(drafts), key=_modified)
        for path in (*drafts, *trees[:-KEPT]):
            with contextlib.suppress(OSError), _opened(path) as fd:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while a process runs from it
                # a kill during the removal must not leave an incomplete copy under the name of a complete one
                doomed = self._folder / f"{STAGING_PREFIX}old-{path.name}"
                shutil.rmtree(path if path in drafts else path.rename(doomed), ignore_errors=True)


def _is_own(folder: Path) -> bool:
    """Tell whether nobody else can write to a directory: what lies in it is run as root."""
    try:
        seen = folder.stat()
    except OSError:
        return False
    return seen.st_uid == os.geteuid() and not seen.st_mode & 0o022


def _modified(path: Path) -> float:
    """Return the time of a directory; 0 when another process has just removed it."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _locked(folder: Path) -> int | None:
    """Lock a directory as long as the descriptor is open; None where there is no directory."""
    import fcntl  # noqa: PLC0415 -- Windows has none, and the tests import this module there

    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        if folder.stat().st_ino == os.fstat(fd).st_ino:
            return fd
    except OSError:
        pass  # another process has just removed it
    os.close(fd)
    return None


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in a failure: one of a write does not, and a host can have several disks."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def extract(archive: bytes, folder: Path) -> None:
    """Unpack a tar.gz whose one top directory becomes `folder`. Raises OSError for all but plain files below it."""
    import io  # noqa: PLC0415 -- as above
    import shutil  # noqa: PLC0415
    import tarfile  # noqa: PLC0415

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            parts = member.name.split("/")[1:]
            source = tar.extractfile(member) if member.isreg() else None
            if source is None or not parts or ".." in parts or "" in parts:
                raise OSError(
                    f"the archive holds {member.name!r}, which is no plain file below its directory"
                )
            path = folder.joinpath(*parts)
            path.parent.mkdir(0o755, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, member.mode & 0o755)
            with _named(path), os.fdopen(fd, "wb") as file:
                shutil.copyfileobj(source, file)


def seal(folder: Path, place: Path) -> None:
    """Compile an unpacked archive that will move to `place`, and write its manifest.

    Otherwise Python writes the compiled files at the first import, later and unsynced.
    """
    import compileall  # noqa: PLC0415 -- as above

    compileall.compile_dir(folder, quiet=2, stripdir=str(folder), prependdir=str(place))
    files = [path for path in folder.rglob("*") if path.is_file()]
    sums = {str(path.relative_to(folder)): _sum(path) for path in files}
    with _named(folder / MANIFEST):
        folder.joinpath(MANIFEST).write_text(json.dumps(sums))


def is_complete(folder: Path) -> bool:
    """Return whether every file is as it was written: a power cut or another program may have truncated one."""
    try:
        sums = json.loads(folder.joinpath(MANIFEST).read_bytes())
        return bool(sums) and all(_sum(folder / name) == wanted for name, wanted in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sum(path: Path) -> int:
    """Return a fast checksum. A forger could as well write the manifest, so a secure one would prove no more."""
    return zlib.crc32(path.read_bytes())


def _temporary_root() -> str | None:
    """Return a directory to run a temporary copy from: its disk has room, and allows libraries to be loaded."""
    for folder in ("/run", "/var/tmp", "/tmp"):  # noqa: S108 -- mkdtemp makes a private one there
        with contextlib.suppress(OSError):
            disk = os.statvfs(folder)
            free = disk.f_bavail * disk.f_frsize >= _ROOM and (disk.f_favail >= _FILES or not disk.f_files)
            if free and os.access(folder, os.W_OK) and not disk.f_flag & os.ST_NOEXEC:
                return folder
    return None


def ensure_archive(stream: RecordStream, wanted: ArchiveRef, store: ArchiveStore) -> Path:
    """Return the directory of the archive, which the operator sends when it is not here.

    One that is not kept (`plan` leaves no trace) is unpacked into a temporary directory.
    Raises OSError (ConnectionError when the connection is lost), and ValueError for bytes with another checksum.
    """
    sys.dont_write_bytecode = True  # what is kept is compiled already, and in its manifest
    held = store.hold(wanted.sha256)
    if held is not None:
        return held
    import hashlib  # noqa: PLC0415 -- only where an archive is sent

    stream.send(WantTree())
    archive = stream.archive()
    seen = hashlib.sha256(archive).hexdigest()
    if seen != wanted.sha256:
        raise ValueError(f"sha256:{seen}, wanted sha256:{wanted.sha256}")
    if wanted.keep:
        return store.unpack(wanted.sha256, archive)
    import atexit  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="hsm-agent-", dir=_temporary_root()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    extract(archive, folder)
    return folder


def main() -> None:
    """Read the request, put the archive in place, and become the agent in it."""
    # Loading modules makes no garbage; collections during it and at the end cost each host 20 ms.
    gc.set_threshold(20_000)
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the run finishes when the connection does not
    stream = RecordStream(TimedReader(sys.stdin.buffer), sys.stdout.buffer)
    try:
        request = stream.request()
        stream.send(Hello(".".join(map(str, sys.version_info[:3])), os.getuid()))
        folder = ensure_archive(stream, request.tree, ArchiveStore())
    except ConnectionError as error:
        stream.send(Failed("link-lost", str(error)))
    except ValueError as error:
        stream.send(Failed("checksum-mismatch", str(error)))
    except OSError as error:
        codes = {errno.ENOSPC: "no-space", errno.EDQUOT: "no-space", errno.EROFS: "read-only"}
        stream.send(Failed(codes.get(error.errno or 0, "write-failed"), str(error)))
    else:
        sys.path.insert(0, str(folder))
        try:
            # by name, since it can be imported only now
            serve = importlib.import_module("agent.remote.server").serve
        except Exception as crash:  # noqa: BLE001 -- whatever is wrong in the archive, the operator gets an answer
            stream.send(Failed("far-end-failed", f"{type(crash).__name__}: {crash}"))
        else:
            serve(request, stream)
    gc.freeze()


if __name__ == "__main__":
    # The server uses the protocol that was sent: to load the copy in the archive would cost each host 2 ms.
    sys.modules["agent.remote.protocol"] = sys.modules["__main__"]
    main()
