"""The run in progress: known by its lock, its process, and on Windows by its task."""

from __future__ import annotations

import pytest

from agent.core.host import CommandResult
from agent.core.system import windows
from agent.state import running
from tests.fakes.memory import Memory
from tests.fakes.runs import start_run


def test_a_program_of_another_user_with_the_number_of_a_killed_run_is_none() -> None:
    memory = Memory()
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
def test_a_run_in_progress_on_windows(said: str, found: bool) -> None:
    memory = Memory(system=windows())
    words = "hsm-agent configure, run 2026 (pid 812)"
    memory.place(memory.system.lock, f"{words}\n".encode())
    memory.answers["tasklist", "/fi", "PID eq 812", "/fo", "csv", "/nh"] = CommandResult(0, said, "")
    assert running.current_run(memory) == (words if found else None)
