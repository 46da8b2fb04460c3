"""Reports that are still to be delivered: one file each, numbered in the order they were written, few and small."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.host import Host, HostView

# Version 1 had no checksum; what an agent of before left is still delivered.
_VERSION = 2
_LABEL = 100  # letters in the name of a file; with number and ending it stays below any limit of a system
_WITHOUT_CHECKSUM = 1
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
    data = _written(uri, document, token_file, ca)
    names = _names(host)
    number = 1 + max(map(_number, names), default=0)
    sizes = [seen.size if seen else 0 for seen in (host.stat(_path(host, name)) for name in names)]
    dropped = excess(sizes, len(data))
    # the label of another version, or of a spoilt report, may hold what no name of a file does
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", label)[:_LABEL]
    host.write(_path(host, f"{number:08}-{plain}.json"), data, mode=0o600)
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
    """Return what waits, oldest first, and how many files were no report, which are removed.

    A file of which a byte is another than was written is none; what a newer agent wrote stays for that.
    """
    found, damaged = [], 0
    for name in _names(host):
        kept = _read(host, name)
        if kept is None:
            host.remove(_path(host, name))
            damaged += 1
        elif kept is not _NEWER:
            found.append(kept)
    return tuple(found), damaged


def forget(host: Host, kept: Kept) -> None:
    host.remove(_path(host, kept.name))


def _names(view: HostView) -> tuple[str, ...]:
    """Return the names of our files in the order they were written: numbers have eight digits, or more."""
    found = (name for name in view.names(view.system.spool) if re.fullmatch(r"[0-9]{8,200}-.*\.json", name))
    return tuple(sorted(found, key=lambda name: (_number(name), name)))


def _number(name: str) -> int:
    return int(name.partition("-")[0])


# what this agent cannot read and another one can
_NEWER = Kept("", "", "")


def _read(view: HostView, name: str) -> Kept | None:
    """Return the report in a file, _NEWER, or None for what is damaged."""
    try:
        data = view.read(_path(view, name), limit=2 * MOST_BYTES) or b""
        tree = json.loads(data)
        version = tree["schema_version"]
        if type(version) is int and version > _VERSION and len(tree) > 1:
            return _NEWER
        report = json.loads(tree["document"])
        whole = isinstance(tree["uri"], str) and {"run_id", "host"} <= report.keys()
        paths = [tree.get(key) for key in ("token_file", "ca")]
        whole = whole and all(each is None or isinstance(each, str) for each in paths)
        if version == _WITHOUT_CHECKSUM:
            whole = whole and tree.keys() <= {"schema_version", "uri", "document", "token_file", "ca"}
        else:
            whole = whole and data == _written(tree["uri"], tree["document"], *paths)
        return Kept(name, tree["uri"], tree["document"], *paths) if whole else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AgentError):
        return None


def _written(uri: str, document: str, token_file: str | None, ca: str | None) -> bytes:
    """Return the bytes of a file. Who reads it compares them: whatever a disk changed, is found."""
    tree = {"schema_version": _VERSION, "uri": uri, "document": document, "token_file": token_file, "ca": ca}
    sha256 = hashlib.sha256(json.dumps(tree).encode()).hexdigest()
    return json.dumps({**tree, "sha256": sha256}).encode()


def _path(view: HostView, name: str) -> str:
    return view.system.join(view.system.spool, name)
