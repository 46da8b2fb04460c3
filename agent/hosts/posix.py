"""This machine when it runs Linux: the Host that every real change goes through."""

# ruff: noqa: PTH108, PTH111, PTH120
# (names are strings in the Host interface)

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING

from agent.core.errors import AgentError, too_many_mappings
from agent.core.host import MAPPINGS_TIMEOUT, READ_LIMIT, ConnectResult, DiskSpace, LockHolder, ProcessInfo
from agent.core.system import LINUX
from agent.hosts import allowlist, connect, files, linux, processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import psutil

    from agent.core.host import CommandResult, Progress, Stat
    from agent.core.system import System
    from agent.http.download import DownloadContext, FileProvider, PartReader, PartSource

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")

# Between SIGTERM and SIGKILL, in seconds: a package manager gets time to leave its database consistent. The grace is
# part of the program's own time limit, at most this share of it: a caller with a limit must not wait longer.
_MOST_GRACE = 0.25
_GRACE_QUERY = 1.0
_GRACE_RUN = 10.0


class Posix:
    """A Host on this machine.

    `stop` ends `query`, `connect`, `sleep`, `http_get` and `download` with AgentError `interrupted`; a `run` finishes.
    `progress` is called with the state of a download. Of `environ`, HOME, the proxies and the trusted CA file are used.
    A `sender` supplies what `download` asks for, instead of the network; `objects` reads what s3: names, instead of the
    host's own role.
    """

    def __init__(
        self,
        stop: threading.Event | None = None,
        *,
        progress: Progress = lambda _have, _total: None,
        environ: Mapping[str, str] = os.environ,
        sender: FileProvider | None = None,
        objects: PartSource | None = None,
    ) -> None:
        self._stop = stop or threading.Event()
        self._progress = progress
        self._environ = environ
        self._sender = sender
        self._objects = objects or self._object

    @property
    def name(self) -> str:
        return os.uname().nodename

    @property
    def system(self) -> System:
        return LINUX

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        return files.read(path, offset, limit)

    def stat(self, path: str) -> Stat | None:
        return files.lstat(path)

    def readlink(self, path: str) -> str | None:
        return files.readlink(path)

    def list_dir(self, path: str) -> tuple[str, ...]:
        return files.names(path)

    def query(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        allowlist.require(argv)
        try:
            return self._run(argv, timeout, stdin, _GRACE_QUERY, self._stop.is_set)
        except processes.Stopped:
            raise self._interrupted(f"`{' '.join(argv)}` was running") from None

    def connect(self, address: str, port: int, *, timeout: float, tls: bool = True) -> ConnectResult:
        try:
            return connect.reach(address, port, timeout, tls, self._stop.is_set)
        except connect.Interrupted:
            raise self._interrupted(f"waiting for {address} port {port}") from None

    def lock_holder(self, path: str) -> LockHolder | None:
        try:
            return linux.holder(path)
        except OSError as error:
            raise files.os_read_error(error, path) from error

    def registry(self, key: str) -> None:  # noqa: ARG002 -- there is none
        return None

    def processes_mapping(self, prefix: str, *, timeout: float = MAPPINGS_TIMEOUT) -> tuple[ProcessInfo, ...]:
        ends = time.monotonic() + timeout

        def check_time() -> None:
            if self._stop.is_set():
                raise self._interrupted("checking the running programs")
            if time.monotonic() >= ends:
                raise too_many_mappings(timeout)

        try:
            import psutil  # noqa: PLC0415 -- 25 ms that only this check pays
        except ImportError:
            # Part of psutil is compiled. `fleet plan` lies in /run, which many systems mount noexec; and there are
            # processors that it was not compiled for.
            return linux.mapping(prefix, check_time)
        found = []
        for pid in sorted(psutil.pids()):
            with contextlib.suppress(psutil.Error, OSError):  # ended meanwhile, or not readable for this user
                paths = linux.mapped(pid, prefix, check_time)
                if paths:
                    found.append(_running(psutil.Process(pid), paths))
        return tuple(found)

    def http_get(self, url: str, *, limit: int, timeout: float) -> bytes:
        from agent.http.download import get  # noqa: PLC0415 -- 5 ms that only a download pays

        return get(url, limit=limit, timeout=timeout, context=self._context())

    def disk_space(self, path: str) -> DiskSpace:
        return linux.room(path)

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()

    def is_root(self) -> bool:
        return os.geteuid() == 0

    def sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise self._interrupted("waiting")

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        files.replace(path, data, mode, owner)

    def symlink(self, path: str, target: str) -> None:
        files.symlink(path, target)

    def chmod(self, path: str, mode: int, *, owner: tuple[int, int] | None = None) -> None:
        files.chmod(path, mode, owner)

    def remove(self, path: str) -> None:
        files.remove(path)

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        # a short time limit does not grow by the grace: the run has a limit, too
        return self._run(argv, timeout, stdin, min(_GRACE_RUN, timeout), lambda: False)

    @contextlib.contextmanager
    def lock(self, path: str, words: str) -> Iterator[None]:
        """Hold a flock on a file that no other user can open; `lock_holder` in the same process cannot drop a flock.

        `words` are written into it, and for all users into `path`.holder; neither text is the lock.
        """
        try:
            files.make_folders(os.path.dirname(path))
            fd = files.open_own(path)
        except OSError as error:
            raise files.write_error(error, path) from error
        holder = f"{path}.holder"
        with os.fdopen(fd, "r+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder_text = file.read(200).decode(errors="replace").strip()
                raise AgentError(
                    "run-locked",
                    "another hsm-agent is running on this host",
                    saw=holder_text or f"{path} is locked",
                ) from error
            data = f"{words} (pid {os.getpid()})\n".encode()
            with contextlib.suppress(OSError, AgentError):  # the lock holds without its text
                file.truncate(0)
                file.write(data)
                files.replace(holder, data, 0o644, None)
            try:
                yield
            finally:
                with contextlib.suppress(OSError, AgentError):
                    file.truncate(0)
                    os.unlink(holder)

    def download(self, url: str, path: str, *, sha256: str | None, limit: int, timeout: float) -> str:
        from agent.http.download import fetch  # noqa: PLC0415 -- as above

        return fetch(url, path, sha256=sha256, limit=limit, timeout=timeout, context=self._context())

    def _context(self) -> DownloadContext:
        from agent.http.download import DownloadContext  # noqa: PLC0415 -- as above

        return DownloadContext(
            self, files, self._environ, self._stop.is_set, self._progress, self._sender, self._objects
        )

    def _object(self, url: str, check_stopped: Callable[[], None], seconds: float) -> PartReader:
        from agent.aws.access import AwsAccess  # noqa: PLC0415 -- only for a file in S3
        from agent.aws.objects import ObjectReader  # noqa: PLC0415 -- as above

        return ObjectReader(AwsAccess(self, self._environ), url, check_stopped, seconds).read

    def _run(
        self, argv: Sequence[str], timeout: float, stdin: bytes, grace: float, stopped: Callable[[], bool]
    ) -> CommandResult:
        env = {
            "LC_ALL": "C",
            "LANG": "C",
            "PATH": PATH,
            "HOME": self._environ.get("HOME") or os.path.expanduser("~"),
            "DEBIAN_FRONTEND": "noninteractive",
            # from Ubuntu 24.04 on, needrestart restarts unrelated services after each transaction
            "NEEDRESTART_SUSPEND": "1",
        }
        for name in (*_PROXIES, *(name.upper() for name in _PROXIES)):
            if name in self._environ:
                env[name] = self._environ[name]
        grace = min(grace, _MOST_GRACE * timeout)
        return processes.run(
            argv, env=env, timeout=timeout - grace, stdin=stdin, grace=grace, stopped=stopped
        ).decoded()

    def _interrupted(self, what: str) -> AgentError:
        return AgentError("interrupted", "the run was interrupted", saw=what)


def _running(process: psutil.Process, paths: tuple[str, ...]) -> ProcessInfo:
    # psutil's name is the longer one of the command line, which the process itself can write
    return ProcessInfo(
        process.pid,
        linux.name_of(process.pid),
        process.uids().effective,
        process.gids().effective,
        linux.started(process.pid),
        paths,
    )
