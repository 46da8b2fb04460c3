"""What the hosts of a collected status have, at a glance: each value with its number of hosts."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.core.plain import printable
from agent.render.text import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SOON = 180  # days before a CA's end in which they are counted
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))
_LONGEST = 120  # characters of a label
_DIGITS = 8


@dataclass(frozen=True)
class PlotRow:
    """A value and its hosts. `is_bad` marks hosts that count as silent, and a CA that has ended."""

    label: str
    hosts: int
    is_bad: bool = False


@dataclass(frozen=True)
class Plot:
    """A title, and the values of all hosts: the most frequent first, ages from young to old."""

    title: str
    rows: tuple[PlotRow, ...]


def plots(tree: Mapping[str, Any]) -> tuple[Plot, ...]:
    """Return what is shown of a report's `overview`; nothing where it has none."""
    seen = tree.get("overview")
    if not seen or not any(row["hosts"] for row in seen["last_seen"]):
        return ()
    rows = {
        "client": [PlotRow(_label(each["version"] or "none"), each["hosts"]) for each in seen["clients"]],
        "CA expires": [_ca(each, tree["started"], seen["cas"]) for each in seen["cas"]],
        "HSMs": [PlotRow(_label(" ".join(each["addresses"]) or "none"), each["hosts"]) for each in seen["addresses"]],
        "last report": _ages(seen["last_seen"], tree["silent_after"]),
    }  # fmt: skip
    return tuple(Plot(title, tuple(values)) for title, values in rows.items())


def _label(text: str) -> str:
    shown = printable(text[: 2 * _LONGEST])
    return shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"


def _ca(each: Mapping[str, Any], started: str, every: Sequence[Mapping[str, Any]]) -> PlotRow:
    if not each["not_after"]:
        return PlotRow("not known", each["hosts"])
    days = _days(started, each["not_after"])
    label = each["not_after"][:10]
    if sum(1 for other in every if (other["not_after"] or "")[:10] == label) > 1:
        label += f" ({short(each['sha256'] or '')[:_DIGITS]})"
    if days is not None and days < _SOON:
        label += ", ended" if days < 0 else f", in {days:,} day{'' if days == 1 else 's'}"
    return PlotRow(_label(label), each["hosts"], is_bad=days is not None and days < 0)


def _days(started: str, until: str) -> int | None:
    try:
        first, last = (dt.date.fromisoformat(text[:10]) for text in (started, until))
    except ValueError:
        return None
    return (last - first).days


def _ages(rows: Sequence[Mapping[str, Any]], silent_after: float) -> list[PlotRow]:
    made, least = [], 0.0
    for each in rows:
        label = f"in the last {_age(each['within'])}" if each["within"] else "longer ago"
        is_silent = least >= silent_after
        if each["hosts"]:
            made.append(PlotRow(label, each["hosts"], is_bad=is_silent))
        least = each["within"] or least
    return made


def _age(seconds: float) -> str:
    size, unit = next((each for each in _UNITS if seconds % each[0] == 0), (1, "second"))
    count = round(seconds / size)
    return unit if count == 1 else f"{count:,} {unit}s"
