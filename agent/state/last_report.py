"""The last report of this host, or the one that a run in progress will leave: what `status` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable

from agent.core.errors import AgentError
from agent.state import records
from agent.state.running import current_run

if TYPE_CHECKING:
    from agent.core.host import HostView

# how often the last report is read, which costs two small files, and how often the wait is reported: in seconds
_POLL = 0.5
_PROGRESS = 30.0


def last_report(
    view: HostView, wait: float | None, progress: Callable[[str], None] = lambda _words: None
) -> dict[str, Any]:
    """Return the last report; with `wait`, that of the current run, or else the first one that appears.

    `progress` gets what is waited for: when that changes, and every `_PROGRESS` seconds.
    Raises AgentError `nothing-recorded` when there is none, or `timed-out` when none arrives in time.
    """
    ends = view.monotonic() + (wait or 0)
    shown, show_at = "", 0.0
    while True:
        saw = current_run(view) if wait else None
        if saw is None:
            try:
                return records.read_report(view)
            except AgentError as none:
                if not wait or none.code.name != "nothing-recorded":
                    raise
                saw = none.saw
        if view.monotonic() >= ends:
            raise AgentError(
                "timed-out", "no report arrived in time", saw=saw, want=f"a report within {wait:g} s",
                hint=f"`{view.system.log_command}` shows what happens",
            )  # fmt: skip
        if saw != shown or view.monotonic() >= show_at:
            shown, show_at = saw, view.monotonic() + _PROGRESS
            progress(f"waiting, for {ends - view.monotonic():.0f} s at most: {saw}")
        view.sleep(_POLL)
