"""Where the log goes: journald under systemd, else a rotated file; nowhere for an ordinary user."""

from __future__ import annotations

import logging
import logging.handlers
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.core.words import Report

_FOLDER = Path("/var/log/hsm-agent")
_SOCKET = "/dev/log"  # journald listens there too, and knows the lines by the identifier `hsm-agent`


def open_log(*, may_write: bool, systemd: bool) -> None:
    """Give the logger `agent` its one handler. A log that cannot be opened is no reason not to run.

    `may_write` is false for an ordinary user, and for `plan`, which leaves no trace on the host.
    """
    logger = logging.getLogger("agent")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler: logging.Handler = logging.NullHandler()
    try:
        if systemd and Path(_SOCKET).exists():
            handler = logging.handlers.SysLogHandler(_SOCKET)
            handler.ident = "hsm-agent: "
        elif may_write:
            _FOLDER.mkdir(mode=0o750, exist_ok=True)
            handler = logging.handlers.RotatingFileHandler(
                _FOLDER / "hsm-agent.log", maxBytes=1_000_000, backupCount=4, encoding="utf-8", delay=True
            )
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    except OSError:
        handler = logging.NullHandler()
    logger.handlers[:] = [handler]


def log_report(report: Report) -> None:
    """Write what a run did, a line a step."""
    logger = logging.getLogger("agent")
    for line in report.lines:
        logger.info(
            "%s %s %s saw=%r code=%s", report.run_id, line.id, line.outcome.value, line.saw, line.code
        )
    logger.info(
        "%s %s %s exit=%d code=%s",
        report.run_id,
        report.command,
        report.outcome.value,
        report.exit_status,
        report.code,
    )
