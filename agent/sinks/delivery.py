"""A finished report is sent to all its sinks, after those that still wait; an undelivered report is kept."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.core.aws_names import with_region
from agent.core.errors import AgentError
from agent.core.model import Notice
from agent.core.plain import LONGEST, cut, printable
from agent.sinks import spool
from agent.sinks.https import TOKEN
from agent.sinks.message import DeliveryContext, OutgoingReport, UndeliveredError
from agent.sinks.registry import send, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config.desired import Desired
    from agent.core.host import Host

# The time for all deliveries of one run to one sink, in seconds; and that of an interrupted run, which must end soon.
LIMIT = 60.0
HURRY = 10.0
# So many of these are what all reports that wait for other sinks may take together: a URL that changes with each run
# would otherwise make a hundred of them.
_OTHERS = 2

_NAMED = 3  # in the notice about stuck files
_LATER = "it is kept for the next run"
_BEHIND = UndeliveredError("older ones wait before it")


@dataclass(frozen=True)
class Delivered:
    """The result of a delivery. `failed`: this report did not reach every sink; older ones only cause notices.

    `refused`: every sink that it did not reach will never take it, so no later run sends it.
    """

    notices: tuple[Notice, ...]
    failed: bool
    refused: bool = False


def deliver(
    machine: Host, wanted: Desired, document: str, environ: Mapping[str, str], *, hurried: bool
) -> Delivered:
    """Deliver a report to every sink of `wanted`, and as root also the reports that wait. Raises nothing.

    As root, a report is first written to the spool and then sent: a run that is killed meanwhile loses nothing, and
    a later attempt has the key of the first one.
    """
    # a later run, which may know no region, delivers what is kept
    wanted = replace(wanted, report_to=tuple(with_region(uri, wanted.region) for uri in wanted.report_to))
    reports = tuple(OutgoingReport(uri, document) for uri in wanted.report_to)
    this = _DeliveryPass(machine, wanted, environ, hurried=hurried)
    if not machine.is_root():
        for report in reports:
            this.directly(report, "it is not kept, since that needs root")
        return this.ended()
    try:
        with machine.lock(machine.system.delivery_lock, "hsm-agent, delivering reports"):
            this.in_order(reports)
    except AgentError as error:  # another run delivers now, or the lock cannot be made
        logging.getLogger("agent").info("what waits is left alone: %s", error.saw)
        for report in reports:
            this.directly(report)
    return this.ended()


@dataclass
class _DeliveryPass:
    """The deliveries of one run. `ends` is the deadline of each sink, by its URI; `others_end` that of all others."""

    machine: Host
    wanted: Desired
    environ: Mapping[str, str]
    hurried: bool
    ends: dict[str, float] = field(default_factory=dict)
    others_end: float | None = None
    notices: list[Notice] = field(default_factory=list)
    failures: list[UndeliveredError] = field(default_factory=list)

    def ended(self) -> Delivered:
        for notice in self.notices:
            logging.getLogger("agent").warning("%s: %s", notice.code, notice.text)
        failed = bool(self.failures)
        return Delivered(tuple(self.notices), failed, failed and all(each.refused for each in self.failures))

    def in_order(self, reports: tuple[OutgoingReport, ...]) -> None:
        """Send the waiting reports and then the new ones; after a failure, later reports to the same sink wait too."""
        unkept = {report: self.keep(report) for report in reports}
        stuck: set[str] = set()
        found: set[OutgoingReport] = set()
        for kept in self.waiting():
            report = OutgoingReport(kept.uri, kept.document)
            found.add(report)
            error = _BEHIND if report.uri in stuck else self.attempt(report, self.context(kept))
            if error is not None and error is not _BEHIND:
                self.undelivered(report, error, _LATER)
            if error is not None and not error.refused:
                stuck.add(report.uri)
            else:
                self.stuck(spool.forget(self.machine, kept))
            if report in unkept and error is not None:
                self.failures.append(error)
        for report in reports:
            if report not in found:
                self.lost(report, unkept[report] or "it was kept, and is not there any more", stuck)

    def lost(self, report: OutgoingReport, why: str, stuck: set[str]) -> None:
        """Send a report of this run that is missing in the spool, unless older ones wait before it."""
        if report.uri in stuck:
            self.failures.append(_BEHIND)
            self.add_notice("report-undelivered", f"{shown(report.uri)}: {_BEHIND.saw}; {why}")
        else:
            self.directly(report, why)

    def directly(self, report: OutgoingReport, unkept: str | None = None) -> None:
        """Send without the spool; keep the report there when it does not arrive, unless there is a reason not to."""
        error = self.attempt(report, self.context())
        if error is not None:
            self.failures.append(error)
            self.undelivered(report, error, unkept or (not error.refused and self.keep(report)) or _LATER)

    def context(self, kept: spool.SpooledReport | None = None) -> DeliveryContext:
        """Return the context for this run's report, or for a waiting report of another sink.

        A token is only for the sinks that it was named with: this run's token is never sent to another, file or not.
        """
        wanted = self.wanted
        if kept is None or kept.uri in wanted.report_to:
            return DeliveryContext(
                self.machine, 0.0, self.environ, wanted.report_ca, wanted.report_token_file, self.hurried
            )
        others = {name: value for name, value in self.environ.items() if name != TOKEN}
        return DeliveryContext(self.machine, 0.0, others, kept.ca, kept.token_file, self.hurried)

    def attempt(self, report: OutgoingReport, context: DeliveryContext) -> UndeliveredError | None:
        """Send; return why it did not arrive, None when it did."""
        limit, now = HURRY if self.hurried else LIMIT, self.machine.monotonic()
        ends = self.ends.setdefault(report.uri, now + limit)
        if report.uri not in self.wanted.report_to:
            if self.others_end is None:
                self.others_end = now + _OTHERS * limit
            ends = min(ends, self.others_end)
            if now >= ends:
                return UndeliveredError("the time for deliveries ran out")
        try:
            send(report, replace(context, ends=ends))
        except UndeliveredError as error:
            return error
        except AgentError as error:
            return UndeliveredError(error.saw or error.sentence)
        except Exception as crash:  # noqa: BLE001 -- a defect, or a report of another version
            # without the text of the exception, which may contain a URL's secrets
            frames = "".join(traceback.format_tb(crash.__traceback__))
            logging.getLogger("agent").error("%s in a delivery\n%s", type(crash).__name__, frames)  # noqa: TRY400
            return UndeliveredError(f"the agent failed ({type(crash).__name__})", refused=True)
        return None

    def keep(self, report: OutgoingReport) -> str | None:
        """Write a report to the spool; return None, or why it could not be kept."""
        try:
            dropped = spool.keep(
                self.machine, report.uri, report.document, report.key,
                token_file=self.wanted.report_token_file, ca=self.wanted.report_ca,
            )  # fmt: skip
        except AgentError as error:
            return f"it could not be kept either: {error.saw or error.sentence}"
        if dropped:
            text = f"{dropped} of the oldest undelivered reports made room: {spool.MOST} are kept at most"
            self.add_notice("report-dropped", text)
        return None

    def waiting(self) -> tuple[spool.SpooledReport, ...]:
        try:
            waiting = spool.waiting(self.machine)
        except AgentError as error:
            self.add_notice("report-dropped", f"what waits to be delivered could not be read: {error.saw}")
            return ()
        if waiting.damaged:
            self.add_notice(
                "report-dropped",
                f"of the reports that wait {waiting.damaged} could not be read, and are gone",
            )
        if waiting.foreign:
            text = f"{waiting.foreign} came here with a copy of another host, which delivers them itself, and are gone"
            self.add_notice("report-dropped", f"of the reports that wait {text}")
        self.stuck(*waiting.stuck)
        return waiting.kept

    def stuck(self, *reasons: str | None) -> None:
        """Report for the first files that should be removed, or read, why they are not."""
        found = [each for each in reasons if each is not None]
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        for number, each in enumerate(found[:_NAMED]):
            self.add_notice("report-stuck", each + (more if number == _NAMED - 1 else ""))

    def undelivered(self, report: OutgoingReport, error: UndeliveredError, kept: str) -> None:
        where = f"{shown(report.uri)}: {error.saw}"
        if error.refused:
            self.add_notice(
                "report-refused", f"{where}; the report of run {report.tree['run_id']} is not kept"
            )
        else:
            self.add_notice("report-undelivered", f"{where}; {kept}")

    def add_notice(self, code: str, text: str) -> None:
        self.notices.append(Notice(code, cut(printable(text), LONGEST[0])))
