"""The packages of a run: each is downloaded to the operator's disk once, verified, and sent to every host."""

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
from agent.core.urls import below, redact_url
from agent.fleet.journal import operator_folder
from agent.steps.package import require_authentic_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from agent.core.host import Host

# The same bounds as for a host that downloads a package itself, in bytes and seconds.
_LARGEST = 512 * 1024 * 1024
_SECONDS = 600.0
_PIECE = 256 * 1024
# How often a session that waits for a file tells its host so, in seconds: after 60 s of silence the host gives up.
_TURN = 20.0
# The vendor's layout (cloudhsm-facts 2.1): a directory, and the file of a package in it.
_PACKAGE = rf"[A-Za-z0-9]+/(?:{PACKAGE_PATTERN})[-_](?:\d|latest)[A-Za-z0-9._-]*\.(?:rpm|deb|msi)"
# Room for one version of all components on a few platforms: how many files, and their bytes. The oldest go first.
_KEPT = 64
_ROOM = 8 * _LARGEST


@dataclass(frozen=True)
class CachedPackage:
    """A file in the cache: its size in bytes, and its SHA-256 in hex as it was just computed."""

    path: Path
    size: int
    sha256: str

    def pieces(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            yield from iter(lambda: file.read(_PIECE), b"")


def home(environ: Mapping[str, str]) -> Path:
    """Return the directory of this operator's packages."""
    return operator_folder(environ, "XDG_CACHE_HOME", ".cache") / "hsm-agent" / "packages"


class PackageCache:
    """Used by many sessions at the same time: one thread downloads a file, and all sessions wait for it."""

    def __init__(self, machine: Host, folder: Path, turn: float = _TURN) -> None:
        self._machine = machine
        self._folder = folder
        self._turn = turn
        self._lock = threading.Lock()
        self._downloads: dict[tuple[str, str | None], Future[CachedPackage]] = {}

    def cached(
        self, url: str, sha256: str | None, source: str, still: Callable[[], None] = lambda: None
    ) -> CachedPackage:
        """Return a file, downloaded from `url` when it is not here yet. Raises AgentError as Host.download does.

        The URL comes from a host, which may be compromised: only a file with the name of a client package, below
        `source` (the mirror or directory of its packages), is ever read or sent. `still` is called repeatedly during
        the wait, and may end it by raising.
        """
        named = re.search(rf"(?<=/){_PACKAGE}(?=\?|$)", url)
        if named is None or url != below(source, named[0]):
            raise AgentError(
                "download-failed",
                "the host asked for what is no client package",
                saw=redact_url(url),
                want=f"a package below {redact_url(source)}",
            )
        if sha256 is None:
            require_authentic_source(url)
        download = self._download_of(url, sha256)
        while not wait((download,), self._turn).done:
            still()
        return download.result()

    def _download_of(self, url: str, sha256: str | None) -> Future[CachedPackage]:
        """Return a file that is here or being downloaded. A failed download is repeated, once for all who wait."""
        key = (url, sha256)
        with self._lock:
            download = self._downloads.get(key)
            if download is None or (download.done() and download.exception() is not None):
                download = Future()
                # a thread of its own, since a session can be cancelled while others wait; not joined at the end
                threading.Thread(target=self._fill, args=(download, url, sha256), daemon=True).start()
                self._downloads[key] = download
            return download

    def _fill(self, download: Future[CachedPackage], url: str, sha256: str | None) -> None:
        try:
            download.set_result(self._download(url, sha256))
        except Exception as error:  # noqa: BLE001 -- raised again where it is waited for
            download.set_exception(error)

    def _download(self, url: str, sha256: str | None) -> CachedPackage:
        # two mirrors may have different files of the same name
        folder = self._folder / new_sha256(f"{url} {sha256}".encode()).hexdigest()[:16]
        path = folder / url.partition("?")[0].rpartition("/")[2]
        if sha256 is None:
            self._machine.remove(str(path))  # the vendor's "latest" changes under the same name
        try:
            seen = self._machine.download(url, str(path), sha256=sha256, limit=_LARGEST, timeout=_SECONDS)
        finally:
            self._make_room(folder)
        return CachedPackage(path, path.stat().st_size, seen)

    def _make_room(self, used: Path) -> None:
        with contextlib.suppress(OSError):  # another roll-out may prune at the same time
            used.touch()
            folders = sorted(self._folder.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)
            total = 0
            for number, folder in enumerate(folders):
                total += sum(file.stat().st_size for file in folder.iterdir())
                if number >= _KEPT or (number and total > _ROOM):
                    self._machine.remove(str(folder))
