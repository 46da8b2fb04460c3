"""Standard output as a person sees it: how wide it is, and how it is to look."""

from __future__ import annotations

import os
import sys
from shutil import get_terminal_size
from typing import Any

from agent.hosts.local import kind_of_terminal
from agent.render.output import print_text


def width() -> int | None:
    """Return how wide the terminal is, None when what reads standard output is a program."""
    return get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


# what TERM says of a terminal that cannot go back in a line, or of which nothing is known
_DUMB = ("", "dumb", "unknown")


def is_dumb() -> bool:
    """Tell whether the terminal may show as text what moves its cursor or paints."""
    return kind_of_terminal(os.environ) in _DUMB


def style() -> dict[str, Any]:
    """Return how a screen is to look: lines are wrapped and painted for a terminal, and left alone for a program."""
    wide = width()
    plain = os.environ.get("NO_COLOR") or is_dumb()
    return {"colour": wide is not None and not plain, "width": wide}


def print_result(text: str) -> None:
    """Write the result, as `print_text` does; on a terminal with our colours."""
    print_text(text, colour=style()["colour"])
