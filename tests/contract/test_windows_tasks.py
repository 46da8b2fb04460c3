"""Tasks, registered for real: as far as Wine's Task Scheduler keeps them, which is their names. On Windows alone (tests/wine)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import tasks
from agent.hosts.here import this_machine

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = this_machine().system.tasks
assert PLACES is not None
BROUGHT = PLACES.verify
XML = Path(__file__).parents[2] / "templates" / "windows" / "hsm-agent-verify.xml"


def registered() -> tuple[str, ...]:
    return this_machine().names(PLACES.registered) if PLACES else ()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    this_machine().remove(BROUGHT)
    for name in registered():
        subprocess.run(
            ["schtasks", "/delete", "/tn", name, "/f"], check=True, timeout=60, capture_output=True
        )


def test_the_daily_look_is_registered_and_taken_off() -> None:
    assert tasks.keep(this_machine()) == ()  # no agent is installed
    this_machine().write(BROUGHT, XML.read_bytes(), mode=0o644)
    assert [notice.code for notice in tasks.keep(this_machine())] == ["scheduled"]
    assert registered() == ("hsm-agent-verify",)
    assert tasks.keep(this_machine()) == ()
    assert this_machine().names(this_machine().system.state) == ()
    assert tasks.end(this_machine(), tasks.VERIFY) == ()
    assert registered() == ()
    assert tasks.end(this_machine(), tasks.VERIFY) == ()


def test_a_description_that_is_none_is_refused_and_told() -> None:
    this_machine().write(BROUGHT, b"<Task>", mode=0o644)
    assert [notice.code for notice in tasks.keep(this_machine())] == ["not-scheduled"]
    assert registered() == ()
