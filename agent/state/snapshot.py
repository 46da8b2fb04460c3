"""Keep the CA and the configuration files before the first touch, and put them back."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.cloudhsm.ca import sole_fingerprint
from agent.cloudhsm.layout import LINUX
from agent.cloudhsm.settings import parse_settings
from agent.core.errors import AgentError
from agent.core.words import Line, Outcome
from agent.state.store import SNAPSHOTS

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_VERSION = 1
# Enough to go back over a fortnight of daily mistakes; a snapshot is some kilobytes.
_KEPT = 20


@dataclass(frozen=True)
class Kept:
    """One file as it was: its bytes, mode and owner (uid, gid)."""

    path: str
    data: bytes
    mode: int
    owner: tuple[int, int]


@dataclass(frozen=True)
class Snapshot:
    """The files of one moment, before run `run_id`. A file that was not there is not in it.

    One that a rollback took is marked: by default going back goes past it, so that going back twice is going once.
    """

    run_id: str
    files: tuple[Kept, ...]
    rollback: bool = False

    def restore(self, host: Host) -> tuple[Line, ...]:
        """Put back what differs: one line for each such file, `undone`, or `failed` with `rollback-failed`.

        A CA that was not there before is removed. A configuration file that was not there belongs to a package that
        was installed since, and stays with it.
        """
        lines = [_restore(host, kept) for kept in self.files]
        if not any(kept.path == LINUX.ca for kept in self.files):
            lines.append(_remove_ca(host))
        return tuple(line for line in lines if line is not None)


@dataclass
class Keeper:
    """The engine's Undo. Its host is bound by no time limit and no interrupt; what it saved it holds in memory too."""

    host: Host
    run_id: str
    saved: Snapshot | None = None

    def save(self) -> None:
        self.saved = save(self.host, self.run_id)

    def restore(self) -> tuple[Line, ...]:
        return self.saved.restore(self.host) if self.saved else ()


def save(host: Host, run_id: str, *, rollback: bool = False) -> Snapshot:
    """Write the snapshot of now as one file, so that it is whole or not there. Raises AgentError as `write` does."""
    taken = Snapshot(run_id, tuple(_take(host)), rollback)
    tree = {
        "schema_version": _VERSION,
        "run_id": run_id,
        "rollback": rollback,
        "files": [
            {
                "path": kept.path,
                "mode": kept.mode,
                "owner": list(kept.owner),
                "data": base64.b64encode(kept.data).decode(),
            }
            for kept in taken.files
        ],
    }
    host.write(f"{SNAPSHOTS}/{run_id}.json", json.dumps(tree).encode(), mode=0o600)
    for old in known(host)[:-_KEPT]:
        host.remove(f"{SNAPSHOTS}/{old}.json")
    return taken


def known(view: HostView) -> tuple[str, ...]:
    """Return the runs that can be rolled back, oldest first (run ids begin with their time)."""
    return tuple(name[: -len(".json")] for name in view.names(SNAPSHOTS) if name.endswith(".json"))


def load(view: HostView, run_id: str | None) -> Snapshot:
    """Return the snapshot taken before a run, by default the last run but rollbacks.

    Raises AgentError `nothing-recorded`.
    """
    runs = known(view)
    for each in reversed(runs):
        found = _read(view, each) if run_id in (None, each) else None
        if found is not None and not (run_id is None and found.rollback):
            return found
    raise AgentError(
        "nothing-recorded",
        "there is no snapshot to go back to" if run_id is None else f"there is no snapshot of run {run_id}",
        saw=", ".join(runs[-5:]) or "none",
        want=run_id or "a run that changed this host",
        hint="`hsm-agent rollback RUN` takes one of the runs that are named" if runs else None,
    )


def _read(view: HostView, run_id: str) -> Snapshot | None:
    """Return a snapshot, None when the file is not one that this version wrote."""
    try:
        tree: Any = json.loads(view.read(f"{SNAPSHOTS}/{run_id}.json") or b"")
        if tree["schema_version"] != _VERSION:
            return None
        files = tuple(
            Kept(
                path=kept["path"],
                data=base64.b64decode(kept["data"]),
                mode=kept["mode"],
                owner=(kept["owner"][0], kept["owner"][1]),
            )
            for kept in tree["files"]
        )
        return Snapshot(run_id, files, bool(tree["rollback"]))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def _restore(host: Host, kept: Kept) -> Line | None:
    want = _told(kept.path, kept.data)
    saw = ""
    try:
        now = host.read(kept.path)
        if now == kept.data:
            return None
        saw = "absent" if now is None else _told(kept.path, now)
        host.write(kept.path, kept.data, mode=kept.mode, owner=kept.owner)
        again = host.read(kept.path)
    except AgentError as error:
        return Line(line_id(kept.path), Outcome.FAILED, error.saw or saw, want, "rollback-failed", error.hint)
    if again != kept.data:
        return Line(line_id(kept.path), Outcome.FAILED, saw, want, "rollback-failed")
    return Line(line_id(kept.path), Outcome.UNDONE, saw, want)


def _remove_ca(host: Host) -> Line | None:
    if host.stat(LINUX.ca) is None:
        return None
    try:
        host.remove(LINUX.ca)
    except AgentError as error:
        return Line(line_id(LINUX.ca), Outcome.FAILED, error.saw, "absent", "rollback-failed", error.hint)
    return Line(line_id(LINUX.ca), Outcome.UNDONE, "present", "absent")


def _take(view: HostView) -> list[Kept]:
    paths = [f"{LINUX.etc}/{name}" for name in view.names(LINUX.etc) if name.endswith(".cfg")]
    kept = []
    for path in [LINUX.ca, *paths]:
        data, stat = view.read(path), view.stat(path)
        if data is not None and stat is not None:
            kept.append(Kept(path, data, stat.mode, (stat.uid, stat.gid)))
    return kept


def line_id(path: str) -> str:
    """Return the step a file belongs to: `certificate` or `configure:<component>`."""
    name = path.rsplit("/", 1)[1]
    if path == LINUX.ca:
        return "certificate"
    return "configure:" + name.replace("cloudhsm-", "", 1).replace(".cfg", "")


def _told(path: str, data: bytes) -> str:
    """Say what a file holds as the steps say it: the CA's fingerprint, the configured addresses."""
    told = None
    if path == LINUX.ca:
        told = sole_fingerprint(data)
    else:
        with contextlib.suppress(ValueError):
            settings = parse_settings(data)
            return (
                "not configured"
                if settings.placeholder
                else " ".join(each.hostname for each in settings.servers)
            )
    return "sha256:" + (told or hashlib.sha256(data).hexdigest())
