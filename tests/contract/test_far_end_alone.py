"""The far end as hsm-agent.exe starts it: one request on standard input, records and a report on standard output.

Runs here, and inside Wine on the Python of Windows (see tests/windows).
"""

from __future__ import annotations

import sys

import pytest

from agent.render.json_report import schema
from agent.render.schema_check import first_violation
from tests.contract.far_end import ENTRY, started
from tests.contract.far_end import ca as ca  # noqa: PLC0414 -- pytest takes it from here

IMPATIENT = ("-c", "from agent.remote.server import serve_stdio; serve_stdio(0.5)")


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
