"""What each place is given, whole: metrics, JUnit XML and an event, of reports that runs on a host in memory made.

`--update-golden` writes the files anew, to be read. contract/test_reporting.py has promtool judge the metrics.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.render.json_report import to_document, to_tree
from agent.sinks import cloudwatch, junit, prometheus
from agent.sinks.message import OutgoingReport
from tests.golden.held import hold
from tests.golden.runs import complaints, degraded, drift, each_for_another_reason, rolled_back, second_run

if TYPE_CHECKING:
    from agent.core.model import Report

FOLDER = Path(__file__).parent / "reports"
EMF = "cloudwatch:/hosts/cloudhsm/ip-10-0-1-12"
CASES = (second_run, degraded, drift, each_for_another_reason, rolled_back, complaints)
WRITERS: dict[str, Callable[[Report], str]] = {
    "prom": lambda report: prometheus.page(to_tree(report)),
    "xml": lambda report: junit.suite(to_tree(report)),
    "emf.json": lambda report: cloudwatch.line(OutgoingReport(EMF, to_document(report))),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_what_a_place_is_given_is_what_was_reviewed(
    case: Callable[[], Report], kind: str, pytestconfig: pytest.Config
) -> None:
    text = WRITERS[kind](case())
    path = FOLDER / f"{case.__name__}.{kind}"
    if pytestconfig.getoption("--update-golden"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def test_nothing_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{case.__name__}.{kind}" for case in CASES for kind in WRITERS
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_junit_is_well_formed_and_fails_when_the_run_does(case: Callable[[], Report]) -> None:
    report = case()
    suite = hold(junit.suite(to_tree(report)))
    # an HSM that is not reached is a failed step also where another one is
    assert (suite.attrib["failures"] == suite.attrib["errors"] == "0") == (report.exit_status == 0)


@given(said=st.text(st.characters(codec=None)), hint=st.text())
def test_whatever_a_program_said_the_documents_are_documents(said: str, hint: str) -> None:
    step = {
        "id": f"reach:{said}", "outcome": "failed", "saw": said, "want": hint, "code": "hsm-refused", "hint": hint,
        "seconds": 0.25,
    }  # fmt: skip
    tree = {
        "run_id": "20261123T000000Z-0000", "command": "verify", "agent_version": "1", "host": {"name": said},
        "steps": [step, {**step, "outcome": "skipped"}, {**step, "outcome": "met"}], "hsms": [], "ca": None,
        "outcome": "failed", "code": "hsm-refused", "failure": None, "exit_status": 40, "changed": False,
        "started": "2026-11-23T20:15:00Z", "finished": "2026-11-23T20:15:09Z",
    }  # fmt: skip
    hold(junit.suite(tree))
    samples = [
        line for line in prometheus.page(tree).split("\n") if line.startswith("hsm_agent_step_outcome")
    ]
    assert all(re.fullmatch(r'\w+\{step="(\\.|[^"\\\n])*",outcome="[a-z-]+"\} 1', line) for line in samples)
    assert len(samples) == 3
