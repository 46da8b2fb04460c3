"""A visit to a host with processes in it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from agent.fleet.launch import COMMAND

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", [None, "", "/nowhere", "relative:/opt/bin"])
def test_a_path_that_start_files_spoilt_is_none_to_stop_at(path: str | None) -> None:
    program = b"print('began')"
    done = subprocess.run(
        ["/bin/sh", "-c", COMMAND if path is None else f"PATH={path}; {COMMAND}"],
        input=b"%d\n%s" % (len(program), program),
        capture_output=True,
        check=False,
        timeout=30,
        env={} if path is None else {"PATH": path},
    )
    assert (done.stdout, done.returncode) == (b"began\n", 0), done


def test_a_shim_that_does_nothing_is_passed_over(tmp_path: Path) -> None:
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\nexit 0\n")
    shim.chmod(0o755)
    program = b"print('began')"
    done = subprocess.run(
        ["/bin/sh", "-c", COMMAND], input=b"%d\n%s" % (len(program), program), capture_output=True, check=False,
        timeout=30, env={"PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (b"began\n", 0), done
    assert f"hsm-agent: {shim} ended with 0" in done.stderr.decode()


def test_start_files_that_close_the_input_are_told_as_such() -> None:
    """An `exec 0<&-` in .bashrc: no Python is to blame."""
    command = ["/bin/sh", "-c", f"exec 0<&-; {COMMAND}"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=30, env={})
    assert done.returncode == 95, done
