"""The AWS of `hsm-agent demo --aws`, with botocore's models as judges and its clients as second readers."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import botocore.session
import pytest
from botocore.stub import Stubber
from botocore.utils import InstanceMetadataFetcher

from agent.aws import network, operations
from agent.aws.client import AwsClient
from agent.aws.path import PathEnd, find_obstacle
from agent.aws.session import open_session
from agent.cloudhsm.cluster import CLUSTER_ID, read_cluster
from agent.demo import aws, aws_acts
from tests.fakes.aws import RealTime

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DESCRIBING = (
    "describe_network_interfaces",
    "describe_security_groups",
    "describe_subnets",
    "describe_route_tables",
    "describe_network_acls",
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "aws.json"
    aws.DemoCloud(aws_acts.BEFORE, "-----BEGIN CERTIFICATE-----").save(path)
    return path


@pytest.fixture
def url(state: Path) -> Iterator[str]:
    with aws.running(state) as place:
        yield place


def theirs(url: str, service: str) -> Any:
    return botocore.session.Session().create_client(
        service, aws.REGION, endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x"
    )


def ours(url: str) -> AwsClient:
    environ = {"AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_SERVICE_ENDPOINT": url}
    return AwsClient(open_session(RealTime(), environ))


def test_its_cluster_is_one_of_botocore_s_model(url: str) -> None:
    client = theirs(url, "cloudhsmv2")
    answer = client.describe_clusters()
    del answer["ResponseMetadata"]
    with Stubber(client) as stub:
        stub.add_response("describe_clusters", answer)
        client.describe_clusters()
    (tree,) = ours(url).call(operations.DESCRIBE_CLUSTERS, {})["Clusters"]
    cluster = read_cluster(tree, aws.REGION)
    assert CLUSTER_ID.fullmatch(cluster.id)
    assert cluster.addresses() == ("10.0.1.6", "10.0.2.9")
    assert [each["HsmId"] for each in answer["Clusters"][0]["Hsms"]] == [each.id for each in cluster.hsms]


@pytest.mark.parametrize("method", DESCRIBING)
def test_what_ec2_describes_is_of_botocore_s_model(url: str, method: str) -> None:
    """botocore leaves out what its model does not have: so all that was written must come back, under its names."""
    client = theirs(url, "ec2")
    answer = getattr(client, method)()
    del answer["ResponseMetadata"]
    with Stubber(client) as stub:
        stub.add_response(method, answer)
        getattr(client, method)()
    action = "".join(word.title() for word in method.split("_"))
    written = aws.described(aws.DemoCloud(aws_acts.BEFORE, ""), action)
    assert written is not None
    assert leaves(answer) == leaves(written)


def leaves(tree: Any) -> list[str]:
    """Return every value in a tree, as EC2 writes it."""
    if isinstance(tree, dict):
        return sorted(each for value in tree.values() for each in leaves(value))
    if isinstance(tree, list):
        return sorted(each for value in tree for each in leaves(value))
    return [str(tree).lower() if isinstance(tree, bool) else str(tree)]


def test_an_action_that_it_does_not_have_is_refused(url: str) -> None:
    client = theirs(url, "ec2")
    with pytest.raises(client.exceptions.ClientError, match="InvalidAction"):
        client.describe_vpcs()


def test_the_group_is_what_is_missing_until_it_is_attached(url: str) -> None:
    asked = ours(url)

    def obstacle() -> Any:
        interfaces = network.read_interfaces(asked.pages(operations.DESCRIBE_NETWORK_INTERFACES, {}))
        mine, hsm = (
            next(each for each in interfaces if address in each.addresses)
            for address in (aws.ADDRESS, aws_acts.BEFORE[0].address)
        )
        described = network.Network(
            groups=network.read_groups(asked.pages(operations.DESCRIBE_SECURITY_GROUPS, {})),
            tables=network.read_tables(asked.pages(operations.DESCRIBE_ROUTE_TABLES, {})),
            subnets=network.read_subnets(asked.pages(operations.DESCRIBE_SUBNETS, {})),
            acls=network.read_acls(asked.pages(operations.DESCRIBE_NETWORK_ACLS, {})),
        )
        ends = PathEnd(mine, aws.ADDRESS), PathEnd(hsm, aws_acts.BEFORE[0].address)
        return find_obstacle(described, *ends, region=aws.REGION)

    assert (obstacle().code, obstacle().id) == ("group-not-attached", aws.GROUP)
    theirs(url, "ec2").modify_network_interface_attribute(
        NetworkInterfaceId=aws.INTERFACE, Groups=[aws.WEB, aws.GROUP]
    )
    assert obstacle() is None


def test_its_metadata_is_taken_for_ec2_s_and_follows_the_groups(url: str, state: Path) -> None:
    there: dict[str, Any] = {"base_url": url, "timeout": 5, "num_attempts": 1, "env": {}}
    assert InstanceMetadataFetcher(**there).retrieve_iam_role_credentials()["role_name"] == aws.ROLE
    assert ours(url).session.region == aws.REGION
    both = aws.DemoCloud(aws_acts.BEFORE, "", (aws.WEB, aws.GROUP))
    both.save(state)
    assert aws.load(state) == both
    assert aws.metadata(both)["security-groups"].split("\n") == ["web", aws.GROUP_NAME]


def test_a_closed_path_does_not_answer_until_it_is_opened() -> None:
    closed = aws_acts.ClosedPath("127.0.0.77")
    with pytest.raises(socket.timeout):
        socket.create_connection(("127.0.0.77", 2223), timeout=0.5)
    closed.open()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.77", 2223), timeout=5)
