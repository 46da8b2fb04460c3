"""Reports to S3 and to the inventory of Systems Manager, against moto; and every way in which they do not arrive."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from agent.config.desired import Desired
from agent.core.errors import AgentError
from agent.core.system import LINUX, System, windows
from agent.sinks import ssm_inventory
from agent.sinks.delivery import Delivered, deliver
from agent.sinks.message import DeliveryContext, OutgoingReport, UndeliveredError
from agent.sinks.registry import send
from tests.fakes.aws import KEYS, SECRET, TOKEN, RealTime, refuses, says
from tests.fakes.moto_server import REGION, client, server_with_bucket, user_who_may
from tests.fakes.receiver import silent
from tests.fakes.report_trees import TREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.aws_server import AwsServer

NODE = "i-0abc123def4567890"
OTHER = "mi-0abc123def4567890"
BUCKET = "s3://reports/fleet/"


@pytest.fixture(scope="module")
def running() -> Iterator[AwsServer]:
    with server_with_bucket("reports") as server:
        yield server


@pytest.fixture
def server(running: AwsServer) -> AwsServer:
    running.misbehave()
    running.calls.clear()
    return running


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert SECRET not in caplog.text
    assert TOKEN not in caplog.text


def document(**more: Any) -> str:
    return json.dumps({**TREE, **more})


def of_node(**more: Any) -> str:
    return document(host={**TREE["host"], "instance_id": NODE}, **more)


def environ(server: AwsServer, **more: str) -> dict[str, str]:
    names = {**KEYS, "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, **more}
    return {name: value for name, value in names.items() if value}


def put(server: AwsServer, uri: str, text: str, on: RealTime | None = None, /, **more: str) -> None:
    machine = on or RealTime()
    send(
        OutgoingReport(uri, text),
        DeliveryContext(machine, machine.monotonic() + 60, environ(server, **more)),
    )


def fails(server: AwsServer, uri: str, text: str, **more: str) -> UndeliveredError:
    with pytest.raises(UndeliveredError) as caught:
        put(server, uri, text, None, **more)
    error = caught.value
    assert SECRET not in error.saw
    assert TOKEN not in error.saw
    return error


def stored(server: AwsServer, bucket: str = "reports") -> dict[str, Any]:
    s3 = client(server.url, "s3")
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", ())]
    return {key: json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys}


def test_a_host_has_one_object_and_one_for_each_day(server: AwsServer) -> None:
    put(server, BUCKET, document(run_id="first"))
    put(server, BUCKET, document(run_id="second"))
    put(server, BUCKET, document(run_id="third", finished="2026-11-24T00:00:00Z"))
    put(server, "s3://reports", document(run_id="of web-2", host={"name": "web-2/ü", "instance_id": None}))
    found = {key: each["run_id"] for key, each in stored(server).items()}
    assert found == {
        "fleet/history/2026-11-23/ip-10-0-1-12.json": "second",
        "fleet/history/2026-11-24/ip-10-0-1-12.json": "third",
        "fleet/ip-10-0-1-12.json": "third",
        "history/2026-11-23/web-2--.json": "of web-2",
        "web-2--.json": "of web-2",
    }
    head = client(server.url, "s3").head_object(Bucket="reports", Key="fleet/ip-10-0-1-12.json")
    assert head["ContentType"] == "application/json"
    assert set(server.permissions()) == {"s3:PutObject"} | {"s3:GetObject", "s3:ListBucket"}


def test_a_policy_for_putting_alone_is_enough(server: AwsServer) -> None:
    may = user_who_may(server.url, "s3:PutObject")
    with server.enforcing():
        put(server, "s3://reports/policy", document(), None, **may)
    may = user_who_may(server.url, "s3:GetObject")
    with server.enforcing():
        error = fails(server, "s3://reports/policy", document(), **may)
    assert "AWS denies s3:PutObject in eu-central-1" in error.saw
    assert not error.refused


def test_a_bucket_of_another_region_is_asked_once_in_that_region(server: AwsServer) -> None:
    elsewhere = "<Error><Code>PermanentRedirect</Code></Error>"
    server.misbehave(says(elsewhere, 301, x_amz_bucket_region="us-west-2"), None)
    put(server, "s3://reports/moved", document())
    assert [call.region for call in server.calls] == [REGION, "us-west-2", "us-west-2"]
    server.calls.clear()
    put(server, "s3://reports/moved?region=ap-south-1", document())
    assert {call.region for call in server.calls} == {"ap-south-1"}


@pytest.mark.parametrize(
    ("code", "status", "refused"),
    [("EntityTooLarge", 400, True), ("NoSuchBucket", 404, False), ("InvalidBucketState", 409, False)],
)
def test_only_what_is_about_the_report_is_refused_for_good(
    server: AwsServer, code: str, status: int, refused: bool
) -> None:
    server.misbehave(says(f"<Error><Code>{code}</Code></Error>", status))
    error = fails(server, BUCKET, document())
    assert code in error.saw
    assert error.refused is refused


def run(server: AwsServer, machine: RealTime, uri: str, text: str, region: str | None = None) -> Delivered:
    wanted = Desired(report_to=(uri,), region=region)
    return deliver(machine, wanted, text, environ(server, AWS_REGION=""), hurried=False)


def test_an_undelivered_report_goes_with_the_next_run_and_knows_its_region(server: AwsServer) -> None:
    machine = RealTime()
    server.misbehave(says("<Error><Code>ServiceUnavailable</Code></Error>", 503))
    done = run(server, machine, "s3://reports/later", document(run_id="early"), REGION)
    assert done.failed
    assert not done.refused
    assert [notice.code for notice in done.notices] == ["report-undelivered"]
    assert "3 tries" in done.notices[0].text
    server.misbehave()
    server.calls.clear()
    assert not run(server, machine, "file:/tmp/x", document(run_id="late")).notices
    assert {call.region for call in server.calls} == {REGION}
    assert stored(server)["later/ip-10-0-1-12.json"]["run_id"] == "early"


def test_a_delivery_ends_with_its_time(server: AwsServer) -> None:
    server.misbehave(silent)
    machine = RealTime()
    with pytest.raises(UndeliveredError, match="the time for deliveries ran out"):
        send(
            OutgoingReport(BUCKET, document()),
            DeliveryContext(machine, machine.monotonic() + 0.3, environ(server)),
        )


def entries(server: AwsServer) -> dict[str, Any]:
    found: dict[str, Any] = client(server.url, "ssm").list_inventory_entries(
        InstanceId=NODE, TypeName=ssm_inventory.TYPE
    )
    return found


def test_the_inventory_has_an_item_of_this_node(server: AwsServer) -> None:
    text = of_node(
        client={"sdk": 5, "version": "5.18.0", "components": ["cli", "pkcs11"]},
        hsms=[{"reached": True}, {"reached": False}],
        restart_needed=[{"name": "nginx"}],
        code="hsm-degraded",
        exit_status=41,
        outcome="degraded",
        changed=True,
    )
    put(server, "ssm-inventory:", text)
    found = entries(server)
    assert (found["SchemaVersion"], found["CaptureTime"]) == ("1.0", "2026-11-23T20:15:09Z")
    (item,) = found["Entries"]
    said = (
        "ClientVersion",
        "Components",
        "Hsms",
        "HsmsReached",
        "Outcome",
        "Code",
        "RestartNeeded",
        "Changed",
    )
    assert [item[name] for name in said] == [
        "5.18.0", "cli pkcs11", "2", "1", "degraded", "hsm-degraded", "nginx", "true",
    ]  # fmt: skip
    assert server.permissions()[0] == "ssm:PutInventory"


def test_an_item_is_one_by_aws_s_model_however_long_its_texts() -> None:
    tree = json.loads(of_node(code="x" * 10_000))
    item = ssm_inventory.item(tree)
    params = {"InstanceId": NODE, "Items": [item]}
    model = botocore.session.Session().get_service_model("ssm").operation_model("PutInventory")
    assert not ParamValidator().validate(params, model.input_shape).has_errors()
    (content,) = item["Content"]
    assert len(content) <= 50
    assert all(0 < len(name) <= 64 and len(value) <= 4096 for name, value in content.items())
    empty = ssm_inventory.attributes(json.loads(of_node(client=None, ca=None)))
    assert list(empty) == list(content)


_FOLDERS = {
    "linux": (LINUX, "/var/lib/amazon/ssm/{}/inventory/custom/CloudHSMClient.json"),
    "windows": (windows(), r"C:\ProgramData\Amazon\SSM\InstanceData\{}\inventory\custom\CloudHSMClient.json"),
}


def machine_with(node: str, system: System) -> RealTime:
    machine = RealTime(system=system)
    machine.place(ssm_inventory.folder(system) + system.separator + node, kind="directory")
    return machine


@pytest.mark.parametrize("kind", _FOLDERS)
@pytest.mark.parametrize("node", [NODE, OTHER])
def test_without_credentials_the_agent_s_file_is_left(server: AwsServer, kind: str, node: str) -> None:
    system, path = _FOLDERS[kind]
    machine = machine_with(node, system)
    text = of_node() if node == NODE else document()
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    put(server, "ssm-inventory:", text, machine, **none)
    left = json.loads(machine.read(path.format(node)) or b"")
    assert left == {
        "SchemaVersion": "1.0",
        "TypeName": "Custom:CloudHSMClient",
        "Content": ssm_inventory.attributes(json.loads(text)),
    }
    assert server.calls == []


def test_a_file_that_was_left_goes_once_the_item_is_put(server: AwsServer) -> None:
    machine = machine_with(NODE, LINUX)
    path = _FOLDERS["linux"][1].format(NODE)
    machine.place(path, data=b"{}")
    put(server, "ssm-inventory:", of_node(), machine)
    assert machine.stat(path) is None


def test_an_ordinary_user_puts_the_item_though_the_agent_s_directory_is_closed(server: AwsServer) -> None:
    class Closed(RealTime):
        def list_dir(self, path: str) -> tuple[str, ...]:
            raise AgentError("unreadable", f"{path} cannot be read", saw="Permission denied")

    put(server, "ssm-inventory:", of_node(run_id="by a user"), Closed())
    assert entries(server)["Entries"][0]["RunId"] == "by a user"


def test_without_credentials_and_without_ssm_s_agent_it_is_undelivered(server: AwsServer) -> None:
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    error = fails(server, "ssm-inventory:", of_node(), **none)
    assert "no AWS credentials" in error.saw
    assert "/var/lib/amazon/ssm" in error.saw
    assert not error.refused
    assert "names no instance" in fails(server, "ssm-inventory:", document()).saw


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("InvalidInstanceId", False),
        ("AccessDeniedException", False),
        ("ItemSizeLimitExceededException", True),
    ],
)
def test_an_item_that_is_not_taken_says_why(server: AwsServer, code: str, refused: bool) -> None:
    server.misbehave(refuses(code, "because"))
    error = fails(server, "ssm-inventory:", of_node())
    assert f"{code}: because" in error.saw
    assert "ssm:PutInventory" in error.saw
    assert error.refused is refused
