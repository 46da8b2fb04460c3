"""The tasks of Windows: their descriptions, when they are registered and taken off, and that a failure is no failure of a run."""

from __future__ import annotations

import configparser
import re
import xml.etree.ElementTree as ET

import pytest

from agent import commands
from agent.core.host import CommandResult
from agent.core.system import windows
from agent.render.progress import NullProgress
from agent.render.templates import FOLDER
from agent.windows import scheduler
from tests.fakes.memory import Argv, Memory
from tests.fakes.vendor import WindowsVendor
from tests.golden.runs import Scene
from tests.task_schema import NAMESPACE, input_errors

HERE = windows()
assert HERE.tasks is not None
BROUGHT, REGISTERED, FIRST_BOOT = HERE.tasks.verify, HERE.tasks.registered, HERE.tasks.first_boot
XML = (FOLDER / "windows" / "hsm-agent-verify.xml").read_bytes()
DRAFT = r"C:\ProgramData\hsm-agent\state\hsm-agent-verify.xml"
CREATE = ("schtasks", "/create", "/tn", "hsm-agent-verify", "/xml", DRAFT)
DELETE = ("schtasks", "/delete", "/tn", "hsm-agent-verify", "/f")


def schtasks(argv: Argv, memory: Memory) -> CommandResult:
    """As it works: what it is given is kept as a file of that name."""
    path = rf"{REGISTERED}\{argv[3]}"
    if argv[1] == "/create":
        assert memory.read(argv[5])
        memory.place(path, memory.read(argv[5]) or b"")
    else:
        del memory.entries[memory._place_of(path)]  # noqa: SLF001 -- as the machine's own doing
    return CommandResult(0, "", "")


def machine(*, installed: bool = True, obeys: bool = True, status: int = 0) -> Memory:
    files = {BROUGHT: XML} if installed else {}
    program = schtasks if obeys else CommandResult(status, "", "ERROR: Zugriff verweigert\n")
    return Memory(files, programs={"schtasks": program}, system=HERE)


def value(text: bytes, path: str) -> str | None:
    return ET.fromstring(text).findtext("/".join(f"{{{NAMESPACE}}}{each}" for each in path.split("/")))


# --- the descriptions


def test_the_daily_look_is_a_task_by_microsofts_schema() -> None:
    assert input_errors(XML) == []
    assert XML.isascii()


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("<RandomDelay>PT6H</RandomDelay>", "<RandomDelay>6h</RandomDelay>"),
        ("<DaysInterval>1</DaysInterval>", "<DaysInterval>0</DaysInterval>"),
        ("IgnoreNew", "Ignore"),
        ("<StartWhenAvailable>true</StartWhenAvailable>", "<Persistent>true</Persistent>"),
        ('Context="System"', 'Context="Nobody"'),
        ("S-1-5-18", "Administrator"),
        ('version="1.2"', 'version="9"'),
        ("2004/02/mit/task", "2004/02/mit/tasks"),
        ("<Priority>7</Priority>", "<Priority>7</Priority><Priority>7</Priority>"),
        ("<ScheduleByDay>", "<ScheduleByDay/><Enabled>true</Enabled><ScheduleByDay>"),
    ],
)
def test_what_is_no_task_is_told(was: str, becomes: str) -> None:
    changed = XML.replace(was.encode(), becomes.encode())
    assert changed != XML
    assert input_errors(changed)


def test_the_parts_of_a_trigger_have_an_order() -> None:
    start = re.findall(rb" *<StartBoundary>.*\n", XML)[0]
    changed = XML.replace(start, b"").replace(b"</ScheduleByDay>\n", b"</ScheduleByDay>\n" + start)
    assert input_errors(changed) == ["the parts of CalendarTrigger are in another order"]


def test_the_daily_look_is_the_timer_of_linux() -> None:
    """The schedule, the delay, what is missed, the words, the limit: two files that must say the same."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(FOLDER / "units" / f"hsm-agent-verify.{kind}" for kind in ("timer", "service"))
    trigger = "Triggers/CalendarTrigger"
    assert unit["Timer"]["OnCalendar"] == "daily"
    assert value(XML, f"{trigger}/ScheduleByDay/DaysInterval") == "1"
    assert (value(XML, f"{trigger}/StartBoundary") or "").endswith("T00:00:00")
    assert value(XML, f"{trigger}/RandomDelay") == f"PT{unit['Timer']['RandomizedDelaySec'].upper()}"
    assert value(XML, "Settings/StartWhenAvailable") == unit["Timer"]["Persistent"]
    limit = unit["Service"]["TimeoutStartSec"].replace("min", "M")
    assert value(XML, "Settings/ExecutionTimeLimit") == f"PT{limit}"
    assert unit["Service"]["ExecStart"] == f"/usr/bin/hsm-agent {value(XML, 'Actions/Exec/Arguments')}"
    assert value(XML, "Actions/Exec/Command") == r'"%ProgramFiles%\hsm-agent\hsm-agent.exe"'


# --- the daily look


def test_the_daily_look_is_registered_once() -> None:
    memory = machine()
    assert [notice.code for notice in scheduler.ensure_daily_verify(memory)] == ["scheduled"]
    assert memory.touches == [("write", DRAFT), ("run", *CREATE), ("remove", DRAFT)]
    registered = memory.read(rf"{REGISTERED}\hsm-agent-verify") or b""
    assert registered.startswith(b"\xff\xfe")
    assert registered.decode("utf-16") == XML.decode()
    assert input_errors(registered) == []
    memory.touches.clear()
    assert scheduler.ensure_daily_verify(memory) == ()
    assert memory.touches == []


def test_only_an_agent_that_its_package_installed_looks_by_itself() -> None:
    memory = machine(installed=False)
    assert (scheduler.ensure_daily_verify(memory), memory.touches) == ((), [])


def test_on_linux_packages_bring_units() -> None:
    memory = Memory()
    assert (
        scheduler.ensure_daily_verify(memory),
        scheduler.delete_task(memory, scheduler.VERIFY),
        scheduler.end_first_boot(memory),
    ) == ((), (), ())
    assert memory.touches == []


@pytest.mark.parametrize("status", [0, 1])
def test_what_is_not_registered_is_told_whatever_schtasks_says(status: int) -> None:
    memory = machine(obeys=False, status=status)
    (notice,) = scheduler.ensure_daily_verify(memory)
    assert (notice.code, "Zugriff verweigert" in notice.text) == ("not-scheduled", True)
    assert memory.stat(DRAFT) is None


def test_a_disk_that_is_full_is_told() -> None:
    memory = machine()
    memory.full = True
    assert [notice.code for notice in scheduler.ensure_daily_verify(memory)] == ["not-scheduled"]


def test_the_daily_look_is_taken_off_when_it_is_there() -> None:
    memory = machine()
    assert scheduler.delete_task(memory, scheduler.VERIFY) == ()
    assert memory.touches == []
    scheduler.ensure_daily_verify(memory)
    memory.touches.clear()
    assert scheduler.delete_task(memory, scheduler.VERIFY) == ()
    assert memory.touches == [("run", *DELETE)]
    assert scheduler.delete_task(memory, scheduler.VERIFY) == ()


def test_a_task_that_stays_is_told() -> None:
    memory = machine(obeys=False)
    memory.place(rf"{REGISTERED}\hsm-agent-verify", b"x")
    assert [notice.code for notice in scheduler.delete_task(memory, scheduler.VERIFY)] == ["still-scheduled"]


# --- in a run


def scene() -> Scene:
    """A host whose first boot was begun by user-data, with an agent that its package installed."""
    made = Scene(world=WindowsVendor)
    made.memory.programs["schtasks"] = schtasks
    made.memory.place(BROUGHT, XML)
    made.memory.place(FIRST_BOOT, b"{}")
    made.memory.place(rf"{REGISTERED}\hsm-agent-first-boot", b"x")
    return made


def test_a_proven_host_looks_by_itself_and_its_first_boot_is_over() -> None:
    host = scene()
    report = host.configure()
    assert report.exit_status == 0
    assert [notice.code for notice in report.notices if "schedule" in notice.code] == ["scheduled"]
    assert host.memory.list_dir(REGISTERED) == ("hsm-agent-verify",)
    assert host.memory.stat(FIRST_BOOT) is None
    assert commands.remove(host.memory, host.run("remove"), NullProgress(), None).exit_status == 0
    assert host.memory.list_dir(REGISTERED) == ()


def test_a_host_that_is_not_proven_goes_on_at_its_next_start() -> None:
    host = scene()
    host.vendor.moods["installer"] = "reboot"
    assert host.configure().code == "reboot-required"
    assert host.memory.list_dir(REGISTERED) == ("hsm-agent-first-boot",)
    assert host.memory.stat(FIRST_BOOT) is not None


def test_a_task_that_cannot_be_had_fails_no_run() -> None:
    host = scene()
    host.memory.programs["schtasks"] = CommandResult(1, "", "ERROR: Access is denied.\n")
    report = host.configure()
    codes = [notice.code for notice in report.notices if "schedule" in notice.code]
    assert (report.exit_status, codes) == (0, ["still-scheduled", "not-scheduled"])


def test_a_first_boot_that_ends_degraded_goes_on_at_the_next_start() -> None:
    host = scene()
    second = host.vendor.addresses[1]
    host.memory.ports[(second, 2223)] = "hsm-timed-out"
    report = host.configure()
    assert report.exit_status == 41, report
    assert host.memory.stat(FIRST_BOOT) is not None
    assert "hsm-agent-first-boot" in host.memory.list_dir(REGISTERED)
