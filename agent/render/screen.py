"""Values -> text for people: one line per step, aligned, readable without colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.core.codes import CODES, EXIT_STATUSES
from agent.core.plain import printable
from agent.render.text import NBSP, coloured, labelled, short, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.core.codes import ErrorCode
    from agent.core.notices import WarningCode

# successes and useful remarks, which are no warnings
_NOTES = ("previous-works", "kept")
_DONE = {
    "configure": ("done and verified", "nothing to do, all verified"),
    "rollback": ("the configuration is as it was before that run", "nothing to put back"),
    "remove": ("the client packages are off this host", "no client is installed"),
}


def report(tree: Mapping[str, Any], *, colour: bool = False, width: int | None = None) -> str:
    """Return the screen of a report, given as the tree of its JSON: so a report from disk looks the same.

    `width` wraps lines that are too long for a terminal; None leaves every step on one line, for `grep`.
    """
    lines = [*wrapped("", "  ".join(_head(tree)), width, indent=2), ""]
    lines += _steps(tree, colour=colour, width=width)
    notices = [
        *(_notice(each) for each in tree["warnings"]),
        *(
            f"restart: {each['name']} (pid {each['pid']}) still uses the {each['component']} configuration of before"
            for each in tree["restart_needed"]
        ),
    ]
    for text in notices:
        lines += wrapped("", text, width, indent=len(text.split(" ", 1)[0]) + 1)
    if notices:
        lines.append("")
    lines += _verdict(tree, colour=colour, width=width)
    return "\n".join(lines) + "\n"


def status(tree: Mapping[str, Any], *, colour: bool = False, width: int | None = None) -> str:
    """Return the screen of `status`: the name and time of the run, and its screen."""
    when = tree["finished"].replace("T", " ").replace("Z", " UTC")
    last = printable(f"last run: {tree['command']}, {when}, {tree['run_id']}")
    return f"{last}\n\n{report(tree, colour=colour, width=width)}"


def _head(tree: Mapping[str, Any]) -> list[str]:
    host, client = tree["host"], tree["client"]
    head = [host["name"]]
    if (
        host["os"] != "unknown" or host["arch"] != "unknown"
    ):  # which it is when the run ended before it looked
        head.append(f"{host['title']} {host['arch']}")
    if host["platform_forced"]:
        head.append(f"treated as {host['platform']}")
    if client is not None and client["version"]:
        head.append(f"CloudHSM client {client['version'].split('-')[0]}")
    return head


def _steps(tree: Mapping[str, Any], *, colour: bool, width: int | None) -> list[str]:
    steps = tree["steps"]
    if not steps:
        return []
    wide = max(len(step["outcome"]) for step in steps) + 2
    name = max(20, *(len(step["id"]) for step in steps)) + 2
    lines = []
    for step in steps:
        outcome = coloured(f"{step['outcome']:<{wide}}", step["outcome"], colour=colour)
        bare = f"  {step['outcome']:<{wide}}{step['id']:<{name}}"
        first, *rest = wrapped(bare, _step_text(step, tree["ca"]), width)
        lines.append(f"  {outcome}{first[2 + wide :]}".rstrip())
        lines += rest
        if tree["command"] == "plan" and step["outcome"] == "would-change" and step.get("url"):
            from_ = [step["url"], f"sha256:{step['sha256']}" if step["sha256"] else "no checksum is known"]
            lines += [" " * (2 + wide) + printable(each) for each in from_]
    return [*lines, ""]


def _step_text(step: Mapping[str, Any], ca: Mapping[str, Any] | None) -> str:
    outcome = step["outcome"]
    saw, want = _differing(step["saw"] or "", step["want"] or "")
    if outcome == "skipped":
        text = step["hint"] or ""
    elif outcome == "undone" and saw == want:
        text = f"{saw}, other settings put back"
    elif outcome in ("changed", "would-change", "undone"):
        text = f"{saw} -> {want}"
    elif outcome == "failed":
        text = f"{saw}, wanted {want}" if want else saw
    else:
        text = short(step["saw"] or "")
    if step["id"] == "certificate" and outcome in ("met", "changed", "would-change") and ca is not None:
        text += f"  expires{NBSP}{ca['not_after'][:10]}"
    return text


def _differing(saw: str, want: str) -> tuple[str, str]:
    """Remove from two lists the entries that they share: the reader looks for the difference."""
    before, after = saw.split("; "), want.split("; ")
    if saw != want and len(before) == len(after) > 1:
        pairs = [pair for pair in zip(before, after) if pair[0] != pair[1]]
        saw, want = "; ".join(pair[0] for pair in pairs), "; ".join(pair[1] for pair in pairs)
    return short(saw), short(want)


def _verdict(tree: Mapping[str, Any], *, colour: bool, width: int | None) -> list[str]:
    outcome, code, failure = tree["outcome"], tree["code"], tree["failure"]
    tail = f" (exit {tree['exit_status']}, {code})" if code else ""
    first, *rest = wrapped("", f"{outcome}: {_outcome_text(tree)}{tail}", width, indent=2)
    lines = [coloured(outcome, outcome, colour=colour) + first[len(outcome) :], *rest]
    if failure is None:
        return lines
    cause = CODES.get(tree["cause"] or "")
    if outcome in ("rolled-back", "failed") and cause:
        lines += wrapped("cause: ", f"{cause.meaning} ({cause.name})", width)
    in_steps = any(step["code"] in (code, tree["cause"]) for step in tree["steps"] if step["code"])
    if failure["saw"] and not in_steps:
        lines += labelled("saw:  ", failure["saw"], width)
        lines += labelled("want: ", failure["want"], width) if failure["want"] else []
    return [*lines, *_hints(tree)]


def _hints(tree: Mapping[str, Any]) -> list[str]:
    """Return the hints, each once; if there are several, with the steps that they are for."""
    hints: dict[str, list[str]] = {tree["failure"]["hint"]: []}
    for step in tree["steps"]:
        if step["outcome"] == "failed" and step["hint"]:
            hints.setdefault(step["hint"], []).append(step["id"])
    lines = []
    for hint, steps in hints.items():
        lines += labelled("hint: ", (f"{', '.join(steps)}: " if steps and len(hints) > 1 else "") + hint)
    return lines


def _outcome_text(tree: Mapping[str, Any]) -> str:
    """Return one sentence on how the run ended."""
    outcome, command = tree["outcome"], tree["command"]
    if outcome == "ok":
        texts = _DONE.get(command, ("", "all as wanted"))
        return texts[0] if tree["changed"] else texts[1]
    differ = sum(1 for step in tree["steps"] if step["outcome"] == "would-change")
    if outcome == "drift" and command == "plan":
        return f"{differ} change{'s are' if differ > 1 else ' is'} needed"
    differing = f"{differ} thing{' differs' if differ == 1 else 's differ'} from what is wanted"
    if outcome == "drift":
        failure = tree["failure"]
        return differing if differ or failure is None else printable(failure["sentence"])
    if outcome == "degraded":
        hsms = tree["hsms"]
        reached = sum(1 for hsm in hsms if hsm["reached"])
        few = f"{reached} of {len(hsms)} HSMs reached"
        text = few if reached < len(hsms) else "not every HSM answers the client"
        return f"{text}, and {differing}" if differ else text
    if outcome == "rolled-back":
        return "the previous configuration was put back"
    return tree["failure"]["sentence"] if tree["failure"] else ""


def _notice(notice: Mapping[str, Any]) -> str:
    label = "note:" if notice["code"] in _NOTES else "warning:"
    return f"{label} {notice['text']} ({notice['code']})"


def facts(tree: Mapping[str, Any]) -> str:
    """Return the screen of `facts`, given the tree of its JSON."""
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
        (
            "fits",
            _joined(f"{name} {version}" for name, version in tree["fits"].items()) or "no CloudHSM client",
        ),
        ("installed", _joined(installed) or "no CloudHSM client"),
        *(
            (f"configured {name}", " ".join(each["servers"]) or "not yet")
            for name, each in tree["configured"].items()
        ),
        ("CA", "present" if tree["ca_present"] else "absent"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {printable(value)}" for name, value in rows]
    if tree["advice"]:
        lines += [
            "",
            *(printable(f"advice: {notice['text']} ({notice['code']})") for notice in tree["advice"]),
        ]
    if refusal is not None:
        code = refusal["code"]
        said = f"refused: {refusal['sentence']} (exit {CODES[code].exit_status}, {code})"
        lines += ["", printable(said), *labelled("hint: ", refusal["hint"])]
    return "\n".join(lines) + "\n"


def _joined(words: Iterable[str]) -> str:
    return ", ".join(words)


def explain(code: ErrorCode, *, width: int | None = None) -> str:
    """Return one code in full."""
    rows = (
        ("exit:   ", f"{code.exit_status}, {EXIT_STATUSES[code.exit_status]}"),
        ("causes: ", code.causes),
        ("fix:    ", code.fix),
    )
    lines = [line for label, text in rows for line in wrapped(label, text, width)]
    return "\n".join([f"{code.name}: {code.meaning}", "", *lines]) + "\n"


def explain_warning(warned: WarningCode, *, width: int | None = None) -> str:
    """Return the meaning of a warning's code."""
    lines = [line for label, text in (("fix:    ", warned.fix),) for line in wrapped(label, text, width)]
    return (
        "\n".join([f"{warned.name}: {warned.meaning}", "", "a warning: it never makes a run fail", *lines])
        + "\n"
    )


def codes(only: int | None = None, *, width: int | None = None) -> str:
    """Return the table of exit statuses and their codes, or only the rows of one status."""
    lines = []
    for exit_status, meaning in EXIT_STATUSES.items():
        if only not in (None, exit_status):
            continue
        lines += wrapped(f"{exit_status:>3}  ", meaning, width)
        for code in CODES.values():
            if code.exit_status == exit_status:
                lines += wrapped(f"       {code.name:<24} ", code.meaning, width)
    return "\n".join(lines) + "\n"
