"""A VPC's network as EC2 describes it, as values: interfaces, groups, ACLs, routes, and what connects VPCs.

The trees are those that `AwsClient` returns: texts by the names of the API reference. What a member says that is not
read here is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY_PROTOCOL = "-1"
# EC2 writes the protocol of a group's rule by name and of an ACL's entry by number
TCP = ("tcp", "6")
# the number of the entry that every ACL ends with, and nobody can change
LAST_ENTRY = 32767


@dataclass(frozen=True)
class NetworkInterface:
    """An interface of an instance or an HSM. `description` is what its maker wrote, `CloudHsm ENI …` for an HSM's."""

    id: str
    vpc: str
    subnet: str
    groups: tuple[str, ...]
    addresses: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True)
class GroupRule:
    """One permission of a security group: ports from `first` to `last`, of or to these ranges and groups.

    `opaque`: it names a prefix list too, and nobody described what is in that.
    """

    protocol: str
    first: int
    last: int
    ranges: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    opaque: bool = False


@dataclass(frozen=True)
class SecurityGroup:
    """A security group: stateful, so that answers to what it lets through always pass."""

    id: str
    ingress: tuple[GroupRule, ...] = ()
    egress: tuple[GroupRule, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class AclEntry:
    """One entry of a network ACL; the lowest number that matches a packet decides."""

    number: int
    egress: bool
    allows: bool
    protocol: str
    range: str
    first: int
    last: int


@dataclass(frozen=True)
class NetworkAcl:
    """A network ACL: stateless, so that answers are judged as anything else."""

    id: str
    subnets: tuple[str, ...]
    entries: tuple[AclEntry, ...]


@dataclass(frozen=True)
class VpcRoute:
    """One route. `target` is the id of where it leads, or `local`; empty for a destination that is a prefix list."""

    destination: str
    target: str
    active: bool = True


@dataclass(frozen=True)
class RouteTable:
    """A route table; the most specific route counts. A subnet that none names has its VPC's main one."""

    id: str
    vpc: str
    subnets: tuple[str, ...]
    main: bool
    routes: tuple[VpcRoute, ...]


@dataclass(frozen=True)
class Subnet:
    """A subnet with its ranges of addresses and its availability zone."""

    id: str
    ranges: tuple[str, ...]
    zone: str = ""


@dataclass(frozen=True)
class Peering:
    """A peering of two VPCs."""

    id: str
    vpcs: tuple[str, str]
    state: str


@dataclass(frozen=True)
class TransitAttachment:
    """A transit gateway's attachment to a VPC. `references`: rules that name a group work across it."""

    gateway: str
    vpc: str
    state: str
    references: bool = False


@dataclass(frozen=True)
class Network:
    """All that was described. None stands for what could not be asked: nothing is blamed on that."""

    groups: tuple[SecurityGroup, ...] | None = None
    acls: tuple[NetworkAcl, ...] | None = None
    tables: tuple[RouteTable, ...] | None = None
    subnets: tuple[Subnet, ...] = ()
    peerings: tuple[Peering, ...] | None = None
    attachments: tuple[TransitAttachment, ...] | None = None


def read_interfaces(pages: Iterable[Mapping[str, Any]]) -> tuple[NetworkInterface, ...]:
    """Return the interfaces that DescribeNetworkInterfaces lists."""
    return tuple(
        NetworkInterface(
            each["networkInterfaceId"],
            each.get("vpcId", ""),
            each.get("subnetId", ""),
            _texts(each, "groupSet", "groupId"),
            _texts(each, "privateIpAddressesSet", "privateIpAddress")
            + _texts(each, "ipv6AddressesSet", "ipv6Address"),
            each.get("description", ""),
        )
        for each in _items(pages, "networkInterfaceSet")
    )


def read_groups(pages: Iterable[Mapping[str, Any]]) -> tuple[SecurityGroup, ...]:
    """Return the groups that DescribeSecurityGroups lists."""
    return tuple(
        SecurityGroup(
            each["groupId"],
            tuple(_read_rule(rule) for rule in each.get("ipPermissions") or ()),
            tuple(_read_rule(rule) for rule in each.get("ipPermissionsEgress") or ()),
            each.get("groupName", ""),
        )
        for each in _items(pages, "securityGroupInfo")
    )


def read_acls(pages: Iterable[Mapping[str, Any]]) -> tuple[NetworkAcl, ...]:
    """Return the ACLs that DescribeNetworkAcls lists."""
    return tuple(
        NetworkAcl(
            each["networkAclId"],
            _texts(each, "associationSet", "subnetId"),
            tuple(_read_entry(entry) for entry in each.get("entrySet") or ()),
        )
        for each in _items(pages, "networkAclSet")
    )


def read_tables(pages: Iterable[Mapping[str, Any]]) -> tuple[RouteTable, ...]:
    """Return the tables that DescribeRouteTables lists."""
    return tuple(
        RouteTable(
            each["routeTableId"],
            each.get("vpcId", ""),
            _texts(each, "associationSet", "subnetId"),
            "true" in _texts(each, "associationSet", "main"),
            tuple(_read_route(route) for route in each.get("routeSet") or ()),
        )
        for each in _items(pages, "routeTableSet")
    )


def read_subnets(pages: Iterable[Mapping[str, Any]]) -> tuple[Subnet, ...]:
    """Return the subnets that DescribeSubnets lists."""
    return tuple(
        Subnet(
            each["subnetId"],
            (each["cidrBlock"],) * bool(each.get("cidrBlock"))
            + _texts(each, "ipv6CidrBlockAssociationSet", "ipv6CidrBlock"),
            each.get("availabilityZone", ""),
        )
        for each in _items(pages, "subnetSet")
    )


def read_peerings(pages: Iterable[Mapping[str, Any]]) -> tuple[Peering, ...]:
    """Return the peerings that DescribeVpcPeeringConnections lists."""
    return tuple(
        Peering(
            each["vpcPeeringConnectionId"],
            (each["requesterVpcInfo"].get("vpcId", ""), each["accepterVpcInfo"].get("vpcId", "")),
            (each.get("status") or {}).get("code", ""),
        )
        for each in _items(pages, "vpcPeeringConnectionSet")
    )


def read_attachments(pages: Iterable[Mapping[str, Any]]) -> tuple[TransitAttachment, ...]:
    """Return the attachments that DescribeTransitGatewayVpcAttachments lists."""
    return tuple(
        TransitAttachment(
            each["transitGatewayId"],
            each["vpcId"],
            each.get("state", ""),
            (each.get("options") or {}).get("securityGroupReferencingSupport") == "enable",
        )
        for each in _items(pages, "transitGatewayVpcAttachments")
    )


def _read_rule(tree: Mapping[str, Any]) -> GroupRule:
    protocol = tree.get("ipProtocol", ANY_PROTOCOL)
    whole = protocol == ANY_PROTOCOL or "fromPort" not in tree
    return GroupRule(
        protocol,
        0 if whole else int(tree["fromPort"]),
        65535 if whole else int(tree["toPort"]),
        _texts(tree, "ipRanges", "cidrIp") + _texts(tree, "ipv6Ranges", "cidrIpv6"),
        _texts(tree, "groups", "groupId"),
        opaque=bool(tree.get("prefixListIds")),
    )


def _read_entry(tree: Mapping[str, Any]) -> AclEntry:
    ports = tree.get("portRange") or {}
    return AclEntry(
        int(tree["ruleNumber"]),
        tree.get("egress") == "true",
        tree.get("ruleAction") == "allow",
        tree.get("protocol", ANY_PROTOCOL),
        tree.get("cidrBlock") or tree.get("ipv6CidrBlock") or "",
        int(ports.get("from", 0)),
        int(ports.get("to", 65535)),
    )


# where a route may lead, each by a member of its own
_TARGETS = (
    "vpcPeeringConnectionId",
    "transitGatewayId",
    "natGatewayId",
    "networkInterfaceId",
    "egressOnlyInternetGatewayId",
    "localGatewayId",
    "carrierGatewayId",
    "coreNetworkArn",
    "gatewayId",
    "instanceId",
)


def _read_route(tree: Mapping[str, Any]) -> VpcRoute:
    return VpcRoute(
        tree.get("destinationCidrBlock") or tree.get("destinationIpv6CidrBlock") or "",
        next((tree[name] for name in _TARGETS if tree.get(name)), ""),
        tree.get("state", "active") == "active",
    )


def _items(pages: Iterable[Mapping[str, Any]], name: str) -> Iterable[Mapping[str, Any]]:
    for page in pages:
        yield from page.get(name) or ()


def _texts(tree: Mapping[str, Any], items: str, name: str) -> tuple[str, ...]:
    return tuple(each[name] for each in tree.get(items) or () if each.get(name))
