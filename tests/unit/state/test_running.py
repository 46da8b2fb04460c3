"""`status --wait`: a run that is at work is waited for, and so is the first report of all; never without an end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent import commands
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.system import LINUX, windows
from agent.state import running
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from typing import Callable

REPORT = json.dumps({"schema_version": 1, "run_id": "new", "exit_status": 0}).encode()
OLD = json.dumps({"schema_version": 1, "run_id": "old", "exit_status": 40}).encode()


class Busy(Memory):
    """A machine on which something happens while somebody waits."""

    def __init__(self, happens: Callable[[Memory], None]) -> None:
        super().__init__()
        self.happens = happens

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.clock >= 3:
            self.happens(self)


def start_run(
    memory: Memory, command: bytes = b"/usr/bin/python3\0-I\0/usr/bin/hsm-agent\0configure\0"
) -> None:
    memory.place(LINUX.lock, b"hsm-agent configure, run 2026 (pid 812)\n")
    memory.place("/proc/812/cmdline", command)


def ends(memory: Memory) -> None:
    memory.place(LINUX.report, REPORT)
    memory.place(LINUX.lock, b"")


def test_a_run_at_work_is_waited_for() -> None:
    memory = Busy(ends)
    memory.place(LINUX.report, OLD)
    start_run(memory)
    assert commands.last_report(memory, 60)["run_id"] == "new"
    assert 3 <= memory.clock < 4


def test_a_program_of_another_user_with_the_number_of_a_killed_run_is_none() -> None:
    memory = Memory()
    memory.place(LINUX.report, OLD)
    start_run(memory)
    assert running.current_run(memory) is not None
    memory.place("/proc/812/cmdline", b"python3\0hsm-agent\0configure\0", uid=1000)
    assert running.current_run(memory) is None


# of one POSIX lock, one lock that others may share, and the lock of a run
LOCKS = b"1: POSIX  ADVISORY  WRITE 812 fe:00:60 128 128\n2: FLOCK  ADVISORY  READ 812 fe:00:61 0 EOF\n"
OF_A_RUN = b"3: FLOCK  ADVISORY  WRITE %d 00:19:1234 0 EOF\n"


@pytest.mark.parametrize(
    ("locks", "found"),
    [(LOCKS, False), (LOCKS + OF_A_RUN % 8120, False), (LOCKS + OF_A_RUN % 812, True), (None, True)],
    ids=["none of a run", "of another process", "its own", "unknown"],
)
def test_an_agent_with_the_number_of_a_killed_run_is_none_without_a_lock(
    locks: bytes | None, found: bool
) -> None:
    memory = Memory()
    start_run(memory, b"/usr/bin/python3\0/usr/bin/hsm-agent\0status\0--wait\0")
    if locks is not None:
        memory.place("/proc/locks", locks)
    assert (running.current_run(memory) is not None) is found


def test_the_first_report_is_waited_for() -> None:
    memory = Busy(ends)
    assert commands.last_report(memory, 60)["run_id"] == "new"
    assert 3 <= memory.clock < 4


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('"hsm-agent.exe","812","Services","0","21,504 K"\n', True),
        ('"python.exe","812","Console","1","21,504 K"\n', True),
        ('"notepad.exe","812","Console","1","21,504 K"\n', False),
        ("INFO: No tasks are running which match the specified criteria.\n", False),
        ("", False),
    ],
)
def test_a_run_at_work_on_windows(said: str, found: bool) -> None:
    memory = Memory(system=windows())
    words = "hsm-agent configure, run 2026 (pid 812)"
    memory.place(memory.system.lock, f"{words}\n".encode())
    memory.answers["tasklist", "/fi", "PID eq 812", "/fo", "csv", "/nh"] = CommandResult(0, said, "")
    assert running.current_run(memory) == (words if found else None)


@pytest.mark.parametrize("command", [b"", b"/usr/sbin/nginx\0"], ids=["dead", "another program by now"])
def test_the_words_of_a_run_that_was_killed_are_not_waited_for(command: bytes) -> None:
    memory = Memory()
    memory.place(LINUX.report, OLD)
    start_run(memory, command)
    if not command:
        del memory.entries["/proc/812/cmdline"]
    assert commands.last_report(memory, 60)["run_id"] == "old"
    assert memory.clock == 0


@pytest.mark.parametrize(("busy", "saw"), [(True, "run 2026 (pid 812)"), (False, "no usable")])
def test_the_wait_has_an_end(busy: bool, saw: str) -> None:
    memory = Memory()
    if busy:
        start_run(memory)
    with pytest.raises(AgentError) as caught:
        commands.last_report(memory, 60)
    assert (caught.value.code.name, caught.value.code.exit_status) == ("timed-out", 75)
    assert saw in caught.value.saw
    assert 60 <= memory.clock < 61


def test_without_a_wait_it_says_at_once_that_there_is_none() -> None:
    memory = Memory()
    start_run(memory)
    with pytest.raises(AgentError) as caught:
        commands.last_report(memory, None)
    assert caught.value.code.name == "nothing-recorded"
