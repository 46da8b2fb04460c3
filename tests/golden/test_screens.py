"""What people see, whole: each screen is a file, and the exit status is in its name.

The reports are made by the commands on a host in memory; `--update-golden` writes the files anew, to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

import jsonschema  # type: ignore[import-untyped]
import pytest

from agent.catalogue import load
from agent.core.codes import CODES
from agent.facts import gather
from agent.render import screen
from agent.render.facts_json import facts_document
from agent.render.json_report import schema, to_tree
from agent.state import records
from tests.fakes.vendor import OS_RELEASE
from tests.golden.runs import (
    FOLDER,
    REPORTS,
    Scene,
    complaints,
    degraded,
    hold,
    package_manager_fails,
    plan_on_a_virgin_host,
)

if TYPE_CHECKING:
    from agent.core.model import Report


@pytest.mark.parametrize("case", REPORTS, ids=lambda case: case.__name__)
def test_the_screen_of_a_run(case: Callable[[], Report], pytestconfig: pytest.Config) -> None:
    report = case()
    hold(case.__name__, report.exit_status, screen.report(to_tree(report)), pytestconfig)


@pytest.mark.parametrize("case", REPORTS, ids=lambda case: case.__name__)
def test_every_report_keeps_to_the_published_schema(case: Callable[[], Report]) -> None:
    jsonschema.Draft202012Validator(schema()).validate(to_tree(case()))


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize(
    "case",
    [plan_on_a_virgin_host, degraded, package_manager_fails, complaints],
    ids=lambda case: case.__name__,
)
def test_a_narrow_terminal_wraps_and_cuts_nothing(
    case: Callable[[], Report], width: int, pytestconfig: pytest.Config
) -> None:
    report = case()
    narrow = screen.report(to_tree(report), width=width)
    hold(f"{case.__name__}_on_{width}_columns", report.exit_status, narrow, pytestconfig)
    assert narrow.split() == screen.report(to_tree(report)).split()


@pytest.mark.parametrize("case", REPORTS, ids=lambda case: case.__name__)
def test_colour_adds_nothing_but_colour(case: Callable[[], Report]) -> None:
    tree = to_tree(case())
    painted = screen.report(tree, colour=True)
    plain = painted
    for number in ("0", "2", "31", "32", "33", "36"):
        plain = plain.replace(f"\033[{number}m", "")
    assert painted != plain
    assert plain == screen.report(tree)


def test_the_screen_of_status(pytestconfig: pytest.Config) -> None:
    scene = Scene().down("hsm-timed-out", "10.0.1.6")
    report = scene.configure()
    hold("status", report.exit_status, screen.status(records.read_report(scene.memory)), pytestconfig)


@pytest.mark.parametrize(
    ("name", "release", "installed"),
    [
        ("facts_of_a_listed_host", OS_RELEASE, False),
        ("facts_of_a_configured_host", OS_RELEASE, True),
        (
            "facts_of_an_unlisted_host",
            b'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12"\n',
            False,
        ),
    ],
)
def test_the_screen_of_facts(
    name: str, release: bytes, *, installed: bool, pytestconfig: pytest.Config
) -> None:
    scene = Scene("pkcs11")
    if installed:
        scene.configure()
    scene.memory.place("/etc/os-release", release)
    tree = facts_document(gather(scene.memory), load(), None)
    refusal = tree["refusal"]
    hold(name, CODES[refusal["code"]].exit_status if refusal else 0, screen.facts(tree), pytestconfig)


def test_the_screens_of_explain(pytestconfig: pytest.Config) -> None:
    hold("explain", 0, screen.codes(), pytestconfig)
    hold("explain_one", 0, screen.explain(CODES["hsm-timed-out"]), pytestconfig)


def test_no_screen_is_left_over() -> None:
    names = {case.__name__ for case in REPORTS}
    found = {path.name.split(".")[0] for path in FOLDER.glob("*.txt")}
    others = {"status", "explain", "explain_one"}
    assert [
        name
        for name in sorted(found - names - others)
        if "_on_" not in name and not name.startswith("facts_")
    ] == []
