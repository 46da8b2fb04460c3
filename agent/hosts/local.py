"""The machine that the agent runs on: the one place that chooses its adapter."""

# ruff: noqa: PTH110, PTH112
# (pathlib costs more than the check itself)

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
    from agent.http.download import FileProvider, PartSource

_SYSTEMD = "/run/systemd/system"
_SOCKET = "/dev/log"  # journald listens here too, and finds the lines by the identifier `hsm-agent`


def termination_signals() -> tuple[signal.Signals, ...]:
    """Return the signals by which this machine asks a program to end."""
    if sys.platform == "win32":
        return (signal.SIGINT, signal.SIGTERM, signal.SIGBREAK)
    else:
        return (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def kind_of_terminal(environ: Mapping[str, str]) -> str:
    """Return the value of TERM. Windows has none, and its consoles can display everything that the agent prints."""
    return environ.get("TERM", "console" if sys.platform == "win32" else "")


def local_host(
    stop: threading.Event | None = None,
    *,
    progress: Progress = lambda _have, _total: None,
    environ: Mapping[str, str] = os.environ,
    sender: FileProvider | None = None,
    objects: PartSource | None = None,
) -> Host:
    """Return the Host on this machine; the arguments are those of Posix. The other system's adapter is not loaded."""
    if sys.platform == "win32":
        from agent.hosts.windows.host import Windows  # noqa: PLC0415 -- cannot be loaded elsewhere

        return Windows(stop, progress=progress, environ=environ, sender=sender, objects=objects)
    else:
        from agent.hosts.posix import Posix  # noqa: PLC0415 -- cannot be loaded elsewhere

        return Posix(stop, progress=progress, environ=environ, sender=sender, objects=objects)


def system_log_handler(*, may_write: bool) -> logging.Handler | None:
    """Return the handler for this machine's own log, None where there is none; raises OSError.

    The Event Log needs its source registered first, and keeps that: nothing is opened there unless `may_write`.
    """
    if sys.platform == "win32":
        from agent.hosts.windows import event_source, events  # noqa: PLC0415 -- cannot be loaded elsewhere

        return events.EventLog(event_source.open_source()) if may_write else None
    else:
        from logging.handlers import SysLogHandler  # noqa: PLC0415 -- 8 ms that only a command with a log pays

        if not (os.path.isdir(_SYSTEMD) and os.path.exists(_SOCKET)):
            return None
        handler = SysLogHandler(_SOCKET)
        handler.ident = "hsm-agent: "
        return handler
