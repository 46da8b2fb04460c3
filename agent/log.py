"""Where the log goes: journald, the Event Log of Windows, else a rotated file; nowhere for an ordinary user."""

from __future__ import annotations

import contextlib
import errno
import logging
import logging.handlers
import os
import stat
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from agent.core.errors import AgentError
from agent.hosts.local import system_log_handler
from agent.hosts.owned import changeable

if TYPE_CHECKING:
    from agent.core.host import HostView
    from agent.core.model import Report

_NEVER_WAIT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def open_log(
    view: HostView, *, may_write: bool, own: Callable[..., logging.Handler | None] = system_log_handler
) -> None:
    """Give the logger `agent` its one handler: the machine's `own` log, or else a file of the agent.

    A log that cannot be opened does not stop a run. `may_write` is false for an ordinary user, and for `plan`,
    which leaves no trace on the host.
    """
    logging.raiseExceptions = (
        False  # a line that cannot be written is lost, and no traceback is shown instead
    )
    logger = logging.getLogger("agent")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler: logging.Handler | None = None
    with contextlib.suppress(OSError):
        handler = own(may_write=may_write)
    if handler is None and may_write:
        with contextlib.suppress(OSError, AgentError):
            handler = _file(view)
    logger.handlers[:] = [handler or logging.NullHandler()]


class _OwnFile(logging.handlers.RotatingFileHandler):
    """A file that is opened without ever blocking, and never through a link: its name may have become a FIFO."""

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, _NEVER_WAIT | os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", self.baseFilename)
        return TextIOWrapper(os.fdopen(fd, "ab"), encoding=self.encoding)


def _file(view: HostView) -> logging.Handler:
    folder = Path(view.system.log)
    # without its parents: on Windows, any user could write to a parent made here, and later runs would refuse it
    folder.mkdir(mode=0o750, exist_ok=True)
    path = folder / "hsm-agent.log"
    fault = changeable(view, str(path))
    if fault is not None:
        raise PermissionError(fault)
    handler = _OwnFile(path, maxBytes=1_000_000, backupCount=4, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


def log_report(report: Report) -> None:
    """Write the steps of a run, one line each."""
    logger = logging.getLogger("agent")
    for line in report.steps:
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
