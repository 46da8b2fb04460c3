"""A fleet's report -> one HTML file to keep, send and print: it is complete, and loads nothing."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from agent.core.plain import printable
from agent.render.fleet import screen
from agent.render.fleet.grouping import OUTCOMES, evidence, groups, proofs, risks, trusted
from agent.render.fleet.humanize import age_words, duration, host_place, hosts, seconds_between
from agent.render.fleet.overview import plots
from agent.render.fleet.request import asked_words, requester_words
from agent.render.templates import render
from agent.render.text import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.render.fleet.grouping import HostGroup
    from agent.render.fleet.humanize import Counted
    from agent.render.fleet.overview import Plot

# characters: of one text; of all hosts' steps together, which keeps the page of 1,000 hosts below 3 MB
_LONGEST = 400
_STEPS = 1_500_000
# How many of the values that differ between hosts are shown.
_MOST = 10
_NAMES = 60
_BAD = ("failed", "would-change")


def page(tree: Mapping[str, Any]) -> str:
    """Return the page, given the tree of the report's JSON."""
    style, script = render("fleet/page.css"), render("fleet/page.js")
    found = groups(tree)
    return render(
        "fleet/page.html",
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        title=_text(f"{tree['command']}: {tree['outcome']}, {tree['finished']}"),
        command=_text(tree["command"]),
        outcome=_text(tree["outcome"]),
        summary=_text(screen.summary_line(tree)),
        ending=_text(f"exit {tree['exit_status']}" + (f", {tree['code']}" if tree["code"] else "")),
        failure=[(key, _text(text, 2000)) for key, text in screen.reasons(tree, found)],
        resume=printable(tree["resume"] or "") if tree["outcome"] != "drift" else "",
        facts=_facts(tree),
        totals=_totals(tree),
        waves=[_wave(each) for each in tree["waves"]],
        groups=[_group(tree, number, each) for number, each in enumerate(found)],
        warnings=[_text(f"{each['text']} ({each['code']})") for each in tree["warnings"]],
        risks=[
            {"code": _text(each.code), "count": hosts(len(each.hosts)), "texts": _several(each.texts, len(each.hosts)),
             "hosts": _names(each.hosts)}
            for each in risks(tree)
        ],
        installed=_installed(tree),
        plots=[_plot(each, len(tree["hosts"])) for each in plots(tree)],
        collected=bool(tree.get("from")),
        trusted=[(_text(host["name"]), _text(host["trusted"])) for host in trusted(tree)],
        hosts=_hosts(tree, found),
    )  # fmt: skip


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(value: object, longest: int = _LONGEST) -> str:
    """Return a text without control characters or changes of the writing direction, and bounded."""
    shown = " / ".join(printable(line) for line in str(value or "")[: 2 * longest].splitlines())
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _facts(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    took = screen.seconds(tree)
    times = [tree[key].replace("T", " ").replace("Z", " UTC") for key in ("started", "finished")]
    parts = [
        ("run", "" if tree.get("from") else tree["run_id"]),
        ("from", tree.get("from")),
        ("silent after", duration(tree["silent_after"]) if tree.get("from") else ""),
        ("inventory", tree["inventory"]),
        ("hosts", f"{len(tree['hosts']):,}"),
        ("read" if tree.get("from") else "began", times[0]),
        (
            "ended",
            "" if tree.get("from") else times[1] + (f", after {duration(took)}" if took is not None else ""),
        ),
        ("by", requester_words(tree)),
        *(("asked", text) for text in asked_words(tree)),
        ("agent", tree["agent_version"]),
        ("tree", short(tree["tree"] or "")),
        ("Windows build", short(tree["windows_tree"] or "")),
        *((f"build for {each}", short(sha256)) for each, sha256 in tree.get("linux_trees", {}).items()),
    ]
    return [(label, _text(value)) for label, value in parts if value]


def _totals(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the outcomes that occur, with the place of each one's part of the bar, in per cent."""
    total, place, rows = max(len(tree["hosts"]), 1), 0.0, []
    for outcome in OUTCOMES:
        count = tree["totals"].get(outcome, 0)
        if count:
            wide = 100 * count / total
            rows.append(
                {"outcome": outcome, "count": f"{count:,}", "x": f"{place:.3f}", "wide": f"{wide:.3f}"}
            )
            place += wide
    return rows


def _wave(each: Mapping[str, Any]) -> dict[str, Any]:
    left = max(each["hosts"] - each["ok"] - each["failed"], 0)
    return {
        "number": each["number"],
        "hosts": each["hosts"],
        "ok": each["ok"],
        "failed": each["failed"],
        "left": left,
    }


def _group(tree: Mapping[str, Any], number: int, group: HostGroup) -> dict[str, Any]:
    return {
        "number": number,
        "outcome": group.outcome,
        "title": _text(group.title if group.title != "drift" else ""),
        "well": screen.changes(tree, group.changed, len(group.hosts) - group.changed)
        if group.outcome == "ok"
        else "",
        "count": hosts(len(group.hosts)),
        "sentence": _text(group.sentence),
        "saw": _several(group.saw, len(group.hosts)),
        "hints": _several(group.hints, len(group.hosts)) if group.outcome != "drifted" else [],
        "proven": _several(group.proven, len(group.hosts)),
        "hosts": _names([host["name"] for host in group.hosts]),
    }


def _several(texts: Sequence[Counted], total: int) -> list[str]:
    """Return what was seen, each once, and the number of hosts if not all have it."""
    parts = [
        _text(each.text) + (f" ({hosts(each.hosts)})" if each.hosts != total else "")
        for each in texts[:_MOST]
    ]
    return [*parts, f"and {len(texts) - _MOST:,} more"] if len(texts) > _MOST else parts


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMES:,} more" if len(names) > _NAMES else ""
    return " ".join(_text(each, 80) for each in names[:_NAMES]) + more


def _plot(plot: Plot, total: int) -> dict[str, Any]:
    """Return one kind of value, with the width of each bar in per cent."""
    rows = [
        {"label": each.label, "count": f"{each.hosts:,}", "wide": f"{100 * each.hosts / total:.2f}",
         "kind": "silent" if each.is_bad else ""}
        for each in plot.rows[:_MOST]
    ]  # fmt: skip
    return {"title": plot.title, "rows": rows, "more": max(len(plot.rows) - _MOST, 0)}


def _installed(tree: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return which systems, clients and CAs the hosts have, the most frequent first."""
    found: Counter[tuple[str, str, str]] = Counter()
    for report in (host["report"] for host in tree["hosts"]):
        if report:
            ca = report.get("ca")
            found[
                _text(_system(report)), _text(_client(report)), _text(ca["not_after"])[:10] if ca else ""
            ] += 1
    shown = found.most_common(_MOST)
    others = sum(found.values()) - sum(count for _, count in shown)
    rows = [(system, client, expires, f"{count:,}") for (system, client, expires), count in shown]
    return [*rows, ("others", "", "", f"{others:,}")] if others else rows


def _system(report: Mapping[str, Any]) -> str:
    host = report["host"]
    return "" if host["os"] == "unknown" else f"{host['title']} {host['arch']}"


def _client(report: Mapping[str, Any]) -> str:
    client = report["client"] or {}
    return (client.get("version") or "").split("-")[0]


def _hosts(tree: Mapping[str, Any], found: Sequence[HostGroup]) -> list[dict[str, Any]]:
    room = _STEPS // max(len(tree["hosts"]), 1)
    started = tree["started"]
    return [_host(number, host, room, started) for number, group in enumerate(found) for host in group.hosts]


def _last_seen(host: Mapping[str, Any], started: str) -> dict[str, str]:
    """Return how long ago a host reported, in words and in seconds."""
    age = seconds_between(host["last_seen"], started) if host.get("last_seen") else None
    if age is None:
        return {"last_seen": "", "age": ""}
    return {"last_seen": f"{age_words(age)} ago" if age >= 0 else "in the future", "age": f"{age:.0f}"}


def _host(number: int, host: Mapping[str, Any], room: int, started: str) -> dict[str, Any]:
    report = host["report"] or {}
    steps, more = _steps(report.get("steps", ()), room)
    seen = [*evidence(host), *proofs(host)]
    return {
        "group": number,
        "name": _text(host["name"]),
        "address": _text(host_place(host)),
        "outcome": host["outcome"],
        "code": _text(host["code"]),
        "wave": host["wave"] or "",
        "seconds": host["seconds"],
        "took": duration(host["seconds"]) if host["seconds"] else "",
        "command": _text(report["command"]) if "last_seen" in host and report else "",
        **_last_seen(host, started),
        "changed": "changed" if host["changed"] else "",
        "system": _text(_system(report)) if report else "",
        "client": _text(_client(report)) if report else "",
        "seen": _text(seen[0] if seen else "as wanted" if host["outcome"] == "ok" else ""),
        "steps": steps,
        "more": more,
    }


def _steps(steps: Sequence[Mapping[str, Any]], room: int) -> tuple[list[tuple[str, str, str]], int]:
    """Return outcome, id and text of the steps that there is room for, failed ones first; and how many there is not."""
    lines = [(step["outcome"], _text(step["id"]), _text(_said(step))) for step in steps]
    order = sorted(range(len(lines)), key=lambda place: lines[place][0] not in _BAD)
    kept = []
    for place in order:
        room -= sum(map(len, lines[place])) + 40
        if room < 0:
            break
        kept.append(place)
    return [lines[place] for place in sorted(kept)], len(lines) - len(kept)


def _said(step: Mapping[str, Any]) -> str:
    saw, want = (short((step[key] or "")[: 2 * _LONGEST]) for key in ("saw", "want"))
    outcome = step["outcome"]
    if outcome == "skipped":
        return step["hint"] or ""
    if outcome in ("changed", "would-change", "undone"):
        return f"{saw} -> {want}"
    return f"{saw}, wanted {want}" if outcome == "failed" and want else saw
