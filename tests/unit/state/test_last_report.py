"""`status --wait`: it waits for the run in progress, or for the first report of all; never without an end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent.core.errors import AgentError
from agent.core.system import LINUX
from agent.state.last_report import last_report
from tests.fakes.memory import Memory
from tests.fakes.runs import start_run

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


def ends(memory: Memory) -> None:
    memory.place(LINUX.report, REPORT)
    memory.place(LINUX.lock, b"")


def test_status_waits_for_the_run_in_progress() -> None:
    memory = Busy(ends)
    memory.place(LINUX.report, OLD)
    start_run(memory)
    assert last_report(memory, 60)["run_id"] == "new"
    assert 3 <= memory.clock < 4


def test_status_waits_for_the_first_report() -> None:
    memory = Busy(ends)
    assert last_report(memory, 60)["run_id"] == "new"
    assert 3 <= memory.clock < 4


@pytest.mark.parametrize("command", [b"", b"/usr/sbin/nginx\0"], ids=["dead", "another program by now"])
def test_status_does_not_wait_for_a_killed_run(command: bytes) -> None:
    memory = Memory()
    memory.place(LINUX.report, OLD)
    start_run(memory, command)
    if not command:
        del memory.entries["/proc/812/cmdline"]
    assert last_report(memory, 60)["run_id"] == "old"
    assert memory.clock == 0


@pytest.mark.parametrize(("busy", "saw"), [(True, "run 2026 (pid 812)"), (False, "no usable")])
def test_the_wait_of_status_has_an_end(busy: bool, saw: str) -> None:
    memory = Memory()
    if busy:
        start_run(memory)
    with pytest.raises(AgentError) as caught:
        last_report(memory, 60)
    assert (caught.value.code.name, caught.value.code.exit_status) == ("timed-out", 75)
    assert saw in caught.value.saw
    assert 60 <= memory.clock < 61


def test_status_without_a_wait_says_at_once_that_no_report_is_there() -> None:
    memory = Memory()
    start_run(memory)
    with pytest.raises(AgentError) as caught:
        last_report(memory, None)
    assert caught.value.code.name == "nothing-recorded"
