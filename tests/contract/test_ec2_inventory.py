"""An inventory of EC2 against moto: what is asked, what comes of it, and AWS's bad days in the middle of it."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

import pytest

from agent.aws.access import AwsAccess
from agent.config.desired import Desired
from agent.config.input_errors import InputErrors
from agent.core.errors import AgentError
from agent.fleet import inventory
from agent.fleet.ec2_source import Ec2Source
from agent.iam_policy import InventoryQuestions, PolicyRequest, policy_of
from tests.fakes.aws import KEYS, RealTime, says
from tests.fakes.aws_cluster import AwsCluster, seed_aws_cluster
from tests.fakes.moto_server import CLUSTER, REGION, aws_server, user_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.core.fleet_model import Target
    from tests.fakes.aws_server import AwsServer

pytest.importorskip("moto")
pytest.importorskip("flask")

THROTTLED = (
    "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error>"
    "</Errors><RequestID>1</RequestID></Response>"
)
NOT_ENABLED = THROTTLED.replace("RequestLimitExceeded", "AuthFailure").replace(
    "Request limit exceeded.", "AWS was not able to validate the provided access credentials"
)


class Patient(RealTime):
    """A machine whose waits take no time."""

    passed = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.passed += seconds


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[AwsServer, AwsCluster]]:
    with aws_server() as server:
        yield server, seed_aws_cluster(server.url)


def found(
    server: AwsServer, where: str, keys: Mapping[str, str] = KEYS, view: RealTime | None = None
) -> tuple[dict[str, Target], list[str], list[str]]:
    environ = {**keys, "AWS_ENDPOINT_URL": server.url}
    machine = view or Patient()
    source = Ec2Source(lambda region: AwsAccess(machine, environ, region or REGION), None)
    errors, remarks = InputErrors(), InputErrors()
    targets = inventory.read(b"", where, errors, remarks, source=source)
    return {each.name: each for each in targets}, errors.texts, remarks.texts


def words(server: AwsServer, where: str, keys: Mapping[str, str]) -> str:
    """Return what somebody with these keys is told: what ended the command, or the remarks."""
    with server.enforcing():
        try:
            return " ".join(found(server, where, keys)[2])
        except AgentError as error:
            return f"{error.code.name} {error.code.exit_status} {error.sentence}"


def tag(cluster: AwsCluster, instance: str, **tags: str) -> None:
    cluster.ec2.create_tags(
        Resources=[instance], Tags=[{"Key": key, "Value": value} for key, value in tags.items()]
    )


def test_instances_are_found_by_tags_groups_and_states(cluster: tuple[AwsServer, AwsCluster]) -> None:
    server, aws = cluster
    web, db, off, out = (
        aws.add_instance(f"10.77.20.{number}", name, attached=number != 24)
        for number, name in ((21, "web"), (22, "db"), (23, "off"), (24, "out"))
    )
    for each, role in ((web, "web"), (db, "d,b=1 x"), (off, "web"), (out, "web")):
        tag(aws, each.id, Role=role, Env="find")
    aws.ec2.stop_instances(InstanceIds=[off.id])

    targets, errors, remarks = found(server, "ec2:tag:Role=web,user=ops")
    assert (errors, sorted(targets)) == ([], sorted((web.id, out.id)))
    assert ["stopped" in each and off.id in each for each in remarks] == [True]
    assert targets[web.id].address == "10.77.20.21"
    assert targets[web.id].groups[0].startswith(REGION)

    targets, errors, _ = found(server, r"ec2:tag:Role=d\,b=1 x,tag:Env=find,user=ops,group=Role")
    assert (errors, list(targets)) == ([], [db.id])
    assert "d_b_1_x" in targets[db.id].groups

    server.calls.clear()
    targets, errors, _ = found(server, f"ec2:cluster={CLUSTER},tag:Env=find,user=ops")
    assert (errors, sorted(targets)) == ([], sorted((web.id, db.id)))
    assert server.permissions() == [
        "cloudhsm:DescribeClusters", "ec2:DescribeNetworkInterfaces", "ec2:DescribeInstances"
    ]  # fmt: skip

    targets, errors, _ = found(server, "ec2:tag:Role=weg,user=ops")
    assert (targets, len(errors)) == ({}, 1)
    assert "no instance matches" in errors[0]


def test_the_user_is_that_of_the_image(cluster: tuple[AwsServer, AwsCluster]) -> None:
    server, aws = cluster
    made = aws.add_instance("10.77.20.31", "user")
    tag(aws, made.id, Env="user")
    image = aws.set_image(made.id, "ubuntu/images/hvm-ssd/ubuntu-noble-24.04-amd64-server-1")
    targets, errors, remarks = found(server, "ec2:tag:Env=user")
    assert (errors, remarks, targets[made.id].user) == ([], [], "ubuntu")
    aws.ec2.deregister_image(ImageId=image)
    targets, errors, _ = found(server, "ec2:tag:Env=user")
    assert (errors, targets[made.id].user) == ([], None)


def test_a_cluster_that_is_not_there_is_no_empty_fleet(cluster: tuple[AwsServer, AwsCluster]) -> None:
    server, _ = cluster
    with pytest.raises(AgentError) as caught:
        found(server, "ec2:cluster=cluster-777777777777")
    assert caught.value.code.name == "cluster-not-found"


def test_throttling_in_the_middle_is_waited_for(cluster: tuple[AwsServer, AwsCluster]) -> None:
    server, aws = cluster
    made = aws.add_instance("10.77.20.41", "throttled")
    tag(aws, made.id, Env="throttled")
    limit = says(THROTTLED, 503)
    view = Patient()
    server.misbehave(None, limit, limit, limit, None)
    try:
        targets, errors, _ = found(server, f"ec2:cluster={CLUSTER},tag:Env=throttled,user=ops", view=view)
        assert (errors, list(targets), len([each for each in view.waits if each])) == ([], [made.id], 3)
        server.misbehave(None, limit)
        with pytest.raises(AgentError) as caught:
            found(server, f"ec2:cluster={CLUSTER},tag:Env=throttled")
    finally:
        server.misbehave()
    assert (caught.value.code.name, "8 tries" in str(caught.value.saw)) == ("aws-throttled", True)


def test_a_region_that_is_not_enabled_is_asked_about(cluster: tuple[AwsServer, AwsCluster]) -> None:
    server, _ = cluster
    server.misbehave(says(NOT_ENABLED, 401))
    try:
        with pytest.raises(AgentError) as caught:
            found(server, "ec2:tag:Role=web,region=ap-southeast-3")
    finally:
        server.misbehave()
    assert caught.value.code.name == "aws-no-credentials"
    assert "is ap-southeast-3 enabled in this account" in str(caught.value.hint)


def test_the_printed_policy_is_enough_and_no_action_is_spare(cluster: tuple[AwsServer, AwsCluster]) -> None:
    server, aws = cluster
    made = aws.add_instance("10.77.20.51", "policy")
    tag(aws, made.id, Env="policy")
    asked = InventoryQuestions((REGION,), clusters=True, images=True)
    policy = policy_of(PolicyRequest(Desired(), "operator", REGION, inventory=asked))
    # the rest is for hosts that are not reached, see test_unreached_instances.py
    actions = next(each["Action"] for each in policy["Statement"] if each["Sid"] == "FindHosts")
    where = f"ec2:cluster={CLUSTER},tag:Env=policy,region={REGION}"
    keys = user_with(server.url, policy)
    with server.enforcing():
        targets, errors, remarks = found(server, where, keys)
    assert (errors, list(targets)) == ([], [made.id])
    assert not [each for each in remarks if "denied" in each]
    for lacking in actions:
        kept = [each for each in actions if each != lacking]
        less = {**policy, "Statement": [{**policy["Statement"][0], "Action": kept}]}
        keys = user_with(server.url, less)
        assert f"denies {lacking}" in words(server, where, keys)


def page(first: int, count: int, token: str) -> str:
    """Return a page as EC2 has it, with as much of each instance as it really describes (6 kB)."""
    rest = "".join(f"<member{number}>{'x' * 90}</member{number}>" for number in range(45))
    items = "".join(
        f"<item><instancesSet><item><instanceId>i-{number:017x}</instanceId><imageId>ami-1</imageId><instanceState>"
        f"<code>16</code><name>running</name></instanceState><privateIpAddress>10.{number >> 16}.{number >> 8 & 255}."
        f"{number & 255}</privateIpAddress><placement><availabilityZone>{REGION}a</availabilityZone></placement><tagSet>"
        f"<item><key>Name</key><value>web-{number}</value></item></tagSet>{rest}</item></instancesSet></item>"
        for number in range(first, first + count)
    )
    more = f"<nextToken>{token}</nextToken>" if token else ""
    return f"<DescribeInstancesResponse><reservationSet>{items}</reservationSet>{more}</DescribeInstancesResponse>"


def test_five_thousand_instances_take_seventeen_pages_and_bounded_memory(
    cluster: tuple[AwsServer, AwsCluster],
) -> None:
    server, _ = cluster
    pages = [
        page(first, min(300, 5000 - first), "t" if first + 300 < 5000 else "")
        for first in range(0, 5000, 300)
    ]
    server.misbehave(*(says(each, Content_Type="text/xml") for each in pages))
    server.calls.clear()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.thread_time()
    try:
        targets, errors, _ = found(server, "ec2:asg=a,user=ops,group=Name")
    finally:
        server.misbehave()
    seconds = time.thread_time() - began
    assert (errors, len(targets), len(server.calls)) == ([], 5000, 17)
    assert seconds < 10, seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
