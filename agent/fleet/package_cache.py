"""The packages that travel: each is brought to the operator's disk once, verified, and sent on to every host."""

from __future__ import annotations

import contextlib
import re
import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass
from hashlib import sha256 as new_sha256
from typing import TYPE_CHECKING

from agent.cloudhsm.components import PACKAGE_PATTERN
from agent.core.errors import AgentError
from agent.core.urls import below, shown
from agent.fleet.journal import operator_folder
from agent.steps.package import require_authentic_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from agent.core.host import Host

# as for a host that brings a package itself
_LARGEST = 512 * 1024 * 1024
_SECONDS = 600.0
_PIECE = 256 * 1024
# How often whoever waits for a file says so, in seconds: a host counts its link as broken after 60 s of silence.
_TURN = 20.0
# the vendor's layout (cloudhsm-facts 2.1): one folder, one file of a package that it publishes
_PACKAGE = rf"[A-Za-z0-9]+/(?:{PACKAGE_PATTERN})[-_](?:\d|latest)[A-Za-z0-9._-]*\.(?:rpm|deb|msi)"
# A version of all components for a handful of platforms, and their bytes; those not used for longest make room.
_KEPT = 64
_ROOM = 8 * _LARGEST


@dataclass(frozen=True)
class CachedPackage:
    """A file that is here: its size in bytes, and its SHA-256 in hex as it was just computed."""

    path: Path
    size: int
    sha256: str

    def pieces(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from iter(lambda: file.read(_PIECE), b"")


def home(environ: Mapping[str, str]) -> Path:
    """Return the folder in which this operator's packages are kept."""
    return operator_folder(environ, "XDG_CACHE_HOME", ".cache") / "hsm-agent" / "packages"


class PackageCache:
    """Used by many visits at the same time: a file is brought once, by a thread of its own, and all wait for that."""

    def __init__(self, machine: Host, folder: Path, turn: float = _TURN) -> None:
        self._machine = machine
        self._folder = folder
        self._turn = turn
        self._lock = threading.Lock()
        self._coming: dict[tuple[str, str | None], Future[CachedPackage]] = {}

    def cached(
        self, url: str, sha256: str | None, source: str, still: Callable[[], None] = lambda: None
    ) -> CachedPackage:
        """Return a file, brought from `url` when it is not here yet. Raises AgentError as Host.fetch does.

        The URL comes from a host, and a host may be in wrong hands: only what has the name of a client package and lies
        below `source`, the mirror or folder that its packages come from, is ever read or sent. `still` is called now
        and then while it is waited for, and may end the wait by raising.
        """
        named = re.search(rf"(?<=/){_PACKAGE}(?=\?|$)", url)
        if named is None or url != below(source, named[0]):
            raise AgentError(
                "download-failed",
                "the host asked for what is no client package",
                saw=shown(url),
                want=f"a package below {shown(source)}",
            )
        if sha256 is None:
            require_authentic_source(url)
        coming = self._ordered(url, sha256)
        while not wait((coming,), self._turn).done:
            still()
        return coming.result()

    def _ordered(self, url: str, sha256: str | None) -> Future[CachedPackage]:
        """Return a file that comes or is here. What failed before is tried anew, once for all who wait then."""
        key = (url, sha256)
        with self._lock:
            coming = self._coming.get(key)
            if coming is None or (coming.done() and coming.exception() is not None):
                coming = Future()
                # of its own, since a visit can be cut while others wait; nobody waits for it at the end
                threading.Thread(target=self._fill, args=(coming, url, sha256), daemon=True).start()
                self._coming[key] = coming
            return coming

    def _fill(self, coming: Future[CachedPackage], url: str, sha256: str | None) -> None:
        try:
            coming.set_result(self._bring(url, sha256))
        except Exception as error:  # noqa: BLE001 -- raised again where it is waited for
            coming.set_exception(error)

    def _bring(self, url: str, sha256: str | None) -> CachedPackage:
        # two mirrors may have different files of one name
        folder = self._folder / new_sha256(f"{url} {sha256}".encode()).hexdigest()[:16]
        path = folder / url.partition("?")[0].rpartition("/")[2]
        if sha256 is None:
            self._machine.remove(str(path))  # what the vendor calls latest changes under the same name
        try:
            seen = self._machine.download(url, str(path), sha256=sha256, limit=_LARGEST, timeout=_SECONDS)
        finally:
            self._make_room(folder)
        return CachedPackage(path, path.stat().st_size, seen)

    def _make_room(self, used: Path) -> None:
        with contextlib.suppress(OSError):  # another roll-out makes room at the same time
            used.touch()
            folders = sorted(self._folder.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
            total = 0
            for number, folder in enumerate(folders):
                total += sum(file.stat().st_size for file in folder.iterdir())
                if number >= _KEPT or (number and total > _ROOM):
                    self._machine.remove(str(folder))
