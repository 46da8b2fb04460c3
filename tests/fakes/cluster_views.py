"""Clusters with their surroundings, as values: for the renderers, the page, and what is said of them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.aws.inventory import Instance, OtherInterface, UnansweredQuestion, VpcSurvey
from agent.aws.network import (
    AclEntry,
    GroupRule,
    Network,
    NetworkAcl,
    NetworkInterface,
    RouteTable,
    SecurityGroup,
    Subnet,
    VpcRoute,
)
from agent.cloudhsm.cluster import read_cluster
from agent.cloudhsm.cluster_view import ClusterView, HostSide, view_cluster
from tests.fakes import cluster_answers as aws

if TYPE_CHECKING:
    from agent.cloudhsm.cluster import ClusterDescription

REGION = "eu-central-1"
NOW = dt.datetime(2026, 11, 30, 12, 0, tzinfo=dt.timezone.utc)
VPC, GROUP = "vpc-0123456789abcdef0", "sg-0123456789abcdef0"
WEB = "sg-0aaaaaaaaaaaaaaaa"
ALL = "0.0.0.0/0"
_OUT = GroupRule("-1", 0, 65535, (ALL,))
_OWN = GroupRule("tcp", 2223, 2225, (), (GROUP,))
ZONES = "abc"
OPEN = tuple(
    AclEntry(number, egress, allows, "-1", ALL, 0, 65535)
    for egress in (True, False)
    for number, allows in ((100, True), (32767, False))
)


def description(*hsms: dict[str, Any], state: str = "ACTIVE", **more: Any) -> ClusterDescription:
    return read_cluster(aws.cluster(state, *(hsms or (aws.hsm(1), aws.hsm(2))), **more), REGION)


def instance(
    number: int, *groups: str, zone: str = "a", name: str | None = None, state: str = "running", **more: Any
) -> Instance:
    """Return an instance with one interface, by default in the group of the cluster."""
    address = f"10.0.{10 + ZONES.index(zone)}.{number % 200 + 10}"
    interface = NetworkInterface(
        f"eni-0{number:016x}", VPC, f"subnet-web-{zone}", groups or (WEB, GROUP), (address,)
    )
    return Instance(
        f"i-0{number:016x}",
        f"web-{number}" if name is None else name,
        state,
        f"{REGION}{zone}",
        interfaces=(interface,),
        **more,
    )


def network(**more: Any) -> Network:
    """Return a network in which nothing stops a member of the group."""
    subnets = [(f"subnet-{zone}", f"10.0.{number}.0/24", zone) for number, zone in enumerate(ZONES)]
    subnets += [(f"subnet-web-{zone}", f"10.0.{10 + number}.0/24", zone) for number, zone in enumerate(ZONES)]
    given = {
        "groups": (
            SecurityGroup(GROUP, (_OWN,), (_OUT,), f"cloudhsm-{aws.CLUSTER_ID}-sg"),
            SecurityGroup(WEB, (), (_OUT,), "web"),
        ),
        "acls": (NetworkAcl("acl-0123456789abcdef0", tuple(name for name, _, _ in subnets), OPEN),),
        "tables": (RouteTable("rtb-1", VPC, (), True, (VpcRoute("10.0.0.0/16", "local"),)),),
        "subnets": tuple(Subnet(name, (cidr,), f"{REGION}{zone}") for name, cidr, zone in subnets),
        **more,
    }
    return Network(**given)


def survey(*instances: Instance, **more: Any) -> VpcSurvey:
    given = {
        "instances": instances,
        "others": (),
        "network": network(),
        "backup": (NOW - dt.timedelta(hours=9)).timestamp(),
        "has_service_role": True,
        **more,
    }
    return VpcSurvey(**given)


HOST = HostSide("ip-10-0-1-12", instance_id=f"i-0{1:016x}", servers={"cli": ("10.0.1.6", "10.0.2.6")})


def healthy() -> ClusterView:
    """Three HSMs in three zones, four clients in the group, two instances outside, a function in it."""
    function = NetworkInterface("eni-0fedcba9876543210", VPC, "subnet-web-b", (GROUP,), ("10.0.11.77",))
    return view_cluster(
        description(aws.hsm(1), aws.hsm(2), aws.hsm(3)),
        survey(
            *(instance(number, zone=ZONES[number % 3]) for number in (1, 2, 3, 4)),
            instance(5, WEB, name="bastion"),
            instance(6, WEB, zone="b", name="", state="stopped"),
            others=(OtherInterface(function, f"{REGION}b", "lambda", "AWS Lambda VPC ENI-sign"),),
        ),
        replace(HOST, servers={"cli": ("10.0.1.6", "10.0.2.6", "10.0.3.6")}),
        now=NOW,
        named_by="the argument",
    )


def troubled() -> ClusterView:
    """An ACL blocks one subnet, this host is outside the group, one HSM comes, one is degraded, the rest is old."""
    entries = (*OPEN, AclEntry(50, False, False, "6", "10.0.10.0/24", 2223, 2225))
    acls = (
        NetworkAcl("acl-0123456789abcdef0", ("subnet-a", "subnet-b", "subnet-web-a", "subnet-web-b"), OPEN),
        NetworkAcl("acl-0bbbbbbbbbbbbbbbb", ("subnet-c",), entries),
    )
    outside = HostSide(
        "ip-10-0-1-12",
        instance_id=f"i-0{9:016x}",
        servers={"cli": ("10.0.1.6", "10.0.9.9"), "pkcs11": ("10.0.1.6", "10.0.2.6")},
        clients={(5, "cli"): (5, 8, 0), (5, "pkcs11"): (5, 18, 0)},
    )
    return view_cluster(
        description(
            aws.hsm(1),
            aws.hsm(2, "DEGRADED", StateMessage="The HSM does not answer health checks."),
            aws.hsm(3, "CREATE_IN_PROGRESS", EniIp=None),
            state="UPDATE_IN_PROGRESS",
        ),
        survey(
            *(instance(number, zone=ZONES[number % 3]) for number in range(1, 8)),
            instance(9, WEB, zone="b", name="app-9"),
            network=network(acls=acls),
            backup=(NOW - dt.timedelta(days=5)).timestamp(),
            has_service_role=False,
        ),
        outside,
        now=NOW,
        named_by="the last configure",
    )


def blind() -> ClusterView:
    """One hsm1 HSM, and AWS denies everything but DescribeClusters."""
    actions = ("ec2:DescribeInstances", "ec2:DescribeSecurityGroups", "cloudhsm:DescribeBackups")
    return view_cluster(
        description(aws.hsm(1), HsmType="hsm1.medium"),
        VpcSurvey(
            unanswered=tuple(
                UnansweredQuestion(
                    each, "aws-denied", f"UnauthorizedOperation: {each}", f"allow {each} to the role"
                )
                for each in actions
            )
        ),
        replace(HOST, interface=instance(1, WEB).interfaces[0], servers={}),
        now=NOW,
        named_by="an option",
    )


def uninitialized() -> ClusterView:
    """A cluster without a CA yet."""
    return view_cluster(
        description(aws.hsm(1), state="UNINITIALIZED", Certificates={"ClusterCsr": "-----BEGIN"}),
        survey(instance(1)),
        HostSide("laptop", ca=b"x", ca_source="customerCA.crt"),
        now=NOW,
        named_by="the argument",
    )


def crowded(instances: int = 300, hsms: int = 28) -> ClusterView:
    """As many instances and HSMs as anybody has, a third of the instances in the group."""
    groups = ((WEB, GROUP), (WEB,), (WEB,))
    return view_cluster(
        description(*(aws.hsm(number) for number in range(1, hsms + 1))),
        survey(
            *(
                instance(
                    number,
                    *groups[number % 3],
                    zone=ZONES[number // 3 % 3],
                    name=f"worker-{number}.eu.example",
                )
                for number in range(1, instances + 1)
            )
        ),
        HOST,
        now=NOW,
        named_by="no one: it is the only cluster in the region",
    )


def saying(text: str) -> ClusterView:
    """Everything that AWS or a file can name is that text."""
    interface = NetworkInterface(text, VPC, text, (GROUP,), (text, "10.0.10.9"))
    named = dict.fromkeys(("HsmId", "AvailabilityZone", "SubnetId", "EniId", "StateMessage"), text)
    cluster = description(
        aws.hsm(1, text, **named),
        aws.hsm(2, **{**named, "EniIp": text}),
        state=text, ClusterId=text, HsmType=text, Mode=text, StateMessage=text, SubnetMapping={text: text},
    )  # fmt: skip
    return view_cluster(
        cluster,
        survey(
            Instance(text, text, text, text, interfaces=(interface,)),
            Instance(text, text, text, text, interfaces=(replace(interface, groups=(text,)),)),
            others=(OtherInterface(interface, text, text, text),),
            network=network(groups=(SecurityGroup(GROUP, (), (_OUT,), text),)),
            unanswered=(UnansweredQuestion(text, text, text, text),),
        ),
        HostSide(text, instance_id=text, servers={text: (text, "10.0.1.6")}, ca=b"x", ca_source=text),
        now=NOW,
        named_by="the argument",
    )


VIEWS = (healthy, troubled, blind, uninitialized, crowded)
