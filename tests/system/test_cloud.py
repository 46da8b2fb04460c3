"""Lab hosts as instances in a cloud: five causes stop real packets and are described, and their cures let them pass."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any, Callable

import pytest

from tests.fakes.aws_cluster import PORTS
from tests.fakes.moto_server import policy, role_with

from .cloud import OTHER_BLOCK, Cloud, CloudHost, cloud
from .scene import agent, prepare, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .lab import Lab

IMAGE = "ubuntu22.04"
ASK = """
import json, os, sys
sys.path.insert(0, "/usr/lib/hsm-agent")
from agent.aws.access import AwsAccess
from agent.aws.operations import DESCRIBE_CLUSTERS
from agent.hosts.posix import Posix
client = AwsAccess(Posix(), os.environ).client
(page,) = client.pages(DESCRIBE_CLUSTERS, {})
print(json.dumps([page, client.session.region, client.session.credentials().id]))
"""


@pytest.fixture(scope="module")
def around(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(lab, tmp_path_factory.mktemp("cloud")) as made:
        made.scene.package(IMAGE)
        yield made


def join(
    around: Cloud, lab: Lab, address: str, name: str, vpc: str | None = None, *, attached: bool = True
) -> CloudHost:
    host = lab.host(IMAGE, agent=True, ip=address)
    around.stack.callback(lab.end, host)
    prepare(host, around.scene)
    return around.join(host, name, attached=attached and vpc is None, vpc=vpc)


@pytest.fixture(scope="module")
def near(around: Cloud, lab: Lab) -> CloudHost:
    """A host in the cluster's VPC and group that was configured by address."""
    made = join(around, lab, "10.77.20.7", "near")
    done = agent(made.host, "configure", *around.scene.options(IMAGE))
    assert (done.exit_status, done.code) == (0, None), done
    return made


@pytest.fixture(scope="module")
def far(around: Cloud, lab: Lab) -> CloudHost:
    """A host in another VPC that is peered with the cluster's, whose block the cluster's group lets in."""
    vpc = around.aws.add_vpc(OTHER_BLOCK)
    made = join(around, lab, "10.77.70.7", "far", vpc)
    rule = [{**PORTS, "IpRanges": [{"CidrIp": OTHER_BLOCK}]}]
    around.aws.ec2.authorize_security_group_ingress(GroupId=around.aws.group, IpPermissions=rule)
    around.connect(vpc)
    done = agent(made.host, "configure", *around.scene.options(IMAGE))
    assert (done.exit_status, done.code) == (0, None), done
    return made


def test_a_host_asks_with_the_role_of_its_instance_over_tls(around: Cloud, near: CloudHost) -> None:
    around.server.calls.clear()
    with around.server.enforcing():
        said = near.host.run(["python3", "-c", ASK], env=near.environ)
    assert said.returncode == 0, said.stderr
    page, region, key = json.loads(said.stdout)
    (described,) = page["Clusters"]
    assert [each["EniIp"] for each in described["Hsms"]] == list(around.aws.addresses)
    assert (region, key) == ("eu-central-1", near.role["AWS_ACCESS_KEY_ID"])
    asked = [each for each in around.server.calls if each.key_id == key]
    assert [(each.permission, each.status) for each in asked] == [("cloudhsm:DescribeClusters", 200)]
    untrusting = near.host.run(["python3", "-c", ASK], env={**near.environ, "AWS_CA_BUNDLE": ""})
    assert "could not be asked for cloudhsm:DescribeClusters" in untrusting.stderr


def test_the_metadata_of_a_host_follow_the_description(around: Cloud, near: CloudHost) -> None:
    read = (
        "import os, sys; sys.path.insert(0, '/usr/lib/hsm-agent'); from agent.http.imds import read_metadata;"
        "from agent.hosts.posix import Posix; print(read_metadata(Posix(), os.environ, sys.argv[1]))"
    )

    def said(path: str) -> str:
        done = near.host.run(["python3", "-c", read, path], env=near.environ)
        return done.stdout.strip()

    assert said("instance-id") == near.instance.id
    mac = said("network/interfaces/macs/").rstrip("/")
    assert said(f"network/interfaces/macs/{mac}/vpc-id") == around.aws.vpc
    assert f"cloudhsm-{around.aws.id}-sg" in said("security-groups").split("\n")
    detach(around, near)
    assert said("security-groups") == "web"
    attach(around, near)


# --- five causes, each with what makes it and what cures it


def detach(around: Cloud, host: CloudHost) -> None:
    web = around.aws.group_of(around.aws.vpc, "web")
    around.aws.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=host.instance.interface, Groups=[web]
    )


def attach(around: Cloud, host: CloudHost) -> None:
    web = around.aws.group_of(around.aws.vpc, "web")
    around.aws.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=host.instance.interface, Groups=[web, around.aws.group]
    )


def own_rule(around: Cloud) -> dict[str, object]:
    group = around.aws.group
    return {"GroupId": group, "IpPermissions": [{**PORTS, "UserIdGroupPairs": [{"GroupId": group}]}]}


def revoke(around: Cloud, _host: CloudHost) -> None:
    around.aws.ec2.revoke_security_group_ingress(**own_rule(around))


def authorize(around: Cloud, _host: CloudHost) -> None:
    around.aws.ec2.authorize_security_group_ingress(**own_rule(around))


def deny_answers(around: Cloud, host: CloudHost) -> None:
    """Deny what comes back: a rule of one direction that people forget, since groups need none."""
    around.aws.ec2.create_network_acl_entry(
        NetworkAclId=around.acl(),
        RuleNumber=50,
        Protocol="6",
        RuleAction="deny",
        Egress=True,
        CidrBlock=f"{host.instance.address}/32",
        PortRange={"From": 1024, "To": 65535},
    )


def allow_answers(around: Cloud, _host: CloudHost) -> None:
    around.aws.ec2.delete_network_acl_entry(NetworkAclId=around.acl(), RuleNumber=50, Egress=True)


def remove_route(around: Cloud, _host: CloudHost) -> None:
    """Remove the way back alone: the HSM gets what is sent, and its answers vanish."""
    unroute(around, around.aws.vpc)


def unroute(around: Cloud, vpc: str) -> None:
    """Remove every route of a VPC's main table that leads to another VPC, whoever made it."""
    table = around.main_table(vpc)
    (found,) = around.aws.ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    for route in found["Routes"]:
        if "VpcPeeringConnectionId" in route:
            around.aws.ec2.delete_route(
                RouteTableId=table, DestinationCidrBlock=route["DestinationCidrBlock"]
            )


def active(around: Cloud) -> str:
    found = around.aws.ec2.describe_vpc_peering_connections()["VpcPeeringConnections"]
    return str(next(each["VpcPeeringConnectionId"] for each in found if each["Status"]["Code"] == "active"))


def add_route(around: Cloud, _host: CloudHost) -> None:
    around.route(around.aws.vpc, OTHER_BLOCK, active(around))


def disconnect(around: Cloud, host: CloudHost) -> None:
    unroute(around, around.aws.vpc)
    unroute(around, host.instance.vpc)
    around.aws.ec2.delete_vpc_peering_connection(VpcPeeringConnectionId=active(around))


def reconnect(around: Cloud, host: CloudHost) -> None:
    around.connect(host.instance.vpc)


Change = Callable[[Cloud, CloudHost], None]
CAUSES: dict[str, tuple[str, Change, Change]] = {
    "group-not-attached": ("near", detach, attach),
    "group-rule-missing": ("near", revoke, authorize),
    "network-acl-blocks": ("near", deny_answers, allow_answers),
    "route-missing": ("far", remove_route, add_route),
    "vpc-not-connected": ("far", disconnect, reconnect),
}


@pytest.fixture
def placed(request: pytest.FixtureRequest, cause: str) -> CloudHost:
    """The host that a cause is about."""
    host: CloudHost = request.getfixturevalue(CAUSES[cause][0])
    return host


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_stops_packets_until_its_cure(around: Cloud, placed: CloudHost, cause: str) -> None:
    _, block, cure = CAUSES[cause]
    block(around, placed)
    stopped = agent(placed.host, "verify")
    assert (stopped.exit_status, stopped.code) == (40, "hsm-timed-out"), stopped
    cure(around, placed)
    proven = agent(placed.host, "verify")
    assert (proven.exit_status, proven.outcomes) == (0, {"met"}), proven


# --- the cluster by its id


@pytest.fixture(scope="module")
def named(around: Cloud, lab: Lab) -> CloudHost:
    """A host that was configured by the id of the cluster, from bare, while policies were enforced."""
    made = join(around, lab, "10.77.20.8", "named")
    with around.server.enforcing():
        first = agent(
            made.host,
            "configure",
            "--cluster-id",
            around.aws.id,
            *around.scene.sources(IMAGE),
            env=made.environ,
        )
    assert (first.exit_status, first.code) == (0, None), first
    assert first.outcome("cluster:ca") == "met"
    return made


def test_a_cluster_is_configured_by_its_id_and_followed(around: Cloud, named: CloudHost) -> None:
    assert servers(named.host) == list(around.aws.addresses)
    with around.server.enforcing():
        assert agent(named.host, "verify", env=named.environ).exit_status == 0
    description = around.aws.cluster.description
    whole = list(description["Hsms"])
    description["Hsms"] = whole[:1]
    drifted = agent(named.host, "verify", env=named.environ)
    description["Hsms"] = whole
    assert drifted.exit_status == 3, drifted
    assert agent(named.host, "verify", env=named.environ).exit_status == 0


def test_a_role_that_may_nothing_still_knows_its_own_groups(around: Cloud, named: CloudHost) -> None:
    """The first level of knowledge: the metadata service needs no permission."""
    nobody = role_with(around.aws.url, policy(), "nobody")
    named.assume(nobody)
    detach(around, named)
    with around.server.enforcing():
        found = agent(named.host, "verify", env=named.environ)
    attach(around, named)
    assert (found.exit_status, found.code) == (12, "aws-denied"), found
    assert "cloudhsm:DescribeClusters" in json.dumps(found.step("cluster:state"))
    reach = found.step(f"reach:{around.aws.addresses[0]}:2223")
    assert (reach["code"], f"cloudhsm-{around.aws.id}-sg" in str(reach)) == ("group-not-attached", True), (
        reach
    )
    for secret in (nobody["AWS_SECRET_ACCESS_KEY"], nobody["AWS_SESSION_TOKEN"]):
        assert secret not in json.dumps(found.report) + found.err
        assert (
            named.host.run(
                ["grep", "-rqF", secret, "/var/lib/hsm-agent", "/var/log", "/etc", "/opt"]
            ).returncode
            == 1
        )
    named.assume(named.role)
    with around.server.enforcing():
        assert agent(named.host, "verify", env=named.environ).exit_status == 0


def test_the_group_is_attached_on_request_and_taken_off_by_remove(around: Cloud, lab: Lab) -> None:
    made = join(around, lab, "10.77.20.9", "attaching", attached=False)
    web = around.aws.groups_of(made.instance.interface)
    actions = (
        "cloudhsm:DescribeClusters",
        "ec2:DescribeNetworkInterfaces",
        "ec2:ModifyNetworkInterfaceAttribute",
    )
    made.assume(role_with(around.aws.url, policy(*actions)))
    options = ["--cluster-id", around.aws.id, "--attach-group", *around.scene.sources(IMAGE)]
    with around.server.enforcing():
        first = agent(made.host, "configure", *options, env=made.environ)
        assert (first.exit_status, first.code) == (0, None), first
        assert around.aws.groups_of(made.instance.interface) == [*web, around.aws.group]
        again = agent(made.host, "configure", *options, env=made.environ)
        assert (again.exit_status, again.outcomes) == (0, {"met"}), again
        assert agent(made.host, "remove", env=made.environ).exit_status == 0
    assert around.aws.groups_of(made.instance.interface) == web


# --- the cause that the agent names, and the command that it prints


def reached_by_name(report: dict[str, Any]) -> tuple[str, str]:
    """Return code and command of the first HSM that is not reached."""
    line = next(
        each for each in report["steps"] if each["id"].startswith("reach:") and each["outcome"] == "failed"
    )
    command = re.search(r"`(aws ec2 [^`]*)`", line["hint"] or "")
    return line["code"], command[1] if command else ""


@pytest.mark.parametrize("cause", CAUSES)
def test_the_named_cause_is_cured_by_its_printed_command(
    around: Cloud, placed: CloudHost, cause: str
) -> None:
    """The kernel judges: packets pass only when what was named is gone. A path can be closed in several places."""
    CAUSES[cause][1](around, placed)
    keys = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "admin"}
    # the variable for it is younger than Debian 12's CLI
    here = f'aws() {{ command aws --endpoint-url {around.server.url} "$@"; }}'
    named = []
    for _ in range(6):
        found = agent(placed.host, "verify", env=placed.environ)
        if found.exit_status == 0:
            break
        code, command = reached_by_name(found.report)
        named.append(code)
        assert command, found.report
        subprocess.run(["sh", "-c", f"{here}\n{command}"], env={**os.environ, **keys}, check=True, timeout=60)
    assert (found.exit_status, named[:1]) == (0, [cause]), named
