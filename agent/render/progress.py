"""The progress of a run on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from agent.core.model import StepOutcome

if TYPE_CHECKING:
    from typing import TextIO

    from agent.core.model import StepResult

_BAR = 20


class Progress(Protocol):
    """The engine's Listener, and a callback for the progress of a download."""

    def began(self, line_id: str, *, changing: bool) -> None: ...

    def ended(self, line: StepResult) -> None: ...

    def downloaded(self, have: int, total: int | None) -> None: ...

    def close(self) -> None: ...


class NullProgress:
    """Shows nothing: results only."""

    def began(self, line_id: str, *, changing: bool) -> None:
        pass

    def ended(self, line: StepResult) -> None:
        pass

    def downloaded(self, have: int, total: int | None) -> None:
        pass

    def close(self) -> None:
        pass


class LineProgress(NullProgress):
    """One line for each step that begins to change the host and each that ends: these are in the log of user-data."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = TolerantStream(stream)

    def began(self, line_id: str, *, changing: bool) -> None:
        if changing:
            self._write_line(f"{line_id} ...")

    def ended(self, line: StepResult) -> None:
        if line.outcome is not StepOutcome.SKIPPED:
            self._write_line(f"{line.id} {line.outcome.value}" + (f" ({line.code})" if line.code else ""))

    def _write_line(self, text: str) -> None:
        self._stream.write(f"hsm-agent: {text}\n")
        self._stream.flush()


class SpinnerProgress:
    """A spinner with the running step, and a bar during a download; removed when the run is over."""

    def __init__(self, stream: TextIO) -> None:
        # 45 ms that only a person at a terminal pays, and does not notice
        from rich.console import Console  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console(
            file=cast("IO[str]", TolerantStream(stream)), force_terminal=True, highlight=False, markup=False
        )
        self._step = "checking"
        self._text = Text  # a plain string would be parsed as markup, and so would a bar's brackets
        self._status: Any = console.status(Text(self._step))
        self._status.start()

    def began(self, line_id: str, *, changing: bool) -> None:
        self._step = line_id if changing else f"checking {line_id}"
        self._status.update(self._text(self._step))

    def ended(self, line: StepResult) -> None:
        pass

    def downloaded(self, have: int, total: int | None) -> None:
        self._status.update(self._text(f"{self._step}  {how_far(have, total)}"))

    def close(self) -> None:
        self._status.stop()


class TolerantStream:
    """A stream that may be gone: a log that cannot be written, or a closed terminal, does not end a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def how_far(have: int, total: int | None) -> str:
    """Return a bar and the megabytes, or only these when the server did not send the size."""
    if not total:
        return f"{have / 1e6:.1f} MB"
    done = min(_BAR, _BAR * have // total)
    return f"[{'#' * done}{'.' * (_BAR - done)}] {have / 1e6:.1f} of {total / 1e6:.1f} MB"


def choose(stream: TextIO | None, *, quiet: bool, dumb: bool = False) -> Progress:
    """Return the display for a stream, which is None when it was closed; `dumb` terminals cannot rewrite a line."""
    if quiet or stream is None:
        return NullProgress()
    return SpinnerProgress(stream) if stream.isatty() and not dumb else LineProgress(stream)
