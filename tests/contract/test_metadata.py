"""The instance's id against a strict metadata service on the loopback, and against all that is none."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from agent import commands
from agent.aws.access import AwsAccess
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.hosts.deadline import DeadlineHost
from agent.hosts.posix import Posix
from agent.http.imds import DISABLED, ENDPOINT, LIMIT, instance_id, read_metadata
from agent.render.progress import NullProgress
from agent.report import RunInfo
from tests.fakes.http_server import QuietHandler, Server, serving
from tests.fakes.imds import CREDENTIALS, imds, interface_texts, place_texts
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


def test_half_an_id_is_no_id() -> None:
    class Cut(QuietHandler):
        def do_PUT(self) -> None:
            self.head(200, Content_Length=5)
            self.wfile.write(b"token")

        def do_GET(self) -> None:
            self.head(200, Content_Length=len(ID))
            self.wfile.write(ID[:12].encode())
            self.close_connection = True

    with serving(Server(Cut)) as server:
        assert instance_id(Machine(), {ENDPOINT: server.origin}) is None


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


MAC = "02:00:0a:4d:14:07"


def test_interfaces_groups_and_place_are_read_below_their_folders() -> None:
    with imds(role="web") as server:
        server.texts.update(place_texts("eu-central-1", "eu-central-1b"))
        for number, groups in enumerate(({"sg-1": "web", "sg-2": "cloudhsm-cluster-x-sg"}, {"sg-1": "web"})):
            server.texts.update(
                interface_texts(
                    f"{MAC[:-1]}{7 + number}",
                    interface=f"eni-{number}",
                    vpc="vpc-1",
                    subnet="subnet-1",
                    groups=groups,
                    ipv4s=[f"10.77.20.{7 + number}"],
                    number=number,
                )
            )

        def read(path: str) -> str | None:
            return read_metadata(Machine(), {ENDPOINT: server.url}, path)

        assert read("network/interfaces/macs/") == f"{MAC}/\n{MAC[:-1]}8/"
        assert read(f"network/interfaces/macs/{MAC}/security-groups") == "web\ncloudhsm-cluster-x-sg"
        assert read(f"network/interfaces/macs/{MAC}/security-group-ids/") == "sg-1\nsg-2"
        assert read(f"network/interfaces/macs/{MAC}/ipv6s") is None
        assert read("placement/availability-zone-id") == "euc1-az2"
        assert read("services/domain") == "amazonaws.com"
        assert read("iam/security-credentials/") == "web"
        server.live = lambda: {"security-groups": "changed"}
        assert read("security-groups") == "changed"


@pytest.mark.parametrize(("mode", "status"), [("v2", 401), ("optional", 200), ("v1-only", 200)])
def test_version_1_is_answered_only_where_it_is_on(mode: str, status: int) -> None:
    with imds(mode) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        connection.request("GET", "/latest/meta-data/instance-id")
        assert connection.getresponse().status == status
        connection.close()
        assert (instance_id(Machine(), {ENDPOINT: server.url}) == ID) is (mode != "v1-only")


def test_botocore_takes_it_for_the_metadata_service() -> None:
    from botocore.utils import InstanceMetadataFetcher, InstanceMetadataRegionFetcher

    with imds(role="web") as server:
        server.texts.update(place_texts("eu-central-1", "eu-central-1a"))
        there: dict[str, Any] = {"base_url": server.url, "timeout": 5, "num_attempts": 1, "env": {}}
        found = InstanceMetadataFetcher(**there).retrieve_iam_role_credentials()
        assert (found["role_name"], found["access_key"]) == ("web", CREDENTIALS["AccessKeyId"])
        assert InstanceMetadataRegionFetcher(**there).retrieve_region() == "eu-central-1"


@pytest.mark.parametrize("region", [None, "eu-central-1"], ids=["region", "credentials"])
@pytest.mark.parametrize("code", ["timed-out", "interrupted"])
def test_a_silent_service_outlives_no_limit_and_is_not_blamed_for_the_end(
    code: str, region: str | None
) -> None:
    stop = threading.Event()
    machine = Posix(stop)
    host = DeadlineHost(machine, 0.3) if code == "timed-out" else machine
    began = machine.monotonic()
    with imds("hop-limit") as server:
        if code == "interrupted":
            threading.Timer(0.3, stop.set).start()
        with pytest.raises(AgentError) as ended:
            AwsAccess(host, {ENDPOINT: server.url}, region).client.session.credentials()
        assert machine.monotonic() - began < 1.3
    assert ended.value.code.name == code


def test_an_undo_asks_for_credentials_though_the_run_was_interrupted() -> None:
    stop = threading.Event()
    stop.set()
    with imds("slow") as server:
        access = AwsAccess(Posix(stop), {ENDPOINT: server.url}, "eu-central-1", check_stopped=lambda: None)
        with pytest.raises(AgentError) as ended:
            access.client.session.credentials()
    assert ended.value.code.name == "aws-no-credentials"
