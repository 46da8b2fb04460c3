"""The arithmetic of waves and of the stop rule; pure.

`1,10%,100%` says how many hosts have had their turn when each wave ends: one, then a tenth of all, then all. A
percentage is rounded up, so that a wave is never smaller than was meant.

`--max-failed N` allows N hosts that are not proven; `P%` allows P percent, rounded down. Both are counted twice: over
all hosts of the run, and over the hosts of the current wave. When one host more than either allows is not proven, no
host is begun. So with `10%` and the default waves, one failure among the first ten of a hundred hosts stops the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from agent.core.fleet_model import HostState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

T = TypeVar("T")

# The proof is complete (or, for a command that only checks, was checked); every other end counts against the limit.
PROVEN = (HostState.OK,)


@dataclass(frozen=True)
class HostCount:
    """A number of hosts, or a percentage of them."""

    number: float
    percent: bool

    def __str__(self) -> str:
        return f"{self.number:g}{'%' if self.percent else ''}"

    def up(self, hosts: int) -> int:
        """Return how many of `hosts` it is, rounded up, at most all."""
        exact = self.number * hosts / 100 if self.percent else self.number
        whole = int(exact)
        # a float that is a hair above a whole number is that number
        return min(hosts, whole + (exact - whole > 1e-9))

    def down(self, hosts: int) -> int:
        """Return how many of `hosts` it is, rounded down."""
        return int(self.number * hosts / 100 + 1e-9) if self.percent else int(self.number)


ALL = HostCount(100, percent=True)


def share(text: str) -> HostCount:
    """Read `5` or `10%`. Raises ValueError with a sentence."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*|\s*(\d{1,3}(?:\.\d+)?)\s*%\s*", text)
    if match is None or (match[2] and float(match[2]) > 100):
        raise ValueError(
            f"{text.strip()!r} is neither a number of hosts nor a percentage of them, such as 5 or 10%"
        )
    return HostCount(float(match[1] or match[2]), percent=match[1] is None)


def shares(text: str) -> tuple[HostCount, ...]:
    """Read `1,10%,100%`. Raises ValueError with a sentence."""
    found = tuple(share(each) for each in text.split(","))
    if any(each.number == 0 for each in found):
        raise ValueError("a wave of no host is none")
    for before, after in zip(found, found[1:]):
        if before.percent == after.percent and before.number >= after.number:
            raise ValueError(
                f"{after} does not go beyond {before}: each says how many hosts had their turn by then"
            )
    if found[-1] != ALL:
        raise ValueError("the last wave must be 100%; fewer hosts are chosen with --limit")
    return found


def split(hosts: Sequence[T], by: Iterable[HostCount]) -> tuple[tuple[T, ...], ...]:
    """Return the waves, in the order of the hosts; one that would be empty is left out."""
    ends = [0]
    for each in by:
        ends.append(max(ends[-1], each.up(len(hosts))))
    return tuple(tuple(hosts[begin:end]) for begin, end in zip(ends, ends[1:]) if begin < end)


def unproven(states: Iterable[HostState]) -> int:
    """Count the hosts that count against the limit: neither proven, nor still to have their turn."""
    return sum(state not in PROVEN and state is not HostState.NOT_REACHED for state in states)


def limit_exceeded(limit: HostCount, every: Sequence[HostState], wave: Sequence[HostState]) -> str | None:
    """Return why no further host is to be begun, None while the limit holds.

    `every` has the state of every host of the run, `wave` those of the current wave; without an end it is NOT_REACHED.
    """
    for states, where in ((every, "in the run"), (wave, "in this wave")):
        allowed, failed = limit.down(len(states)), unproven(states)
        if failed > allowed:
            return f"{failed} of {len(states)} hosts {where} are not proven; {limit} allows {allowed}"
    return None
