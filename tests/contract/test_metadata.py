"""The instance's id against a strict metadata service on the loopback, and against all that is none."""

from __future__ import annotations

import datetime as dt
import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from agent import commands
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.hosts.posix import Posix
from agent.http.imds import DISABLED, ENDPOINT, LIMIT, instance_id
from agent.render.progress import NullProgress
from agent.report import RunInfo
from tests.fakes.imds import imds
from tests.fakes.memory import Memory
from tests.fakes.vendor import MIRROR, Vendor

if TYPE_CHECKING:
    from agent.core.model import Report

ID = "i-0abc123def4567890"
NOW = dt.datetime(2026, 12, 1, tzinfo=dt.timezone.utc)


class Machine(Memory):
    """Files in memory, and real time."""

    def monotonic(self) -> float:
        return time.monotonic()


def test_the_id_is_asked_for_with_a_token() -> None:
    with imds() as server:
        assert instance_id(Machine(), {ENDPOINT: server.url}) == ID
        assert instance_id(Posix(), {ENDPOINT: f"{server.url}/"}) == ID
    assert server.requests[:2] == ["/latest/api/token", "/latest/meta-data/instance-id"]


@pytest.mark.parametrize("mode", ["v1-only", "disabled", "garbage"])
def test_a_service_that_gives_no_token_or_no_id_is_asked_once(mode: str) -> None:
    with imds(mode) as server:
        assert instance_id(Machine(), {ENDPOINT: server.url}) is None
    assert server.requests.count("/latest/api/token") == 1
    assert len(server.requests) == (2 if mode == "garbage" else 1)


def test_a_service_that_is_absent_is_given_up() -> None:
    machine = Machine()
    began = machine.monotonic()
    assert instance_id(machine, {ENDPOINT: "http://127.0.0.1:1"}) is None
    assert machine.monotonic() - began < 3 * LIMIT


@pytest.mark.parametrize("mode", ["hop-limit", "slow"])
def test_it_takes_no_longer_than_it_may(mode: str) -> None:
    with imds(mode) as server:
        machine = Machine()
        began = machine.monotonic()
        assert instance_id(machine, {ENDPOINT: server.url}) is None
        assert machine.monotonic() - began < 3 * LIMIT


def test_a_service_that_is_late_is_waited_for() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    class Late(Machine):
        def sleep(self, seconds: float) -> None:
            assert seconds > 0
            stage.append(imds_at(port))

    stage: list[object] = []
    late = Late()
    assert instance_id(late, {ENDPOINT: f"http://127.0.0.1:{port}"}) == ID
    assert len(stage) == 1
    stage[0].close()  # type: ignore[attr-defined]


def imds_at(port: int) -> object:
    import threading

    from tests.fakes.imds import Imds

    class Closing(Imds):
        def close(self) -> None:
            self.shutdown()
            self.server_close()

    server = Closing(ID, address=("127.0.0.1", port))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    return server


@pytest.mark.parametrize(
    "environ",
    [
        {},  # firmware of somebody else: nobody is asked
        {ENDPOINT: "http://127.0.0.1:1", DISABLED: "true"},
        {ENDPOINT: "http://metadata.example"},
        {ENDPOINT: "https://127.0.0.1:1"},
        {ENDPOINT: "http://127.0.0.1:port"},
        {ENDPOINT: "nonsense"},
    ],
)
def test_who_is_not_to_be_asked_is_not_asked(environ: dict[str, str]) -> None:
    machine = Machine()
    machine.place("/sys/devices/virtual/dmi/id/sys_vendor", b"QEMU\n")
    began = machine.monotonic()
    assert instance_id(machine, environ) is None
    assert machine.monotonic() - began < LIMIT


def test_an_interrupt_ends_the_wait() -> None:
    machine = Machine()
    machine.stopped = True
    assert instance_id(machine, {ENDPOINT: "http://127.0.0.1:1"}) is None


@pytest.mark.parametrize(
    ("told", "command", "asked"), [(True, "verify", 1), (False, "verify", 0), (True, "plan", 0)]
)
def test_the_id_is_in_a_report_that_is_told_and_else_not_asked_for(
    told: bool, command: str, asked: int, ca_pem: bytes
) -> None:
    vendor = Vendor()
    memory = vendor.machine(NOW)
    wanted = Desired(
        hsm_ip=vendor.addresses, ca_cert=CaSource.of(ca_pem.decode()), package_source=MIRROR, sha256=vendor.checksums(),
        report_to=("file:/report.json",) if told else (),
    )  # fmt: skip
    with imds() as server:
        run = RunInfo("r", command, NOW, environ={ENDPOINT: server.url})
        report: Report = commands.verify(memory, wanted, run, NullProgress())
    assert report.host.instance_id == (ID if asked else None)
    assert server.requests.count("/latest/meta-data/instance-id") == asked
    if asked:
        assert json.loads(memory.read("/report.json") or b"")["host"]["instance_id"] == ID
