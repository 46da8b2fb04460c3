"""The stand-in of AWS with a cluster in it: what it describes, what it refuses, and that botocore takes it for AWS.

What botocore's models say of each answer is judged here, so that tests of the agent may believe the stand-in.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from agent.aws import operations
from agent.aws.client import AwsClient
from agent.aws.session import open_session
from agent.cloudhsm.cluster import find_cluster
from agent.core.errors import AgentError
from tests.fakes.aws import KEYS, RealTime, refuses
from tests.fakes.aws_cluster import ZONES, seed_aws_cluster
from tests.fakes.moto_server import CLUSTER, REGION, aws_server, client, policy, role_with, user_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.aws_server import AwsServer

HOUR = dt.timedelta(hours=1)
ASKED = {"Filters": {"clusterIds": [CLUSTER]}}


@pytest.fixture
def server() -> Iterator[AwsServer]:
    with aws_server() as place:
        yield place


def ours(server: AwsServer, environ: dict[str, str] | None = None) -> AwsClient:
    names = {**KEYS, **(environ or {}), "AWS_ENDPOINT_URL": server.url}
    return AwsClient(open_session(RealTime(), names, REGION))


def described(server: AwsServer) -> Any:
    return find_cluster(ours(server).pages(operations.DESCRIBE_CLUSTERS, ASKED), CLUSTER, REGION)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"dual_stack": True},
        {"HsmType": "hsm1.medium", "Mode": None},
        {"state": "UNINITIALIZED", "hsms": 0},
        {"state": "MODIFY_IN_PROGRESS", "begun": False},
    ],
    ids=["normal", "dual-stack", "hsm1", "uninitialized", "modifying"],
)
def test_a_cluster_is_one_of_botocore_s_model(server: AwsServer, more: dict[str, Any]) -> None:
    seeded = seed_aws_cluster(server.url, **more)
    theirs = client(server.url, "cloudhsmv2")
    answer = theirs.describe_clusters(**ASKED)
    del answer["ResponseMetadata"]
    with Stubber(theirs) as stub:  # its validation wants each member in the model, with its type
        stub.add_response("describe_clusters", answer, ASKED)
        theirs.describe_clusters(**ASKED)
    (cluster,) = answer["Clusters"]
    assert cluster["State"] == more.get("state", "ACTIVE")
    assert ("ClusterCsr" in cluster["Certificates"]) is (cluster["State"] == "UNINITIALIZED")
    assert described(server).addresses() == seeded.addresses


def test_each_hsm_has_its_interface_in_its_own_zone(server: AwsServer) -> None:
    seeded = seed_aws_cluster(server.url, dual_stack=True)
    hsms = described(server).hsms
    assert sorted({each.zone for each in hsms if each.is_usable}) == list(ZONES)
    found = seeded.ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [seeded.group]}])
    by_id = {each["NetworkInterfaceId"]: each for each in found["NetworkInterfaces"]}
    for hsm in (each for each in hsms if each.is_usable):
        interface = by_id[hsm.interface]
        assert interface["PrivateIpAddress"] == hsm.ipv4
        assert interface["Ipv6Addresses"][0]["Ipv6Address"] == hsm.ipv6
        assert (interface["SubnetId"], interface["Description"]) == (hsm.subnet, f"CloudHsm ENI {hsm.id}")
    assert [(each.state, each.ipv4) for each in hsms if not each.is_usable] == [("CREATE_IN_PROGRESS", "")]


def test_a_list_moves_from_answer_to_answer(server: AwsServer) -> None:
    seeded = seed_aws_cluster(server.url, hsms=1, begun=False)
    whole = seeded.cluster.to_dict()
    seeded.cluster.earlier = [{**whole, "Hsms": []}, whole]
    counts = [len(described(server).addresses()) for _ in range(2)]
    seeded.add_hsm(1)
    assert [*counts, len(described(server).addresses())] == [0, 1, 2]


def test_an_hsm_is_made_and_deleted_through_the_api(server: AwsServer) -> None:
    seeded = seed_aws_cluster(server.url, hsms=1, begun=False)
    theirs = client(server.url, "cloudhsmv2")
    made = theirs.create_hsm(ClusterId=CLUSTER, AvailabilityZone=ZONES[1])["Hsm"]
    assert (made["State"], made["AvailabilityZone"]) == ("CREATE_IN_PROGRESS", ZONES[1])
    gone = theirs.delete_hsm(ClusterId=CLUSTER, EniIp=seeded.addresses[0])["HsmId"]
    assert {each.id: each.state for each in described(server).hsms} == {
        made["HsmId"]: "CREATE_IN_PROGRESS",
        gone: "DELETE_IN_PROGRESS",
    }
    seeded.remove_hsm(gone)
    theirs.initialize_cluster(ClusterId=CLUSTER, SignedCert="certificate", TrustAnchor="ca")
    assert (described(server).state, described(server).certificate) == ("INITIALIZED", "certificate")


def test_what_moto_lacks_is_answered_as_the_models_have_it(server: AwsServer) -> None:
    seeded = seed_aws_cluster(server.url, hsms=0)
    ssm = client(server.url, "ssm")
    item = {
        "TypeName": "Custom:CloudHSMClient",
        "SchemaVersion": "1.0",
        "CaptureTime": "2026-11-30T09:00:00Z",
    }
    ssm.put_inventory(InstanceId="i-1", Items=[{**item, "Content": [{"Version": "5.18.0"}]}])
    found = ssm.list_inventory_entries(InstanceId="i-1", TypeName="Custom:CloudHSMClient")
    assert (found["Entries"], found["CaptureTime"]) == ([{"Version": "5.18.0"}], item["CaptureTime"])
    host = seeded.add_instance("10.77.20.7", "web-1")
    assert "Output" not in seeded.ec2.get_console_output(InstanceId=host.id)
    seeded.put_console(host.id, "ssh-ed25519 AAAA root@web-1\n")
    assert seeded.ec2.get_console_output(InstanceId=host.id)["Output"] == "ssh-ed25519 AAAA root@web-1\n"
    stacks = client(server.url, "cloudformation")
    signal = {"LogicalResourceId": "Group", "UniqueId": "i-1", "Status": "SUCCESS"}
    stacks.signal_resource(StackName="web", **signal)
    with pytest.raises(ClientError, match="cannot be signaled"):
        stacks.signal_resource(StackName="complete", **signal)


def test_calls_are_recorded_with_their_parameters(server: AwsServer) -> None:
    seeded = seed_aws_cluster(server.url, hsms=1)
    s3 = client(server.url, "s3")
    s3.create_bucket(Bucket="my.bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="my.bucket", Key="a/ca.crt", Body=b"PEM")
    server.calls.clear()
    asked = ours(server)
    list(asked.pages(operations.DESCRIBE_CLUSTERS, ASKED))
    list(asked.pages(operations.DESCRIBE_SUBNETS, {"Filter": [{"Name": "vpc-id", "Value": [seeded.vpc]}]}))
    asked.call(operations.GET_OBJECT, {"Bucket": "my.bucket", "Key": "a/ca.crt"})
    s3.list_objects_v2(Bucket="my.bucket")
    s3.delete_object(Bucket="my.bucket", Key="a/ca.crt")
    first, second, third, *_ = server.calls
    assert server.permissions() == [
        "cloudhsm:DescribeClusters",
        "ec2:DescribeSubnets",
        "s3:GetObject",
        "s3:ListBucket",
        "s3:DeleteObject",
    ]
    assert (first.params["Filters"], first.region, first.key_id) == (ASKED["Filters"], REGION, "ASIAEXAMPLE")
    assert (second.params["Filter.1.Value.1"], third.params) == (seeded.vpc, {"path": "/my.bucket/a/ca.crt"})
    assert {each.status for each in server.calls[:4]} == {200}


SIGNAL = {"StackName": "web", "LogicalResourceId": "Group", "UniqueId": "i-1", "Status": "SUCCESS"}


@pytest.mark.parametrize("make", [user_with, role_with], ids=["user", "role"])
@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        (operations.DESCRIBE_CLUSTERS, {}, "AccessDeniedException"),
        (operations.DESCRIBE_SUBNETS, {}, "UnauthorizedOperation"),
        (operations.GET_PARAMETER, {"Name": "/x"}, "AccessDeniedException"),
        (operations.GET_OBJECT, {"Bucket": "b-b-b", "Key": "x"}, "AccessDenied"),
        (operations.SIGNAL_RESOURCE, SIGNAL, "AccessDenied"),
    ],
    ids=["cloudhsm", "ec2", "ssm", "s3", "cloudformation"],
)
def test_a_denial_has_the_shape_of_its_service(
    server: AwsServer, make: Any, operation: operations.Operation, params: dict[str, Any], code: str
) -> None:
    nobody, somebody = make(server.url, policy()), make(server.url, policy(operation.permission))
    with server.enforcing():
        with pytest.raises(AgentError) as caught:
            ours(server, nobody).call(operation, params)
        assert caught.value.code.name == "aws-denied"
        assert (caught.value.saw or "").startswith(f"{code}: ")
        if operation is not operations.GET_OBJECT:
            assert "no identity-based policy allows" in (caught.value.saw or "")
        if operation is operations.DESCRIBE_CLUSTERS:
            assert ours(server, somebody).call(operation, params)["Clusters"] == []
        if operation is operations.SIGNAL_RESOURCE:
            ours(server, somebody).call(operation, params)
    assert server.calls[-1].permission == operation.permission


@pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        (operations.DESCRIBE_CLUSTERS, {}, "InvalidSignatureException"),
        (operations.DESCRIBE_SUBNETS, {}, "RequestExpired"),
        (operations.GET_OBJECT, {"Bucket": "b-b-b", "Key": "x"}, "RequestTimeTooSkewed"),
        (operations.SIGNAL_RESOURCE, SIGNAL, "SignatureDoesNotMatch"),
    ],
    ids=["cloudhsm", "ec2", "s3", "cloudformation"],
)
def test_a_clock_that_is_off_by_an_hour_is_refused_in_the_words_of_the_service(
    server: AwsServer, off: dt.timedelta, operation: operations.Operation, params: dict[str, Any], code: str
) -> None:
    allowed = role_with(server.url, policy("*"))
    server.clock = off
    with server.enforcing():
        theirs = client(
            server.url,
            operation.service.name,
            aws_access_key_id=allowed["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=allowed["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=allowed["AWS_SESSION_TOKEN"],
        )
        method = "".join(f"_{each.lower()}" if each.isupper() else each for each in operation.name).lstrip(
            "_"
        )
        with pytest.raises(ClientError) as caught:  # botocore corrects no clock
            getattr(theirs, method)(**params)
        assert caught.value.response["Error"]["Code"] == code
        asked = ours(server, allowed)
        if operation is operations.GET_OBJECT:
            with pytest.raises(AgentError, match="GetObject"):
                asked.call(operation, params)  # the bucket is not there; but the time is right now
        else:
            asked.call(operation, params)
        assert abs(asked.session.skew - off) < dt.timedelta(minutes=1)


def test_a_misbehaviour_has_its_turn_and_then_moto(server: AwsServer) -> None:
    seed_aws_cluster(server.url, hsms=1)
    server.calls.clear()
    server.misbehave(refuses("ThrottlingException", "Rate exceeded"), None)
    assert described(server).id == CLUSTER
    assert server.permissions() == ["cloudhsm:DescribeClusters"] * 2
    server.misbehave(refuses("ThrottlingException", "Rate exceeded"))
    with pytest.raises(AgentError) as caught:
        described(server)
    assert caught.value.code.name == "aws-throttled"
    server.misbehave()
    assert described(server).id == CLUSTER


def test_a_cluster_that_is_not_there_is_not_found(server: AwsServer) -> None:
    seed_aws_cluster(server.url)
    asked = {"Filters": {"clusterIds": ["cluster-zzzzzzzzzzz"]}}
    pages = ours(server).pages(operations.DESCRIBE_CLUSTERS, asked)
    with pytest.raises(AgentError) as caught:
        find_cluster(pages, "cluster-zzzzzzzzzzz", REGION)
    assert caught.value.code.name == "cluster-not-found"


def test_each_server_begins_empty() -> None:
    with aws_server() as one:
        seed_aws_cluster(one.url)
        user_with(one.url, policy("*"))
    with aws_server() as other:
        assert json.dumps(ours(other).call(operations.DESCRIBE_CLUSTERS, {})["Clusters"]) == "[]"
        assert client(other.url, "iam").list_users()["Users"] == []
