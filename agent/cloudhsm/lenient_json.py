"""JSON that another program wrote: read without trusting a type in it."""

from __future__ import annotations

import json
from typing import Any

# Numbers as float: an integer of a million digits costs nothing then, and no number here exceeds a port's.
DECODER = json.JSONDecoder(parse_int=float)


def as_object(value: object) -> dict[str, Any]:
    """Return an object's members, none for anything else."""
    return value if isinstance(value, dict) else {}


def as_array(value: object) -> list[Any]:
    """Return an array's elements, none for anything else."""
    return value if isinstance(value, list) else []


def as_str(value: object) -> str | None:
    """Return a string that can be printed (JSON may hold half a surrogate pair), None for anything else."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def as_int(value: object) -> int | None:
    """Return a small integer, also one written as a string; None for anything else."""
    if isinstance(value, str) and len(value) < 10 and value.isascii() and value.isdecimal():
        return int(value)
    if isinstance(value, float) and abs(value) < 1e9 and value.is_integer():
        return int(value)
    return None
