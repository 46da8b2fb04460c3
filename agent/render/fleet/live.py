"""A roll-out on a terminal: the current wave, its speed and progress, what failed, and the slowest hosts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Callable

from agent.core.fleet_model import HostState
from agent.core.plain import printable
from agent.render.fleet.counters import RolloutCounters, ended
from agent.render.fleet.humanize import duration, hosts
from agent.render.fleet.terminal_area import TerminalArea, cells, fitting
from agent.render.text import wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from agent.core.fleet_model import HostResult
    from agent.render.fleet.counters import WaveCounters
    from agent.render.fleet.terminal_area import Lines

# Drawings in a second, and how long the last one is waited for, in seconds.
_EACH = 0.25
_PATIENCE = 2.0
_BAR = 30
_NARROW = 60
_SLOWEST = 5
_EARLIER = 3
_CAUSES = 3
_STOPPING = 3


class LiveDisplay(RolloutCounters):
    """A live display. A thread draws; a terminal that is stopped by Ctrl-S blocks that thread alone."""

    def __init__(
        self, stream: TextIO, *, colour: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(clock)
        self._canvas = TerminalArea(stream, colour=colour)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="display", daemon=True)

    def run_started(self, command: str, waves: Sequence[int]) -> None:
        with self._lock:
            super().run_started(command, waves)
        self._thread.start()

    def wave_started(self, number: int, hosts: int) -> None:
        with self._lock:
            super().wave_started(number, hosts)

    def host_started(self, name: str) -> None:
        with self._lock:
            super().host_started(name)

    def host_step(self, name: str, what: str) -> None:
        with self._lock:
            super().host_step(name, what)

    def host_finished(self, end: HostResult) -> None:
        with self._lock:
            super().host_finished(end)

    def soak_started(self, seconds: float) -> None:
        with self._lock:
            super().soak_started(seconds)

    def run_stopping(self, why: str) -> None:
        with self._lock:
            super().run_stopping(why)

    def close(self) -> None:
        self._over.set()
        if self._thread.ident is None:  # the run ended before it began
            return
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            self._canvas.clear()

    def _go_on(self) -> None:
        while not self._over.wait(_EACH):
            columns, rows = self._canvas.size()
            with self._lock:
                lines = frame(self, columns, rows)
            self._canvas.draw(lines)


def frame(tally: RolloutCounters, columns: int, rows: int) -> Lines:
    """Return the lines for a terminal of that size, each with the outcome of its colour."""
    now, wave = tally.clock(), tally.now
    title = tally.title() if columns >= _NARROW else f"{tally.command}: {hosts(sum(tally.sizes))}"
    head = [(f"{title}, {duration(now - tally.began)}", "")]
    if wave is None:
        return [*head, ("  connecting", "")]
    earlier = [(f"  {tally.place(each)}: {ended(each)}", "skipped") for each in tally.waves[:-1]]
    body = _wave(tally, wave, columns)
    if tally.stopping:
        some = f", {len(tally.running):,} running" if tally.running else ""
        lines = wrapped("  ", f"stopping{some}: {printable(tally.stopping)}", columns - 1)
        body += [(line, "failed") for line in lines[:_STOPPING]]
    elif tally.next_at is not None and tally.next_at > now:
        body.append((f"  waiting {duration(tally.next_at - now)} before the next wave", "changed"))
    elif wave.ended is not None and tally.running:
        body.append(("  checking its hosts again", "changed"))
    room = rows - 1 - len(head) - len(body)
    slow = _slowest(tally, columns, max(min(_SLOWEST, room - 1), 0))
    room -= len(slow)
    return [*head, *earlier[len(earlier) - max(min(_EARLIER, room, len(earlier)), 0) :], *body, *slow]


def _wave(tally: RolloutCounters, wave: WaveCounters, columns: int) -> list[tuple[str, str]]:
    bar = min(_BAR, max(columns - 30, 8))
    full = bar * min(wave.done, wave.hosts) // max(wave.hosts, 1)
    lines = [
        (f"  {tally.place(wave)}  [{'#' * full}{'.' * (bar - full)}] {wave.done:,} of {wave.hosts:,}", "")
    ]
    parts = [f"{len(tally.running):,} running"]
    parts += [f"{wave.states[HostState.OK]:,} ok"] if wave.states[HostState.OK] else []
    parts += [f"{wave.states[HostState.DRIFTED]:,} differ"] if wave.states[HostState.DRIFTED] else []
    parts += [f"{wave.bad:,} not well"] if wave.bad else []
    lines.append(("  " + ", ".join(parts), ""))
    rate, left = tally.rate(wave), tally.left(wave)
    if rate is not None and wave.ended is None:
        pace = f"{rate:.1f} hosts/s" if rate >= 1 else f"{rate * 60:.1f} hosts/min"
        lines.append(
            (f"  {pace}" + (f", about {duration(left)} left" if left is not None and left > 1 else ""), "")
        )
    causes = sum((each.causes for each in tally.waves), Counter[str]())
    if causes:
        parts = [f"{count:,} {code}" for code, count in causes.most_common(_CAUSES)]
        more = len(causes) - _CAUSES
        parts += [f"{more} more causes"] if more > 0 else []
        lines.append(("  " + ", ".join(parts), "failed"))
    return lines


def _slowest(tally: RolloutCounters, columns: int, most: int) -> list[tuple[str, str]]:
    """Return the hosts whose sessions last longest, with their current step."""
    found = tally.slowest(most)
    if not found:
        return []
    now = tally.clock()
    names = [printable(each.name) for each in found]
    most = min(max(map(cells, names)), max(columns // 2 - 6, 8))
    lines = [("  slowest:", "")]
    for each, name in zip(found, names):
        shown = fitting(name, most)
        padded = shown + " " * (most - cells(shown))
        lines.append((f"    {padded}  {duration(now - each.began):>5}  {printable(each.what)}", ""))
    return lines
