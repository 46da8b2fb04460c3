"""Reports that are still to be delivered: one file each, numbered in the order they were written, few and small."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.host import Host, HostView

_VERSION = 1
# A timer's reports of some days, and no more disk than a log would take. The oldest make room.
MOST = 100
MOST_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Kept:
    """A report that waits in the file `name`, for the place `uri`; `token_file` and `ca` were named for that place."""

    name: str
    uri: str
    document: str
    token_file: str | None = None
    ca: str | None = None


def keep(
    host: Host, uri: str, document: str, label: str, *, token_file: str | None = None, ca: str | None = None
) -> int:
    """Add a report, and return how many old ones made room. Raises AgentError when it cannot be written.

    The number orders, not the clock, which may jump. `label` keeps apart what two runs write at once.
    """
    tree = {"schema_version": _VERSION, "uri": uri, "document": document, "token_file": token_file, "ca": ca}
    data = json.dumps(tree).encode()
    names = _names(host)
    number = 1 + max((int(name.partition("-")[0]) for name in names), default=0)
    sizes = [seen.size if seen else 0 for seen in (host.stat(_path(host, name)) for name in names)]
    dropped = excess(sizes, len(data))
    host.write(_path(host, f"{number:08}-{label}.json"), data, mode=0o600)
    for name in names[:dropped]:
        host.remove(_path(host, name))
    return dropped


def excess(sizes: Sequence[int], new: int) -> int:
    """Return how many of the oldest must go, so that with the new one there are at most MOST, in MOST_BYTES.

    The new one always stays.
    """
    dropped = max(0, len(sizes) + 1 - MOST)
    left = sum(sizes[dropped:]) + new
    while left > MOST_BYTES and dropped < len(sizes):
        left -= sizes[dropped]
        dropped += 1
    return dropped


def waiting(host: Host) -> tuple[tuple[Kept, ...], int]:
    """Return what waits, oldest first, and how many files were no report of this version: these are removed."""
    found, damaged = [], 0
    for name in _names(host):
        kept = _read(host, name)
        if kept is None:
            host.remove(_path(host, name))
            damaged += 1
        else:
            found.append(kept)
    return tuple(found), damaged


def forget(host: Host, kept: Kept) -> None:
    host.remove(_path(host, kept.name))


def _names(view: HostView) -> tuple[str, ...]:
    """Return the names of our files. Numbers have eight digits, so names sort as numbers do."""
    return tuple(
        name
        for name in view.names(view.system.spool)
        if name.endswith(".json") and name.isascii() and name[:8].isdigit() and name[8:9] == "-"
    )


def _read(view: HostView, name: str) -> Kept | None:
    try:
        tree = json.loads(view.read(_path(view, name), limit=2 * MOST_BYTES) or b"")
        if tree["schema_version"] != _VERSION:
            return None
        report = json.loads(tree["document"])
        whole = isinstance(tree["uri"], str) and {"run_id", "host"} <= report.keys()
        paths = [tree.get(key) for key in ("token_file", "ca")]
        whole = whole and all(each is None or isinstance(each, str) for each in paths)
        return Kept(name, tree["uri"], tree["document"], *paths) if whole else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AgentError):
        return None


def _path(view: HostView, name: str) -> str:
    return view.system.join(view.system.spool, name)
