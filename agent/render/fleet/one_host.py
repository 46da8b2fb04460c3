"""One host of a roll-out in full: its own report as it is shown on the host, below how the roll-out saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.plain import printable
from agent.render import screen as host_screen
from agent.render.fleet.humanize import duration, host_place

if TYPE_CHECKING:
    from collections.abc import Mapping


def screen(part: Mapping[str, Any], *, colour: bool = False, width: int | None = None) -> str:
    """Return the screen of a host that has a report, given its part of the fleet's report."""
    words = [part["outcome"], part["name"], host_place(part)]
    words += [f"wave {part['wave']}"] if part["wave"] else []
    words += [duration(part["seconds"])] if part["seconds"] else []
    words += [f"({part['code']})"] if part["code"] else []
    lines = [printable("  ".join(words))]
    if part["saw"] and part["code"] != part["report"]["code"]:  # it is the roll-out's own
        lines.append(printable(f"saw:  {part['saw']}"))
    return "\n".join([*lines, "", host_screen.status(part["report"], colour=colour, width=width)])


def exit_status_of(part: Mapping[str, Any]) -> int:
    """Return how the run of a host that has a report ended: as it says, unless the roll-out judged otherwise."""
    code, report = part["code"], part["report"]
    exit_status: int = report["exit_status"] if code in (report["code"], None) else CODES[code].exit_status
    return exit_status


def failure_of(part: Mapping[str, Any]) -> AgentError:
    """Return what a roll-out knows of a host that has no report, as the error that it is."""
    code = part["code"]
    if code not in CODES:  # not begun, or no end is known
        return AgentError(
            "nothing-recorded", f"there is no report of {printable(part['name'])}",
            saw=part["saw"] or part["outcome"], want="a host that has ended", hint=part["hint"],
        )  # fmt: skip
    sentence = printable(f"{part['name']}: {part['sentence'] or CODES[code].meaning}")
    return AgentError(code, sentence, saw=part["saw"] or "", want=part["want"] or "", hint=part["hint"])
