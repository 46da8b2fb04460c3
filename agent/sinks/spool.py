"""Undelivered reports: one file each, numbered in the order of writing, limited in number and size."""

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

# Version 1 had no checksum; reports that an older agent kept are still delivered.
_VERSION = 2
# Characters in the name of a file: with number and suffix it stays below the limit of every system.
_LABEL = 100
_WITHOUT_CHECKSUM = 1
# A timer's reports of some days, and no more disk than a log would take. The oldest are dropped.
MOST = 100
MOST_BYTES = 4 * 1024 * 1024
_LONGEST = 2 * MOST_BYTES


@dataclass(frozen=True)
class SpooledReport:
    """A report that waits in the file `name`, for the sink `uri`; `token_file` and `ca` belong to that sink."""

    name: str
    uri: str
    document: str
    token_file: str | None = None
    ca: str | None = None


class Waiting(NamedTuple):
    """The waiting reports, oldest first; the number of damaged files and of those of another host: both are removed.

    `stuck` holds for each file that should be removed, or read, why it is not: no other file is affected.
    """

    kept: tuple[SpooledReport, ...]
    damaged: int
    foreign: int
    stuck: tuple[str, ...]


def keep(
    host: Host, uri: str, document: str, label: str, *, token_file: str | None = None, ca: str | None = None
) -> int:
    """Add a report, and return how many old ones were dropped. Raises AgentError when it cannot be written.

    A file that cannot be removed stays, and the next one is dropped.

    The number gives the order, not the clock, which may jump. `label` distinguishes two runs that write at once.
    """
    data = _written(uri, document, token_file, ca)
    names = _names(host)
    number = 1 + max(map(_number, names), default=0)
    sizes = [seen.size if seen else 0 for seen in (host.stat(_path(host, name)) for name in names)]
    # the label of another version, or of a damaged report, may contain what a file name cannot
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
    """Return the waiting reports, and remove finished ones. Raises AgentError where the folder cannot be read.

    A file with a changed byte counts as damaged; a file of a newer agent stays for that. A report that came with an
    image is for the other host to deliver.
    """
    found: list[SpooledReport] = []
    stuck: list[str] = []
    damaged = foreign = 0
    finished = _finished(host)
    for name in _names(host):
        try:
            data = _bytes(host, name)
        except AgentError as error:
            stuck.append(f"{_path(host, name)} cannot be read: {error.saw or error.sentence}")
            continue
        is_done = finished.get(name) == hashlib.sha256(data).hexdigest()
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
    """Remove a finished report; return None, or why it is still there.

    A file that cannot be removed is recorded as finished, outside of the folder that may be the reason: otherwise
    every run would send it again.
    """
    why = _removed(host, kept.name)
    if why is None:
        return None
    try:
        data = _bytes(host, kept.name)
        present = set(_names(host))
        finished = {name: sha256 for name, sha256 in _finished(host).items() if name in present}
        finished[kept.name] = hashlib.sha256(data).hexdigest()
        host.write(_done_file(host), seal({"schema_version": 1, "done": finished}), mode=0o600)
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


def _finished(view: HostView) -> dict[str, str]:
    """Return the finished reports that could not be removed: the SHA-256 of each file."""
    try:
        if exposed(view, view.system.state, _done_file(view)) is not None:
            return {}
        done = unseal(view.read(_done_file(view)) or b"").get("done")
    except (ValueError, AgentError):
        return {}
    return done if isinstance(done, dict) else {}


def _is_foreign(view: HostView, kept: SpooledReport) -> bool:
    """Tell whether a report is of the host that this one is a copy of; if either identity is unknown, it is not."""
    host = json.loads(kept.document)["host"]
    whose = host.get("identity") if isinstance(host, dict) else None
    return whose is not None and identity(view) not in (None, whose)


def _names(view: HostView) -> tuple[str, ...]:
    """Return the names of the spool's files in the order of writing: numbers have eight digits, or more."""
    found = (
        name for name in view.list_dir(view.system.spool) if re.fullmatch(r"[0-9]{8,200}-.*\.json", name)
    )
    return tuple(sorted(found, key=lambda name: (_number(name), name)))


def _number(name: str) -> int:
    return int(name.partition("-")[0])


# for a file that a newer agent can read
_NEWER = SpooledReport("", "", "")


def _bytes(view: HostView, name: str) -> bytes:
    """Return the content of a file, empty for what is no report of root's. Raises AgentError if that is unknown."""
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
    """Return the report in a file, _NEWER, or None for a damaged one."""
    try:
        tree = json.loads(data)
        version = tree["schema_version"]
        if type(version) is int and version > _VERSION and len(tree) > 1:
            return _NEWER
        report = json.loads(tree["document"])
        intact = isinstance(tree["uri"], str) and {"run_id", "host"} <= report.keys()
        paths = [tree.get(key) for key in ("token_file", "ca")]
        intact = intact and all(each is None or isinstance(each, str) for each in paths)
        if version == _WITHOUT_CHECKSUM:
            intact = intact and tree.keys() <= {"schema_version", "uri", "document", "token_file", "ca"}
        else:
            intact = intact and data == _written(tree["uri"], tree["document"], *paths)
        return SpooledReport(name, tree["uri"], tree["document"], *paths) if intact else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _written(uri: str, document: str, token_file: str | None, ca: str | None) -> bytes:
    """Return the bytes of a file. The reader compares them, and so finds any byte that changed on the disk."""
    tree = {"schema_version": _VERSION, "uri": uri, "document": document, "token_file": token_file, "ca": ca}
    sha256 = hashlib.sha256(json.dumps(tree).encode()).hexdigest()
    return json.dumps({**tree, "sha256": sha256}).encode()


def _path(view: HostView, name: str) -> str:
    return view.system.join(view.system.spool, name)


def _done_file(view: HostView) -> str:
    return view.system.join(view.system.state, "delivered.json")
