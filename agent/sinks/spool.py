"""Reports that are still to be delivered: one file each, numbered in the order they were written, few and small."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agent.core.errors import AgentError
from agent.state.exposure import exposed
from agent.state.identity import identity
from agent.state.sealed import seal, unseal

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
_LONGEST = 2 * MOST_BYTES


@dataclass(frozen=True)
class SpooledReport:
    """A report that waits in the file `name`, for the place `uri`; `token_file` and `ca` were named for that place."""

    name: str
    uri: str
    document: str
    token_file: str | None = None
    ca: str | None = None


class Waiting(NamedTuple):
    """What waits, oldest first; how many files were no report, and how many of another host: both are gone.

    `stuck` says of each file that should be gone, or read, why it is not: it keeps none of the others.
    """

    kept: tuple[SpooledReport, ...]
    damaged: int
    foreign: int
    stuck: tuple[str, ...]


def keep(
    host: Host, uri: str, document: str, label: str, *, token_file: str | None = None, ca: str | None = None
) -> int:
    """Add a report, and return how many old ones made room. Raises AgentError when it cannot be written.

    One that cannot be removed keeps its room, and the next makes it.

    The number orders, not the clock, which may jump. `label` keeps apart what two runs write at once.
    """
    data = _written(uri, document, token_file, ca)
    names = _names(host)
    number = 1 + max(map(_number, names), default=0)
    sizes = [seen.size if seen else 0 for seen in (host.stat(_path(host, name)) for name in names)]
    # the label of another version, or of a spoilt report, may hold what no name of a file does
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", label)[:_LABEL]
    host.write(_path(host, f"{number:08}-{plain}.json"), data, mode=0o600)
    return _make_room(host, dict(zip(names, sizes)), len(data))


def _make_room(host: Host, sizes: dict[str, int], new: int) -> int:
    left = dict(sizes)
    for name in sizes:
        if excess(list(left.values()), new) and _removed(host, name) is None:
            del left[name]
    return len(sizes) - len(left)


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


def waiting(host: Host) -> Waiting:
    """Return what waits, and take away what is dealt with. Raises AgentError where the folder cannot be read.

    A file of which a byte is another than was written is no report; what a newer agent wrote stays for that. What came
    with an image is the other host's to deliver.
    """
    found: list[SpooledReport] = []
    stuck: list[str] = []
    damaged = foreign = 0
    done = _done(host)
    for name in _names(host):
        try:
            data = _bytes(host, name)
        except AgentError as error:
            stuck.append(f"{_path(host, name)} cannot be read: {error.saw or error.sentence}")
            continue
        is_done = done.get(name) == hashlib.sha256(data).hexdigest()
        kept = None if is_done else _read(name, data)
        if kept is _NEWER:
            continue
        if kept is not None and not _is_foreign(host, kept):
            found.append(kept)
            continue
        why = _removed(host, name)
        if why is not None:
            stuck.append(f"{why}; its report is not sent" + (" again" if is_done else ""))
        elif kept is not None:
            foreign += 1
        elif not is_done:
            damaged += 1
    return Waiting(tuple(found), damaged, foreign, tuple(stuck))


def forget(host: Host, kept: SpooledReport) -> str | None:
    """Take away what is dealt with; return None, or why it is still there.

    What cannot be removed is remembered as dealt with, outside of the folder that may be what forbids it: otherwise
    every run would send it again.
    """
    why = _removed(host, kept.name)
    if why is None:
        return None
    try:
        data = _bytes(host, kept.name)
        there = set(_names(host))
        done = {name: sha256 for name, sha256 in _done(host).items() if name in there}
        done[kept.name] = hashlib.sha256(data).hexdigest()
        host.write(_done_file(host), seal({"schema_version": 1, "done": done}), mode=0o600)
    except AgentError:
        return f"{why}; until then every run sends its report again, under the same key"
    return f"{why}; its report is not sent again"


def _removed(host: Host, name: str) -> str | None:
    """Remove a file; return None, or why it is still there."""
    try:
        host.remove(_path(host, name))
    except AgentError as error:
        return f"{_path(host, name)} cannot be removed: {error.saw or error.sentence}"
    return None


def _done(view: HostView) -> dict[str, str]:
    """Return what is dealt with and could not be removed: the SHA-256 of each file."""
    try:
        if exposed(view, view.system.state, _done_file(view)) is not None:
            return {}
        done = unseal(view.read(_done_file(view)) or b"").get("done")
    except (ValueError, AgentError):
        return {}
    return done if isinstance(done, dict) else {}


def _is_foreign(view: HostView, kept: SpooledReport) -> bool:
    """Tell whether a report is of the host that this one is a copy of; where either is not known, it is ours."""
    host = json.loads(kept.document)["host"]
    whose = host.get("identity") if isinstance(host, dict) else None
    return whose is not None and identity(view) not in (None, whose)


def _names(view: HostView) -> tuple[str, ...]:
    """Return the names of our files in the order they were written: numbers have eight digits, or more."""
    found = (
        name for name in view.list_dir(view.system.spool) if re.fullmatch(r"[0-9]{8,200}-.*\.json", name)
    )
    return tuple(sorted(found, key=lambda name: (_number(name), name)))


def _number(name: str) -> int:
    return int(name.partition("-")[0])


# what this agent cannot read and another one can
_NEWER = SpooledReport("", "", "")


def _bytes(view: HostView, name: str) -> bytes:
    """Return what is in a file, nothing for what is no report of root's. Raises AgentError where that is not known."""
    path = _path(view, name)
    if exposed(view, path) is not None:
        return b""
    try:
        return view.read(path, limit=_LONGEST) or b""
    except AgentError as error:
        seen = view.stat(path)
        is_file = seen is not None and seen.kind in ("file", "link") and seen.size <= _LONGEST
        if is_file or error.code.name != "unreadable":
            raise
        return b""


def _read(name: str, data: bytes) -> SpooledReport | None:
    """Return the report in a file, _NEWER, or None for what is damaged."""
    try:
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
        return SpooledReport(name, tree["uri"], tree["document"], *paths) if whole else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _written(uri: str, document: str, token_file: str | None, ca: str | None) -> bytes:
    """Return the bytes of a file. Who reads it compares them: whatever a disk changed, is found."""
    tree = {"schema_version": _VERSION, "uri": uri, "document": document, "token_file": token_file, "ca": ca}
    sha256 = hashlib.sha256(json.dumps(tree).encode()).hexdigest()
    return json.dumps({**tree, "sha256": sha256}).encode()


def _path(view: HostView, name: str) -> str:
    return view.system.join(view.system.spool, name)


def _done_file(view: HostView) -> str:
    return view.system.join(view.system.state, "delivered.json")
