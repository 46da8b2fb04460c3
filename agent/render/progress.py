"""What is going on, on standard error: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from agent.core.words import Outcome

if TYPE_CHECKING:
    from typing import TextIO

    from agent.core.words import Line


class Progress(Protocol):
    """The engine's Listener, and one to tell how far a download is."""

    def began(self, line_id: str, *, touching: bool) -> None: ...

    def ended(self, line: Line) -> None: ...

    def downloaded(self, have: int, total: int | None) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Nothing is shown: results only."""

    def began(self, line_id: str, *, touching: bool) -> None:
        pass

    def ended(self, line: Line) -> None:
        pass

    def downloaded(self, have: int, total: int | None) -> None:
        pass

    def close(self) -> None:
        pass


class Plain(Silent):
    """One line for each step that changes something or takes a touch: what user-data's log shows."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def began(self, line_id: str, *, touching: bool) -> None:
        if touching:
            self._say(f"{line_id} …")

    def ended(self, line: Line) -> None:
        if line.outcome is not Outcome.SKIPPED:
            self._say(f"{line.id} {line.outcome.value}" + (f" ({line.code})" if line.code else ""))

    def _say(self, text: str) -> None:
        self._stream.write(f"hsm-agent: {text}\n")
        self._stream.flush()


class Live:
    """A spinner with the step that is at work, and a bar while something is downloaded."""

    def __init__(self, stream: TextIO) -> None:
        # 45 ms that only a person at a terminal pays, and does not notice
        from rich.console import Console  # noqa: PLC0415
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
        from rich.progress import Progress as Bars  # noqa: PLC0415

        self._bars = Bars(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[size]}"),
            TimeElapsedColumn(), console=Console(file=stream), transient=True,
        )  # fmt: skip
        self._task: Any = self._bars.add_task("looking", total=None, size="")
        self._bars.start()

    def began(self, line_id: str, *, touching: bool) -> None:
        self._bars.reset(
            self._task, description=("doing " if touching else "looking at ") + line_id, total=None, size=""
        )

    def ended(self, line: Line) -> None:
        pass

    def downloaded(self, have: int, total: int | None) -> None:
        size = f"{have / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB")
        self._bars.update(self._task, completed=have, total=total, size=size)

    def close(self) -> None:
        self._bars.stop()


def choose(stream: TextIO, *, quiet: bool) -> Progress:
    """Return what fits the stream."""
    if quiet:
        return Silent()
    return Live(stream) if stream.isatty() else Plain(stream)
