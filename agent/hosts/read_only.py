"""A host that cannot be changed: `plan` and `verify` get it, so that no defect of the agent changes a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from agent.core.host import MAPPINGS_TIMEOUT, READ_LIMIT

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from agent.core.host import (
        CommandResult,
        ConnectResult,
        DiskSpace,
        HostView,
        LockHolder,
        ProcessInfo,
        Stat,
    )
    from agent.core.registry import RegistryKey
    from agent.core.system import System


class WriteForbidden(BaseException):
    """Code tried to change a machine that may only be read.

    A defect, and no Exception for the same reason as CommandNotAllowed: a handler for failures must not hide it.
    """


class ReadOnlyHost:
    """A Host that passes reads to another host, and raises WriteForbidden for every change."""

    def __init__(self, view: HostView) -> None:
        self._view = view

    @property
    def name(self) -> str:
        return self._view.name

    @property
    def system(self) -> System:
        return self._view.system

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        return self._view.read(path, offset=offset, limit=limit)

    def stat(self, path: str) -> Stat | None:
        return self._view.stat(path)

    def readlink(self, path: str) -> str | None:
        return self._view.readlink(path)

    def list_dir(self, path: str) -> tuple[str, ...]:
        return self._view.list_dir(path)

    def query(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> CommandResult:
        return self._view.query(argv, timeout=timeout, stdin=stdin)

    def connect(self, address: str, port: int, *, timeout: float, tls: bool = True) -> ConnectResult:
        return self._view.connect(address, port, timeout=timeout, tls=tls)

    def lock_holder(self, path: str) -> LockHolder | None:
        return self._view.lock_holder(path)

    def registry(self, key: str) -> RegistryKey | None:
        return self._view.registry(key)

    def processes_mapping(self, prefix: str, *, timeout: float = MAPPINGS_TIMEOUT) -> tuple[ProcessInfo, ...]:
        return self._view.processes_mapping(prefix, timeout=timeout)

    def http_get(self, url: str, *, limit: int, timeout: float) -> bytes:
        return self._view.http_get(url, limit=limit, timeout=timeout)

    def disk_space(self, path: str) -> DiskSpace:
        return self._view.disk_space(path)

    def now(self) -> dt.datetime:
        return self._view.now()

    def monotonic(self) -> float:
        return self._view.monotonic()

    def is_root(self) -> bool:
        return self._view.is_root()

    def sleep(self, seconds: float) -> None:
        self._view.sleep(seconds)

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> NoReturn:
        raise WriteForbidden(f"write {path}: {len(data)} bytes, mode {mode:o}, owner {owner}")

    def symlink(self, path: str, target: str) -> NoReturn:
        raise WriteForbidden(f"symlink {path} to {target}")

    def chmod(self, path: str, mode: int, *, owner: tuple[int, int] | None = None) -> NoReturn:
        raise WriteForbidden(f"chmod {path}: mode {mode:o}, owner {owner}")

    def remove(self, path: str) -> NoReturn:
        raise WriteForbidden(f"remove {path}")

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> NoReturn:
        raise WriteForbidden(f"do `{' '.join(argv)}`: {timeout:g} s, {len(stdin)} bytes of input")

    def lock(self, path: str, words: str) -> NoReturn:
        raise WriteForbidden(f"lock {path}: {words}")

    def download(self, url: str, path: str, *, sha256: str | None, limit: int, timeout: float) -> NoReturn:
        raise WriteForbidden(f"fetch {url} to {path}: {sha256}, {limit} bytes, {timeout:g} s")
