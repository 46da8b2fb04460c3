"""Keep the CA and the configuration files before the first touch, and put them back."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.cloudhsm import daemon
from agent.cloudhsm.ca import find_certificates, written
from agent.cloudhsm.layout import Layout, layout
from agent.cloudhsm.pem import holds_secret
from agent.cloudhsm.settings import parse_cmu, parse_settings, parse_settings3
from agent.core.errors import CODES, AgentError
from agent.core.limits import Limits
from agent.core.words import Line, Outcome

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

    @property
    def rights(self) -> str:
        return f"mode {self.mode:04o}, owner {self.owner[0]}:{self.owner[1]}"


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
        was installed since, and stays with it. SDK 3's daemon, where there is one, is started anew with what was put
        back.
        """
        here = layout(host.system)
        paths = [kept.path for kept in self.files]
        lines = [_restore(host, here, kept) for kept in self.files]
        if here.ca not in paths:
            lines.append(_remove_ca(host, here.ca))
        if here.sdk3.client_settings in paths and host.stat(here.sdk3.daemon) is not None:
            lines.append(_revive(host, anew=any(lines)))
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
    host.write(_file(host, run_id), json.dumps(tree).encode(), mode=0o600)
    for old in known(host)[:-_KEPT]:
        host.remove(_file(host, old))
    return taken


def known(view: HostView) -> tuple[str, ...]:
    """Return the runs that can be rolled back, oldest first (run ids begin with their time)."""
    return tuple(
        name[: -len(".json")] for name in view.names(view.system.snapshots) if name.endswith(".json")
    )


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
        tree: Any = json.loads(view.read(_file(view, run_id)) or b"")
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
    except (AgentError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None


def _file(view: HostView, run_id: str) -> str:
    return view.system.join(view.system.snapshots, f"{run_id}.json")


def _restore(host: Host, here: Layout, kept: Kept) -> Line | None:
    want = _told(here, kept.path, kept.data)
    saw = ""
    try:
        now = _as_it_is(host, kept.path)
        if now == kept:
            return None
        saw = "absent" if now is None else _told(here, kept.path, now.data)
        if now is not None and now.data == kept.data:
            saw, want = now.rights, kept.rights
        host.write(kept.path, kept.data, mode=kept.mode, owner=kept.owner)
        again = _as_it_is(host, kept.path)
    except AgentError as error:
        return Line(
            line_id(here, kept.path), Outcome.FAILED, error.saw or saw, want, "rollback-failed", error.hint
        )
    if again != kept:
        return Line(line_id(here, kept.path), Outcome.FAILED, saw, want, "rollback-failed")
    return Line(line_id(here, kept.path), Outcome.UNDONE, saw, want)


def _remove_ca(host: Host, path: str) -> Line | None:
    if host.stat(path) is None:
        return None
    try:
        host.remove(path)
    except AgentError as error:
        return Line("certificate", Outcome.FAILED, error.saw, "absent", "rollback-failed", error.hint)
    return Line("certificate", Outcome.UNDONE, "present", "absent")


def _revive(host: Host, *, anew: bool) -> Line | None:
    """Start the daemon anew; also where every file is as it was, if the failed run left it stopped."""
    tool = Limits().tool
    was = "active" if daemon.is_running(host, tool) else "not running"
    if was == "active" and not anew:
        return None
    try:
        if daemon.revive(host, tool):
            return Line("service", Outcome.UNDONE, was, "active")
        saw = daemon.why(host, tool) or "not running"
    except AgentError as error:
        saw = error.saw
    return Line("service", Outcome.FAILED, saw, "active", "rollback-failed", CODES["service-failed"].fix)


def _take(view: HostView) -> list[Kept]:
    here = layout(view.system)
    paths = here.all_settings(view)
    ca = _as_it_is(view, here.ca)
    if ca is not None and holds_secret(ca.data):
        raise AgentError(
            "ca-is-private-key",
            "the CA on this host holds a private key, which is never copied",
            saw=f"a private key in {here.ca}",
            want="certificates alone",
            hint=f"take the key out of {here.ca} and keep it off this host, then run this again",
        )
    kept = [ca, *(_as_it_is(view, path) for path in paths)]
    return [each for each in kept if each is not None]


def _as_it_is(view: HostView, path: str) -> Kept | None:
    """Return a file, None for none; a folder or a FIFO of that name is refused by the step that needs it, not here."""
    stat = view.stat(path)
    data = view.read(path) if stat is not None and stat.kind in ("file", "link") else None
    return None if data is None or stat is None else Kept(path, data, stat.mode, (stat.uid, stat.gid))


def line_id(here: Layout, path: str) -> str:
    """Return the step a file belongs to: `certificate` or `configure:<component>`."""
    if path == here.ca:
        return "certificate"
    if path in (here.sdk3.client_settings, here.sdk3.cmu_settings):
        return "configure:cli"
    name = path.rpartition(here.system.separator)[2]
    return f"configure:{here.component(path) or name.replace('.cfg', '')}"


def _told(here: Layout, path: str, data: bytes) -> str:
    """Say what a file holds as the steps say it: the CA's fingerprint, the configured addresses."""
    if path == here.ca:
        found = find_certificates(data).fingerprints
        if found:
            return written(found)
    else:
        with contextlib.suppress(ValueError):
            return " ".join(_servers(here, path, data)) or "not configured"
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _servers(here: Layout, path: str, data: bytes) -> tuple[str, ...]:
    if path == here.sdk3.cmu_settings:
        return parse_cmu(data)
    if path == here.sdk3.client_settings:
        settings3 = parse_settings3(data)
        return () if settings3.placeholder or settings3.hostname is None else (settings3.hostname,)
    settings = parse_settings(data)
    return () if settings.placeholder else tuple(each.hostname for each in settings.servers)
