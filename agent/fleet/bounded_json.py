"""JSON of a host that may be compromised: read with bounds, so that it costs neither memory nor time."""

from __future__ import annotations

import json
import math

# Bounds beside the size of the text: values in a document (each takes some 100 bytes here, and as little as two in the
# text), levels, and digits of a number: Python before 3.10.7 needs a minute for a million of them.
_VALUES = 50_000
_DEEPEST = 16
_DIGITS = 32


def load(text: bytes, largest: int) -> object:
    """Return what a document of at most `largest` bytes holds. Raises ValueError for one that is invalid or beyond."""
    # each value but one stands after one of these; those inside a text count too, and stay far below the limit
    if len(text) > largest or sum(map(text.count, (b",", b":", b"[", b"{"))) > _VALUES:
        raise ValueError("too large")
    try:
        value: object = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_integer)
    except RecursionError:
        raise ValueError("too many levels") from None
    if _deeper(value, _DEEPEST):
        raise ValueError("too many levels")
    return value


def _number(text: str) -> float:
    """Read a number. JSON has neither NaN nor infinity, and other programs could not read them in our report."""
    value = float(text) if len(text) <= _DIGITS else math.inf
    if not math.isfinite(value):
        raise ValueError("a number that is none")
    return value


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError("a number of too many digits")
    return int(text)


def _deeper(value: object, most: int) -> bool:
    """Return whether a value has more than so many levels."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most == 0 or any(_deeper(each, most - 1) for each in inside)
