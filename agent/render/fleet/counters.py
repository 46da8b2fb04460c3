"""The progress of a roll-out: what every display counts, as a RolloutListener."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable

from agent.core.fleet_model import HostState
from agent.render.fleet.humanize import hosts, waves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.fleet_model import HostResult

GOOD = (HostState.OK, HostState.DRIFTED)


@dataclass
class RunningHost:
    """A host with a session: since when, and its current step."""

    name: str
    began: float
    what: str = "connecting"


@dataclass
class WaveCounters:
    """One wave that has begun. `causes` counts the codes of the hosts that are not proven."""

    number: int
    hosts: int
    began: float
    ended: float | None = None
    states: Counter[HostState] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    ends: dict[str, tuple[HostState, str]] = field(default_factory=dict)

    def end(self, name: str, state: HostState, cause: str) -> None:
        """Count a host. One that is checked again after the soak counts by its last end."""
        if name in self.ends:
            before, why = self.ends[name]
            self.states[before] -= 1
            self.causes -= Counter([why] if before not in GOOD else [])
        self.ends[name] = (state, cause)
        self.states[state] += 1
        self.causes.update([] if state in GOOD else [cause])

    @property
    def done(self) -> int:
        return sum(self.states.values())

    @property
    def bad(self) -> int:
        return sum(count for state, count in self.states.items() if state not in GOOD)


class RolloutCounters:
    """A RolloutListener that counts and shows nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.command = ""
        self.sizes: tuple[int, ...] = ()
        self.began = clock()
        self.waves: list[WaveCounters] = []
        self.running: dict[str, RunningHost] = {}
        self.next_at: float | None = None
        self.stopping = ""

    def run_started(self, command: str, waves: Sequence[int]) -> None:
        self.command = command if command.startswith("fleet") else f"fleet {command}"
        self.sizes, self.began = tuple(waves), self.clock()

    def wave_started(self, number: int, hosts: int) -> None:
        self.next_at = None
        self.waves.append(WaveCounters(number, hosts, self.clock()))

    def host_started(self, name: str) -> None:
        self.running[name] = RunningHost(name, self.clock())

    def host_step(self, name: str, what: str) -> None:
        if name in self.running:
            self.running[name].what = what

    def host_finished(self, end: HostResult) -> None:
        self.running.pop(end.name, None)
        wave = self.now
        if wave is None or end.state is HostState.NOT_REACHED:  # it was never begun, and is not waited for
            return
        wave.end(end.name, end.state, end.code or end.state.value)
        if wave.done >= wave.hosts and wave.ended is None:
            wave.ended = self.clock()

    def soak_started(self, seconds: float) -> None:
        self.next_at = self.clock() + seconds

    def run_stopping(self, why: str) -> None:
        self.stopping = why

    def close(self) -> None:
        pass

    @property
    def now(self) -> WaveCounters | None:
        """The current wave."""
        return self.waves[-1] if self.waves else None

    def title(self) -> str:
        """Return the command of the run and its size."""
        some = f" in {waves(len(self.sizes))}" if len(self.sizes) > 1 else ""
        return f"{self.command or 'fleet'}: {hosts(sum(self.sizes))}{some}"

    def place(self, wave: WaveCounters) -> str:
        return f"wave {wave.number} of {max(len(self.sizes), wave.number)}"

    def rate(self, wave: WaveCounters) -> float | None:
        """Return how many hosts end in a second; None before that is known."""
        took = self.clock() - wave.began
        return wave.done / took if wave.done and took > 0 else None

    def left(self, wave: WaveCounters) -> float | None:
        """Return in how many seconds the wave may be done at this rate; None when that cannot be estimated."""
        rate = self.rate(wave)
        if rate is None or wave.done < _ENOUGH or self.stopping:
            return None
        return (wave.hosts - wave.done) / rate

    def slowest(self, most: int) -> list[RunningHost]:
        return sorted(self.running.values(), key=lambda each: each.began)[:most]


# as many hosts as an estimate needs
_ENOUGH = 3


def ended(wave: WaveCounters) -> str:
    """Return how the hosts of a wave ended, the good ones first."""
    parts = [f"{wave.states[state]:,} {state.value}" for state in HostState if wave.states[state]]
    return ", ".join(parts) or "none done"
