"""Values as text: places, numbers of hosts, times, and how often each of many texts occurs."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.core.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Hints for a host of a roll-out, by code: it has no `hsm-agent` that could be run there.
_FROM_HERE = {
    "internal": "the host's log has the traceback (`journalctl -t hsm-agent`); please report it",
    "nothing-recorded": "configure it first: `hsm-agent fleet rollout --hsm-ip IP --ca-cert FILE`",
    "drift": "`hsm-agent fleet rollout` with the same options corrects it",
    "component-unsupported": "leave the component out for this host, or choose one that AWS makes for its system",
    "checksum-unknown": "pass `--sha256 FILE=HASH` from a source you trust, or name a version that the catalogue has",
    "package-downgrade": "raise `--client-version`, or `hsm-agent fleet remove --limit HOST` first",
    "hsm-firewalled": "`fleet rollout --allow-firewall` adds a rule for TCP 2223-2225, and `fleet remove` deletes it",
    "rollback-failed": "fix it, then run the roll-out again: the snapshot is kept",
    "report-undelivered": "fix what the warning names; the next run sends what is kept: `hsm-agent fleet verify`",
    "report-refused": "fix what the warning names, then report again: `hsm-agent fleet verify`",
    "snapshot-damaged": "configure again: `hsm-agent fleet rollout` with the same options",
}
_INSTEAD = {CODES[code].fix: words for code, words in _FROM_HERE.items()}
# The hints of the agent itself, for a host and for here.
FIXES = frozenset((*(code.fix for code in CODES.values()), *_INSTEAD.values()))


# A host's hint with its own values names commands of the host. `rollback` has no equivalent here.
_TYPED_HERE = tuple(
    (re.compile(rf"(?:sudo )?\bhsm-agent {there}\b"), f"hsm-agent {here}")
    for there, here in (
        ("configure", "fleet rollout"),
        ("verify", "fleet verify"),
        ("plan", "fleet plan"),
        ("facts", "fleet plan"),
        ("status(?: --wait)?", "fleet status"),
        ("remove", "fleet remove --limit HOST"),
    )
)
_ROLLBACK = re.compile(r"`(?:sudo )?hsm-agent rollback[^`]*`(?! on the host)")
# where that can be run, by whether the host has an agent
_WHERE = {
    None: ", where hsm-agent is installed,",
    True: "",
    False: " (which has no hsm-agent: `hsm-agent fleet rollout --install` brings it)",
}
# true on the host, and not here
_WITHOUT_OPTIONS = re.compile(r": without options it is that one again, with others they are what is wanted$")


def from_here(hint: str, *, has_agent: bool | None = None) -> str:
    """Return a hint for the operator's machine: a host has a `hsm-agent` command only if its report says so."""
    if hint in _INSTEAD:
        return _INSTEAD[hint]
    for there, here in _TYPED_HERE:
        hint = there.sub(here, hint)
    hint = _WITHOUT_OPTIONS.sub(" with the options that are wanted", hint)
    return _ROLLBACK.sub(rf"\g<0> on the host{_WHERE[has_agent]}", hint)


@dataclass(frozen=True)
class Counted:
    """A text, and for how many hosts it is true."""

    text: str
    hosts: int


def counted(texts: Iterable[str]) -> tuple[Counted, ...]:
    """Return each text once, the most frequent first, equal ones in their order."""
    return tuple(Counted(text, number) for text, number in Counter(texts).most_common())


def hosts(number: int) -> str:
    return f"{number:,} host{'' if number == 1 else 's'}"


def host_place(host: Mapping[str, Any]) -> str:
    """Return the address and port of a host, "" where nobody connects to it; Systems Manager connects to no port."""
    return f"{host['address']}:{host['port']}" if host["address"] and host["port"] else str(host["address"])


def waves(number: int) -> str:
    return f"{number:,} wave{'' if number == 1 else 's'}"


_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


def age_words(seconds: float) -> str:
    """Return an age in one unit: 5 minutes, 3 hours, 12 days."""
    size, unit = next((each for each in _UNITS if seconds >= 2 * each[0]), _UNITS[-1])
    number = max(int(seconds // size), 1)
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def seconds_between(begin: object, end: object) -> float | None:
    """Return the seconds from one time of a report to another; None when one of them cannot be read."""
    try:
        first, last = (dt.datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%S%z") for text in (begin, end))
    except ValueError:
        return None
    return (last - first).total_seconds()


def duration(seconds: float) -> str:
    """Return a duration in at most two units: 3.1 s, 42 s, 4 min 12 s, 1 h 3 min."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h" + (f" {minutes % 60} min" if minutes % 60 else "")
