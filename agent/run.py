"""The life of one run: its lock, however its body ends, its report, the record of that, and the delivery."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable

from agent.config.desired import Desired, from_json
from agent.config.recorded import resolve_desired, with_what_lacks
from agent.core.errors import CODES, AgentError, unexpected
from agent.core.model import ErrorDetails, Notice, Report
from agent.hosts import ready
from agent.render.json_report import to_document
from agent.report import RunContext, build_report
from agent.state import records
from agent.state.running import at_work

if TYPE_CHECKING:
    from agent.core.host import Host, HostView
    from agent.report import RunInfo

# places for reports that want the network
_OVER_THE_NETWORK = {"https", "http", "cfn"}


def report_invalid_input(machine: Host, run: RunInfo, error: AgentError, desired: Desired) -> Report:
    """Report a run that ended before it began, since what was asked for is not valid, to whom it was to be told."""
    known = (
        RunContext(told_to=desired) if desired.report_to else recipients(machine, replace(desired, hsm_ip=()))
    )
    error = with_what_lacks(machine, error, desired)
    return _delivered(machine, run, build_report(machine, run, known, error), known.told_to, remember=False)


def recipients(view: HostView, desired: Desired) -> RunContext:
    """Begin a run with whom it is told to: who is named now, or else who was named to the last `configure`.

    After a `remove` there is none, and a `rollback` of it concerns those who were told of the `remove`.
    """
    with contextlib.suppress(AgentError):
        return RunContext(told_to=resolve_desired(view, desired))
    if not desired.report_to:
        with contextlib.suppress(AgentError, TypeError):
            return RunContext(told_to=from_json(records.read_receivers(view)))
    return RunContext(told_to=desired)


def exclusive_run(
    machine: Host, run: RunInfo, known: RunContext, body: Callable[[RunContext], None]
) -> Report:
    """Run the body of a command that changes the host: as root, alone, and remembered."""
    try:
        if not machine.is_root():
            mighty = machine.system.admin_role
            raise AgentError(
                "not-root", f"changing this host needs {mighty}", saw="an ordinary user", want=mighty
            )
        asked = f", for roll-out {run.request}" if run.request else ""
        with machine.lock(machine.system.lock, f"hsm-agent {run.command}, run {run.run_id}{asked}"):
            return reported(machine, run, known, body, remember=True)
    except AgentError as error:
        return _delivered(
            machine, run, build_report(machine, run, known, error), known.told_to, remember=False
        )


def reported(
    machine: Host,
    run: RunInfo,
    known: RunContext,
    body: Callable[[RunContext], None],
    *,
    remember: bool,
    beside: bool = False,
) -> Report:
    """Run a body and report however it ended; an AgentError is the run's own outcome.

    `beside`: without the lock, so that another run may change the host meanwhile. Its report is then the one to keep.
    """
    before = _last_words(machine) if beside and remember else None
    error: AgentError | None = None
    try:
        _ready_to_report(machine, run, known)
        body(known)
    except AgentError as raised:
        error = raised
    except Exception as crash:  # a defect: a run always reports, and the log gets the traceback
        logging.getLogger("agent").exception("run %s failed", run.run_id)
        error = unexpected(crash)
    if before is not None:
        after = _last_words(machine)
        if before.at_work or after != before:
            text = "another run was at work on this host meanwhile, and `status` shows what that one reports"
            known.notices = (*known.notices, Notice("run-beside", text))
            remember = False
    report = build_report(machine, run, known, error)
    remember = remember and machine.is_root() and report.code != "nothing-recorded"
    if remember:
        report = _recorded(machine, report)
    return _delivered(machine, run, report, known.told_to, remember=remember)


def save_begun(machine: Host, run: RunInfo, known: RunContext) -> None:
    """Keep a report that says that this run has begun: one that is killed must not leave an older one's success."""
    unended = AgentError(
        "interrupted",
        "the run has begun, and its end is not reported",
        saw="it is at work, was killed, or its end could not be kept",
        want="its own report",
        hint="`hsm-agent status --wait` waits while it is at work; otherwise run the same command again",
    )
    with contextlib.suppress(AgentError):
        report = build_report(machine, replace(run, identity=lambda: None), known, unended)
        records.write_report(machine, to_document(report))


@dataclass(frozen=True)
class _Words:
    """What other runs have said so far: the one that is at work, and the last that reported."""

    at_work: str | None
    reported: str | None


def _last_words(view: HostView) -> _Words:
    words = reported = None
    with contextlib.suppress(AgentError):
        words = at_work(view)
    with contextlib.suppress(AgentError):
        reported = str(records.read_report(view).get("run_id"))
    return _Words(words, reported)


def _recorded(machine: Host, report: Report) -> Report:
    """Keep a report for `status`; that it could not be kept is then in it."""
    try:
        records.write_report(machine, to_document(report))
    except AgentError as unwritten:
        notice = Notice("report-not-kept", f"the report could not be kept: {unwritten.saw}")
        return replace(report, notices=(*report.notices, notice))
    return report


def _delivered(machine: Host, run: RunInfo, report: Report, told_to: Desired, *, remember: bool) -> Report:
    """Deliver a report, and return it as it is shown and kept: with what became of that.

    What is delivered is the report as it was before. That it did not arrive is the run's outcome only when nothing
    worse is.
    """
    if not _is_told(machine, run, told_to):
        return report
    from agent.sinks.delivery import deliver  # noqa: PLC0415 -- only where a report goes somewhere

    hurried = report.code == "interrupted"
    done = deliver(machine, told_to, to_document(report), run.environ, hurried=hurried)
    if not done.notices:
        return report
    report = replace(report, notices=(*report.notices, *done.notices))
    if done.failed and report.exit_status == 0:
        code = CODES["report-refused" if done.refused else "report-undelivered"]
        failure = ErrorDetails(code.name, code.meaning, "", "", code.fix)  # what was seen, the warnings say
        report = replace(report, code=code.name, exit_status=code.exit_status, failure=failure)
    return _recorded(machine, report) if remember else report


def _is_told(view: HostView, run: RunInfo, told_to: Desired) -> bool:
    """Tell whether a report goes to anybody: of this run, or of those before it."""
    return run.command != "plan" and bool(told_to.report_to or (view.is_root() and _spooled(view)))


def _ready_to_report(view: HostView, run: RunInfo, known: RunContext) -> None:
    """Load what the report's delivery will take: when the run has ended, the agent may be gone from the disk."""
    if not _is_told(view, run, known.told_to):
        return
    import agent.sinks.delivery  # noqa: F401, PLC0415 -- only where a report goes somewhere

    schemes = {uri.partition(":")[0] for uri in known.told_to.report_to}
    waits = view.is_root() and _spooled(view)  # for whichever place
    if waits or "junit" in schemes:
        import xml.etree.ElementTree  # noqa: F401, PLC0415 -- 10 ms that only this pays
    if waits or schemes & _OVER_THE_NETWORK:
        ready.load_for_web()


def _spooled(view: HostView) -> bool:
    with contextlib.suppress(AgentError):
        return bool(view.list_dir(view.system.spool))
    return False
