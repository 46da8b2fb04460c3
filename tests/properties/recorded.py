"""Systems, runs and identities for the properties of records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.core.registry import RegistryKey
from agent.report import RunInfo
from tests.fakes.vendor import CRYPTOGRAPHY, Vendor, WindowsVendor, catalogue
from tests.properties.worlds import STARTED

if TYPE_CHECKING:
    from tests.fakes.memory import Memory


both = pytest.mark.parametrize("world", [Vendor, WindowsVendor], ids=["linux", "windows"])
World = type[Vendor]


def run_of(command: str, number: int = 8) -> RunInfo:
    return RunInfo(f"2026112{number}T130000Z-0000", command, STARTED, catalogue=catalogue())


def as_machine(memory: Memory, name: str) -> None:
    """Give a machine the id of another one."""
    if memory.system.kind == "linux":
        memory.place("/etc/machine-id", f"{name * 32}\n".encode())
    else:
        memory.keys[CRYPTOGRAPHY] = RegistryKey({"MachineGuid": name * 8})


def as_instance(memory: Memory, name: str) -> None:
    memory.place("/sys/devices/virtual/dmi/id/sys_vendor", b"Amazon EC2\n")
    memory.place("/sys/devices/virtual/dmi/id/board_asset_tag", f"{name}\n".encode())
