"""Lines of a run -> outcome, code, exit status. Pure; the first failed line in the plan's order decides."""

from __future__ import annotations

from dataclasses import dataclass
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

    An HSM that is not reached while another is makes a run degraded, not failed. A step that would change is drift
    only when nothing failed: what is broken now matters more than what differs.
    """
    reaches = [line for line in walk.lines if line.id.startswith("reach:")]
    some_reached = any(line.outcome is Outcome.MET for line in reaches)
    failed = [
        line
        for line in walk.lines
        if line.outcome is Outcome.FAILED and not (some_reached and line in reaches)
    ]
    first = next(iter(failed), None)
    if first is not None and walk.undone:
        return _undone(first, walk.undone)
    if first is not None:
        return _ended(Verdict.FAILED, first)
    if any(line.outcome is Outcome.WOULD_CHANGE for line in walk.lines):
        drift = CODES["drift"]
        failure = Failure("drift", drift.meaning, "", "", drift.fix)
        return Judgement(Verdict.DRIFT, "drift", drift.exit_status, failure=failure)
    degraded = next((line for line in reaches if line.outcome is Outcome.FAILED), None) or next(
        (line for line in walk.lines if line.code == "hsm-degraded"), None
    )
    if degraded is not None:
        return _ended(Verdict.DEGRADED, degraded, "hsm-degraded")
    return Judgement(Verdict.OK, None, 0)


def _undone(first: Line, undone: tuple[Line, ...]) -> Judgement:
    broken = next((line for line in undone if line.outcome is Outcome.FAILED), None)
    # that the run was interrupted is what its caller has to know; that it was undone, its outcome says
    undone_as = "interrupted" if first.code == "interrupted" else "rolled-back"
    code = "rollback-failed" if broken else undone_as
    verdict = Verdict.FAILED if broken else Verdict.ROLLED_BACK
    ended = _ended(verdict, broken or first, code)
    return Judgement(verdict, code, ended.exit_status, first.code, _failure(first, first.code or "internal"))


def _ended(outcome: Verdict, line: Line, code: str | None = None) -> Judgement:
    name = code or line.code or "internal"
    return Judgement(outcome, name, CODES[name].exit_status, failure=_failure(line, name))


def _failure(line: Line, code: str) -> Failure:
    known = CODES[code]
    return Failure(code, known.meaning, line.saw or "", line.want or "", line.hint or known.fix)
