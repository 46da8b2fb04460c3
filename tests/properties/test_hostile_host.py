"""A host in wrong hands costs nobody but itself: whatever it says, all that is shown, kept and written stays whole."""

from __future__ import annotations

import copy
import json
import tempfile
import tracemalloc
import xml.etree.ElementTree as ET
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.codes import CODES
from agent.core.fleet_model import HostResult, HostState, Target
from agent.fleet import controller, journal
from agent.fleet.agent_archive import AgentArchive, AgentArchives
from agent.fleet.model import Deps, RunSpec, RunState
from agent.fleet.replies import ReplyReader
from agent.fleet.ssh_transport import FleetOverSsh
from agent.hosts.posix import Posix
from agent.remote.protocol import RECORD, Hello, Settled
from agent.render.fleet.counters import RolloutCounters
from agent.render.fleet.html import page
from agent.render.fleet.junit import suites
from agent.render.fleet.screen import report as screen
from tests.examples import examples
from tests.fakes.cancel_tokens import Cord
from tests.fakes.visits import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TREES = AgentArchives(AgentArchive("t.tar.gz", "f00", b"TREE"))
TARGETS = (Target("good", "10.0.4.7"), Target("bad", "10.0.4.8"))
ORDERS = RunSpec(
    "rollout", "hosts", TARGETS, {each.name: {"hsm_ip": ["10.0.1.6"]} for each in TARGETS}, limit="100%"
)
HELLO = b'{"event": "hello"}'

# what breaks readers of numbers, terminals, XML and memories
ODD: tuple[Any, ...] = (
    10**400, -(10**400), 10**30, -1, 1e308, True, None, "", "\x1b[2J", "\ud800", "\u202e", "\x00", "]]>", "<script>",
    "x" * 5000, "x" * 300_000, "no-such-code", "internal\n", [], {}, [[]] * 2000, {"a": {"b": [1]}},
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where in a report something could stand instead."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield (*path, key)
        yield from places(each, (*path, key))


PLACES = tuple(places(REPORT))


@st.composite
def reports(draw: st.DrawFn) -> dict[str, Any]:
    """Give a report of success in which some values are others, and some are missing."""
    report = copy.deepcopy(REPORT)
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3, unique=True)):
        inside: Any = report
        for key in path[:-1]:
            inside = (
                inside[key]
                if isinstance(inside, dict) and key in inside
                else inside[key]
                if isinstance(inside, list) and len(inside) > key
                else {}
            )
        if not isinstance(inside, (dict, list)) or (isinstance(inside, list) and len(inside) <= path[-1]):
            continue
        if draw(st.booleans()) and isinstance(inside, dict):
            inside.pop(path[-1], None)
        elif path[-1] in inside or isinstance(inside, list):
            inside[path[-1]] = draw(JSON | st.sampled_from(ODD))
    return report


SAID = st.one_of(
    reports().map(lambda report: json.dumps({"event": "report", "report": report}).encode()),
    JSON.map(lambda value: json.dumps({"event": "report", "report": value}).encode()),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=200).map(lambda data: data.replace(b"\n", b"")),
    st.tuples(st.sampled_from(["at", "want", "failed", "hello"]), JSON, JSON).map(
        lambda each: json.dumps({"event": each[0], "step": each[1], "what": each[2], "code": each[1], "saw": each[2]}).encode()
    ),
)  # fmt: skip


@dataclass
class Fleet:
    """A good host, and one that says these lines behind its hello."""

    lines: list[bytes]
    requests: list[dict[str, Any]] = field(default_factory=list)

    def endpoints(self, targets: Sequence[Target], _stopped: object) -> dict[str, tuple[str, int]]:
        return {each.name: (each.address, 22) for each in targets}

    @contextmanager
    def open(self, target: Target, _line: Any) -> Iterator[Link]:
        yield Link(self, target.name)


@dataclass
class Link:
    fleet: Fleet
    name: str
    trusted: str | None = None
    request: dict[str, Any] = field(default_factory=dict)
    left: list[bytes] = field(default_factory=list)

    @contextmanager
    def open_command(self, _command: str) -> Iterator[Link]:
        yield self

    def send(self, data: bytes) -> None:
        if self.request:
            return
        length, _, rest = data.partition(b"\n")
        self.request = json.loads(rest[int(length) :])
        asked = {key: self.request[key] for key in ("request", "command")}
        good = json.dumps({"event": "report", "report": {**REPORT, **asked}}).encode()
        lines = [HELLO, good] if self.name == "good" else [HELLO, *self.fleet.lines]
        own = json.dumps(REPORT["request"]).encode()
        mark = RECORD + self.request["word"].encode()
        self.left = [
            mark + line.replace(own, json.dumps(asked["request"]).encode()) + b"\n" for line in lines
        ]

    def receive(self, *, timeout: float = 0.0) -> bytes:
        return self.left.pop(0) if self.left else b""

    def close_stdin(self) -> None: ...

    def status(self) -> int | None:
        return 0

    def errors(self) -> bytes:
        return b""


def ran(lines: list[bytes], folder: Path) -> dict[str, Any]:
    """Run a roll-out over the two, look at all that it leaves, and return its report."""
    environ = {"XDG_STATE_HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    deps = Deps(
        Posix(), environ, lambda _spec: FleetOverSsh(Fleet(lines), TREES), Cord, RolloutCounters(), lambda: 0
    )
    place, result = controller.start(ORDERS, deps)
    whole = controller.with_host_reports(place, result)
    assert controller.with_host_reports(place, controller.stored_report(place)) == whole
    json.dumps(whole, allow_nan=False).encode("ascii")
    for text in (screen(result), screen(whole, width=40, colour=False)):
        assert all(char.isprintable() for line in text.splitlines() for char in line)
        text.encode()
        assert len(text) < 100_000
    shown = page(whole)
    shown.encode()
    assert len(shown) < 1_000_000
    cases = ET.fromstring(suites(whole))
    assert {suite.get("name") for suite in cases} >= {"good", "bad"}
    for host in whole["hosts"]:
        assert host["code"] is None or host["code"] in CODES
    return whole


@pytest.mark.slow
@examples(80)
@given(st.lists(SAID, max_size=3))
def test_whatever_a_host_says_costs_nobody_but_itself(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = ran(lines, Path(folder))
    good, bad = whole["hosts"]
    assert (good["outcome"], good["code"], good["report"]["outcome"]) == ("ok", None, "ok")
    assert (whole["exit_status"] == 0) is (bad["outcome"] == "ok")


def said(**more: Any) -> bytes:
    return json.dumps({"event": "report", "report": {**REPORT, **more}}).encode()


STEP = REPORT["steps"][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        said(steps=[{**STEP, "seconds": 10**400}]), said(steps=[{**STEP, "seconds": 10**30}]),
        said(hsms=[{**REPORT["hsms"][0], "connect_ms": 10**400}]), said(steps=[STEP] * 1001),
        said(warnings=[{"code": "x", "text": "y"}] * 1001), said(code="x" * 4_000_000, outcome="failed"),
        said(code="made-up", outcome="failed"), said(outcome="failed"), said(cause="made-up"),
        said(steps=[{**STEP, "code": "made-up"}]), said(steps=[{**STEP, "saw": "x" * 100_000}]),
        json.dumps({"event": "report", "report": {key: each for key, each in REPORT.items() if key != "request"}}).encode(),
        b'{"event": "hello", "uid": ' + b"9" * 900_000 + b"}", b'{"event": "hello", "uid": 0.' + b"9" * 900_000 + b"}",
        b'{"event": "hello", "uid": [' + b"{}," * 300_000 + b"{}]}",
        json.dumps({"event": "failed", "code": "no-space", "saw": "x" * 900_000}).encode(),
    ],
    ids=["seconds", "long seconds", "milliseconds", "steps", "warnings", "long code", "code", "no code", "cause",
         "step's code", "words", "no request", "digits", "fraction", "values", "last words"],
)  # fmt: skip
def test_what_is_beyond_all_measure_is_that_hosts_failure(tmp_path: Path, line: bytes) -> None:
    whole = ran([line], tmp_path)
    assert [(host["outcome"], host["code"]) for host in whole["hosts"]] == [
        ("ok", None),
        ("failed", "far-end-failed"),
    ]
    assert len(json.dumps(whole["hosts"][1])) < 2000


def test_one_record_costs_little_memory() -> None:
    """A list of empty lists costs thirty times its length, where that is not looked at before it is read."""
    line = RECORD + b'{"event": "hello", "uid": [' + b"[]," * 300_000 + b"[]]}\n"
    comes = [line]
    tracemalloc.start()
    try:
        with pytest.raises(Exception, match="no record"):
            list(ReplyReader(lambda: comes.pop() if comes else b"", "").messages())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(line)


@pytest.mark.parametrize("noise", [
    b"\x1e{}\n", b'\x1e{"event": "failed", "code": "no-space", "saw": "made up"}\n', b"\x1e" * 5000 + b"\n", b"\x1e[\n",
    b'\x1e0123456789abcdef{"event": "failed", "code": "no-space", "saw": "made up"}\n', b"hello \x1e", b"\xff\xfe\x00\n",
])  # fmt: skip
@pytest.mark.parametrize("behind", [0, 1])
def test_what_does_not_know_the_word_of_the_request_is_noise(noise: bytes, behind: int) -> None:
    lines = [RECORD + b"word" + HELLO + b"\n", RECORD + b'word{"event": "settled"}\n']
    lines.insert(behind, noise)
    heard = ReplyReader(lambda: lines.pop(0) if lines else b"", "word")
    assert list(heard.messages()) == [Hello(""), Settled()]


def test_a_host_that_sends_one_byte_at_a_time_is_read_once() -> None:
    """Each byte is looked at once: a line that is searched again with each piece took minutes at a megabyte."""
    text = RECORD + b'{"event": "at", "step": "' + b"x" * 4000 + b'"}\n'
    pieces = iter([text[place : place + 1] for place in range(len(text))] * 5)
    heard = ReplyReader(lambda: next(pieces, b""), "")
    assert len(list(heard.messages())) == 5


def test_a_journal_that_holds_such_a_host_is_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with journal.opened(folder) as book:
        book.begin(RunState("20261125T031500Z-1f3a", "2026-11-25T03:15:00Z", ORDERS, TREES.sent))
        book.began("bad", 1)
        book.ended(
            HostResult("bad", "10.0.4.8", 22, 1, HostState.FAILED, code="far-end-failed", saw="\ud800\x1b[2J")
        )
    assert journal.read(folder).ends["bad"].saw == "\ud800\x1b[2J"
    assert "\x1b" not in screen(controller.stored_report(folder))
