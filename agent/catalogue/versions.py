"""Client versions as tuples that compare, whatever their text in a package database."""

from __future__ import annotations

import re

_SEPARATOR = re.compile(r"[.\-+~_]")
_EPOCH = re.compile(r"\A[0-9]{1,10}:")


def parse_version(text: str) -> tuple[int, ...]:
    """Never raises: a part that is not a number is -1, below every number, and left out at the end.

    So `5.18.0-1.el9`, as rpm may say it, equals `5.18.0-1`, and `5.x` is older than `5.0`. An epoch, which a site that
    builds a package anew may put before it, is not the vendor's and is left out.
    """
    parts = [_number(part) for part in _SEPARATOR.split(_EPOCH.sub("", text.strip()))]
    while parts and parts[-1] < 0:
        parts.pop()
    return tuple(parts)


def _number(part: str) -> int:
    # isdigit alone accepts superscripts, and int refuses thousands of digits
    return int(part) if part.isascii() and part.isdigit() and len(part) < 10 else -1


def base_version(version: str) -> tuple[int, ...]:
    """Return the X.Y.Z of a version without its package release: what ranges are about."""
    return parse_version(version)[:3]
