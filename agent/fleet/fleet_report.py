"""A run -> the fleet report of schema version 1, as plain JSON values."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.cloudhsm.fingerprint import sha256_of
from agent.cloudhsm.pem import certificates
from agent.config.desired import from_json, requested_state
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.fleet_model import HostState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.config.desired import Desired
    from agent.core.codes import CodeName
    from agent.core.fleet_model import HostResult, Target
    from agent.fleet.model import RunState

SCHEMA_VERSION = 1
# Commands that only check: a host that differs from what is wanted is not their failure.
_CHECKING = ("plan", "verify", "remove --plan")


def to_tree(run: RunState) -> dict[str, Any]:
    """Return the report; the hosts' own reports in it are as complete as those in `run.ends`."""
    hosts = [
        _host(target, run.spec.port_of(target), run.ends.get(target.name)) for target in run.spec.targets
    ]
    states = [HostState(host["outcome"]) for host in hosts]
    outcome, code = _verdict(run, states)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "command": f"fleet {run.spec.command}",
        "agent_version": __version__,
        "tree": f"sha256:{run.sent.tree}" if run.sent.tree else None,
        "windows_tree": f"sha256:{run.sent.windows_tree}" if run.sent.windows_tree else None,
        "linux_trees": {each: f"sha256:{sha256}" for each, sha256 in run.sent.linux_trees.items()},
        "inventory": run.spec.inventory,
        "by": dict(run.spec.by) if run.spec.by else None,
        "asked": _asked(run.spec.desired),
        "waves": [_wave(number, names, run.ends) for number, names in enumerate(run.waves, 1)],
        "hosts": hosts,
        "totals": {each.value: states.count(each) for each in HostState},
        "outcome": outcome,
        "code": code,
        "exit_status": CODES[code].exit_status if code else 0,
        "failure": _failure(run, code, states),
        "warnings": [{"code": "inventory", "text": text} for text in run.spec.remarks],
        "started": run.started,
        "finished": run.finished,
        "resume": f"hsm-agent fleet {run.spec.command} --resume {run.run_id}" if outcome != "ok" else None,
    }


def _asked(desired: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each different request once, with the number of its hosts; a host that repeats its last has none."""
    counts = Counter(json.dumps(each, sort_keys=True) for each in desired.values() if each)
    found = []
    for text, count in counts.most_common():
        with suppress(TypeError):  # options of another version
            found.append({"hosts": count, **_requested(from_json(json.loads(text)))})
    return found


def _requested(wanted: Desired) -> dict[str, Any]:
    root = None
    if wanted.ca_cert is not None and wanted.ca_cert.kind == "inline":
        with suppress(AgentError):  # hosts were sent this text, its root last
            root = sha256_of(certificates(wanted.ca_cert.value.encode())[-1])
    requested = asdict(requested_state(wanted, root))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in requested.items()}


def _host(target: Target, port: int, end: HostResult | None) -> dict[str, Any]:
    if end is None:
        hint = "not begun; the command to continue does it"
        return {
            "name": target.name, "address": target.address, "port": port, "wave": 0,
            "outcome": HostState.NOT_REACHED.value, "changed": False, "code": None, "exit_status": None,
            "sentence": None, "saw": None, "want": None, "hint": hint, "seconds": 0.0, "trusted": None, "report": None,
        }  # fmt: skip
    tree = asdict(end)
    state = tree.pop("state")
    ordered = {key: tree[key] for key in ("name", "address", "port", "wave")}
    return {**ordered, "outcome": state.value, **tree, "seconds": round(end.seconds, 3)}


def _wave(number: int, names: Sequence[str], ends: Mapping[str, HostResult]) -> dict[str, int]:
    had = [ends[name].state for name in names if name in ends]
    ok = had.count(HostState.OK)
    return {"number": number, "hosts": len(names), "ok": ok, "failed": len(had) - ok}


def _verdict(run: RunState, states: Sequence[HostState]) -> tuple[str, str | None]:
    found = set(states)
    # an interrupt that came when every host was proven changes nothing
    if run.code is not None and found != {HostState.OK}:
        return "failed", run.code
    return verdict_of(states, is_check=run.spec.command in _CHECKING)


def verdict_of(states: Sequence[HostState], *, is_check: bool) -> tuple[str, CodeName | None]:
    """Return the outcome and the code of all hosts together; for a check, a host that differs is no failure."""
    found = set(states)
    if found <= {HostState.OK}:
        return "ok", None
    if is_check and found <= {HostState.OK, HostState.DRIFTED}:
        return "drift", "drift"
    return ("degraded" if found <= {HostState.OK, HostState.DEGRADED} else "failed"), "hosts-failed"


def _failure(run: RunState, code: str | None, states: Sequence[HostState]) -> dict[str, str] | None:
    if code is None:
        return None
    ok = states.count(HostState.OK)
    seen = run.why or f"{len(states) - ok} of {len(states)} hosts"
    known = CODES[code]
    return {
        "code": code, "sentence": known.meaning, "saw": seen, "want": f"{len(states)} hosts proven", "hint": known.fix,
    }  # fmt: skip
