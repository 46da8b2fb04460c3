"""The program that is sent runs alone, as on a host."""

from __future__ import annotations

import json
import subprocess
import sys

from agent.fleet.launch import bootstrap_program
from agent.remote.protocol import (
    ArchiveRef,
    At,
    archive_message,
)
from tests.fakes.archives import archive, digest
from tests.fakes.messages import REQUEST


def test_bootstrap_program_runs_alone_and_the_server_shares_its_protocol() -> None:
    """Run as on a host, with a server in the archive that is this test's."""
    server = """
from agent.remote import protocol
from agent.remote.protocol import At
def serve(request, stream):
    stream.send(At(request.command, changing=protocol.RecordStream is type(stream)))
"""
    data = archive(
        {"agent/__init__.py": b"", "agent/remote/__init__.py": b"", "agent/remote/server.py": server.encode()}
    )
    request = REQUEST._replace(tree=ArchiveRef(digest(data), keep=False), word="")
    program = bootstrap_program()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"],
        input=b"%d\n%s" % (len(program), program) + request.line() + archive_message(data),
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    events = [json.loads(line[1:]) for line in done.stdout.splitlines()]
    assert [each["event"] for each in events] == ["hello", "want", "at"], done
    assert events[-1] == At("configure", changing=True).record()
