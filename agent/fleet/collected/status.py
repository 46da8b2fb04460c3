"""`fleet status --from`: the reports of a place -> the fleet's report, in the form that a roll-out has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.fleet_model import HostState
from agent.fleet.collected.collect import collect
from agent.fleet.collected.overview import overview
from agent.fleet.collected.standing import SILENT_AFTER, iso, stand
from agent.fleet.fleet_report import SCHEMA_VERSION, verdict_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.core.fleet_model import Target
    from agent.fleet.collected.sources import ReportSource
    from agent.fleet.collected.spool import FiledReport, ReportSpool
    from agent.fleet.collected.standing import FleetStanding, HostStanding

COMMAND = "fleet status"


@dataclass(frozen=True)
class StatusRequest:
    """What is asked: `targets` are the hosts of the inventory that are wanted, None without one.

    With `only_targets` hosts that are none of them are not shown. `remarks` are warnings about the inventory.
    `silent_after` is in seconds. `run_id` names this look, `by` is who looks.
    """

    run_id: str
    inventory: str = ""
    targets: Sequence[Target] | None = None
    only_targets: bool = False
    remarks: Sequence[str] = ()
    silent_after: float = SILENT_AFTER
    by: Mapping[str, str | None] | None = None


@dataclass(frozen=True)
class CollectedStatus:
    """The fleet's report with the summaries of the hosts' own; `wholes` are complete ones, in the order of hosts."""

    tree: Mapping[str, Any]
    wholes: Sequence[FiledReport | None]

    def whole(self) -> dict[str, Any]:
        """Return the report with complete ones, each read from the disk when it is looked at."""
        hosts = [{**host, "report": whole} for host, whole in zip(self.tree["hosts"], self.wholes)]
        return {**self.tree, "hosts": hosts}


def status(
    source: ReportSource, request: StatusRequest, schema: Mapping[str, Any], spool: ReportSpool, now: float
) -> CollectedStatus:
    """Return how all hosts stand.

    `now` is the time before anything was read, in epoch seconds. Raises AgentError `nothing-recorded` for a place
    without any report, and for what keeps the place from being read.
    """
    found = collect(source, schema, spool)
    if not found.reports and not found.unreadable and not request.targets:
        ignored = f", and {len(found.foreign):,} files that are no reports" if found.foreign else ""
        raise AgentError(
            "nothing-recorded", "there are no reports", saw=f"nothing in {found.place}{ignored}",
            want="reports of hosts: HOST.json",
            hint="configure hosts with `--report-to` and this place: `hsm-agent fleet rollout --report-to URI`",
        )  # fmt: skip
    standing = stand(found, request.targets, now, request.silent_after, only_targets=request.only_targets)
    wholes = [each.collected.whole if each.collected else None for each in standing.hosts]
    return CollectedStatus(_tree(standing, request, found.place, now), wholes)


def _tree(standing: FleetStanding, request: StatusRequest, place: str, now: float) -> dict[str, Any]:
    states = [each.state for each in standing.hosts]
    outcome, code = verdict_of(states, is_check=True)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": request.run_id,
        "command": COMMAND,
        "agent_version": __version__,
        "tree": None,
        "windows_tree": None,
        "inventory": request.inventory,
        "from": place,
        "silent_after": request.silent_after,
        "by": request.by,
        "asked": [],
        "waves": [],
        "hosts": [_host(each) for each in standing.hosts],
        "totals": {each.value: states.count(each) for each in HostState},
        "overview": overview(
            [each.collected for each in standing.hosts if each.collected], now, request.silent_after
        ),
        "outcome": outcome,
        "code": code,
        "exit_status": CODES[code].exit_status if code else 0,
        "failure": _failure(code, states),
        "warnings": [
            *({"code": "inventory", "text": text} for text in request.remarks),
            *({"code": "reports", "text": text} for text in standing.warnings),
        ],
        "started": iso(now),
        "finished": iso(now),
        "resume": None,
    }


def _host(each: HostStanding) -> dict[str, Any]:
    collected, target = each.collected, each.target
    status = CODES[each.code].exit_status if each.code else 0
    if collected is not None and each.code == collected.state.code:
        status = collected.exit_status
    return {
        "name": each.name,
        "address": target.address if target else "",
        "port": (target.port or 22) if target else 0,
        "wave": 0,
        "outcome": each.state.value,
        "changed": False,
        "code": each.code,
        "exit_status": status,
        "sentence": None,
        "saw": each.saw,
        "want": None,
        "hint": each.hint,
        "seconds": 0.0,
        "trusted": None,
        "last_seen": None if each.last_seen is None else iso(each.last_seen),
        "report": collected.summary if collected else None,
    }


def _failure(code: str | None, states: Sequence[HostState]) -> dict[str, str] | None:
    if code is None:
        return None
    ok, total = states.count(HostState.OK), len(states)
    hint = "fix the causes: hosts report again by their timers, or at once by `hsm-agent fleet verify`"
    return {
        "code": code, "sentence": CODES[code].meaning, "saw": f"{total - ok} of {total} hosts",
        "want": f"{total} hosts proven", "hint": hint,
    }  # fmt: skip
