"""The roll-outs whose screens and reports are kept."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Callable

from agent.core.model import Report
from agent.render.json_report import to_tree
from tests.fakes.fleets import Tree, fleet, host, not_reached, unreachable
from tests.golden import runs as one

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


def name(case: Callable[[], Tree]) -> str:
    return f"fleet_{case.__name__}"
