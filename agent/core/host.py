"""The two interfaces to a machine: HostView reads, Host also changes; their docstrings bind every adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Protocol

if TYPE_CHECKING:
    import datetime
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from agent.core.codes import CodeName
    from agent.core.registry import RegistryKey
    from agent.core.system import System

# The largest file that the agent reads; every file that it needs is far smaller.
READ_LIMIT = 4 * 1024 * 1024
# the most that the running programs are checked for, in seconds: some thousand take one
MAPPINGS_TIMEOUT = 10.0


@dataclass(frozen=True)
class CommandResult:
    """A finished program. `status` is None when it was ended because its time ran out."""

    status: int | None
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def timed_out(self) -> bool:
        return self.status is None

    def tail(self, lines: int = 10) -> str:
        """Return the last lines of the program's output, of standard error if it is not empty."""
        output = self.err.strip() or self.out.strip()
        return "\n".join(output.splitlines()[-lines:])


@dataclass(frozen=True)
class Stat:
    """What a name in the file system is. `kind` is file, directory, link or other; `mtime` is epoch seconds.

    On Windows `mode` follows from the access control list, and uid and gid are -1. `names` is the number of names of a
    file: those besides this one are hard links. `writers` are the users and groups that an access list beside the mode
    lets write, each `user` or `group` with its number; only Linux has them.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: float
    names: int = 1
    writers: tuple[tuple[str, int], ...] = ()


def no_file(kind: str) -> str:
    """Return what is in the place of a regular file, by the kind of its Stat."""
    return "it is a directory" if kind == "directory" else "it is a device, a FIFO or a socket"


@dataclass(frozen=True)
class ConnectResult:
    """The result of `connect`: `cause` is None when connected, else an error code such as `hsm-timed-out`.

    `seconds` is the time to connect; `tls` tells whether a TLS handshake was answered, None when not tried. `source` is
    the address of this machine from which it was tried, empty where none leads there.
    """

    address: str
    port: int
    cause: CodeName | None
    detail: str
    seconds: float | None
    tls: bool | None = None
    source: str = ""


@dataclass(frozen=True)
class LockHolder:
    """The process that holds a lock. `name` is empty when it is unknown."""

    pid: int
    name: str


@dataclass(frozen=True)
class ProcessInfo:
    """A process that has a file of the client mapped. `started` is epoch seconds.

    uid and gid are the effective ones, -1 on Windows.
    """

    pid: int
    name: str
    uid: int
    gid: int
    started: float
    mapped: tuple[str, ...]


@dataclass(frozen=True)
class DiskSpace:
    """Free space where a path lies, in bytes, and whether its file system can be written at all.

    `inodes` is how many more files it takes, None where it does not count them; `executable` whether programs may run
    from there. `fixed`: the file system can be written, but an attribute protects this very file or folder.
    """

    free: int
    writable: bool
    inodes: int | None = None
    executable: bool = True
    fixed: bool = False


# called with the bytes so far and the total (None when the server did not send it)
Progress = Callable[[int, Optional[int]], None]


class HostView(Protocol):
    """Reads. Nothing here changes the machine, so a check that is given a HostView cannot.

    Failures of the machine itself (a file that exists and cannot be read) raise AgentError; absence is a value. The
    slow methods (`query`, `connect`, `http_get`, `sleep`, and `download` of a Host) raise `interrupted` when the run is
    interrupted.
    """

    @property
    def name(self) -> str:
        """The host's own name, for reports."""

    @property
    def system(self) -> System:
        """The kind of this system, and where it keeps things."""

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        """Return a regular file's bytes from `offset` on, None when there is no such file.

        Raises AgentError `unreadable` for a folder, a FIFO, a device, a missing permission or more than `limit` bytes:
        no path that a user names can block this or exhaust the memory.
        """

    def stat(self, path: str) -> Stat | None:
        """Return what is at `path`, without following a link in its last part; None when nothing is."""

    def readlink(self, path: str) -> str | None:
        """Return the target of the link at `path`, as written; None when `path` is no link, or absent."""

    def list_dir(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a folder; empty when it is absent."""

    def query(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        """Run a read-only program that `agent/hosts/allowlist.py` permits; any other raises CommandNotAllowed.

        A missing program gives status 127. The program is ended with all its children after `timeout` seconds.
        """

    def connect(self, address: str, port: int, *, timeout: float, tls: bool = True) -> ConnectResult:
        """Connect once by TCP; if `tls`, also try a TLS handshake (no certificate is verified)."""

    def lock_holder(self, path: str) -> LockHolder | None:
        """Return who holds the fcntl lock on `path`, None when it is free or absent; on Windows, the mutex it names."""

    def registry(self, key: str) -> RegistryKey | None:
        r"""Return a key of the 64-bit registry, such as `HKLM\SOFTWARE\x`; None when it is absent, always on Linux.

        Raises AgentError `unreadable` for a key that exists and cannot be read to its end.
        """

    def processes_mapping(self, prefix: str, *, timeout: float = MAPPINGS_TIMEOUT) -> tuple[ProcessInfo, ...]:
        """Return the running processes of this host that have mapped a file whose path starts with `prefix`.

        One in a container has its own files under these names. Raises AgentError `unreadable` when `timeout` seconds
        are not enough: any user can map a million files.
        """

    def http_get(self, url: str, *, limit: int, timeout: float) -> bytes:
        """Return the content of an https URL, in memory. Raises AgentError as `download` does."""

    def disk_space(self, path: str) -> DiskSpace:
        """Return the space where `path` is or would be (the nearest existing parent decides)."""

    def now(self) -> datetime.datetime:
        """Return the host's clock, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps; only differences mean anything."""

    def is_root(self) -> bool:
        """Return whether the agent may change this host (effective user 0; Administrator)."""

    def sleep(self, seconds: float) -> None:
        """Wait. A method of the host, so that no test sleeps, and so that a signal ends the wait."""


class Host(HostView, Protocol):
    """Reads and changes. Every write is atomic: a reader sees the old bytes or the new ones, also after a power cut."""

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        """Replace a file; mode and owner (uid, gid) are set before the name appears.

        Missing parents are made with 0711: their entries are reached by name, and no other user lists them.
        On Windows a mode becomes an access control list; a mode without a counterpart is refused, and so is an owner.

        A stream or device (`core.system.is_stream`) is written to instead; anything else that is no file is refused and
        stays as it is. A link is replaced, not followed.

        Raises AgentError `no-space`, `read-only` or `write-failed`; then the old file is unchanged.
        """

    def symlink(self, path: str, target: str) -> None:
        """Replace a file or link by a link to `target`. Raises as `write` does."""

    def chmod(self, path: str, mode: int, *, owner: tuple[int, int] | None = None) -> None:
        """Set the mode of a file or folder, and its owner (uid, gid). A link is refused. Raises as `write` does.

        On Windows it is refused: a file gets its access list when it is written.
        """

    def remove(self, path: str) -> None:
        """Remove a file, or a folder and all below it; absent is fine."""

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        """Run a program that may change the machine. An interrupt of the agent does not end it, only `timeout` does."""

    def lock(self, path: str, words: str) -> AbstractContextManager[None]:
        """Hold a lock that the kernel drops when its holder dies; `words` tell others who holds it.

        Raises AgentError `run-locked` at once when another holds it. Children do not inherit it.
        """

    def download(self, url: str, path: str, *, sha256: str | None, limit: int, timeout: float) -> str:
        """Download `url` (https, http, s3, file or a bare path) to `path` and return the SHA-256 of the bytes in hex.

        A file at `path` that already has that `sha256` is used as it is. The adapter's `progress` is called meanwhile.
        The bytes are streamed to `path` + `.part`, resumed from an earlier part, retried with back-off and jitter
        where that can help, and take their final name only when `sha256` agrees (or none was given).
        Raises AgentError `download-failed`, `package-not-found`, `checksum-mismatch`, `no-space`.
        """
