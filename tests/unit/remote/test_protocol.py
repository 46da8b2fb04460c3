"""The protocol: what each message is on the wire, for far ends of other versions; and the program that is sent."""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import sysconfig

import pytest

from agent.fleet.launch import bootstrap_program
from agent.remote.protocol import (
    WAIT,
    At,
    Failed,
    FileHeader,
    Hello,
    HostMessage,
    HostRequest,
    RecordStream,
    Refused,
    ReportMessage,
    Settled,
    WantFile,
    WantTree,
    archive_message,
)
from tests.fakes.messages import REQUEST

REQUEST_LINE = (
    b'{"tree": {"sha256": "f00", "keep": true}, "command": "configure", "removal": false, "desired": {"sdk": 5}, "cluster": null, '
    b'"request": "RUN/web-1/2", "again": true, "resumed": false, "seconds": 90.5, "word": "w0", "agent": null, "removes_agent": false}\n'
)


@pytest.mark.parametrize(
    ("message", "record"),
    [
        (Hello("3.11.2", 0), b'{"event": "hello", "python": "3.11.2", "uid": 0}'),
        (Hello("3.11.2"), b'{"event": "hello", "python": "3.11.2"}'),
        (Settled(), b'{"event": "settled"}'),
        (At("package:cli", changing=True), b'{"event": "at", "step": "package:cli", "changing": true}'),
        (WantTree(), b'{"event": "want", "what": "tree"}'),
        (WantFile("u", None), b'{"event": "want", "what": "file", "url": "u", "sha256": null}'),
        (Failed("no-space", "x"), b'{"event": "failed", "code": "no-space", "saw": "x"}'),
        (ReportMessage({"a": 1}), b'{"event": "report", "report": {"a": 1}}'),
    ],
)
def test_host_message_has_the_bytes_of_schema_1(message: HostMessage, record: bytes) -> None:
    out = io.BytesIO()
    stream = RecordStream(io.BytesIO(REQUEST_LINE), out)
    stream.request()
    stream.send(message)
    assert out.getvalue() == b"\x1ew0" + record + b"\n"


def test_operator_message_has_the_bytes_of_schema_1() -> None:
    assert REQUEST.line() == REQUEST_LINE
    assert REQUEST.archive_line() == b'{"sha256": "f00", "keep": true, "word": "w0"}\n'
    assert archive_message(b"TREE") == b'{"size": 4}\nTREE'
    assert FileHeader(4, "f01").line() == b'{"size": 4, "sha256": "f01"}\n'
    assert WAIT == b'{"wait": true}\n'
    refused = b'{"code": "download-failed", "sentence": "s", "saw": "x", "want": "y"}\n'
    assert Refused("download-failed", "s", "x", "y").line() == refused


def test_host_reads_what_the_operator_writes() -> None:
    assert RecordStream(io.BytesIO(REQUEST_LINE), io.BytesIO()).request() == REQUEST
    header, refused = FileHeader(4, "f01"), Refused("download-failed", "s", "x", "y")
    for answer in (header, refused):
        assert RecordStream(io.BytesIO(WAIT + WAIT + answer.line()), io.BytesIO()).file_answer() == answer
    assert RecordStream(io.BytesIO(archive_message(b"TREE")), io.BytesIO()).archive() == b"TREE"


def test_request_of_an_earlier_version_is_read() -> None:
    values = {
        name: each
        for name, each in json.loads(REQUEST_LINE).items()
        if name not in ("removal", "resumed", "word")
    }
    assert HostRequest.from_json(values) == REQUEST._replace(word="")
    with pytest.raises(KeyError):
        HostRequest.from_json({**values, "tree": {}})


def is_in_standard_library(name: str) -> bool:
    """`sys.stdlib_module_names` came with Python 3.10."""
    spec = importlib.util.find_spec(name)
    origin = (spec.origin if spec else None) or ""
    is_below = origin.startswith(sysconfig.get_path("stdlib")) and "-packages" not in origin
    return origin in ("built-in", "frozen") or is_below


def test_bootstrap_program_imports_nothing_of_the_agent() -> None:
    """It is sent over every connection: it needs the standard library alone, and stays small."""
    program = bootstrap_program()
    nodes = list(ast.walk(ast.parse(program)))
    names = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name for name in names if not is_in_standard_library(name.partition(".")[0])} == set()
    assert len(program) < 24 * 1024
