"""The reports of a place and the inventory -> how each host stands. Pure: the time is a value too."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable

from agent.core.codes import CODES
from agent.core.fleet_model import HostState
from agent.core.plain import cut, printable
from agent.render.fleet.humanize import age_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agent.core.codes import CodeName
    from agent.core.fleet_model import Target
    from agent.fleet.collected.collect import CollectedReport, Collection, UnreadableObject

# A timer checks each host once a day, at a time that is up to six hours later than the day before's.
SILENT_AFTER = 36 * 3600.0
# Clocks differ by so much, in seconds, without a word: S3 itself refuses those that differ by more than 15 minutes.
_CLOCKS = 300.0
_LONGEST = 200  # characters of a name
_NAMED = 5  # names in one warning


@dataclass(frozen=True)
class HostStanding:
    """How one host stands, as a row of the fleet's report has it. `last_seen` is in epoch seconds, None for never."""

    name: str
    state: HostState
    target: Target | None = None
    collected: CollectedReport | None = None
    code: CodeName | None = None
    saw: str | None = None
    hint: str | None = None
    last_seen: float | None = None


@dataclass(frozen=True)
class FleetStanding:
    """How all hosts stand, those of the inventory first and in its order. `warnings` are about the place itself."""

    hosts: tuple[HostStanding, ...]
    warnings: tuple[str, ...]


@dataclass
class _Machine:
    """A host that reports: its newest report, and the names that it went by, the newest first."""

    collected: CollectedReport
    labels: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def stand(
    collection: Collection,
    targets: Sequence[Target] | None,
    now: float,
    silent_after: float,
    *,
    only_targets: bool = False,
) -> FleetStanding:
    """Return how each host stands at `now`; `targets` is None without an inventory. Times are in seconds.

    With `only_targets` all that is about other hosts is left out.
    """
    machines, warnings = _machines(collection.reports, now, silent_after)
    matched = _matched(targets or (), machines)
    taken = {id(machine) for machine in matched.values()}
    others = [machine for machine in machines if id(machine) not in taken]
    unreadable = {each.label: each for each in collection.unreadable}
    hosts = []
    for target in targets or ():
        machine = matched.get(target.name)
        if machine is not None:
            hosts.append(_standing(target.name, machine.collected, now, silent_after, target))
        else:
            hosts.append(_never_reported(target, unreadable.pop(_label(target.name), None), collection.place))
    if only_targets:
        return FleetStanding(tuple(hosts), tuple(_clock_warnings(matched.values(), now)))
    hosts += [
        _standing(name, machine.collected, now, silent_after) for name, machine in _named(others, hosts)
    ]
    hosts += [_unreadable(each) for each in unreadable.values()]
    warnings += _clock_warnings(machines, now)
    if targets is not None and others:
        names = [machine.collected.host["name"] for machine in others]
        warnings.append(f"the inventory does not have {_some(names)}, which report to {collection.place}")
    if collection.foreign:
        warnings.append(
            f"ignored in {collection.place}, since they are no reports: {_some(collection.foreign)}"
        )
    return FleetStanding(tuple(hosts), tuple(warnings))


def _machines(
    reports: Sequence[CollectedReport], now: float, silent_after: float
) -> tuple[list[_Machine], list[str]]:
    """Return the machines that report: one that was renamed has left an older report under its other name."""
    machines: list[_Machine] = []
    known: dict[str, _Machine] = {}
    warnings = []
    for each in sorted(reports, key=lambda one: (-one.last_seen, one.label)):
        identity = each.host.get("identity")
        first = known.get(identity) if identity else None
        if first is not None and now - each.last_seen > silent_after:
            warnings.append(
                f"{_shown(each.host['name'])} reports as {_shown(first.collected.host['name'])} now: "
                f"its old report, {_shown(each.label)}.json, does not count and can be deleted"
            )
            first.labels.append(each.label)
            first.names.append(each.host["name"])
            continue
        if first is not None:
            warnings.append(
                f"{_shown(each.host['name'])} and {_shown(first.collected.host['name'])} have the same identity: "
                "one host that was renamed, or a copy of its disk"
            )
        machine = _Machine(each, [each.label], [each.host["name"]])
        machines.append(machine)
        if identity:
            known.setdefault(identity, machine)
    return sorted(machines, key=lambda one: one.collected.label), warnings


def _matched(targets: Sequence[Target], machines: Sequence[_Machine]) -> dict[str, _Machine]:
    """Return the machines of the inventory's hosts. The surest sign counts first; one that several share never does."""
    left, free = list(targets), list(machines)
    found: dict[str, _Machine] = {}
    used: set[int] = set()
    for of_target, of_machine in _SIGNS:
        wanted, there = _unique(left, of_target), _unique(free, of_machine)
        for sign, target in wanted.items():
            machine = there.get(sign)
            if machine is not None and target.name not in found and id(machine) not in used:
                found[target.name] = machine
                used.add(id(machine))
        left = [each for each in left if each.name not in found]
        free = [each for each in free if id(each) not in used]
    return found


def _unique(items: Iterable[Any], signs: Callable[[Any], Iterable[str]]) -> dict[str, Any]:
    """Return the items by their signs, without those that several items have."""
    owners: dict[str, list[Any]] = {}
    for item in items:
        for sign in {each.lower() for each in signs(item) if each}:
            owners.setdefault(sign, []).append(item)
    return {sign: each[0] for sign, each in owners.items() if len(each) == 1}


def _label(name: str) -> str:
    """Return the label of the object that the sink writes for a host of this name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:_LONGEST]


def _short(names: Iterable[str]) -> list[str]:
    return [name.partition(".")[0] for name in names if not re.fullmatch(r"[0-9.]+", name)]


def _requested(machine: _Machine) -> list[str]:
    """Return the name that a roll-out asked for this host by: RUN/NAME/ATTEMPT."""
    found = re.fullmatch(r"[^/]+/(.+)/[0-9]+", machine.collected.request or "")
    return [found[1]] if found else []


_SIGNS: tuple[tuple[Callable[[Target], Iterable[str]], Callable[[_Machine], Iterable[str]]], ...] = (
    (lambda target: [target.name], lambda machine: machine.names[:1]),
    (lambda target: [target.name], _requested),
    (lambda target: [_label(target.name)], lambda machine: machine.labels[:1]),
    (
        lambda target: [target.name, target.address],
        lambda machine: [*machine.names, machine.collected.host.get("instance_id") or ""],
    ),
    (lambda target: _short([target.name, target.address]), lambda machine: _short(machine.names)),
)


def _named(machines: Sequence[_Machine], taken: Iterable[HostStanding]) -> Iterator[tuple[str, _Machine]]:
    """Yield the machines with names that are unique: several hosts of one name are told apart by their objects."""
    counts = Counter(machine.collected.host["name"] for machine in machines)
    counts.update(each.name for each in taken)
    for machine in machines:
        name = machine.collected.host["name"]
        yield (name if counts[name] == 1 else f"{name} ({machine.collected.label}.json)"), machine


def _standing(
    name: str, each: CollectedReport, now: float, silent_after: float, target: Target | None = None
) -> HostStanding:
    known = HostStanding(_shown(name), each.state.state, target, each, last_seen=each.last_seen)
    age = now - each.last_seen
    if age > silent_after or age < -_CLOCKS:
        when = f"{age_words(age)} ago" if age > 0 else f"{age_words(-age)} in the future"
        said = each.summary["failure"]
        outcome = f"{each.state.state.value}{', ' + said['code'] if said else ''}"
        saw = f"its last report is from {when}: {each.command}, {outcome}"
        return _failed(known, HostState.SILENT, "host-silent", saw)
    if each.command == "remove" and each.state.state is HostState.OK:
        saw = "its last run took the client off"
        return _failed(known, HostState.DRIFTED, "drift", saw)
    return replace(known, code=each.state.code, saw=each.state.saw, hint=each.state.hint)


def _failed(known: HostStanding, state: HostState, code: CodeName, saw: str) -> HostStanding:
    return replace(known, state=state, code=code, saw=saw, hint=CODES[code].fix)


def _never_reported(target: Target, found: UnreadableObject | None, place: str) -> HostStanding:
    known = HostStanding(_shown(target.name), HostState.SILENT, target)
    if found is not None:
        return replace(
            _failed(known, HostState.FAILED, "report-unreadable", found.why), last_seen=found.written
        )
    return _failed(known, HostState.SILENT, "host-never-reported", f"no report in {place}")


def _unreadable(each: UnreadableObject) -> HostStanding:
    known = HostStanding(_shown(each.label), HostState.FAILED, last_seen=each.written)
    return _failed(known, HostState.FAILED, "report-unreadable", each.why)


def _clock_warnings(machines: Iterable[_Machine], now: float) -> list[str]:
    """Return a warning about hosts whose clock is ahead of the place's: their reports end after they were written."""
    ahead = [
        each.collected for each in machines if each.collected.finished > each.collected.written + _CLOCKS
    ]
    future = [each.collected for each in machines if each.collected.written > now + _CLOCKS]
    warnings = []
    if ahead:
        most = max(each.finished - each.written for each in ahead)
        names = _some([each.host["name"] for each in ahead])
        warnings.append(f"a clock is ahead by up to {age_words(most)}: {names}")
    if future:
        warnings.append("reports were written in the future: is the clock of this machine right?")
    return warnings


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(_shown(each) for each in names[:_NAMED]) + more


def _shown(name: str) -> str:
    return printable(cut(name, _LONGEST)) or "?"


def iso(epoch: float) -> str:
    """Return a time as reports have it; one that no calendar has, as the nearest that it has."""
    bounded = min(max(epoch, 0.0), 253402300799.0)
    return f"{dt.datetime.fromtimestamp(bounded, dt.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
