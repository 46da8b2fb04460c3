"""What holds whatever hosts, tools, processes and servers say: each way out of a report carries it, printable and bounded.

Reports are made by walking the dataclasses, so that a new field is hostile here on the day that it is added.
"""

from __future__ import annotations

import json
import logging
import re
import string
import xml.etree.ElementTree as ET
from collections.abc import Mapping as Mapped
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Optional, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent import log
from agent.core import model
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.host import ProcessInfo
from agent.core.model import HostIdentity, Report, RunOutcome
from agent.render import screen
from agent.render.fleet.html import page
from agent.render.json_report import schema, to_document, to_error_document, to_tree
from agent.render.schema_check import first_violation
from agent.sinks import cloudformation, cloudwatch, junit, prometheus, spool
from agent.sinks.message import OutgoingReport
from agent.state import records
from tests.examples import examples
from tests.fakes.fleets import fleet
from tests.fakes.memory import Memory
from tests.fakes.vendor import Vendor
from tests.golden.fleet_runs import ok
from tests.golden.runs import degraded
from tests.properties.worlds import configure, desired_of, machine_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# what no terminal, no file and no receiver may be given, each by itself and in the middle of a word
EVIL = (
    "\x1b[2J\x1b]0;owned\x07", "\udcff\udcfex", "\ud83d", "a\0b", "\x9b31m", "\x85", "\u202egnp.exe", "\u2066x\u2069",
    "one\u2028two\u2029three", "zero\u200bwidth\ufeff", "\r\ninjected: yes", "a\ttab", "\u00a0", "</testsuite>]]>&<!--",
    '"} 1\nhsm_agent_exit_status 0\n', "\\", "`'\"$(id)", "\U0001f600" * 3, "%s%n{0}", "", " ", "\n", "\n" * 50, "x" * 4_100,
    "\x1b" * 4_100, "\U0001f600" * 4_100, "\ufffe\uffff", "NaN",
)  # fmt: skip
NUMBERS = (0, -1, 2**31, 2**53, 2**64, -(2**200), 10**400)
FLOATS = (0.0, -1.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))

TEXTS = st.sampled_from(EVIL) | st.text(
    st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp"])
)


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Return hostile values of a type of the report's words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return st.one_of([values_of(each) for each in inside])
    if origin in _MADE:
        return _MADE[origin](inside)
    if isinstance(hint, type) and is_dataclass(hint):
        return st.builds(hint, **{name: values_of(each) for name, each in hints_of(hint).items()})
    if hint not in _PLAIN:
        assert issubclass(hint, Enum), f"this test knows no values of {hint}"
        return st.sampled_from(hint)
    return _PLAIN[hint]


def _lists(inside: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    few = st.lists(values_of(inside[0]), max_size=4)
    return (few | few | few | values_of(inside[0]).map(lambda one: [one] * 210)).map(tuple)


def _details(inside: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    deep = st.recursive(values_of(inside[1]), lambda inner: st.lists(inner, max_size=2), max_leaves=3)
    many = TEXTS.map(lambda one: {f"{number}": one for number in range(30)})
    return st.dictionaries(TEXTS, deep, max_size=3) | many


_MADE = {tuple: _lists, Mapped: _details}
_PLAIN = {
    str: TEXTS,
    bool: st.booleans(),
    type(None): st.none(),
    int: st.sampled_from(NUMBERS) | st.integers(),
    float: st.sampled_from(FLOATS) | st.floats(),
}


def hints_of(kind: Any) -> dict[str, Any]:
    known = get_type_hints(
        kind, {**vars(model), "Optional": Optional, "Union": Union}, {"Mapping": Mapped}
    ) if hasattr(type(None), "__or__") else _of_3_9(kind)  # fmt: skip
    return {each.name: known[each.name] for each in fields(kind)}


def _of_3_9(kind: Any) -> dict[str, Any]:
    """Return the types of a dataclass where `X | None` cannot be evaluated yet."""
    names = {**vars(model), "Mapping": Mapped, "Optional": Optional}
    written = {
        each.name: re.sub(r"^(\w+) \| None$", r"Optional[\1]", str(each.type)) for each in fields(kind)
    }
    return {name: eval(text, names) for name, text in written.items()}


def printable(text: str) -> bool:
    return all(line.isprintable() and "\N{NO-BREAK SPACE}" not in line for line in text.split("\n"))


def texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (key, *texts_in(each))
    elif isinstance(value, list):
        for each in value:
            yield from texts_in(each)


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def held(document: str) -> dict[str, Any]:
    """See that a document is JSON that everybody reads, in ASCII, bounded and printable; return its tree."""
    assert document.isascii()
    assert len(document) < 2_000_000
    tree: dict[str, Any] = json.loads(document, parse_constant=refuse)
    assert all(map(printable, texts_in(tree)))
    return tree


HOSTILE = values_of(Report)
# a hostile report is large, and Hypothesis remarks on showing one
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
FEW = examples(10)
DEGRADED = degraded()
WORST = replace(
    DEGRADED,
    steps=tuple(
        replace(line, id=f"{evil}{number}", saw=evil, want=evil, hint=evil, detail={evil: evil, "outcome": "met"})
        for number, evil in enumerate(EVIL * 8)
        for line in DEGRADED.steps[:1]
    ),
    notices=tuple(model.Notice(evil, evil) for evil in EVIL * 8),
    restart_needed=tuple(model.StaleProcess(10**30, evil, evil, evil) for evil in EVIL * 20),
    host=replace(DEGRADED.host, name="\x1b[31m\udcff" * 9000, title="\x1b" * 9000),
)  # fmt: skip


@pytest.mark.slow
@FEW
@given(HOSTILE)
@example(WORST)
def test_the_document_is_one_that_everybody_reads(report: Report) -> None:
    tree = held(to_document(report))
    assert tree == to_tree(report)
    assert [step["outcome"] in {each.value for each in model.StepOutcome} for step in tree["steps"]].count(
        False
    ) == 0
    assert (tree["exit_status"], tree["outcome"]) == (report.exit_status, report.outcome.value)


@FEW
@given(HOSTILE)
@example(WORST)
def test_a_report_that_is_held_is_held_still_after_a_notice_more(report: Report) -> None:
    assert replace(report) == report
    more = replace(report, notices=(*report.notices, model.Notice("report-undelivered", "\x1b told last")))
    assert more.notices[-1] == model.Notice("report-undelivered", "? told last")
    assert more.steps == report.steps or len(to_document(more)) < len(to_document(report)) + 500


@pytest.mark.slow
@pytest.mark.parametrize("count", [200, 201, 5000])
@pytest.mark.parametrize("name", ["steps", "hsms", "restart_needed", "notices"])
def test_what_is_left_out_of_a_list_is_counted(name: str, count: int) -> None:
    entry: Any = {
        "steps": DEGRADED.steps[0], "hsms": DEGRADED.hsms[0], "notices": model.Notice("kept", "x"),
        "restart_needed": model.StaleProcess(1, "x", "dyn", "x"),
    }[name]  # fmt: skip
    fields_of_it: dict[str, Any] = {name: (entry,) * count}
    report = replace(DEGRADED, **fields_of_it)
    shown, told = getattr(report, name), [each.text for each in report.notices if each.code == "report-cut"]
    own = len(told) if name == "notices" else 0
    assert len(told) == (count > 200)
    if told:
        left_out = int(re.findall(r"left out: ([\d,]+)", told[0])[0].replace(",", ""))
        assert left_out + len(shown) - own == count


def test_of_too_many_steps_those_that_failed_are_kept() -> None:
    good, bad = (
        DEGRADED.steps[0],
        next(line for line in DEGRADED.steps if line.outcome is model.StepOutcome.FAILED),
    )
    report = replace(DEGRADED, steps=(good,) * 900 + (bad,) + (good,) * 900)
    assert [line for line in report.steps if line.outcome is model.StepOutcome.FAILED] == [bad]


@FEW
@given(HOSTILE, st.sampled_from([None, 20, 80]), st.booleans())
@example(WORST, 80, True)
@example(WORST, None, False)
def test_no_screen_moves_a_cursor(report: Report, width: int | None, colour: bool) -> None:
    for draw in (screen.report, screen.status):
        shown = draw(to_tree(report), colour=colour, width=width)
        assert printable(re.sub(r"\033\[\d{1,2}m", "", shown) if colour else shown)
        assert len(shown) < 4_000_000


@FEW
@given(TEXTS, TEXTS)
@example("\x1b", "\u202e")
def test_no_screen_of_a_document_from_elsewhere_moves_a_cursor(one: str, other: str) -> None:
    """Such as one on the disk that an agent of before wrote."""

    def spoilt(value: object) -> Any:
        if isinstance(value, dict):
            return {key: spoilt(each) for key, each in value.items()}
        return (
            [spoilt(each) for each in value]
            if isinstance(value, list)
            else one + value
            if value in SAID
            else value
        )

    SAID = {text for text in texts_in(to_tree(DEGRADED)) if " " in text or "-" in text}  # noqa: N806
    tree = {**spoilt(to_tree(DEGRADED)), "command": other, "run_id": one, "finished": one}
    shown = screen.status(tree, width=80)
    assert printable(shown)


@FEW
@given(HOSTILE)
@example(WORST)
def test_what_is_kept_for_a_receiver_is_read_back_whole(report: Report) -> None:
    memory, document = Memory(), to_document(report)
    letter = OutgoingReport("file:/report.json", document)
    assert spool.keep(memory, letter.uri, document, letter.key) == 0
    assert [(kept.uri, kept.document) for kept in spool.waiting(memory)[0]] == [(letter.uri, document)]
    records.write_report(memory, document)
    assert json.loads(memory.read(memory.system.report) or b"") == to_tree(report)


@pytest.mark.slow
@FEW
@given(HOSTILE)
@example(WORST)
def test_each_place_gets_what_it_reads(report: Report) -> None:
    tree = to_tree(report)
    for element in ET.fromstring(junit.suite(tree)).iter():
        assert all(map(printable, (element.text or "", *element.attrib.values())))
    metrics = prometheus.page(tree)
    labels = r'\{(\w+="(\\.|[^"\\\n])*",?)*\}'
    line = re.compile(rf"# (HELP|TYPE) hsm_agent_.+|hsm_agent_\w+({labels})? [-+.0-9a-z]+")
    assert all(line.fullmatch(each) for each in metrics.splitlines())
    assert f"hsm_agent_exit_status {tree['exit_status']:.15g}" in metrics.splitlines()
    event = cloudwatch.line(OutgoingReport("cloudwatch:g/s", to_document(report)))
    assert (event.count("\n"), len(event) < 256 * 1024) == (1, True)
    held(event)


@pytest.mark.slow
@FEW
@given(HOSTILE, TEXTS)
def test_a_signal_has_an_id_that_aws_takes(report: Report, name: str) -> None:
    plain = replace(report, run_id="20261123T201500Z-1f3a", code="hsm-timed-out",
                    host=HostIdentity(name, "", "", "", "", None))  # fmt: skip
    made = cloudformation.unique_id(to_tree(plain))
    assert len(made) <= 64
    assert set(made) <= set(string.ascii_letters + string.digits + ".-_")


@pytest.mark.slow
@FEW
@given(HOSTILE)
@example(WORST)
def test_a_page_shows_it(report: Report) -> None:
    host = {**ok("web-1"), "report": to_tree(report)}
    shown = page(fleet([host]))
    assert printable(shown)
    assert len(shown.encode()) < 3_000_000


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.mark.slow
@FEW
@given(HOSTILE)
@example(WORST)
def test_the_log_has_a_line_a_step(report: Report) -> None:
    heard = Heard()
    logger = logging.getLogger("agent")
    before, level, logger.handlers[:] = logger.handlers[:], logger.level, [heard]
    logger.setLevel(logging.INFO)
    try:
        log.log_report(report)
    finally:
        logger.handlers[:] = before
        logger.setLevel(level)
    assert len(heard.lines) == len(report.steps) + 1
    assert all(line.encode("utf-8") for line in heard.lines)
    assert not any("\x1b" in line or "\0" in line for line in heard.lines)


@FEW
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_an_error_is_a_document_too(sentence: str, saw: str, want: str, hint: str) -> None:
    tree = held(to_error_document(AgentError("write-failed", sentence, saw=saw, want=want, hint=hint)))
    assert (tree["code"], tree["exit_status"]) == ("write-failed", CODES["write-failed"].exit_status)
    assert first_violation(tree, schema("error"), schema("error")) is None


PLACES = ("file:/told/report.json", "junit:/told/report.xml", "prometheus:/told")


@pytest.mark.slow
@pytest.mark.parametrize("evil", [*EVIL, "\udcff\udcfex"], ids=range(len(EVIL) + 1))
def test_a_process_changes_no_run_by_its_name(evil: str, ca_pem: bytes) -> None:
    """The exit status is that of a host without it, and everybody is told."""
    vendor = Vendor()
    memory = machine_of(vendor)
    memory.place("/told", kind="directory")
    desired = desired_of(vendor, ca_pem, "pkcs11", report_to=PLACES)
    assert configure(memory, desired).exit_status == 0
    library = "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so"
    memory.running = tuple(
        ProcessInfo(pid, evil[:300] * 3, 1000, 1000, 1.0, (library,)) for pid in range(300, 520)
    )
    report = configure(memory, desired, 2)
    assert (report.outcome, report.code, report.exit_status) == (RunOutcome.OK, None, 0)
    assert {each.component for each in report.restart_needed} == {"pkcs11"}
    assert held((memory.read("/told/report.json") or b"").decode("ascii")) == to_tree(report)
    assert records.read_report(memory) == to_tree(report)
    assert memory.list_dir(memory.system.spool) == ()
    assert "report-cut" in {each.code for each in report.notices}
