"""The life of one run: its lock, its report however it ends, the record of that report, and its delivery."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, final

from agent.config.desired import Desired, from_json
from agent.config.recorded import resolve_desired, with_what_lacks
from agent.core.codes import CODES
from agent.core.errors import AgentError, unexpected
from agent.core.model import ErrorDetails, Notice, Report
from agent.render.json_report import to_document
from agent.report import RunContext, build_report
from agent.state import records
from agent.state.running import current_run

if TYPE_CHECKING:
    from types import TracebackType

    from agent.catalogue import Catalogue
    from agent.core.host import Host, HostView
    from agent.report import RunInfo


@final
class RecordedRun:
    """One run of one command, as a context manager: however its body ends, `report` says so afterwards.

    An AgentError that the body raises is the run's own outcome; any other exception is a defect, whose traceback the
    log gets. The report is kept for `status` by a run that holds the lock, and by one that asks for it.
    """

    report: Report

    def __init__(self, machine: Host, run: RunInfo, asked: Desired) -> None:
        """`asked` is what was asked for now: it names the sinks of a run that ends before `deliver_to` is called."""
        self.context = RunContext()
        self._machine = machine
        self._run = run
        self._asked = asked
        self._recipients: Desired | None = None
        self._held = contextlib.ExitStack()
        self._is_kept = False
        self._others_before: _OtherRuns | None = None

    @property
    def info(self) -> RunInfo:
        """What the run was started with."""
        return self._run

    @property
    def catalogue(self) -> Catalogue | None:
        """The catalogue that the run was given."""
        return self._run.catalogue

    def __enter__(self) -> RecordedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> bool:
        with self._held:
            if raised is None or isinstance(raised, AgentError):
                self._end(raised)
                return True
            if isinstance(raised, Exception):
                logging.getLogger("agent").error("run %s failed", self._run.run_id, exc_info=raised)
                self._end(unexpected(raised))
                return True
        return False

    def lock_host(self) -> None:
        """Have the host to itself until the report is delivered: as root, while no other run changes it.

        Raises AgentError `not-root` or `run-locked`; such a run has changed nothing, and its report is not kept.
        """
        machine, run = self._machine, self._run
        if not machine.is_root():
            wanted = machine.system.admin_role
            raise AgentError(
                "not-root", f"changing this host needs {wanted}", saw="an ordinary user", want=wanted
            )
        asked = f", for roll-out {run.request}" if run.request else ""
        words = f"hsm-agent {run.command}, run {run.run_id}{asked}"
        self._held.enter_context(machine.lock(machine.system.lock, words))
        self._is_kept = True

    def keep_beside_others(self) -> None:
        """Keep the report of a run without the lock, unless another run changes the host meanwhile."""
        self._is_kept = self._machine.is_root()
        self._others_before = _other_runs(self._machine)

    def deliver_to(self, recipients: Desired) -> None:
        """Name the sinks of the report, and load what delivery takes: later the agent may be gone from the disk."""
        self._recipients = recipients
        if not self._is_delivered(recipients):
            return
        import agent.sinks.delivery  # noqa: F401, PLC0415 -- only where a report goes somewhere
        from agent.sinks import registry  # noqa: PLC0415 -- as above

        waits = self._machine.is_root() and _has_spooled(self._machine)  # for any sink
        registry.load(None if waits else recipients.report_to)

    def save_begun(self) -> None:
        """Keep a report that says that this run has begun: one that is killed must not leave an older one's success."""
        unended = AgentError(
            "interrupted",
            "the run has begun, and its end is not reported",
            saw="it is running, was killed, or its end could not be recorded",
            want="its own report",
            hint="`hsm-agent status --wait` waits while it is running; otherwise run the same command again",
        )
        with contextlib.suppress(AgentError):
            report = build_report(self._machine, self._run, self.context, unended)
            records.write_report(self._machine, to_document(report))

    def _end(self, error: AgentError | None) -> None:
        if self._others_before is not None and self._others_before.changed(self._machine):
            text = "another run changed this host at the same time; `status` shows that run's report"
            self.context.note(Notice("run-beside", text))
            self._is_kept = False
        recipients = self._recipients or recipients_of(self._machine, self._asked)
        report = build_report(self._machine, self._run, self.context, error)
        if recipients.report_to and self._run.command != "plan":
            report = replace(report, host=replace(report.host, instance_id=self._instance_id()))
        self._is_kept = self._is_kept and report.code != "nothing-recorded"
        document = to_document(report)
        if self._is_kept:
            report, document = self._kept(report, document)
        self.report = self._delivered(report, document, recipients)

    def _kept(self, report: Report, document: str) -> tuple[Report, str]:
        """Keep a report for `status`; that it could not be kept is then in it."""
        try:
            records.write_report(self._machine, document)
        except AgentError as unwritten:
            notice = Notice("report-not-kept", f"the report could not be kept: {unwritten.saw}")
            report = replace(report, notices=(*report.notices, notice))
            return report, to_document(report)
        return report, document

    def _delivered(self, report: Report, document: str, recipients: Desired) -> Report:
        """Deliver a report, and return it as it is shown and kept: with the outcome of that.

        What is delivered is the report as it was before. That it did not arrive is the run's outcome only when nothing
        worse is.
        """
        if not self._is_delivered(recipients):
            return report
        from agent.sinks.delivery import deliver  # noqa: PLC0415 -- only where a report goes somewhere

        hurried = report.code == "interrupted"
        done = deliver(self._machine, recipients, document, self._run.environ, hurried=hurried)
        if not done.notices:
            return report
        report = replace(report, notices=(*report.notices, *done.notices))
        if done.failed and report.exit_status == 0:
            code = CODES["report-refused" if done.refused else "report-undelivered"]
            failure = ErrorDetails(
                code.name, code.meaning, "", "", code.fix
            )  # what was seen, the warnings say
            report = replace(report, code=code.name, exit_status=code.exit_status, failure=failure)
        return self._kept(report, to_document(report))[0] if self._is_kept else report

    def _is_delivered(self, recipients: Desired) -> bool:
        """Tell whether a report goes to any sink: of this run, or of those before it."""
        waits = self._machine.is_root() and _has_spooled(self._machine)
        return self._run.command != "plan" and bool(recipients.report_to or waits)

    def _instance_id(self) -> str | None:
        """Ask for the instance's id, which takes time: so only for a report that goes to a sink."""
        from agent.http.imds import instance_id  # noqa: PLC0415 -- only where a report goes somewhere

        return instance_id(self._machine, self._run.environ)


def report_invalid_input(machine: Host, run: RunInfo, error: AgentError, desired: Desired) -> Report:
    """Report a run that ended before it began, since what was asked for is not valid."""
    with RecordedRun(machine, run, replace(desired, hsm_ip=(), cluster_id=None)) as this:
        if desired.report_to:
            this.deliver_to(desired)
        raise with_what_lacks(machine, error, desired)
    return this.report


def recipients_of(view: HostView, asked: Desired) -> Desired:
    """Return whose sinks a report goes to: those that are named now, or else those of the last `configure`.

    After a `remove` there is none, and a `rollback` of it concerns the sinks that got the report of the `remove`.
    """
    with contextlib.suppress(AgentError):
        return resolve_desired(view, asked)
    if not asked.report_to:
        with contextlib.suppress(AgentError, TypeError):
            return from_json(records.read_receivers(view))
    return asked


@dataclass(frozen=True)
class _OtherRuns:
    """The run that holds the lock, and the last that reported."""

    running: str | None
    reported: str | None

    def changed(self, view: HostView) -> bool:
        """Tell whether another run was or is active since."""
        return self.running is not None or _other_runs(view) != self


def _other_runs(view: HostView) -> _OtherRuns:
    running = reported = None
    with contextlib.suppress(AgentError):
        running = current_run(view)
    with contextlib.suppress(AgentError):
        reported = str(records.read_report(view).get("run_id"))
    return _OtherRuns(running, reported)


def _has_spooled(view: HostView) -> bool:
    with contextlib.suppress(AgentError):
        return bool(view.list_dir(view.system.spool))
    return False
