"""The engine's result -> outcome, code, exit status. Pure; how a run ended comes before its first failed step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.core.codes import CODES
from agent.core.model import ErrorDetails, RunOutcome, StepOutcome

if TYPE_CHECKING:
    from agent.core.model import StepResult
    from agent.engine import EngineResult


@dataclass(frozen=True)
class RunVerdict:
    """`cause` is set when the run was undone: the code that would have been its own."""

    outcome: RunOutcome
    code: str | None
    exit_status: int
    cause: str | None = None
    failure: ErrorDetails | None = None


def judge(result: EngineResult) -> RunVerdict:
    """Judge how a plan ended.

    That it was undone or stopped comes before all that its lines say. Then the first line that failed decides: an HSM
    that is not reached while another is makes a run degraded, any other failure makes it failed. A step that would
    change is drift only when nothing failed: what is broken now matters more than what differs. What was not checked is
    proven by nothing, so the verdict is neither success nor degraded.
    """
    missing = _missing(result)
    failed = [line for line in result.steps if line.outcome is StepOutcome.FAILED and line not in missing]
    cause = result.stopped or next(iter([*failed, *missing]), None)
    if result.undone:
        return _undone(result, cause or result.undone[0])
    if result.stopped is not None:
        return _ended(RunOutcome.FAILED, result.stopped)
    return _ended(RunOutcome.FAILED, failed[0]) if failed else _unbroken(result, missing)


def _unbroken(result: EngineResult, missing: list[StepResult]) -> RunVerdict:
    """Judge a plan in which nothing failed, but for HSMs that are missing."""
    unchecked = next((line for line in result.steps if line.outcome is StepOutcome.SKIPPED), None)
    if missing:
        return _ended(RunOutcome.FAILED if unchecked else RunOutcome.DEGRADED, missing[0], "hsm-degraded")
    if any(line.outcome is StepOutcome.WOULD_CHANGE for line in result.steps):
        drift = CODES["drift"]
        failure = ErrorDetails("drift", drift.meaning, "", "", drift.fix)
        return RunVerdict(RunOutcome.DRIFT, "drift", drift.exit_status, failure=failure)
    if unchecked is not None:
        return _ended(
            RunOutcome.FAILED, replace(unchecked, saw=f"{unchecked.id} was not checked"), "internal"
        )
    return RunVerdict(RunOutcome.OK, None, 0)


def _missing(result: EngineResult) -> list[StepResult]:
    """Return the lines that say that HSMs are missing while others are there: not reached, or silent to the client."""
    reaches = [line for line in result.steps if line.kind == "reach"]
    some_reached = any(line.outcome is StepOutcome.MET for line in reaches)
    unreached = [line for line in reaches if line.outcome is StepOutcome.FAILED and some_reached]
    return [
        *unreached,
        *(line for line in result.steps if line.code == "hsm-degraded" and line not in unreached),
    ]


def _undone(result: EngineResult, cause: StepResult) -> RunVerdict:
    broken = next((line for line in result.undone if line.outcome is StepOutcome.FAILED), None)
    code = cause.code or "internal"
    if broken is not None:
        ended = _ended(RunOutcome.FAILED, broken, "rollback-failed")
    else:
        # that the run was stopped is what its caller has to know; that it was undone, its outcome says
        ended = _ended(RunOutcome.ROLLED_BACK, cause, code if result.stopped else "rolled-back")
    return replace(ended, cause=code, failure=_failure(cause, code))


def _ended(outcome: RunOutcome, line: StepResult, code: str | None = None) -> RunVerdict:
    name = code or line.code or "internal"
    return RunVerdict(outcome, name, CODES[name].exit_status, failure=_failure(line, name))


def _failure(line: StepResult, code: str) -> ErrorDetails:
    known = CODES[code]
    return ErrorDetails(code, known.meaning, line.saw or "", line.want or "", line.hint or known.fix)
