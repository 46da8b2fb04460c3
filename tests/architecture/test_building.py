"""The checkout is built once in a run, however many workers ask for it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.building import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SUITE = """
from pathlib import Path

import pytest
from tests.building import release_of_this_run

@pytest.mark.parametrize("number", range(4))
def test_it_is_there(number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    archive = release_of_this_run(tmp_path_factory, "--tree").archive
    with Path({log!r}).open("a") as log:
        log.write(f"{{archive}} {{archive.stat().st_ino}}\\n")
"""


def test_all_workers_have_the_same_archive(tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / "test_made_up.py").write_text(SUITE.format(log=str(log)))
    argv = [sys.executable, "-m", "pytest", "-n", "2", "-p", "tests.conftest", "-c", os.devnull]
    argv += ["-p", "no:cacheprovider", f"--rootdir={tmp_path}", f"--basetemp={tmp_path / 'temp'}"]
    done = subprocess.run(
        [*argv, str(tmp_path / "test_made_up.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = log.read_text().splitlines()
    assert (len(lines), len(set(lines))) == (4, 1)
