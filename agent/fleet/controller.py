"""Conduct a run of the fleet from its orders to its report: journal open, hosts visited, nothing left unsaid."""

from __future__ import annotations

import datetime as dt
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

from agent.catalogue import load as load_catalogue
from agent.core.errors import AgentError
from agent.core.fleet_model import HostResult, HostState
from agent.fleet import journal, waves
from agent.fleet.fleet_report import RunSummary, to_tree
from agent.fleet.host_session import HostRunner, SessionContext
from agent.fleet.package_cache import PackageCache
from agent.fleet.package_cache import home as packages_home
from agent.fleet.rollout import Rollout, RolloutPolicy, RunState
from agent.hosts import descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from agent.core.fleet_model import RolloutListener, Target
    from agent.core.host import Host
    from agent.core.transport import CancelToken, Connector
    from agent.fleet.agent_archive import AgentArchives
    from agent.fleet.journal import RecordedRun, RunSpec

# what a run that is gone on with is to do, and at which hosts, from what its journal tells
Again = Callable[["RecordedRun"], tuple["RunSpec", tuple["Target", ...]]]

# commands that change hosts go wave by wave; the others look at all hosts alike, and no failure stops a look
TOUCHING = ("rollout", "remove")
# hosts of which no journal has a report
_NO_END = (HostState.AT_WORK.value, HostState.NOT_REACHED.value)


@dataclass(frozen=True)
class Deps:
    """What conducting needs of the outside world.

    `door` makes the way to hosts from the ssh configuration that was named, or from the user's own. `stop` says how
    often the operator interrupted.
    """

    machine: Host
    environ: Mapping[str, str]
    door: Callable[[str | None], Connector]
    cancel_token: Callable[[], CancelToken]
    watcher: RolloutListener
    stop: Callable[[], int]


def new_name() -> str:
    """Name a run by its time, as runs on a host are."""
    return f"{_now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def start(orders: RunSpec, trees: AgentArchives, means: Deps) -> tuple[Path, dict[str, Any]]:
    """Conduct a new run over all targets of the orders and return its folder and its report."""
    # what is wrong with ssh's configuration must not begin a run: --only asks the last one
    way = _way(orders, means)
    run_id, started = new_name(), _iso()
    folder = journal.runs_dir(means.environ) / run_id
    with journal.opened(folder) as book:
        book.begin(run_id, started, orders, trees.sent)
        story = journal.RecordedRun(run_id, started, orders, trees.sent)
        return folder, _roll_out(story, orders.targets, trees, means, book, way)


def resume(folder: Path, again: Again, trees: AgentArchives, means: Deps) -> dict[str, Any]:
    """Go on with a run: the hosts that are due have another turn, and the others stay as they ended."""
    with journal.opened(folder) as book:
        orders, due = again(journal.read(folder))
        way = _way(orders, means)
        book.resume(_iso(), orders, trees.sent)
        return _roll_out(journal.read(folder), due, trees, means, book, way)


def stored_report(folder: Path) -> dict[str, Any]:
    """Return the report of a run as its journal tells it; one that has not finished is shown as it stands."""
    story = journal.read(folder)
    finished = story.finished or {}
    ended = finished.get("finished") or story.started
    code, why = finished.get("code"), finished.get("why")
    controlled = journal.at_work(folder)
    if not finished:
        how = "it is at work" if controlled else "its controller was ended"
        code, why = "interrupted", f"the run has not come to its end: {how}"
    run = _summary(story, ended, code, why)
    open_ends = {
        target.name: _open(target, controlled=controlled)
        for target in story.orders.targets
        if target.name in story.open
    }
    return to_tree(run, story.orders.targets, {**story.ends, **open_ends}, finished.get("waves", ()))


def _open(target: Target, *, controlled: bool) -> HostResult:
    """Say of a host that was begun and has no end what is known: it was not left alone."""
    saw = "at work" if controlled else "begun, and not seen to end: it may be at work, or have finished alone"
    hint = None if controlled else "the command to continue reads its report"
    return HostResult(
        target.name, target.address, target.port or 22, 0, HostState.AT_WORK, saw=saw, hint=hint
    )


def with_host_reports(folder: Path, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with every host's own report in it, read back from the journal."""
    ended = {host["name"] for host in tree["hosts"] if host["outcome"] not in _NO_END}
    own = {end.name: end.report for end in journal.reports(folder) if end.name in ended}
    return {**tree, "hosts": [{**host, "report": own.get(host["name"])} for host in tree["hosts"]]}


def last_states(environ: Mapping[str, str]) -> Mapping[str, HostState]:
    """Return how each host ended in the newest run that is on record."""
    for folder in reversed(journal.runs(journal.runs_dir(environ))):
        story = journal.read(folder)
        return {target.name: story.state(target.name) for target in story.orders.targets}
    return {}


def recorded(environ: Mapping[str, str], most: int) -> Iterator[dict[str, Any]]:
    """Give the reports of the newest runs that are on record, the newest first; what cannot be read is none."""
    for folder in reversed(journal.runs(journal.runs_dir(environ))[-most:]):
        with suppress(AgentError):
            yield stored_report(folder)


def configured(environ: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the hosts that roll-outs from here configured, each with what was wanted of it last."""
    return journal.configured(journal.runs_dir(environ))


def find_run(environ: Mapping[str, str], run_id: str | None) -> Path:
    """Return the folder of a run, of the last one when none is named. Raises AgentError `nothing-recorded`."""
    base = journal.runs_dir(environ)
    known = journal.runs(base)
    for folder in reversed(known):
        if run_id in (None, folder.name):
            return folder
    raise AgentError(
        "nothing-recorded", "there is no such roll-out" if run_id else "there is no roll-out yet",
        saw=", ".join(folder.name for folder in known[-5:]) or f"nothing in {base}", want=run_id or "an earlier run",
        hint="`hsm-agent fleet runs` lists them" if known else "`hsm-agent fleet rollout --inventory FILE` starts one",
    )  # fmt: skip


@dataclass(frozen=True)
class _Way:
    """How the hosts of a run are reached: by which door, and for each name the address and port behind it."""

    door: Connector
    places: Mapping[str, tuple[str, int]]


def _way(orders: RunSpec, means: Deps) -> _Way:
    descriptors.require(min(orders.parallel, len(orders.targets)))
    door = means.door(orders.ssh_config)
    return _Way(door, door.places(orders.targets, lambda: means.stop() > 0))


def _roll_out(
    story: RecordedRun,
    due: Sequence[Target],
    trees: AgentArchives,
    means: Deps,
    book: journal.Journal,
    way: _Way,
) -> dict[str, Any]:
    orders, door, places = story.orders, way.door, way.places
    depot = PackageCache(means.machine, packages_home(means.environ))
    vendor = load_catalogue().base_url
    session_context = SessionContext(
        story.run_id, trees, depot, vendor, orders.desired, places, orders.deadline, before=orders.before
    )
    touching = orders.command in TOUCHING
    pace = RolloutPolicy(
        orders.parallel,
        orders.deadline,
        orders.soak if touching else 0.0,
        waves.share(orders.limit) if touching else None,
    )
    shares = waves.shares(orders.shares) if touching else (waves.ALL,)
    at_work = {*story.open, *story.left}
    run_state = RunState(orders.targets, places, dict(story.ends), dict(story.attempts), at_work, [])
    for target in due:
        run_state.ends.pop(target.name, None)
    rollout = Rollout(
        HostRunner(door, session_context), means.cancel_token, book, means.watcher, pace, means.stop
    )
    with _shown(means.watcher):
        rollout.roll(orders.command, run_state, waves.split(due, shares))
    finished = _iso()
    book.finished(finished=finished, code=rollout.code, why=rollout.halted, waves=run_state.waves)
    run = _summary(story, finished, rollout.code, rollout.halted)
    return to_tree(run, orders.targets, run_state.ends, run_state.waves)


def _summary(story: RecordedRun, finished: str, code: str | None, why: str | None) -> RunSummary:
    orders = story.orders
    return RunSummary(
        story.run_id, orders.command, orders.inventory, story.started, finished, story.sent, code, why, orders.remarks
    )  # fmt: skip


@contextmanager
def _shown(watcher: RolloutListener) -> Iterator[None]:
    try:
        yield
    finally:
        watcher.close()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def _iso() -> str:
    return f"{_now():%Y-%m-%dT%H:%M:%SZ}"
