"""Reports of roll-outs, as trees: each host's own report is made by a run on a host in memory, or is None."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from agent.core.codes import CODES
from agent.core.fleet_model import ArchiveDigests, HostResult, HostState, Target
from agent.fleet.fleet_report import to_tree
from agent.fleet.model import RunSpec, RunState

Tree = dict[str, Any]


def host(
    name: str,
    outcome: str,
    *,
    report: Tree | None = None,
    code: str | None = None,
    wave: int = 1,
    **more: Any,
) -> Tree:
    """Return one host's part: code, exit status and words are its report's, or else those of `code`."""
    if report is not None:
        report = copy.deepcopy(report)
        report["host"]["name"] = name
        failure = report["failure"] or {}
        code = report["code"]
        more = {"saw": failure.get("saw"), "hint": failure.get("hint"), "changed": report["changed"], **more}
    status = report["exit_status"] if report else CODES[code].exit_status if code else None
    number = sum(map(ord, name))
    return {
        "name": name, "address": f"10.0.{number % 250}.{number % 240 + 4}", "port": 22, "wave": wave, "outcome": outcome,
        "changed": False, "code": code, "exit_status": status, "sentence": None, "saw": None, "want": None, "hint": None, "seconds": 3.1, "trusted": None,
        "report": report, **more,
    }  # fmt: skip


def unreachable(
    name: str, code: str = "ssh-timed-out", *, wave: int = 1, saw: str = "no answer in 10 s"
) -> Tree:
    return host(name, "unreachable", code=code, wave=wave, saw=saw, hint=CODES[code].fix, seconds=10.0)


def not_reached(name: str) -> Tree:
    return host(name, "not-reached", wave=0, seconds=0.0)


def fleet(
    hosts: list[Tree],
    *,
    command: str = "fleet rollout",
    code: str | None = None,
    why: str | None = None,
    remarks: tuple[str, ...] = (),
) -> Tree:
    """Return the report of a run over these hosts, made as a roll-out makes it; `code` and `why` say what stopped it."""
    targets = [Target(each["name"], each["address"], each["port"]) for each in hosts]
    ends = {each["name"]: _end(each) for each in hosts if each["wave"]}
    waves = [
        [each["name"] for each in hosts if each["wave"] == number]
        for number in range(1, 1 + max((each["wave"] for each in hosts), default=0))
    ]
    spec = RunSpec(command.removeprefix("fleet "), "hosts.toml", tuple(targets), {}, remarks=remarks)
    digests = ArchiveDigests(hashlib.sha256(b"a tree").hexdigest())
    run = RunState("20261125T031500Z-1f3a", "2026-11-25T03:15:00Z", spec, digests, ends=ends)
    run.finish("2026-11-25T03:19:12Z", code, why, waves)
    return {**to_tree(run), "agent_version": "0.1.0"}


def _end(host: Tree) -> HostResult:
    outcome = HostState(host["outcome"])
    return HostResult(state=outcome, **{key: value for key, value in host.items() if key != "outcome"})
