"""`web[01:20].example.com` -> its names, as Ansible expands them."""

from __future__ import annotations

import itertools
import re
import string

from agent.config.options import InvalidValueError

MOST_HOSTS = 10_000
# How often hosts may be named in all: a host may be in several groups.
MOST_MENTIONS = 100_000
_RANGE = re.compile(r"\[(?:([0-9]*):([0-9]+)|([A-Za-z]):([A-Za-z]))(?::([0-9]+))?\]")


class HostBudget:
    """How many names an inventory may still contain, which bounds the cost of reading it."""

    def __init__(self, left: int = MOST_MENTIONS) -> None:
        self._left = left

    def take(self, count: int) -> None:
        """Raise InvalidValueError when there is no room for so many more."""
        if count > self._left or count > MOST_HOSTS:
            raise InvalidValueError(
                f"too many hosts: at most {MOST_HOSTS:,}, and at most {MOST_MENTIONS:,} mentions of them"
            )
        self._left -= count


def expanded(text: str, allowance: HostBudget) -> tuple[str, ...]:
    """Return the names of a text with any number of ranges; one name without a range."""
    parts: list[tuple[str, ...]] = []
    end = 0
    for found in itertools.islice(_RANGE.finditer(text), 9):
        parts += [(text[end : found.start()],), _counted(found)]
        end = found.end()
    parts.append((text[end:],))
    count = 1
    for part in parts:
        count *= len(part)
    allowance.take(count)
    return tuple("".join(pieces) for pieces in itertools.product(*parts))


def _counted(found: re.Match[str]) -> tuple[str, ...]:
    first, last, first_letter, last_letter, by = found.groups()
    step = int((by or "1")[:9])
    if step < 1:
        raise InvalidValueError(f"{found[0]} does not count: its step is 0")
    if first_letter:
        begin, end = string.ascii_letters.index(first_letter), string.ascii_letters.index(last_letter)
        members = tuple(string.ascii_letters[begin : end + 1 : step])
    else:
        padded = len(first) > 1 and first.startswith("0")
        if padded and len(first) != len(last):
            raise InvalidValueError(f"{found[0]}: with a leading 0, both ends need as many digits")
        if max(len(first), len(last)) > 9:
            raise InvalidValueError(f"{found[0][:40]} counts too far: nine digits at most")
        numbers = range(int(first or "0"), int(last) + 1, step)
        if len(numbers) > MOST_HOSTS:
            raise InvalidValueError(f"{found[0]} is too large: at most {MOST_HOSTS:,} hosts")
        members = tuple(str(number).zfill(len(first) if padded else 0) for number in numbers)
    if not members:
        raise InvalidValueError(f"{found[0]} is empty: it ends before it begins")
    return members
