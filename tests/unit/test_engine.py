"""The engine: look, touch, look again; what a failure stops, what it does not, and when the old state comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from agent.core.errors import AgentError
from agent.core.host import READ_LIMIT
from agent.core.model import Finding, Notice, Plan, StepOutcome, StepResult
from agent.engine import EngineResult, apply_plan, check_plan
from agent.render.progress import NullProgress
from agent.verdict import judge
from tests.fakes.memory import Memory
from tests.fakes.steps import Files

if TYPE_CHECKING:
    from agent.core.codes import CodeName
    from agent.core.host import Host, HostView


@dataclass(frozen=True)
class File:
    """A step about one file's bytes. `effect` is what apply writes; None raises."""

    id: str
    want: str = "new"
    effect: str | None = "new"
    refuses: CodeName | None = None
    crashes: bool = False
    not_applied_code: CodeName = "write-failed"

    @property
    def path(self) -> str:
        return f"/{self.id}"

    def check(self, view: HostView) -> Finding:
        if self.refuses:
            raise AgentError(self.refuses, "refused", saw="that", want="this")
        saw = (view.read(self.path) or b"absent").decode()
        return Finding(saw == self.want, saw, self.want, notices=(Notice("looked", self.id),))

    def apply(self, host: Host) -> None:
        if self.crashes:
            raise KeyError(self.id)
        if self.effect is None:
            raise AgentError("no-space", "no room", saw="0 kB")
        host.write(self.path, self.effect.encode(), mode=0o644)


@dataclass(frozen=True)
class Sees:
    """A probe that is met when a file holds what is wanted."""

    id: str
    path: str
    want: bytes = b"new"
    requires: tuple[str, ...] = ()
    depends_on: str | None = None
    code: CodeName = "client-failed"

    def check(self, view: HostView) -> Finding:
        saw = view.read(self.path)
        return Finding(
            saw == self.want, str(saw), str(self.want), None if saw == self.want else self.code, "hint"
        )


def run(
    host: Memory, *steps: File, probes: tuple[Sees, ...] = (), worked: Sees | None = None
) -> EngineResult:
    return apply_plan(Plan(steps, probes, (), worked), host, NullProgress(), Files(host))


def ends(walk: EngineResult) -> list[tuple[str, str]]:
    return [(line.id, line.outcome.value) for line in (*walk.steps, *walk.undone)]


def test_what_is_met_is_not_touched() -> None:
    host = Memory({"/a": b"new"})
    assert ends(run(host, File("a"))) == [("a", "met")]
    assert host.touches == []


def test_a_change_is_done_only_when_a_second_look_agrees() -> None:
    host = Memory()
    assert ends(run(host, File("a"), File("b", effect="other"))) == [("a", "changed"), ("b", "failed")]
    walk = run(host, File("b", effect="other"))
    assert (walk.steps[0].code, walk.steps[0].saw, walk.steps[0].want) == ("write-failed", "other", "new")


def test_a_refusal_anywhere_stops_the_first_touch() -> None:
    host = Memory({"/b": b"new"})
    walk = run(host, File("a"), File("b"), File("c", refuses="package-downgrade"))
    assert ends(walk) == [("a", "skipped"), ("b", "met"), ("c", "failed")]
    assert next(line.hint for line in walk.steps) == "needs c"
    assert (host.touches, walk.changed) == ([], False)


def test_after_a_failure_the_rest_is_looked_at_and_not_touched() -> None:
    host = Memory({"/b": b"new"})
    walk = run(host, File("a", effect=None), File("b"), File("c"))
    assert ends(walk) == [("a", "failed"), ("b", "met"), ("c", "skipped")]
    assert walk.steps[2].hint == "needs a"
    assert host.read("/c") is None


def test_a_snapshot_that_cannot_be_kept_stops_the_first_touch() -> None:
    host = Memory({"/a": b"new"})
    walk = apply_plan(Plan((File("a"), File("b"), File("c"))), host, NullProgress(), Files(host, fails=True))
    assert ends(walk) == [("a", "met"), ("b", "failed"), ("c", "skipped")]
    assert (walk.steps[1].code, host.touches) == ("read-only", [])


def test_a_failed_run_is_undone_where_it_worked_before() -> None:
    host = Memory({"/a": b"old"})
    walk = run(host, File("a"), File("b", effect=None), worked=Sees("client", "/a", b"old"))
    assert ends(walk) == [("a", "changed"), ("b", "failed"), ("a", "undone")]
    assert (host.read("/a"), walk.changed) == (b"old", False)
    assert [notice.code for notice in walk.notices if notice.code != "looked"] == ["previous-works"]


def test_a_failed_run_is_not_undone_where_nothing_worked_before() -> None:
    host = Memory({"/a": b"old"})
    walk = run(host, File("a"), File("b", effect=None), worked=Sees("client", "/a", b"something else"))
    assert (ends(walk), host.read("/a")) == ([("a", "changed"), ("b", "failed")], b"new")


def test_a_proof_that_fails_undoes_the_change() -> None:
    host = Memory({"/a": b"old"})
    probe = Sees("client", "/answers", requires=("a",))
    walk = run(host, File("a"), probes=(probe,), worked=Sees("client", "/a", b"old"))
    assert ends(walk) == [("a", "changed"), ("client", "failed"), ("a", "undone")]


def test_an_hsm_that_is_not_reached_alone_undoes_nothing() -> None:
    host = Memory({"/a": b"old", "/up": b"new"})
    probes = (Sees("reach:1", "/down"), Sees("reach:2", "/up"), Sees("client", "/up", requires=("reach:*",)))
    walk = run(host, File("a"), probes=probes, worked=Sees("client", "/a", b"old"))
    assert ends(walk) == [("a", "changed"), ("reach:1", "failed"), ("reach:2", "met"), ("client", "met")]


def test_a_defect_in_a_step_fails_that_step_and_the_undo_still_comes() -> None:
    host = Memory({"/a": b"old"})
    walk = run(host, File("a"), File("b", crashes=True), worked=Sees("client", "/a", b"old"))
    assert ends(walk) == [("a", "changed"), ("b", "failed"), ("a", "undone")]
    assert (walk.steps[1].code, walk.steps[1].saw) == ("internal", "KeyError: 'b'")


@pytest.mark.parametrize("code", ["interrupted", "timed-out"])
def test_an_end_of_the_run_skips_all_that_follows(code: CodeName) -> None:
    host = Memory()
    walk = run(host, File("a", refuses=code), File("b"), probes=(Sees("client", "/a"),))
    assert ends(walk) == [("a", "failed"), ("b", "skipped"), ("client", "skipped")]
    assert walk.steps[2].hint == "the run ended before this"


def test_probes_with_the_same_needs_are_looked_at_together_and_told_in_order() -> None:
    host = Memory({"/x": b"new"})
    probes = (
        *tuple(Sees(f"reach:{number}", "/x") for number in range(6)),
        Sees("last", "/x", requires=("nothing",)),
    )
    walk = check_plan(Plan((), probes), host, NullProgress())
    assert ends(walk) == [*((f"reach:{number}", "met") for number in range(6)), ("last", "skipped")]
    assert walk.steps[-1].hint == "needs nothing"


def test_what_follows_another_probe_is_looked_at_with_it_and_not_told_without_it() -> None:
    host = Memory({"/up": b"new"})
    answers = Sees("client:hsm-info", "/up", requires=("a",))
    activated = Sees("client:activated", "/up", requires=("a",), depends_on="client:hsm-info")
    assert ends(run(host, File("a"), probes=(answers, activated)))[1:] == [
        ("client:hsm-info", "met"),
        ("client:activated", "met"),
    ]
    walk = run(host, File("a"), probes=(Sees("client:hsm-info", "/down", requires=("a",)), activated))
    assert ends(walk)[1:] == [("client:hsm-info", "failed"), ("client:activated", "skipped")]
    assert walk.steps[-1].hint == "needs client:hsm-info"


def test_what_could_not_be_put_back_is_changed() -> None:
    host = Memory({"/a": b"old"})

    class Failing(Files):
        def restore(self) -> tuple[StepResult, ...]:
            return (StepResult("a", StepOutcome.FAILED, "new", "old", "rollback-failed"),)

    plan = Plan((File("a"), File("b", effect=None)), (), (), Sees("client", "/a", b"old"))
    walk = apply_plan(plan, host, NullProgress(), Failing(host))
    assert ends(walk) == [("a", "changed"), ("b", "failed"), ("a", "failed")]
    assert (host.read("/a"), walk.changed) == (b"new", True)


def test_nothing_is_changed_where_a_guard_does_not_hold() -> None:
    host = Memory({"/b": b"new"})
    plan = Plan(
        (File("a"), File("b")),
        (Sees("probe", "/b"),),
        guards=(Sees("cluster:state", "/c", code="cluster-empty"), Sees("cluster:ca", "/b")),
    )
    applied = apply_plan(plan, host, NullProgress(), Files(host, fails=True))
    assert ends(applied) == [
        ("cluster:state", "failed"), ("cluster:ca", "met"), ("a", "skipped"), ("b", "met"), ("probe", "met"),
    ]  # fmt: skip
    assert applied.steps[2].hint == "needs cluster:state"
    checked = check_plan(plan, host, NullProgress())
    assert ends(checked)[:3] == [("cluster:state", "failed"), ("cluster:ca", "met"), ("a", "would-change")]
    assert host.touches == []


def test_a_look_says_what_would_change() -> None:
    host = Memory({"/b": b"new"})
    walk = check_plan(
        Plan((File("a"), File("b"), File("c", refuses="ca-would-be-replaced"))), host, NullProgress()
    )
    assert ends(walk) == [("a", "would-change"), ("b", "met"), ("c", "failed")]
    assert host.touches == []


def test_what_was_learned_is_told_once() -> None:
    host = Memory()
    assert run(host, File("a")).notices == (Notice("looked", "a"),)


class Cut(Memory):
    """A machine on which the run is stopped as soon as a file is read for the n-th time."""

    def __init__(self, files: dict[str, bytes], path: str, at: int, code: CodeName) -> None:
        super().__init__(files)
        self.path, self.left, self.code = path, at, code

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        if path == self.path:
            self.left -= 1
        if self.left <= 0:
            raise AgentError(self.code, "the end", saw=path)
        return super().read(path, offset=offset, limit=limit)


@pytest.mark.parametrize("code", ["interrupted", "timed-out"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_look_that_was_stopped_is_a_fact_of_the_walk_whatever_was_seen_before(
    code: CodeName, at: int
) -> None:
    host = Cut({"/up": b"new"}, "/silent", at, code)
    probes = (Sees("reach:1:2223", "/up"), Sees("reach:2:2223", "/silent"), Sees("reach:3:2223", "/silent"))
    walk = check_plan(Plan((), probes), host, NullProgress())
    assert walk.stopped is not None
    assert walk.stopped.code == code
    assert judge(walk).exit_status == {"interrupted": 130, "timed-out": 75}[code]


def test_a_stop_while_looking_whether_it_worked_ends_the_run_before_the_first_touch() -> None:
    host = Cut({"/a": b"old"}, "/client", 1, "interrupted")
    walk = run(host, File("a"), worked=Sees("client", "/client", b"old"))
    assert (judge(walk).exit_status, host.touches) == (130, [])


def test_an_end_while_looking_at_what_was_put_back_says_nothing_against_it() -> None:
    host = Cut({"/a": b"old", "/client": b"new"}, "/client", 2, "interrupted")
    walk = run(host, File("a"), File("b", effect=None), worked=Sees("client", "/client"))
    assert (judge(walk).exit_status, judge(walk).cause) == (51, "no-space")
    assert [notice.code for notice in walk.notices if notice.code != "looked"] == ["previous-unproven"]


@dataclass(frozen=True)
class Counts:
    """The client's answer: as many HSMs as a file has bytes, asked for `of`."""

    path: str
    of: int
    id: str = "client:hsm-info"
    requires: tuple[str, ...] = ()
    depends_on: str | None = None

    def check(self, view: HostView) -> Finding:
        found = len(view.read(self.path) or b"")
        code: CodeName | None = "hsm-degraded" if found < self.of else None
        return Finding(found > 0, str(found), str(self.of), code, detail={"answers": found})


@pytest.mark.parametrize(
    ("before", "after", "replaces", "undone"),
    [
        (b"ab", b"a", True, True),
        (b"abc", b"a", True, True),
        (b"a", b"a", True, False),
        (b"ab", b"a", False, False),
        (b"ab", b"abc", True, False),
        (b"ab", b"ab", True, False),
    ],
)
def test_fewer_hsms_than_before_are_undone_when_others_were_replaced(
    before: bytes, after: bytes, *, replaces: bool, undone: bool
) -> None:
    host = Memory({"/a": before, "/up": b"new"})
    probes = (
        Sees("reach:1:2223", "/up"),
        Sees("reach:2:2223", "/down", code="hsm-timed-out"),
        Counts("/a", 3),
    )
    step = File("a", want=after.decode(), effect=after.decode())
    plan = Plan((step,), probes, (), Counts("/a", len(before)), replaces)
    walk = apply_plan(plan, host, NullProgress(), Files(host))
    met = before == after
    assert bool(walk.undone) is (undone and not met)
    assert host.read("/a") == (before if undone else after)
    expected = ("hsm-timed-out", 51) if undone else (None, 41)
    assert (judge(walk).cause, judge(walk).exit_status) == expected
