"""The first program of ours on a host of a roll-out: sees to the tree that is wanted, then becomes the agent in it.

Its source is sent with every connection and run by the host's own Python, so it needs the standard library alone and
nothing that lies on the host. What goes over the wire is told in `agent/fleet/README.md`.
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
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from typing import BinaryIO, NoReturn, Protocol

    class Incoming(Protocol):
        """What comes from the operator. A read that waits too long raises ConnectionError."""

        def readline(self, most: int, /) -> bytes: ...

        def read(self, most: int, /) -> bytes: ...


TREES = Path("/var/lib/hsm-agent/trees")
# Beside the one in use: a controller of the version before may still be at work.
KEPT = 2
# Every record of ours begins with this byte (RFC 7464) and the word of its request, so that what a login shell prints
# is told apart, whatever that is.
RECORD = b"\x1e"
# For how long the operator's end may be silent while we wait for it, in seconds; then the link counts as broken.
PATIENCE = 60
# What is in a tree, and the checksum of each file.
MANIFEST = ".manifest"
# What a tree that is not kept needs of a disk, in bytes and in files.
_ROOM = 32 * 1024 * 1024
_FILES = 1000
# How the name of a folder begins that holds less than a tree.
STAGING_PREFIX = ".new-"
_LINE = 1024 * 1024
_PIECE = 64 * 1024


class TimedReader:
    """A stream that is read with an alarm set: a link can break without a word, and nothing else would end the wait."""

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


class RecordStream:
    """The connection to the operator: records out; lines and bytes in, of which no wait is endless."""

    def __init__(self, incoming: Incoming, outgoing: BinaryIO) -> None:
        self._in = incoming
        self._out = outgoing
        self._word = b""

    def say(self, event: str, **values: Any) -> None:
        """Send a record. A link that is broken is no reason to stop: what is going on finishes and keeps its report."""
        record = json.dumps({"event": event, **values}).encode()  # in ASCII, which holds also what is no text
        try:
            self._out.write(RECORD + self._word + record + b"\n")
            self._out.flush()
        except (OSError, ValueError):
            # what is still buffered would fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())

    def request(self) -> dict[str, Any]:
        """Return the request. From here on each record begins with its word, which no other program can know."""
        tree = self.line()
        self._word = str(tree.get("word", "")).encode()
        return tree

    def line(self) -> dict[str, Any]:
        """Return the next line, a JSON object. Raises ConnectionError when the link is broken.

        No exception of our own: this program is run by its source, and the agent it becomes would know another class.
        """
        text = self._in.readline(_LINE)
        try:
            tree = json.loads(text)
        except ValueError:
            tree = None
        if not isinstance(tree, dict):
            raise ConnectionError("the link ended" if not text else "no record came over the link")
        return tree

    def pieces(self, size: int) -> Generator[bytes, None, None]:
        """Return `size` bytes as they come. What a caller leaves of them is read away, so that lines stay lines."""
        left = size
        try:
            while left:
                piece = self._in.read(min(_PIECE, left))
                if not piece:
                    raise ConnectionError(f"the link ended {left} bytes before the end of a file")
                left -= len(piece)
                yield piece
        finally:
            while left and sys.exc_info()[0] is not ConnectionError:
                piece = self._in.read(min(_PIECE, left))
                left = left - len(piece) if piece else 0


class ArchiveStore:
    """Where trees lie on a host: one folder each, which has the SHA-256 of its archive as its name once it is complete.

    A tree in use is held by a lock that the kernel drops with its process, and only others are pruned.
    """

    def __init__(self, folder: Path = TREES) -> None:
        self._folder = folder

    def hold(self, sha256: str) -> Path | None:
        """Return the folder of a tree, held until this process ends; None when it is not here, or not whole."""
        folder = self._folder / sha256
        fd = _locked(folder)
        if fd is not None and not is_whole(folder):
            os.close(fd)
            return None
        return None if fd is None else folder

    def unpack(self, sha256: str, archive: bytes) -> Path:
        """Unpack a tree, complete or not at all, and prune those of long ago. Raises OSError."""
        import shutil  # noqa: PLC0415 -- only once for each version

        self._folder.parent.mkdir(0o711, parents=True, exist_ok=True)
        # root's alone: whoever can open a folder can lock it, and have us wait
        self._folder.mkdir(0o700, exist_ok=True)
        place, draft = self._folder / sha256, self._draft()
        held = None
        try:
            extract(archive, draft)
            seal(draft, place)
            draft.chmod(0o755)
            os.sync()  # once for all of its files; each by itself takes seconds on a slow disk
            self._clear(place)
            with contextlib.suppress(
                OSError
            ):  # another process was first, or runs from one that was damaged since
                draft.rename(place)
            held = self.hold(sha256) or (draft if is_whole(draft) else None)
        finally:
            if held != draft:
                shutil.rmtree(draft, ignore_errors=True)
        if held is None:
            raise FileNotFoundError(f"{place} was removed or damaged as soon as it was there")
        self._prune(sha256)
        return held

    def _draft(self) -> Path:
        """Make a folder to unpack into, which nobody prunes: one that was pruned before it was locked is made again."""
        import tempfile  # noqa: PLC0415 -- as above

        while True:
            draft = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=self._folder))
            if _locked(draft) is not None:
                return draft

    def _clear(self, folder: Path) -> None:
        """Take a tree away that is not whole, unless somebody runs from it."""
        import fcntl  # noqa: PLC0415 -- as below

        if not is_whole(folder):
            with contextlib.suppress(OSError), _opened(folder) as fd:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                folder.rename(
                    self._folder / f"{STAGING_PREFIX}damaged-{folder.name}-{os.getpid()}"
                )  # pruned with the drafts

    def _prune(self, sha256: str) -> None:
        import fcntl  # noqa: PLC0415 -- Windows has none, and takes Wire alone from here
        import shutil  # noqa: PLC0415 -- as above

        found = [path for path in self._folder.iterdir() if path.name != sha256]
        drafts = [path for path in found if path.name.startswith(STAGING_PREFIX)]
        trees = sorted(set(found) - set(drafts), key=_modified)
        for path in (*drafts, *trees[:-KEPT]):
            with contextlib.suppress(OSError), _opened(path) as fd:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # refused while somebody runs from it
                # a kill in the middle of a removal must not leave half of a tree under the name of the whole
                half = (
                    path if path in drafts else path.rename(self._folder / f"{STAGING_PREFIX}old-{path.name}")
                )
                shutil.rmtree(half, ignore_errors=True)


def _modified(path: Path) -> float:
    """Return when a folder was made; 0 when another process has just removed it."""
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
    """Lock a folder as long as the descriptor is open, at most until this process ends; None when there is none."""
    import fcntl  # noqa: PLC0415 -- as above

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
    """Have a failure name the file: one to write does not, and a host has more disks than one."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def extract(archive: bytes, folder: Path) -> None:
    """Write the files of a tar.gz whose one top folder becomes `folder`. Only plain files, and only below it."""
    import io  # noqa: PLC0415 -- as above
    import shutil  # noqa: PLC0415
    import tarfile  # noqa: PLC0415

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            parts = member.name.split("/")[1:]
            source = tar.extractfile(member) if member.isreg() else None
            if source is None or not parts or ".." in parts or "" in parts:
                raise OSError(f"the archive holds {member.name!r}, which is no plain file below its folder")
            path = folder.joinpath(*parts)
            path.parent.mkdir(0o755, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, member.mode & 0o755)
            with _named(path), os.fdopen(fd, "wb") as file:
                shutil.copyfileobj(source, file)


def seal(folder: Path, place: Path) -> None:
    """Compile a tree that is to lie in `place`, and write down what is in it.

    So what Python would write at its first import, later and unsynced, is there from the beginning.
    """
    import compileall  # noqa: PLC0415 -- as above

    compileall.compile_dir(folder, quiet=2, stripdir=str(folder), prependdir=str(place))
    files = [path for path in folder.rglob("*") if path.is_file()]
    sums = {str(path.relative_to(folder)): _sum(path) for path in files}
    with _named(folder / MANIFEST):
        folder.joinpath(MANIFEST).write_text(json.dumps(sums))


def is_whole(folder: Path) -> bool:
    """Tell whether every file of a tree is as it was written: a disk, or somebody, may have cut one since."""
    try:
        sums = json.loads(folder.joinpath(MANIFEST).read_bytes())
        return bool(sums) and all(_sum(folder / name) == wanted for name, wanted in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sum(path: Path) -> int:
    """Return a checksum that is quick: who could forge one could as well change what it is compared with."""
    return zlib.crc32(path.read_bytes())


def _roomy() -> str | None:
    """Return where a temporary tree can be run from: not a disk that is full, or lets no library be loaded."""
    for folder in ("/run", "/var/tmp", "/tmp"):  # noqa: S108 -- the folder made in it is ours alone
        with contextlib.suppress(OSError):
            disk = os.statvfs(folder)
            free = disk.f_bavail * disk.f_frsize >= _ROOM and (disk.f_favail >= _FILES or not disk.f_files)
            if free and os.access(folder, os.W_OK) and not disk.f_flag & os.ST_NOEXEC:
                return folder
    return None


def ensure_archive(wire: RecordStream, wanted: Mapping[str, Any], grounds: ArchiveStore) -> Path:
    """Return the folder of the tree that is wanted, asking for it when it is not here.

    A tree that is not to be kept (`plan` leaves no trace) is unpacked into a temporary folder.
    Raises OSError, of which ConnectionError is the link's, and ValueError for other bytes than are wanted.
    """
    sha256 = wanted["sha256"]
    sys.dont_write_bytecode = True  # what is kept is compiled already, and sealed
    held = grounds.hold(sha256)
    if held is not None:
        return held
    import hashlib  # noqa: PLC0415 -- only where a tree comes

    wire.say("want", what="tree")
    size = wire.line()["size"]
    archive = b"".join(wire.pieces(size))
    seen = hashlib.sha256(archive).hexdigest()
    if seen != sha256:
        raise ValueError(f"sha256:{seen}, wanted sha256:{sha256}")
    if wanted["keep"]:
        return grounds.unpack(sha256, archive)
    import atexit  # noqa: PLC0415
    import shutil  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp(prefix="hsm-agent-", dir=_roomy()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    extract(archive, folder)
    return folder


def main() -> None:
    """Take the request, see to the tree, and become the agent that lies in it."""
    # Loading modules makes no garbage; looking for it meanwhile and at the end costs each host 20 ms.
    gc.set_threshold(20_000)
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the link may end before we do
    wire = RecordStream(TimedReader(sys.stdin.buffer), sys.stdout.buffer)
    try:
        request = wire.request()
        wire.say("hello", python=".".join(map(str, sys.version_info[:3])), uid=os.getuid())
        folder = ensure_archive(wire, request["tree"], ArchiveStore())
    except ConnectionError as error:
        wire.say("failed", code="link-lost", saw=str(error))
    except ValueError as error:
        wire.say("failed", code="checksum-mismatch", saw=str(error))
    except OSError as error:
        codes = {errno.ENOSPC: "no-space", errno.EDQUOT: "no-space", errno.EROFS: "read-only"}
        wire.say("failed", code=codes.get(error.errno or 0, "write-failed"), saw=str(error))
    else:
        sys.path.insert(0, str(folder))
        try:
            # by its name, since it is there only now
            serve = importlib.import_module("agent.remote.server").serve
        except Exception as crash:  # noqa: BLE001 -- whatever is wrong there, whoever asks gets an answer
            wire.say("failed", code="far-end-failed", saw=f"{type(crash).__name__}: {crash}")
        else:
            serve(request, wire)
    gc.freeze()


if __name__ == "__main__":
    main()
