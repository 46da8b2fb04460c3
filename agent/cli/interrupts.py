"""How a command learns that it is asked to end: by an event, which whoever waits looks at."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from agent.hosts.local import termination_signals

if TYPE_CHECKING:
    import threading


def stopped_by_signals(stop: threading.Event) -> threading.Event:
    """Set the event at the first signal to end, and return it."""
    # A program that is changing the host finishes; then the run ends, with undo where that is due, and reports.
    # Ignored signals stay ignored: under nohup a run continues when its terminal is closed.
    for number in termination_signals():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: stop.set())
    return stop
