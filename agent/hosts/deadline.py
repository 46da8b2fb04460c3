"""A host with the run's time limit: no step can make the run last longer than that."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.core.errors import AgentError, DownloadTimeoutError
from agent.core.host import MAPPINGS_TIMEOUT, READ_LIMIT

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from agent.core.host import CommandResult, ConnectResult, DiskSpace, Host, LockHolder, ProcessInfo, Stat
    from agent.core.registry import RegistryKey
    from agent.core.system import System


class DeadlineHost:
    """Another Host for `limit` seconds, counted from its construction; then a method raises AgentError `timed-out`.

    Each `timeout` is clamped to the time that is left. A wait that ended because of that is `timed-out` too:
    neither the HSM nor the package manager is to blame. Name, clocks and `is_root` always answer. The limit must not
    stop undo and report: they are given the host inside.
    """

    def __init__(self, host: Host, limit: float) -> None:
        self._host = host
        self._limit = limit
        self._end = host.monotonic() + limit

    def longer(self, least: float) -> DeadlineHost:
        """Return the host with the same end, but with at least `least` seconds: to check what a run left."""
        return DeadlineHost(self._host, max(least, self._end - self._host.monotonic()))

    @property
    def name(self) -> str:
        return self._host.name

    @property
    def system(self) -> System:
        return self._host.system

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        self._left(f"before reading {path}")
        return self._host.read(path, offset=offset, limit=limit)

    def stat(self, path: str) -> Stat | None:
        self._left(f"before checking {path}")
        return self._host.stat(path)

    def readlink(self, path: str) -> str | None:
        self._left(f"before checking {path}")
        return self._host.readlink(path)

    def list_dir(self, path: str) -> tuple[str, ...]:
        self._left(f"before listing {path}")
        return self._host.list_dir(path)

    def query(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        left = self._left(f"before `{' '.join(argv)}`")
        done = self._host.query(argv, timeout=min(timeout, left), stdin=stdin)
        self._blame(done.timed_out and left < timeout, f"`{' '.join(argv)}` was running")
        return done

    def connect(self, address: str, port: int, *, timeout: float, tls: bool = True) -> ConnectResult:
        left = self._left(f"before connecting to {address} port {port}")
        reached = self._host.connect(address, port, timeout=min(timeout, left), tls=tls)
        self._blame(
            reached.cause in ("hsm-timed-out", "hsm-no-tls") and left < timeout,
            f"waiting for {address} port {port}",
        )
        return reached

    def lock_holder(self, path: str) -> LockHolder | None:
        self._left(f"before checking the lock {path}")
        return self._host.lock_holder(path)

    def registry(self, key: str) -> RegistryKey | None:
        self._left(f"before reading {key}")
        return self._host.registry(key)

    def processes_mapping(self, prefix: str, *, timeout: float = MAPPINGS_TIMEOUT) -> tuple[ProcessInfo, ...]:
        left = self._left("before checking the running programs")
        return self._host.processes_mapping(prefix, timeout=min(timeout, left))

    def http_get(self, url: str, *, limit: int, timeout: float) -> bytes:
        left = self._left("before a download")
        with self._blaming(left < timeout):
            return self._host.http_get(url, limit=limit, timeout=min(timeout, left))

    def disk_space(self, path: str) -> DiskSpace:
        self._left(f"before checking the space of {path}")
        return self._host.disk_space(path)

    def now(self) -> dt.datetime:
        return self._host.now()

    def monotonic(self) -> float:
        return self._host.monotonic()

    def is_root(self) -> bool:
        return self._host.is_root()

    def sleep(self, seconds: float) -> None:
        self._host.sleep(min(seconds, self._left("waiting")))

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        self._left(f"before writing {path}")
        self._host.write(path, data, mode=mode, owner=owner)

    def symlink(self, path: str, target: str) -> None:
        self._left(f"before linking {path}")
        self._host.symlink(path, target)

    def chmod(self, path: str, mode: int, *, owner: tuple[int, int] | None = None) -> None:
        self._left(f"before changing the mode of {path}")
        self._host.chmod(path, mode, owner=owner)

    def remove(self, path: str) -> None:
        self._left(f"before removing {path}")
        self._host.remove(path)

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        left = self._left(f"before `{' '.join(argv)}`")
        done = self._host.run(argv, timeout=min(timeout, left), stdin=stdin)
        self._blame(done.timed_out and left < timeout, f"`{' '.join(argv)}` was running")
        return done

    def lock(self, path: str, words: str) -> AbstractContextManager[None]:
        self._left(f"before taking the lock {path}")
        return self._host.lock(path, words)

    def download(self, url: str, path: str, *, sha256: str | None, limit: int, timeout: float) -> str:
        left = self._left(f"before downloading {path}")
        with self._blaming(left < timeout):
            return self._host.download(url, path, sha256=sha256, limit=limit, timeout=min(timeout, left))

    @contextlib.contextmanager
    def _blaming(self, clamped: bool) -> Iterator[None]:
        """Raise `timed-out` for a download that failed because this limit shortened its time."""
        try:
            yield
        except DownloadTimeoutError as error:
            self._blame(clamped, f"{error.sentence}: {error.saw}")
            raise

    def _left(self, what: str) -> float:
        left = self._end - self._host.monotonic()
        self._blame(left <= 0, what)
        return left

    def _blame(self, over: bool, what: str) -> None:
        if over:
            raise AgentError(
                "timed-out",
                f"the run's limit of {self._limit:g} s ran out",
                saw=what,
                want=f"an end within {self._limit:g} s",
            )
