"""This machine when it runs Windows: the Host that every real change goes through."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import ntpath
import os
import select
import sys
import threading
import time
from typing import TYPE_CHECKING

from agent.core.errors import AgentError, too_many_mappings
from agent.core.host import MAPPINGS_TIMEOUT, READ_LIMIT, ConnectResult, LockHolder, ProcessInfo
from agent.core.system import windows
from agent.hosts import allowlist, connect
from agent.hosts.processes import Stopped
from agent.hosts.windows import acl, files, processes, registry, win32

assert sys.platform == "win32"

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from agent.core.host import CommandResult, DiskSpace, Progress, Stat
    from agent.core.registry import RegistryKey
    from agent.core.system import System
    from agent.http.download import DownloadContext, FileProvider, PartReader, PartSource

_MUTEX = "Global\\"


class Windows:
    """A Host on this machine, with the arguments of Posix.

    Times, `stop`, `progress`, `environ`, `sender` and `objects` are as there. `patience` is how long a change waits, in
    seconds, for other programs to close a file.
    """

    def __init__(
        self,
        stop: threading.Event | None = None,
        *,
        progress: Progress = lambda _have, _total: None,
        environ: Mapping[str, str] = os.environ,
        sender: FileProvider | None = None,
        objects: PartSource | None = None,
        patience: float = 5.0,
    ) -> None:
        self._stop = stop or threading.Event()
        self._progress = progress
        self._environ = environ
        self._sender = sender
        self._objects = objects or self._object
        self._files = files.Files(patience)
        # for a 32-bit program, PROGRAMFILES is the other folder
        programs = environ.get("PROGRAMW6432") or environ.get("PROGRAMFILES")
        self._system = windows(
            programs or r"C:\Program Files",
            environ.get("PROGRAMDATA") or r"C:\ProgramData",
            environ.get("SYSTEMROOT") or r"C:\Windows",
        )
        self._allowed = allowlist.of(self._system)

    @property
    def name(self) -> str:
        return self._environ.get("COMPUTERNAME", "")

    @property
    def system(self) -> System:
        return self._system

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        return self._files.read(path, offset, limit)

    def stat(self, path: str) -> Stat | None:
        return self._files.lstat(path)

    def readlink(self, path: str) -> str | None:
        return self._files.readlink(path)

    def list_dir(self, path: str) -> tuple[str, ...]:
        return self._files.names(path)

    def query(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        allowlist.require(argv, self._allowed)
        try:
            return self._run(argv, timeout, stdin, stop=self._stop)
        except Stopped:
            raise self._interrupted(f"`{' '.join(argv)}` was running") from None

    def connect(self, address: str, port: int, *, timeout: float, tls: bool = True) -> ConnectResult:
        try:
            return connect.reach(
                address, port, timeout, tls, self._stop.is_set,
                ready=_ready, under_way=errno.EWOULDBLOCK, words=win32.explain,
            )  # fmt: skip
        except connect.Interrupted:
            raise self._interrupted(f"waiting for {address} port {port}") from None

    def lock_holder(self, path: str) -> LockHolder | None:
        r"""Tell whether a named mutex such as `Global\_MSIExecute` is owned; Windows does not name the owner.

        The check takes a free mutex for a moment. Files have no such locks here, so asking about a file is a
        defect of the agent.
        """
        if not path.startswith(_MUTEX):
            raise ValueError(f"{path!r} is not the name of a mutex")
        return LockHolder(0, "") if win32.is_owned(path) else None

    def registry(self, key: str) -> RegistryKey | None:
        return registry.read(key)

    def processes_mapping(self, prefix: str, *, timeout: float = MAPPINGS_TIMEOUT) -> tuple[ProcessInfo, ...]:
        import psutil  # noqa: PLC0415 -- 25 ms that only this check pays

        found, ends = [], time.monotonic() + timeout
        for pid in sorted(psutil.pids()):
            if time.monotonic() >= ends:
                raise too_many_mappings(timeout)
            with contextlib.suppress(psutil.Error, OSError):  # ended meanwhile, or not readable for this user
                process = psutil.Process(pid)
                paths = sorted({each.path for each in process.memory_maps() if _is_below(each.path, prefix)})
                if paths:
                    found.append(
                        ProcessInfo(
                            pid, process.name(), *acl.NOBODY_ASKED, process.create_time(), tuple(paths)
                        )
                    )
        return tuple(found)

    def http_get(self, url: str, *, limit: int, timeout: float) -> bytes:
        from agent.http.download import get  # noqa: PLC0415 -- 5 ms that only a download pays

        return get(url, limit=limit, timeout=timeout, context=self._context())

    def disk_space(self, path: str) -> DiskSpace:
        return self._files.room(path)

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.timezone.utc)

    def monotonic(self) -> float:
        return time.perf_counter()  # up to Python 3.12 time.monotonic counts in steps of 16 ms

    def is_root(self) -> bool:
        return win32.is_administrator()

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise self._interrupted("waiting")

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        self._files.replace(path, data, mode, owner)

    def symlink(self, path: str, target: str) -> None:
        self._files.symlink(path, target)

    def chmod(self, path: str, mode: int, *, owner: tuple[int, int] | None = None) -> None:
        raise AgentError(
            "write-failed",
            f"{path} cannot be given mode {mode:04o}, owner {owner}",
            saw="Windows has access control lists instead",
            want="a list that is set with `icacls`",
        )

    def remove(self, path: str) -> None:
        self._files.remove(path)

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        return self._run(argv, timeout, stdin, stop=threading.Event())

    @contextlib.contextmanager
    def lock(self, path: str, words: str) -> Iterator[None]:
        """Hold a file that the administrators alone can open; `words` go into it, and for all users into `path`.holder.

        A user who keeps `path`.holder open blocks no run: it is not the lock.
        """
        self._files.require_own(ntpath.dirname(path), self._system.data)
        holder = f"{path}.holder"
        hurried = files.Files(0.0, self._files.me)
        with self._files.locked(path) as fd:
            if fd is None:
                holder_text = (self._files.read(path, 0, 4096) or b"").decode(errors="replace").strip()
                raise AgentError(
                    "run-locked",
                    "another hsm-agent is running on this host",
                    saw=holder_text or f"{path} is locked",
                )
            data = f"{words} (pid {os.getpid()})\n".encode()
            with contextlib.suppress(OSError, AgentError):  # the lock holds without its text
                os.ftruncate(fd, 0)
                os.write(fd, data)
                hurried.replace(holder, data, 0o644, None)
            try:
                yield
            finally:
                with contextlib.suppress(OSError, AgentError):
                    os.ftruncate(fd, 0)
                    hurried.remove(holder)

    def download(self, url: str, path: str, *, sha256: str | None, limit: int, timeout: float) -> str:
        from agent.http.download import fetch  # noqa: PLC0415 -- as above

        return fetch(url, path, sha256=sha256, limit=limit, timeout=timeout, context=self._context())

    def _context(self) -> DownloadContext:
        from agent.http.download import DownloadContext  # noqa: PLC0415 -- as above

        return DownloadContext(
            self,
            self._files,
            self._environ,
            self._stop.is_set,
            self._progress,
            self._sender,
            self._objects,
        )

    def _object(self, url: str, check_stopped: Callable[[], None], seconds: float) -> PartReader:
        from agent.aws.access import AwsAccess  # noqa: PLC0415 -- only for a file in S3
        from agent.aws.objects import ObjectReader  # noqa: PLC0415 -- as above

        return ObjectReader(AwsAccess(self, self._environ), url, check_stopped, seconds).read

    def _run(
        self, argv: Sequence[str], timeout: float, stdin: bytes, *, stop: threading.Event
    ) -> CommandResult:
        return processes.run(
            argv,
            env=processes.environment(self._environ),
            timeout=timeout,
            stdin=stdin,
            stopped=stop.is_set,
        )

    def _interrupted(self, what: str) -> AgentError:
        return AgentError("interrupted", "the run was interrupted", saw=what)


def _is_below(path: str, prefix: str) -> bool:
    return path.replace("/", "\\").lower().startswith(prefix.replace("/", "\\").lower())


def _ready(sock: socket.socket, writing: bool, seconds: float) -> bool:
    """Wait for a socket. Windows reports a failed connection among the exceptional ones."""
    readers, writers = ([], [sock]) if writing else ([sock], [])
    return any(select.select(readers, writers, writers, seconds))
