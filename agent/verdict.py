"""A walk -> outcome, code, exit status. Pure; how the walk ended comes first, then the first failed line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.core.errors import CODES
from agent.core.words import Failure, Outcome, Verdict

if TYPE_CHECKING:
    from agent.core.words import Line
    from agent.engine import Walk


@dataclass(frozen=True)
class Judgement:
    """`cause` is set when the run was undone: the code that would have been its own."""

    outcome: Verdict
    code: str | None
    exit_status: int
    cause: str | None = None
    failure: Failure | None = None


def judge(walk: Walk) -> Judgement:
    """Judge a walk.

    That it was undone or stopped is a fact of the walk, and comes before all that its lines say. Then the first line
    that failed decides: an HSM that is not reached while another is makes a run degraded, any other failure makes it
    failed. A step that would change is drift only when nothing failed: what is broken now matters more than what
    differs. What was not looked at is proven by nothing, so neither success nor degraded is said of it.
    """
    missing = _missing(walk)
    failed = [line for line in walk.lines if line.outcome is Outcome.FAILED and line not in missing]
    cause = walk.stopped or next(iter([*failed, *missing]), None)
    if walk.undone:
        return _undone(walk, cause or walk.undone[0])
    if walk.stopped is not None:
        return _ended(Verdict.FAILED, walk.stopped)
    return _ended(Verdict.FAILED, failed[0]) if failed else _unbroken(walk, missing)


def _unbroken(walk: Walk, missing: list[Line]) -> Judgement:
    """Judge a walk in which nothing failed, but for HSMs that are missing."""
    unseen = next((line for line in walk.lines if line.outcome is Outcome.SKIPPED), None)
    if missing:
        return _ended(Verdict.FAILED if unseen else Verdict.DEGRADED, missing[0], "hsm-degraded")
    if any(line.outcome is Outcome.WOULD_CHANGE for line in walk.lines):
        drift = CODES["drift"]
        failure = Failure("drift", drift.meaning, "", "", drift.fix)
        return Judgement(Verdict.DRIFT, "drift", drift.exit_status, failure=failure)
    if unseen is not None:
        return _ended(Verdict.FAILED, replace(unseen, saw=f"{unseen.id} was not looked at"), "internal")
    return Judgement(Verdict.OK, None, 0)


def _missing(walk: Walk) -> list[Line]:
    """Return the lines that say that HSMs are missing while others are there: not reached, or silent to the client."""
    reaches = [line for line in walk.lines if line.id.startswith("reach:")]
    some_reached = any(line.outcome is Outcome.MET for line in reaches)
    unreached = [line for line in reaches if line.outcome is Outcome.FAILED and some_reached]
    return [
        *unreached,
        *(line for line in walk.lines if line.code == "hsm-degraded" and line not in unreached),
    ]


def _undone(walk: Walk, cause: Line) -> Judgement:
    broken = next((line for line in walk.undone if line.outcome is Outcome.FAILED), None)
    code = cause.code or "internal"
    if broken is not None:
        ended = _ended(Verdict.FAILED, broken, "rollback-failed")
    else:
        # that the run was stopped is what its caller has to know; that it was undone, its outcome says
        ended = _ended(Verdict.ROLLED_BACK, cause, code if walk.stopped else "rolled-back")
    return replace(ended, cause=code, failure=_failure(cause, code))


def _ended(outcome: Verdict, line: Line, code: str | None = None) -> Judgement:
    name = code or line.code or "internal"
    return Judgement(outcome, name, CODES[name].exit_status, failure=_failure(line, name))


def _failure(line: Line, code: str) -> Failure:
    known = CODES[code]
    return Failure(code, known.meaning, line.saw or "", line.want or "", line.hint or known.fix)
