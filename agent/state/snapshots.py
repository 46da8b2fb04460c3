"""Save the CA and the configuration files before the first change, and find snapshots that a run can go back to."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.cloudhsm.ca import find_certificates, read_ca
from agent.cloudhsm.client_config import SavedConfig
from agent.cloudhsm.paths import ClientPaths, client_paths
from agent.cloudhsm.protection import closed
from agent.core.errors import AgentError
from agent.core.model import Notice
from agent.state.exposure import exposed
from agent.state.identity import identity, is_foreign
from agent.state.saved_files import SavedFile, as_it_is, is_client_file, is_sound, servers_in, take
from agent.state.snapshot_format import (
    CONFIGURE,
    PROVEN,
    REMOVE,
    ROLLBACK,
    VERSION,
    Snapshot,
    from_bytes,
    to_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.core.host import Host, HostView

# the mode of a link itself, which an older version saved instead of the file's
_LINKS_MODE = 0o777
# Enough to undo a fortnight of daily mistakes, and as many that were not seen to work: one kind never displaces
# the other. A snapshot has some kilobytes.
_KEPT = 20
_NAMED = 5  # in a warning


def save(
    host: Host, run_id: str, *, reason: str = CONFIGURE, worked: bool = False, to: str | None = None
) -> Snapshot:
    """Write a snapshot of the present files as one file, complete or absent. Raises AgentError as `write` does.

    Files equal to those that the last proven run left have worked, whether or not an HSM answers now. Equal snapshots
    are stored once, under the name of the last run.
    """
    files = tuple(take(host))
    proven = _proven(host)
    worked = worked or (proven is not None and proven.holds(files))
    taken = Snapshot(run_id, files, reason, worked, to)
    past = _past(host).sealed
    equal = [each for each in past if replace(each, run_id=run_id, also=(), number=0) == taken]
    also = tuple(dict.fromkeys(name for each in reversed(equal) for name in (*each.also, each.run_id)))
    taken = replace(taken, also=also[-_KEPT:], number=_next(past, proven))
    host.write(_file(host, run_id), to_bytes(host, taken), mode=0o600)
    for old in (*equal, *_surplus([taken, *past])):
        # an old snapshot that cannot be removed takes space, which is no reason to refuse a run
        with contextlib.suppress(AgentError):
            host.remove(_file(host, old.run_id))
    return taken


def prove(host: Host, run_id: str) -> None:
    """Record the present files as the last that worked, if they are new again. Raises AgentError as `write` does."""
    files = tuple(take(host))
    before, past = _proven(host), _past(host).sealed
    number = _next(past, before)
    if before is None or before.files != files or before.number < number - 1:
        taken = Snapshot(run_id, files, PROVEN, worked=True, number=number)
        host.write(_proven_file(host), to_bytes(host, taken), mode=0o600)


def known(view: HostView) -> tuple[str, ...]:
    """Return the runs that have a snapshot, oldest first (run ids begin with their time)."""
    return tuple(
        name[: -len(".json")] for name in view.list_dir(view.system.snapshots) if name.endswith(".json")
    )


def load(view: HostView, run_id: str | None) -> Snapshot:
    """Return the snapshot taken before a run, by default the last one that worked.

    A snapshot of an older version is returned only by its name, and only if its CA is valid. Raises AgentError
    `nothing-recorded`, also for a snapshot of another host or of a newer version, or `snapshot-damaged` where only
    damaged ones exist.
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
    """Return notices about a snapshot before it is restored: what its name does not show."""
    notices = []
    if not wanted.sealed:
        text = (
            f"an older hsm-agent kept what was there {_when(wanted)}, without a checksum: whether it is complete, and"
            " of this host, is not proven; compare what was put back"
        )
        notices.append(Notice("snapshot-unsealed", text))
    if not wanted.worked:
        text = (
            f"what was there {_when(wanted)} was not seen to work; `hsm-agent verify` tells whether it does"
        )
        notices.append(Notice("rollback-unproven", text))
    if wanted.holds(take(view)):
        text = f"the CA and the configuration are already as they were {_when(wanted)}"
        notices.append(Notice("rollback-unneeded", text))
    layout = client_paths(view.system)
    unsound = [kept.path for kept in wanted.files if not is_sound(layout, kept)]
    if unsound:
        notices.append(
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
        notices.append(Notice("snapshot-damaged", text))
    if others:
        text = (
            f"these snapshots are of another host or a newer hsm-agent, and are not used: {_listed(others)}"
        )
        notices.append(Notice("snapshot-passed-over", text))
    return tuple(notices)


def copies(view: HostView) -> Mapping[str, SavedConfig]:
    """Return component, or path for SDK 3 -> its present file, or its newest copy that a client could work with.

    Only copies since the last removal of packages count: a user who removed the client does not expect its old
    configuration back. Where no copy configures a client, one that a client can read.
    """
    layout = client_paths(view.system)
    configured: dict[str, SavedConfig] = {}
    readable: dict[str, SavedConfig] = {}
    with contextlib.suppress(
        AgentError
    ):  # an ordinary user can read little of the state, and changes nothing
        for kept in _since_removal(view, layout):
            if kept.path == layout.ca or kept.data is None or not is_sound(layout, kept):
                continue
            found = configured if servers_in(layout, kept.path, kept.data) else readable
            found.setdefault(
                layout.component(kept.path) or kept.path, SavedConfig(kept.data, kept.mode, kept.owner)
            )
    return {**readable, **configured}


def _since_removal(view: HostView, layout: ClientPaths) -> Iterator[SavedFile]:
    """Yield each configuration file, the present one first, then its copies, newest first."""
    for path in layout.all_settings(view):
        with contextlib.suppress(AgentError):
            kept = as_it_is(view, path)
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
    """Return the last working state other than the present one; else the present one, if it worked; else the last."""
    now = tuple(take(view))
    in_order = _order(view, past)
    others = [each for each in in_order if not each.holds(now)]
    worked_since = (
        False  # then who went back to, or removed, what was not seen to work does not want it any more
    )
    for each in in_order:
        if each.reason == ROLLBACK:
            back = next((other for other in in_order if other.name == each.to), None)
            if back is not None and (back.worked or not worked_since):
                return back
        elif each in others and (each.worked or (each.reason == REMOVE and not worked_since)):
            return each
        worked_since = worked_since or each.worked
    worked_now = [each for each in in_order if each.worked and each not in others]
    return next(iter((*worked_now, *others)), None)


def _order(view: HostView, past: list[Snapshot]) -> list[Snapshot]:
    """Return all known states, the newest first: the state after a run is newer than the one before it."""
    proven = _proven(view)
    every = [*past, *([proven] if proven else [])]
    return sorted(every, key=_age, reverse=True)


def _age(each: Snapshot) -> tuple[int, str, bool]:
    return each.number, each.run_id, each.reason == PROVEN


def _next(past: list[Snapshot], proven: Snapshot | None) -> int:
    return 1 + max(each.number for each in (*past, proven, Snapshot("", ())) if each is not None)


def _surplus(past: list[Snapshot]) -> list[Snapshot]:
    """Return the snapshots to remove, counted separately for those that worked and the others."""
    worked = [each for each in past if each.worked or each.reason == REMOVE]
    others = [each for each in past if each not in worked]
    return [*worked[_KEPT:], *others[_KEPT:]]


@dataclass(frozen=True)
class _Past:
    """The snapshots of this host, the newest first: the intact ones, and those without a checksum.

    `refused` holds the reason why each other one is not used, by its name.
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
    """Return the reasons why some snapshots here are not used, by the name of the run or of the file."""
    refused = dict(_past(view).refused)
    try:
        _read_proven(view)
    except AgentError as error:
        refused["proven.json"] = error
    return refused


def _read_proven(view: HostView) -> Snapshot | None:
    """Return the state that the last proven run left, None where there is none. Raises AgentError as `_read` does."""
    path = _proven_file(view)
    if view.stat(path) is None:
        return None
    found = _read_usable(view, path, "the state that worked last")
    if found.reason != PROVEN:
        raise _damaged("the state that worked last", f"it is of before run {found.run_id}")
    return found


def _read(view: HostView, run_id: str) -> Snapshot:
    """Return a snapshot. Raises AgentError for one that is damaged, or is not for this host and version."""
    what = f"the snapshot of run {run_id}"
    found = _read_usable(view, _file(view, run_id), what)
    if found.run_id != run_id or found.reason == PROVEN:
        raise _damaged(what, f"it is of run {found.run_id}")
    return found


def _read_usable(view: HostView, path: str, what: str) -> Snapshot:
    """Return the snapshot in a file if this host can use it. Raises AgentError; `what` names the snapshot in it."""
    layout = client_paths(view.system)
    fault = exposed(view, view.system.state, view.system.snapshots, path)
    if fault is not None:
        raise _damaged(what, f"others than {view.system.admin_role} could have written it: {fault}")
    try:
        found, tree = from_bytes(view.read(path) or b"")
    except AgentError as error:
        if error.code.name != "unreadable":
            raise
        raise _damaged(what, error.saw) from error
    except ValueError as error:
        raise _damaged(what, str(error)) from None
    if found is None:
        raise _newer(path, tree["schema_version"])
    strange = [kept.path for kept in found.files if not is_client_file(layout, kept.path)]
    if strange:
        raise _damaged(what, f"it holds {strange[0]}, which is no file of the client's")
    if is_foreign(view, tree):
        raise _foreign(view, layout, what, tree["identity"], found)
    return found


def _damaged(what: str, saw: str) -> AgentError:
    return AgentError("snapshot-damaged", f"{what} is not put back", saw=saw, want="the bytes that were kept")


def _newer(path: str, version: int) -> AgentError:
    return AgentError(
        "nothing-recorded",
        f"{path} was written by a newer hsm-agent",
        saw=f"version {version}",
        want=f"version {VERSION}",
        hint="use that hsm-agent to go back to it",
    )


def _unproven(found: Snapshot) -> AgentError:
    return AgentError(
        "nothing-recorded",
        "no snapshot is proven to be complete: an older hsm-agent wrote them, without a checksum",
        saw=f"run {found.run_id}, and no proof that it is complete and of this host",
        want="a snapshot with a checksum",
        hint=f"`hsm-agent rollback {found.run_id}` takes it all the same; look at what it puts back",
    )


def _foreign(view: HostView, layout: ClientPaths, what: str, whose: object, found: Snapshot) -> AgentError:
    """Return the error for a snapshot that came with a copied disk, or in an image."""
    servers: set[str] = set()
    for kept in found.files:
        if kept.path != layout.ca and kept.data is not None and is_sound(layout, kept):
            servers.update(servers_in(layout, kept.path, kept.data))
    hsms = [f" --hsm-ip {each}" for each in sorted(servers) if re.fullmatch(r"[0-9A-Fa-f:.]+", each)]
    ca = "" if view.stat(layout.ca) is not None else " --ca-cert FILE"
    return AgentError(
        "nothing-recorded",
        f"{what} is of another host, and is not put back on this one",
        saw=f"host.identity {whose}",
        want=f"host.identity {identity(view)}",
        hint=f"what it held can be asked for here: `hsm-agent configure{''.join(hsms) or ' --hsm-ip IP'}{ca}`",
    )


def _fitted(view: HostView, found: Snapshot) -> Snapshot:
    """Return a snapshot of an older version so that it can be restored. Raises `snapshot-damaged` for a damaged CA."""
    layout = client_paths(view.system)
    for kept in found.files:
        if kept.path == layout.ca:
            _require_ca(view, f"the snapshot of run {found.run_id}", kept.data or b"")
    return replace(found, files=tuple(_as_now(view, kept) for kept in found.files))


def _require_ca(view: HostView, what: str, data: bytes) -> None:
    try:
        read_ca(data, now=view.now())
    except AgentError as error:
        # the signature was checked before the dates
        if error.code.name not in ("ca-expired", "ca-not-yet-valid"):
            raise _damaged(what, f"its CA: {error.saw or error.sentence}") from error
    found = find_certificates(data)
    if not (found.is_complete and found.plain):
        raise _damaged(what, "its CA: no client can read it as it is")


def _as_now(view: HostView, kept: SavedFile) -> SavedFile:
    """Return a file of an older version with the present link of its name, and with the mode of a file."""
    mode = 0o644 if kept.mode == _LINKS_MODE else closed(kept.mode & 0o777)
    now = as_it_is(view, kept.path)
    if now is None or now.link is None:
        return replace(kept, mode=mode)
    if now.data is None:
        return replace(kept, mode=mode, link=now.link)
    return replace(kept, mode=now.mode, owner=now.owner, link=now.link)


def _file(view: HostView, run_id: str) -> str:
    return view.system.join(view.system.snapshots, f"{run_id}.json")


def _proven_file(view: HostView) -> str:
    return view.system.join(view.system.state, "proven.json")
