"""The log as events of Windows: the kind of a record, its number, and its text."""

from __future__ import annotations

import contextlib
import logging
import re
from typing import Callable

# EVENTLOG_ERROR_TYPE and so on (ReportEventW). An alarm on the Event Log is set on the number.
ERROR, WARNING, INFORMATION = 1, 2, 4
_NUMBERS = {INFORMATION: 1, WARNING: 2, ERROR: 3}
# The limit of one text of an event (ReportEventW); the end of a longer text is not worth a second event.
LONGEST = 31_839

# kind, number, text; raises OSError
Write = Callable[[int, int, str], None]


class EventLog(logging.Handler):
    """Writes each record as one event. An event that Windows refuses, such as when the log is full, is lost."""

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
    """Return a text that the Event Log shows unchanged: not too long, and without `%1`, which would be replaced."""
    plain = re.sub(r"%(?=\d)", "% ", text.replace("\0", " "))
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 3] + "..."
