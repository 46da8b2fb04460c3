"""A snapshot as a value, and as the bytes that this version and the one before wrote."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.state.identity import identity
from agent.state.saved_files import SavedFile, contents
from agent.state.sealed import seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.core.host import HostView

VERSION = 2
# Version 1 had neither a checksum nor the host's identity; it followed links, and saved the link's own mode.
_UNSEALED = 1
# Why a snapshot was taken: before a run that may change something, before packages are removed, before a rollback, and
# after a run that proved its result.
CONFIGURE, REMOVE, ROLLBACK, PROVEN = "configure", "remove", "rollback", "proven"


@dataclass(frozen=True)
class Snapshot:
    """The files of one moment, before run `run_id` and those of `also`. A missing file is not in it.

    `worked`: the client was seen to work with them. The snapshot of a rollback names in `to` the snapshot that it went
    back to; a second rollback leads there again by default, so that two have the effect of one. An unsealed snapshot
    was written by an older version: nothing proves that it is intact and of this host. `number` is the order of
    the snapshots, since the clock in the names of runs may jump; 0 if an older version wrote it.
    """

    run_id: str
    files: tuple[SavedFile, ...]
    reason: str = CONFIGURE
    worked: bool = False
    to: str | None = None
    also: tuple[str, ...] = ()
    sealed: bool = True
    number: int = 0

    @property
    def name(self) -> str:
        """Its name in a rollback: the run before which it was taken, or after which."""
        return f"after {self.run_id}" if self.reason == PROVEN else self.run_id

    def holds(self, files: Iterable[SavedFile]) -> bool:
        """Tell whether these are the same files with the same bytes, whatever their modes."""
        return contents(self.files) == contents(files)


def to_bytes(view: HostView, taken: Snapshot) -> bytes:
    return seal(
        {
            "schema_version": VERSION,
            "identity": identity(view),
            "run_id": taken.run_id,
            "reason": taken.reason,
            "worked": taken.worked,
            "to": taken.to,
            "also": list(taken.also),
            "number": taken.number,
            "files": [
                {
                    "path": kept.path,
                    "mode": kept.mode,
                    "owner": list(kept.owner),
                    "link": kept.link,
                    "data": None if kept.data is None else base64.b64encode(kept.data).decode(),
                }
                for kept in taken.files
            ],
        }
    )


def from_bytes(data: bytes) -> tuple[Snapshot | None, dict[str, Any]]:
    """Return the snapshot in these bytes, None for one of a newer version; and all values in them.

    Raises ValueError, with a clause about "it", for anything that no version wrote.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is incomplete: no JSON") from None
    version = tree.get("schema_version") if isinstance(tree, dict) and len(tree) > 1 else None
    is_sealed = type(version) is not int or "sha256" in tree or version == VERSION
    if is_sealed:
        tree = unseal(data)
    if type(version) is int and version > VERSION:
        return None, tree
    try:
        if is_sealed and version == VERSION:
            return _of_this_version(tree), tree
        if not is_sealed and version == _UNSEALED:
            return _of_before(tree), tree
    except (KeyError, TypeError, IndexError):
        pass
    raise ValueError("it is not what a version of hsm-agent writes")


def _of_this_version(tree: Any) -> Snapshot:
    return Snapshot(
        tree["run_id"],
        tuple(
            SavedFile(
                path=kept["path"],
                data=None if kept["data"] is None else base64.b64decode(kept["data"], validate=True),
                mode=kept["mode"],
                owner=(kept["owner"][0], kept["owner"][1]),
                link=kept["link"],
            )
            for kept in tree["files"]
        ),
        tree["reason"],
        tree["worked"],
        tree["to"],
        tuple(tree["also"]),
        number=tree.get("number", 0),
    )


def _of_before(tree: Any) -> Snapshot:
    """Return the values that version 1 wrote; each is checked. Raises ValueError, KeyError, TypeError."""
    if tree.keys() != {"schema_version", "run_id", "rollback", "files"}:
        raise ValueError("it does not hold what an older version wrote")
    files = []
    for kept in tree["files"]:
        numbers = (kept["mode"], *kept["owner"])
        if not isinstance(kept["path"], str) or kept.keys() != {"path", "mode", "owner", "data"}:
            raise ValueError("it does not hold what an older version wrote")
        if len(numbers) != 3 or any(type(each) is not int or not -1 <= each < 2**31 for each in numbers):
            raise ValueError(f"it holds no mode and owner of {kept['path']}")
        data = base64.b64decode(kept["data"], validate=True)
        files.append(SavedFile(kept["path"], data, kept["mode"], (numbers[1], numbers[2])))
    reason = ROLLBACK if tree["rollback"] else CONFIGURE
    return Snapshot(tree["run_id"], tuple(files), reason, sealed=False)
