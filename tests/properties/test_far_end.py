"""The far end of a roll-out on a host in memory: the same request is one run, however often it comes."""

from __future__ import annotations

import datetime as dt
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.config.desired import Desired, to_json
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.core.system import LINUX
from agent.remote import server
from agent.remote.protocol import RECORD, HostRequest, RecordStream
from agent.state import records
from tests.fakes.vendor import MIRROR, Vendor

if TYPE_CHECKING:
    from tests.fakes.memory import Memory


class Scene:
    def __init__(self, pem: bytes) -> None:
        self.vendor = Vendor()
        self.memory: Memory = self.vendor.machine(dt.datetime.now(dt.timezone.utc))
        self.desired = Desired(
            hsm_ip=self.vendor.addresses,
            ca_cert=CaSource.of(f"inline:{pem.decode()}"),
            package_source=MIRROR,
            sha256=self.vendor.checksums(),
        )

    def asked(
        self,
        name: str = "RUN/web-1/1",
        *,
        again: bool = False,
        command: str = "configure",
        resumed: bool = False,
    ) -> dict[str, Any]:
        return {
            "tree": {"sha256": "f00", "keep": True}, "command": command, "desired": to_json(self.desired), "request": name, "again": again, "seconds": 300.0,
            "resumed": resumed,
        }  # fmt: skip

    def answer(self, request: dict[str, Any]) -> Any:
        out = io.BytesIO()
        report = server.report_for(
            self.memory,
            HostRequest.from_json(request),
            server.RemoteListener(RecordStream(io.BytesIO(), out)),
        )
        self.said = [json.loads(line.lstrip(RECORD)) for line in out.getvalue().splitlines()]
        return report


@pytest.fixture
def scene(ca_pem: bytes) -> Scene:
    return Scene(ca_pem)


def test_a_run_tells_where_it_is_and_names_who_asked(scene: Scene) -> None:
    report = scene.answer(scene.asked())
    assert (report["outcome"], report["changed"], report["request"]) == ("ok", True, "RUN/web-1/1")
    assert {"event": "at", "step": "package:cli", "changing": True} in scene.said
    assert records.read_report(scene.memory) == report


def test_the_same_request_again_is_answered_and_not_done_twice(scene: Scene) -> None:
    first = scene.answer(scene.asked())
    touches = list(scene.memory.touches)
    assert scene.answer(scene.asked(again=True)) == first
    assert scene.memory.touches == touches


def test_another_request_is_another_run(scene: Scene) -> None:
    first = scene.answer(scene.asked())
    scene.memory.sleep(1)
    second = scene.answer(scene.asked("RUN/web-1/2", again=True))
    assert (second["changed"], second["request"]) == (False, "RUN/web-1/2")
    assert second["run_id"] != first["run_id"]


def test_a_run_that_is_under_way_is_waited_for(scene: Scene) -> None:
    first = scene.answer(scene.asked("RUN/web-1/1"))
    scene.memory.write(LINUX.report, b"{}", mode=0o644)
    turns = []

    def lock(path: str, words: str) -> Any:
        assert path == LINUX.lock
        turns.append(words)
        if len(turns) == 3:  # the first run ends
            scene.memory.write(LINUX.report, json.dumps(first).encode(), mode=0o644)
        raise AgentError("run-locked", "another hsm-agent is running on this host", saw="pid 7")

    scene.memory.lock = lock  # type: ignore[method-assign]
    assert scene.answer(scene.asked("RUN/web-1/1", again=True)) == first
    assert len(turns) == 3


def test_nobody_is_told_of_the_wait_for_a_run_that_is_under_way(scene: Scene) -> None:
    """Each trial to run would have signalled a failure to CloudFormation while all was well."""
    scene.desired = replace(scene.desired, report_to=("file:/told.json",))
    first = scene.answer(scene.asked())
    scene.memory.write(LINUX.report, b"{}", mode=0o644)
    scene.memory.touches.clear()
    scene.memory.held[LINUX.lock] = "pid 7"
    pause = scene.memory.sleep

    def waited(seconds: float) -> None:
        pause(seconds)
        if scene.memory.clock > 20:
            scene.memory.held.pop(LINUX.lock, None)
            scene.memory.write(LINUX.report, json.dumps(first).encode(), mode=0o644)

    scene.memory.sleep = waited  # type: ignore[method-assign]
    assert scene.answer(scene.asked(again=True)) == first
    assert not [touch for touch in scene.memory.touches if touch[1] == "/told.json"]


@pytest.mark.parametrize(
    "more", [{"command": "verify"}, {"code": "link-lost"}, {"code": "rolled-back", "cause": "link-lost"}],
    ids=["the look after a soak", "cut short", "cut short and put back"],
)  # fmt: skip
def test_what_is_no_answer_is_run_again(scene: Scene, more: dict[str, Any]) -> None:
    report = {**scene.answer(scene.asked()), **more}
    scene.memory.write(LINUX.report, json.dumps(report).encode(), mode=0o644)
    scene.memory.sleep(1)
    assert scene.answer(scene.asked(again=True))["run_id"] != report["run_id"]


@pytest.mark.parametrize(("outcome", "resumed", "taken"), [
    ("ok", True, True), ("ok", False, True), ("failed", False, True), ("failed", True, False),
])  # fmt: skip
def test_a_failure_is_no_answer_to_a_later_controller(
    scene: Scene, outcome: str, resumed: bool, taken: bool
) -> None:
    """Between the two, somebody may have mended what the first one would have told."""
    report = {**scene.answer(scene.asked()), "outcome": outcome, "code": "hsm-timed-out"}
    scene.memory.write(LINUX.report, json.dumps(report).encode(), mode=0o644)
    scene.memory.sleep(1)
    answer = scene.answer(scene.asked(again=True, resumed=resumed))
    assert (answer["run_id"] == report["run_id"]) is taken


def test_an_interrupt_ends_the_wait_for_another_run(scene: Scene) -> None:
    scene.memory.held[LINUX.lock] = "pid 7"

    def stopped(seconds: float) -> None:
        raise AgentError("interrupted", "the run was interrupted", saw=f"waiting {seconds} s")

    scene.memory.sleep = stopped  # type: ignore[method-assign]
    with pytest.raises(AgentError, match="interrupted"):
        scene.answer(scene.asked(again=True))


@pytest.mark.parametrize("comes", [b"", b'{"size": 9, "sha256": "x"}\nhalf'])
def test_a_package_that_stops_coming_is_a_broken_link(comes: bytes) -> None:
    """By its code: a host that is there again is asked for another run, and not for the report of this one."""
    wired = server.RemoteListener(RecordStream(io.BytesIO(comes), io.BytesIO()))
    with pytest.raises(AgentError) as broken:
        list(wired.send("https://user:secret@mirror/Noble/a.deb?token=secret", None).pieces)
    assert (broken.value.code.name, broken.value.want) == ("link-lost", "https://mirror/Noble/a.deb")


def test_a_package_that_is_still_coming_to_the_operator_is_waited_for() -> None:
    comes = b'{"wait": true}\n{"wait": true}\n{"size": 4, "sha256": "x"}\nhalf'
    sent = server.RemoteListener(RecordStream(io.BytesIO(comes), io.BytesIO())).send(
        "https://mirror/Noble/a.deb", None
    )
    assert (sent.size, b"".join(sent.pieces)) == (4, b"half")


def test_a_lock_that_stays_ends_the_wait(scene: Scene) -> None:
    scene.memory.held[LINUX.lock] = "pid 7"
    assert scene.answer(scene.asked(again=True))["code"] == "run-locked"
    assert scene.memory.clock >= 300


def test_who_meets_a_lock_is_told_which_roll_out_holds_it(scene: Scene) -> None:
    held, lock = [], scene.memory.lock

    def seen(path: str, words: str) -> Any:
        held.append(words)
        return lock(path, words)

    scene.memory.lock = seen  # type: ignore[method-assign]
    scene.answer(scene.asked("20261125T170000Z-1f3a/web-1/1"))
    assert [words.endswith(", for roll-out 20261125T170000Z-1f3a/web-1/1") for words in held] == [True]


def test_a_lock_is_not_waited_for_when_it_is_somebody_elses(scene: Scene) -> None:
    scene.memory.held[LINUX.lock] = "pid 7"
    assert scene.answer(scene.asked())["code"] == "run-locked"
    assert scene.memory.clock == 0


def test_a_report_of_an_interrupted_run_is_no_answer(scene: Scene) -> None:
    report = scene.answer(scene.asked())
    scene.memory.write(LINUX.report, json.dumps({**report, "code": "interrupted"}).encode(), mode=0o644)
    scene.memory.sleep(1)
    assert scene.answer(scene.asked(again=True))["run_id"] != report["run_id"]


@pytest.mark.parametrize(("command", "outcome"), [("plan", "drift"), ("verify", "drift")])
def test_looking_touches_nothing_but_its_record(scene: Scene, command: str, outcome: str) -> None:
    report = scene.answer(scene.asked(command=command))
    assert (report["outcome"], report["command"]) == (outcome, command)
    assert {touch[1] for touch in scene.memory.touches} <= ({LINUX.report} if command == "verify" else set())


def test_a_removal_is_a_run_too(scene: Scene) -> None:
    scene.answer(scene.asked())
    report = scene.answer(scene.asked("RUN/web-1/2", command="remove"))
    assert (report["command"], report["outcome"], report["changed"]) == ("remove", "ok", True)


def test_the_time_of_a_run_is_bounded_by_whoever_waits_for_it(scene: Scene) -> None:
    scene.desired = replace(scene.desired, timeout=7200.0)
    scene.vendor.moods["configure-cli"] = "hang"
    request = {**scene.asked(), "seconds": 20.0}
    assert scene.answer(request)["outcome"] == "failed"
    assert scene.memory.clock <= 25
