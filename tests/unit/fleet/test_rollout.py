"""The roll-out over visits that are plain functions: waves, limits, deadlines, interrupts, and what is on record."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from agent.core.fleet_model import ArchiveDigests, HostResult, HostState, Target
from agent.fleet import journal
from agent.fleet.model import Deps, HostTask, RunSpec, RunState
from agent.fleet.rollout import Rollout
from agent.hosts.posix import Posix
from tests.examples import examples
from tests.fakes.cancel_tokens import Cord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pytest


@dataclass
class Heard:
    """A watcher that remembers."""

    told: list[tuple[Any, ...]] = field(default_factory=list)

    def run_started(self, command: str, waves: Sequence[int]) -> None:
        self.told.append(("begins", command, tuple(waves)))

    def wave_started(self, number: int, hosts: int) -> None:
        self.told.append(("wave", number, hosts))

    def host_started(self, name: str) -> None:
        self.told.append(("began", name))

    def host_step(self, name: str, what: str) -> None:
        self.told.append(("at", name, what))

    def host_finished(self, end: HostResult) -> None:
        self.told.append(("ended", end.name, end.state.value))

    def soak_started(self, seconds: float) -> None:
        self.told.append(("soaks", seconds))

    def run_stopping(self, why: str) -> None:
        self.told.append(("stops", why))

    def close(self) -> None:
        self.told.append(("close",))


def targets(count: int) -> tuple[Target, ...]:
    return tuple(Target(f"h{number}", f"10.0.0.{number}") for number in range(count))


def ended(host_task: HostTask, state: HostState = HostState.OK, code: str | None = None) -> HostResult:
    return HostResult(host_task.target.name, host_task.target.address, 22, host_task.wave, state, code=code)


def no_transport(_spec: RunSpec) -> Any:
    raise AssertionError("a roll-out connects by its sessions alone")


@dataclass
class Run:
    """One roll-out over some hosts, and all that can be seen of it."""

    folder: Path
    hosts: int
    shares: str = "100%"
    limit: str = "0"
    parallel: int = 4
    deadline: float = 60.0
    soak: float = 0.0
    apart: float = 0.0
    visits: list[HostTask] = field(default_factory=list)
    heard: Heard = field(default_factory=Heard)
    cords: list[Cord] = field(default_factory=list)
    interrupts: int = 0
    open: tuple[str, ...] = ()
    before: tuple[str, ...] = ()  # hosts that failed when the run was first conducted, and are not due now
    command: str = "rollout"

    def go(self, visit: Callable[[HostTask, Any, Callable[[str], None]], HostResult]) -> RunState:
        these = targets(self.hosts)
        lock = threading.Lock()

        def seen(host_task: HostTask, line: Any, tell: Callable[[str], None]) -> HostResult:
            with lock:
                self.visits.append(host_task)
            return visit(host_task, line, tell)

        def cord() -> Cord:
            self.cords.append(Cord())
            return self.cords[-1]

        spec = RunSpec(
            self.command, "hosts", these, {}, parallel=self.parallel, shares=self.shares, soak=self.soak,
            limit=self.limit, deadline=self.deadline,
        )  # fmt: skip
        endpoints = {target.name: (target.address, 22) for target in these}
        self.run_state = RunState("run", "now", spec, ArchiveDigests(), endpoints=endpoints)
        deps = Deps(
            Posix(), {}, no_transport, cord, self.heard,
            lambda: self.interrupts, start_spacing=self.apart,
        )  # fmt: skip
        with journal.opened(self.folder) as book:
            book.begin(self.run_state)
            for name in self.open:
                book.began(name, 1)
                self.run_state.begin(name, 1)
            for name in self.before:
                self.run_state.ends[name] = HostResult(name, "", 22, 1, HostState.FAILED)
            due = [target for target in these if target.name not in self.before]
            Rollout(self.run_state, deps, book, seen).roll(due)
        return self.run_state

    @property
    def states(self) -> dict[str, str]:
        return {
            target.name: self.run_state.state(target.name).value for target in self.run_state.spec.targets
        }


def test_every_host_has_its_turn_wave_by_wave(tmp_path: Path) -> None:
    run = Run(tmp_path, 10, "1,50%,100%")
    rollout = run.go(lambda host_task, _line, _tell: ended(host_task))
    assert (rollout.why, set(run.states.values())) == (None, {"ok"})
    assert run.run_state.waves == [("h0",), ("h1", "h2", "h3", "h4"), ("h5", "h6", "h7", "h8", "h9")]
    assert run.heard.told[:3] == [("begins", "rollout", (1, 4, 5)), ("wave", 1, 1), ("began", "h0")]
    assert [host_task.wave for host_task in run.visits] == [1, *[2] * 4, *[3] * 5]
    story = journal.read(tmp_path)
    assert (set(story.ends), story.open) == ({f"h{number}" for number in range(10)}, set())


def test_those_that_start_a_wave_are_kept_apart_and_later_ones_follow_as_others_end(tmp_path: Path) -> None:
    apart = 1 / 128
    run = Run(tmp_path, 7, "1,100%", parallel=3, apart=apart)
    run.go(lambda host_task, _line, _tell: ended(host_task))
    canary, *wave = [cord.asked for cord in run.cords if cord.asked is not None]
    assert 0 <= canary < apart
    assert [asked // apart for asked in wave[:3]] == [0, 1, 2]
    assert wave[3:] == [0, 0, 0]


def test_the_deadline_of_a_host_begins_when_it_does(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, parallel=3, deadline=1.0, apart=0.6)
    run.go(lambda host_task, _line, _tell: ended(host_task))
    assert set(run.states.values()) == {"ok"}


def test_a_canary_that_fails_keeps_the_others_untouched(tmp_path: Path) -> None:
    run = Run(tmp_path, 10, "1,100%")
    rollout = run.go(lambda host_task, _line, _tell: ended(host_task, HostState.FAILED, "hsm-timed-out"))
    assert rollout.code == "failure-limit"
    assert rollout.why == "1 of 10 hosts in the run are not proven; 0 allows 0"
    assert run.states == {"h0": "failed", **{f"h{number}": "not-reached" for number in range(1, 10)}}
    assert len(run.visits) == 1


def test_a_run_that_is_gone_on_with_counts_anew(tmp_path: Path) -> None:
    run = Run(tmp_path, 5, "1,100%", limit="1", before=("h0", "h1"))
    rollout = run.go(
        lambda host_task, _line, _tell: ended(
            host_task, HostState.FAILED if host_task.target.name == "h2" else HostState.OK
        )
    )
    assert (rollout.why, Counter(run.states.values())) == (None, {"failed": 3, "ok": 2})


def test_what_runs_finishes_when_the_limit_is_reached(tmp_path: Path) -> None:
    gate = threading.Event()
    begun = threading.Semaphore(0)

    def visit(host_task: HostTask, _line: Any, _tell: Any) -> HostResult:
        begun.release()
        if host_task.target.name == "h0":
            for _ in range(3):
                assert begun.acquire(timeout=10)
            return ended(host_task, HostState.UNREACHABLE, "ssh-refused")
        assert gate.wait(10)
        return ended(host_task)

    run = Run(tmp_path, 8, parallel=3)
    stops = run.heard.run_stopping

    def stop(why: str) -> None:
        stops(why)
        gate.set()

    run.heard.run_stopping = stop  # type: ignore[method-assign]
    rollout = run.go(visit)
    assert rollout.code == "failure-limit"
    assert Counter(run.states.values()) == {"unreachable": 1, "ok": 2, "not-reached": 5}


def test_never_more_at_once_than_was_said(tmp_path: Path) -> None:
    at_once, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(3)

    def visit(host_task: HostTask, _line: Any, _tell: Any) -> HostResult:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        if int(host_task.target.name[1:]) < 3:
            full.wait(10)
        with lock:
            at_once -= 1
        return ended(host_task)

    run = Run(tmp_path, 9, parallel=3)
    run.go(visit)
    assert (most, set(run.states.values())) == (3, {"ok"})


def test_a_host_past_its_deadline_is_given_up_and_costs_nobody_else(tmp_path: Path) -> None:
    def visit(host_task: HostTask, line: Cord, tell: Callable[[str], None]) -> HostResult:
        if host_task.target.name == "h1":
            tell("package:cli")
            assert line.is_cut.wait(30)
            return ended(host_task)  # too late: it was given up
        return ended(host_task)

    run = Run(tmp_path, 5, limit="5", deadline=0.3)
    rollout = run.go(visit)
    assert rollout.why is None
    assert run.states == {"h0": "ok", "h1": "failed", "h2": "ok", "h3": "ok", "h4": "ok"}
    end = run.run_state.ends["h1"]
    assert (end.code, end.exit_status, end.saw) == ("host-deadline", 75, "at `package:cli` after 0.3 s")


def test_a_host_that_never_answered_is_unreachable(tmp_path: Path) -> None:
    run = Run(tmp_path, 1, limit="5", deadline=0.1)
    run.go(lambda host_task, line, _tell: (line.is_cut.wait(30), ended(host_task))[1])
    assert run.states == {"h0": "unreachable"}


def test_an_interrupt_lets_what_runs_finish(tmp_path: Path) -> None:
    run = Run(tmp_path, 6, parallel=2)

    def visit(host_task: HostTask, _line: Any, _tell: Any) -> HostResult:
        run.interrupts = 1
        return ended(host_task)

    rollout = run.go(visit)
    assert rollout.code == "interrupted"
    assert Counter(run.states.values())["ok"] == len(run.visits) <= 2


def test_a_second_interrupt_leaves_hosts_alone_and_remembers_them(tmp_path: Path) -> None:
    run = Run(tmp_path, 3, parallel=2)

    def visit(host_task: HostTask, line: Cord, tell: Callable[[str], None]) -> HostResult:
        tell("package:cli")
        run.interrupts = 2
        assert line.is_cut.wait(30)
        return ended(host_task)

    rollout = run.go(visit)
    assert rollout.code == "interrupted"
    assert {run.run_state.ends[name].code for name in run.run_state.ends} == {"interrupted"}
    assert set(journal.read(tmp_path).open) == set(run.run_state.ends)


def test_a_host_that_was_begun_before_is_asked_again_for_the_same(tmp_path: Path) -> None:
    run = Run(tmp_path, 2, open=("h1",))
    run.go(lambda host_task, _line, _tell: ended(host_task))
    assert [(host_task.target.name, host_task.attempt, host_task.again) for host_task in sorted(run.visits, key=str)] == [
        ("h0", 1, False), ("h1", 1, True),
    ]  # fmt: skip


def test_after_the_soak_a_wave_is_looked_at_again(tmp_path: Path) -> None:
    def visit(host_task: HostTask, _line: Any, _tell: Any) -> HostResult:
        return ended(host_task, HostState.DEGRADED if host_task.command == "verify" else HostState.OK)

    run = Run(tmp_path, 4, "1,100%", soak=0.05)
    rollout = run.go(visit)
    assert [(host_task.command, host_task.target.name) for host_task in run.visits] == [
        ("rollout", "h0"),
        ("verify", "h0"),
    ]
    assert rollout.code == "failure-limit"
    assert ("soaks", 0.05) in run.heard.told
    assert Counter(run.states.values()) == {"degraded": 1, "not-reached": 3}


def test_after_a_removal_nothing_is_looked_for(tmp_path: Path) -> None:
    run = Run(tmp_path, 4, "1,100%", soak=0.05, command="remove")
    rollout = run.go(lambda host_task, _line, _tell: ended(host_task))
    assert (rollout.why, {host_task.command for host_task in run.visits}) == (None, {"remove"})
    assert ("soaks", 0.05) in run.heard.told


def test_a_host_is_on_record_before_it_can_be_reached(tmp_path: Path) -> None:
    """A kill at any moment leaves nobody at work who is not in the journal."""
    seen: dict[str, bool] = {}

    def visit(host_task: HostTask, _line: Any, _tell: Any) -> HostResult:
        seen[host_task.target.name] = host_task.target.name in journal.read(tmp_path).attempts
        return ended(host_task)

    Run(tmp_path, 9, "1,100%", parallel=3).go(visit)
    assert (len(seen), set(seen.values())) == (9, {True})


def test_a_host_that_never_stops_telling_holds_nobody_up(tmp_path: Path) -> None:
    def visit(host_task: HostTask, line: Cord, tell: Callable[[str], None]) -> HostResult:
        while host_task.target.name != "h3" and not line.is_cut.is_set():
            tell("x")
        return ended(host_task)

    run = Run(tmp_path, 4, limit="4", deadline=0.3)
    run.go(visit)
    assert run.states == {**dict.fromkeys(("h0", "h1", "h2"), "failed"), "h3": "ok"}


def test_a_machine_that_allows_no_more_threads_fails_hosts_and_not_the_run(tmp_path: Path) -> None:
    before = threading.stack_size(1 << 46)  # more than there is
    try:
        run = Run(tmp_path, 2, limit="2")
        rollout = run.go(lambda host_task, _line, _tell: ended(host_task))
    finally:
        threading.stack_size(before)
    assert (rollout.why, {end.code for end in run.run_state.ends.values()}) == (None, {"no-resources"})
    assert journal.read(tmp_path).open == set()


def test_a_visit_that_breaks_in_an_unforeseen_way_is_that_hosts_failure(tmp_path: Path) -> None:
    def visit(host_task: HostTask, _line: Any, _tell: Any) -> HostResult:
        if host_task.target.name == "h0":
            raise RuntimeError("unforeseen")
        return ended(host_task)

    run = Run(tmp_path, 2, limit="1")
    run.go(visit)
    assert run.states == {"h0": "failed", "h1": "ok"}
    assert (run.run_state.ends["h0"].code, run.run_state.ends["h0"].saw) == (
        "internal",
        "RuntimeError: unforeseen",
    )


_HOW = st.lists(
    st.sampled_from([HostState.OK, HostState.DEGRADED, HostState.FAILED, HostState.UNREACHABLE]),
    min_size=1,
    max_size=25,
)


@examples(40)
@given(_HOW, st.integers(0, 4), st.integers(1, 6), st.sampled_from(["100%", "1,100%", "1,10%,50%,100%"]))
def test_the_stop_rule_holds(
    tmp_path_factory: pytest.TempPathFactory, how: list[HostState], allowed: int, parallel: int, shares: str
) -> None:
    """No host is begun once more failed than is allowed; so at most `parallel` - 1 of those begun before can follow."""
    run = Run(tmp_path_factory.mktemp("run"), len(how), shares, str(allowed), parallel)
    rollout = run.go(lambda host_task, _line, _tell: ended(host_task, how[int(host_task.target.name[1:])]))
    failed = sum(state not in ("ok", "not-reached") for state in run.states.values())
    assert (rollout.code == "failure-limit") == (failed > allowed)
    assert failed <= allowed + parallel
    if failed <= allowed:
        assert "not-reached" not in run.states.values()
    begun = [told[1] for told in run.heard.told if told[0] == "began"]
    assert begun == [f"h{number}" for number in range(len(begun))]
    stopped = [number for number, told in enumerate(run.heard.told) if told[0] == "stops"]
    if stopped:
        assert not any(told[0] == "began" for told in run.heard.told[stopped[0] :])
