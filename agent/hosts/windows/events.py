"""The log as events of Windows: which kind a record is, under which number, and in which words."""

from __future__ import annotations

import contextlib
import logging
import re
from typing import Callable

# EVENTLOG_ERROR_TYPE and so on (ReportEventW). The number is what an alarm on the Event Log is set on.
ERROR, WARNING, INFORMATION = 1, 2, 4
_NUMBERS = {INFORMATION: 1, WARNING: 2, ERROR: 3}
# Of one text of an event (ReportEventW); ends of sentences that long say nothing.
LONGEST = 31_839

# kind, number, words; raises OSError
Write = Callable[[int, int, str], None]


class EventLog(logging.Handler):
    """Writes each record as one event. An event that is not taken, such as by a log that is full, is lost."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        kind = kind_of(record.levelno)
        with contextlib.suppress(OSError):
            self._write(kind, _NUMBERS[kind], words(self.format(record)))


def kind_of(level: int) -> int:
    return ERROR if level >= logging.ERROR else WARNING if level >= logging.WARNING else INFORMATION


def words(text: str) -> str:
    """Return a text that is shown as it is: short enough, whole, and without `%1`, which would be replaced."""
    plain = re.sub(r"%(?=\d)", "% ", text.replace("\0", " "))
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 3] + "..."
