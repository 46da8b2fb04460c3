"""Progress and results of real processes: what each stream gets."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__

ROOT = Path(__file__).parents[2]


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
live.began("certificate", changing=False)
live.began("package:cli", changing=True)
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
    assert "checking" in shown
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
