"""The crowd of stand-in hosts speaks SSH as OpenSSH's own client understands it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes import crowd
from tests.sshd import keygen

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
SAID = [{"event": "hello", "uid": 0}, {"event": "report", "report": {"request": crowd.RECORDED}}]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Three hosts that listen on this port."""
    keygen(tmp_path / "host_key")
    keygen(tmp_path / "user")
    (tmp_path / "conversation.jsonl").write_text("".join(json.dumps(each) + "\n" for each in SAID))
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    argv = [sys.executable, "-m", "tests.fakes.crowd", str(tmp_path), "0", "3", str(number), "0"]
    server = subprocess.Popen(argv, cwd=CHECKOUT, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield number
    finally:
        server.kill()
        server.communicate(timeout=10)


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("ssh"), reason="all of 127.0.0.0/8 is Linux's; needs OpenSSH"
)
def test_every_host_says_what_was_recorded(port: int, tmp_path: Path) -> None:
    kind, blob, *_ = (tmp_path / "host_key.pub").read_text().split()
    for number in range(3):
        name = crowd.address(number)
        (tmp_path / "known").write_text(f"[{name}]:{port} {kind} {blob}\n")
        options = [f"UserKnownHostsFile={tmp_path / 'known'}", "BatchMode=yes", f"Port={port}", "User=any"]
        words = [word for each in options for word in ("-o", each)]
        done = subprocess.run(
            ["ssh", "-F", "none", *words, "-i", str(tmp_path / "user"), name, "anything"],
            input=b'4\npass{"command": "configure", "request": "run/%d/1"}\n' % number,
            capture_output=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        hello, report = (json.loads(line.lstrip(b"\x1e")) for line in done.stdout.splitlines())
        assert (hello, report) == (SAID[0], {"event": "report", "report": {"request": f"run/{number}/1"}})
