"""What holds for the whole program, whatever happens: run against a host in memory, broken at every touch."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import commands
from agent.cloudhsm.paths import client_paths
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.model import RunOutcome, StepOutcome
from agent.render.progress import NullProgress
from agent.report import RunInfo
from agent.state import snapshots
from tests.examples import examples
from tests.fakes.vendor import Vendor, WindowsVendor, catalogue
from tests.properties.worlds import (
    STARTED,
    Fragile,
    Killed,
    configure,
    desired_of,
    look,
    machine_of,
    outcomes,
    state,
)

if TYPE_CHECKING:
    from agent.core.codes import CodeName
    from tests.fakes.memory import Argv, Memory

# what holds, holds on either kind of system
pytestmark = pytest.mark.parametrize("world", [Vendor, WindowsVendor], ids=["linux", "windows"])
World = type[Vendor]


@pytest.mark.parametrize("components", [(), ("pkcs11",), ("pkcs11", "jce")], ids=str)
def test_a_second_run_finds_everything_met_and_touches_nothing_but_its_own_record(
    world: World, components: tuple[str, ...], ca_pem: bytes
) -> None:
    vendor = world()
    memory = machine_of(vendor)
    desired = desired_of(vendor, ca_pem, *components)
    first = configure(memory, desired)
    assert (first.outcome, first.exit_status, first.changed) == (RunOutcome.OK, 0, True), first
    memory.touches.clear()
    second = configure(memory, desired, 2)
    assert set(outcomes(second).values()) == {StepOutcome.MET}
    assert (second.exit_status, second.changed) == (0, False)
    own = {memory.system.desired, memory.system.report, memory.system.lock}
    assert {touch[1] for touch in memory.touches} <= own


@pytest.mark.parametrize("command", ["plan", "verify"])
def test_a_look_touches_nothing(world: World, command: str, ca_pem: bytes) -> None:
    vendor = world()
    memory = machine_of(vendor)
    before = dict(memory.entries)
    report = look(memory, desired_of(vendor, ca_pem, "pkcs11"), command)
    assert (report.outcome, report.code, report.exit_status) == (RunOutcome.DRIFT, "drift", 3)
    memory.entries.pop(memory.system.report, None)
    assert {path: memory.entries[path] for path in before} == before
    assert [touch for touch in memory.touches if touch != ("write", memory.system.report)] == []


def test_the_plan_is_what_the_run_then_does(world: World, ca_pem: bytes) -> None:
    vendor = world()
    memory = machine_of(vendor)
    desired = desired_of(vendor, ca_pem, "pkcs11")
    planned = look(memory, desired)
    done = configure(memory, desired)
    would = [line.id for line in planned.steps if line.outcome is StepOutcome.WOULD_CHANGE]
    did = [line.id for line in done.steps if line.outcome is StepOutcome.CHANGED]
    assert would == did
    assert [(line.id, line.want) for line in planned.steps if line.id in would] == [
        (line.id, line.want) for line in done.steps if line.id in did
    ]


@pytest.mark.slow
@pytest.mark.parametrize("breaks_at", range(1, 14))
def test_killed_at_any_touch_the_next_run_completes(world: World, breaks_at: int, ca_pem: bytes) -> None:
    vendor = world()
    memory = machine_of(vendor)
    desired = desired_of(vendor, ca_pem, "pkcs11")
    fragile = Fragile(memory, breaks_at, Killed)
    try:
        configure(fragile, desired)  # type: ignore[arg-type]
    except Killed:
        pass
    else:
        assert not fragile.broke
    again = configure(memory, desired, 2)
    assert (again.outcome, again.exit_status) == (RunOutcome.OK, 0), again
    assert set(outcomes(configure(memory, desired, 3)).values()) == {StepOutcome.MET}


@pytest.mark.slow
@pytest.mark.parametrize("breaks_at", range(1, 14))
def test_killed_on_a_host_that_worked_each_file_is_the_old_or_the_new_one(
    world: World, breaks_at: int, ca_pem: bytes, other_ca_pem: bytes
) -> None:
    vendor = world()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem, "pkcs11"))
    old = state(memory)
    changed = desired_of(vendor, other_ca_pem, "pkcs11", replace_ca=True, hsm_ip=("10.0.2.9", "10.0.1.6")[:1])
    changed = replace(changed, accept_single_hsm=True)
    with contextlib.suppress(Killed):
        configure(Fragile(memory, breaks_at, Killed), changed, 2)  # type: ignore[arg-type]
    killed = state(memory)
    configure(memory, changed, 3)
    new = state(memory)
    assert all(now in (before, after) for now, before, after in zip(killed, old, new))


@pytest.mark.slow
@pytest.mark.parametrize("code", ["no-space", "read-only", "interrupted"])
def test_a_touch_that_fails_on_a_host_that_worked_leaves_it_as_it_was(
    world: World, code: CodeName, ca_pem: bytes, other_ca_pem: bytes
) -> None:
    statuses = []
    for breaks_at in range(1, 20):
        vendor = world()
        memory = machine_of(vendor)
        configure(memory, desired_of(vendor, ca_pem, "pkcs11"))
        old = state(memory)
        changed = desired_of(vendor, other_ca_pem, "pkcs11", replace_ca=True, accept_single_hsm=True)
        fragile = Fragile(memory, breaks_at, lambda: AgentError(code, "at this very touch"))
        report = configure(fragile, changed, 2)  # type: ignore[arg-type]
        if not fragile.broke:
            break
        statuses.append(report.exit_status)
        if report.exit_status == 0:
            told = {notice.code for notice in report.notices}
            assert told & {"record-not-kept", "report-not-kept", "snapshot-not-kept"} or breaks_at == 2
        else:
            assert state(memory) == old, report
    # what is asked for, without which nothing begins; that the run has begun, which its end will tell as well; what is
    # asked for with its CA; the snapshot and the CA, before which there is nothing to undo; two components; then the three
    # records of the agent itself
    own = CODES[code].exit_status
    undone = own if code == "interrupted" else 51
    assert statuses == [own, 0, own, own, own, undone, undone, 0, 0, 0]


@pytest.mark.parametrize(
    ("mood", "codes"),
    [
        ({"configure-pkcs11": "lie"}, ("rolled-back", "configure-not-applied")),
        ({"configure-pkcs11": "fail"}, ("rolled-back", "configure-failed")),
        ({"configure-pkcs11": "hang"}, ("rolled-back", "configure-failed")),
        ({"configure-pkcs11": "half"}, ("rolled-back", "configure-not-applied")),
        (
            {"configure-cli": "fail-with-effect", "configure-pkcs11": "lie"},
            ("rolled-back", "configure-not-applied"),
        ),
    ],
    ids=str,
)
def test_a_failed_run_on_a_host_that_worked_is_undone_and_names_its_cause(
    world: World, mood: dict[str, str], codes: tuple[str, str], ca_pem: bytes
) -> None:
    vendor = world(addresses=("10.0.1.6", "10.0.2.9", "10.0.3.3"))
    memory = machine_of(vendor)
    configure(memory, replace(desired_of(vendor, ca_pem, "pkcs11"), hsm_ip=("10.0.1.6", "10.0.2.9")))
    old = state(memory)
    vendor.moods.update(mood)
    report = configure(memory, desired_of(vendor, ca_pem, "pkcs11"), 2)
    assert (report.code, report.cause) == codes
    assert (report.outcome, report.exit_status) == (RunOutcome.ROLLED_BACK, 51)
    assert state(memory) == old
    assert "previous-works" in [notice.code for notice in report.notices]


def test_a_client_whose_first_connection_fails_worked_all_the_same(world: World, ca_pem: bytes) -> None:
    vendor = world()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem))
    old = state(memory)
    memory.ports["10.0.8.8", 2223] = None
    answer, asked = memory.programs[vendor.layout.cli], []

    def cold(argv: Argv, machine: Memory) -> CommandResult:
        asked.append(argv)
        return CommandResult(1, "", "no\n") if len(asked) == 1 else answer(argv, machine)  # type: ignore[operator]

    memory.programs[vendor.layout.cli] = cold
    wrong = desired_of(vendor, ca_pem, hsm_ip=("10.0.8.8",), accept_single_hsm=True)
    report = configure(memory, wrong, 2)
    assert (report.code, report.cause, report.exit_status) == ("rolled-back", "client-failed", 51)
    assert state(memory) == old


def test_a_tool_that_fails_but_did_its_work_is_believed_by_its_file(world: World, ca_pem: bytes) -> None:
    vendor = world(moods={"configure-cli": "fail-with-effect"})
    report = configure(machine_of(vendor), desired_of(vendor, ca_pem))
    assert (report.outcome, report.exit_status) == (RunOutcome.OK, 0)


def test_a_package_manager_that_lies_is_caught(world: World, ca_pem: bytes) -> None:
    vendor = world(moods={"installer": "lie"})
    report = configure(machine_of(vendor), desired_of(vendor, ca_pem))
    assert (report.code, report.exit_status) == ("package-failed", 22)
    skipped = {line.id: line.hint for line in report.steps if line.outcome is StepOutcome.SKIPPED}
    assert skipped["certificate"] == "needs package:cli"


@pytest.mark.parametrize(
    ("status", "code", "saw"),
    [
        (None, "client-hung", "no end after its answer in 90 s"),
        (134, "client-failed", "exit 134 after its answer"),
        (137, "client-failed", "exit 137 after its answer"),
        (0xC0000005, "client-failed", "exit 3221225477 after its answer"),
        (1, None, ""),  # what its exit statuses mean is not documented
    ],
)
def test_a_client_that_answers_and_does_not_end_in_peace_proves_nothing(
    world: World, ca_pem: bytes, status: int | None, code: str | None, saw: str
) -> None:
    vendor = world()
    memory = machine_of(vendor)
    answer = memory.programs[vendor.layout.cli]
    memory.programs[vendor.layout.cli] = lambda argv, machine: replace(answer(argv, machine), status=status)  # type: ignore[operator]
    report = configure(memory, desired_of(vendor, ca_pem))
    (line,) = (line for line in report.steps if line.id == "client:hsm-info")
    assert (report.code, line.code, line.outcome is StepOutcome.MET) == (code, code, code is None)
    assert code is None or line.saw == saw


def test_a_new_host_that_fails_keeps_what_is_right(world: World, ca_pem: bytes) -> None:
    vendor = world(down={"10.0.1.6", "10.0.2.9"})
    memory = machine_of(vendor)
    for address in vendor.addresses:
        memory.ports[address, 2223] = "hsm-timed-out"
    report = configure(memory, desired_of(vendor, ca_pem))
    assert (report.outcome, report.code, report.exit_status) == (RunOutcome.FAILED, "hsm-timed-out", 40)
    assert outcomes(report)["configure:cli"] is StepOutcome.CHANGED
    assert outcomes(report)["client:hsm-info"] is StepOutcome.SKIPPED
    for address in vendor.addresses:
        memory.ports[address, 2223] = None
    vendor.down.clear()
    assert look(memory, Desired(), "verify").exit_status == 0


def test_one_hsm_down_is_degraded_and_is_not_undone(world: World, ca_pem: bytes) -> None:
    vendor = world(down={"10.0.1.6"})
    memory = machine_of(vendor)
    memory.ports["10.0.1.6", 2223] = "hsm-refused"
    report = configure(memory, desired_of(vendor, ca_pem))
    assert (report.outcome, report.code, report.exit_status) == (RunOutcome.DEGRADED, "hsm-degraded", 41)
    assert [(hsm.ip, hsm.reached, hsm.cause) for hsm in report.hsms] == [
        ("10.0.1.6", False, "hsm-refused"),
        ("10.0.2.9", True, None),
    ]


def test_what_is_refused_costs_the_host_nothing(world: World, ca_pem: bytes, other_ca_pem: bytes) -> None:
    vendor = world()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem))
    memory.touches.clear()
    report = configure(memory, desired_of(vendor, other_ca_pem, "pkcs11"), 2)
    assert (report.code, report.exit_status) == ("ca-would-be-replaced", 31)
    own = {memory.system.desired, memory.system.report, memory.system.lock}
    assert {touch[1] for touch in memory.touches} <= own


def test_rollback_goes_back_and_twice_is_once(world: World, ca_pem: bytes, other_ca_pem: bytes) -> None:
    vendor = world()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem))
    old = state(memory)
    changed = desired_of(vendor, ca_pem, accept_single_hsm=True)
    assert configure(memory, changed, 2).exit_status == 0
    assert state(memory) != old
    for number in (3, 4):
        run = RunInfo(f"2026112{number}T000000Z-0000", "rollback", STARTED, catalogue=catalogue())
        report = commands.rollback(memory, None, run, NullProgress())
        assert report.exit_status == 0
        assert state(memory) == old


def test_remove_takes_the_packages_off_and_keeps_a_copy(world: World, ca_pem: bytes) -> None:
    vendor = world()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem, "pkcs11"))
    run = RunInfo("20261125T000000Z-0000", "remove", STARTED, catalogue=catalogue())
    report = commands.remove(memory, run, NullProgress(), None)
    assert (report.exit_status, vendor.installed) == (0, {})
    kept = snapshots.load(memory, run.run_id)
    assert client_paths(memory.system).settings("cli", memory) in [each.path for each in kept.files]
    again = commands.remove(
        memory,
        RunInfo("20261126T000000Z-0000", "remove", STARTED, catalogue=catalogue()),
        NullProgress(),
        None,
    )
    assert (again.exit_status, again.changed) == (0, False)


@given(
    down=st.sets(st.sampled_from(["10.0.1.6", "10.0.2.9"])),
    moods=st.fixed_dictionaries(
        {},
        optional={
            "configure-cli": st.sampled_from(["lie", "fail", "fail-with-effect", "hang", "half"]),
            "configure-pkcs11": st.sampled_from(["lie", "fail", "fail-with-effect", "hang", "half"]),
            "installer": st.sampled_from(["lie", "fail", "half"]),
            "cloudhsm-cli": st.just("hang"),
        },
    ),
    activated=st.booleans(),
    components=st.sampled_from([(), ("pkcs11",)]),
)
@examples(150)
def test_whatever_the_world_does_success_is_never_claimed_falsely_and_the_cure_completes(
    world: World,
    ca_pem: bytes,
    down: set[str],
    moods: dict[str, str],
    *,
    activated: bool,
    components: tuple[str, ...],
) -> None:
    vendor = world(down=set(down), moods=dict(moods), activated=activated)
    memory = machine_of(vendor)
    for address in down:
        memory.ports[address, 2223] = "hsm-timed-out"
    desired = desired_of(vendor, ca_pem, *components)
    report = configure(memory, desired)
    proven = not down and activated and not moods.keys() & {"cloudhsm-cli"}
    if report.exit_status == 0:
        assert proven
        tree = vendor.configured(memory, "cli")
        assert [each["hostname"] for each in tree["clusters"][0]["cluster"]["servers"]] == list(
            vendor.addresses
        )
    else:
        assert report.code is not None
        assert report.failure is not None
        assert report.failure.hint
    vendor.moods.clear()
    vendor.down.clear()
    vendor.activated = True
    for address in down:
        memory.ports[address, 2223] = None
    assert configure(memory, desired, 2).exit_status == 0
    assert set(outcomes(configure(memory, desired, 3)).values()) == {StepOutcome.MET}


class Ending:
    """A host whose run is stopped at its n-th look or touch that takes time, and from then on at each."""

    def __init__(self, inner: Memory, at: int, code: CodeName) -> None:
        self._inner, self._left, self._code = inner, at, code

    @property
    def over(self) -> bool:
        return self._left <= 0

    def __getattr__(self, verb: str) -> object:
        value = getattr(self._inner, verb)
        if verb not in ("query", "connect", "sleep", "http_get", "download"):
            return value

        def timely(*args: object, **kwargs: object) -> object:
            self._left -= 1
            if self.over:
                raise AgentError(self._code, "the end", saw=verb)
            return value(*args, **kwargs)

        return timely


def alive(vendor: Vendor, memory: Memory) -> set[str]:
    """Return the HSMs that the client on this host works with: what counts, whatever our own reports say."""
    try:
        tree = vendor.configured(memory, "cli")
    except ValueError:
        return set()
    servers = {each["hostname"] for each in tree["clusters"][0]["cluster"]["servers"]} if tree else set()
    return (servers & set(vendor.addresses)) - vendor.down


@pytest.mark.slow
@pytest.mark.parametrize("code", ["interrupted", "timed-out"])
@pytest.mark.parametrize("command", ["configure", "verify"])
def test_a_run_that_was_stopped_at_any_moment_never_ends_well_nor_degraded(
    world: World, ca_pem: bytes, command: str, code: CodeName
) -> None:
    ended = set()
    for at in range(1, 100):
        vendor = world(down={"10.0.1.6"})
        memory = machine_of(vendor)
        configure(memory, desired_of(vendor, ca_pem, "pkcs11"))
        memory.ports["10.0.1.6", 2223] = "hsm-timed-out"
        desired = desired_of(vendor, ca_pem, "pkcs11", log_level="debug")
        ending = Ending(memory, at, code)
        run = RunInfo("20261127T000000Z-0000", command, STARTED, catalogue=catalogue())
        perform = commands.configure if command == "configure" else commands.verify
        report = perform(ending, desired, run, NullProgress())  # type: ignore[arg-type]
        if not ending.over:
            break
        ended.add(report.exit_status)
        if any(line.code == code for line in report.steps) or not report.steps:
            assert (report.code, report.exit_status) == (code, CODES[code].exit_status)
            assert report.outcome in (RunOutcome.FAILED, RunOutcome.ROLLED_BACK)
        if report.outcome in (RunOutcome.OK, RunOutcome.DEGRADED):
            assert {line.outcome for line in report.steps} <= {
                StepOutcome.MET,
                StepOutcome.CHANGED,
                StepOutcome.FAILED,
            }
            assert any(line.id == "client:activated" for line in report.steps)
    else:
        pytest.fail("the run never ended by itself")
    assert CODES[code].exit_status in ended


@pytest.mark.parametrize("command", ["configure", "verify", "remove"])
@pytest.mark.parametrize("at", range(1, 12))
def test_a_package_database_that_never_answers_again_does_not_outlive_the_runs_limit(
    world: World, ca_pem: bytes, command: str, at: int
) -> None:
    if world is WindowsVendor:
        return  # the registry answers at once
    vendor = world(installed={} if command == "configure" else {"cloudhsm-cli": "5.18.0-1"})
    memory = machine_of(vendor)
    answer, left = memory.programs["dpkg-query"], [at]

    def query(argv: tuple[str, ...], machine: Memory) -> CommandResult:
        left[0] -= 1
        return CommandResult(None, "", "") if left[0] <= 0 else answer(argv, machine)  # type: ignore[operator]

    memory.programs["dpkg-query"] = query
    run = RunInfo("20261127T000000Z-0000", command, STARTED, catalogue=catalogue())
    if command == "remove":
        report = commands.remove(memory, run, NullProgress(), 5.0)
    else:
        desired = desired_of(vendor, ca_pem, timeout=5.0)
        report = (commands.configure if command == "configure" else commands.verify)(
            memory, desired, run, NullProgress()
        )
    assert memory.clock <= 6
    if report.exit_status == 0:
        assert {line.outcome for line in report.steps} <= {StepOutcome.MET, StepOutcome.CHANGED}


ALL = ("10.0.1.6", "10.0.2.9", "10.0.3.3")
WRONG = ("10.0.8.8", "10.0.9.9")
MISHAPS = ["lie", "fail", "fail-with-effect", "hang", "half"]


@pytest.mark.slow
@given(
    asked=st.lists(st.sampled_from([*ALL, *WRONG]), min_size=1, max_size=4, unique=True),
    listening=st.sets(st.sampled_from(WRONG)),
    moods=st.fixed_dictionaries(
        {},
        optional={
            "configure-cli": st.sampled_from(MISHAPS),
            "configure-pkcs11": st.sampled_from(MISHAPS),
            "installer": st.sampled_from(["lie", "fail"]),
        },
    ),
    component=st.sampled_from(["pkcs11", "jce"]),
    other=st.booleans(),
    stop=st.none() | st.tuples(st.integers(1, 60), st.sampled_from(["interrupted", "timed-out"])),
    times=st.integers(1, 3),
)
@examples(60)
def test_what_worked_before_a_run_works_after_it_however_often_it_is_repeated(
    world: World, ca_pem: bytes, other_ca_pem: bytes, asked: list[str], listening: set[str], moods: dict[str, str],
    component: str, stop: tuple[int, CodeName] | None, times: int, *, other: bool,
) -> None:  # fmt: skip
    vendor = world(addresses=ALL)
    memory = machine_of(vendor)
    for address in WRONG:
        memory.ports[address, 2223] = None if address in listening else "hsm-timed-out"
    configure(memory, replace(desired_of(vendor, ca_pem, "pkcs11"), hsm_ip=ALL[:2]))
    before, old = alive(vendor, memory), state(memory)
    assert before == set(ALL[:2])
    vendor.moods.update(moods)
    wanted = replace(desired_of(vendor, ca_pem, component), hsm_ip=tuple(asked))
    wanted = replace(wanted, accept_single_hsm=len(asked) == 1)
    if other:
        wanted = replace(wanted, ca_cert=CaSource.of(other_ca_pem.decode()), replace_ca=True)
        vendor.client_says = None
    for number in range(2, 2 + times):
        host = Ending(memory, *stop) if stop else memory
        report = configure(host, wanted, number)  # type: ignore[arg-type]
        now = alive(vendor, memory)
        if report.exit_status == 0:
            assert now == set(asked)
        else:
            # never fewer than worked before, but where the caller asked for fewer and those answer
            assert len(now) >= min(len(before), len(asked)), report
        if report.outcome is RunOutcome.ROLLED_BACK:
            assert state(memory) == old
            assert report.exit_status in (51, 75, 130)
