"""A fleet's report -> text for people: causes worst first, then what is proven, and last how to continue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from agent.core.plain import printable
from agent.render.fleet.grouping import NO_AGENT, OUTCOMES, agents, evidence, groups, risks, trusted
from agent.render.fleet.humanize import duration, host_place, hosts, seconds_between, waves
from agent.render.fleet.overview import plots
from agent.render.fleet.request import asked_words, requester_words
from agent.render.text import NBSP, coloured, wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.render.fleet.grouping import HostGroup, WarningGroup
    from agent.render.fleet.humanize import Counted

# How many of the values that differ between hosts are shown.
_MOST = 3
_MOST_CHANGES = 8
_MOST_WAVES = 8
_MOST_VALUES = 4
# Lines of host names below a cause, and below proven hosts.
_NAME_LINES = 4
_INDENT = 6
_NARROW = 60


def report(tree: Mapping[str, Any], *, colour: bool = False, width: int | None = None) -> str:
    """Return the screen, given the tree of the report's JSON.

    `width` is that of a terminal: names are wrapped and bounded. None gives each host a line of its own, for `grep`.
    """
    found = groups(tree)
    lines = [*wrapped("", "  ".join(_head(tree)), width, indent=2), *_request(tree, width), ""]
    for group in found:
        lines += _group(tree, group, colour=colour, width=width)
    lines += _foot(tree, width)
    lines += _verdict(tree, found, colour=colour, width=width)
    if tree["resume"] and tree["outcome"] != "drift":  # another check does not change what differs
        # never wrapped: it is copied
        lines += ["", f"continue: {printable(tree['resume'])}"]
    return "\n".join(lines) + "\n"


def summary_line(tree: Mapping[str, Any]) -> str:
    """Return in one sentence how the run ended."""
    total, command, failure = len(tree["hosts"]), tree["command"].split()[-1], tree["failure"]
    left = total - tree["totals"]["ok"]
    if tree["outcome"] == "ok":
        return f"{hosts(total)} {'is' if total == 1 else 'are'} {_DONE.get(command, 'as wanted')}"
    if tree["outcome"] == "drift":
        differ = tree["totals"].get("drifted", left)
        if command in ("plan", "--plan"):
            return f"changes are needed on {differ:,} of {hosts(total)}"
        return f"{differ:,} of {hosts(total)} differ{'s' if differ == 1 else ''} from what is wanted"
    rest = f"{left:,} of {hosts(total)} {'is' if left == 1 else 'are'} not {_AIM.get(command, 'as wanted')}"
    if failure and failure["code"] not in (None, "hosts-failed"):
        return f"{failure['sentence']}; {rest}" if total else failure["sentence"]
    return rest


_DONE = {
    "rollout": "proven",
    "status": "proven",
    "verify": "proven and as wanted",
    "plan": "as wanted, nothing to do",
    "remove": "without the client",
    "--plan": "without the client, nothing to do",
}
_AIM = {"rollout": "proven", "status": "proven", "verify": "proven", "remove": "without the client"}


# the command that applies what another one only checked
_DOES = {"fleet remove --plan": "fleet remove"}


def tally(tree: Mapping[str, Any]) -> str:
    """Return the totals, worst first, and how long it took."""
    totals, took = tree["totals"], None if tree.get("from") else seconds(tree)
    parts = [f"{totals[each]:,} {each.replace('-', ' ')}" for each in OUTCOMES if totals.get(each)]
    if totals["ok"]:
        changed = sum(1 for host in tree["hosts"] if host["outcome"] == "ok" and host["changed"])
        parts[-1] += f" ({changes(tree, changed, totals['ok'] - changed)})"
    return ", ".join(parts) + (
        f"; in {duration(took)}".replace(" ", NBSP).replace(NBSP, " ", 1) if took is not None else ""
    )


def wave(each: Mapping[str, Any]) -> str:
    """Return how far one wave came."""
    left = each["hosts"] - each["ok"] - each["failed"]
    parts = [f"{each['ok']:,} ok"]
    parts += [f"{each['failed']:,} failed"] if each["failed"] else []
    parts += [f"{left:,} not done"] if left > 0 else []
    return f"{hosts(each['hosts'])}: {', '.join(parts)}"


def seconds(tree: Mapping[str, Any]) -> float | None:
    """Return how long the run took; None when its times cannot be read."""
    return seconds_between(tree["started"], tree["finished"])


def _head(tree: Mapping[str, Any]) -> list[str]:
    head = [tree["command"], hosts(len(tree["hosts"]))]
    if len(tree["waves"]) > 1:
        head[1] += f" in {waves(len(tree['waves']))}"
    head += [each for each in (tree.get("from"), tree["inventory"]) if each]
    # a look at collected reports has a name that nothing takes
    head += [] if tree.get("from") else [tree["run_id"]]
    return [printable(each) for each in head]


def _request(tree: Mapping[str, Any], width: int | None) -> list[str]:
    """Return who asked and what was asked, where it is recorded."""
    by, asked = requester_words(tree), asked_words(tree)
    lines = wrapped("by:    ", by, width, indent=7) if by else []
    for number, text in enumerate(asked):
        lines += wrapped(" " * 7 if number else "asked: ", text, width, indent=7)
    return lines


def _group(tree: Mapping[str, Any], group: HostGroup, *, colour: bool, width: int | None) -> list[str]:
    count = hosts(len(group.hosts))
    if group.outcome == "ok":
        parts = f"{count}: {changes(tree, group.changed, len(group.hosts) - group.changed)}"
        parts += f" ({group.title})" if group.title else ""
    else:
        parts = f"{count}: {group.title}" if group.title not in ("", "drift") else count
    column = max(len(host["outcome"]) for host in tree["hosts"])
    first, *rest = wrapped(f"  {group.outcome:<{column}}  ", printable(parts), width, indent=4)
    lines = [
        f"  {coloured(group.outcome, group.outcome, colour=colour)}{first[2 + len(group.outcome) :]}",
        *rest,
    ]
    if group.sentence and group.outcome not in ("not-reached", "drifted"):
        lines += wrapped(_before("", width)[0], printable(group.sentence), width)
    if group.outcome == "drifted":
        lines += _several("differs: ", group.saw, group, width, _MOST_CHANGES)
    elif group.outcome not in ("ok", "not-reached"):
        lines += _several("saw:   ", group.saw, group, width, _MOST)
        lines += _several("hint:  ", group.hints, group, width, _MOST)
    lines += _several("proven: ", group.proven, group, width, _MOST)
    return [*lines, *_hosts(group, width), ""]


def changes(tree: Mapping[str, Any], changed: int, same: int) -> str:
    """Return on how many hosts something was changed; a check changes nothing."""
    if tree["command"].split()[-1] in ("plan", "verify", "status", "--plan"):
        return "as wanted"
    if changed and same:
        return f"{changed:,} changed, {same:,} nothing to do"
    return "changed" if changed else "nothing to do"


def _several(
    label: str, texts: Sequence[Counted], group: HostGroup, width: int | None, most: int
) -> list[str]:
    """Return what was seen, each once, and the number of hosts if not all have it."""
    before, deeper = _before(label, width)
    lines = []
    for number, each in enumerate(texts[:most]):
        some = f" ({hosts(each.hosts)})".replace(" ", NBSP).replace(NBSP, " ", 1)
        text = _complete_commands(each.text) + (some if each.hosts != len(group.hosts) else "")
        lines += wrapped(" " * len(before) if number else before, text, width, indent=deeper)
    return [*lines, " " * len(before) + f"and {len(texts) - most:,} more"] if len(texts) > most else lines


def _before(label: str, width: int | None) -> tuple[str, int]:
    """Return a label with its indent, and the indent of the lines below it, which is small on a narrow terminal."""
    if width is not None and width < _NARROW:
        return f"    {label.rstrip() + ' ' if label else ''}", _INDENT
    return " " * _INDENT + label, _INDENT + len(label)


def _complete_commands(text: str) -> str:
    """Return a text that is not wrapped inside backticks, since that part is copied."""
    return re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", NBSP), printable(text.replace("\n", " / ")))


def _hosts(group: HostGroup, width: int | None) -> list[str]:
    if width is None:
        return [_row(host) for host in group.hosts]
    most = _NAME_LINES if group.code else _NAME_LINES // 2
    return _names([host["name"] for host in group.hosts], *_before("hosts: ", width), width, most)


def _row(host: Mapping[str, Any]) -> str:
    """Return one host's own line, for `grep`."""
    parts = [f"{host['outcome']:<11}", host["name"], host_place(host)]
    parts += [f"wave {host['wave']}"] if host["wave"] else []
    parts += [duration(host["seconds"])] if host["seconds"] else []
    if host["outcome"] == "ok":
        parts += ["changed" if host["changed"] else "unchanged"]
    parts += [f"({host['code']})"] if host["code"] else []
    parts += ["; ".join(evidence(host)[:_MOST])]
    return " " * _INDENT + "  ".join(printable(each) for each in parts if each)


def _names(names: Sequence[str], before: str, deeper: int, width: int | None, most: int) -> list[str]:
    """Return names on a few lines, and how many more there are; without a width all on one line."""
    if width is None:
        return [before + printable(" ".join(names))]
    room = most * max(width - deeper, deeper) - (len(before) - deeper)
    shown: list[str] = []
    for name in names:
        room -= len(name) + 1
        if room < len("and 1,000 more") and len(shown) + 1 < len(names):
            break
        shown.append(printable(name).replace(" ", NBSP))
    more = [f"and{NBSP}{len(names) - len(shown):,}{NBSP}more"] if len(shown) < len(names) else []
    return wrapped(before, " ".join([*shown, *more]), width, indent=deeper)


def _foot(tree: Mapping[str, Any], width: int | None) -> list[str]:
    """Return the parts about the run or many hosts: risks, new keys, waves, totals; each ends with an empty line."""
    lines: list[str] = []
    for risk in risks(tree):
        lines += _risk(risk, len(tree["hosts"]), width)
    for notice in tree["warnings"]:
        lines += wrapped("", f"warning: {printable(notice['text'])} ({notice['code']})", width, indent=9)
    if lines:
        lines.append("")
    accepted = trusted(tree)
    if accepted:
        lines += wrapped(
            "", f"trusted from now on, host keys that were new: {len(accepted):,}", width, indent=2
        )
        most = len(accepted) if width is None else _MOST_CHANGES
        lines += [printable(f"  {host['name']}  {host['trusted']}") for host in accepted[:most]]
        lines += [f"  and {len(accepted) - most:,} more, in the report"] if len(accepted) > most else []
        lines.append("")
    lines += _overview(tree, width)
    lines += _waves(tree["waves"], width)
    return [*lines, *wrapped("totals: ", tally(tree), width, indent=8), *_agents(tree, width)]


def _agents(tree: Mapping[str, Any], width: int | None) -> list[str]:
    """Return what is left on the hosts to look at them with, and what installs it."""
    found = agents(tree) if tree["command"] in ("fleet rollout", "fleet remove") else ()
    text = "; ".join(f"{each.text}: {hosts(each.hosts)}" for each in found)
    if tree["command"] == "fleet rollout" and any(each.text == NO_AGENT for each in found):
        text += "; `--install` installs it"
    return wrapped("agent:  ", _complete_commands(text), width, indent=8) if text else []


def _overview(tree: Mapping[str, Any], width: int | None) -> list[str]:
    """Return what the hosts have, a line for each kind; ends with an empty line."""
    lines: list[str] = []
    for plot in plots(tree):
        rows = plot.rows if width is None else plot.rows[:_MOST_VALUES]
        words = [f"{each.label}: {hosts(each.hosts)}".replace(" ", NBSP) for each in rows]
        words += [f"and {len(plot.rows) - len(rows):,} more"] if len(rows) < len(plot.rows) else []
        lines += wrapped(f"{plot.title:<11} ", "; ".join(words), width, indent=12)
    return [*lines, ""] if lines else []


def _risk(risk: WarningGroup, total: int, width: int | None) -> list[str]:
    count = len(risk.hosts)
    if len(risk.texts) == 1:
        some = f"{risk.hosts[0]}: " if count == 1 and total > 1 else f"{hosts(count)}: "
        lines = wrapped("", printable(f"warning: {some}{risk.texts[0].text} ({risk.code})"), width, indent=9)
    else:
        lines = [printable(f"warning: {hosts(count)}: {risk.code}")]
        for each in risk.texts[:_MOST]:
            lines += wrapped(" " * 9, printable(f"{each.text} ({hosts(each.hosts)})"), width)
        more = len(risk.texts) - _MOST
        lines += [" " * 9 + f"and {more:,} more"] if more > 0 else []
    if 1 < count < total:
        lines += _names(risk.hosts, " " * 9 + "hosts: ", 9, width, 1)
    return lines


def _waves(found: Sequence[Mapping[str, Any]], width: int | None) -> list[str]:
    """Return a line for each wave; of many, only the important ones."""
    if len(found) < 2:
        return []
    shown = list(found)
    if width is not None and len(found) > _MOST_WAVES:
        shown = [each for each in found if each["ok"] < each["hosts"]][:_MOST_WAVES]
    lines = [f"wave {each['number']}: {wave(each)}" for each in shown]
    if len(shown) < len(found):
        others = [each for each in found if each not in shown]
        keys = ("hosts", "ok", "failed")
        lines.append(
            f"{waves(len(others))} more: {wave({key: sum(each[key] for each in others) for key in keys})}"
        )
    return lines


def _verdict(
    tree: Mapping[str, Any], found: Sequence[HostGroup], *, colour: bool, width: int | None
) -> list[str]:
    outcome, code = tree["outcome"], tree["code"]
    tail = f" (exit {tree['exit_status']}, {code})" if code else ""
    first, *rest = wrapped("", printable(f"{outcome}: {summary_line(tree)}{tail}"), width, indent=2)
    lines = ["", coloured(outcome, outcome, colour=colour) + first[len(outcome) :], *rest]
    for key, text in reasons(tree, found):
        label = f"{key}: ".ljust(6)
        for number, line in enumerate(text.splitlines()):
            lines += wrapped(" " * len(label) if number else label, _complete_commands(line), width)
    return lines


def reasons(tree: Mapping[str, Any], found: Sequence[HostGroup]) -> list[tuple[str, str]]:
    """Return what the run's failure adds to the groups of hosts: what was seen, and what to do."""
    if tree["outcome"] == "drift":
        return [
            (
                "hint",
                f"`hsm-agent {_DOES.get(tree['command'], 'fleet rollout')}` with the same options corrects it",
            )
        ]
    failure = tree["failure"] or {}
    shown = {each.text for group in found for each in group.hints}
    plain = failure.get("code") in (
        "hosts-failed",
        "interrupted",
    )  # the first line has what was seen
    keys = ("hint",) if plain else ("saw", "hint")
    return [(key, failure[key]) for key in keys if failure.get(key) and failure[key] not in shown]
