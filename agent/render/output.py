"""The one place that writes to standard output and standard error, of which either may be closed, full or unread."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError
from agent.core.plain import lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

_PAINT = re.compile(r"(\033\[(?:[0-9]{1,2})m)")


class UnreadError(Exception):
    """The reader of standard output is gone. Not an OSError: for that the parser exits with status 1."""


class UnwrittenError(AgentError):
    """The result could not be written, so nothing more can be."""


def print_text(text: str, *, colour: bool = False) -> None:
    """Write the result. A reader that is gone does not change how the run ended; a full disk is reported.

    Control characters are removed here, whatever their source.
    """
    if sys.stdout is not None:
        encoding = sys.stdout.encoding or "utf-8"
        print_bytes(_screened(text, colour=colour).encode(encoding, "replace"))


def print_bytes(data: bytes) -> None:
    """Write bytes that are no text, or are encoded already."""
    if sys.stdout is None:
        return
    try:
        with _writing():
            if isinstance(sys.stdout, CommandOutput):
                sys.stdout.spoken = True
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    except UnreadError:
        sys.stdout = None


class CommandOutput:
    """Standard output for the parser, which writes help by itself: its write errors are reported like the agent's.

    `spoken` tells whether anything was written, so that nothing is added to it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.spoken = False

    def write(self, text: str) -> int:
        self.spoken = True
        with _writing():
            return self._stream.write(text)

    def flush(self) -> None:
        with _writing():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise UnreadError from error
    except OSError as error:
        sys.stdout = None
        raise UnwrittenError(
            "write-failed", "the result could not be written to standard output", saw=str(error),
            want="room", hint="free the space there, or write elsewhere; a run itself ended before this",
        ) from error  # fmt: skip


def print_error(text: str) -> None:
    """Write to standard error; if that is closed, full or unread, nothing happens."""
    if sys.stderr is not None:
        encoding = sys.stderr.encoding or "utf-8"
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(_screened(text, colour=False).encode(encoding, "replace").decode(encoding))
            sys.stderr.flush()


def _screened(text: str, *, colour: bool) -> str:
    """Return a screen with nothing but lines and, if wanted, the agent's own colours."""
    kept = _PAINT.split(text) if colour else [text]  # the colours are at odd indexes
    return "".join(part if number % 2 else lines(part) for number, part in enumerate(kept))
