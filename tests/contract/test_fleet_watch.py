"""What a roll-out shows on a real terminal, by programs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIVE = """
import sys
from agent.core.fleet_model import HostResult, HostState
from agent.render.fleet.choose import choose
live = choose(sys.stderr, quiet=False, colour=sys.argv[1] == "colour")
live.run_started("fleet rollout", (2, 8))
live.wave_started(1, 2)
live.host_finished(HostResult("web-0", "10.0.0.9", 22, 1, HostState.FAILED, code="hsm-timed-out"))
live.host_started("web-1")
live.host_step("web-1", "sending the agent")
sys.stdin.readline()  # until the test has seen it
live.close()
print("the result")
"""


@pytest.mark.parametrize("colour", ["colour", "none"])
def test_a_terminal_has_it_live_and_nothing_of_it_stays(colour: str) -> None:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 40, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE, colour],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while b"sending the agent" not in shown:
        shown += os.read(leader, 4096)
    out, _ = process.communicate(b"\n", timeout=60)
    with contextlib.suppress(OSError):  # Linux's way to say that the last one who had the other side is gone
        while piece := os.read(leader, 4096):
            shown += piece
    os.close(leader)
    assert (out, process.returncode) == (b"the result\n", 0)
    assert b"fleet rollout: 10 hosts, " in shown
    assert (b"\033[31m  1 hsm-timed-out\033[0m" in shown) == (colour == "colour")
    assert (b"\033[3" in shown) == (colour == "colour")
    # it went up to where it began, and erased everything below
    assert shown.endswith(b"A\033[J")
