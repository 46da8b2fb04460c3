"""Windows Firewall's profiles and rules in a real registry, read by the real adapter: runs on Windows alone (tests/windows)."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.core.model import Plan
from agent.core.timeouts import Timeouts
from agent.engine import apply_plan
from agent.hosts.local import local_host
from agent.render.progress import NullProgress
from agent.steps.firewall import FirewallRuleAbsent, FirewallRulePresent
from agent.steps.reach import Reach
from agent.windows.firewall import RULE, outbound_blocks
from tests.full_server import full_server

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.core.model import StepResult

KEY = r"HKLM\SYSTEM\CurrentControlSet\Services\SharedAccess\Parameters\FirewallPolicy"
PROFILES = ("DomainProfile", "StandardProfile", "PublicProfile")
OURS = f"v2.31|Action=Allow|Active=TRUE|Dir=Out|Protocol=6|RPort2_10=2223-2225|Name={RULE}|"


def reg(*words: str) -> None:
    subprocess.run(["reg", *words, "/reg:64"], check=True, capture_output=True, timeout=60)


def plant(key: str, name: str, kind: str, data: str) -> None:
    reg("add", rf"{KEY}\{key}", "/v", name, "/t", kind, "/d", data, "/f")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    reg("add", KEY, "/f")
    reg("delete", KEY, "/f")


class Nothing:
    """An Undo for what nothing is kept of."""

    def save(self, *, worked: bool) -> None:
        """Keep nothing."""

    def restore(self) -> tuple[StepResult, ...]:
        return ()


def walk(step: FirewallRulePresent | FirewallRuleAbsent) -> tuple[str, str | None]:
    (line,) = apply_plan(Plan((step,)), local_host(), NullProgress(), Nothing()).steps
    return line.outcome.value, line.code


def test_a_registry_that_blocks_is_the_cause_of_silence_until_a_rule_allows() -> None:
    assert outbound_blocks(local_host(), "127.0.0.1", 2223).causes == {}
    for profile in PROFILES:
        plant(profile, "EnableFirewall", "REG_DWORD", "1")
        plant(profile, "DefaultOutboundAction", "REG_DWORD", "1")
    with full_server() as port:
        found = Reach("127.0.0.1", port, 0.2).check(local_host())
    assert (found.code, "Windows Firewall: what goes out is blocked" in found.saw) == ("hsm-firewalled", True)
    plant("FirewallRules", "{8A1B7C1E-3C42-4B0C-8A39-0E2B2A2D1C01}", "REG_SZ", OURS)
    assert outbound_blocks(local_host(), "127.0.0.1", 2223).causes == {}
    assert set(outbound_blocks(local_host(), "127.0.0.1", 443).causes) == {"Domain", "Private", "Public"}


def test_the_rule_is_found_where_it_is_and_a_netsh_that_does_nothing_is_not_believed() -> None:
    """Wine's netsh says nothing, ends well and changes nothing."""
    assert walk(FirewallRulePresent(Timeouts())) == ("failed", "firewall-failed")
    plant("FirewallRules", "{8A1B7C1E-3C42-4B0C-8A39-0E2B2A2D1C01}", "REG_SZ", OURS)
    assert walk(FirewallRulePresent(Timeouts())) == ("met", None)
    assert walk(FirewallRuleAbsent(Timeouts())) == ("failed", "firewall-failed")
