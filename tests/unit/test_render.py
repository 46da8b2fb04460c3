"""How progress and results leave the program: what each stream gets, and what a stream that is gone changes."""

from __future__ import annotations

import io
import os
import pty
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from agent.core.codes import CODES
from agent.core.model import StepOutcome, StepResult
from agent.render import screen
from agent.render.json_report import schema
from agent.render.progress import LineProgress, NullProgress, SpinnerProgress, TolerantStream, choose, how_far

# what the users' contract promises for version 1
PROMISED: dict[str, Any] = {
    "schema_version": 1, "run_id": "", "command": "", "agent_version": "",
    "host": {"name": "", "os": "", "os_version": "", "arch": "", "platform": "", "instance_id": None},
    "client": {"sdk": 5, "version": "", "components": [], "verified_by": ""},
    "ca": {"path": "", "sha256": "", "subject": "", "not_after": ""},
    "steps": [{"id": "", "outcome": "", "saw": "", "want": "", "code": None, "hint": None, "seconds": 0.0,
               "url": "", "file": "", "sha256": "", "size": 0}],
    "hsms": [{"ip": "", "port": 2223, "reached": False, "cause": "", "connect_ms": None}],
    "warnings": [{"code": "", "text": ""}],
    "restart_needed": [{"pid": 812, "name": "", "component": "", "started": ""}],
    "outcome": "", "code": "", "exit_status": 40, "changed": True, "started": "", "finished": "",
}  # fmt: skip


def properties(node: dict[str, Any]) -> dict[str, Any]:
    """Return what an object of the schema may hold, through references, lists and `or null`."""
    if "$ref" in node:
        return properties(schema()["$defs"][node["$ref"].rsplit("/", 1)[1]])
    for each in node.get("oneOf", ()):
        if properties(each):
            return properties(each)
    if "items" in node:
        return properties(node["items"])
    found: dict[str, Any] = node.get("properties", {})
    return found


def missing(promised: dict[str, Any], node: dict[str, Any], path: str = "") -> list[str]:
    known = properties(node)
    lost = [f"{path}{key}" for key in promised if key not in known]
    for key, value in promised.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and key in known:
            lost += missing(inner, known[key], f"{path}{key}.")
    return lost


def test_the_schema_is_one_and_has_every_key_that_was_promised() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert missing(PROMISED, schema()["$defs"]["report"]) == []


@pytest.mark.parametrize(
    "spoilt", [{"schema_version": 2}, {"outcome": "fine"}, {"command": "demo"}, {"exit_status": "0"}], ids=str
)
def test_the_schema_refuses_what_is_no_report(spoilt: dict[str, Any]) -> None:
    tree = {
        **PROMISED, "run_id": "20261123T201500Z-1f3a", "command": "verify", "outcome": "ok", "code": None, "cause": None,
        "failure": None, "client": None, "ca": None, "steps": [], "hsms": [], "exit_status": 0, "changed": False,
        "started": "2026-11-23T20:15:00Z", "finished": "2026-11-23T20:15:09Z",
        "host": {**PROMISED["host"], "title": "", "platform_forced": False},
    }  # fmt: skip
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(tree)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**tree, **spoilt})


def test_plain_progress_is_a_line_for_each_touch_and_each_end() -> None:
    stream = io.StringIO()
    progress = LineProgress(stream)
    progress.began("certificate", changing=False)
    progress.began("package:cli", changing=True)
    progress.downloaded(1, 2)
    progress.ended(StepResult("package:cli", StepOutcome.FAILED, code="package-failed"))
    progress.ended(StepResult("certificate", StepOutcome.SKIPPED))
    progress.ended(StepResult("reach:10.0.1.6:2223", StepOutcome.MET))
    progress.close()
    assert stream.getvalue().splitlines() == [
        "hsm-agent: package:cli ...",
        "hsm-agent: package:cli failed (package-failed)",
        "hsm-agent: reach:10.0.1.6:2223 met",
    ]


@pytest.mark.parametrize(
    ("have", "total", "shown"),
    [
        (0, 40_000_000, "[....................] 0.0 of 40.0 MB"),
        (10_000_000, 40_000_000, "[#####...............] 10.0 of 40.0 MB"),
        (40_000_000, 40_000_000, "[####################] 40.0 of 40.0 MB"),
        (50_000_000, 40_000_000, "[####################] 50.0 of 40.0 MB"),
        (1_500_000, None, "1.5 MB"),
        (0, 0, "0.0 MB"),
    ],
)
def test_a_bar_tells_how_far_a_download_is(have: int, total: int | None, shown: str) -> None:
    assert how_far(have, total) == shown


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise ValueError("I/O operation on closed file")


def test_a_stream_that_is_gone_ends_nothing() -> None:
    stream = TolerantStream(Gone())
    assert stream.write("text") == 4
    stream.flush()
    progress = LineProgress(Gone())
    progress.began("package:cli", changing=True)
    progress.close()


def test_what_fits_the_stream_is_chosen() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        assert type(choose(terminal, quiet=True)) is NullProgress
        assert type(choose(terminal, quiet=False, dumb=True)) is LineProgress
        live = choose(terminal, quiet=False)
        live.close()
        assert type(live) is SpinnerProgress
    os.close(leader)
    assert type(choose(io.StringIO(), quiet=False)) is LineProgress
    assert type(choose(None, quiet=False)) is NullProgress


def test_explain_wraps_for_a_narrow_terminal() -> None:
    assert max(len(line) for line in screen.codes(width=80).splitlines()) <= 80
    narrow = screen.explain(CODES["hsm-timed-out"], width=60)
    assert narrow.split() == screen.explain(CODES["hsm-timed-out"]).split()
