"""The far end, started as a host starts it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.config.desired import Desired, to_json
from agent.remote.protocol import RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator


CHECKOUT = Path(__file__).parents[2]
WINDOWS = sys.platform == "win32"
ENTRY = ("-m", "agent", "far-end")
# nothing answers there, and nothing is asked outside of this machine
HSM = "127.0.0.77"


class Started:
    """A far end that runs, and what the operator's end does with it."""

    def __init__(self, *argv: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, *argv], cwd=CHECKOUT, env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def tell(self, data: bytes) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(data)
        self.child.stdin.flush()

    def ask(
        self, command: str, *, seconds: float = 60.0, hsm_ip: tuple[str, ...] = (HSM,), **desired: Any
    ) -> None:
        request = {
            "tree": {"sha256": "f00", "keep": True}, "command": command, "request": f"RUN/{command}/1",
            "desired": to_json(Desired(hsm_ip=hsm_ip, **desired)), "again": False, "resumed": False,
            "seconds": seconds,
        }  # fmt: skip
        self.tell(json.dumps(request).encode() + b"\n")

    def hang_up(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()

    def record(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line.startswith(RECORD), (line, self.child.stderr and self.child.stderr.read())
        assert line.endswith(b"}\n")  # and no carriage return, though this is Windows
        found: dict[str, Any] = json.loads(line[1:])
        return found

    def until(self, event: str) -> dict[str, Any]:
        """Pass over steps until something else comes, which must be that."""
        record = self.record()
        while record["event"] == "at":
            record = self.record()
        assert record["event"] == event, json.dumps(record)
        return record

    def end(self) -> tuple[int, bytes]:
        """Wait for the end without telling anything more, and return the exit status and what else was said."""
        assert self.child.stdout is not None
        status = self.child.wait(60)
        return status, self.child.stdout.read()


@contextlib.contextmanager
def started(*argv: str) -> Iterator[Started]:
    far_end = Started(*argv)
    try:
        yield far_end
    finally:
        far_end.child.kill()
        far_end.child.wait(60)
        for stream in (far_end.child.stdin, far_end.child.stdout, far_end.child.stderr):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()


@pytest.fixture
def ca(request: pytest.FixtureRequest) -> bytes:
    """The cluster's CA; there is no openssl in Windows, and one was made beside it."""
    if WINDOWS:
        from tests.windows.found import CLUSTER

        return CLUSTER.ca.read_bytes()
    made: bytes = request.getfixturevalue("ca_pem")
    return made
