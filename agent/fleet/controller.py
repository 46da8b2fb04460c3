"""A fleet run from its RunSpec to its report, and what is known of earlier runs."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

from agent.config.input_errors import did_you_mean
from agent.core.errors import AgentError
from agent.core.fleet_model import HostResult, HostState
from agent.fleet import journal
from agent.fleet.fleet_report import to_tree
from agent.fleet.model import RunState
from agent.fleet.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from agent.core.fleet_model import Target
    from agent.fleet.model import Deps, RunSpec, Transport

# From a run as its journal has it: what it is to do now, and the hosts that are due.
Again = Callable[[RunState], tuple["RunSpec", tuple["Target", ...]]]

# the name of the newest run
LAST = "last"
# hosts of which no journal has a report
_NO_END = (HostState.AT_WORK.value, HostState.NOT_REACHED.value)


def new_run_id() -> str:
    """Name a run by its time, as runs on a host are."""
    return f"{_now():%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def start(spec: RunSpec, deps: Deps) -> tuple[Path, dict[str, Any]]:
    """Run a new run over all of its targets; return its directory and its report."""
    # an error in ssh's configuration must not begin a run: --only chooses by the last one
    transport, endpoints = _resolve(spec, deps)
    run = RunState(new_run_id(), _iso(), replace(spec, by=deps.by), transport.sent, endpoints=endpoints)
    folder = journal.runs_dir(deps.environ) / run.run_id
    with journal.opened(folder) as writer:
        writer.begin(run)
        return folder, _roll_out(run, spec.targets, transport, deps, writer)


def resume(folder: Path, again: Again, deps: Deps) -> dict[str, Any]:
    """Resume a run: the hosts that are due have another turn, and the others stay as they ended."""
    with journal.opened(folder) as writer:
        run = journal.read(folder)
        spec, due = again(run)
        spec = replace(spec, by=deps.by)
        transport, run.endpoints = _resolve(spec, deps)
        writer.resume(_iso(), spec, transport.sent)
        run.resume(spec, transport.sent)
        return _roll_out(run, due, transport, deps, writer)


def _resolve(spec: RunSpec, deps: Deps) -> tuple[Transport, Mapping[str, tuple[str, int]]]:
    """Return how the hosts are reached, and the address and port of each."""
    transport = deps.transport(spec)
    return transport, transport.endpoints(spec.targets, spec.parallel, lambda: deps.interrupts() > 0)


def _roll_out(
    run: RunState, due: Sequence[Target], transport: Transport, deps: Deps, writer: journal.Journal
) -> dict[str, Any]:
    for target in due:
        run.ends.pop(target.name, None)
    with closing(deps.listener), transport.sessions(run, deps, writer) as session:
        Rollout(run, deps, writer, session).roll(due)
        _explain(run, due, deps, writer)
    run.finished = _iso()
    writer.finish(run)
    return to_tree(run)


def _explain(run: RunState, due: Sequence[Target], deps: Deps, writer: journal.Journal) -> None:
    """Add to hosts that were not reached what is known of the way to them, unless the operator wants to stop."""
    ends = ((target, run.ends.get(target.name)) for target in due)
    unreached = [(target, end) for target, end in ends if end and end.state is HostState.UNREACHABLE]
    if not unreached or deps.interrupts():
        return
    try:
        explained = deps.explain(run.spec.ssh_config, unreached)
    except Exception:  # how the run ended must not depend on what is only an explanation
        logging.getLogger("agent").exception("the search for why hosts are not reached failed")
        return
    for end in explained:
        writer.ended(end)
        run.end(end)


def stored_report(folder: Path) -> dict[str, Any]:
    """Return the report of a run from its journal; one that has not finished is shown in its current state."""
    run = journal.read(folder)
    controlled = journal.is_running(folder)
    if run.finished is None:
        how = "it is running" if controlled else "its controller was ended"
        run.finish(run.started, "interrupted", f"the run has not come to its end: {how}", ())
    open_ends = {
        target.name: _open_end(target, run.spec.port_of(target), controlled=controlled)
        for target in run.spec.targets
        if target.name in run.open
    }
    return to_tree(replace(run, ends={**run.ends, **open_ends}))


def _open_end(target: Target, port: int, *, controlled: bool) -> HostResult:
    """Return what is known of a host that was begun and has no end."""
    saw = "running" if controlled else "started, but its end is unknown: it may still run or have finished"
    hint = None if controlled else "the command to continue reads its report"
    return HostResult(target.name, target.address, port, 0, HostState.AT_WORK, saw=saw, hint=hint)


def with_host_reports(folder: Path, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report with every host's own report in it, read from the journal."""
    ended = {host["name"] for host in tree["hosts"] if host["outcome"] not in _NO_END}
    reports = {end.name: end.report for end in journal.reports(folder) if end.name in ended}
    return {**tree, "hosts": [{**host, "report": reports.get(host["name"])} for host in tree["hosts"]]}


def last_states(environ: Mapping[str, str]) -> Mapping[str, HostState]:
    """Return how each host ended in the newest run on record."""
    for folder in reversed(journal.runs(journal.runs_dir(environ))):
        run = journal.read(folder)
        return {target.name: run.state(target.name) for target in run.spec.targets}
    return {}


def recorded(environ: Mapping[str, str], most: int) -> Iterator[dict[str, Any]]:
    """Yield the reports of the newest runs on record, the newest first, without those that cannot be read."""
    for folder in reversed(journal.runs(journal.runs_dir(environ))[-most:]):
        with suppress(AgentError):
            yield stored_report(folder)


def prune(environ: Mapping[str, str], seconds: float) -> tuple[str, ...]:
    """Delete old runs, as `journal.prune` does, and return their names."""
    return journal.prune(journal.runs_dir(environ), seconds)


def host_part(folder: Path, name: str) -> dict[str, Any]:
    """Return one host's part of a run's report, with its own report. Raises AgentError `usage`."""
    tree = stored_report(folder)
    found = next((host for host in tree["hosts"] if host["name"] == name), None)
    if found is None:
        known = [host["name"] for host in tree["hosts"]]
        raise AgentError(
            "usage", f"there is no host {name!r} in that run{did_you_mean(name, known)}",
            saw=f"{len(known):,} hosts in {folder.name}", want="one of them",
            hint=f"`hsm-agent fleet status {folder.name}` lists them",
        )  # fmt: skip
    return next(iter(with_host_reports(folder, {**tree, "hosts": [found]})["hosts"]))


def configured(environ: Mapping[str, str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the hosts that roll-outs from here configured, each with what was wanted of it last."""
    return journal.configured(journal.runs_dir(environ))


def find_run(environ: Mapping[str, str], run_id: str | None) -> Path:
    """Return the directory of a run; None and `last` name the newest. Raises AgentError `nothing-recorded`."""
    base = journal.runs_dir(environ)
    known = journal.runs(base)
    for folder in reversed(known):
        if run_id in (None, LAST, folder.name):
            return folder
    raise AgentError(
        "nothing-recorded", "there is no such roll-out" if run_id else "there is no roll-out yet",
        saw=", ".join(folder.name for folder in known[-5:]) or f"nothing in {base}", want=run_id or "an earlier run",
        hint="`hsm-agent fleet runs` lists them" if known else "`hsm-agent fleet rollout --inventory FILE` starts one",
    )  # fmt: skip


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def _iso() -> str:
    return f"{_now():%Y-%m-%dT%H:%M:%SZ}"
