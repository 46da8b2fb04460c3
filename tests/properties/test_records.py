"""What a host remembers: what was asked for counts until a `configure` succeeds, and a record is of one host."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import commands
from agent.cloudhsm.fingerprint import sha256_of
from agent.cloudhsm.pem import certificates
from agent.config.desired import Desired, with_options
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.core.host import CommandResult, ProcessInfo
from agent.core.model import Report, RunOutcome
from agent.render.progress import NullProgress
from agent.report import RunInfo
from agent.sinks import spool
from agent.state import records
from agent.state.identity import identity
from agent.state.last_report import last_report
from agent.state.sealed import seal
from tests.examples import examples
from tests.fakes.damage import DAMAGES, damaged
from tests.fakes.memory import Memory
from tests.fakes.vendor import Vendor, catalogue
from tests.properties.recorded import World, as_instance, as_machine, both, run_of
from tests.properties.worlds import STARTED, Fragile, Killed, configure, desired_of, machine_of, state

if TYPE_CHECKING:
    from agent.core.host import Host

Ask = Callable[[Desired, bytes], Desired]

# what may be asked for and fails, and how
EARLY: dict[str, tuple[Ask, int]] = {
    "wrong bytes": (lambda all_, _: replace(all_, component=("jce",), sha256=_spoilt(all_)), 21),
    "no checksum": (
        lambda all_, _: replace(all_, component=("jce",), sha256={}, client_version="5.17.9"),
        21,
    ),
    "no such component": (lambda all_, _: replace(all_, component=("ksp", "dyn")), 10),
    "no such platform": (lambda all_, _: replace(all_, platform="el9"), 10),
    "no CA there": (lambda all_, _: replace(all_, ca_cert=CaSource.of("/root/nothing.crt")), 30),
    "no CA in it": (lambda all_, _: replace(all_, ca_cert=CaSource.of("inline:hello"), replace_ca=True), 30),
    "another CA": (lambda all_, other: replace(all_, ca_cert=CaSource.of(other.decode())), 31),
    "another fingerprint": (
        lambda all_, _: replace(all_, ca_fingerprint="0" * 64, accept_single_hsm=True),
        31,
    ),
    "no HSM": (lambda all_, _: replace(all_, hsm_ip=("10.9.9.9",), accept_single_hsm=True), 51),
}


def _spoilt(desired: Desired) -> dict[str, str]:
    return dict.fromkeys(desired.sha256, "0" * 64)


def a_world(world: World) -> tuple[Vendor, Memory]:
    vendor = world()
    memory = machine_of(vendor)
    memory.ports["10.9.9.9", 2223] = "hsm-timed-out"
    return vendor, memory


def verify(memory: Host, desired: Desired | None = None, number: int = 9) -> Report:
    run = RunInfo(f"2026112{number}T120000Z-0000", "verify", STARTED, catalogue=catalogue())
    return commands.verify(memory, desired or Desired(), run, NullProgress())


def shown(memory: Host) -> int:
    return int(last_report(memory, None)["exit_status"])


@pytest.mark.slow
@both
@pytest.mark.parametrize("name", EARLY)
def test_what_was_asked_for_and_failed_is_not_forgotten(
    world: World, name: str, ca_pem: bytes, other_ca_pem: bytes
) -> None:
    vendor, memory = a_world(world)
    good = desired_of(vendor, ca_pem)
    assert configure(memory, good).exit_status == 0
    ask, status = EARLY[name]
    asked = ask(good, other_ca_pem)
    assert configure(memory, asked, 2).exit_status == status
    assert shown(memory) == status
    # neither by itself nor for what was asked before, however often
    for wanted in (None, good, None):
        assert verify(memory, wanted).exit_status not in (0, 41), name
        assert shown(memory) not in (0, 41)
    # without options it is that one again
    assert configure(memory, Desired(), 3).exit_status not in (0, 41)
    # until one succeeds: whichever
    assert configure(memory, replace(good, accept_single_hsm=True), 4).exit_status == 0
    assert (verify(memory).exit_status, shown(memory)) == (0, 0)


@both
@pytest.mark.parametrize("name", [each for each in EARLY if each not in ("another CA", "no HSM")])
def test_a_first_configure_that_failed_leaves_something_to_differ_from(
    world: World, name: str, ca_pem: bytes, other_ca_pem: bytes
) -> None:
    vendor, memory = a_world(world)
    ask, status = EARLY[name]
    asked = ask(desired_of(vendor, ca_pem), other_ca_pem)
    assert configure(memory, asked).exit_status == status
    assert memory.stat(memory.system.desired) is not None  # what the daily unit looks for
    again = verify(memory)
    assert again.exit_status not in (0, 41)
    assert again.code != "nothing-recorded"


@both
def test_the_looks_that_prove_what_was_asked_for_say_so(world: World, ca_pem: bytes) -> None:
    """A host whose HSMs were silent, and are not any more, is as wanted: each thing that was asked for was seen."""
    vendor, memory = a_world(world)
    for address in vendor.addresses:
        memory.ports[address, 2223] = "hsm-timed-out"
    assert configure(memory, desired_of(vendor, ca_pem)).exit_status == 40
    assert verify(memory).exit_status == 40
    for address in vendor.addresses:
        memory.ports[address, 2223] = None
    assert verify(memory).exit_status == 0
    # for less than that, nothing is proven
    less = replace(desired_of(vendor, ca_pem), hsm_ip=vendor.addresses[:1], accept_single_hsm=True)
    assert verify(memory, less).exit_status == 3


@pytest.mark.slow
@both
@pytest.mark.parametrize("breaks_at", range(1, 12))
def test_a_run_that_was_killed_leaves_no_older_success(world: World, breaks_at: int, ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    asked = desired_of(vendor, ca_pem, "pkcs11")
    fragile = Fragile(memory, breaks_at, Killed)
    try:
        ended = configure(fragile, asked, 2)  # type: ignore[arg-type]
    except Killed:
        # the record is the first thing that is written; before that nothing was accepted
        if breaks_at > 2:
            assert shown(memory) == 130
        if breaks_at > 1 and not records.read_last(memory).is_done:
            assert verify(memory, good).exit_status != 0
    else:
        assert ended.exit_status == shown(memory) == 0


@both
def test_who_may_not_run_replaces_no_record(world: World, ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    before = memory.read(memory.system.desired), memory.read(memory.system.report)
    asked = desired_of(vendor, ca_pem, "pkcs11")
    memory.root = False
    assert configure(memory, asked, 2).exit_status == 11
    memory.root = True
    with memory.lock(memory.system.lock, "another"):
        assert configure(memory, asked, 2).exit_status == 11
    assert (memory.read(memory.system.desired), memory.read(memory.system.report)) == before
    assert verify(memory).exit_status == 0


@both
def test_what_is_removed_is_not_asked_for_any_more(world: World, ca_pem: bytes, other_ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    configure(memory, EARLY["wrong bytes"][0](good, other_ca_pem), 2)
    assert commands.remove(memory, run_of("remove"), NullProgress(), None).exit_status == 0
    assert verify(memory).code == "nothing-recorded"


@both
def test_a_rollback_says_that_something_was_asked_for_and_failed(world: World, ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    configure(memory, EARLY["no HSM"][0](good, b""), 2)
    report = commands.rollback(memory, None, run_of("rollback"), NullProgress())
    assert "configure-unfinished" in [notice.code for notice in report.notices]
    assert verify(memory, good).exit_status == 3


@both
def test_no_secret_is_recorded(world: World, ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    report = configure(memory, replace(desired_of(vendor, ca_pem), ca_cert=CaSource.of(f"inline:{key}")))
    assert report.code == "ca-is-private-key"
    assert b"PRIVATE KEY" not in (memory.read(memory.system.desired) or b"")
    assert verify(memory).exit_status == 30


@both
def test_a_record_without_an_address_proves_nothing(world: World, ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    configure(memory, desired_of(vendor, ca_pem))
    asked: tuple[dict[str, Any], ...] = ({}, {"hsm_ip": []}, {"component": ["cli"]})
    for desired in asked:
        tree = {"schema_version": 1, "desired": desired, "ca_pem": ca_pem.decode()}
        memory.place(memory.system.desired, json.dumps(tree).encode())
        assert verify(memory).code == "nothing-recorded"


@both
def test_a_record_of_an_older_version_is_read(world: World, ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    configure(memory, desired_of(vendor, ca_pem))
    tree = json.loads(memory.read(memory.system.desired) or b"")
    old = {key: tree[key] for key in ("schema_version", "desired", "ca_pem")}
    memory.place(memory.system.desired, json.dumps(old).encode())
    report = json.loads(memory.read(memory.system.report) or b"")
    del report["host"]["identity"]
    memory.place(memory.system.report, json.dumps(report).encode())
    assert (shown(memory), verify(memory).exit_status) == (0, 0)


def test_a_record_of_a_newer_version_is_told_as_one() -> None:
    memory = Memory()
    for path in (memory.system.desired, memory.system.report):
        memory.place(path, b'{"schema_version": 7}')
    for read in (records.read_last, records.read_report):
        with pytest.raises(AgentError) as caught:
            read(memory)
        assert "newer" in caught.value.sentence
        assert caught.value.saw == "version 7"


# ---- whose it is


@both
def test_a_copy_of_a_host_has_no_report_and_no_record(world: World, ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    configure(memory, desired_of(vendor, ca_pem))
    as_machine(memory, "7")
    for command in (lambda: last_report(memory, None), lambda: records.read_last(memory)):
        with pytest.raises(AgentError) as caught:
            command()
        assert caught.value.code.name == "nothing-recorded"
        assert "another host" in caught.value.sentence
    assert configure(memory, Desired(), 3).code == "nothing-recorded"
    assert verify(memory).code == "nothing-recorded"
    # what is asked of it is its own
    assert configure(memory, desired_of(vendor, ca_pem), 4).exit_status == 0
    assert (shown(memory), verify(memory).exit_status) == (0, 0)


def test_a_copy_of_an_instance_is_another_though_its_machine_id_is_the_same(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    as_instance(memory, "i-0123456789abcdef0")
    configure(memory, desired_of(vendor, ca_pem))
    as_machine(memory, "8")  # an image whose machine id is made anew at each boot
    assert shown(memory) == 0
    as_instance(memory, "i-0fedcba9876543210")
    assert verify(memory).code == "nothing-recorded"


@pytest.mark.parametrize("text", [b"", b"uninitialized\n", b"\xff", b"not an id"])
def test_a_host_without_a_machine_id_has_none_and_its_copy_has_one(text: bytes, ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    memory.place("/etc/machine-id", text)
    assert identity(memory) is None
    configure(memory, desired_of(vendor, ca_pem))
    assert (shown(memory), verify(memory).exit_status) == (0, 0)
    as_machine(memory, "7")
    assert verify(memory).code == "nothing-recorded"


def test_the_identity_says_nothing_of_the_machine_id() -> None:
    memory = Memory({"/etc/machine-id": b"0123456789abcdef0123456789abcdef\n"})
    named = identity(memory)
    assert named is not None
    assert len(named) == 32
    assert "0123456789abcdef" not in named


def test_an_old_report_of_another_instance_is_of_another_host() -> None:
    memory = Memory()
    as_instance(memory, "i-0123456789abcdef0")
    report: dict[str, Any] = {
        "schema_version": 1,
        "exit_status": 0,
        "host": {"instance_id": "i-0fedcba9876543210"},
    }
    memory.place(memory.system.report, json.dumps(report).encode())
    with pytest.raises(AgentError):
        last_report(memory, None)


class Booting(Memory):
    """A copy on which, while somebody waits, its own run ends."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.clock >= 3:
            own = {
                "schema_version": 1,
                "run_id": "own",
                "exit_status": 40,
                "host": {"identity": identity(self)},
            }
            self.place(self.system.report, json.dumps(own).encode())


def test_a_wait_on_a_copy_is_for_its_own_report() -> None:
    memory = Booting({"/etc/machine-id": b"7" * 32}, started=dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc))
    copied = {"schema_version": 1, "run_id": "copied", "exit_status": 0, "host": {"identity": "0" * 32}}
    memory.place(memory.system.report, json.dumps(copied).encode())
    assert last_report(memory, 60)["run_id"] == "own"
    assert memory.clock >= 3


def test_a_run_that_ends_degraded_is_one_that_succeeded(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    memory.ports["10.0.1.6", 2223] = "hsm-refused"
    vendor.down.add("10.0.1.6")
    assert configure(memory, desired_of(vendor, ca_pem)).outcome is RunOutcome.DEGRADED
    assert records.read_last(memory).is_done


# ---- what is reported is what is after


def using(memory: Memory, path: str) -> None:
    memory.running = (ProcessInfo(812, "nginx", 0, 0, STARTED.timestamp() - 86400 * 3650, (path,)),)


@pytest.mark.parametrize("command", ["rollback", "remove"])
def test_who_goes_back_or_removes_is_told_what_to_restart(command: str, ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    configure(memory, desired_of(vendor, ca_pem, "pkcs11"))
    configure(memory, desired_of(vendor, ca_pem, "pkcs11", accept_single_hsm=True), 2)
    using(memory, "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so")
    if command == "rollback":
        report = commands.rollback(memory, None, run_of(command), NullProgress())
    else:
        report = commands.remove(memory, run_of(command), NullProgress(), None)
    assert report.exit_status == 0
    assert [(each.name, each.component) for each in report.restart_needed] == [("nginx", "pkcs11")]


@pytest.mark.parametrize("command", ["configure", "verify", "rollback", "remove"])
def test_programs_with_a_million_mappings_hold_no_run_up(command: str, ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    desired = desired_of(vendor, ca_pem, "pkcs11")
    configure(memory, desired)
    memory.mappings_take = 3600
    before = memory.clock
    perform: dict[str, Callable[[], Report]] = {
        "configure": lambda: configure(memory, with_options(desired, {"timeout": 30.0}), 3),
        "verify": lambda: verify(memory, with_options(desired, {"timeout": 30.0})),
        "rollback": lambda: commands.rollback(memory, None, run_of("rollback", 5), NullProgress()),
        "remove": lambda: commands.remove(memory, run_of("remove", 6), NullProgress(), 30.0),
    }
    report = perform[command]()
    assert (report.exit_status, memory.clock - before <= 31) == (0, True)
    assert "programs-unread" in [notice.code for notice in report.notices]


def test_a_program_with_a_library_that_was_replaced_is_to_be_restarted(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    desired = desired_of(vendor, ca_pem, "pkcs11")
    configure(memory, desired)
    started = memory.now().timestamp() + 60
    library = "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so"
    memory.running = (
        ProcessInfo(7, "old", 0, 0, started, (f"{library} (deleted)",)),
        ProcessInfo(8, "new", 0, 0, started, (library,)),
    )
    assert [each.name for each in verify(memory, desired).restart_needed] == ["old"]


LIBRARY = "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so"


def moved(memory: Memory, path: str, to: str) -> None:
    """Move a folder, and leave a link in its place."""
    for each in [each for each in memory.entries if each.startswith(f"{path}/") or each == path]:
        memory.entries[to + each[len(path) :]] = memory.entries.pop(each)
    memory.place(path, kind="link", link=to)


@pytest.mark.parametrize("path", ["/opt", "/opt/cloudhsm", "/opt/cloudhsm/lib"])
def test_a_program_is_to_be_restarted_wherever_the_client_really_lies(path: str, ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    desired = desired_of(vendor, ca_pem, "pkcs11")
    configure(memory, desired)
    moved(memory, path, "/data/moved")
    real = LIBRARY.replace(path, "/data/moved", 1)
    memory.running = (ProcessInfo(7, "old", 0, 0, memory.now().timestamp() - 60, (real,)),)
    report = verify(memory, desired)
    assert (report.exit_status, [each.name for each in report.restart_needed]) == (0, ["old"])


def test_a_program_is_to_be_restarted_after_a_change_behind_a_link(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    desired = desired_of(vendor, ca_pem, "pkcs11")
    configure(memory, desired)
    path = "/opt/cloudhsm/etc/cloudhsm-pkcs11.cfg"
    memory.place("/srv/site/pkcs11.cfg", memory.read(path) or b"")
    memory.place(path, kind="link", link="/srv/site/pkcs11.cfg")
    memory.clock += 60
    memory.running = (ProcessInfo(7, "old", 0, 0, memory.now().timestamp(), (LIBRARY,)),)
    memory.clock += 60
    report = configure(memory, with_options(desired, {"log_level": "debug"}), 3)
    assert (report.exit_status, [each.name for each in report.restart_needed]) == (0, ["old"])


def test_a_remove_that_touches_nothing_wants_nothing_restarted(ca_pem: bytes) -> None:
    _, memory = a_world(Vendor)
    using(memory, "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so")
    assert commands.remove(memory, run_of("remove"), NullProgress(), None).restart_needed == ()


def test_after_an_upgrade_nothing_is_said_of_the_client_before(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    vendor.installed["cloudhsm-cli"] = "5.9.0-1"
    old = verify(memory, good)
    assert "client-newer-available" in {notice.code for notice in old.notices}
    report = configure(memory, replace(good, client_version="5.18.0"), 3)
    assert (report.exit_status, report.changed) == (0, True)
    assert "client-newer-available" not in {notice.code for notice in report.notices}


def test_a_package_that_changed_though_its_step_failed_is_a_change(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    vendor.moods["installer"] = "half"
    report = configure(memory, desired_of(vendor, ca_pem))
    assert (report.exit_status, report.changed) == (22, True)


@both
def test_a_rollback_after_a_remove_is_told_to_whom_the_remove_was(world: World, ca_pem: bytes) -> None:
    vendor, memory = a_world(world)
    out = memory.system.join(memory.system.data, "out.json")
    configure(memory, desired_of(vendor, ca_pem, report_to=(f"file:{out}",)))
    for command in ("remove", "rollback"):
        memory.entries.pop(out, None)
        run = run_of(command, 6 if command == "remove" else 7)
        if command == "remove":
            commands.remove(memory, run, NullProgress(), None)
        else:
            commands.rollback(memory, None, run, NullProgress())
        told = json.loads(memory.read(out) or b"{}")
        assert told.get("command") == command


@pytest.mark.parametrize("moment", ["before", "meanwhile"])
def test_a_verify_beside_another_run_leaves_that_ones_report(moment: str, ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    before = memory.read(memory.system.report)
    if moment == "before":
        memory.place("/run/hsm-agent.lock", b"hsm-agent configure, run 2026 (pid 812)\n")
        memory.place("/proc/812/cmdline", b"hsm-agent\0configure\0")
    client = vendor.layout.cli
    real = memory.programs[client]
    assert callable(real)
    if moment == "meanwhile":

        def ends(argv: tuple[str, ...], host: Memory) -> CommandResult:
            tree = {**json.loads(before or b""), "run_id": "20261130T000000Z-0000", "exit_status": 40}
            host.place(host.system.report, json.dumps(tree).encode())
            return real(argv, host)

        memory.programs[client] = ends
    report = verify(memory)
    assert "run-beside" in [notice.code for notice in report.notices]
    if moment == "before":
        assert memory.read(memory.system.report) == before
    else:
        assert last_report(memory, None)["exit_status"] == 40
    # and when none is at work any more, its own is kept
    memory.entries.pop("/proc/812/cmdline", None)
    memory.programs[client] = real
    assert verify(memory).exit_status == 0
    assert last_report(memory, None)["command"] == "verify"


@pytest.mark.slow
@both
@pytest.mark.parametrize("command", ["rollback", "remove"])
def test_what_goes_back_or_removes_and_is_killed_leaves_no_older_success(
    world: World, command: str, ca_pem: bytes
) -> None:
    seen = set()
    for breaks_at in range(1, 30):
        vendor, memory = a_world(world)
        good = desired_of(vendor, ca_pem, "pkcs11")
        configure(memory, good)
        configure(memory, with_options(good, {"log_level": "debug"}), 2)
        before = state(memory), dict(vendor.installed)
        fragile: Any = Fragile(memory, breaks_at, Killed)
        try:
            if command == "remove":
                commands.remove(fragile, run_of(command), NullProgress(), None)
            else:
                commands.rollback(fragile, None, run_of(command), NullProgress())
        except Killed:
            if (state(memory), dict(vendor.installed)) != before:
                seen.add(shown(memory))
        else:
            break
    # the last touches are those of a run that has reported
    assert seen <= {0, 130}
    assert 130 in seen
    assert command == "remove" or seen == {130}


@pytest.mark.slow
@both
@pytest.mark.parametrize("how", ["killed", "by hand"])
def test_a_remove_that_finds_nothing_left_forgets_what_was_asked_for(
    world: World, how: str, ca_pem: bytes
) -> None:
    for breaks_at in range(1, 30) if how == "killed" else (0,):
        vendor, memory = a_world(world)
        out = memory.system.join(memory.system.data, "out.json")
        configure(memory, desired_of(vendor, ca_pem, "pkcs11", report_to=(f"file:{out}",)))
        fragile: Any = Fragile(memory, breaks_at, Killed)
        ended = how == "by hand"
        if ended:
            vendor.installed.clear()
        else:
            with contextlib.suppress(Killed):
                commands.remove(fragile, run_of("remove"), NullProgress(), None)
                ended = True
        memory.entries.pop(out, None)
        assert commands.remove(memory, run_of("remove", 7), NullProgress(), None).exit_status == 0
        assert memory.stat(memory.system.desired) is None  # what the daily unit looks for
        assert verify(memory).code == "nothing-recorded"
        assert configure(memory, Desired(), 9).code == "nothing-recorded"
        assert json.loads(memory.read(out) or b"{}")["command"] == "configure"
        if ended:
            return
    pytest.fail("the remove never ended by itself")


# what a record may hold instead of what was written: other kinds of values, in each option
KINDS: tuple[Any, ...] = (5, True, "", "x", 0.5, [5], ["x"], [None], [["x"]], [[]], {}, {"a": 1}, 10**40)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["desired", "succeeded"])
@pytest.mark.parametrize("name", [each.name for each in fields(Desired)])
def test_a_record_that_holds_other_kinds_of_values_is_none_or_is_taken(
    name: str, where: str, ca_pem: bytes
) -> None:
    vendor, memory = a_world(Vendor)
    configure(memory, desired_of(vendor, ca_pem))
    tree = json.loads(memory.read(memory.system.desired) or b"")
    entries, installed = dict(memory.entries), dict(vendor.installed)
    for value in KINDS:
        memory.entries, vendor.installed = dict(entries), dict(installed)
        said = {**tree["desired"], name: value}
        changed = {**tree, "desired": said} if where == "desired" else None
        changed = changed or {**tree, "succeeded": {**tree["succeeded"], "desired": said}}
        del changed["sha256"]
        memory.place(memory.system.desired, seal(changed))
        reports = [verify(memory), configure(memory, desired_of(vendor, ca_pem, log_level="debug"), 4)]
        memory.place(memory.system.desired, seal(changed))
        reports.append(commands.rollback(memory, None, run_of("rollback", 5), NullProgress()))
        reports.append(commands.remove(memory, run_of("remove", 6), NullProgress(), None))
        assert "internal" not in [report.code for report in reports], value


# ---- what was asked for is what it means, not how it was spelled

OTHER_SPELLINGS: dict[str, Callable[[Desired], Desired]] = {
    "the file under another name": lambda good: replace(good, ca_cert=CaSource.of("/root/other-name.crt")),
    "the file as text": lambda good: replace(good, ca_cert=CaSource("inline", PLACES["/root/ca.crt"])),
    "with words around": lambda good: replace(good, ca_cert=CaSource.of("/root/with-words.crt")),
    "as it is on the host": lambda good: replace(good, ca_cert=None),
    "the addresses the other way round": lambda good: replace(good, hsm_ip=good.hsm_ip[::-1]),
    "the component that is always there": lambda good: replace(good, component=("cli",)),
    "the SDK that is meant": lambda good: replace(good, sdk=5),
    "told to another": lambda good: replace(good, report_to=("file:/told.json",)),
    "with its fingerprint": lambda good: replace(good, ca_fingerprint=_fingerprint(PLACES["/root/ca.crt"])),
}
PLACES: dict[str, str] = {}


def _fingerprint(pem: str) -> str:
    return sha256_of(certificates(pem.encode())[0])


def a_host_with_files(ca_pem: bytes) -> tuple[Vendor, Memory, Desired]:
    vendor, memory = a_world(Vendor)
    PLACES["/root/ca.crt"] = ca_pem.decode()
    for path in ("/root/ca.crt", "/root/other-name.crt"):
        memory.place(path, ca_pem)
    memory.place("/root/with-words.crt", b"our CA\r\n" + ca_pem.replace(b"\n", b"\r\n"))
    return vendor, memory, replace(desired_of(vendor, ca_pem), ca_cert=CaSource.of("/root/ca.crt"))


@pytest.mark.slow
@pytest.mark.parametrize("asked_before", [False, True], ids=["new host", "configured host"])
@pytest.mark.parametrize("name", OTHER_SPELLINGS)
def test_what_was_asked_for_in_other_words_is_the_same(
    name: str, ca_pem: bytes, *, asked_before: bool
) -> None:
    _, memory, good = a_host_with_files(ca_pem)
    assert configure(memory, good).exit_status == 0
    if not asked_before:
        memory.entries.pop(memory.system.desired)
    # ended before the CA is read: what is kept is the place that it is to be read from
    os_release = memory.entries.pop("/etc/os-release")
    for path in ("/usr/lib/os-release",):
        memory.entries.pop(path, None)
    assert configure(memory, good, 2).exit_status not in (0, 41)
    memory.entries["/etc/os-release"] = os_release
    tree = json.loads(memory.read(memory.system.desired) or b"")
    if not asked_before:
        assert (tree["ca_pem"], tree["desired"]["ca_cert"]) == (None, "/root/ca.crt")
    asked = OTHER_SPELLINGS[name](good)
    for wanted in (asked, None):
        report = verify(memory, wanted)
        assert (report.exit_status, report.failure) == (0, None)


def test_a_ca_at_a_place_that_was_mistyped_is_not_called_something_else(ca_pem: bytes) -> None:
    _, memory, good = a_host_with_files(ca_pem)
    assert configure(memory, good).exit_status == 0
    assert configure(memory, replace(good, ca_cert=CaSource.of("/root/mistyped.crt")), 2).exit_status == 30
    report = verify(memory, good)
    assert (report.exit_status, report.code) == (3, "drift")  # what was asked for may be another
    assert report.failure is not None
    assert "something else" not in report.failure.sentence
    assert "/root/mistyped.crt" in report.failure.saw
    # once it can be read, it is known what it is
    memory.place("/root/mistyped.crt", ca_pem)
    assert verify(memory, good).exit_status == 0
    memory.entries.pop("/root/mistyped.crt")
    assert configure(memory, good, 3).exit_status == 0
    for wanted in (
        good,
        replace(good, ca_cert=CaSource.of("/root/other-name.crt")),
        replace(good, component=("cli",)),
        None,
    ):
        assert verify(memory, wanted).exit_status == 0


def test_another_ca_at_the_place_that_was_named_is_something_else(ca_pem: bytes, other_ca_pem: bytes) -> None:
    _, memory, good = a_host_with_files(ca_pem)
    assert configure(memory, good).exit_status == 0
    assert configure(memory, replace(good, ca_cert=CaSource.of("/root/later.crt")), 2).exit_status == 30
    memory.place("/root/later.crt", other_ca_pem)
    report = verify(memory, good)
    assert (report.exit_status, report.failure and "something else" in report.failure.sentence) == (3, True)


@pytest.mark.parametrize("name", ["hsm_ip", "component", "log_level", "accept_single_hsm", "client_version"])
def test_what_means_something_else_stays_that(name: str, ca_pem: bytes) -> None:
    vendor, memory, good = a_host_with_files(ca_pem)
    assert configure(memory, good).exit_status == 0
    other: dict[str, Any] = {
        "hsm_ip": vendor.addresses[:1],
        "component": ("cli", "pkcs11"),
        "log_level": "debug",
        "accept_single_hsm": True,
        "client_version": "5.17.9",
    }
    asked = with_options(good, {name: other[name], "ca_cert": CaSource.of("/root/mistyped.crt")})
    assert configure(memory, asked, 2).exit_status not in (0, 41)
    report = verify(memory, good)
    assert report.exit_status == 3
    assert report.failure is not None
    assert "something else" in report.failure.sentence


# ---- a success that could not be kept


class Filling(Memory):
    """A machine whose disk is full from the write of the record on that says that a run has succeeded."""

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        if path == self.system.desired and b'"succeeded": {' in data:
            self.full = True
        super().write(path, data, mode=mode, owner=owner)


def test_what_follows_a_success_that_was_not_kept_is_true(ca_pem: bytes) -> None:
    vendor, plain = a_world(Vendor)
    memory = Filling()
    memory.__dict__.update(plain.__dict__)
    good = desired_of(vendor, ca_pem)
    report = configure(memory, good)
    assert report.exit_status == 0
    texts = {notice.code: notice.text for notice in report.notices}
    assert {"record-not-kept", "report-not-kept"} <= texts.keys()
    assert "needs its options" not in texts["record-not-kept"]
    # what `status` shows does not say that it succeeded, nor that it was killed for certain
    last = last_report(memory, None)
    assert last["exit_status"] == 130
    assert "could not be recorded" in last["failure"]["saw"]
    memory.full = False
    less = verify(memory, replace(good, hsm_ip=vendor.addresses[:1], accept_single_hsm=True), 7)
    assert less.exit_status == 3
    assert less.failure is not None
    assert "has not succeeded" not in less.failure.sentence
    for wanted in (None, good):
        assert verify(memory, wanted).exit_status == 0
    assert shown(memory) == 0
    again = configure(plain, Desired(), 3)
    assert (again.exit_status, again.changed, records.read_last(plain).is_done) == (0, False, True)


# ---- who could have written it

DESIRED, STATE = "/var/lib/hsm-agent/desired.json", "/var/lib/hsm-agent"


def change(memory: Memory, path: str, **more: Any) -> None:
    memory.entries[path] = replace(memory.entries[path], **more)


def move_state(memory: Memory) -> None:
    for path in [each for each in memory.entries if f"{each}/".startswith(f"{STATE}/")]:
        memory.entries[f"/srv/x{path[len(STATE) :]}"] = memory.entries.pop(path)
    memory.place("/srv", kind="directory", mode=0o755)
    memory.place(STATE, kind="link", link="/srv/x", mode=0o777)
    change(memory, "/srv/x", uid=1000)


def all_of_a_users(memory: Memory) -> None:
    for path in [each for each in memory.entries if each.startswith(STATE)]:
        change(memory, path, uid=1000)


OPENED: dict[str, Callable[[Memory], None]] = {
    "a user's folder": lambda memory: change(memory, STATE, uid=1000),
    "everybody's folder": lambda memory: change(memory, STATE, mode=0o777),
    "a group's folder": lambda memory: change(memory, STATE, mode=0o2775, gid=50),
    "a user's file": lambda memory: change(memory, DESIRED, uid=1000),
    "everybody's file": lambda memory: change(memory, DESIRED, mode=0o666),
    "a group's file": lambda memory: change(memory, DESIRED, mode=0o660, gid=50),
    "a folder like /tmp": lambda memory: change(memory, STATE, mode=0o1777),
    "a user's folder behind a link": move_state,
    "all of it a user's": all_of_a_users,
}


@pytest.mark.parametrize("name", OPENED)
def test_what_others_could_have_written_is_not_believed(name: str, ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    OPENED[name](memory)
    report = verify(memory)
    assert (report.exit_status, report.code) == (2, "nothing-recorded")
    assert report.failure is not None
    assert "not believed" in report.failure.sentence
    before = memory.read(DESIRED)
    assert configure(memory, Desired(), 2).code == "nothing-recorded"
    assert memory.read(DESIRED) == before
    # asked for anew, it is root's alone again
    done = configure(memory, good, 3)
    assert done.exit_status == 0
    assert ("state-closed" in [each.code for each in done.notices]) == ("file" not in name)
    assert verify(memory).exit_status == 0
    assert shown(memory) == 0


@pytest.mark.parametrize("name", [each for each in OPENED if "folder" in each])
def test_what_others_could_have_kept_is_not_put_back(name: str, ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    configure(memory, with_options(good, {"log_level": "debug"}), 2)
    before = state(memory)
    OPENED[name](memory)
    report = commands.rollback(memory, None, run_of("rollback"), NullProgress())
    assert (report.code, state(memory)) == ("snapshot-damaged", before)
    with pytest.raises(AgentError):
        last_report(memory, None)


@pytest.mark.parametrize("path", ["snapshots", "snapshots/FILE", "proven.json"])
@pytest.mark.parametrize("more", [{"uid": 1000}, {"mode": 0o777}, {"mode": 0o660, "gid": 50}], ids=str)
def test_a_snapshot_that_others_could_have_written_is_not_put_back(
    path: str, more: dict[str, Any], ca_pem: bytes
) -> None:
    vendor, memory = a_world(Vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    configure(memory, with_options(good, {"log_level": "debug"}), 2)
    names = memory.list_dir(memory.system.snapshots)
    memory.place("/opt/cloudhsm/etc/cloudhsm-cli.cfg", b"{")
    for name in names:
        change(memory, f"{STATE}/{path.replace('FILE', name)}", **more)
    report = commands.rollback(memory, None, run_of("rollback"), NullProgress())
    assert "snapshot-damaged" in [report.code, *(notice.code for notice in report.notices)]
    if path != "proven.json":
        assert (
            commands.rollback(memory, names[0][:-5], run_of("rollback", 7), NullProgress()).code
            == "snapshot-damaged"
        )


@pytest.mark.parametrize("more", [{"uid": 1000}, {"mode": 0o666}], ids=str)
def test_a_report_that_others_could_have_left_is_sent_to_nobody(more: dict[str, Any], ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    spool.keep(
        memory, "file:/told.json", json.dumps({"run_id": "x", "host": {}}), "x", token_file="/etc/shadow"
    )
    change(memory, f"{memory.system.spool}/{memory.list_dir(memory.system.spool)[0]}", **more)
    configure(memory, desired_of(vendor, ca_pem))
    assert memory.read("/told.json") is None
    assert memory.list_dir(memory.system.spool) == ()


def test_an_ordinary_user_sees_what_root_reported(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    configure(memory, desired_of(vendor, ca_pem))
    memory.root = False
    assert shown(memory) == 0


# ---- whether it is whole


@examples(150)
@given(
    at=st.integers(0, 20_000),
    kind=st.sampled_from(DAMAGES),
    byte=st.integers(1, 255),
    name=st.sampled_from(["desired", "receivers"]),
)
def test_a_record_of_which_a_byte_changed_is_none_or_says_the_same(
    at: int, kind: str, byte: int, name: str
) -> None:
    memory = Memory({"/etc/machine-id": b"1" * 32})
    last = records.LastConfigure({"hsm_ip": ["10.0.1.6"], "report_to": ["https://r.example/x"]}, "PEM", "run")
    records.write_last(memory, replace(last, succeeded=last))
    records.write_receivers(memory, last.desired)
    read = {"desired": records.read_last, "receivers": records.read_receivers}[name]
    whole = read(memory)
    path = f"{STATE}/{name}.json"
    data = memory.read(path) or b""
    memory.place(path, damaged(data, kind, at, byte))
    try:
        found = read(memory)
    except AgentError as error:
        assert error.code.name == "nothing-recorded"  # noqa: PT017 -- or it says the same
    else:
        assert found == whole


def test_a_record_with_another_address_by_a_damaged_disk_configures_nothing(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    configure(memory, desired_of(vendor, ca_pem))
    data = memory.read(DESIRED) or b""
    assert data.count(b"10.0.1.6") == 2
    memory.place(DESIRED, data.replace(b"10.0.1.6", b"10.0.1.7"))
    before = state(memory)
    for report in (configure(memory, Desired(), 2), verify(memory)):
        assert (report.code, state(memory)) == ("nothing-recorded", before)
        assert "checksum" in (report.failure.saw if report.failure else "")


@pytest.mark.parametrize(
    "exit_status", ["1e400", "NaN", "99999", "-1", "1.0", "true", "null", '"0"', "[0]", "{}"]
)
def test_a_report_whose_exit_status_is_none_is_damaged(exit_status: str, ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    configure(memory, desired_of(vendor, ca_pem))
    assert shown(memory) == 0
    data = (memory.read(memory.system.report) or b"").decode()
    memory.place(
        memory.system.report, data.replace('"exit_status": 0', f'"exit_status": {exit_status}').encode()
    )
    with pytest.raises(AgentError) as caught:
        last_report(memory, None)
    assert caught.value.code.name == "nothing-recorded"


def test_options_that_are_met_hide_no_damaged_record(ca_pem: bytes) -> None:
    vendor, memory = a_world(Vendor)
    desired = desired_of(vendor, ca_pem)
    configure(memory, desired)
    assert "record-unread" not in {notice.code for notice in verify(memory, desired).notices}
    memory.place(DESIRED, (memory.read(DESIRED) or b"").replace(b"10.0.1.6", b"10.0.1.7"))
    report = verify(memory, desired)
    (text,) = [notice.text for notice in report.notices if notice.code == "record-unread"]
    assert (report.exit_status, "checksum" in text) == (0, True)
    assert configure(memory, desired, 2).exit_status == 0
    assert "record-unread" not in {notice.code for notice in verify(memory, desired).notices}


# what may lie where the agent keeps things, whoever put it there
STRANGE: dict[str, dict[str, Any]] = {
    "a folder": {"kind": "directory"},
    "a FIFO": {"kind": "other"},
    "a link to nowhere": {"kind": "link", "link": "/no/where"},
    "a link to itself": {"kind": "link", "link": "."},
    "nothing": {"data": b""},
    "no text": {"data": b"\xff"},
    "no version": {"data": b'{"schema_version": 1e999, "sha256": NaN}'},
    "nothing sealed": {"data": seal({})},
    "other values": {"data": b'{"schema_version": 1, "host": 5, "run_id": {}, "document": []}'},
    "half of a pair": {
        "data": b'{"schema_version": 1, "desired": {"hsm_ip": ["10.0.1.6"], "ca_cert": "\\ud800"}, "ca_pem": null}'
    },
    "half of a pair in the CA": {
        "data": b'{"schema_version": 1, "desired": {"hsm_ip": ["10.0.1.6"]}, "ca_pem": "\\ud800"}'
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize(
    "name",
    ["desired.json", "report.json", "proven.json", "delivered.json", "snapshots", "spool",
     "snapshots/20261120T000000Z-0000.json", "spool/00000001-x.json"],
)  # fmt: skip
def test_whatever_lies_where_things_are_kept_no_run_fails_within(
    name: str, strange: str, ca_pem: bytes
) -> None:
    vendor, memory = a_world(Vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    path = f"{STATE}/{name}"
    for each in [each for each in memory.entries if f"{each}/".startswith(f"{path}/")]:
        memory.entries.pop(each)
    memory.place(path, **{**STRANGE[strange], **({"link": path} if strange == "a link to itself" else {})})
    entries, installed = dict(memory.entries), dict(vendor.installed)
    runs: list[Callable[[], Report]] = [
        lambda: verify(memory),
        lambda: configure(memory, Desired(), 3),
        lambda: configure(memory, with_options(good, {"log_level": "warn"}), 4),
        lambda: commands.rollback(memory, None, run_of("rollback", 5), NullProgress()),
        lambda: commands.remove(memory, run_of("remove", 6), NullProgress(), None),
    ]
    reports = []
    for run in runs:
        memory.entries = dict(entries)
        vendor.installed.clear()
        vendor.installed.update(installed)
        reports.append(run())
    assert "internal" not in [report.code for report in reports]
    if name.startswith(("report", "delivered", "spool", "proven")):
        assert [report.exit_status for report in reports[:3]] == [0, 0, 0]
