"""The machine that the agent runs on, whichever it is: the one place that chooses."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from agent.core.host import Host, Progress
    from agent.hosts.fetch import Sender


def endings() -> tuple[signal.Signals, ...]:
    """Return the signals by which this machine asks a program to end."""
    if sys.platform == "win32":
        return (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK)
    else:
        return (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def this_machine(
    stop: threading.Event | None = None,
    *,
    progress: Progress = lambda _have, _total: None,
    environ: Mapping[str, str] = os.environ,
    sender: Sender | None = None,
) -> Host:
    """Return the Host on this machine; the words are those of Posix. What the other kind needs is not loaded."""
    if sys.platform == "win32":
        from agent.hosts.windows.machine import Windows  # noqa: PLC0415 -- cannot be loaded elsewhere

        return Windows(stop, progress=progress, environ=environ, sender=sender)
    else:
        from agent.hosts.posix import Posix  # noqa: PLC0415 -- cannot be loaded elsewhere

        return Posix(stop, progress=progress, environ=environ, sender=sender)
