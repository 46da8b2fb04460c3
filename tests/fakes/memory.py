"""A machine in memory: files, programs, ports, locks and a clock that only `pause` moves; what is unknown raises."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable, Union

from agent.core.errors import AgentError, too_many_mappings
from agent.core.host import (
    MAPPINGS_TIMEOUT,
    READ_LIMIT,
    CommandResult,
    ConnectResult,
    DiskSpace,
    LockHolder,
    ProcessInfo,
    Stat,
    no_file,
)
from agent.core.system import LINUX, is_stream
from agent.hosts import allowlist

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.core.codes import CodeName
    from agent.core.registry import RegistryKey
    from agent.core.system import System

Argv = tuple[str, ...]
# what a program says: always the same, or worked out (and it may touch the machine, or move its clock)
Program = Callable[[Argv, "Memory"], CommandResult]
Answer = Union[CommandResult, Program]
# what a URL holds, or why it cannot be had; or worked out, like a program
Content = Union[bytes, AgentError, Callable[["Memory"], Union[bytes, AgentError]]]


class Unknown(BaseException):
    """The machine was asked for something the test did not describe; no handler for failures may hide that."""


@dataclass(frozen=True)
class Entry:
    """One name in the file system. `link` is the goal of a link; `kind`, `names`, `writers` as in Stat."""

    kind: str = "file"
    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 0.0
    link: str = ""
    names: int = 1
    writers: tuple[tuple[str, int], ...] = ()


class Memory:
    """A Host that is data.

    `answers` holds for an exact command, `programs` for every other call of a program (by its argv[0]); `do` runs
    them as well as `ask`, which first asks the allow-list. A program sees what it was given on standard input in
    `stdin`. `ports` says for (address, port) which cause keeps it from being reached, None when connected.
    `urls` holds what a URL downloads, or the AgentError it raises. `locks` and `running` are who holds which lock
    and what is running. `keys` is what the registry holds, or why a key cannot be read, `other_keys` what it holds
    beside them. `streams` is what was written to streams and devices. `touches` records every verb that changes the machine, in order; failed ones too.
    """

    def __init__(
        self,
        files: Mapping[str, bytes] | None = None,
        *,
        answers: Mapping[Argv, Answer] | None = None,
        programs: Mapping[str, Answer] | None = None,
        ports: Mapping[tuple[str, int], CodeName | None] | None = None,
        urls: Mapping[str, Content] | None = None,
        name: str = "memory",
        system: System = LINUX,
        started: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc),
    ) -> None:
        self.entries: dict[str, Entry] = {"/": Entry("directory", mode=0o755)}
        self.answers: dict[Argv, Answer] = dict(answers or {})
        self.programs: dict[str, Answer] = dict(programs or {})
        self.ports = dict(ports or {})
        self.urls: dict[str, Content] = dict(urls or {})
        self.locks: dict[str, LockHolder | Callable[[Memory], LockHolder | None]] = {}
        self.running: tuple[ProcessInfo, ...] = ()
        # how many seconds it takes to check what they have mapped
        self.mappings_take = 0.0
        self.held: dict[str, str] = {}
        self.keys: dict[str, RegistryKey | AgentError] = {}
        self.other_keys: Callable[[str], RegistryKey | None] = lambda _: None
        self.touches: list[tuple[str, ...]] = []
        self.streams: dict[str, bytes] = {}
        self.stdin = b""
        # content -> its SHA-256, of what only its publisher has
        self.digests: dict[bytes, str] = {}
        self.full = False
        self.read_only = False
        self.root = True
        self.allowed = allowlist.of(system)
        self.stopped = False
        self.free = 10 * 1024**3
        self.clock = 0.0
        self._name = name
        self._system = system
        self._started = started
        for path, data in (files or {}).items():
            self.place(path, data)

    def place(self, path: str, data: bytes = b"", **fields: str | int) -> None:
        """Put something there as the machine's own doing, with its parents: no touch."""
        self._make_parents(path)
        self.entries[self._place_of(path)] = replace(Entry(data=data, mtime=self._epoch()), **fields)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        return self._name

    @property
    def system(self) -> System:
        return self._system

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        if "\0" in path:
            raise _unreadable(path, "a zero byte in its name")
        entry = self._follow(path)
        if entry is None:
            return None
        if entry.kind != "file":
            raise _unreadable(path, no_file(entry.kind))
        if not self.root and not entry.mode & 0o004:
            raise _unreadable(path, "Permission denied")
        data = entry.data[offset:]
        if len(data) > limit:
            raise _unreadable(path, f"more than {limit} bytes")
        return data

    def stat(self, path: str) -> Stat | None:
        entry = self.entries.get(self._place_of(path))
        if entry is None:
            return None
        size = len(entry.link) if entry.kind == "link" else len(entry.data)
        return Stat(
            entry.kind, entry.mode, entry.uid, entry.gid, size, entry.mtime, entry.names, entry.writers
        )

    def readlink(self, path: str) -> str | None:
        entry = self.entries.get(self._place_of(path))
        return entry.link if entry is not None and entry.kind == "link" else None

    def list_dir(self, path: str) -> tuple[str, ...]:
        entry = self._follow(path)
        if entry is None:
            return ()
        if entry.kind != "directory":
            raise _unreadable(path, "not a directory")
        return tuple(sorted(posixpath.basename(each) for each in self._below(self._goal(path), deep=False)))

    def query(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        allowlist.require(argv, self.allowed)
        self._mind()
        return self._answer(tuple(argv), stdin, timeout)

    def connect(self, address: str, port: int, *, timeout: float, tls: bool = True) -> ConnectResult:
        self._mind()
        if (address, port) not in self.ports:
            raise Unknown(f"reach {address} port {port}")
        cause = self.ports[address, port]
        if cause is None:
            return ConnectResult(address, port, None, "connected", 0.001, True if tls else None)
        if cause == "hsm-no-tls":
            if not tls:
                return ConnectResult(address, port, None, "connected", 0.001, None)
            self.clock += timeout
            return ConnectResult(
                address, port, cause, f"connected, then was silent for {timeout:g} s", 0.001, tls=False
            )
        if cause == "hsm-timed-out":
            self.clock += timeout
        return ConnectResult(address, port, cause, cause, None, None)

    def lock_holder(self, path: str) -> LockHolder | None:
        held = self.locks.get(path)
        return held(self) if callable(held) else held

    def registry(self, key: str) -> RegistryKey | None:
        found = self.keys[key] if key in self.keys else self.other_keys(key)
        if isinstance(found, AgentError):
            raise found
        return found

    def processes_mapping(self, prefix: str, *, timeout: float = MAPPINGS_TIMEOUT) -> tuple[ProcessInfo, ...]:
        if self.mappings_take > timeout:
            self.clock += timeout
            raise too_many_mappings(timeout)
        found = []
        for each in sorted(self.running, key=lambda running: running.pid):
            mapped = tuple(path for path in each.mapped if path.startswith(prefix))
            if mapped:
                found.append(replace(each, mapped=mapped))
        return tuple(found)

    def http_get(self, url: str, *, limit: int, timeout: float) -> bytes:
        self._mind()
        if not url.startswith("https:"):
            raise AgentError("download-failed", f"{url} could not be downloaded", saw="not an https URL")
        return self._download(url, limit)

    def disk_space(self, path: str) -> DiskSpace:
        return DiskSpace(0 if self.full else self.free, not self.read_only)

    def now(self) -> dt.datetime:
        return self._started + dt.timedelta(seconds=self.clock)

    def monotonic(self) -> float:
        return self.clock

    def is_root(self) -> bool:
        return self.root

    def sleep(self, seconds: float) -> None:
        self._mind()
        self.clock += seconds

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        self.touches.append(("write", path))
        self._refuse(path)
        old = self.entries.get(self._place_of(path))
        if is_stream(path):
            self.streams[path] = self.streams.get(path, b"") + data
            return
        if old is not None and old.kind not in ("file", "link"):
            raise AgentError("write-failed", f"{path} cannot be written", saw=f"{path}: {old.kind}")
        uid, gid = owner or (0, 0)
        self._make_parents(path)
        self.entries[self._place_of(path)] = Entry("file", data, mode, uid, gid, self._epoch())

    def symlink(self, path: str, target: str) -> None:
        self.touches.append(("symlink", path, target))
        self._refuse(path)
        self._require_no_folder(path)
        self._make_parents(path)
        self.entries[self._place_of(path)] = Entry("link", mode=0o777, mtime=self._epoch(), link=target)

    def chmod(self, path: str, mode: int, *, owner: tuple[int, int] | None = None) -> None:
        self.touches.append(("chmod", path))
        self._refuse(path, grows=False)
        entry = self.entries.get(self._place_of(path))
        if entry is None or entry.kind == "link" or self._system.kind == "windows":
            raise AgentError(
                "write-failed", f"{path} cannot be written", saw=f"{path}: not a file or directory"
            )
        uid, gid = owner or (entry.uid, entry.gid)
        # the group's rights are all that an access list lets anybody have
        writers = entry.writers if mode & 0o020 else ()
        self.entries[self._place_of(path)] = replace(entry, mode=mode, uid=uid, gid=gid, writers=writers)

    def remove(self, path: str) -> None:
        self.touches.append(("remove", path))
        if path.strip("/") == "":
            raise AgentError("write-failed", f"{path!r} is never removed", saw=path)
        place = self._place_of(path)
        if place in self.entries:
            self._refuse(path, grows=False)
            for each in self._below(place, deep=True):
                del self.entries[each]
            del self.entries[place]

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        self.touches.append(("run", *argv))
        return self._answer(tuple(argv), stdin, timeout)

    @contextlib.contextmanager
    def lock(self, path: str, words: str) -> Iterator[None]:
        self.touches.append(("lock", path))
        if path in self.held:
            raise AgentError("run-locked", "another hsm-agent is running on this host", saw=self.held[path])
        self._refuse(path, grows=False)
        self.held[path] = words
        try:
            yield
        finally:
            del self.held[path]

    def _digest(self, data: bytes) -> str:
        return self.digests.get(data) or hashlib.sha256(data).hexdigest()

    def download(
        self,
        url: str,
        path: str,
        *,
        sha256: str | None,
        limit: int,
        timeout: float,
    ) -> str:
        self.touches.append(("download", url, path))
        self._mind()
        here = self._follow(path)
        if sha256 and here is not None and self._digest(here.data) == sha256.lower():
            return sha256.lower()
        self._refuse(path)
        local = url[len("file://") :] if url.startswith("file:///") else url
        if local.startswith("/"):
            entry = self._follow(local)
            if entry is None:
                raise AgentError("package-not-found", f"{local} is not there", saw="no such file", want=local)
            data = entry.data
        else:
            data = self._download(url, limit)
        got = self._digest(data)
        if sha256 and got != sha256.lower():
            raise AgentError(
                "checksum-mismatch",
                f"{url} is not the file that is wanted",
                saw=f"sha256:{got}",
                want=f"sha256:{sha256.lower()}",
            )
        self.place(path, data)
        return got

    def _answer(self, argv: Argv, stdin: bytes, timeout: float) -> CommandResult:
        answer = self.answers.get(argv) or self.programs.get(argv[0])
        if answer is None:
            raise Unknown(f"the machine does not know `{' '.join(argv)}`")
        self.stdin = stdin
        before = self.clock
        done = answer if isinstance(answer, CommandResult) else answer(argv, self)
        if done.timed_out or self.clock - before > timeout:
            self.clock = before + timeout
            return replace(done, status=None)
        return done

    def _download(self, url: str, limit: int) -> bytes:
        if url not in self.urls:
            raise Unknown(f"download {url}")
        found = self.urls[url]
        data = found(self) if callable(found) else found
        if isinstance(data, AgentError):
            raise data
        if len(data) > limit:
            raise AgentError(
                "download-failed", f"{url} could not be downloaded", saw=f"more than {limit} bytes"
            )
        return data

    def _mind(self) -> None:
        if self.stopped:
            raise AgentError("interrupted", "the run was interrupted")

    def _refuse(self, path: str, *, grows: bool = True) -> None:
        if self.read_only:
            raise AgentError("read-only", f"{path} cannot be written", saw=f"{path}: Read-only file system")
        if self.full and grows:
            raise AgentError(
                "no-space", f"there is no room for {path}", saw=f"{path}: No space left on device"
            )

    def _require_no_folder(self, path: str) -> None:
        old = self.entries.get(self._place_of(path))
        if old is not None and old.kind == "directory":
            raise AgentError("write-failed", f"{path} cannot be written", saw=f"{path}: Is a directory")

    def _epoch(self) -> float:
        return self._started.timestamp() + self.clock

    def _make_parents(self, path: str) -> None:
        """Make folders down to the path's own; one that is a file refuses."""
        folder = posixpath.dirname(_posix(path))
        entry = self._follow(folder)
        if entry is None:
            self._make_parents(folder)
            self.entries[self._place_of(folder)] = Entry("directory", mode=0o711, mtime=self._epoch())
        elif entry.kind != "directory":
            raise AgentError("write-failed", f"{path} cannot be written", saw=f"{path}: Not a directory")

    def _place_of(self, path: str) -> str:
        """Return the path with every link but a last one followed."""
        path = posixpath.normpath(_posix(path))
        end = path.find("/", 1)
        while end != -1:  # no recursion from folder to folder: a test asks for a place thousands of times
            entry = self.entries.get(path[:end])
            if entry is not None and entry.kind == "link":
                return self._place_of(posixpath.join(self._goal(path[:end]), path[end + 1 :]))
            end = path.find("/", end + 1)
        return path

    def _goal(self, path: str, left: int = 40) -> str:
        """Return the path with every link followed."""
        place = self._place_of(path)
        entry = self.entries.get(place)
        if entry is None or entry.kind != "link":
            return place
        if left == 0:
            raise _unreadable(path, "Too many levels of symbolic links")
        return self._goal(posixpath.join(posixpath.dirname(place), _posix(entry.link)), left - 1)

    def _follow(self, path: str) -> Entry | None:
        return self.entries.get(self._goal(path))

    def _below(self, place: str, *, deep: bool) -> list[str]:
        start = place.rstrip("/") + "/"
        below = [each for each in self.entries if each.startswith(start) and each != place]
        return [each for each in below if deep or "/" not in each[len(start) :]]


def _unreadable(path: str, saw: str) -> AgentError:
    return AgentError(
        "unreadable", f"{path!r} cannot be read", saw=saw, want="a regular file that can be read"
    )


def _posix(path: str) -> str:
    """Return a path of Windows as one below a folder that is called like its drive."""
    return "/" + path.replace("\\", "/") if path[1:3] in (":\\", ":/") else path
