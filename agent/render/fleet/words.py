"""How numbers are said: hosts, times, and how often each of many things was seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Counted:
    """A text and on how many hosts it holds."""

    text: str
    hosts: int


def counted(texts: Iterable[str]) -> tuple[Counted, ...]:
    """Return each text once, the most frequent first; what is equally frequent stays in order."""
    return tuple(Counted(text, number) for text, number in Counter(texts).most_common())


def hosts(number: int) -> str:
    return f"{number:,} host{'' if number == 1 else 's'}"


def waves(number: int) -> str:
    return f"{number:,} wave{'' if number == 1 else 's'}"


def span(seconds: float) -> str:
    """Return a time as people say it, in at most two units: 3.1 s, 42 s, 4 min 12 s, 1 h 3 min."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h" + (f" {minutes % 60} min" if minutes % 60 else "")
