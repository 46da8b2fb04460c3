"""Instances that are not reached over SSH: the cause in the network that moto describes, and its cure, followed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from agent.aws.access import AwsAccess
from agent.config.desired import Desired
from agent.core.fleet_model import HostResult, HostState, Target
from agent.fleet.ec2_diagnosis import UnreachedInstances
from agent.iam_policy import InventoryQuestions, PolicyRequest, policy_of
from tests.fakes.aws import KEYS, RealTime
from tests.fakes.aws_cluster import seed_aws_cluster
from tests.fakes.moto_server import REGION, aws_server, policy, user_with

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.fakes.aws_cluster import AwsCluster, Instance
    from tests.fakes.aws_server import AwsServer

pytest.importorskip("moto")
pytest.importorskip("flask")

OPERATOR = "192.168.7.9"
ADDRESSES = iter(range(100, 250))


@pytest.fixture(scope="module")
def aws() -> Iterator[tuple[AwsServer, AwsCluster]]:
    with aws_server() as server:
        yield server, seed_aws_cluster(server.url)


@pytest.fixture
def made(aws: tuple[AwsServer, AwsCluster]) -> Instance:
    """An instance with a group of its own, which lets nothing in."""
    found = aws[1].add_instance(f"10.77.20.{next(ADDRESSES)}", f"unreached-{next(ADDRESSES)}", attached=False)
    aws[1].set_image(found.id, f"al2023-ami-{found.id}")
    group = aws[1].group_of(found.vpc, found.id)
    aws[1].ec2.modify_network_interface_attribute(NetworkInterfaceId=found.interface, Groups=[group])
    return found


def explained(
    aws: tuple[AwsServer, AwsCluster],
    made: Instance,
    source: str | None = OPERATOR,
    keys: Mapping[str, str] = KEYS,
    **more: Any,
) -> HostResult:
    environ = {**keys, "AWS_ENDPOINT_URL": aws[0].url}
    asked = UnreachedInstances(
        RealTime(), lambda region: AwsAccess(RealTime(), environ, region), lambda *_: source
    )
    end = HostResult(
        made.id, more.pop("address", made.address), 22, 1, HostState.UNREACHABLE,
        **{"code": "ssh-timed-out", "saw": "no answer in 10 s", "hint": "as usual", **more},
    )  # fmt: skip
    target = Target(made.id, made.address, instance_id=made.id, region=REGION)
    return next(iter(asked.explain(None, [(target, end)])), end)


def permit(aws: tuple[AwsServer, AwsCluster], made: Instance, port: int, block: str) -> None:
    group = aws[1].groups_of(made.interface)[0]
    pair = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": block}]}
    aws[1].ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[pair])


def test_a_rule_that_is_missing_is_named_and_its_command_cures_it(
    aws: tuple[AwsServer, AwsCluster], made: Instance
) -> None:
    end = explained(aws, made)
    group = aws[1].groups_of(made.interface)[0]
    assert (end.code, end.state) == ("ssh-timed-out", HostState.UNREACHABLE)
    assert end.saw == f"no answer in 10 s; {group} has no ingress rule for TCP 22 from {OPERATOR}"
    command = re.fullmatch(
        rf"`aws ec2 authorize-security-group-ingress --region {REGION} --group-id (\S+) --ip-permissions "
        r"'IpProtocol=tcp,FromPort=22,ToPort=22,IpRanges=\[\{CidrIp=(\S+)\}\]'`",
        str(end.hint),
    )
    assert command
    assert command.groups() == (group, f"{OPERATOR}/32")
    permit(aws, made, 22, command[2])
    end = explained(aws, made)
    assert end.saw == f"no answer in 10 s; nothing in AWS stops TCP 22 from {OPERATOR}"
    assert end.hint == "look at sshd and the host's own firewall"


def test_on_windows_22_and_3389_are_told_apart(aws: tuple[AwsServer, AwsCluster], made: Instance) -> None:
    aws[1].set_platform(made.id, "windows")
    permit(aws, made, 3389, "0.0.0.0/0")
    assert str(explained(aws, made).saw).endswith(f"TCP 22 from {OPERATOR}; TCP 3389 (RDP) is let in")
    permit(aws, made, 22, "192.168.0.0/16")
    assert explained(aws, made).hint == "look at its OpenSSH server and Windows' firewall"


def test_an_acl_that_denies_is_named(aws: tuple[AwsServer, AwsCluster], made: Instance) -> None:
    permit(aws, made, 22, "0.0.0.0/0")
    wanted = [{"Name": "association.subnet-id", "Values": [made.subnet]}]
    acl = aws[1].ec2.describe_network_acls(Filters=wanted)["NetworkAcls"][0]["NetworkAclId"]
    rule = {"NetworkAclId": acl, "RuleNumber": 50, "Egress": False}
    aws[1].ec2.create_network_acl_entry(
        **rule, Protocol="6", RuleAction="deny", CidrBlock="192.168.0.0/16", PortRange={"From": 22, "To": 22}
    )
    try:
        end = explained(aws, made)
    finally:
        aws[1].ec2.delete_network_acl_entry(**rule)
    assert f"rule 50 of {acl}" in str(end.saw)
    assert "create-network-acl-entry" in str(end.hint)


def test_from_behind_nat_only_what_is_sure_is_said(aws: tuple[AwsServer, AwsCluster], made: Instance) -> None:
    place = aws[1].set_public(made.id, "3.3.3.3")
    end = explained(aws, made, address=place)
    assert "lets no public address in to TCP 22" in str(end.saw)
    assert "CidrIp=$(curl -s https://checkip.amazonaws.com)/32" in str(end.hint)
    permit(aws, made, 22, "198.18.0.0/15")
    assert "lets no public address in" in str(explained(aws, made, address=place).saw)
    permit(aws, made, 22, "52.0.0.0/8")
    assert "is this machine's one of them?" in str(explained(aws, made, address=place).saw)
    # one that is seen as it is
    assert "from 54.1.2.3" in str(explained(aws, made, "54.1.2.3", address=place).saw)


def test_an_instance_that_stopped_meanwhile_is_started(
    aws: tuple[AwsServer, AwsCluster], made: Instance
) -> None:
    aws[1].ec2.stop_instances(InstanceIds=[made.id])
    end = explained(aws, made)
    assert str(end.saw).endswith(f"{made.id} is stopped")
    assert end.hint == f"`aws ec2 start-instances --region {REGION} --instance-ids {made.id}`"


def test_what_aws_does_not_say_leaves_the_result(aws: tuple[AwsServer, AwsCluster], made: Instance) -> None:
    nobody = user_with(aws[0].url, policy("s3:GetObject"))
    some = user_with(aws[0].url, policy("ec2:DescribeInstances"))
    asked = InventoryQuestions((REGION,), images=False)
    enough = user_with(aws[0].url, policy_of(PolicyRequest(Desired(), "operator", REGION, inventory=asked)))
    with aws[0].enforcing():
        end = explained(aws, made, keys=nobody)
        assert (end.hint, "AWS denies ec2:DescribeInstances" in str(end.saw)) == ("as usual", True)
        end = explained(aws, made, keys=some)
        assert (end.hint, "ec2:DescribeSecurityGroups is denied" in str(end.saw)) == ("as usual", True)
        assert "has no ingress rule for TCP 22" in str(explained(aws, made, keys=enough).saw)


@pytest.mark.parametrize("code", ["ssh-refused", "login-refused", "host-key-unknown"])
def test_who_was_reached_is_not_asked_about(
    aws: tuple[AwsServer, AwsCluster], made: Instance, code: str
) -> None:
    aws[0].calls.clear()
    assert explained(aws, made, code=code).saw == "no answer in 10 s"
    assert aws[0].calls == []


def test_behind_a_jump_host_nothing_is_blamed(aws: tuple[AwsServer, AwsCluster], made: Instance) -> None:
    assert explained(aws, made, None).saw == "no answer in 10 s"
