"""The long test files are there, and workers take them first."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests import order

if TYPE_CHECKING:
    from pathlib import Path

ROOT = order.HERE.parent


def test_each_file_that_comes_first_exists() -> None:
    assert [name for name in order.FIRST if not (order.HERE / name).is_file()] == []
    assert len(set(order.FIRST)) == len(order.FIRST)


def test_workers_take_the_long_files_first(tmp_path: Path) -> None:
    short, long = "tests/golden/test_os_release.py", "tests/golden/test_inventories.py"
    assert order.rank(ROOT / long) < order.rank(ROOT / short)
    argv = [sys.executable, "-m", "pytest", "-v", "-n", "1", "--dist", "loadfile", "--no-loadscope-reorder"]
    argv += [
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'temp'}",
        "-k",
        "test_no_row or test_the_settings",
    ]
    done = subprocess.run(
        [*argv, short, long],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stdout
    assert 0 < done.stdout.index(f"PASSED {long}") < done.stdout.index(f"PASSED {short}")
