"""Put back the files of a snapshot, and what runs with them; the engine's undo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.paths import ClientPaths, client_paths
from agent.cloudhsm.protection import require_closed
from agent.cloudhsm.sdk3.undo import daemon_runs, restore_daemon
from agent.core.errors import AgentError
from agent.core.links import resolve_link
from agent.core.model import StepOutcome, StepResult
from agent.state import snapshots
from agent.state.saved_files import SavedFile, as_it_is, described, is_sound, line_id
from agent.state.snapshot_format import CONFIGURE, Snapshot

if TYPE_CHECKING:
    from agent.core.host import Host


@dataclass
class SnapshotUndo:
    """The engine's Restorable. No time limit and no interrupt binds its host; it holds in memory what it saved."""

    host: Host
    run_id: str
    reason: str = CONFIGURE
    saved: Snapshot | None = None
    daemon_ran: bool = True

    def save(self, *, worked: bool) -> None:
        self.saved = snapshots.save(self.host, self.run_id, reason=self.reason, worked=worked)
        self.daemon_ran = daemon_runs(self.host, client_paths(self.host.system))

    def restore(self) -> tuple[StepResult, ...]:
        return restore(self.host, self.saved, daemon_ran=self.daemon_ran) if self.saved else ()


def restore(host: Host, snapshot: Snapshot, *, daemon_ran: bool = True) -> tuple[StepResult, ...]:
    """Put back what differs: one line for each such file, `undone`, or `failed` with `rollback-failed`.

    A CA that was not there before is removed. A configuration file that was not there belongs to a package that
    was installed since, and stays with it; and one that the client cannot read never takes the place of one that
    it can. SDK 3's daemon, where there is one, is restarted with what was put back, or stopped if it did
    not run before.
    """
    here = client_paths(host.system)
    paths = [kept.path for kept in snapshot.files]
    lines = [_restore_file(host, here, kept) for kept in snapshot.files]
    if here.ca not in paths:
        lines.append(_remove_ca(host, here.ca))
    lines.append(restore_daemon(host, here, paths, changed=any(lines), ran=daemon_ran))
    return tuple(line for line in lines if line is not None)


def _restore_file(host: Host, here: ClientPaths, kept: SavedFile) -> StepResult | None:
    step = line_id(here, kept.path)
    want = described(here, kept)
    saw = ""
    try:
        now = as_it_is(host, kept.path)
        if now == kept or (now is not None and is_sound(here, now) and not is_sound(here, kept)):
            return None
        saw = "absent" if now is None else described(here, now)
        if now is not None and (now.data, now.link) == (kept.data, kept.link):
            saw, want = now.rights, kept.rights
        _write(host, here, kept, now)
        again = as_it_is(host, kept.path)
    except AgentError as error:
        return StepResult(step, StepOutcome.FAILED, error.saw or saw, want, "rollback-failed", error.hint)
    if again != kept:
        return StepResult(step, StepOutcome.FAILED, saw, want, "rollback-failed")
    return StepResult(step, StepOutcome.UNDONE, saw, want)


def _write(host: Host, here: ClientPaths, kept: SavedFile, now: SavedFile | None) -> None:
    """Make a file what it was. A link stays one: what is written then is the file that it leads to."""
    if kept.link is None:
        if kept.data is not None:
            host.write(kept.path, kept.data, mode=kept.mode, owner=kept.owner)
        return
    if now is None or now.link != kept.link:
        host.symlink(kept.path, kept.link)
        now = as_it_is(host, kept.path)
    if kept.data is not None and now != kept:
        require_closed(host, here, kept.path)
        host.write(resolve_link(host, kept.path), kept.data, mode=kept.mode, owner=kept.owner)


def _remove_ca(host: Host, path: str) -> StepResult | None:
    if host.stat(path) is None:
        return None
    try:
        host.remove(path)
    except AgentError as error:
        return StepResult(
            "certificate", StepOutcome.FAILED, error.saw, "absent", "rollback-failed", error.hint
        )
    return StepResult("certificate", StepOutcome.UNDONE, "present", "absent")
