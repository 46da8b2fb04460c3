"""What a run in progress leaves for others to see on an in-memory host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.system import LINUX

if TYPE_CHECKING:
    from tests.fakes.memory import Memory


def start_run(
    memory: Memory, command: bytes = b"/usr/bin/python3\0-I\0/usr/bin/hsm-agent\0configure\0"
) -> None:
    memory.place(LINUX.lock, b"hsm-agent configure, run 2026 (pid 812)\n")
    memory.place("/proc/812/cmdline", command)
