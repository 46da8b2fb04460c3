"""Tasks, registered for real: as far as Wine's Task Scheduler keeps them, which is their names. On Windows alone (tests/wine)."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import tasks
from agent.desired import Desired
from agent.hosts.here import this_machine
from agent.user_data import Source, user_data

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = this_machine().system.tasks
assert HERE is not None
REGISTERED, BROUGHT, FIRST_BOOT = HERE.registered, HERE.verify, HERE.first_boot
XML = Path(__file__).parents[2] / "templates" / "windows" / "hsm-agent-verify.xml"


def registered() -> tuple[str, ...]:
    return this_machine().names(REGISTERED)


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
    here = this_machine().system
    assert this_machine().names(here.state) in ((), (here.lock.rpartition("\\")[2],))  # nothing that counts
    assert tasks.end(this_machine(), tasks.VERIFY) == ()
    assert registered() == ()
    assert tasks.end(this_machine(), tasks.VERIFY) == ()


def test_a_description_that_is_none_is_refused_and_told() -> None:
    this_machine().write(BROUGHT, b"<Task>", mode=0o644)
    assert [notice.code for notice in tasks.keep(this_machine())] == ["not-scheduled"]
    assert registered() == ()


def test_a_first_boot_goes_on_until_the_agent_ends_it() -> None:
    """As user-data registers it, whose PowerShell nothing here can run: the same text, the same bytes, the same words."""
    machine = this_machine()
    desired = Desired(hsm_ip=("10.0.1.6",))
    text = user_data(
        machine, desired, Source("msi", "a.msi", "https://x/a.msi", "0" * 64), "powershell"
    ).decode()
    _, encoded = re.findall(r"FromBase64String\('([A-Za-z0-9+/=]+)'\)", text)
    task = base64.b64decode(encoded).decode().replace("PROGRAM", r"C:\Program Files\hsm-agent\hsm-agent.exe")
    draft = rf"{machine.system.state}\first-boot.xml"
    machine.write(draft, task.encode("utf-16"), mode=0o600)
    machine.write(FIRST_BOOT, b"{}", mode=0o600)
    words = ("schtasks.exe", "/create", "/tn", tasks.FIRST_BOOT, "/xml", draft, "/f")
    assert f"& {' '.join(words[:5])} $file /f " in text
    for _ in range(2):  # as two launches with other user-data do
        assert machine.do(words, timeout=60).ok
    machine.remove(draft)
    assert registered() == (tasks.FIRST_BOOT,)
    assert tasks.end_first_boot(machine) == ()
    assert registered() == ()
    assert machine.stat(FIRST_BOOT) is None
