"""The runs that are on record, newest first: a line for each, or one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.core.plain import printable
from agent.render.fleet.grouping import OUTCOMES
from agent.render.fleet.humanize import hosts
from agent.render.fleet.request import requester_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SCHEMA_VERSION = 1
# The keys of a run's report that the list has.
_KEYS = (
    "run_id", "command", "inventory", "by", "started", "finished", "totals", "outcome", "code", "exit_status", "resume",
)  # fmt: skip


def to_tree(reports: Iterable[Mapping[str, Any]], pruned: Sequence[str] = ()) -> dict[str, Any]:
    """Return what `fleet runs --output json` prints, given the reports of runs, and the names of deleted ones."""
    runs = [{**{key: each[key] for key in _KEYS}, "hosts": len(each["hosts"])} for each in reports]
    return {"schema_version": SCHEMA_VERSION, "command": "fleet runs", "runs": runs, "pruned": list(pruned)}


def lines(tree: Mapping[str, Any]) -> str:
    """Return the same as text."""
    deleted = "".join(f"deleted: {name}\n" for name in tree["pruned"])
    return deleted + ("".join(f"{_line(each)}\n" for each in tree["runs"]) or "no roll-out yet\n")


def _line(run: Mapping[str, Any]) -> str:
    totals = [f"{run['totals'][each]:,} {each}" for each in OUTCOMES if run["totals"].get(each)]
    parts = [run["run_id"], f"{run['command']:<13}", f"{run['outcome']:<8}"]
    parts += [f"{hosts(run['hosts'])}: {', '.join(totals)}", run["inventory"]]
    by = requester_words(run)
    parts += [f"by {by}"] if by else []
    return printable("  ".join(parts)).rstrip()
