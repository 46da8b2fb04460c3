"""What holds of every report that is to be told: a run always tells, and what became of that is never its worst news."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent import commands
from agent.config.desired import Desired
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.model import Report, RunOutcome, StepResult
from agent.core.system import LINUX
from agent.render.json_report import to_tree
from agent.render.progress import NullProgress
from agent.report import RunInfo
from agent.run import report_invalid_input
from agent.sinks import spool
from agent.sinks.cloudwatch import FILE as EVENTS
from agent.sinks.delivery import deliver
from agent.state import records
from agent.state.identity import identity
from agent.state.sealed import seal
from tests.fakes.memory import Memory
from tests.fakes.report_trees import TREE
from tests.fakes.vendor import Vendor, catalogue
from tests.properties.receivers import Fixed
from tests.properties.worlds import STARTED, Fragile, Killed, configure, desired_of, look, machine_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.codes import CodeName

WHOLE = "file:/told/report.json"
BROKEN = "prometheus:/no/such/folder"


def told(memory: Memory) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(memory.read("/told/report.json") or b"null")
    return tree


def kept(memory: Memory) -> dict[str, Any]:
    return records.read_report(memory)


def spooled(memory: Memory) -> int:
    return len(memory.list_dir(LINUX.spool))


def run_of(command: str, number: int = 5) -> RunInfo:
    return RunInfo(f"2026112{number}T000000Z-0000", command, STARTED, catalogue=catalogue())


def test_what_is_told_is_the_report_as_it_was_before(ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    report = configure(memory, desired_of(Vendor(), ca_pem, report_to=(WHOLE,)))
    assert (report.exit_status, report.code) == (0, None)
    assert told(memory) == kept(memory) == to_tree(report)
    assert spooled(memory) == 0


def test_a_run_that_is_well_but_told_not_everybody_ends_with_60(ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    desired = desired_of(Vendor(), ca_pem, report_to=(BROKEN, WHOLE))
    report = configure(memory, desired)
    assert (report.outcome, report.code, report.exit_status) == (RunOutcome.OK, "report-undelivered", 60)
    assert [notice.code for notice in report.notices] == ["report-undelivered"]
    assert kept(memory) == to_tree(report)
    # what was told does not know of that
    before = {**to_tree(report), "code": None, "exit_status": 0, "failure": None, "warnings": []}
    assert told(memory) == before
    memory.place("/no/such/folder", kind="directory")
    again = configure(memory, desired, 2)
    assert (again.exit_status, again.notices, spooled(memory)) == (0, (), 0)


@pytest.mark.parametrize("number", [3, 40, 41])
def test_a_run_that_is_not_well_keeps_its_own_exit_status(number: int, ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    desired = desired_of(vendor, ca_pem, report_to=(BROKEN,))
    for address in vendor.addresses[: {3: 0, 40: 2, 41: 1}[number]]:
        memory.ports[address, 2223] = "hsm-refused"
        vendor.down.add(address)
    report = look(memory, desired, "verify") if number == 3 else configure(memory, desired)
    assert report.exit_status == number
    assert report.code != "report-undelivered"
    assert "report-undelivered" in [notice.code for notice in report.notices]
    assert kept(memory) == to_tree(report)


def test_a_plan_is_told_to_nobody_and_delivers_nothing(ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    desired = desired_of(Vendor(), ca_pem, report_to=(WHOLE, BROKEN))
    configure(memory, desired_of(Vendor(), ca_pem, report_to=(BROKEN,)))
    memory.touches.clear()
    assert look(memory, desired, "plan").notices == ()
    assert (memory.touches, memory.read("/told/report.json"), spooled(memory)) == ([], None, 1)


def test_later_runs_tell_whom_the_last_configure_told(ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    configure(memory, desired_of(Vendor(), ca_pem, report_to=(WHOLE,)))
    reports = [
        look(memory, Desired(), "verify"),
        configure(memory, Desired(), 3),
        commands.rollback(memory, None, run_of("rollback"), NullProgress()),
        commands.remove(memory, run_of("remove", 6), NullProgress(), None),
    ]
    for report in reports[-1:]:
        assert told(memory) == to_tree(report)
    assert [report.exit_status for report in reports] == [0, 0, 0, 0]


@pytest.mark.parametrize("command", ["verify", "configure", "rollback", "remove"])
def test_each_of_them_tells_and_sends_what_waits(command: str, ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    configure(memory, desired_of(Vendor(), ca_pem, report_to=(WHOLE, BROKEN)))
    assert spooled(memory) == 1
    memory.place("/no/such/folder", kind="directory")
    report = {
        "verify": lambda: look(memory, Desired(), "verify"),
        "configure": lambda: configure(memory, Desired(), 3),
        "rollback": lambda: commands.rollback(memory, None, run_of("rollback"), NullProgress()),
        "remove": lambda: commands.remove(memory, run_of("remove"), NullProgress(), None),
    }[command]()
    assert (report.exit_status, told(memory), spooled(memory)) == (0, to_tree(report), 0)
    assert memory.read("/no/such/folder/hsm_agent.prom") is not None


class Interrupting(NullProgress):
    """Ctrl-C, or a defect, at the first step that ends."""

    def __init__(self, memory: Memory, *, crash: bool) -> None:
        self._memory = memory
        self._crash = crash

    def ended(self, line: StepResult) -> None:
        self._memory.stopped = True
        if self._crash:
            raise RuntimeError("a defect")


@pytest.mark.parametrize(
    "code", ["config-invalid", "run-locked", "not-root", "interrupted", "internal", "ca-unreadable"]
)
def test_a_run_tells_however_it_ends(code: str, ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    desired = desired_of(Vendor(), ca_pem, report_to=(WHOLE,))
    listener: NullProgress = NullProgress()
    if code in ("interrupted", "internal"):
        listener = Interrupting(memory, crash=code == "internal")
    if code == "ca-unreadable":
        desired = desired_of(Vendor(), b"/absent", report_to=(WHOLE,))
    memory.root = code != "not-root"
    held = memory.lock(LINUX.lock, "another") if code == "run-locked" else contextlib.nullcontext()
    with held:
        if code == "config-invalid":
            error = AgentError(
                "config-invalid", "one thing is wrong with the input", saw="--hsm-ip: 'x' is not one"
            )
            report = report_invalid_input(memory, run_of("configure"), error, Desired(report_to=(WHOLE,)))
        else:
            report = commands.configure(memory, desired, run_of("configure"), listener)
    assert report.code == code
    assert told(memory) == to_tree(report)


def test_who_is_to_be_told_of_an_invalid_configuration_is_remembered(ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    configure(memory, desired_of(Vendor(), ca_pem, report_to=(WHOLE,)))
    error = AgentError(
        "config-invalid", "one thing is wrong with the input", saw="/etc/hsm-agent/config.toml"
    )
    report = report_invalid_input(memory, run_of("verify"), error, Desired(hsm_ip=("10.0.1.6",)))
    assert (told(memory), told(memory)["code"]) == (to_tree(report), "config-invalid")


def test_an_ordinary_user_s_verify_tells_and_keeps_nothing(ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    configure(memory, desired_of(Vendor(), ca_pem))
    memory.root = False
    report = look(memory, desired_of(Vendor(), ca_pem, report_to=(WHOLE, BROKEN)), "verify")
    assert report.exit_status == 60
    assert "that needs root" in report.notices[-1].text
    assert (told(memory)["exit_status"], spooled(memory)) == (0, 0)


def tee(argv: Sequence[str], memory: Memory) -> CommandResult:
    memory.place(argv[-1], (memory.read(argv[-1]) or b"") + memory.stdin)
    return CommandResult(0, "", "")


def events(memory: Memory) -> list[str]:
    return [json.loads(line)["run_id"] for line in (memory.read(EVENTS) or b"").splitlines()]


@pytest.mark.parametrize("after", [False, True], ids=["before the touch", "after the touch"])
@pytest.mark.parametrize("breaks_at", range(1, 9))
def test_killed_at_any_touch_every_report_that_was_written_arrives_once_and_in_order(
    breaks_at: int, ca_pem: bytes, *, after: bool
) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    memory.programs["tee"] = tee
    desired = desired_of(vendor, ca_pem, report_to=("cloudwatch:group/stream", "file:/told/report.json"))
    reports = [configure(memory, desired, 1)]
    victim = Late(memory, breaks_at) if after else Fragile(memory, breaks_at, Killed)
    with contextlib.suppress(Killed):
        configure(victim, desired, 2)  # type: ignore[arg-type]
    second = "20261122T000000Z-0000"
    waits = [(kept.uri.partition(":")[0], second in kept.document) for kept in spool.waiting(memory)[0]]
    written = second in events(memory) or ("cloudwatch", True) in waits
    reports.append(configure(memory, desired, 3))
    first, third = (report.run_id for report in reports)
    assert events(memory) == [first, *([second] if written else []), third]
    assert (spooled(memory), told(memory)["run_id"]) == (0, third)


class Late:
    """A host whose caller is gone right after its n-th touch."""

    def __init__(self, inner: Memory, dies_at: int) -> None:
        self._inner = inner
        self._left = dies_at

    def __getattr__(self, verb: str) -> object:
        value = getattr(self._inner, verb)
        if verb not in ("write", "remove", "run", "download"):
            return value

        def touch(*args: object, **kwargs: object) -> object:
            done = value(*args, **kwargs)
            self._left -= 1
            if self._left == 0:
                raise Killed
            return done

        return touch


class SlowFolder(Memory):
    """A machine with a folder to which each write takes 50 seconds."""

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        self.clock += 50 if path.startswith("/slow/") else 0
        super().write(path, data, mode=mode, owner=owner)


def test_what_waits_for_other_sinks_takes_no_more_time_than_two_of_them() -> None:
    memory = SlowFolder()
    for number in range(20):
        spool.keep(memory, f"file:/slow/{number}.json", json.dumps(TREE), f"run{number}")
    done = deliver(memory, Desired(report_to=("file:/now.json",)), json.dumps(TREE), {}, hurried=False)
    assert (done.failed, memory.read("/now.json") is not None, memory.clock) == (False, True, 150)
    assert memory.list_dir("/slow") == ("0.json", "1.json", "2.json")
    assert len(memory.list_dir(LINUX.spool)) == 17


def test_reports_that_wait_do_not_make_a_run_of_nobody_s_fail(ca_pem: bytes) -> None:
    memory = machine_of(Vendor())
    configure(memory, desired_of(Vendor(), ca_pem, report_to=(BROKEN,)))
    report: Report = configure(memory, desired_of(Vendor(), ca_pem), 2)
    assert (report.exit_status, [notice.code for notice in report.notices]) == (0, ["report-undelivered"])


def a_spool(memory: Memory, count: int, **host: Any) -> tuple[str, ...]:
    """Reports that wait for a place in the order of their numbers; the names of their files."""
    for number in range(count):
        document = json.dumps({**TREE, "run_id": f"run{number}", "host": {**TREE["host"], **host}})
        spool.keep(memory, "cloudwatch:group/stream", document, f"run{number}")
    return tuple(f"{LINUX.spool}/{name}" for name in memory.list_dir(LINUX.spool))


def sent(memory: Memory) -> tuple[list[str], list[tuple[str, str]]]:
    """Deliver what waits; return which runs arrived so far, and what was remarked on."""
    memory.programs["tee"] = tee
    done = deliver(memory, Desired(), json.dumps(TREE), {}, hurried=False)
    return events(memory), [(each.code, each.text) for each in done.notices]


@pytest.mark.parametrize("which", [(0,), (1,), (3,), (0, 2), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("spoilt", [False, True], ids=["reports", "no reports"])
def test_what_cannot_be_removed_keeps_no_other_and_is_sent_once(
    which: tuple[int, ...], ca_pem: bytes, *, spoilt: bool
) -> None:
    memory = Fixed()
    names = a_spool(memory, 4)
    memory.fixed = tuple(names[each] for each in which)
    for name in memory.fixed if spoilt else ():
        memory.entries[name] = replace(memory.entries[name], data=b"{")
    whole = [f"run{number}" for number in range(4) if not (spoilt and number in which)]
    for _ in range(3):
        arrived, remarks = sent(memory)
        assert arrived == whole
        assert {code for code, _ in remarks} == {"report-stuck"}
        assert all(any(name in text for _, text in remarks) for name in memory.fixed[:3])
    assert spooled(memory) == len(which)
    # what comes after is delivered as ever, and when the cause is cured nothing is left, and nothing said
    spool.keep(memory, "cloudwatch:group/stream", json.dumps({**TREE, "run_id": "next"}), "next")
    assert sent(memory)[0] == [*whole, "next"]
    memory.fixed = ()
    remarks = sent(memory)[1]
    assert (events(memory), spooled(memory)) == ([*whole, "next"], 0)
    assert {code for code, _ in remarks} <= ({"report-dropped"} if spoilt else set())
    assert sent(memory)[1] == []


def test_a_folder_from_which_nothing_can_be_removed_sends_each_once(ca_pem: bytes) -> None:
    memory = Fixed()
    a_spool(memory, 6)
    memory.fixed = (f"{LINUX.spool}/",)
    for _ in range(3):
        arrived, remarks = sent(memory)
        assert arrived == [f"run{number}" for number in range(6)]
        assert [code for code, _ in remarks] == ["report-stuck"] * len(remarks)
        assert len(remarks) <= 6


def test_where_nothing_can_be_written_it_is_said_that_it_is_sent_again(ca_pem: bytes) -> None:
    memory = Fixed()
    a_spool(memory, 1)
    memory.fixed = (LINUX.state,)
    assert "sends its report again" in sent(memory)[1][0][1]


@pytest.mark.parametrize("code", ["unreadable", "no-resources"])
def test_what_cannot_be_read_now_stays_and_is_sent_later(code: CodeName, ca_pem: bytes) -> None:
    memory = Fixed()
    names = a_spool(memory, 3)
    memory.broken = {names[0]: code}
    arrived, remarks = sent(memory)
    assert (arrived, [each for each, _ in remarks]) == (["run1", "run2"], ["report-stuck"])
    memory.broken = {}
    assert sent(memory) == (["run1", "run2", "run0"], [])


@pytest.mark.parametrize("stuck", [1, 40, spool.MOST])
def test_what_cannot_be_removed_costs_no_room_without_end(stuck: int, ca_pem: bytes) -> None:
    memory = Fixed()
    names = a_spool(memory, spool.MOST)
    memory.fixed = names[:stuck]
    for number in range(20):
        spool.keep(memory, "file:/r", json.dumps({**TREE, "run_id": f"new{number}"}), "new")
        assert spooled(memory) <= max(spool.MOST, stuck + 1)
        assert f"new{number}" in spool.waiting(memory).kept[-1].document


@pytest.mark.parametrize("data", [b"", b"{", seal({}), seal({"done": 5}), seal({"done": {"x": 5}}), b"\xff"])
def test_a_damaged_memory_of_what_was_sent_costs_no_report(data: bytes, ca_pem: bytes) -> None:
    memory = Fixed()
    a_spool(memory, 2)
    memory.place(f"{LINUX.state}/delivered.json", data)
    assert sent(memory) == (["run0", "run1"], [])


def test_another_report_under_the_name_of_one_that_was_sent_is_sent(ca_pem: bytes) -> None:
    memory = Fixed()
    names = a_spool(memory, 1)
    memory.fixed = names
    sent(memory)
    memory.fixed = ()
    memory.remove(names[0])
    spool.keep(memory, "cloudwatch:group/stream", json.dumps({**TREE, "run_id": "other"}), "run0")
    assert memory.list_dir(LINUX.spool) == (names[0].rpartition("/")[2],)
    assert sent(memory)[0] == ["run0", "other"]


@pytest.mark.parametrize("whose", ["ours", "another's", "unsaid"])
def test_what_waits_in_an_image_is_delivered_by_its_own_host(whose: str, ca_pem: bytes) -> None:
    memory = Fixed({"/etc/machine-id": b"1" * 32})
    said = {"ours": identity(memory), "another's": "0" * 32, "unsaid": None}[whose]
    a_spool(memory, 2, identity=said)
    arrived, remarks = sent(memory)
    assert arrived == ([] if whose == "another's" else ["run0", "run1"])
    assert [code for code, _ in remarks] == (["report-dropped"] if whose == "another's" else [])
    assert spooled(memory) == 0
