"""Keep the CA and the configuration files before the first touch, and put them back."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.cloudhsm.ca import find_certificates, read_ca, written
from agent.cloudhsm.client_config import (
    SavedConfig,
    parse_client_config,
    parse_daemon_config,
    parse_utility_config,
)
from agent.cloudhsm.paths import ClientPaths, client_paths
from agent.cloudhsm.pem import contains_private_key
from agent.cloudhsm.protection import closed, require_closed
from agent.cloudhsm.sdk3 import daemon
from agent.core.errors import CODES, AgentError
from agent.core.links import goal
from agent.core.model import Notice, StepOutcome, StepResult
from agent.core.timeouts import Timeouts
from agent.state.exposure import exposed
from agent.state.identity import identity, is_foreign
from agent.state.sealed import seal, unseal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.core.host import Host, HostView

_VERSION = 2
# Of this one there was neither a checksum nor whose host it is; a link was followed, and its own mode kept.
_UNSEALED = 1
_LINKS_MODE = 0o777
# Enough to go back over a fortnight of daily mistakes, and as many of what was not seen to work: one kind never
# pushes out the other. A snapshot is some kilobytes.
_KEPT = 20
_NAMED = 5  # in a warning
# Why a snapshot was taken: before a run that may change something, before packages go, before going back, and after a
# run that proved what it left.
CONFIGURE, REMOVE, ROLLBACK, PROVEN = "configure", "remove", "rollback", "proven"


@dataclass(frozen=True)
class SavedFile:
    """One file as it was: its bytes, mode and owner (uid, gid).

    Of a link `link` is what it says, and the rest is of the file that it leads to; `data` is None where it led nowhere.
    """

    path: str
    data: bytes | None
    mode: int
    owner: tuple[int, int]
    link: str | None = None

    @property
    def rights(self) -> str:
        return f"mode {self.mode:04o}, owner {self.owner[0]}:{self.owner[1]}"


@dataclass(frozen=True)
class Snapshot:
    """The files of one moment, before run `run_id` and those of `also`. A file that was not there is not in it.

    `worked`: the client was seen to work with them. One that a rollback took says in `to` which snapshot it went back
    to: by default going back again leads there, so that going back twice is going once. One that is not `sealed` was
    written by an older version: nothing proves that it is whole, and of this host. `number` says in which order they
    were kept, since the clock that names the runs may jump; 0 where an older version kept it.
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
        """What a rollback calls it: the run before which it was taken, or after which."""
        return f"after {self.run_id}" if self.reason == PROVEN else self.run_id

    def holds(self, files: Iterable[SavedFile]) -> bool:
        """Tell whether these are the same files with the same bytes, whoever may read them."""
        return _contents(self.files) == _contents(files)

    def restore(self, host: Host, *, daemon_ran: bool = True) -> tuple[StepResult, ...]:
        """Put back what differs: one line for each such file, `undone`, or `failed` with `rollback-failed`.

        A CA that was not there before is removed. A configuration file that was not there belongs to a package that
        was installed since, and stays with it; and one that the client cannot read never takes the place of one that
        it can. SDK 3's daemon, where there is one, is started anew with what was put back, or stopped if it did
        not run before.
        """
        here = client_paths(host.system)
        paths = [kept.path for kept in self.files]
        lines = [_restore(host, here, kept) for kept in self.files]
        if here.ca not in paths:
            lines.append(_remove_ca(host, here.ca))
        if here.sdk3.client_settings in paths and host.stat(here.sdk3.daemon) is not None:
            lines.append(_revive(host, anew=any(lines)) if daemon_ran else _stop(host))
        return tuple(line for line in lines if line is not None)


@dataclass
class SnapshotUndo:
    """The engine's Undo. Its host is bound by no time limit and no interrupt; what it saved it holds in memory too."""

    host: Host
    run_id: str
    reason: str = CONFIGURE
    saved: Snapshot | None = None
    daemon_ran: bool = True

    def save(self, *, worked: bool) -> None:
        self.saved = save(self.host, self.run_id, reason=self.reason, worked=worked)
        if self.host.stat(client_paths(self.host.system).sdk3.daemon) is not None:
            with contextlib.suppress(AgentError):
                self.daemon_ran = daemon.status(self.host, Timeouts().tool).active not in (
                    "inactive",
                    "failed",
                )

    def restore(self) -> tuple[StepResult, ...]:
        return self.saved.restore(self.host, daemon_ran=self.daemon_ran) if self.saved else ()


def save(
    host: Host, run_id: str, *, reason: str = CONFIGURE, worked: bool = False, to: str | None = None
) -> Snapshot:
    """Write the snapshot of now as one file, so that it is whole or not there. Raises AgentError as `write` does.

    What equals the state that the last proven run left has worked, whether or not an HSM answers now. Equal ones are
    kept once, under the name of the last run.
    """
    files = tuple(_take(host))
    proven = _proven(host)
    worked = worked or (proven is not None and proven.holds(files))
    taken = Snapshot(run_id, files, reason, worked, to)
    past = _past(host).sealed
    equal = [each for each in past if replace(each, run_id=run_id, also=(), number=0) == taken]
    also = tuple(dict.fromkeys(name for each in reversed(equal) for name in (*each.also, each.run_id)))
    taken = replace(taken, also=also[-_KEPT:], number=_next(past, proven))
    host.write(_file(host, run_id), _sealed(host, taken), mode=0o600)
    for old in (*equal, *_surplus([taken, *past])):
        with contextlib.suppress(
            AgentError
        ):  # what cannot be removed takes room, and no run is refused for that
            host.remove(_file(host, old.run_id))
    return taken


def prove(host: Host, run_id: str) -> None:
    """Keep what is there now as what worked last, where that is new. Raises AgentError as `write` does."""
    files = tuple(_take(host))
    before = _proven(host)
    if before is None or before.files != files:
        number = _next(_past(host).sealed, before)
        taken = Snapshot(run_id, files, PROVEN, worked=True, number=number)
        host.write(_proven_file(host), _sealed(host, taken), mode=0o600)


def known(view: HostView) -> tuple[str, ...]:
    """Return the runs that have a snapshot, oldest first (run ids begin with their time)."""
    return tuple(
        name[: -len(".json")] for name in view.list_dir(view.system.snapshots) if name.endswith(".json")
    )


def load(view: HostView, run_id: str | None) -> Snapshot:
    """Return the snapshot taken before a run, by default the last one that worked.

    One that an older version wrote is returned by its name alone, and with a CA that is one. Raises AgentError
    `nothing-recorded`, also for one of another host or of a newer version, or `snapshot-damaged` where the only ones
    are not as they were written.
    """
    past = _past(view)
    if run_id is None:
        found = _last_that_worked(view, past.sealed)
    else:
        found = next(
            (each for each in (*past.sealed, *past.unsealed) if run_id in (each.run_id, *each.also)), None
        )
    if found is not None:
        return found if found.sealed else _fitted(view, found)
    if run_id in past.refused:
        raise past.refused[run_id]
    if run_id is None and past.unsealed:
        raise _unproven(past.unsealed[0])
    refused = _refused(view)
    if run_id is None and not past.sealed and refused:
        raise next(iter(refused.values()))
    runs = [each.run_id for each in past.sealed]
    raise AgentError(
        "nothing-recorded",
        "there is no snapshot to go back to" if run_id is None else f"there is no snapshot of run {run_id}",
        saw=", ".join(reversed(runs[:5])) or "none",
        want=run_id or "a run that changed this host",
        hint=f"`hsm-agent rollback {runs[-1]}` goes back to before the last of the runs that are named"
        if runs
        else None,
    )


def remarks(view: HostView, wanted: Snapshot) -> tuple[Notice, ...]:
    """Say of a snapshot, before it is put back, what its name does not tell."""
    said = []
    if not wanted.sealed:
        text = (
            f"an older hsm-agent kept what was there {_when(wanted)}, without a checksum: that it is whole, and of this"
            " host, cannot be proven; compare what was put back"
        )
        said.append(Notice("snapshot-unsealed", text))
    if not wanted.worked:
        text = (
            f"what was there {_when(wanted)} was not seen to work; `hsm-agent verify` tells whether it does"
        )
        said.append(Notice("rollback-unproven", text))
    if wanted.holds(_take(view)):
        text = f"the CA and the configuration are already as they were {_when(wanted)}"
        said.append(Notice("rollback-unneeded", text))
    here = client_paths(view.system)
    unsound = [kept.path for kept in wanted.files if not _is_sound(here, kept)]
    if unsound:
        said.append(
            Notice(
                "snapshot-unsound",
                f"the client could not read {', '.join(unsound)} as it was {_when(wanted)}",
            )
        )
    refused = _refused(view)
    damaged = [name for name, error in refused.items() if error.code.name == "snapshot-damaged"]
    others = [name for name, error in refused.items() if error.code.name == "nothing-recorded"]
    if damaged:
        text = f"these snapshots are not as they were written, and are not used: {_listed(damaged)}"
        said.append(Notice("snapshot-damaged", text))
    if others:
        text = (
            f"these snapshots are of another host or a newer hsm-agent, and are not used: {_listed(others)}"
        )
        said.append(Notice("snapshot-passed-over", text))
    return tuple(said)


def copies(view: HostView) -> Mapping[str, SavedConfig]:
    """Return component, of SDK 3 path -> its file as it is, or the newest copy of it that a client could work with.

    Only since packages were last removed: who removes the client does not expect the next one to be set up as it was.
    Where none configures a client, one that it can read.
    """
    here = client_paths(view.system)
    configured: dict[str, SavedConfig] = {}
    readable: dict[str, SavedConfig] = {}
    with contextlib.suppress(AgentError):  # an ordinary user sees little of it, and changes nothing
        for kept in _since_removal(view, here):
            if kept.path == here.ca or kept.data is None or not _is_sound(here, kept):
                continue
            found = configured if _servers(here, kept.path, kept.data) else readable
            found.setdefault(
                here.component(kept.path) or kept.path, SavedConfig(kept.data, kept.mode, kept.owner)
            )
    return {**readable, **configured}


def _since_removal(view: HostView, here: ClientPaths) -> Iterator[SavedFile]:
    """Yield each configuration file as it is and as it was, the newest first."""
    for path in here.all_settings(view):
        with contextlib.suppress(AgentError):
            kept = _as_it_is(view, path)
            if kept is not None:
                yield kept
    for each in _order(view, _past(view).sealed):
        if each.reason == REMOVE:
            return
        yield from each.files


def _listed(names: list[str]) -> str:
    left = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {left} more" if left > 0 else "")


def _when(wanted: Snapshot) -> str:
    return wanted.name if wanted.reason == PROVEN else f"before run {wanted.run_id}"


def _last_that_worked(view: HostView, past: list[Snapshot]) -> Snapshot | None:
    """Return the last state that worked and is not that of now; else that of now, if it did; else the last there is."""
    now = tuple(_take(view))
    in_order = _order(view, past)
    others = [each for each in in_order if not each.holds(now)]
    for each in in_order:
        if each.reason == ROLLBACK:
            back = next((other for other in in_order if other.name == each.to), None)
            if back is not None:
                return back
        elif each in others and (each.worked or each.reason == REMOVE):
            return each
    worked_now = [each for each in in_order if each.worked and each not in others]
    return next(iter((*worked_now, *others)), None)


def _order(view: HostView, past: list[Snapshot]) -> list[Snapshot]:
    """Return every state that is known, the newest first: that after a run is newer than that before it."""
    proven = _proven(view)
    every = [*past, *([proven] if proven else [])]
    return sorted(every, key=_age, reverse=True)


def _age(each: Snapshot) -> tuple[int, str, bool]:
    return each.number, each.run_id, each.reason == PROVEN


def _next(past: list[Snapshot], proven: Snapshot | None) -> int:
    return 1 + max(each.number for each in (*past, proven, Snapshot("", ())) if each is not None)


def _surplus(past: list[Snapshot]) -> list[Snapshot]:
    """Return what makes room, of what worked and of what did not."""
    worked = [each for each in past if each.worked or each.reason == REMOVE]
    others = [each for each in past if each not in worked]
    return [*worked[_KEPT:], *others[_KEPT:]]


@dataclass(frozen=True)
class _Past:
    """The snapshots of this host, the newest first: those that are whole, and those of which nobody can tell.

    `refused` says of each of the others, by its name, why it is not used.
    """

    sealed: list[Snapshot]
    unsealed: list[Snapshot]
    refused: dict[str, AgentError]


def _past(view: HostView) -> _Past:
    found = {run_id: _attempt(view, run_id) for run_id in reversed(known(view))}
    usable = [each for each in found.values() if isinstance(each, Snapshot)]
    return _Past(
        sorted((each for each in usable if each.sealed), key=_age, reverse=True),
        [each for each in usable if not each.sealed],
        {run_id: each for run_id, each in found.items() if isinstance(each, AgentError)},
    )


def _attempt(view: HostView, run_id: str) -> Snapshot | AgentError:
    try:
        return _read(view, run_id)
    except AgentError as error:
        return error


def _proven(view: HostView) -> Snapshot | None:
    with contextlib.suppress(AgentError):
        return _read_proven(view)
    return None


def _refused(view: HostView) -> dict[str, AgentError]:
    """Return what is kept here and not used, and why: by the name of a run, or of the file."""
    refused = dict(_past(view).refused)
    try:
        _read_proven(view)
    except AgentError as error:
        refused["proven.json"] = error
    return refused


def _read_proven(view: HostView) -> Snapshot | None:
    """Return what the last proven run left, None where there is none. Raises AgentError as `_read` does."""
    path = _proven_file(view)
    if view.stat(path) is None:
        return None
    found = _used(view, path, "the state that worked last")
    if found.reason != PROVEN:
        raise _damaged("the state that worked last", f"it is of before run {found.run_id}")
    return found


def _read(view: HostView, run_id: str) -> Snapshot:
    """Return a snapshot. Raises AgentError for one that is none, or is not for this host and version."""
    what = f"the snapshot of run {run_id}"
    found = _used(view, _file(view, run_id), what)
    if found.run_id != run_id or found.reason == PROVEN:
        raise _damaged(what, f"it is of run {found.run_id}")
    return found


def _used(view: HostView, path: str, what: str) -> Snapshot:
    """Return the snapshot in a file that this host can use. Raises AgentError, with `what` it was meant to be."""
    here = client_paths(view.system)
    fault = exposed(view, view.system.state, view.system.snapshots, path)
    if fault is not None:
        raise _damaged(what, f"others than {view.system.admin_role} could have written it: {fault}")
    try:
        found, tree = _opened(view.read(path) or b"")
    except AgentError as error:
        if error.code.name != "unreadable":
            raise
        raise _damaged(what, error.saw) from error
    except ValueError as error:
        raise _damaged(what, str(error)) from None
    if found is None:
        raise _newer(path, tree["schema_version"])
    strange = [kept.path for kept in found.files if not _is_the_clients(here, kept.path)]
    if strange:
        raise _damaged(what, f"it holds {strange[0]}, which is no file of the client's")
    if is_foreign(view, tree):
        raise _foreign(view, what, tree["identity"], found)
    return found


def _damaged(what: str, saw: str) -> AgentError:
    return AgentError("snapshot-damaged", f"{what} is not put back", saw=saw, want="the bytes that were kept")


def _newer(path: str, version: int) -> AgentError:
    return AgentError(
        "nothing-recorded",
        f"{path} was written by a newer hsm-agent",
        saw=f"version {version}",
        want=f"version {_VERSION}",
        hint="use that hsm-agent to go back to it",
    )


def _unproven(found: Snapshot) -> AgentError:
    return AgentError(
        "nothing-recorded",
        "there is no snapshot that is known to be whole: an older hsm-agent wrote what there is, without a checksum",
        saw=f"run {found.run_id}, and no proof that it is whole and of this host",
        want="a snapshot with a checksum",
        hint=f"`hsm-agent rollback {found.run_id}` takes it all the same; look at what it puts back",
    )


def _foreign(view: HostView, what: str, whose: object, found: Snapshot) -> AgentError:
    """Return the error for a snapshot that came with a copied disk, or in an image."""
    here = client_paths(view.system)
    servers: set[str] = set()
    for kept in found.files:
        if kept.path != here.ca and kept.data is not None and _is_sound(here, kept):
            servers.update(_servers(here, kept.path, kept.data))
    hsms = [f" --hsm-ip {each}" for each in sorted(servers) if re.fullmatch(r"[0-9A-Fa-f:.]+", each)]
    ca = "" if view.stat(here.ca) is not None else " --ca-cert FILE"
    return AgentError(
        "nothing-recorded",
        f"{what} is of another host, and is not put back on this one",
        saw=f"host.identity {whose}",
        want=f"host.identity {identity(view)}",
        hint=f"what it held can be asked for here: `hsm-agent configure{''.join(hsms) or ' --hsm-ip IP'}{ca}`",
    )


def _fitted(view: HostView, found: Snapshot) -> Snapshot:
    """Return one of an older version as it can be put back. Raises AgentError `snapshot-damaged` for a damaged CA."""
    here = client_paths(view.system)
    for kept in found.files:
        if kept.path == here.ca:
            _require_ca(view, f"the snapshot of run {found.run_id}", kept.data or b"")
    return replace(found, files=tuple(_as_now(view, kept) for kept in found.files))


def _require_ca(view: HostView, what: str, data: bytes) -> None:
    try:
        read_ca(data, now=view.now())
    except AgentError as error:
        # the signature was seen before the dates
        if error.code.name not in ("ca-expired", "ca-not-yet-valid"):
            raise _damaged(what, f"its CA: {error.saw or error.sentence}") from error
    found = find_certificates(data)
    if not (found.whole and found.plain):
        raise _damaged(what, "its CA: no client can read it as it lies there")


def _as_now(view: HostView, kept: SavedFile) -> SavedFile:
    """Return a file of an older version with the link that its name is now, and with rights that are a file's."""
    mode = 0o644 if kept.mode == _LINKS_MODE else closed(kept.mode & 0o777)
    now = _as_it_is(view, kept.path)
    if now is None or now.link is None:
        return replace(kept, mode=mode)
    if now.data is None:
        return replace(kept, mode=mode, link=now.link)
    return replace(kept, mode=now.mode, owner=now.owner, link=now.link)


def _sealed(view: HostView, taken: Snapshot) -> bytes:
    return seal(
        {
            "schema_version": _VERSION,
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


def _opened(data: bytes) -> tuple[Snapshot | None, dict[str, Any]]:
    """Return the snapshot that these bytes are, None for one of a newer version, and all values in them.

    Raises ValueError, with a clause about "it", for what is not as a version wrote it.
    """
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not whole: no JSON") from None
    version = tree.get("schema_version") if isinstance(tree, dict) and len(tree) > 1 else None
    is_sealed = type(version) is not int or "sha256" in tree or version == _VERSION
    if is_sealed:
        tree = unseal(data)
    if type(version) is int and version > _VERSION:
        return None, tree
    try:
        if is_sealed and version == _VERSION:
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
    """Return what version 1 wrote; each value is looked at. Raises ValueError, KeyError, TypeError."""
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


def _file(view: HostView, run_id: str) -> str:
    return view.system.join(view.system.snapshots, f"{run_id}.json")


def _proven_file(view: HostView) -> str:
    return view.system.join(view.system.state, "proven.json")


def _restore(host: Host, here: ClientPaths, kept: SavedFile) -> StepResult | None:
    step = line_id(here, kept.path)
    want = _described(here, kept)
    saw = ""
    try:
        now = _as_it_is(host, kept.path)
        if now == kept or (now is not None and _is_sound(here, now) and not _is_sound(here, kept)):
            return None
        saw = "absent" if now is None else _described(here, now)
        if now is not None and (now.data, now.link) == (kept.data, kept.link):
            saw, want = now.rights, kept.rights
        _write(host, here, kept, now)
        again = _as_it_is(host, kept.path)
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
        now = _as_it_is(host, kept.path)
    if kept.data is not None and now != kept:
        require_closed(host, here, kept.path)
        host.write(goal(host, kept.path), kept.data, mode=kept.mode, owner=kept.owner)


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


def _revive(host: Host, *, anew: bool) -> StepResult | None:
    """Start the daemon anew; also where every file is as it was, if the failed run left it stopped."""
    tool = Timeouts().tool
    was = "active" if daemon.is_running(host, tool) else "not running"
    if was == "active" and not anew:
        return None
    try:
        if daemon.restart(host, tool):
            return StepResult("service", StepOutcome.UNDONE, was, "active")
        saw = daemon.recent_log(host, tool) or "not running"
    except AgentError as error:
        saw = error.saw
    return StepResult(
        "service", StepOutcome.FAILED, saw, "active", "rollback-failed", CODES["service-failed"].fix
    )


def _stop(host: Host) -> StepResult | None:
    """Stop the daemon again: it did not run before, for it was masked, disabled or stopped by somebody."""
    tool = Timeouts().tool
    if not daemon.is_running(host, tool):
        return None
    daemon.stop(host, tool)
    ended = not daemon.is_running(host, tool)
    outcome, code = (StepOutcome.UNDONE, None) if ended else (StepOutcome.FAILED, "rollback-failed")
    return StepResult("service", outcome, "active", "not running", code)


def _take(view: HostView) -> list[SavedFile]:
    here = client_paths(view.system)
    paths = here.all_settings(view)
    ca = _as_it_is(view, here.ca)
    if ca is not None and contains_private_key(ca.data or b""):
        raise AgentError(
            "ca-is-private-key",
            "the CA on this host holds a private key, which is never copied",
            saw=f"a private key in {here.ca}",
            want="certificates alone",
            hint=f"take the key out of {here.ca} and keep it off this host, then run this again",
        )
    kept = [ca, *(_as_it_is(view, path) for path in paths)]
    return [each for each in kept if each is not None]


def _as_it_is(view: HostView, path: str) -> SavedFile | None:
    """Return a file, None for none; a folder or a FIFO of that name is refused by the step that needs it, not here.

    A mode that lets others write is never put back.
    """
    stat = view.stat(path)
    if stat is None or stat.kind not in ("file", "link"):
        return None
    link = view.readlink(path)
    if link is not None:
        stat = view.stat(goal(view, path))
    data = view.read(path)
    if stat is None or data is None:
        return None if link is None else SavedFile(path, None, 0, (-1, -1), link)
    # on Windows a file that is marked read-only cannot be written so, and the mark protects from nobody
    mode = stat.mode | 0o200 if stat.uid < 0 else stat.mode
    return SavedFile(path, data, closed(mode), (stat.uid, stat.gid), link)


def _contents(files: Iterable[SavedFile]) -> list[tuple[str, bytes | None, str | None]]:
    return [(kept.path, kept.data, kept.link) for kept in files]


def _is_the_clients(here: ClientPaths, path: str) -> bool:
    if path in (here.ca, here.sdk3.client_settings, here.sdk3.cmu_settings):
        return True
    below = any(path.startswith(home + here.system.separator) for home in here.homes)
    return below and here.component(path) is not None


def line_id(here: ClientPaths, path: str) -> str:
    """Return the step a file belongs to: `certificate` or `configure:<component>`."""
    if path == here.ca:
        return "certificate"
    return f"configure:{here.component(path) or 'cli'}"


def _described(here: ClientPaths, kept: SavedFile) -> str:
    """Say what a file holds as the steps say it: the CA's fingerprint, the configured addresses."""
    if kept.data is None:
        return f"a link to {kept.link}, where nothing is"
    if kept.path == here.ca:
        found = find_certificates(kept.data).fingerprints
        if found:
            return written(found)
    else:
        with contextlib.suppress(ValueError):
            return " ".join(_servers(here, kept.path, kept.data)) or "not configured"
    return f"sha256:{hashlib.sha256(kept.data).hexdigest()}"


def _is_sound(here: ClientPaths, kept: SavedFile) -> bool:
    """Tell whether the client can read a file. A CA is judged by the step that places it."""
    if kept.path == here.ca:
        return True
    try:
        return kept.data is not None and not _parsed(here, kept.path, kept.data)[1]
    except ValueError:
        return False


def _servers(here: ClientPaths, path: str, data: bytes) -> tuple[str, ...]:
    return _parsed(here, path, data)[0]


def _parsed(here: ClientPaths, path: str, data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the HSMs that a file names, none when it was never configured, and its faults."""
    if path == here.sdk3.cmu_settings:
        utility = parse_utility_config(data)
        return utility.servers, utility.faults
    if path == here.sdk3.client_settings:
        settings3 = parse_daemon_config(data)
        named = settings3.hostname is not None and not settings3.placeholder
        return (str(settings3.hostname),) if named else (), settings3.faults
    settings = parse_client_config(data)
    servers = tuple(each.hostname for each in settings.servers)
    return () if settings.placeholder else servers, settings.faults
