"""Reports of roll-outs, as trees: each host's own report is made by a run on a host in memory, or is None."""

from __future__ import annotations

import copy
from typing import Any

from agent.core.errors import CODES

Tree = dict[str, Any]

WORST = {"failed": 70, "unreachable": 70, "degraded": 70, "drifted": 3, "not-reached": 70, "ok": 0}


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
        "changed": False, "code": code, "exit_status": status, "saw": None, "hint": None, "seconds": 3.1, "trusted": None,
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
    waves: tuple[int, ...] = (),
    **more: Any,
) -> Tree:
    """Return the report of a run over these hosts; `waves` are their sizes, and one wave without it."""
    outcomes = ("ok", "degraded", "drifted", "failed", "unreachable", "not-reached")
    totals = {each: sum(1 for one in hosts if one["outcome"] == each) for each in outcomes}
    bad = totals["failed"] + totals["unreachable"] + totals["not-reached"]
    outcome = (
        "failed" if bad else "degraded" if totals["degraded"] else "drift" if totals["drifted"] else "ok"
    )
    if code is None and outcome != "ok":
        code = "drift" if outcome == "drift" else "hosts-failed"
    known = CODES[code] if code else None
    failure = known and {"code": code, "sentence": known.meaning, "saw": "", "want": "", "hint": known.fix}
    run_id = "20261125T031500Z-1f3a"
    again = f"hsm-agent {command} --resume {run_id}" if code and code != "drift" else None
    return {
        "schema_version": 1, "run_id": run_id, "command": command, "agent_version": "0.1.0",
        "tree": "sha256:5d1c0f0e8e1b6f1f0a0c3f6f3d1fbb0e5b3a0d7c9e2f4a6b8c0d1e2f3a4b5c6d", "inventory": "hosts.toml",
        "waves": [_wave(number, size, hosts) for number, size in enumerate(waves or (len(hosts),), 1)],
        "hosts": hosts, "totals": totals, "outcome": outcome, "code": code,
        "exit_status": known.exit_status if known else 0, "failure": failure, "warnings": [],
        "started": "2026-11-25T03:15:00Z", "finished": "2026-11-25T03:19:12Z", "resume": again, **more,
    }  # fmt: skip


def _wave(number: int, size: int, hosts: list[Tree]) -> Tree:
    mine = [each["outcome"] for each in hosts if each["wave"] == number]
    failed = sum(each in ("failed", "unreachable", "degraded") for each in mine)
    return {"number": number, "hosts": size, "ok": len(mine) - failed, "failed": failed}
