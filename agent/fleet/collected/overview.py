"""The client versions, CAs and HSM addresses of many hosts, and when they were last_seen: how many hosts have each."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.fleet.collected.collect import CollectedReport

# Seconds: how long ago hosts reported, in steps.
_AGES = (3600.0, 6 * 3600.0, 24 * 3600.0, 36 * 3600.0, 7 * 86400.0)


def overview(reports: Sequence[CollectedReport], now: float, silent_after: float) -> dict[str, Any]:
    """Return what the hosts have, the most frequent first, as the fleet's report has it.

    `last_seen` has hosts by the age of their last report: up to `within` seconds, more than in the row before; None is
    for older ones. One of the steps is `silent_after`.
    """
    return {
        "clients": _counted(("version",), ((_version(each),) for each in reports)),
        "cas": _counted(("sha256", "not_after"), map(_ca, reports)),
        "addresses": _counted(("addresses",), ((list(each.addresses),) for each in reports)),
        "last_seen": _last_seen(reports, now, silent_after),
    }


def _version(each: CollectedReport) -> str | None:
    client = each.summary.get("client") or {}
    version: str | None = client.get("version")
    return version.split("-")[0] if version else None


def _ca(each: CollectedReport) -> tuple[str | None, str | None]:
    ca = each.summary.get("ca") or {}
    return ca.get("sha256"), ca.get("not_after")


def _counted(keys: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    values = {}
    for row in rows:
        text = repr(row)
        values[text] = row
        counts[text] += 1
    return [{**dict(zip(keys, values[text])), "hosts": count} for text, count in counts.most_common()]


def _last_seen(reports: Sequence[CollectedReport], now: float, silent_after: float) -> list[dict[str, Any]]:
    steps = sorted({*_AGES, silent_after})
    ages = [now - each.last_seen for each in reports]
    rows: list[dict[str, Any]] = []
    least = float("-inf")
    for step in steps:
        rows.append({"within": step, "hosts": sum(1 for age in ages if least < age <= step)})
        least = step
    rows.append({"within": None, "hosts": sum(1 for age in ages if age > least)})
    return rows
