"""Which display fits: nothing, lines for a log, or a live one for a person at a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.render.fleet.counters import RolloutCounters
from agent.render.fleet.log_lines import LogLines

if TYPE_CHECKING:
    from typing import TextIO

    from agent.core.fleet_model import RolloutListener


def choose(stream: TextIO | None, *, quiet: bool, dumb: bool = False, colour: bool = True) -> RolloutListener:
    """Return what fits the stream, which is None when it was closed; `dumb` terminals cannot go back in a line.

    Without `colour` (NO_COLOR) the live display is the same, unpainted.
    """
    if quiet or stream is None:
        return RolloutCounters()
    if stream.isatty() and not dumb:
        from agent.render.fleet.live import LiveDisplay  # noqa: PLC0415 -- a log needs no threads

        return LiveDisplay(stream, colour=colour)
    return LogLines(stream)
