"""The machine that the agent runs on, whichever it is: the one place that chooses."""

# ruff: noqa: PTH110, PTH112
# (pathlib costs more than the look)

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    import threading
    from collections.abc import Mapping

    from agent.core.host import Host, Progress
    from agent.http.download import FileProvider

_SYSTEMD = "/run/systemd/system"
_SOCKET = "/dev/log"  # journald listens there too, and knows the lines by the identifier `hsm-agent`


def termination_signals() -> tuple[signal.Signals, ...]:
    """Return the signals by which this machine asks a program to end."""
    if sys.platform == "win32":
        return (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK)
    else:
        return (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def kind_of_terminal(environ: Mapping[str, str]) -> str:
    """Return what TERM says. Windows has none, and consoles that can all that is asked of one."""
    return environ.get("TERM", "console" if sys.platform == "win32" else "")


def local_host(
    stop: threading.Event | None = None,
    *,
    progress: Progress = lambda _have, _total: None,
    environ: Mapping[str, str] = os.environ,
    sender: FileProvider | None = None,
) -> Host:
    """Return the Host on this machine; the words are those of Posix. What the other kind needs is not loaded."""
    if sys.platform == "win32":
        from agent.hosts.windows.host import Windows  # noqa: PLC0415 -- cannot be loaded elsewhere

        return Windows(stop, progress=progress, environ=environ, sender=sender)
    else:
        from agent.hosts.posix import Posix  # noqa: PLC0415 -- cannot be loaded elsewhere

        return Posix(stop, progress=progress, environ=environ, sender=sender)


def system_log_handler(*, may_write: bool) -> logging.Handler | None:
    """Return what writes to this machine's own log, None where there is none; raises OSError.

    The Event Log has to be told first who writes to it, and keeps that: there nothing is opened unless `may_write`.
    """
    if sys.platform == "win32":
        from agent.hosts.windows import event_source, events  # noqa: PLC0415 -- cannot be loaded elsewhere

        return events.EventLog(event_source.opened()) if may_write else None
    else:
        from logging.handlers import SysLogHandler  # noqa: PLC0415 -- 8 ms that only a command with a log pays

        if not (os.path.isdir(_SYSTEMD) and os.path.exists(_SOCKET)):
            return None
        handler = SysLogHandler(_SOCKET)
        handler.ident = "hsm-agent: "
        return handler
