"""Standard output: how wide it is, how it is to look, and the one place that writes to it."""

from __future__ import annotations

import os
import sys
from shutil import get_terminal_size
from typing import Any

from agent.core.errors import AgentError


def width() -> int | None:
    """Return how wide the terminal is, None when what reads standard output is a program."""
    return get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def look() -> dict[str, Any]:
    """Return how a screen is to look: lines are wrapped and painted for a terminal, and left alone for a program."""
    wide = width()
    return {"colour": wide is not None and not os.environ.get("NO_COLOR"), "width": wide}


def print_result(text: str) -> None:
    """Write the result. A reader that is gone does not change how the run ended; a full disk is told."""
    if sys.stdout is None:
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # what is still buffered would fail again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise AgentError(
            "write-failed", "the result could not be written to standard output", saw=str(error),
            want="room", hint="free the space there; the run itself ended before this",
        ) from error  # fmt: skip
