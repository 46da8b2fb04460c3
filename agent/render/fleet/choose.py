"""The display for a stream: none, lines for a log, or a live one on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.render.fleet.counters import RolloutCounters
from agent.render.fleet.log_lines import LogLines

if TYPE_CHECKING:
    from typing import TextIO

    from agent.core.fleet_model import RolloutListener


def choose(stream: TextIO | None, *, quiet: bool, dumb: bool = False, colour: bool = True) -> RolloutListener:
    """Return the display for the stream, which is None when it was closed; `dumb` terminals cannot move the cursor.

    Without `colour` (NO_COLOR) the live display is the same, without colours.
    """
    if quiet or stream is None:
        return RolloutCounters()
    if stream.isatty() and not dumb:
        from agent.render.fleet.live import LiveDisplay  # noqa: PLC0415 -- a log needs no threads

        return LiveDisplay(stream, colour=colour)
    return LogLines(stream)
