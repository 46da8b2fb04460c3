"""A configuration file made ready for its tool: what stood there before, in a form that a client can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from agent.cloudhsm.protection import closed, require_closed
from agent.core.links import resolve_link

if TYPE_CHECKING:
    from agent.cloudhsm.client_config import SavedConfig
    from agent.cloudhsm.paths import ClientPaths
    from agent.core.host import Host

_MODE = 0o644


@dataclass(frozen=True)
class FileAttributes:
    """How one kind of file is read.

    `read` returns (whether it configures a client, its faults), `mend` the bytes without faults; both raise ValueError
    for what is no such file.
    """

    read: Callable[[bytes], tuple[bool, tuple[str, ...]]]
    mend: Callable[[bytes], bytes]

    def is_readable(self, data: bytes | None) -> bool:
        try:
            self.read(data or b"")
        except ValueError:
            return False
        return True

    def is_configured(self, data: bytes | None) -> bool:
        return self.is_readable(data) and self.read(data or b"")[0]


def prepare(
    host: Host, layout: ClientPaths, path: str, form: FileAttributes, kept: SavedConfig | None
) -> None:
    """Leave a file to the tool that it can add to: what was there before the package's fresh one, without faults."""
    data = host.read(path)
    base, like = _base(data, form, kept)
    if base is None:
        return
    ready = base
    if form.is_readable(base):
        ready = form.mend(base)
    if ready != data:
        _write(host, layout, path, ready, like)


def undo_damage(
    host: Host, layout: ClientPaths, path: str, form: FileAttributes, before: bytes | None
) -> None:
    """Put back what a tool that was cut short left unreadable: it could not read its own file the next time."""
    if before is not None and form.is_readable(before) and not form.is_readable(host.read(path)):
        _write(host, layout, path, before, None)


def _base(
    data: bytes | None, form: FileAttributes, kept: SavedConfig | None
) -> tuple[bytes | None, SavedConfig | None]:
    """Return which file the tool is to add to: the one that is there, or the copy that was kept."""
    fresh = form.is_readable(data) and kept is not None and not form.is_configured(kept.data)
    if kept is None or form.is_configured(data) or fresh:
        return data, None
    return kept.data, kept


def _write(host: Host, layout: ClientPaths, path: str, data: bytes, like: SavedConfig | None) -> None:
    """Write a configuration file, through a link where it is one, with the mode and owner that it has or had."""
    require_closed(host, layout, path)
    place = resolve_link(host, path)
    stat = host.stat(place)
    mode = _MODE if stat is None else closed(stat.mode)
    owner = None if stat is None else (stat.uid, stat.gid)
    if like is not None:
        mode, owner = like.mode, like.owner
    if host.system.is_windows:
        # a file that is marked read-only is replaced anyway, and Windows has no numbers of users
        mode, owner = mode | 0o200, None
    host.write(place, data, mode=mode, owner=owner)
