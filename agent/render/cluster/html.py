"""A cluster -> one HTML file to keep, send and print: a picture with tables, complete, without scripts or requests."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from agent.core.plain import printable
from agent.render.cluster.document import blocked_paths
from agent.render.cluster.picture import draw
from agent.render.cluster.screen import goal, summary
from agent.render.templates import render

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LONGEST = 400
# How many rows of one table there are, names in one line, and rows of a table that is open.
_ROWS, _NAMES, _OPEN = 500, 40, 40

# what the kinds of box in the picture are
_KEY = (
    ("client", "in the security group"),
    ("outside", "outside it"),
    ("eni", "network interface of an HSM"),
    ("hsm", "HSM"),
    ("weak", "degraded"),
    ("moving", "being made or deleted"),
    ("blocked", "cannot reach: the number leads to the cause"),
)


def page(tree: Mapping[str, Any]) -> str:
    """Return the page, given the tree of the cluster's JSON."""
    cluster, style, picture = tree["cluster"], render("cluster/page.css"), draw(tree)
    return render(
        "cluster/page.html",
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        title=_text(f"{cluster['id']}: {cluster['state']}, {tree['asked']}"),
        id=_text(cluster["id"]),
        state=_text(cluster["state"]),
        tone="bad" if tree["failure"] else "well" if cluster["state"] == "ACTIVE" else "weak",
        told=_text(summary(tree)),
        failure=_failure(tree),
        facts=_facts(tree),
        picture=picture,
        key=[(kind, text) for kind, text in _KEY if kind in picture.kinds],
        blocked=[_blocked(tree, *each) for each in blocked_paths(tree)],
        notices=[{name: _text(text) for name, text in each.items()} for each in tree["notices"]],
        hsms=[_hsm(each) for each in tree["hsms"]],
        host=_text(tree["this_host"]["name"]),
        configuration=[_configuration(each) for each in tree["this_host"]["configuration"]],
        tables=_tables(tree),
    )


def _text(value: object, longest: int = _LONGEST) -> str:
    """Return a text without control characters or changes of the writing direction, and bounded."""
    shown = " / ".join(printable(line) for line in str(value or "")[: 2 * longest].splitlines())
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def _failure(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    failure = tree["failure"] or {}
    return [(name, _text(failure[name])) for name in ("saw", "want", "hint") if failure.get(name)]


def _facts(tree: Mapping[str, Any]) -> list[tuple[str, str]]:
    cluster, ca = tree["cluster"], tree["ca"]
    proven = {True: "proven", False: "not the cluster's", None: "not proven"}
    parts = [
        ("region", cluster["region"]),
        ("type", cluster["hsm_type"]),
        ("mode", cluster["mode"]),
        ("newest backup", _time(tree["newest_backup"])),
        ("CA", f"{ca['source']}: {proven[ca['proven']]}" if ca else ""),
        ("asked", _time(tree["asked"])),
        ("agent", tree["agent_version"]),
        ("AWS says", cluster["message"]),
    ]
    return [(label, _text(value)) for label, value in parts if value]


def _time(text: str | None) -> str:
    return (text or "").replace("T", " ").replace("Z", " UTC")


def _blocked(
    tree: Mapping[str, Any], path: Mapping[str, Any], instances: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    first, *others = (each["name"] or each["id"] for each in instances)
    more = f" and {len(others) - _NAMES:,} more" if len(others) > _NAMES else ""
    return {
        "who": _text(first),
        "goal": _text(goal(tree, path)),
        "others": ", ".join(_text(each, 80) for each in others[:_NAMES]) + more,
        "cure": _text(_command(path["cure"]), 2000),
        **{name: _text(path[name]) for name in ("code", "saw", "want")},
    }


def _command(text: str) -> str:
    """Return a command without the marks around it, where there is nothing but a command."""
    return text[1:-1] if text.count("`") == len(text) - len(text.strip("`")) == len("``") else text


def _hsm(each: Mapping[str, Any]) -> dict[str, str]:
    tone = ("well" if each["state"] == "ACTIVE" else "weak") if each["usable"] else "dim"
    return {
        **{name: _text(each[name]) for name in ("zone", "state", "message", "id", "interface", "subnet", "range")},
        "addresses": _text(" ".join(each["addresses"]) or "none yet"),
        "tone": tone,
    }  # fmt: skip


def _configuration(each: Mapping[str, Any]) -> dict[str, str]:
    lists = {name: _text(" ".join(each[name])) for name in ("servers", "missing", "foreign")}
    return {"component": _text(each["component"]), **lists}


def _tables(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of instances: members of the group, what else is in it, and those outside."""
    instances = tree["instances"] or ()
    members = [_instance(each) for each in instances if each["in_group"]]
    outside = [_instance(each) for each in instances if not each["in_group"]]
    others = [_other(each) for each in tree["other_interfaces"] or ()]
    found = [
        ("instance in the security group", "instances in the security group", members),
        ("other interface in it", "other interfaces in it", others),
        ("instance of the VPC outside it", "instances of the VPC outside it", outside),
    ]
    return [
        {
            "title": f"{len(rows):,} {one if len(rows) == 1 else many}",
            "rows": rows[:_ROWS],
            "more": f"{len(rows) - _ROWS:,}" if len(rows) > _ROWS else "",
            "open": len(rows) <= _OPEN,
        }
        for one, many, rows in found
        if rows
    ]


def _instance(each: Mapping[str, Any]) -> dict[str, Any]:
    blocked = each["blocked"]
    reaches = {True: "yes", False: "no", None: "not known"}[each["reaches"]]
    tone = {True: "well", None: "dim"}.get(each["reaches"], "bad" if each["in_group"] else "dim")
    return {
        "name": _text(each["name"] or "(no name)"),
        "id": _text(each["id"]),
        "addresses": _text(" ".join(each["addresses"])),
        "zone": _text(each["zone"]),
        "state": _text(each["state"]),
        "here": each["this_host"],
        "reaches": reaches + (f": {_text(blocked[0]['code'])}" if blocked else ""),
        "tone": tone,
    }


def _other(each: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": _text(each["description"] or "(no description)"),
        "id": _text(each["interface"]),
        "addresses": _text(" ".join(each["addresses"])),
        "zone": _text(each["zone"]),
        "state": _text(each["kind"]),
        "here": False,
        "reaches": "not judged",
        "tone": "dim",
    }
