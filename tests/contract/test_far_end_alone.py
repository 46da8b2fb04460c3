"""The far end as hsm-agent.exe starts it: one request on standard input, records and a report on standard output.

Runs here, and inside Wine on the Python of Windows (see tests/wine).
"""

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
from agent.render.json_report import schema
from agent.render.schema_check import first_violation

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
WINDOWS = sys.platform == "win32"
ENTRY = ("-m", "agent", "far-end")
IMPATIENT = ("-c", "from agent.remote.server import serve_stdio; serve_stdio(0.5)")
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
        from tests.wine.found import CLUSTER

        return CLUSTER.ca.read_bytes()
    made: bytes = request.getfixturevalue("ca_pem")
    return made


def test_a_look_is_records_and_a_report(ca: bytes) -> None:
    """A plan: it writes no report to this machine."""
    with started(*ENTRY) as far_end:
        far_end.ask("plan", ca_cert=f"inline:{ca.decode()}")
        hello = far_end.record()
        assert (hello["event"], hello["python"]) == ("hello", ".".join(map(str, sys.version_info[:3])))
        report = far_end.until("report")["report"]
        whole = schema()
        assert first_violation(report, whole["$defs"]["report"], whole) is None
        assert (report["command"], report["request"]) == ("plan", "RUN/plan/1")
        far_end.hang_up()
        assert far_end.end() == (0, b"")


def test_it_ends_though_the_operator_stays(ca: bytes) -> None:
    """The thread that reads waits for more, and nobody may wait for that."""
    with started(*ENTRY) as far_end:
        far_end.ask("plan", ca_cert=f"inline:{ca.decode()}")
        assert far_end.record()["event"] == "hello"
        far_end.until("report")
        assert far_end.end() == (0, b"")


@pytest.mark.parametrize("half", [b"", b'{"tree": {"sha', b"no record\n"])
def test_a_link_that_breaks_before_the_request_is_told(half: bytes) -> None:
    with started(*ENTRY) as far_end:
        far_end.tell(half)
        far_end.hang_up()
        failed = far_end.record()
        assert (failed["event"], failed["code"]) == ("failed", "link-lost")
        assert far_end.end() == (0, b"")


def test_an_operator_who_says_nothing_is_not_waited_for() -> None:
    with started(*IMPATIENT) as far_end:
        failed = far_end.record()
        assert (failed["code"], failed["saw"]) == ("link-lost", "nothing came over the link for 0.5 s")
        assert far_end.end() == (0, b"")


def test_a_link_that_breaks_in_the_middle_of_a_run_does_not_end_it(ca: bytes) -> None:
    """Nobody reads what it says any more; it comes to its end all the same."""
    with started(*ENTRY) as far_end:
        far_end.ask("plan", ca_cert=f"inline:{ca.decode()}")
        assert far_end.record()["event"] == "hello"
        assert far_end.child.stdout is not None
        far_end.child.stdout.close()
        far_end.hang_up()
        assert far_end.child.wait(60) == 0
        assert far_end.child.stderr is not None
        assert far_end.child.stderr.read() == b""
