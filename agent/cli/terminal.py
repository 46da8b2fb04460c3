"""Standard output as a person sees it: how wide it is, and how it is to look."""

from __future__ import annotations

import os
import sys
from shutil import get_terminal_size
from typing import Any

from agent.render.output import print_text


def width() -> int | None:
    """Return how wide the terminal is, None when what reads standard output is a program."""
    return get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def look() -> dict[str, Any]:
    """Return how a screen is to look: lines are wrapped and painted for a terminal, and left alone for a program."""
    wide = width()
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return {"colour": wide is not None and not plain, "width": wide}


def print_result(text: str) -> None:
    """Write the result, as `print_text` does; on a terminal with our colours."""
    print_text(text, colour=look()["colour"])
