"""Wave by wave, so many hosts at a time, each with a deadline, until all had their turn or too many failed.

A host is known only by how a visit to it ends, so nothing here depends on SSH.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from agent.core.errors import CODES, unexpected
from agent.core.fleet_model import HostResult, HostState, Target
from agent.core.transport import CancelledError, CancelToken
from agent.fleet import waves
from agent.fleet.journal import summarised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.core.fleet_model import RolloutListener
    from agent.fleet.journal import Journal
    from agent.fleet.waves import HostCount

# New client connections to a cluster are limited, and a cold start of many at once is what fails first
# (cloudhsm-facts 5.5 and 8 #18): of those that start a wave, one begins somewhere in each span of so many seconds.
START_SPACING = 1 / 64
# How often an interrupt of the operator is looked for, in seconds.
_TURN = 0.2
# where a visit is before it says anything else
CONNECTING = "connecting"


@dataclass(frozen=True)
class HostTask:
    """What a visit is for. `again`: the same was asked for before, and may be done or under way there already."""

    command: str
    target: Target
    wave: int
    attempt: int
    again: bool


# Goes to one host and returns how it ended there; raises nothing. Told where it is by calling the last argument.
Visit = Callable[[HostTask, CancelToken, Callable[[str], None]], HostResult]


@dataclass(frozen=True)
class RolloutPolicy:
    """How fast, and when it is enough. Times are in seconds; `limit` is None for commands that only look."""

    parallel: int
    deadline: float
    soak: float = 0.0
    limit: HostCount | None = None
    apart: float = START_SPACING


@dataclass
class RunState:
    """Every host of the run and how it stands, in the order of the inventory. Ends are without the hosts' reports.

    `open` are hosts that may still be at work for this run, by a controller before this one. `places` has for each
    name the address and the port that are connected to.
    """

    targets: Sequence[Target]
    places: Mapping[str, tuple[str, int]]
    ends: dict[str, HostResult]
    attempts: dict[str, int]
    open: set[str]
    waves: list[tuple[str, ...]]

    def state(self, name: str) -> HostState:
        return self.ends[name].state if name in self.ends else HostState.NOT_REACHED


class Rollout:
    """One run of one command over many hosts. All but the visits themselves happens in the thread that calls `roll`."""

    def __init__(
        self,
        visit: Visit,
        line: Callable[[], CancelToken],
        journal: Journal,
        watcher: RolloutListener,
        pace: RolloutPolicy,
        stop: Callable[[], int],
    ) -> None:
        """`stop` says how often the operator interrupted: once, and nothing new starts; twice, and links are cut."""
        self._visit = visit
        self._line = line
        self._journal = journal
        self._watcher = watcher
        self._pace = pace
        self._stop = stop
        self._events: queue.SimpleQueue[tuple[int, str | HostResult]] = queue.SimpleQueue()
        self._at_work: dict[int, _AtWork] = {}
        self._numbers = 0
        self._unjudged = False
        self._due: Sequence[Target] = ()
        self.halted: str | None = None
        self.code: str | None = None

    def roll(self, command: str, run_state: RunState, due: Sequence[Sequence[Target]]) -> None:
        """Give every host of the waves its turn. `halted` and `code` then say why not all had it.

        A run that is gone on with counts its failures anew: whoever goes on has seen the earlier ones.
        """
        self._due = [target for wave in due for target in wave]
        self._watcher.run_started(command, [len(wave) for wave in due])
        for number, wave in enumerate(due, 1):
            if (
                number > 1
                and self._pace.soak
                and not self._soaked(command, run_state, due[number - 2], number - 1)
            ):
                break
            self._watcher.wave_started(number, len(wave))
            run_state.waves.append(tuple(target.name for target in wave))
            self._wave(command, run_state, wave, number)
            if self.halted:
                break

    def _soaked(self, command: str, run_state: RunState, wave: Sequence[Target], number: int) -> bool:
        """Wait, and look at the wave's hosts again: what did not last counts as if it had failed at once.

        After a removal there is nothing to be proven, and it is a wait and no more.
        """
        self._watcher.soak_started(self._pace.soak)
        end = time.monotonic() + self._pace.soak
        while time.monotonic() < end and not self._interrupted():
            self._take(min(_TURN, end - time.monotonic()), run_state)
        if not self.halted and command == "rollout":
            proven = [target for target in wave if run_state.state(target.name) in waves.PROVEN]
            self._wave("verify", run_state, proven, number)
        return not self.halted

    def _wave(self, command: str, run_state: RunState, wave: Sequence[Target], number: int) -> None:
        waiting = deque(wave)
        started = 0
        self._unjudged = True
        while waiting or self._at_work:
            self._judge(run_state, wave)
            if self.halted:
                waiting.clear()
            visits = []
            while waiting and len(self._at_work) < self._pace.parallel:
                # later ones begin when others end, which keeps them apart
                first = started < self._pace.parallel
                delay = (started + random.random()) * self._pace.apart if first else 0.0  # noqa: S311 -- not a secret
                visits.append(self._begun(command, run_state, waiting.popleft(), number, delay))
                started += 1
            # whoever reads the journal after a kill must know of every host that could have been reached
            self._journal.sync()
            for visit, go in visits:
                self._start(visit, go, run_state)
            self._take(self._patience(), run_state)
            self._cut(run_state)
        self._judge(run_state, wave)
        self._journal.sync()

    def _judge(self, run_state: RunState, wave: Sequence[Target]) -> None:
        """Stop starting when the operator says so, or the limit does, which is asked only when a host was lost."""
        if self.halted or self._interrupted() or self._pace.limit is None or not self._unjudged:
            return
        self._unjudged = False
        whole = [run_state.state(target.name) for target in self._due]
        why = waves.limit_exceeded(self._pace.limit, whole, [run_state.state(target.name) for target in wave])
        if why:
            self._halt("failure-limit", why)

    def _interrupted(self) -> bool:
        times = self._stop()
        if times and not self.halted:
            self._halt(
                "interrupted", "interrupted; hosts at work finish. Interrupt again to leave them alone"
            )
        return bool(times)

    def _halt(self, code: str, why: str) -> None:
        self.code, self.halted = code, why
        self._watcher.run_stopping(why)

    def _begun(
        self, command: str, run_state: RunState, target: Target, wave: int, delay: float
    ) -> tuple[int, Callable[[], None]]:
        """Put a host on record as begun, and return the number of its visit and the visit itself."""
        again = target.name in run_state.open
        attempt = run_state.attempts.get(target.name, 0) + (not again)
        run_state.attempts[target.name] = attempt
        self._journal.began(target.name, attempt)
        self._numbers += 1
        number, line = self._numbers, self._line()
        host_task = HostTask(command, target, wave, attempt, again)
        ends = time.monotonic() + delay + self._pace.deadline
        work = _AtWork(host_task, line, run_state.places[target.name], ends)
        self._at_work[number] = work
        self._watcher.host_started(target.name)

        def go() -> None:
            try:
                line.wait(delay)
                end = self._visit(host_task, line, lambda what: self._events.put((number, what)))
            except CancelledError:
                return
            except Exception as crash:  # a defect: the others go on, and the log gets the traceback
                logging.getLogger("agent").exception("the visit to %s failed", target.name)
                error = unexpected(crash)
                end = work.given_up(error.code.name, error.saw, HostState.FAILED)
            self._events.put((number, end))

        return number, go

    def _start(self, number: int, go: Callable[[], None], run_state: RunState) -> None:
        work = self._at_work[number]
        # not of a pool: a visit that hangs in a name look-up cannot be ended, and must not hold a place or the exit
        thread = threading.Thread(target=go, name=f"visit {work.host_task.target.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # this machine allows no more threads
            del self._at_work[number]
            self._ended(work.given_up(unexpected(error).code.name, str(error), HostState.FAILED), run_state)

    def _patience(self) -> float:
        now = time.monotonic()
        return max(0.0, min([_TURN, *(work.ends - now for work in self._at_work.values())]))

    def _take(self, seconds: float, run_state: RunState) -> None:
        """Take what visits tell: wait for the first word, then all that is there already.

        Not what comes meanwhile: a host that never stops telling must not hold up deadlines and other hosts.
        """
        try:
            number, what = self._events.get(timeout=max(0.0, seconds))
            for _ in range(self._events.qsize()):
                self._told(number, what, run_state)
                number, what = self._events.get_nowait()
            self._told(number, what, run_state)
        except queue.Empty:
            return

    def _told(self, number: int, what: str | HostResult, run_state: RunState) -> None:
        work = self._at_work.get(number)
        if work is None:
            return  # it was given up before
        if isinstance(what, str):
            work.at = what
            self._watcher.host_step(work.host_task.target.name, what)
        else:
            del self._at_work[number]
            self._ended(what, run_state)

    def _cut(self, run_state: RunState) -> None:
        """Give up what is past its deadline, or all when the operator insists.

        A thread ends when its sockets do, and nobody waits for that. What the operator leaves has no end in the
        journal: it may still be at work, and whoever goes on with this run asks for its report first.
        """
        now, insists = time.monotonic(), self._stop() > 1
        for number, work in list(self._at_work.items()):
            if now >= work.ends or insists:
                del self._at_work[number]
                work.line.cancel()
                if now >= work.ends:
                    saw = f"at `{work.at}` after {self._pace.deadline:g} s"
                    self._ended(work.given_up("host-deadline", saw, work.state), run_state)
                else:
                    end = work.given_up("interrupted", f"left at `{work.at}`", work.state)
                    run_state.ends[end.name] = end
                    self._watcher.host_finished(end)

    def _ended(self, end: HostResult, run_state: RunState) -> None:
        self._journal.ended(end)
        run_state.ends[end.name] = summarised(end)
        self._unjudged |= end.state not in waves.PROVEN
        run_state.open.discard(end.name)
        self._watcher.host_finished(end)


class _AtWork:
    """A visit that goes on: since when, until when it may, and where it is."""

    def __init__(self, host_task: HostTask, line: CancelToken, place: tuple[str, int], ends: float) -> None:
        self.host_task = host_task
        self.place = place
        self.line = line
        self.began = time.monotonic()
        self.ends = ends
        self.at = CONNECTING

    @property
    def state(self) -> HostState:
        return HostState.UNREACHABLE if self.at == CONNECTING else HostState.FAILED

    def given_up(self, name: str, saw: str, state: HostState) -> HostResult:
        code = CODES[name]
        address, port = self.place
        return HostResult(
            name=self.host_task.target.name,
            address=address,
            port=port,
            wave=self.host_task.wave,
            state=state,
            code=code.name,
            exit_status=code.exit_status,
            saw=saw,
            hint=code.fix,
            seconds=time.monotonic() - self.began,
        )
