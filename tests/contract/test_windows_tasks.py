"""Tasks, registered for real: as far as Wine's Task Scheduler keeps them, which is their names. On Windows alone (tests/windows)."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.config.desired import Desired
from agent.hosts.local import local_host
from agent.user_data import AgentSource, user_data
from agent.windows import scheduler

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = local_host().system.tasks
assert HERE is not None
REGISTERED, BROUGHT, FIRST_BOOT = HERE.registered, HERE.verify, HERE.first_boot
XML = Path(__file__).parents[2] / "templates" / "windows" / "hsm-agent-verify.xml"


def registered() -> tuple[str, ...]:
    return local_host().list_dir(REGISTERED)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    local_host().remove(BROUGHT)
    for name in registered():
        subprocess.run(
            ["schtasks", "/delete", "/tn", name, "/f"], check=True, timeout=60, capture_output=True
        )


def test_the_daily_look_is_registered_and_taken_off() -> None:
    assert scheduler.ensure_daily_verify(local_host()) == ()  # no agent is installed
    local_host().write(BROUGHT, XML.read_bytes(), mode=0o644)
    assert [notice.code for notice in scheduler.ensure_daily_verify(local_host())] == ["scheduled"]
    assert registered() == ("hsm-agent-verify",)
    assert scheduler.ensure_daily_verify(local_host()) == ()
    here = local_host().system
    assert local_host().list_dir(here.state) in ((), (here.lock.rpartition("\\")[2],))  # nothing that counts
    assert scheduler.delete_task(local_host(), scheduler.VERIFY) == ()
    assert registered() == ()
    assert scheduler.delete_task(local_host(), scheduler.VERIFY) == ()


def test_a_description_that_is_none_is_refused_and_told() -> None:
    local_host().write(BROUGHT, b"<Task>", mode=0o644)
    assert [notice.code for notice in scheduler.ensure_daily_verify(local_host())] == ["not-scheduled"]
    assert registered() == ()


def test_a_first_boot_goes_on_until_the_agent_ends_it() -> None:
    """As user-data registers it, whose PowerShell nothing here can run: the same text, the same bytes, the same words."""
    machine = local_host()
    desired = Desired(hsm_ip=("10.0.1.6",))
    text = user_data(
        machine, desired, AgentSource("msi", "a.msi", "https://x/a.msi", "0" * 64), "powershell"
    ).decode()
    _, encoded = re.findall(r"FromBase64String\('([A-Za-z0-9+/=]+)'\)", text)
    task = base64.b64decode(encoded).decode().replace("PROGRAM", r"C:\Program Files\hsm-agent\hsm-agent.exe")
    draft = rf"{machine.system.state}\first-boot.xml"
    machine.write(draft, task.encode("utf-16"), mode=0o600)
    machine.write(FIRST_BOOT, b"{}", mode=0o600)
    words = ("schtasks.exe", "/create", "/tn", scheduler.FIRST_BOOT, "/xml", draft, "/f")
    assert f"& {' '.join(words[:5])} $file /f " in text
    for _ in range(2):  # as two launches with other user-data do
        assert machine.run(words, timeout=60).ok
    machine.remove(draft)
    assert registered() == (scheduler.FIRST_BOOT,)
    assert scheduler.end_first_boot(machine) == ()
    assert registered() == ()
    assert machine.stat(FIRST_BOOT) is None
