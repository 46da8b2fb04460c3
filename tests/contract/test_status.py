"""`status --wait` as a program."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [(["10m"], 2, "a duration belongs to --wait"), (["--wait", "soon"], 2, "is not a duration")],
)
def test_what_is_typed_wrong_is_told(words: list[str], status: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "status", *words],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ},
    )  # fmt: skip
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
