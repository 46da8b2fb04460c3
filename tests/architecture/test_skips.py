"""A skip that a complete machine need not have fails the run; so does nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import skips

ROOT = Path(__file__).parents[2]
SUITE = """
import pytest

def test_that_runs() -> None:
    pass

def test_that_does_not() -> None:
    pytest.skip("{reason}")
"""
SIGNALS = """
import signal

def test_an_interrupt_ends_what_a_test_starts() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
"""


def run(folder: Path, suite: str, *arguments: str, ignored: bool = False) -> subprocess.CompletedProcess[str]:
    path = folder / "test_made_up.py"
    path.write_text(suite)
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, f"--rootdir={folder}"]
    numbers = (signal.SIGINT, signal.SIGHUP) if ignored else ()

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return subprocess.run(
        [*argv, "-p", "no:cacheprovider", *arguments, str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, preexec_fn=ignore,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [(), ("-n", "2")], ids=str)
def test_what_is_missing_fails_a_complete_machine_alone(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, SUITE.format(reason="no such program"), *arguments)
    assert (done.returncode == 1) is skips.is_complete_machine(), done.stdout
    assert ("NOT ALLOWED TO BE SKIPPED HERE" in done.stdout) is skips.is_complete_machine()
    assert "1 passed, 1 skipped" in done.stdout


def test_what_the_list_allows_fails_nothing(tmp_path: Path) -> None:
    done = run(tmp_path, SUITE.format(reason="this machine has no IPv6"))
    assert (done.returncode, "NOT ALLOWED" in done.stdout) == (0, False), done.stdout


def test_each_skip_is_judged_by_its_reason() -> None:
    reasons = {"a": "('f.py', 1, 'Skipped: no user namespaces here')", "b": "('f.py', 2, 'Skipped: no sshd')"}
    assert skips.unexpected(reasons) == {"b": reasons["b"]}


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a thing of POSIX")
def test_a_run_that_was_started_with_signals_ignored_ignores_none(tmp_path: Path) -> None:
    done = run(tmp_path, SIGNALS, ignored=True)
    assert done.returncode == 0, done.stdout
