"""Why an HSM is not reached: a metadata service and moto's EC2 on the loopback, each cause made there, and each denial."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from agent import commands
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.core.model import StepOutcome, StepResult
from agent.diagnosis import LIMIT
from agent.http.imds import ENDPOINT
from agent.render.json_report import to_document
from agent.render.progress import NullProgress
from agent.report import new_run
from tests.fakes.aws import KEYS, RealTime, half, refuses, says
from tests.fakes.vendor import MIRROR, Vendor
from tests.golden.runs import NOW

pytest.importorskip("moto")
pytest.importorskip("flask")

from tests.fakes.aws_cluster import PORTS
from tests.fakes.moto_server import CLUSTER, REGION, policy, user_with
from tests.fakes.unreached import Scene, detach
from tests.fakes.unreached import scene as scene  # noqa: PLC0414 -- pytest takes it from here
from tests.fakes.unreached import server as server  # noqa: PLC0414 -- as above

if TYPE_CHECKING:
    from agent.engine import EngineResult

GROUP_NAME = f"cloudhsm-{CLUSTER}-sg"


def line(result: EngineResult, start: str) -> StepResult | None:
    return next((each for each in result.steps if each.id.startswith(start)), None)


def reach(result: EngineResult) -> StepResult:
    found = line(result, "reach:")
    assert found is not None
    return found


def notices(result: EngineResult) -> dict[str, str]:
    return {each.code: each.text for each in result.notices}


def command(hint: str | None) -> dict[str, list[str]]:
    """Return verb and options of the command in a hint."""
    assert hint is not None
    assert hint.startswith("`aws ec2 ")
    words = shlex.split(hint.split("`")[1])
    options: dict[str, list[str]] = {"verb": [words[2]]}
    for word in words[3:]:
        if word.startswith("--"):
            options[word] = []
        else:
            list(options.values())[-1].append(word)
    assert options.pop("--region") == [REGION]
    return options


# --- the three levels


def test_a_group_that_is_not_attached_is_known_from_metadata_alone(scene: Scene) -> None:
    detach(scene)
    (own,) = scene.cluster.groups_of(scene.instance.interface)
    environ = {name: value for name, value in scene.environ.items() if name not in KEYS}
    scene.is_described = False
    result = scene.explained({"hsm0": "hsm-timed-out"}, environ)
    found = reach(result)
    assert found.code == "group-not-attached"
    assert found.saw == f"timed out after 5 s; {scene.instance.interface} has web, ({own})"
    assert f"--groups {own} $(aws ec2 describe-security-groups" in str(found.hint)
    assert f"Values={GROUP_NAME} " in str(found.hint)
    group = line(result, "cluster:group")
    assert group is not None
    assert (group.outcome, group.code) == (StepOutcome.FAILED, "group-not-attached")
    assert notices(result)["path-checked"].endswith("was looked for in instance metadata")
    assert "aws-no-credentials" in notices(result)["path-not-checked"]


def test_with_the_description_the_command_has_the_id(scene: Scene) -> None:
    detach(scene)
    (own,) = scene.cluster.groups_of(scene.instance.interface)
    scene.server.misbehave(refuses("UnauthorizedOperation", "no", 403))
    result = scene.explain()
    assert command(reach(result).hint) == {
        "verb": ["modify-network-interface-attribute"],
        "--network-interface-id": [scene.instance.interface],
        "--groups": [own, scene.cluster.group],
    }
    assert "cloudhsm:DescribeClusters" in notices(result)["path-checked"]
    denied = notices(result)["path-not-checked"]
    for name in ("NetworkInterfaces", "SecurityGroups"):
        assert f"ec2:Describe{name} is denied" in denied


def test_nothing_more_is_asked_than_it_takes(scene: Scene) -> None:
    detach(scene)
    result = scene.explain(hsm0="hsm-timed-out", hsm1="hsm-no-route")
    assert [each.code for each in result.steps if each.kind == "reach"] == ["group-not-attached"] * 2
    assert scene.server.permissions() == ["ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups"]


def test_membership_is_a_line_and_nothing_found_is_said(scene: Scene) -> None:
    result = scene.explain()
    group = line(result, "cluster:group")
    assert group is not None
    assert (group.outcome, group.saw) == (
        StepOutcome.MET, f"{scene.instance.interface} is in {scene.cluster.group}",
    )  # fmt: skip
    assert [each.id for each in result.steps][:2] == ["package:cli", "cluster:group"]
    assert (reach(result).code, reach(result).hint) == ("hsm-timed-out", "?")
    clear = notices(result)["path-clear"]
    assert scene.cluster.addresses[0] in clear
    for name in ("NetworkInterfaces", "SecurityGroups", "RouteTables", "Subnets", "NetworkAcls"):
        assert f"ec2:Describe{name}" in clear
    assert set(notices(result)) == {"path-clear"}


def test_nothing_is_asked_where_every_hsm_is_reached_or_answers(scene: Scene) -> None:
    reached: list[dict[str, str | None]] = [
        {"hsm0": None, "hsm1": None}, {"hsm0": "hsm-refused"}, {"hsm0": "hsm-no-tls"}, {"hsm0": "hsm-firewalled"},
    ]  # fmt: skip
    for causes in reached:
        scene.explained(causes, scene.environ)
    assert (scene.metadata.requests, scene.server.calls) == ([], [])


# --- the causes


def block_ingress(scene: Scene) -> str:
    own = [{**PORTS, "UserIdGroupPairs": [{"GroupId": scene.cluster.group}]}]
    scene.cluster.ec2.revoke_security_group_ingress(GroupId=scene.cluster.group, IpPermissions=own)
    return scene.cluster.group


def block_acl(scene: Scene) -> str:
    wanted = [{"Name": "association.subnet-id", "Values": [scene.instance.subnet]}]
    (acl,) = scene.cluster.ec2.describe_network_acls(Filters=wanted)["NetworkAcls"]
    scene.cluster.ec2.create_network_acl_entry(
        NetworkAclId=acl["NetworkAclId"], RuleNumber=90, Protocol="6", RuleAction="deny", Egress=True,
        CidrBlock="10.77.10.0/24", PortRange={"From": 2223, "To": 2225},
    )  # fmt: skip
    return str(acl["NetworkAclId"])


def block_route(scene: Scene) -> str:
    vpc = scene.cluster.add_vpc("10.78.0.0/18")
    peering = scene.cluster.ec2.create_vpc_peering_connection(VpcId=scene.cluster.vpc, PeerVpcId=vpc)
    name = peering["VpcPeeringConnection"]["VpcPeeringConnectionId"]
    scene.cluster.ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=name)
    move(scene, vpc)
    let_in(scene)
    wanted = [{"Name": "vpc-id", "Values": [vpc]}]
    (table,) = scene.cluster.ec2.describe_route_tables(Filters=wanted)["RouteTables"]
    return str(table["RouteTableId"])


def leave_vpc(scene: Scene) -> str:
    move(scene, scene.cluster.add_vpc("10.78.0.0/18"))
    let_in(scene)
    return scene.cluster.vpc


def move(scene: Scene, vpc: str) -> None:
    scene.source = "10.78.20.5"
    scene.instance = scene.cluster.add_instance(scene.source, "web-2", attached=False, vpc=vpc)
    scene.tell_metadata(scene.instance.interface)


def let_in(scene: Scene) -> None:
    rule = [{**PORTS, "IpRanges": [{"CidrIp": "10.78.0.0/18"}]}]
    scene.cluster.ec2.authorize_security_group_ingress(GroupId=scene.cluster.group, IpPermissions=rule)


@pytest.mark.parametrize(
    ("block", "code", "verb"),
    [
        (block_ingress, "group-rule-missing", "authorize-security-group-ingress"),
        (block_acl, "network-acl-blocks", "create-network-acl-entry"),
        (block_route, "route-missing", "create-route"),
        (leave_vpc, "vpc-not-connected", "create-vpc-peering-connection"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_cause_is_named_with_its_id_and_its_cure(scene: Scene, block: Any, code: str, verb: str) -> None:
    name = block(scene)
    result = scene.explain()
    found = reach(result)
    assert found.code == code
    assert str(found.saw).startswith("timed out after 5 s; ")
    assert name in str(found.saw)
    assert command(found.hint)["verb"] == [verb]
    assert found.want == "connected"
    assert "path-clear" not in notices(result)


def test_of_an_acl_the_number_is_named_and_a_free_one_before_it(scene: Scene) -> None:
    block_acl(scene)
    found = reach(scene.explain())
    assert "rule 90 of acl-" in str(found.saw)
    assert command(found.hint)["--rule-number"] == ["10"]


def test_in_another_vpc_the_group_is_not_blamed_and_what_connects_them_is(scene: Scene) -> None:
    move(scene, scene.cluster.add_vpc("10.78.0.0/18"))
    (own,) = scene.cluster.groups_of(scene.instance.interface)
    found = reach(scene.explain())
    assert found.code == "group-rule-missing"
    assert command(found.hint)["--ip-permissions"] == [
        "IpProtocol=tcp,FromPort=2223,ToPort=2225,IpRanges=[{CidrIp=10.78.20.5/32}]"
    ]
    # with the description alone, nobody knows what connects the two
    scene.server.misbehave(refuses("UnauthorizedOperation", "no", 403))
    unknown = scene.explain()
    assert reach(unknown).code == "hsm-timed-out"
    assert line(unknown, "cluster:group") is None
    assert scene.instance.vpc in notices(unknown)["path-not-checked"]
    assert own not in str(unknown)


def test_a_full_interface_is_let_in_by_a_rule(scene: Scene) -> None:
    groups = [scene.cluster.group_of(scene.cluster.vpc, f"full-{number}") for number in range(5)]
    scene.cluster.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=scene.instance.interface, Groups=groups
    )
    scene.tell_metadata(scene.instance.interface)
    found = reach(scene.explain())
    assert found.code == "group-rule-missing"
    assert command(found.hint)["verb"] == ["authorize-security-group-ingress"]
    assert "has 5 groups, and AWS allows 5 unless the quota was raised" in str(found.hint)


def test_of_two_interfaces_the_one_that_routes_counts(scene: Scene) -> None:
    other = scene.cluster.add_instance("10.77.21.5", "second", attached=False)
    scene.tell_metadata(other.interface, scene.instance.interface)
    met = line(scene.explain(), "cluster:group")
    assert met is not None
    assert met.outcome is StepOutcome.MET
    scene.source = other.address
    assert reach(scene.explain()).code == "group-not-attached"
    scene.source = "172.17.0.2"
    behind_nat = scene.explain()
    assert (reach(behind_nat).code, line(behind_nat, "cluster:group")) == ("hsm-timed-out", None)
    assert notices(behind_nat)["path-not-checked"] == (
        "none of the 2 interfaces of this instance has the address 172.17.0.2"
    )


def test_what_ec2_says_now_counts_more_than_late_metadata(scene: Scene) -> None:
    groups = [
        each for each in scene.cluster.groups_of(scene.instance.interface) if each != scene.cluster.group
    ]
    scene.cluster.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=scene.instance.interface, Groups=groups
    )
    result = scene.explain()
    group = line(result, "cluster:group")
    assert reach(result).code == "group-not-attached"
    assert group is not None
    assert group.outcome is StepOutcome.FAILED


def test_nothing_is_said_of_a_path_that_was_not_judged(scene: Scene) -> None:
    scene.cluster_id, scene.is_described = None, False
    scene.server.misbehave(refuses("UnauthorizedOperation", "no", 403))
    assert notices(scene.explain()) == {"path-not-checked": "ec2:DescribeNetworkInterfaces is denied"}


def test_a_member_that_is_not_needed_is_no_failure(scene: Scene) -> None:
    """One HSM is reached without the group: so the other one's cause may be the group, and the line is left out."""
    detach(scene)
    result = scene.explain(hsm0="hsm-timed-out", hsm1=None)
    assert reach(result).code == "group-not-attached"
    assert line(result, "cluster:group") is None


def test_a_group_that_nobody_described_is_not_the_cause_where_another_hsm_is_reached(scene: Scene) -> None:
    """All HSMs have one group, and the other one lets this instance in: by a rule of its own, say."""
    detach(scene)
    scene.server.misbehave(refuses("UnauthorizedOperation", "no", 403))
    described = scene.explain(hsm0="hsm-timed-out", hsm1=None)
    scene.is_described = False
    by_name = scene.explain(hsm0="hsm-timed-out", hsm1=None)
    for result in (described, by_name):
        assert reach(result).code == "hsm-timed-out"
        assert line(result, "cluster:group") is None
        assert "ec2:DescribeNetworkInterfaces is denied" in notices(result)["path-not-checked"]
    assert reach(scene.explain()).code == "group-not-attached"


def test_a_rule_for_the_port_that_was_tried_is_enough(scene: Scene) -> None:
    block_ingress(scene)
    own = [{**PORTS, "ToPort": 2223, "UserIdGroupPairs": [{"GroupId": scene.cluster.group}]}]
    scene.cluster.ec2.authorize_security_group_ingress(GroupId=scene.cluster.group, IpPermissions=own)
    result = scene.explain()
    assert reach(result).code == "hsm-timed-out"
    assert notices(result)["path-clear"].startswith("nothing stops TCP 2223 to ")


def test_answers_come_to_the_ports_that_this_kernel_connects_from(scene: Scene) -> None:
    wanted = [{"Name": "association.subnet-id", "Values": [scene.instance.subnet]}]
    (acl,) = scene.cluster.ec2.describe_network_acls(Filters=wanted)["NetworkAcls"]
    scene.cluster.ec2.create_network_acl_entry(
        NetworkAclId=acl["NetworkAclId"], RuleNumber=90, Protocol="6", RuleAction="deny", Egress=False,
        CidrBlock="10.77.10.0/24", PortRange={"From": 32768, "To": 49151},
    )  # fmt: skip
    assert reach(scene.explain()).code == "network-acl-blocks"
    scene.view.place("/proc/sys/net/ipv4/ip_local_port_range", b"49152\t65535\n")
    assert reach(scene.explain()).code == "hsm-timed-out"


# --- addresses alone


def test_an_address_is_enough_where_ec2_may_be_asked(scene: Scene) -> None:
    detach(scene)
    scene.cluster_id, scene.is_described = None, False
    result = scene.explain()
    assert reach(result).code == "group-not-attached"
    assert command(reach(result).hint)["--groups"][-1] == scene.cluster.group
    assert line(result, "cluster:group") is None


def test_an_address_of_nobody_and_of_something_else_is_said(scene: Scene) -> None:
    scene.cluster_id, scene.is_described = None, False
    address = scene.cluster.addresses[0]
    scene.cluster.ec2.delete_network_interface(
        NetworkInterfaceId=scene.cluster.cluster.description["Hsms"][0]["EniId"]
    )
    result = scene.explain()
    assert (
        notices(result)["path-not-checked"]
        == f"EC2 shows this account no interface with the address {address}"
    )
    subnet = scene.cluster.cluster.description["Hsms"][0]["SubnetId"]
    scene.cluster.ec2.create_network_interface(
        SubnetId=subnet, PrivateIpAddress=address, Description="a load balancer"
    )
    result = scene.explain()
    assert reach(result).code == "hsm-timed-out"
    assert "(a load balancer)" in notices(result)["path-not-checked"]


# --- in a whole run


def test_a_configure_that_reaches_no_hsm_reports_the_cause_and_its_cure(scene: Scene, ca_pem: bytes) -> None:
    detach(scene)
    vendor = Vendor(addresses=scene.cluster.addresses)
    host = vendor.machine(NOW)
    host.ports.update({(address, 2223): "hsm-timed-out" for address in vendor.addresses})
    desired = Desired(
        hsm_ip=vendor.addresses, region=REGION, ca_cert=CaSource("inline", ca_pem.decode()),
        package_source=MIRROR, sha256=vendor.checksums(),
    )  # fmt: skip
    report = commands.configure(host, desired, new_run(host, "configure", scene.environ), NullProgress())
    assert (report.outcome.value, report.code, report.exit_status) == ("failed", "group-not-attached", 40)
    assert [each.cause for each in report.hsms] == ["group-not-attached"] * 2
    assert report.failure is not None
    assert command(report.failure.hint)["--groups"][-1] == scene.cluster.group
    document = to_document(report)
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in document
    verified = commands.verify(host, Desired(), new_run(host, "verify", scene.environ), NullProgress())
    assert (verified.code, verified.exit_status) == ("group-not-attached", 40)


# --- what cannot be asked


@pytest.mark.parametrize(
    "action",
    ["NetworkInterfaces", "SecurityGroups", "RouteTables", "Subnets", "NetworkAcls"],
)
def test_an_action_that_is_denied_is_named_and_the_rest_is_asked(scene: Scene, action: str) -> None:
    names = ["NetworkInterfaces", "SecurityGroups", "RouteTables", "Subnets", "NetworkAcls"]
    allowed = [f"ec2:Describe{name}" for name in names if name != action]
    keys = user_with(scene.server.url, policy(*allowed))
    with scene.server.enforcing():
        result = scene.explained({"hsm0": "hsm-timed-out"}, {**scene.environ, **keys})
    assert notices(result)["path-not-checked"] == f"ec2:Describe{action} is denied"
    assert all(name in notices(result)["path-clear"] for name in allowed)
    assert [each for each in scene.server.permissions() if each.startswith("ec2:")] == [
        "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups", "ec2:DescribeRouteTables",
        "ec2:DescribeSubnets", "ec2:DescribeNetworkAcls",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["v1-only", "disabled"])
def test_a_metadata_service_that_gives_nothing_leaves_the_result_as_it_is(scene: Scene, mode: str) -> None:
    scene.metadata.mode = mode
    result = scene.explain()
    assert (reach(result).code, line(result, "cluster:group")) == ("hsm-timed-out", None)
    assert "metadata service" in notices(result)["path-not-checked"]
    assert scene.server.calls == []


def test_metadata_that_breaks_off_is_said(scene: Scene) -> None:
    del scene.metadata.texts["network/interfaces/macs/02:00:00:00:00:00/security-group-ids"]
    result = scene.explain()
    assert notices(result) == {
        "path-not-checked": "the metadata service has no security-group-ids of 02:00:00:00:00:00"
    }


def test_outside_ec2_nothing_is_asked_and_only_who_named_a_cluster_hears_of_it(scene: Scene) -> None:
    environ = {name: value for name, value in scene.environ.items() if name != ENDPOINT}
    named = scene.explained({"hsm0": "hsm-timed-out"}, environ)
    assert "no EC2 instance" in notices(named)["path-not-checked"]
    scene.cluster_id, scene.is_described = None, False
    assert scene.explained({"hsm0": "hsm-timed-out"}, environ).notices == ()
    assert scene.server.calls == []


@pytest.mark.parametrize("kind", ["length", "chunks", "headers", "json"])
def test_half_an_answer_is_no_answer(scene: Scene, kind: str) -> None:
    detach(scene)
    scene.server.misbehave(half("<DescribeNetworkInterfacesResponse><networkInterfaceSet>", kind))
    result = scene.explain()
    assert reach(result).code == "group-not-attached"  # by the description
    assert "aws-unreachable" in notices(result)["path-not-checked"]


def test_an_answer_that_lacks_what_it_must_have_is_no_answer(scene: Scene) -> None:
    body = "<DescribeNetworkInterfacesResponse><networkInterfaceSet><item><vpcId>vpc-1</vpcId></item></networkInterfaceSet></DescribeNetworkInterfacesResponse>"
    scene.server.misbehave(says(body))
    assert "networkInterfaceId" in notices(scene.explain())["path-not-checked"]


@pytest.mark.parametrize("code", ["timed-out", "interrupted"])
def test_the_end_of_the_run_ends_the_search_and_changes_nothing_else(scene: Scene, code: Any) -> None:
    class Ending(RealTime):
        def sleep(self, seconds: float) -> None:
            raise AgentError(code, "the run ends", saw="now")

    scene.view = Ending()
    result = scene.explain()
    assert reach(result).code == "hsm-timed-out"
    assert code in notices(result)["path-not-checked"]


def test_a_silent_aws_is_left_within_the_limit(scene: Scene) -> None:
    began = scene.view.monotonic()
    scene.server.misbehave(lambda exchange: exchange.server.over.wait(30))
    result = scene.explain()
    assert scene.view.monotonic() - began < LIMIT
    assert "aws-unreachable" in notices(result)["path-not-checked"]
