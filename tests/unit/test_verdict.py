"""Lines -> verdict: which failure decides, what is only degraded, and that every line has its place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.codes import CODES
from agent.core.model import RunOutcome, StepOutcome, StepResult
from agent.engine import EngineResult
from agent.verdict import judge

MET, FAILED, SKIPPED = StepOutcome.MET, StepOutcome.FAILED, StepOutcome.SKIPPED


def ended(
    *lines: StepResult, undone: tuple[StepResult, ...] = (), stopped: StepResult | None = None
) -> tuple[RunOutcome, str | None, int, str | None]:
    judged = judge(EngineResult(lines, undone=undone, stopped=stopped))
    return judged.outcome, judged.code, judged.exit_status, judged.cause


def failed(name: str, code: str) -> StepResult:
    return StepResult(name, FAILED, "saw", "want", code, "hint")


def test_all_met_is_ok() -> None:
    assert ended(StepResult("a", MET), StepResult("b", StepOutcome.CHANGED)) == (RunOutcome.OK, None, 0, None)


def test_nothing_at_all_is_ok() -> None:
    assert ended() == (RunOutcome.OK, None, 0, None)


def test_the_first_failure_in_the_plans_order_decides() -> None:
    lines = (failed("package:cli", "package-locked"), failed("reach:1:2223", "hsm-timed-out"))
    assert ended(*lines) == (RunOutcome.FAILED, "package-locked", 22, None)


def test_a_failure_matters_more_than_drift() -> None:
    lines = (StepResult("configure:cli", StepOutcome.WOULD_CHANGE), failed("reach:1:2223", "hsm-refused"))
    assert ended(*lines) == (RunOutcome.FAILED, "hsm-refused", 40, None)


def test_a_missing_hsm_matters_more_than_drift() -> None:
    lines = (
        StepResult("configure:pkcs11", StepOutcome.WOULD_CHANGE), StepResult("reach:1:2223", MET), failed("reach:2:2223", "hsm-refused"),
    )  # fmt: skip
    assert ended(*lines, StepResult("client:hsm-info", MET)) == (
        RunOutcome.DEGRADED,
        "hsm-degraded",
        41,
        None,
    )


def test_without_its_proof_a_host_is_not_even_degraded() -> None:
    lines = (
        StepResult("configure:cli", StepOutcome.WOULD_CHANGE), StepResult("reach:1:2223", MET), failed("reach:2:2223", "hsm-refused"),
    )  # fmt: skip
    assert ended(*lines, StepResult("client:hsm-info", SKIPPED)) == (
        RunOutcome.FAILED,
        "hsm-degraded",
        41,
        None,
    )


def test_what_was_not_checked_is_not_proven() -> None:
    lines = (StepResult("reach:1:2223", MET), StepResult("client:hsm-info", SKIPPED))
    assert ended(*lines) == (RunOutcome.FAILED, "internal", 1, None)
    failure = judge(EngineResult(lines)).failure
    assert failure is not None
    assert failure.saw == "client:hsm-info was not checked"


def test_one_hsm_of_two_is_degraded() -> None:
    lines = (
        StepResult("reach:1:2223", MET),
        failed("reach:2:2223", "hsm-timed-out"),
        StepResult("client:hsm-info", MET),
    )
    assert ended(*lines) == (RunOutcome.DEGRADED, "hsm-degraded", 41, None)
    failure = judge(EngineResult(lines)).failure
    assert failure is not None
    assert failure.hint == "hint"


def test_fewer_answers_than_asked_for_is_degraded() -> None:
    line = StepResult("client:hsm-info", MET, "1 of 2 HSMs answer", code="hsm-degraded")
    assert ended(StepResult("reach:1:2223", MET), line) == (RunOutcome.DEGRADED, "hsm-degraded", 41, None)


def test_a_client_that_fails_decides_though_an_hsm_is_reached() -> None:
    lines = (
        StepResult("reach:1:2223", MET), failed("reach:2:2223", "hsm-timed-out"), failed("client:hsm-info", "client-hung"),
    )  # fmt: skip
    assert ended(*lines) == (RunOutcome.FAILED, "client-hung", 42, None)


def test_what_was_undone_is_rolled_back_with_its_cause() -> None:
    undone = (StepResult("certificate", StepOutcome.UNDONE),)
    assert ended(failed("client:hsm-info", "client-tls-failed"), undone=undone) == (
        RunOutcome.ROLLED_BACK, "rolled-back", 51, "client-tls-failed",
    )  # fmt: skip


def test_an_interrupt_is_told_as_one_also_when_it_was_undone() -> None:
    undone = (StepResult("certificate", StepOutcome.UNDONE),)
    cut = failed("client:hsm-info", "interrupted")
    assert ended(cut, undone=undone, stopped=cut) == (
        RunOutcome.ROLLED_BACK,
        "interrupted",
        130,
        "interrupted",
    )


def test_an_undo_that_failed_is_the_worst() -> None:
    undone = (StepResult("certificate", StepOutcome.UNDONE), failed("configure:cli", "rollback-failed"))
    assert ended(failed("client:hsm-info", "client-tls-failed"), undone=undone) == (
        RunOutcome.FAILED, "rollback-failed", 52, "client-tls-failed",
    )  # fmt: skip


def test_a_rollback_that_failed_is_told() -> None:
    assert ended(failed("certificate", "rollback-failed")) == (RunOutcome.FAILED, "rollback-failed", 52, None)


lines_of_any_kind = st.lists(
    st.builds(
        StepResult,
        st.sampled_from(
            ["package:cli", "certificate", "configure:cli", "reach:1:2223", "reach:2:2223", "client:hsm-info"]
        ),
        st.sampled_from([MET, FAILED, SKIPPED, StepOutcome.CHANGED, StepOutcome.WOULD_CHANGE]),
        st.just("saw"),
        st.just("want"),
        st.sampled_from(sorted(CODES)),
    ).map(
        lambda line: (
            line if line.outcome is FAILED else StepResult(line.id, line.outcome, line.saw, line.want)
        )
    ),
    max_size=8,
)


@given(lines_of_any_kind)
def test_zero_means_that_all_was_looked_at_and_is_as_wanted(lines: list[StepResult]) -> None:
    judged = judge(EngineResult(tuple(lines)))
    bad = [line for line in lines if line.outcome in (FAILED, SKIPPED, StepOutcome.WOULD_CHANGE)]
    assert (judged.exit_status == 0) == (not bad)
    assert (judged.failure is None) == (not bad)
    assert judged.code is None or judged.exit_status == CODES[judged.code].exit_status
    if judged.outcome in (RunOutcome.OK, RunOutcome.DEGRADED):
        assert all(line.outcome is not SKIPPED for line in lines)


undone_lines = st.lists(
    st.sampled_from(
        [StepResult("certificate", StepOutcome.UNDONE), StepResult("configure:cli", StepOutcome.UNDONE)]
    ),
    max_size=2,
)


@given(
    lines=lines_of_any_kind,
    undone=undone_lines,
    stopped=st.sampled_from([None, ("interrupted", 130), ("timed-out", 75)]),
    at=st.integers(0, 8),
)
def test_a_walk_that_was_stopped_or_undone_is_told_so_whatever_else_its_lines_say(
    lines: list[StepResult], undone: list[StepResult], stopped: tuple[str, int] | None, at: int
) -> None:
    cut = failed("reach:2:2223", stopped[0]) if stopped else None
    walk = EngineResult(
        (*lines[:at], *([cut] if cut else []), *lines[at:]), undone=tuple(undone), stopped=cut
    )
    judged = judge(walk)
    if stopped is not None:
        assert (judged.code, judged.exit_status) == stopped
    if undone:
        assert judged.outcome is RunOutcome.ROLLED_BACK
        assert judged.cause is not None
        assert judged.exit_status in (51, 75, 130)
    elif stopped is not None:
        assert judged.outcome is RunOutcome.FAILED


def test_an_undo_that_failed_is_worse_than_that_the_run_was_stopped() -> None:
    cut = failed("client:hsm-info", "interrupted")
    undone = (failed("configure:cli", "rollback-failed"),)
    assert ended(cut, undone=undone, stopped=cut) == (RunOutcome.FAILED, "rollback-failed", 52, "interrupted")
