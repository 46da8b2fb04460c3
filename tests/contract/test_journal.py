"""The journal of a roll-out, with processes that end while they write."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_a_user_without_a_home_is_told() -> None:
    """As in a container that runs as a number."""
    code = "import os; from agent.fleet import journal; del os.environ['HOME']; os.setuid(54321); journal.runs_dir({})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HOME": "/"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "PermissionError" in done.stderr:
        pytest.skip("only root can become a user whom nobody knows")
    assert "AgentError" in done.stderr
