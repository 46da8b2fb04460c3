"""Standard output as a person sees it: its width, and the style of a screen."""

from __future__ import annotations

import os
import sys
from shutil import get_terminal_size
from typing import Any

from agent.hosts.local import kind_of_terminal
from agent.render.output import print_text


def width() -> int | None:
    """Return the width of the terminal, None when a program reads standard output."""
    return get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


# the values of TERM for a terminal that cannot move its cursor back in a line, or that is unknown
_DUMB = ("", "dumb", "unknown")


def is_dumb() -> bool:
    """Tell whether the terminal may display control sequences as text."""
    return kind_of_terminal(os.environ) in _DUMB


def style() -> dict[str, Any]:
    """Return the style of a screen: lines are wrapped and coloured for a terminal, and unchanged for a program."""
    wide = width()
    plain = os.environ.get("NO_COLOR") or is_dumb()
    return {"colour": wide is not None and not plain, "width": wide}


def print_result(text: str) -> None:
    """Write the result, as `print_text` does; on a terminal with the agent's colours."""
    print_text(text, colour=style()["colour"])
