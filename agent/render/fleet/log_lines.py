"""A roll-out as lines for a log: waves, hosts of small waves, failures, and the progress from time to time."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Callable

from agent.core.fleet_model import HostState
from agent.core.plain import printable
from agent.render.fleet.counters import GOOD, RolloutCounters, ended
from agent.render.fleet.humanize import duration, hosts
from agent.render.progress import TolerantStream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from agent.core.fleet_model import HostResult
    from agent.render.fleet.counters import WaveCounters

# In waves up to this size each host has a line.
_NAMED = 50
# How many hosts are named for one cause; the report names all.
_ALIKE = 20
# Seconds between two lines of progress.
_EVERY = 30.0


class LogLines(RolloutCounters):
    """A RolloutListener that writes lines, never thousands of the same kind."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._stream = TolerantStream(stream)
        self._shown = clock()
        self._alike: Counter[str] = Counter()

    def run_started(self, command: str, waves: Sequence[int]) -> None:
        super().run_started(command, waves)
        self._say(self.title())

    def wave_started(self, number: int, hosts: int) -> None:
        super().wave_started(number, hosts)
        self._begin_wave(self.waves[-1])

    def host_step(self, name: str, what: str) -> None:
        super().host_step(name, what)
        self._now_and_then()

    def host_finished(self, end: HostResult) -> None:
        wave = self.now
        again = wave is not None and end.name in wave.ends
        super().host_finished(end)
        if wave is None or end.state is HostState.NOT_REACHED:
            return
        if end.state not in GOOD:
            self._bad(end)
        elif wave.hosts <= _NAMED and not again:
            self._say(f"{printable(end.name)} {_how(end)} {duration(end.seconds)}")
        if again:  # checked again after the soak: only a change is reported
            return
        if wave.ended is not None:
            self._say(f"{self.place(wave)} done: {ended(wave)}; in {duration(wave.ended - wave.began)}")
        else:
            self._now_and_then()

    def soak_started(self, seconds: float) -> None:
        super().soak_started(seconds)
        self._say(f"waiting {duration(seconds)}, then checking the wave's hosts again before the next wave")

    def run_stopping(self, why: str) -> None:
        super().run_stopping(why)
        some = f", {hosts(len(self.running))} running" if self.running else ""
        self._say(f"stopping{some}: {printable(why)}")

    def _begin_wave(self, wave: WaveCounters) -> None:
        self._shown = wave.began
        self._say(f"{self.place(wave)}: {hosts(wave.hosts)}")

    def _bad(self, end: HostResult) -> None:
        cause = end.code or end.state.value
        self._alike[cause] += 1
        if self._alike[cause] <= _ALIKE:
            self._say(f"{printable(end.name)} {_how(end)} {duration(end.seconds)}")
        elif self._alike[cause] == _ALIKE + 1:
            self._say(f"more hosts with {cause}: counted from here on, named in the report")

    def _now_and_then(self) -> None:
        wave, now = self.now, self.clock()
        if wave is None or wave.ended is not None or now - self._shown < _EVERY:
            return
        self._shown = now
        parts = [f"{wave.done:,} of {wave.hosts:,} done", f"{len(self.running):,} running"]
        parts += [f"{wave.bad:,} not well"] if wave.bad else []
        left = self.left(wave)
        parts += [f"about {duration(left)} left"] if left is not None else []
        self._say(f"{self.place(wave)}: {', '.join(parts)}")

    def _say(self, text: str) -> None:
        self._stream.write(f"hsm-agent: {text}\n")
        self._stream.flush()


def _how(end: HostResult) -> str:
    if end.code:
        return f"{end.state.value} ({end.code})"
    return f"{end.state.value} (changed)" if end.changed else end.state.value
