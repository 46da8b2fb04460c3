"""`hsm-agent run-command` as the document of Systems Manager calls it."""

from __future__ import annotations

import json
import subprocess
import sys

from agent.remote.packed import text_in, unpack


def test_the_program_prints_one_line_and_ends_with_the_status_of_its_answer() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "run-command"],
        input="AAAA", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 70
    assert json.loads(unpack(text_in(done.stdout) or ""))["code"] == "far-end-failed"
    assert done.stdout.count("\n") == 1
