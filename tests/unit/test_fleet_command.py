"""`hsm-agent fleet` as a program, with a fleet that nobody answers for: what it prints, writes and listens to."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from agent import __version__

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def argv(tmp_path: Path, ca_pem: bytes) -> list[str]:
    """A roll-out to a port of this machine at which nothing listens."""
    (tmp_path / "hosts").write_text("web-1 ansible_host=127.0.0.9 ansible_port=1\n")
    (tmp_path / "ca.crt").write_bytes(ca_pem)
    text = f'__version__ = "{__version__}"\n'.encode()
    info = tarfile.TarInfo("hsm-agent/agent/__init__.py")
    info.size = len(text)
    with tarfile.open(tmp_path / "tree.tar.gz", "w:gz") as tar:
        tar.addfile(info, io.BytesIO(text))
    return [
        "fleet", "rollout", "--inventory", str(tmp_path / "hosts"), "--tree", str(tmp_path / "tree.tar.gz"),
        "--hsm-ip", "10.0.1.6", "--ca-cert", str(tmp_path / "ca.crt"),
    ]  # fmt: skip


def run(argv: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "HOME": str(home),
        "XDG_STATE_HOME": "",
        "XDG_CACHE_HOME": "",
        "SSH_AUTH_SOCK": "",
    }
    return subprocess.run(
        [sys.executable, "-m", "agent", *argv],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_file_that_cannot_be_written_does_not_cost_the_result(argv: list[str], tmp_path: Path) -> None:
    done = run([*argv, "--output", "json", "--html", "/proc/none/page.html"], tmp_path)
    assert json.loads(done.stdout)["totals"]["unreachable"] == 1
    assert (done.returncode, "write-failed" in done.stderr) == (11, True)


_SIGNALS = """
import os, signal, sys
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
from agent.cli.fleet import interrupts
heard = interrupts()
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    os.kill(os.getpid(), number)
print(*(signal.Signals(number).name for number in heard))
"""


@pytest.mark.parametrize(
    ("ignored", "heard"),
    [([], "SIGHUP SIGINT SIGTERM"), (["SIGHUP"], "SIGINT SIGTERM")],
    ids=["plain", "nohup"],
)
def test_what_is_ignored_stays_ignored(ignored: list[str], heard: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALS, *ignored], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == heard
