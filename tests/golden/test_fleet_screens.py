"""What people see at the end of a roll-out, whole: each screen is a file, and the exit status is in its name."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Callable

import pytest

from agent.core.fleet_model import summary_of
from agent.core.model import Report
from agent.render.fleet import screen
from agent.render.json_report import to_tree
from tests.doubles.fleets import Tree, fleet, host, not_reached, unreachable
from tests.golden import test_screens as one
from tests.golden.test_screens import hold

FOLDER = Path(__file__).parent / "fleet"
Make = Callable[[], Report]


@cache
def made(run: Make) -> Tree:
    return to_tree(run())


def ok(name: str, wave: int = 1, *, run: Make = one.first_run, **more: Any) -> Tree:
    return host(name, "ok", report=made(run), wave=wave, **more)


def failed(name: str, wave: int = 1, *, run: Make = one.all_timed_out, **more: Any) -> Tree:
    return host(name, "failed", report=made(run), wave=wave, **more)


def one_host() -> Tree:
    return fleet([ok("web-1")])


def ten_hosts() -> Tree:
    return fleet([ok("web-1"), *(ok(f"web-{number}", 2) for number in range(2, 7)),
                  *(ok(f"web-{number}", 2, run=one.second_run) for number in range(7, 11))])  # fmt: skip


def ten_hosts_for_many_reasons() -> Tree:
    return fleet([
        ok("web-1", trusted="SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDHupMQmPLaFfHfPLg"), ok("web-2", 2, run=one.second_run), failed("web-3", 2, seconds=11.2),
        failed("db-1.internal.example", 2, run=one.rolled_back), host("web-4", "degraded", report=made(one.degraded), wave=2),
        unreachable("web-5", wave=2), unreachable("web-6", "host-key-unknown", wave=2, saw="ED25519 SHA256:Kx3J0f9mTq"),
        failed("web-7", 2), ok("web-8", 2, run=one.single_hsm_accepted), ok("web-9", 2, run=one.restart_needed),
    ])  # fmt: skip


def some_failed() -> Tree:
    hosts = [ok("web-1"), *(ok(f"web-{number}", 2) for number in range(2, 4)), unreachable("web-4", wave=2)]
    hosts += [ok(f"web-{number}", 3, run=one.second_run) for number in range(5, 34)]
    return fleet([*hosts, failed("web-34", 3), failed("web-35", 3), failed("web-36", 3)])


def risks_of_a_fleet() -> Tree:
    def warning(code: str, text: str) -> dict[str, Any]:
        return {"warnings": [{"code": code, "text": text}]}

    old = warning(
        "client-out-of-support",
        "cloudhsm-cli: 5.2.1 is out of support, and the service may refuse its connections",
    )
    soon = warning(
        "ca-expires-soon",
        "the CA expires on 2027-01-30, in 66 days; initialising the cluster fixed it, so plan the move to a cluster with a new CA",
    )
    hosts = [ok(f"web-{number}", run=one.second_run) for number in range(1, 31)]
    for number, each in enumerate(hosts):
        each["report"].update(old if number < 20 else soon if number < 29 else {})
    for number, version in ((3, "5.3.0"), (4, "5.4.0"), (5, "5.4.1"), (6, "5.4.2")):
        each = hosts[number]["report"]["warnings"][0]
        hosts[number]["report"]["warnings"] = [{**each, "text": each["text"].replace("5.2.1", version)}]
    hosts[29]["report"]["warnings"] = [{"code": "previous-works", "text": "a note is no risk"}]
    return fleet(hosts, remarks=("hosts.toml:12: web-7 is also in hosts.toml:4, with the same settings",))


def stopped_by_the_failure_limit() -> Tree:
    hosts = [ok("edge-0001"), *(ok(f"edge-{number:04}", 2) for number in range(2, 64))]
    hosts += [failed(f"edge-{number:04}", 2) for number in range(64, 101)]
    hosts += [
        unreachable(f"edge-{number:04}", wave=2, saw=f"no answer from 10.9.1.{number}:22 in 10 s")
        for number in range(101, 106)
    ]
    hosts += [not_reached(f"edge-{number:04}") for number in range(106, 1001)]
    return fleet(hosts, code="failure-limit", why="42 of 1,000 hosts failed, and --max-failed is 4%")


def plan_of_a_fleet() -> Tree:
    hosts = [
        host(f"web-{number}", "drifted", report=made(one.plan_on_a_virgin_host)) for number in range(1, 9)
    ]
    more = [
        host("web-9", "drifted", report=made(one.plan_of_one_more_option)),
        ok("web-10", run=one.plan_with_nothing_to_do),
    ]
    return fleet([*hosts, *more], command="fleet plan")


def drift_in_a_fleet() -> Tree:
    return fleet(
        [host("web-1", "drifted", report=made(one.drift)), ok("web-2", run=one.second_run, changed=False)],
        command="fleet verify",
    )


def a_clean_verify() -> Tree:
    hosts = [ok(f"web-{number}", run=one.second_run, changed=False) for number in (1, 2)]
    return fleet(hosts, command="fleet verify")


def a_fleet_without_the_client() -> Tree:
    return fleet(
        [ok("web-1", run=one.remove), ok("web-2", run=one.remove_from_a_bare_host)], command="fleet remove"
    )


def what_a_host_says_is_shown_safely() -> Tree:
    said = unreachable("web\x1b[2J-1", "login-refused", saw="banner \x1b]0;title\x07\nsecond line <script>")
    return fleet([said, host("web-2", "failed", code="host-deadline", saw="600 s", hint="x `a b` y")])


CASES: tuple[Callable[[], Tree], ...] = (
    one_host, ten_hosts, some_failed, risks_of_a_fleet, ten_hosts_for_many_reasons, stopped_by_the_failure_limit, plan_of_a_fleet, drift_in_a_fleet,
    a_clean_verify, a_fleet_without_the_client, what_a_host_says_is_shown_safely,
)  # fmt: skip
NARROW = (ten_hosts_for_many_reasons, stopped_by_the_failure_limit, plan_of_a_fleet)


def name(case: Callable[[], Tree]) -> str:
    return f"fleet_{case.__name__}"


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
