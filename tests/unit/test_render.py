"""How progress and results leave the program: what each stream gets, and what a stream that is gone changes."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from agent import __version__
from agent.core.errors import CODES
from agent.core.model import StepOutcome, StepResult
from agent.render import screen
from agent.render.json_report import schema
from agent.render.progress import LineProgress, NullProgress, SpinnerProgress, TolerantStream, choose, how_far

ROOT = Path(__file__).parents[2]

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
    progress.began("certificate", touching=False)
    progress.began("package:cli", touching=True)
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
    progress.began("package:cli", touching=True)
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


def terminal_shows(argv: list[str], tmp_path: Path) -> tuple[str, str, int]:
    """Run with a terminal as standard error; return what it showed, standard output, and the exit status."""
    leader, follower = pty.openpty()
    out = tmp_path / "out"
    with out.open("wb") as stdout:
        process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=follower,
            env={**os.environ, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # Linux's way to say that the last one who had the other side is gone
                break
            if not piece:
                break
            shown += piece
        os.close(leader)
        return shown.decode(), out.read_text(encoding="utf-8"), process.wait(60)


LIVE = """
import sys
from agent.render.progress import choose
live = choose(sys.stderr, quiet=False)
live.began("certificate", touching=False)
live.began("package:cli", touching=True)
live.downloaded(20_000_000, 40_000_000)
live.close()
print("the result")
"""


def test_a_terminal_has_a_live_line_with_the_step_and_a_bar_and_it_is_gone_afterwards(tmp_path: Path) -> None:
    shown, out, status = terminal_shows([sys.executable, "-c", LIVE], tmp_path)
    assert (out, status) == ("the result\n", 0)
    assert "package:cli  [##########..........] 20.0 of 40.0 MB" in shown
    # the line is erased, and the cursor is there again
    assert shown.rstrip("\r").endswith("\033[2K")
    assert shown.rindex("\033[?25h") > shown.rindex("\033[?25l")


PLAN = ["-m", "agent", "plan", "--hsm-ip", "nowhere"]


def test_a_run_at_a_terminal_leaves_nothing_of_its_progress_in_the_result(tmp_path: Path) -> None:
    shown, out, status = terminal_shows([sys.executable, *PLAN], tmp_path)
    assert status == 2
    assert "looking" in shown
    assert "\033" not in out
    quiet, same, _ = terminal_shows([sys.executable, *PLAN, "--quiet"], tmp_path)
    assert (quiet, same) == ("", out)


@pytest.mark.parametrize(
    ("redirection", "status"),
    [("2>&-", 2), ("2>/dev/full", 2), (">&-", 2), ("</dev/null", 2), ("<&-", 2), (">/dev/full", 11)],
)
def test_streams_that_are_closed_or_full_do_not_break_a_run(redirection: str, status: int) -> None:
    line = f'exec "$0" {" ".join(PLAN)} {redirection}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert ("write-failed" in done.stderr) == (redirection == ">/dev/full")


def test_a_reader_that_is_gone_does_not_change_how_the_run_ended() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, *PLAN],
        cwd=ROOT,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (2, "")


def test_a_terminal_that_knows_no_unicode_still_gets_its_result() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "agent", "plan", "--hsm-ip", "München"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "M?nchen" in done.stdout) == (2, True), done


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["bogus"], "No such command 'bogus' (exit 2, usage)"),
        (["configure", "--hsm-pi", "1"], "--hsm-pi"),
        (["configure", "--output", "xml", "--hsm-ip", "x"], "--output takes text or json (exit 2, usage)"),
        (["explain", "hsm-refsed"], "hint: did you mean hsm-refused"),
        (["demo", "--fault", "nope"], "there is no fault `nope` (exit 2, usage)"),
    ],
    ids=str,
)
def test_a_wrong_command_line_is_told_on_standard_error_with_its_code(argv: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "usage" in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("command", ["", "plan"])
@pytest.mark.parametrize("columns", ["40", "200"])
def test_help_cuts_no_name_of_an_option_on_any_terminal(command: str, columns: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", *filter(None, [command]), "--help"],
        cwd=ROOT, env={**os.environ, "COLUMNS": columns}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "…" not in done.stdout
    if command:
        assert {"--ca-fingerprint", "--accept-single-hsm", "--package-source"} <= set(
            done.stdout.replace(",", " ").split()
        )


@pytest.mark.parametrize(
    ("command", "shown"),
    [("facts", "--platform ROW"), ("rollback", "[RUN]"), ("explain", "[CODE]"), ("demo", "--fault NAME")],
)
def test_every_command_says_what_it_takes_on_every_python(command: str, shown: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", command, "-h"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout
    assert "-o, --output text|json" in done.stdout


def test_the_version_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"hsm-agent {__version__}\n", "")


def test_explain_wraps_for_a_narrow_terminal() -> None:
    assert max(len(line) for line in screen.codes(width=80).splitlines()) <= 80
    narrow = screen.explain(CODES["hsm-timed-out"], width=60)
    assert narrow.split() == screen.explain(CODES["hsm-timed-out"]).split()
