"""Values that every output of a report can carry: printable text, finite numbers, and limited lists."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from enum import Enum
from typing import Any

# So many entries are kept of one list, and so many of the details of a step. A cluster has 28 HSMs at most, a host six
# components: a longer list came from elsewhere.
MOST = 200
_DETAILS = 24
_DEEPEST = 4
# Characters of one text; the next smaller limit applies if a whole report would exceed ROOM bytes of JSON. A report
# is stored, spooled and sent complete, and each of these has a limit.
LONGEST = (4000, 1000, 250, 60, 16)
ROOM = 1024 * 1024
# beyond this, JSON's readers disagree about an integer
_GREATEST = 2**53 - 1


def printable(text: str) -> str:
    """Return a text on one line, without characters that move a cursor, change direction or cannot be encoded."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else " " if char in "\t\N{NO-BREAK SPACE}" else "?" for char in text
    )


def lines(text: str) -> str:
    """Return a text of several lines, each of them printable."""
    return "\n".join(map(printable, text.replace("\r\n", "\n").split("\n")))


def cut(text: str, longest: int) -> str:
    """Return a text of at most so many characters; a shortened one states its original length."""
    if len(text) <= longest:
        return text
    note = f" [{len(text):,} characters]"
    return (text[: longest - len(note)] + note) if longest > 2 * len(note) else text[:longest]


def carried(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a report so that every output can carry them; suitable values are unchanged."""
    made: dict[str, Any] = {}
    for longest in LONGEST:
        made = {name: plain(value, longest) for name, value in values.items()}
        if len(json.dumps(made, default=asdict)) <= ROOM:
            break
    return made


def plain(value: Any, longest: int = LONGEST[0], depth: int = 0) -> Any:
    """Return a value of a report with no text longer than `longest`, and only values that JSON can express."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return lines(cut(value, longest))
    if isinstance(value, float):
        return 0.0 if math.isnan(value) else max(-float(_GREATEST), min(value, float(_GREATEST)))
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-_GREATEST, min(value, _GREATEST))
    if value is None or isinstance(value, (bool, Enum)):
        return value
    return _nested(value, longest, depth + 1) if depth < _DEEPEST else None


def _nested(value: Any, longest: int, depth: int) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{each.name: plain(getattr(value, each.name), longest, depth) for each in fields(value)}
        )
    if isinstance(value, (tuple, list)):
        return type(value)(plain(each, longest, depth) for each in value[:MOST])
    if isinstance(value, Mapping):
        items = list(value.items())[:_DETAILS]
        return {printable(str(key)[:60]): plain(each, longest, depth) for key, each in items}
    return None
