"""Apply a plan to a host: check, change, check again. A step is done only when the second check agrees."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Callable, Protocol

from agent.core.codes import CODES
from agent.core.errors import AgentError, unexpected
from agent.core.model import Finding, Notice, StepOutcome, StepResult

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.core.host import Host, HostView
    from agent.core.model import Guard, Plan, Probe, Step, Value

# as many HSMs as a cluster may have, at the same time
_AT_ONCE = 28


class Listener(Protocol):
    """What shows the progress of a run."""

    def began(self, line_id: str, *, changing: bool) -> None:
        """A check of a step begins, or, with `changing`, its change."""

    def ended(self, line: StepResult) -> None:
        """A line of the report is final."""


class Restorable(Protocol):
    """What can be put back. Its host is bound neither by the run's time limit nor by an interrupt."""

    def save(self, *, worked: bool) -> None:
        """Keep what a failed run could break, and whether it worked; called once, before the first change."""

    def restore(self) -> tuple[StepResult, ...]:
        """Put back what differs from what was saved: one `undone` or `failed` line for each file that did."""


@dataclass(frozen=True)
class EngineResult:
    """The lines of a run, what was learned beside them, and how it ended.

    `undone` is what was put back, `stopped` the check or change at which the run was stopped: both are empty for a plan
    that was executed to its end. `unproven` is the step that was changed, but whose second check was cut short.
    """

    steps: tuple[StepResult, ...]
    notices: tuple[Notice, ...] = ()
    undone: tuple[StepResult, ...] = ()
    stopped: StepResult | None = None
    unproven: str | None = None

    @property
    def changed(self) -> bool:
        """Whether the run changed the host: something was changed and not put back, or was put back."""
        back = {line.id for line in self.undone if line.outcome is StepOutcome.UNDONE}
        return any(
            line.outcome is StepOutcome.UNDONE
            or ((line.outcome is StepOutcome.CHANGED or line.id == self.unproven) and line.id not in back)
            for line in self.steps
        )


def check_plan(plan: Plan, view: HostView, listener: Listener) -> EngineResult:
    """Check everything in the plan and change nothing; what is not met would be changed."""
    execution = _Execution(view, listener)
    execution.check_guards(plan.guards)
    for step in plan.steps:
        finding = execution.check(step)
        execution.add(
            finding
            if isinstance(finding, StepResult)
            else execution.result_of(step, finding, StepOutcome.WOULD_CHANGE)
        )
    execution.probe(plan.probes)
    return execution.result()


def apply_plan(plan: Plan, host: Host, listener: Listener, undo: Restorable) -> EngineResult:
    """Bring about what the plan wants.

    Every guard and every step is checked before the first change, so a refusal costs the host nothing. When a step
    fails the rest are skipped. When the run fails after a change, on a host whose previous configuration worked, that
    one is put back; and so it is when HSMs took the place of others and fewer of them answer now.
    """
    execution = _Execution(host, listener)
    execution.check_guards(plan.guards)
    first = [execution.check(step) for step in plan.steps]
    refusals = [found for found in first if isinstance(found, StepResult)]
    refused = execution.broken or (refusals[0].id if refusals else None)
    if refused is not None:
        execution.skip_beside_refusals(plan.steps, first, refused)
        execution.probe(plan.probes)
        return execution.result()
    findings = [found for found in first if isinstance(found, Finding)]
    works: Finding | None = None
    if not all(finding.met for finding in findings):
        works = execution.baseline_finding(plan.baseline) if plan.baseline is not None else None
        if not execution.saved(plan.steps, findings, undo, worked=works is not None):
            execution.probe(plan.probes)
            return execution.result()
    execution.apply_steps(plan.steps, host, findings)
    execution.probe(plan.probes)
    if works is not None and (execution.needs_rollback(plan) or execution.is_worse(plan, works)):
        return execution.result(execution.undo(undo, plan))
    return execution.result()


class _Execution:
    """A plan while it is executed: the lines so far, the first that failed, and where the run was stopped."""

    def __init__(self, view: HostView, listener: Listener) -> None:
        self.view = view
        self.listener = listener
        self.lines: list[StepResult] = []
        self.notices: list[Notice] = []
        self.broken: str | None = None
        self.stopped: StepResult | None = None
        self.has_changed = False
        self.unproven: str | None = None

    def add(self, line: StepResult) -> None:
        self.lines.append(line)
        self.listener.ended(line)
        if line.outcome is StepOutcome.FAILED and self.broken is None:
            self.broken = line.id

    def result(self, undone: tuple[StepResult, ...] = ()) -> EngineResult:
        notices = tuple(dict.fromkeys(self.notices))
        return EngineResult(tuple(self.lines), notices, undone, self.stopped, self.unproven)

    def check(self, step: Step) -> Finding | StepResult:
        """Check a step; a refusal is returned as the line it will be."""
        if self.stopped:
            return StepResult(step.id, StepOutcome.SKIPPED, hint="the run ended before this")
        self.listener.began(step.id, changing=False)
        return self._guarded_check(step.id, lambda: step.check(self.view))

    def check_guards(self, guards: tuple[Guard, ...]) -> None:
        """Check what must hold before the first change. What is wrong with one does not excuse the others."""
        for guard in guards:
            self.listener.began(guard.id, changing=False)
            line, finding = self._check_once(guard)
            self.notices.extend(finding.notices if finding else ())
            self.add(line)

    def result_of(
        self, step: Step, finding: Finding, otherwise: StepOutcome, *, needs: str | None = None
    ) -> StepResult:
        """Return the line of a step that was only checked: met, or else `otherwise`."""
        self.notices.extend(finding.notices)
        if finding.met:
            return _line(step.id, StepOutcome.MET, finding)
        return _line(step.id, otherwise, finding, hint=f"needs {needs}" if needs else None)

    def skip_beside_refusals(
        self, steps: tuple[Step, ...], first: list[Finding | StepResult], refused: str
    ) -> None:
        """Report each refusal, and beside it what the other steps would have done."""
        for step, found in zip(steps, first):
            self.add(
                found
                if isinstance(found, StepResult)
                else self.result_of(step, found, StepOutcome.SKIPPED, needs=refused)
            )

    def saved(
        self, steps: tuple[Step, ...], findings: list[Finding], undo: Restorable, *, worked: bool
    ) -> bool:
        """Save what could be broken. When that fails nothing may be changed: the first unmet step has the cause."""
        try:
            undo.save(worked=worked)
        except AgentError as error:
            for step, finding in zip(steps, findings):
                unmet_first = not finding.met and self.broken is None
                self.add(
                    StepResult(
                        step.id,
                        StepOutcome.FAILED,
                        error.saw,
                        error.want or None,
                        error.code.name,
                        error.hint,
                    )
                    if unmet_first
                    else self.result_of(step, finding, StepOutcome.SKIPPED, needs=self.broken)
                )
            return False
        return True

    def apply_steps(self, steps: tuple[Step, ...], host: Host, findings: list[Finding]) -> None:
        """Apply the steps in order. The first findings hold until the first change; then each step is checked again."""
        for step, finding in zip(steps, findings):
            if self.broken is None:
                self.add(self._apply_step(step, host, finding))
                continue
            # Only checked from here on: what is met all the same is worth knowing, and probes may need it.
            needs = self.broken
            now = self.check(step)
            self.add(
                now
                if isinstance(now, StepResult)
                else self.result_of(step, now, StepOutcome.SKIPPED, needs=needs)
            )

    def _apply_step(self, step: Step, host: Host, finding: Finding) -> StepResult:
        began = self.view.monotonic()
        before = self._guarded_check(step.id, lambda: step.check(self.view)) if self.has_changed else finding
        if isinstance(before, StepResult):
            return before
        if before.met:
            return self.result_of(step, before, StepOutcome.MET)
        self.listener.began(step.id, changing=True)
        self.has_changed = True

        def change() -> Finding:
            self.view.sleep(0)  # an interrupt, and the run's limit, count between two changes at the latest
            self.notices.extend(step.apply(host) or ())
            self.unproven = step.id
            finding = step.check(self.view)
            self.unproven = None
            return finding

        after = self._guarded_check(step.id, change, saw=before.saw)
        if isinstance(after, StepResult):
            return replace(after, detail=before.detail)
        self.notices.extend((*before.notices, *after.notices))
        seconds = self.view.monotonic() - began
        if after.met:
            return StepResult(
                step.id, StepOutcome.CHANGED, before.saw, before.want, seconds=seconds, detail=after.detail
            )
        code = CODES[after.code or step.not_applied_code]
        hint = after.hint or code.fix
        return StepResult(
            step.id, StepOutcome.FAILED, after.saw, after.want, code.name, hint, seconds, after.detail
        )

    def probe(self, probes: tuple[Probe, ...]) -> None:
        """Check the probes in order; those that require the same are checked at the same time."""
        rest = list(probes)
        while rest:
            together = [probe for probe in rest if probe.requires == rest[0].requires]
            rest = [probe for probe in rest if probe.requires != together[0].requires]
            lacking = self._unmet_requirement(together[0].requires)
            if self.stopped or lacking is not None:
                for probe in together:
                    needs = f"needs {probe.depends_on}" if probe.depends_on else lacking
                    hint = "the run ended before this" if self.stopped else needs
                    self.add(StepResult(probe.id, StepOutcome.SKIPPED, hint=hint))
                continue
            for probe in together:
                self.listener.began(probe.id, changing=False)
            with ThreadPoolExecutor(min(len(together), _AT_ONCE)) as pool:
                checked: Iterator[tuple[StepResult, Finding | None]]
                try:
                    checked = pool.map(self._check_once, together)
                except RuntimeError:  # this machine allows no more threads: one after another
                    checked = map(self._check_once, together)
                for probe, (line, finding) in zip(together, checked):
                    self._report(probe, line, finding)

    def _report(self, probe: Probe, line: StepResult, finding: Finding | None) -> None:
        """Add the line of a probe; the consequence of another one's failure is not reported as a failure of its own."""
        lacking = self._unmet_requirement((probe.depends_on,)) if probe.depends_on else None
        if lacking is not None:
            self.add(StepResult(probe.id, StepOutcome.SKIPPED, hint=lacking))
            return
        self.notices.extend(finding.notices if finding else ())
        self.add(line)

    def baseline_finding(self, probe: Probe) -> Finding | None:
        """Return what shows that the present configuration works; None when it does not, or when that is in doubt."""
        self.listener.began(probe.id, changing=False)
        _, finding = self._check_once(probe)
        return finding if finding is not None and finding.met else None

    def needs_rollback(self, plan: Plan) -> bool:
        """Tell whether what the host was changed to does not work. An HSM that is not reached is not enough."""
        if not self.has_changed:
            return False
        reaching = {probe.id for probe in plan.probes if not probe.requires}
        return self.stopped is not None or any(
            line.outcome in (StepOutcome.FAILED, StepOutcome.SKIPPED)
            for line in self.lines
            if line.id not in reaching
        )

    def is_worse(self, plan: Plan, before: Finding) -> bool:
        """Tell whether fewer HSMs answer than before, since those that took the place of others do not answer."""
        if not self.has_changed:
            return False
        for line in self.lines:
            if plan.replaces and plan.baseline is not None and line.id == plan.baseline.id and line.code:
                return _answers(line.detail) < _answers(before.detail)
        return False

    def undo(self, undo: Restorable, plan: Plan) -> tuple[StepResult, ...]:
        undone = undo.restore()
        for line in undone:
            self.listener.ended(line)
        if undone and plan.baseline is not None:
            self.notices.append(self._check_restored(plan.baseline))
        return undone

    def _check_restored(self, probe: Probe) -> Notice:
        """Check what was put back. Where the run was stopped, or is meanwhile, nothing is said against it."""
        before = self.stopped
        again = None if before else self.baseline_finding(probe)
        if again is not None:
            return Notice("previous-works", "the configuration that was put back was checked, and works")
        cut, self.stopped = self.stopped, before
        if cut is not None:
            text = f"the configuration that was put back was not checked: {CODES[cut.code or ''].meaning}"
            return Notice("previous-unproven", text)
        return Notice("previous-silent", "the configuration that was put back does not work any more either")

    def _unmet_requirement(self, needs: tuple[str, ...]) -> str | None:
        good = [line.id for line in self.lines if line.outcome in (StepOutcome.MET, StepOutcome.CHANGED)]
        for need in needs:
            if not any(fnmatchcase(each, need) for each in good):
                return f"needs {need}"
        return None

    def _check_once(self, probe: Probe | Guard) -> tuple[StepResult, Finding | None]:
        began = self.view.monotonic()
        finding = self._guarded_check(probe.id, lambda: probe.check(self.view))
        if isinstance(finding, StepResult):
            return finding, None
        outcome = StepOutcome.MET if finding.met else StepOutcome.FAILED
        return _line(probe.id, outcome, finding, self.view.monotonic() - began), finding

    def _guarded_check(
        self, line_id: str, attempt: Callable[[], Finding], saw: str = ""
    ) -> Finding | StepResult:
        """Return what was found, or the failed line of what was raised; `saw` stands in when the error saw nothing.

        A defect of a step fails that step alone, with its traceback in the log: the undo must still come.
        """
        began = self.view.monotonic()
        try:
            return attempt()
        except AgentError as raised:
            error = raised
        except Exception as crash:
            logging.getLogger("agent").exception("%s failed", line_id)
            error = unexpected(crash)
        seconds = self.view.monotonic() - began
        seen = error.saw or saw or error.sentence
        line = StepResult(
            line_id, StepOutcome.FAILED, seen, error.want or None, error.code.name, error.hint, seconds
        )
        if error.ends_run and self.stopped is None:
            self.stopped = line
        return line


def _answers(detail: Mapping[str, Value]) -> int:
    """Return how many HSMs answered the client, 0 where that is not known."""
    found = detail.get("answers", 0)
    return found if isinstance(found, int) else 0


def _line(
    line_id: str, outcome: StepOutcome, finding: Finding, seconds: float = 0.0, *, hint: str | None = None
) -> StepResult:
    return StepResult(
        line_id,
        outcome,
        finding.saw,
        finding.want,
        finding.code,
        hint or finding.hint,
        seconds,
        finding.detail,
    )
