"""A cluster as text for people: HSMs by zone, who is in its group and reaches them, this host, risks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.render.cluster.document import blocked_paths
from agent.render.text import coloured, labelled, short, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# How many rows of one table are shown; JSON has them all.
_MOST = 20
_LABEL = 16
# How many names stand in one line.
_NAMES = 5


def screen(tree: Mapping[str, Any], *, colour: bool = False, width: int | None = None) -> str:
    """Return the screen, given the tree of its JSON. `width` wraps for a terminal; None leaves each row on one line."""
    parts = [
        _head(tree, width),
        _hsms(tree, colour=colour),
        [*_members(tree, width), *_others(tree)],
        _facts(tree, width),
        _blocked(tree, width),
        _notices(tree, width),
        _verdict(tree, colour=colour, width=width),
    ]
    return "\n\n".join("\n".join(each) for each in parts if each) + "\n"


def _head(tree: Mapping[str, Any], width: int | None) -> list[str]:
    cluster = tree["cluster"]
    words = [cluster[key] for key in ("id", "state", "hsm_type", "mode", "region", "vpc")]
    lines = wrapped("", "  ".join(filter(None, words)), width, indent=2)
    return [*lines, *(wrapped("  ", cluster["message"], width) if cluster["message"] else [])]


def _hsms(tree: Mapping[str, Any], *, colour: bool) -> list[str]:
    if not tree["hsms"]:
        return ["no HSM"]
    rows = [
        (each["zone"], " ".join(each["addresses"]) or "no address", each["state"], each["id"], each["subnet"])
        for each in tree["hsms"]
    ]
    lines = []
    for each, line in zip(tree["hsms"], _table(rows)):
        outcome = "ok" if each["usable"] and each["state"] == "ACTIVE" else "degraded"
        lines.append(coloured(line, outcome, colour=colour) if outcome != "ok" else line)
        if each["message"]:
            lines += wrapped("      ", each["message"], None)
    return lines


def _members(tree: Mapping[str, Any], width: int | None) -> list[str]:
    group = tree["cluster"]["security_group"]
    title = f"security group {group['name']}" + (f" ({group['id']})" if group["id"] else "")
    if tree["instances"] is None:
        return wrapped("", f"{title}: who is in it is not known", width, indent=2)
    members = [each for each in tree["instances"] if each["in_group"]]
    outside = len(tree["instances"]) - len(members)
    free = sum(1 for each in tree["instances"] if not each["in_group"] and each["reaches"])
    also = f", {free} of which reach the HSMs all the same" if free else ""
    lines = wrapped(
        "",
        f"{title}: {_counted(len(members), 'instance')}, and {outside} of the VPC outside it{also}",
        width,
        indent=2,
    )
    rows = [_member(each) for each in members[:_MOST]]
    return [*lines, *_table(rows), *_more(len(members))]


def _member(each: Mapping[str, Any]) -> tuple[str, ...]:
    addresses = " ".join(each["addresses"])
    return (each["name"] or "(no name)", each["id"], addresses, each["zone"], each["state"], _remark(each))


def _remark(instance: Mapping[str, Any]) -> str:
    words = ["this host"] if instance["this_host"] else []
    return ", ".join([*words, *(["cannot reach every HSM"] if instance["blocked"] else [])])


def _others(tree: Mapping[str, Any]) -> list[str]:
    rows = [
        (each["kind"] or "interface", each["interface"], " ".join(each["addresses"]), each["zone"], each["description"])
        for each in tree["other_interfaces"] or ()
    ]  # fmt: skip
    return [*_table(rows[:_MOST]), *_more(len(rows))]


def _facts(tree: Mapping[str, Any], width: int | None) -> list[str]:
    rows = [*_host_rows(tree)]
    ca = tree["ca"]
    if ca is not None:
        proven = {True: "proven", False: "not the cluster's", None: "not proven"}[ca["proven"]]
        rows.append(("CA", f"{ca['source']} is {proven}: {short(ca['saw'])}"))
    if tree["newest_backup"]:
        rows.append(("newest backup", tree["newest_backup"].replace("T", " ").replace("Z", " UTC")))
    return [line for label, text in rows for line in wrapped(f"{label:<{_LABEL}}", text, width)]


def _host_rows(tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    host = tree["this_host"]
    group = {True: ", in the security group", False: ", not in the security group", None: ""}[
        host["in_group"]
    ]
    yield "this host", " ".join(filter(None, (host["name"], host["instance_id"]))) + group
    for each in host["configuration"]:
        parts = [f"lacks {' '.join(each['missing'])}"] if each["missing"] else []
        parts += [f"has {' '.join(each['foreign'])}, where no HSM is"] if each["foreign"] else []
        said = " and ".join(parts) or "has every HSM of the cluster"
        yield "", f"the configuration of {each['component']} {said}"
    if not host["configuration"]:
        yield "", "no client is configured here"


def _blocked(tree: Mapping[str, Any], width: int | None) -> list[str]:
    """Return who does not reach which HSM, with the fix; whoever the same thing stops is named with the first."""
    found = blocked_paths(tree)
    lines = []
    for path, instances in found[:_MOST]:
        first, *others = (each["name"] or each["id"] for each in instances)
        more = f" and {len(others) - _NAMES} more" if len(others) > _NAMES else ""
        also = f"; neither can {', '.join(others[:_NAMES])}{more}" if others else ""
        text = f"{first} cannot reach {goal(tree, path)}: {path['saw']} ({path['code']}){also}"
        lines += wrapped("blocked: ", text, width)
        lines += labelled("  fix: ", path["cure"])
    return [*lines, *_more(len(found))]


def goal(tree: Mapping[str, Any], path: Mapping[str, Any]) -> str:
    """Return which HSMs are not reached."""
    usable = [each["id"] for each in tree["hsms"] if each["usable"]]
    return "any HSM" if len(path["hsms"]) == len(usable) else ", ".join(path["hsms"])


def _notices(tree: Mapping[str, Any], width: int | None) -> list[str]:
    lines = []
    for each in tree["notices"]:
        lines += wrapped("warning: ", f"{each['text']} ({each['code']})", width)
        lines += labelled("  fix: ", each["cure"]) if each["cure"] else []
    return lines


def summary(tree: Mapping[str, Any]) -> str:
    """Return in one line whether clients can use the cluster."""
    failure = tree["failure"]
    if failure is not None:
        return f"failed: {failure['sentence']} (exit {tree['exit_status']}, {tree['code']})"
    return f"ok: clients can use {_counted(sum(1 for each in tree['hsms'] if each['usable']), 'HSM')}"


def _verdict(tree: Mapping[str, Any], *, colour: bool, width: int | None) -> list[str]:
    failure, outcome = tree["failure"], tree["outcome"]
    first, *rest = wrapped("", summary(tree), width, indent=2)
    lines = [coloured(outcome, outcome, colour=colour) + first[len(outcome) :], *rest]
    if failure is None:
        return lines
    lines += labelled("saw:  ", failure["saw"], width) + labelled("want: ", failure["want"], width)
    return [*lines, *(labelled("hint: ", failure["hint"]) if failure["hint"] else [])]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows with their columns aligned."""
    shown = [tuple(short(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown)]
    return [
        ("  " + "  ".join(f"{cell:<{wide}}" for cell, wide in zip(row, widths) if wide)).rstrip()
        for row in shown
    ]


def _more(count: int) -> list[str]:
    return [f"  and {count - _MOST:,} more: `--output json` lists them all"] if count > _MOST else []


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")
