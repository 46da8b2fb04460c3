"""Values -> text for people: one line a step, aligned, readable without colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.core.errors import CODES, EXIT_STATUSES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.errors import Code

_COLOURS = {
    "met": "32", "ok": "32", "changed": "36", "would-change": "33", "degraded": "33", "drift": "33", "undone": "33",
    "rolled-back": "31", "failed": "31", "skipped": "2",
}  # fmt: skip


def report(tree: Mapping[str, Any], *, colour: bool = False) -> str:
    """Return the screen of a report, given as the tree of its JSON: so a report from disk looks the same."""
    host, client = tree["host"], tree["client"]
    head = [host["name"], f"{host['title']} {host['arch']}"]
    if host["platform_forced"]:
        head.append(f"treated as {host['platform']}")
    if client is not None and client["version"]:
        head.append(f"CloudHSM client {client['version'].split('-')[0]}")
    lines = ["  ".join(head), ""]
    lines += [_step(step, tree["ca"], colour=colour) for step in tree["steps"]]
    if tree["steps"]:
        lines.append("")
    lines += [f"warning: {each['text']} ({each['code']})" for each in tree["warnings"]]
    lines += [
        f"restart:  {each['name']} (pid {each['pid']}) still uses the {each['component']} configuration of before"
        for each in tree["restart_needed"]
    ]
    if tree["warnings"] or tree["restart_needed"]:
        lines.append("")
    lines += _verdict(tree, colour=colour)
    return "\n".join(lines) + "\n"


def _step(step: Mapping[str, Any], ca: Mapping[str, Any] | None, *, colour: bool) -> str:
    outcome = step["outcome"]
    saw, want = _short(step["saw"] or ""), _short(step["want"] or "")
    if outcome == "skipped":
        said = step["hint"] or ""
    elif outcome in ("changed", "would-change", "undone"):
        said = f"{saw} -> {want}"
    elif outcome == "failed":
        said = f"{saw}, wanted {want}" if want else saw
    else:
        said = saw
    if step["id"] == "certificate" and outcome in ("met", "changed") and ca is not None:
        said += f"  expires {ca['not_after'][:10]}"
    width = max(22, len(step["id"]) + 1)
    return f"  {_painted(f'{outcome:<13}', outcome, colour=colour)}{step['id']:<{width}} {said}".rstrip()


def _verdict(tree: Mapping[str, Any], *, colour: bool) -> list[str]:
    outcome, code, status = tree["outcome"], tree["code"], tree["exit_status"]
    hsms = tree["hsms"]
    reached = sum(1 for hsm in hsms if hsm["reached"])
    failure = tree["failure"]
    told = {
        "ok": f"{len(tree['steps'])} of {len(tree['steps'])} met"
        if not tree["changed"]
        else "done and verified",
        "drift": "changes are needed"
        if tree["command"] == "plan"
        else "the host differs from what was configured",
        "degraded": f"{reached} of {len(hsms)} HSMs reached",
        "rolled-back": "the previous configuration was put back",
    }.get(outcome, failure["sentence"] if failure else "")
    if outcome == "ok" and not tree["changed"]:
        told = "nothing to do, all verified" if tree["command"] == "configure" else "all as wanted"
    tail = f" (exit {status}, {code})" if code else ""
    lines = [f"{_painted(outcome, outcome, colour=colour)}: {told}{tail}"]
    if failure is None:
        return lines
    if outcome in ("rolled-back", "failed") and tree["cause"]:
        lines.append(f"cause: {CODES[tree['cause']].meaning} ({tree['cause']})")
    in_steps = any(step["code"] in (code, tree["cause"]) for step in tree["steps"] if step["code"])
    if failure["saw"] and not in_steps:
        lines += _indented("saw:  ", failure["saw"])
        lines += _indented("want: ", failure["want"]) if failure["want"] else []
    return [*lines, *_indented("hint: ", failure["hint"])]


def _indented(label: str, text: str) -> list[str]:
    first, *rest = text.splitlines() or [""]
    return [label + first, *(" " * len(label) + line for line in rest)]


def _short(text: str) -> str:
    """Shorten what is only long: a fingerprint to what people compare, several lines to one."""
    shown = " / ".join(text.split("\n"))
    if shown.startswith("sha256:") and len(shown) >= 71:
        return shown[: len("sha256:") + 12] + "…" + shown[71:]
    return shown


def _painted(text: str, outcome: str, *, colour: bool) -> str:
    return f"\033[{_COLOURS.get(outcome, '0')}m{text}\033[0m" if colour else text


def facts(tree: Mapping[str, Any]) -> str:
    """Return what `facts` shows, given the tree of its JSON."""
    host, refusal = tree["host"], tree["refusal"]
    platform = "not in the catalogue"
    if host["platform"]:
        platform = host["platform"] + (" (by --platform)" if host["platform_forced"] else "")
    installed = [
        f"{name} {each['version']}" + (f" ({each['broken']})" if each["broken"] else "")
        for name, each in tree["installed"].items()
    ]
    rows = [
        ("host", host["name"]),
        ("system", host["title"]),
        ("architecture", host["arch"]),
        ("packages", host["package_format"] or "neither apt nor dnf"),
        ("init", host["init"]),
        ("platform", platform),
        ("fits", ", ".join(f"{name} {version}" for name, version in tree["fits"].items()) or "nothing"),
        ("installed", ", ".join(installed) or "no CloudHSM client"),
        *(
            (f"configured {name}", " ".join(each["servers"]) or "no")
            for name, each in tree["configured"].items()
        ),
        ("CA", "present" if tree["ca_present"] else "absent"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    lines += [f"advice: {notice['text']} ({notice['code']})" for notice in tree["advice"]]
    if refusal is not None:
        lines += ["", f"{refusal['code']}: {refusal['sentence']}", *_indented("hint: ", refusal["hint"])]
    return "\n".join(lines) + "\n"


def explain(code: Code) -> str:
    """Return one code, whole."""
    return (
        f"{code.name}: {code.meaning}\n\n"
        f"exit   {code.exit_status}  {EXIT_STATUSES[code.exit_status]}\n"
        f"causes {code.causes}\n"
        f"fix    {code.fix}\n"
    )


def codes() -> str:
    """Return the table of exit statuses and their codes."""
    lines = []
    for status, meaning in EXIT_STATUSES.items():
        lines.append(f"{status:>3}  {meaning}")
        lines += [
            f"       {code.name:<24} {code.meaning}" for code in CODES.values() if code.exit_status == status
        ]
    return "\n".join(lines) + "\n"
