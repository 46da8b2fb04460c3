"""The change notes: packaging/changelog, in Debian's format; packages take version, date and author from it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path


@dataclass(frozen=True)
class Note:
    """The notes of one version."""

    version: str
    lines: tuple[str, ...]
    author: str
    date: datetime


_ENTRY = re.compile(
    r"^hsm-agent \((?P<version>[^)]+)\).*\n(?P<text>(?:\n|  .*\n)+) -- (?P<author>.+?)  (?P<date>.+)$",
    re.MULTILINE,
)


def notes(path: Path) -> list[Note]:
    """Return the notes of all versions, newest first."""
    text = path.read_text(encoding="utf-8")
    found = [
        Note(
            each["version"],
            tuple(line.strip() for line in each["text"].splitlines() if line.strip()),
            each["author"],
            parsedate_to_datetime(each["date"]),
        )
        for each in _ENTRY.finditer(text)
    ]
    if not found:
        sys.exit(f"{path} holds no entry")
    return found
