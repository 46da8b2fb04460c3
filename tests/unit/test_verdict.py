"""Lines -> verdict: which failure decides, what is only degraded, and that every line has its place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import CODES
from agent.core.words import Line, Outcome, Verdict
from agent.engine import Walk
from agent.verdict import judge

MET, FAILED, SKIPPED = Outcome.MET, Outcome.FAILED, Outcome.SKIPPED


def ended(*lines: Line, undone: tuple[Line, ...] = ()) -> tuple[Verdict, str | None, int, str | None]:
    judged = judge(Walk(lines, undone=undone))
    return judged.outcome, judged.code, judged.exit_status, judged.cause


def failed(name: str, code: str) -> Line:
    return Line(name, FAILED, "saw", "want", code, "hint")


def test_all_met_is_ok() -> None:
    assert ended(Line("a", MET), Line("b", Outcome.CHANGED)) == (Verdict.OK, None, 0, None)


def test_nothing_at_all_is_ok() -> None:
    assert ended() == (Verdict.OK, None, 0, None)


def test_the_first_failure_in_the_plans_order_decides() -> None:
    lines = (failed("package:cli", "package-locked"), failed("reach:1:2223", "hsm-timed-out"))
    assert ended(*lines) == (Verdict.FAILED, "package-locked", 22, None)


def test_a_failure_matters_more_than_drift() -> None:
    lines = (Line("configure:cli", Outcome.WOULD_CHANGE), failed("reach:1:2223", "hsm-refused"))
    assert ended(*lines) == (Verdict.FAILED, "hsm-refused", 40, None)


def test_drift_matters_more_than_a_missing_hsm() -> None:
    lines = (
        Line("configure:cli", Outcome.WOULD_CHANGE), Line("reach:1:2223", MET), failed("reach:2:2223", "hsm-refused"),
    )  # fmt: skip
    assert ended(*lines) == (Verdict.DRIFT, "drift", 3, None)


def test_one_hsm_of_two_is_degraded() -> None:
    lines = (Line("reach:1:2223", MET), failed("reach:2:2223", "hsm-timed-out"), Line("client:hsm-info", MET))
    assert ended(*lines) == (Verdict.DEGRADED, "hsm-degraded", 41, None)
    failure = judge(Walk(lines)).failure
    assert failure is not None
    assert failure.hint == "hint"


def test_fewer_answers_than_asked_for_is_degraded() -> None:
    line = Line("client:hsm-info", MET, "1 of 2 HSMs answer", code="hsm-degraded")
    assert ended(Line("reach:1:2223", MET), line) == (Verdict.DEGRADED, "hsm-degraded", 41, None)


def test_a_client_that_fails_decides_though_an_hsm_is_reached() -> None:
    lines = (
        Line("reach:1:2223", MET), failed("reach:2:2223", "hsm-timed-out"), failed("client:hsm-info", "client-hung"),
    )  # fmt: skip
    assert ended(*lines) == (Verdict.FAILED, "client-hung", 42, None)


def test_what_was_undone_is_rolled_back_with_its_cause() -> None:
    undone = (Line("certificate", Outcome.UNDONE),)
    assert ended(failed("client:hsm-info", "client-tls-failed"), undone=undone) == (
        Verdict.ROLLED_BACK, "rolled-back", 51, "client-tls-failed",
    )  # fmt: skip


def test_an_interrupt_is_told_as_one_also_when_it_was_undone() -> None:
    undone = (Line("certificate", Outcome.UNDONE),)
    assert ended(failed("client:hsm-info", "interrupted"), undone=undone) == (
        Verdict.ROLLED_BACK, "interrupted", 130, "interrupted",
    )  # fmt: skip


def test_an_undo_that_failed_is_the_worst() -> None:
    undone = (Line("certificate", Outcome.UNDONE), failed("configure:cli", "rollback-failed"))
    assert ended(failed("client:hsm-info", "client-tls-failed"), undone=undone) == (
        Verdict.FAILED, "rollback-failed", 52, "client-tls-failed",
    )  # fmt: skip


def test_a_rollback_that_failed_is_told() -> None:
    assert ended(failed("certificate", "rollback-failed")) == (Verdict.FAILED, "rollback-failed", 52, None)


lines_of_any_kind = st.lists(
    st.builds(
        Line,
        st.sampled_from(
            ["package:cli", "certificate", "configure:cli", "reach:1:2223", "reach:2:2223", "client:hsm-info"]
        ),
        st.sampled_from([MET, FAILED, SKIPPED, Outcome.CHANGED, Outcome.WOULD_CHANGE]),
        st.just("saw"),
        st.just("want"),
        st.sampled_from(sorted(CODES)),
    ).map(lambda line: line if line.outcome is FAILED else Line(line.id, line.outcome, line.saw, line.want)),
    max_size=8,
)


@given(lines_of_any_kind)
def test_zero_means_that_nothing_failed_and_nothing_would_change(lines: list[Line]) -> None:
    judged = judge(Walk(tuple(lines)))
    bad = [line for line in lines if line.outcome in (FAILED, Outcome.WOULD_CHANGE)]
    assert (judged.exit_status == 0) == (not bad)
    assert (judged.failure is None) == (not bad)
    assert judged.code is None or judged.exit_status == CODES[judged.code].exit_status
