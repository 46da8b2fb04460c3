"""What people see at the end of a roll-out, whole: each screen is a file, and the exit status is in its name."""

from __future__ import annotations

import re
from typing import Callable

import pytest

from agent.core.fleet_model import summary_of
from agent.render.fleet import screen
from tests.fakes.fleets import Tree, fleet, host
from tests.golden.fleet_runs import (
    CASES,
    FOLDER,
    failed,
    name,
    ok,
    plan_of_a_fleet,
    stopped_by_the_failure_limit,
    ten_hosts_for_many_reasons,
)
from tests.golden.runs import hold

NARROW = (ten_hosts_for_many_reasons, stopped_by_the_failure_limit, plan_of_a_fleet)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_the_screen_of_a_fleet(case: Callable[[], Tree], pytestconfig: pytest.Config) -> None:
    tree = case()
    hold(name(case), tree["exit_status"], screen.report(tree, width=80), pytestconfig, FOLDER)


@pytest.mark.parametrize("width", [40, 120, 200])
@pytest.mark.parametrize("case", NARROW, ids=name)
def test_a_terminal_of_another_width(
    case: Callable[[], Tree], width: int, pytestconfig: pytest.Config
) -> None:
    tree = case()
    hold(
        f"{name(case)}_on_{width}_columns",
        tree["exit_status"],
        screen.report(tree, width=width),
        pytestconfig,
        FOLDER,
    )


@pytest.mark.parametrize("case", [ten_hosts_for_many_reasons, plan_of_a_fleet], ids=name)
def test_what_grep_gets(case: Callable[[], Tree], pytestconfig: pytest.Config) -> None:
    tree = case()
    hold(f"{name(case)}_for_grep", tree["exit_status"], screen.report(tree), pytestconfig, FOLDER)


@pytest.mark.parametrize("case", CASES, ids=name)
def test_each_host_has_one_line_that_says_how_it_ended_where_there_is_no_terminal(
    case: Callable[[], Tree],
) -> None:
    tree = case()
    shown = [line.split("  ") for line in screen.report(tree).splitlines() if line.startswith("      ")]
    rows = [[cell for cell in line if cell] for line in shown]
    for each in tree["hosts"]:
        named = "".join(char if char.isprintable() else "?" for char in each["name"])
        assert any(row[0].strip() == each["outcome"] and row[1].strip() == named for row in rows)


@pytest.mark.parametrize("width", [None, 40, 80])
@pytest.mark.parametrize("case", CASES, ids=name)
def test_colour_adds_nothing_but_colour(case: Callable[[], Tree], width: int | None) -> None:
    tree = case()
    painted = screen.report(tree, colour=True, width=width)
    assert re.sub("\033\\[(0|2|31|32|33)m", "", painted) == screen.report(tree, width=width) != painted


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("case", CASES, ids=name)
def test_what_is_wider_than_the_terminal_is_what_is_copied_or_has_no_blank(
    case: Callable[[], Tree], width: int
) -> None:
    wide = [line for line in screen.report(case(), width=width).splitlines() if len(line) > width]
    copied = ("continue: ", "  web-1  SHA256:")
    assert [line for line in wide if not line.startswith(copied) and len(line.split()) > 2] == []


@pytest.mark.parametrize("case", CASES, ids=name)
def test_nothing_that_a_host_said_moves_the_cursor(case: Callable[[], Tree]) -> None:
    assert all(char.isprintable() or char == "\n" for char in screen.report(case()))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_what_a_roll_out_keeps_of_the_hosts_reports_is_what_the_screen_needs(
    case: Callable[[], Tree],
) -> None:
    tree = case()
    kept = [{**each, "report": each["report"] and summary_of(each["report"])} for each in tree["hosts"]]
    assert screen.report({**tree, "hosts": kept}) == screen.report(tree)


def test_a_command_in_a_hint_is_never_broken() -> None:
    hint = "first of all you may want to look with `ssh -v -J bastion.example USER@HOST` from here"
    tree = fleet([host("web-1", "unreachable", code="ssh-failed", hint=hint)])
    assert all(line.count("`") % 2 == 0 for line in screen.report(tree, width=60).splitlines())


def test_many_waves_are_told_in_few_lines() -> None:
    hosts = [ok(f"web-{number}", number) for number in range(1, 40)] + [failed("web-40", 40)]
    shown = screen.report(fleet(hosts), width=80)
    assert [line for line in shown.splitlines() if "wave" in line] == [
        "fleet rollout  40 hosts in 40 waves  hosts.toml  20261125T031500Z-1f3a",
        "wave 40: 1 host: 0 ok, 1 failed",
        "39 waves more: 39 hosts: 39 ok",
    ]


def test_no_screen_is_left_over() -> None:
    wanted = {name(case) for case in CASES}
    wanted |= {f"{name(case)}_on_{width}_columns" for case in NARROW for width in (40, 120, 200)}
    wanted |= {f"{name(case)}_for_grep" for case in (ten_hosts_for_many_reasons, plan_of_a_fleet)}
    assert {path.name.split(".")[0] for path in FOLDER.glob("*.txt")} == wanted
