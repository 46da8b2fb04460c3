"""Wave by wave, so many hosts at a time, each with a deadline, until all had their turn or too many failed.

A host is known only by how a session with it ends, so nothing here depends on SSH.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Callable

from agent.core.errors import unexpected
from agent.core.fleet_model import HostState
from agent.core.transport import CancelledError
from agent.fleet import waves
from agent.fleet.host_end import HostEnd
from agent.fleet.journal import summarised
from agent.fleet.model import CONNECTING, HostTask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.codes import CodeName
    from agent.core.fleet_model import HostResult, Target
    from agent.core.transport import CancelToken
    from agent.fleet.journal import Journal
    from agent.fleet.model import Deps, HostSession, RunState

# How often an interrupt of the operator is checked for, in seconds.
_TURN = 0.2


class Rollout:
    """One run of one command over many hosts. All but the sessions happens in the thread that calls `roll`."""

    def __init__(self, run: RunState, deps: Deps, journal: Journal, session: HostSession) -> None:
        self._run = run
        self._deps = deps
        self._journal = journal
        self._session = session
        changes = run.spec.changes_hosts
        self._soak = run.spec.soak if changes else 0.0
        self._limit = waves.share(run.spec.limit) if changes else None
        self._shares = waves.shares(run.spec.shares) if changes else (waves.ALL,)
        self._events: queue.SimpleQueue[tuple[int, str | HostResult]] = queue.SimpleQueue()
        self._active: dict[int, _ActiveSession] = {}
        self._sessions = 0
        self._unjudged = False
        self._due: Sequence[Target] = ()

    def roll(self, due: Sequence[Target]) -> None:
        """Give every due host its turn; `code` and `why` of the run then say why not all had it.

        A resumed run counts its failures from zero: the operator has seen the earlier ones.
        """
        self._due = due
        parts = waves.split(due, self._shares)
        self._deps.listener.run_started(self._run.spec.command, [len(part) for part in parts])
        for number, part in enumerate(parts, 1):
            if number > 1 and self._soak and not self._soaked(parts[number - 2], number - 1):
                break
            self._deps.listener.wave_started(number, len(part))
            self._run.waves.append(tuple(target.name for target in part))
            self._wave(self._run.spec.command, part, number)
            if self._run.why:
                break

    def _soaked(self, wave: Sequence[Target], number: int) -> bool:
        """Wait, and check the wave's hosts again: one that did not stay proven counts as failed.

        A removal leaves nothing to prove, so it only waits.
        """
        self._deps.listener.soak_started(self._soak)
        end = time.monotonic() + self._soak
        while time.monotonic() < end and not self._interrupted():
            self._receive(min(_TURN, end - time.monotonic()))
        if not self._run.why and self._run.spec.command == "rollout":
            proven = [target for target in wave if self._run.state(target.name) in waves.PROVEN]
            self._wave("verify", proven, number)
        return not self._run.why

    def _wave(self, command: str, wave: Sequence[Target], number: int) -> None:
        waiting = deque(wave)
        parallel = self._run.spec.parallel
        started = 0
        self._unjudged = True
        while waiting or self._active:
            self._judge(wave)
            if self._run.why:
                waiting.clear()
            begun = []
            while waiting and len(self._active) < parallel:
                # later ones begin when others end, which keeps them apart
                spacing = self._deps.start_spacing if started < parallel else 0.0
                delay = (started + random.random()) * spacing  # noqa: S311 -- not a secret
                begun.append(self._begin(command, waiting.popleft(), number, delay))
                started += 1
            # after a kill the journal must have every host that could have been reached
            self._journal.sync()
            for session, body in begun:
                self._start(session, body)
            self._receive(self._patience())
            self._expire()
        self._judge(wave)
        self._journal.sync()

    def _judge(self, wave: Sequence[Target]) -> None:
        """Begin no more hosts when the operator interrupts, or when a host was lost and the limit is exceeded."""
        if self._run.why or self._interrupted() or self._limit is None or not self._unjudged:
            return
        self._unjudged = False
        why = waves.limit_exceeded(self._limit, self._ends_of(self._due), self._ends_of(wave))
        if why:
            self._stop("failure-limit", why)

    def _ends_of(self, targets: Sequence[Target]) -> list[HostState]:
        """Return how hosts ended; one that is running has no end and does not count yet."""
        ends = self._run.ends
        return [ends[each.name].state if each.name in ends else HostState.NOT_REACHED for each in targets]

    def _interrupted(self) -> bool:
        times = self._deps.interrupts()
        if times and not self._run.why:
            self._stop(
                "interrupted", "interrupted; running hosts finish. Interrupt again to leave them alone"
            )
        return bool(times)

    def _stop(self, code: CodeName, why: str) -> None:
        self._run.code, self._run.why = code, why
        self._deps.listener.run_stopping(why)

    def _begin(self, command: str, target: Target, wave: int, delay: float) -> tuple[int, Callable[[], None]]:
        """Record a host as begun; return the number of its session, and the session's body."""
        again = self._run.may_be_running(target.name)
        attempt = self._run.attempts.get(target.name, 0) + (not again)
        self._run.begin(target.name, attempt)
        self._journal.began(target.name, attempt)
        self._sessions += 1
        number, token = self._sessions, self._deps.cancel_token()
        task = HostTask(command, target, wave, attempt, again)
        deadline = time.monotonic() + delay + self._run.spec.deadline
        active = _ActiveSession(task, token, self._run.endpoints[target.name], deadline)
        self._active[number] = active
        self._deps.listener.host_started(target.name)

        def body() -> None:
            try:
                token.wait(delay)
                end = self._session(task, token, lambda step: self._events.put((number, step)))
            except CancelledError:
                return
            except Exception as crash:  # a defect: the others continue, and the log gets the traceback
                logging.getLogger("agent").exception("the session with %s failed", target.name)
                error = unexpected(crash)
                end = active.abandoned(error.code.name, error.saw, HostState.FAILED)
            self._events.put((number, end))

        return number, body

    def _start(self, number: int, body: Callable[[], None]) -> None:
        active = self._active[number]
        # not of a pool: a session that hangs in name resolution cannot be ended, and must not delay others or the exit
        thread = threading.Thread(target=body, name=f"session {active.task.target.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # this machine allows no more threads
            del self._active[number]
            self._ended(active.abandoned(unexpected(error).code.name, str(error), HostState.FAILED))

    def _patience(self) -> float:
        now = time.monotonic()
        return max(0.0, min([_TURN, *(active.deadline - now for active in self._active.values())]))

    def _receive(self, seconds: float) -> None:
        """Take the events of sessions: wait for the first, then take all that are there already.

        Those that arrive meanwhile wait: a host that reports without pause must not delay deadlines and other hosts.
        """
        try:
            number, event = self._events.get(timeout=max(0.0, seconds))
            for _ in range(self._events.qsize()):
                self._handle(number, event)
                number, event = self._events.get_nowait()
            self._handle(number, event)
        except queue.Empty:
            return

    def _handle(self, number: int, event: str | HostResult) -> None:
        active = self._active.get(number)
        if active is None:
            return  # it was abandoned before
        if isinstance(event, str):
            active.at = event
            self._deps.listener.host_step(active.task.target.name, event)
        else:
            del self._active[number]
            self._ended(event)

    def _expire(self) -> None:
        """Abandon sessions past their deadline, or all of them after a second interrupt.

        A thread ends when its sockets do; nothing waits for that. What the operator leaves has no end in the journal:
        it may still be running, and the run that resumes this one asks for its report first.
        """
        now, insists = time.monotonic(), self._deps.interrupts() > 1
        for number, active in list(self._active.items()):
            late = now >= active.deadline
            if not (late or insists):
                continue
            del self._active[number]
            active.token.cancel()
            if late:
                saw = f"at `{active.at}` after {self._run.spec.deadline:g} s"
                self._ended(active.abandoned("host-deadline", saw, active.state))
            else:
                end = active.abandoned("interrupted", f"left at `{active.at}`", active.state)
                self._run.leave(end)
                self._deps.listener.host_finished(end)

    def _ended(self, end: HostResult) -> None:
        self._journal.ended(end)
        self._run.end(summarised(end))
        self._unjudged |= end.state not in waves.PROVEN
        self._deps.listener.host_finished(end)


class _ActiveSession:
    """A running session: its start, its deadline, and its current step."""

    def __init__(
        self, task: HostTask, token: CancelToken, endpoint: tuple[str, int], deadline: float
    ) -> None:
        self.task = task
        self.token = token
        self.deadline = deadline
        self.at = CONNECTING
        self._end = HostEnd(task, endpoint)

    @property
    def state(self) -> HostState:
        return HostState.UNREACHABLE if self.at == CONNECTING else HostState.FAILED

    def abandoned(self, name: CodeName, saw: str, state: HostState) -> HostResult:
        return self._end.ended(state, name, saw=saw)
