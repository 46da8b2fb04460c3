"""A finished report goes to everybody it is for, after those that still wait; what does not arrive is kept."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

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

# For what one run delivers to one place, in seconds; and for a run that was interrupted and so is to end.
LIMIT = 60.0
HURRY = 10.0

_NAMED = 3  # of the files that are stuck
_LATER = "it is kept for the next run"
_BEHIND = UndeliveredError("older ones wait before it")


@dataclass(frozen=True)
class Delivered:
    """What became of it. `failed`: this very report did not reach everybody; older ones are only remarked on.

    `refused`: and whoever it did not reach will never take it, so that no later run sends it.
    """

    notices: tuple[Notice, ...]
    failed: bool
    refused: bool = False


def deliver(
    machine: Host, wanted: Desired, document: str, environ: Mapping[str, str], *, hurried: bool
) -> Delivered:
    """Deliver a report to every place of `wanted`, and as root what waits for any place. Raises nothing.

    As root it is first written to the spool and only then sent: a run that is killed meanwhile loses nothing, and
    what the next run then sends again has the key of the first attempt.
    """
    letters = tuple(OutgoingReport(uri, document) for uri in wanted.report_to)
    this = _DeliveryPass(machine, wanted, environ, hurried=hurried)
    if not machine.is_root():
        for letter in letters:
            this.directly(letter, "it is not kept, since that needs root")
        return this.ended()
    try:
        with machine.lock(machine.system.delivery_lock, "hsm-agent, delivering reports"):
            this.in_order(letters)
    except AgentError as error:  # another run is delivering just now, or there can be no lock
        logging.getLogger("agent").info("what waits is left alone: %s", error.saw)
        for letter in letters:
            this.directly(letter)
    return this.ended()


@dataclass
class _DeliveryPass:
    """The deliveries of one run. `ends` is until when each place may take, by its URI."""

    machine: Host
    wanted: Desired
    environ: Mapping[str, str]
    hurried: bool
    ends: dict[str, float] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    failures: list[UndeliveredError] = field(default_factory=list)

    def ended(self) -> Delivered:
        for notice in self.notices:
            logging.getLogger("agent").warning("%s: %s", notice.code, notice.text)
        failed = bool(self.failures)
        return Delivered(tuple(self.notices), failed, failed and all(each.refused for each in self.failures))

    def in_order(self, letters: tuple[OutgoingReport, ...]) -> None:
        """Send what waits and then the new letters; where one does not arrive, those behind it wait with it."""
        unkept = {letter: self.keep(letter) for letter in letters}
        stuck: set[str] = set()
        found: set[OutgoingReport] = set()
        for kept in self.waiting():
            letter = OutgoingReport(kept.uri, kept.document)
            found.add(letter)
            error = _BEHIND if letter.uri in stuck else self.attempt(letter, self.means(kept))
            if error is not None and error is not _BEHIND:
                self.undelivered(letter, error, _LATER)
            if error is not None and not error.refused:
                stuck.add(letter.uri)
            else:
                self.stuck(spool.forget(self.machine, kept))
            if letter in unkept and error is not None:
                self.failures.append(error)
        for letter in letters:
            if letter not in found:
                self.lost(letter, unkept[letter] or "it was kept, and is not there any more", stuck)

    def lost(self, letter: OutgoingReport, why: str, stuck: set[str]) -> None:
        """Send a report of this run that is not among what waits, unless older ones wait before it."""
        if letter.uri in stuck:
            self.failures.append(_BEHIND)
            self.tell("report-undelivered", f"{shown(letter.uri)}: {_BEHIND.saw}; {why}")
        else:
            self.directly(letter, why)

    def directly(self, letter: OutgoingReport, unkept: str | None = None) -> None:
        """Send without looking at what waits; keep it when it does not arrive, unless there is a reason not to."""
        error = self.attempt(letter, self.means())
        if error is not None:
            self.failures.append(error)
            self.undelivered(letter, error, unkept or (not error.refused and self.keep(letter)) or _LATER)

    def means(self, kept: spool.SpooledReport | None = None) -> DeliveryContext:
        """Return what the delivery of this run's report may use, or that of one which waited for another place.

        A token is for the receivers that it was named with: this run's is for no other, in a file or not.
        """
        wanted = self.wanted
        if kept is None or kept.uri in wanted.report_to:
            return DeliveryContext(
                self.machine, 0.0, self.environ, wanted.report_ca, wanted.report_token_file, self.hurried
            )
        others = {name: value for name, value in self.environ.items() if name != TOKEN}
        return DeliveryContext(self.machine, 0.0, others, kept.ca, kept.token_file, self.hurried)

    def attempt(self, letter: OutgoingReport, means: DeliveryContext) -> UndeliveredError | None:
        """Send, and return why it did not arrive; None when it did."""
        limit = HURRY if self.hurried else LIMIT
        ends = self.ends.setdefault(letter.uri, self.machine.monotonic() + limit)
        try:
            send(letter, replace(means, ends=ends))
        except UndeliveredError as error:
            return error
        except AgentError as error:
            return UndeliveredError(error.saw or error.sentence)
        except Exception as crash:  # noqa: BLE001 -- a defect, or a report of another version; the others still go
            # without the exception's own words, which may hold a URL's secrets
            frames = "".join(traceback.format_tb(crash.__traceback__))
            logging.getLogger("agent").error("%s in a delivery\n%s", type(crash).__name__, frames)  # noqa: TRY400
            return UndeliveredError(f"the agent failed ({type(crash).__name__})", refused=True)
        return None

    def keep(self, letter: OutgoingReport) -> str | None:
        """Put a letter into the spool; return None, or why it is not there."""
        try:
            dropped = spool.keep(
                self.machine, letter.uri, letter.document, letter.key,
                token_file=self.wanted.report_token_file, ca=self.wanted.report_ca,
            )  # fmt: skip
        except AgentError as error:
            return f"it could not be kept either: {error.saw or error.sentence}"
        if dropped:
            text = f"{dropped} of the oldest undelivered reports made room: {spool.MOST} are kept at most"
            self.tell("report-dropped", text)
        return None

    def waiting(self) -> tuple[spool.SpooledReport, ...]:
        try:
            waiting = spool.waiting(self.machine)
        except AgentError as error:
            self.tell("report-dropped", f"what waits to be delivered could not be read: {error.saw}")
            return ()
        if waiting.damaged:
            self.tell(
                "report-dropped",
                f"of the reports that wait {waiting.damaged} could not be read, and are gone",
            )
        if waiting.foreign:
            text = f"{waiting.foreign} came here with a copy of another host, which delivers them itself, and are gone"
            self.tell("report-dropped", f"of the reports that wait {text}")
        self.stuck(*waiting.stuck)
        return waiting.kept

    def stuck(self, *reasons: str | None) -> None:
        """Say of the first files that should be gone, or read, why they are not."""
        said = [each for each in reasons if each is not None]
        more = f"; and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
        for number, each in enumerate(said[:_NAMED]):
            self.tell("report-stuck", each + (more if number == _NAMED - 1 else ""))

    def undelivered(self, letter: OutgoingReport, error: UndeliveredError, kept: str) -> None:
        where = f"{shown(letter.uri)}: {error.saw}"
        if error.refused:
            self.tell("report-refused", f"{where}; the report of run {letter.tree['run_id']} is not kept")
        else:
            self.tell("report-undelivered", f"{where}; {kept}")

    def tell(self, code: str, text: str) -> None:
        self.notices.append(Notice(code, cut(printable(text), LONGEST[0])))
