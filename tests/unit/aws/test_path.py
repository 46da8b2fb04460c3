"""Why an HSM is not reached, held against packets that are sent one by one through the same network.

The simulation knows nothing of `agent.aws.path`: it has a packet at a time, its own longest prefix, and no spans. What
a found obstacle says is cured by reading its command as AWS would; when nothing is found any more, the packets arrive.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.aws.network import (
    AclEntry,
    GroupRule,
    Network,
    NetworkAcl,
    NetworkInterface,
    Peering,
    RouteTable,
    SecurityGroup,
    Subnet,
    TransitAttachment,
    VpcRoute,
)
from agent.aws.path import (
    EPHEMERAL_LINUX,
    EPHEMERAL_WINDOWS,
    MOST_GROUPS,
    Obstacle,
    PathEnd,
    find_obstacle,
    membership_obstacle,
)
from agent.core.codes import CODES
from tests.examples import examples

REGION = "eu-central-1"
# by family: ranges of the VPCs and subnets, addresses by subnet, and all addresses
RANGES = {
    4: {"vpc-a": "10.0.0.0/16", "vpc-b": "10.1.0.0/16", "subnet-a1": "10.0.1.0/24", "subnet-a2": "10.0.2.0/24",
        "subnet-b1": "10.1.1.0/24", "all": "0.0.0.0/0"},
    6: {"vpc-a": "2001:db8:a::/56", "vpc-b": "2001:db8:b::/56", "subnet-a1": "2001:db8:a:1::/64",
        "subnet-a2": "2001:db8:a:2::/64", "subnet-b1": "2001:db8:b:1::/64", "all": "::/0"},
}  # fmt: skip
HOSTS = {
    4: {"client": "10.0.1.7", "subnet-a1": "10.0.1.6", "subnet-a2": "10.0.2.6", "subnet-b1": "10.1.1.6"},
    6: {"client": "2001:db8:a:1::7", "subnet-a1": "2001:db8:a:1::6", "subnet-a2": "2001:db8:a:2::6",
        "subnet-b1": "2001:db8:b:1::6"},
}  # fmt: skip
VPC_OF = {"subnet-a1": "vpc-a", "subnet-a2": "vpc-a", "subnet-b1": "vpc-b"}
PORTS = (2223, 2224, 2225)


@dataclass(frozen=True)
class World:
    """A network with a client and an HSM in it."""

    network: Network
    client: PathEnd
    hsm: PathEnd
    ephemeral: tuple[int, int] = EPHEMERAL_LINUX

    def obstacle(self) -> Obstacle | None:
        return find_obstacle(self.network, self.client, self.hsm, region=REGION, ephemeral=self.ephemeral)


# --- the simulation


def bits(address: str) -> str:
    held = ip_address(address)
    return format(int(held), f"0{held.max_prefixlen}b")


def matches(text: str, address: str) -> bool:
    base, _, length = text.partition("/")
    return len(bits(base)) == len(bits(address)) and bits(base)[: int(length)] == bits(address)[: int(length)]


def reaches(world: World) -> bool:
    return all(round_trip(world, port, ephemeral) for port in PORTS for ephemeral in telling_ports(world))


def telling_ports(world: World) -> set[int]:
    """Return the ports at which a decision can change, and the ends."""
    first, last = world.ephemeral
    edges = {first, last}
    for acl in world.network.acls or ():
        for entry in acl.entries:
            edges |= {entry.first - 1, entry.first, entry.last, entry.last + 1}
    return {each for each in edges if first <= each <= last}


def round_trip(world: World, port: int, ephemeral: int) -> bool:
    client, hsm = world.client, world.hsm
    if not group_passes(world, client, hsm, "egress", port) or not group_passes(
        world, hsm, client, "ingress", port
    ):
        return False
    return carried(world, client, hsm, port) and carried(world, hsm, client, ephemeral)


def group_passes(world: World, end: PathEnd, peer: PathEnd, direction: str, port: int) -> bool:
    for group in world.network.groups or ():
        if group.id in end.interface.groups:
            for rule in getattr(group, direction):
                fits = rule.protocol == "-1" or (
                    rule.protocol in ("tcp", "6") and rule.first <= port <= rule.last
                )
                known = references(world) and any(each in peer.interface.groups for each in rule.groups)
                if fits and (known or any(matches(each, peer.address) for each in rule.ranges)):
                    return True
    return False


def references(world: World) -> bool:
    here, there = world.client.interface.vpc, world.hsm.interface.vpc
    if here == there:
        return True
    for peering in world.network.peerings or ():
        if peering.state == "active" and sorted(peering.vpcs) == sorted((here, there)):
            return True
    sides = [each for each in world.network.attachments or () if each.vpc in (here, there)]
    # of another account's VPC no attachment is shown, and it may well work
    shown = {each.vpc for each in sides}
    return bool(sides) and all(any(each.references for each in sides if each.vpc == vpc) for vpc in shown)


def carried(world: World, source: PathEnd, goal: PathEnd, port: int) -> bool:
    if source.interface.subnet == goal.interface.subnet:
        return True
    return (
        acl_passes(world, source, goal, True, port)
        and routed(world, source, goal)
        and acl_passes(world, goal, source, False, port)
    )


def acl_passes(world: World, end: PathEnd, peer: PathEnd, egress: bool, port: int) -> bool:
    for acl in world.network.acls or ():
        if end.interface.subnet in acl.subnets:
            decisions = {
                entry.number: entry.allows
                for entry in acl.entries
                if entry.egress == egress
                and matches(entry.range, peer.address)
                and (entry.protocol == "-1" or (entry.protocol == "6" and entry.first <= port <= entry.last))
            }
            return decisions[min(decisions)] if decisions else False
    return True


def routed(world: World, source: PathEnd, goal: PathEnd) -> bool:
    tables = [each for each in world.network.tables or () if each.vpc == source.interface.vpc]
    chosen = [each for each in tables if source.interface.subnet in each.subnets] or [
        each for each in tables if each.main
    ]
    best = None
    for route in chosen[0].routes:
        if matches(route.destination, goal.address) and (
            best is None or int(route.destination.split("/")[1]) > int(best.destination.split("/")[1])
        ):
            best = route
    if best is None or not best.active:
        return False
    here, there = source.interface.vpc, goal.interface.vpc
    if best.target == "local":
        return here == there
    if best.target.startswith("eni-"):
        return True  # an appliance, which may do anything
    if here == there:
        return False
    for peering in world.network.peerings or ():
        if best.target == peering.id:
            return peering.state == "active" and sorted(peering.vpcs) == sorted((here, there))
    # where the gateway leads on, its own tables and its peers know
    return any(
        (each.gateway, each.vpc, each.state) == (best.target, here, "available")
        for each in world.network.attachments or ()
    )


# --- worlds


def spans(*edges: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.sampled_from(edges), st.sampled_from(edges)).map(lambda pair: (min(pair), max(pair)))


@st.composite
def group_rules(draw: st.DrawFn, sources: st.SearchStrategy[str]) -> tuple[GroupRule, ...]:
    made = []
    for _ in range(draw(st.integers(0, 2))):
        first, last = draw(spans(0, 2223, 2224, 2225, 65535))
        named = draw(st.sampled_from([(), ("sg-x",), ("sg-hsm",)]))
        ranges = draw(st.lists(sources, max_size=1).map(tuple))
        made.append(GroupRule(draw(st.sampled_from(["-1", "tcp", "6", "udp"])), first, last, ranges, named))
    return tuple(made)


@st.composite
def acl_entries(draw: st.DrawFn, sources: st.SearchStrategy[str]) -> tuple[AclEntry, ...]:
    """Return entries that decide about parts of what is sent, each port by more than one of them."""
    made = []
    for number in draw(st.sets(st.sampled_from([1, 2, 3, 50, 51, 100]), min_size=1, max_size=4)):
        first, last = draw(spans(0, 1024, 2223, 2224, 2225, 32768, 40000, 50000, 60999, 65535))
        protocol = draw(st.sampled_from(["6", "6", "-1", "17"]))
        made.append(
            AclEntry(number, draw(st.booleans()), draw(st.booleans()), protocol, draw(sources), first, last)
        )
    return tuple(made)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return a network as AWS and a careful person make it, except for some of its parts, in which anything may be."""
    family = draw(st.sampled_from([4, 4, 6]))
    ranges, hosts = RANGES[family], HOSTS[family]
    where = draw(st.sampled_from(["subnet-a1", "subnet-a2", "subnet-a2", "subnet-b1", "subnet-b1"]))
    odd = draw(
        st.sets(st.sampled_from(["membership", "groups", "acls", "routes", "vpcs"]), min_size=1, max_size=2)
    )
    one_vpc = VPC_OF[where] == "vpc-a"
    sources = st.sampled_from(
        [*ranges.values(), *(f"{each}/{128 if family == 6 else 32}" for each in hosts.values())]
    )
    members: tuple[str, ...] = ("sg-x", "sg-hsm") if one_vpc else ("sg-x",)
    if "membership" in odd:
        members = draw(st.sampled_from([("sg-x",), ("sg-x", "sg-1", "sg-2", "sg-3", "sg-4")]))
    everybody = GroupRule("-1", 0, 65535, (ranges["all"],))
    own = (GroupRule("tcp", 2223, 2225, () if one_vpc else (ranges["vpc-a"],), ("sg-hsm",)),)
    anything = group_rules(sources)
    groups = (
        SecurityGroup(
            "sg-hsm", draw(anything) if "groups" in odd else own, draw(anything) if "groups" in odd else own
        ),
        SecurityGroup("sg-x", (), draw(anything) if "groups" in odd else (everybody,)),
        *(SecurityGroup(f"sg-{number}") for number in range(1, 5)),
    )
    default = tuple(AclEntry(1000, way, True, "-1", ranges["all"], 0, 65535) for way in (True, False))
    acls = tuple(
        NetworkAcl(
            f"acl-{subnet}",
            (subnet,),
            (*draw(acl_entries(sources)), *default[: draw(st.integers(1, 2))]) if "acls" in odd else default,
        )
        for subnet in VPC_OF
    )
    attachments = tuple(
        TransitAttachment(
            "tgw-1",
            vpc,
            draw(st.sampled_from(["available", "deleted"])) if "vpcs" in odd else "available",
            draw(st.booleans()) if "vpcs" in odd else False,
        )
        for vpc in ("vpc-a", "vpc-b")
    )
    states = ["active", "pending-acceptance", "deleted"] if "vpcs" in odd else ["active"]
    peerings = (
        Peering("pcx-2", ("vpc-a", "vpc-c"), "active"),
        Peering("pcx-1", ("vpc-b", "vpc-a"), draw(st.sampled_from(states))),
    )
    targets = st.sampled_from(["pcx-1", "pcx-1", "pcx-2", "tgw-1", "nat-1", "eni-wall"])
    network = Network(
        groups,
        acls,
        tuple(draw(tables(subnet, ranges, sources, targets, "routes" in odd)) for subnet in VPC_OF),
        tuple(Subnet(each, (ranges[each],)) for each in VPC_OF),
        peerings[: draw(st.integers(1, 2))] if "vpcs" in odd else peerings,
        attachments[: draw(st.integers(0, 2))] if "vpcs" in odd else attachments,
    )
    client = NetworkInterface("eni-client", "vpc-a", "subnet-a1", members, (hosts["client"],))
    hsm = NetworkInterface("eni-hsm", VPC_OF[where], where, ("sg-hsm",), (hosts[where],))
    span = draw(st.sampled_from([EPHEMERAL_LINUX, EPHEMERAL_WINDOWS]))
    return World(network, PathEnd(client, hosts["client"]), PathEnd(hsm, hosts[where]), span)


@st.composite
def tables(
    draw: st.DrawFn, subnet: str, ranges: dict[str, str], sources: Any, targets: Any, odd: bool
) -> RouteTable:
    """Return a subnet's table: with its local route, and one to the other VPC or whatever there may be."""
    vpc = VPC_OF[subnet]
    other = VpcRoute(ranges["vpc-b" if vpc == "vpc-a" else "vpc-a"], "pcx-1")
    more = [other]
    if odd:
        routes = st.builds(VpcRoute, sources, targets, st.integers(0, 3).map(bool))
        more = draw(st.lists(routes, max_size=3, unique_by=lambda each: each.destination))
    main = subnet == "subnet-a2"  # and so the one that counts there, though it names no subnet
    local = VpcRoute(ranges[vpc], "local")
    routes_ = (local, *(each for each in more if each.destination != local.destination))
    return RouteTable(f"rtb-{subnet}", vpc, () if main else (subnet,), main, routes_)


# --- AWS, as far as the commands go


@dataclass
class Arguments:
    """A command of `aws ec2`, taken apart; every option has to be read."""

    verb: str
    options: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, command: tuple[str, ...]) -> Arguments:
        assert command[:2] == ("aws", "ec2")
        found = cls(command[2])
        for word in command[3:]:
            if word.startswith("--"):
                found.options[word] = []
            else:
                list(found.options.values())[-1].append(word)
        assert found.options.pop("--region") == [REGION]
        return found

    def one(self, name: str) -> str:
        (value,) = self.options.pop(name)
        return value


def cure(world: World, obstacle: Obstacle) -> World:
    """Do what the command says, as AWS would; what AWS refuses fails the test."""
    given_ = Arguments.of(obstacle.command)
    cured = CURES[given_.verb](world, given_)
    assert given_.options == {}
    return cured


def changed(things: Any, name: str, **values: Any) -> Any:
    assert [each.id for each in things].count(name) == 1
    return tuple(replace(each, **values) if each.id == name else each for each in things)


def found(things: Any, name: str) -> Any:
    return next(each for each in things if each.id == name)


def attach(world: World, given_: Arguments) -> World:
    assert given_.one("--network-interface-id") == "eni-client"
    groups = given_.options.pop("--groups")
    assert len(groups) <= MOST_GROUPS
    assert set(world.client.interface.groups) < set(groups)
    assert world.client.interface.vpc == world.hsm.interface.vpc
    return replace(
        world, client=replace(world.client, interface=replace(world.client.interface, groups=tuple(groups)))
    )


def authorize(world: World, given_: Arguments) -> World:
    direction = given_.verb.rpartition("-")[2]
    group = found(world.network.groups, given_.one("--group-id"))
    protocol, first, last, who = given_.one("--ip-permissions").split(",")
    assert (protocol, first, last) == ("IpProtocol=tcp", "FromPort=2223", "ToPort=2225")
    kind, _, text = who.partition("=[{")
    name, _, value = text.removesuffix("}]").partition("=")
    assert (kind, name) in {
        ("UserIdGroupPairs", "GroupId"),
        ("IpRanges", "CidrIp"),
        ("Ipv6Ranges", "CidrIpv6"),
    }
    rule = GroupRule("tcp", 2223, 2225, *(((), (value,)) if name == "GroupId" else ((value,), ())))
    rules = getattr(group, direction)
    assert rule not in rules  # InvalidPermission.Duplicate
    groups = changed(world.network.groups, group.id, **{direction: (*rules, rule)})
    return replace(world, network=replace(world.network, groups=groups))


def accept(world: World, given_: Arguments) -> World:
    name = given_.one("--vpc-peering-connection-id")
    assert found(world.network.peerings, name).state == "pending-acceptance"
    peerings = changed(world.network.peerings, name, state="active")
    return replace(world, network=replace(world.network, peerings=peerings))


def peer(world: World, given_: Arguments) -> World:
    vpcs = (given_.one("--vpc-id"), given_.one("--peer-vpc-id"))
    assert set(vpcs) == {"vpc-a", "vpc-b"}
    made = Peering("pcx-new", vpcs, "pending-acceptance")
    return replace(world, network=replace(world.network, peerings=(*(world.network.peerings or ()), made)))


def route(world: World, given_: Arguments) -> World:
    table = found(world.network.tables, given_.one("--route-table-id"))
    destination = next(given_.one(each) for each in list(given_.options) if each.startswith("--destination"))
    targets = [given_.one(each) for each in list(given_.options)]
    here = [each for each in table.routes if each.destination == destination]
    rest = tuple(each for each in table.routes if each.destination != destination)
    assert all(each.target != "local" for each in here)
    assert bool(here) is (given_.verb != "create-route")
    routes = (*rest, *(VpcRoute(str(ip_network(destination)), each) for each in targets))
    assert len(targets) == (given_.verb != "delete-route")
    tables = changed(world.network.tables, table.id, routes=routes)
    return replace(world, network=replace(world.network, tables=tables))


def acl_entry(world: World, given_: Arguments) -> World:
    acl = found(world.network.acls, given_.one("--network-acl-id"))
    egress = "--egress" in given_.options
    assert given_.options.pop("--egress" if egress else "--ingress") == []
    number = int(given_.one("--rule-number"))
    assert 1 <= number < 32767
    here = [each for each in acl.entries if (each.number, each.egress) == (number, egress)]
    entries = tuple(each for each in acl.entries if each not in here)
    if given_.verb.startswith("delete"):
        assert here
    else:
        assert not here
        assert (given_.one("--protocol"), given_.one("--rule-action")) == ("tcp", "allow")
        first, last = (int(each.partition("=")[2]) for each in given_.one("--port-range").split(","))
        text = next(given_.one(each) for each in list(given_.options) if each.endswith("cidr-block"))
        entries = (*entries, AclEntry(number, egress, True, "6", text, first, last))
    return replace(
        world, network=replace(world.network, acls=changed(world.network.acls, acl.id, entries=entries))
    )


CURES = {
    "modify-network-interface-attribute": attach,
    "authorize-security-group-ingress": authorize,
    "authorize-security-group-egress": authorize,
    "accept-vpc-peering-connection": accept,
    "create-vpc-peering-connection": peer,
    "create-route": route,
    "replace-route": route,
    "delete-route": route,
    "create-network-acl-entry": acl_entry,
    "delete-network-acl-entry": acl_entry,
}


# --- the properties


@examples(300)
@given(worlds())
def test_nothing_is_found_where_every_packet_arrives_and_nowhere_else(world: World) -> None:
    assert (world.obstacle() is None) is reaches(world)


@examples(80)
@given(worlds())
def test_the_commands_that_are_named_let_every_packet_through(world: World) -> None:
    steps = 0
    while (obstacle := world.obstacle()) is not None:
        world = cure(world, obstacle)
        steps += 1
        assert steps <= 30, obstacle
    assert reaches(world)


@examples(40)
@given(
    worlds(), st.sets(st.sampled_from(["groups", "acls", "tables", "peerings", "attachments"]), min_size=1)
)
def test_what_was_not_described_is_not_blamed(world: World, unknown: set[str]) -> None:
    known = world.obstacle()
    less = with_network(world, **dict.fromkeys(unknown))
    found_ = less.obstacle()
    if known is None and found_ is not None:
        # membership is all that is known then, and an interface without the group is the likely cause
        assert (found_.code, "groups" in unknown) == ("group-not-attached", True)
    if found_ is not None and found_.code in ("network-acl-blocks", "group-rule-missing"):
        assert {"network-acl-blocks": "acls", "group-rule-missing": "groups"}[found_.code] not in unknown


# --- each cause by itself


EVERYBODY = GroupRule("-1", 0, 65535, ("0.0.0.0/0",))
DEFAULT = tuple(AclEntry(100, way, True, "-1", "0.0.0.0/0", 0, 65535) for way in (True, False))


def usual(where: str = "subnet-a2") -> World:
    """Return a world in which all is well, the HSM in this subnet."""
    ranges, hosts = RANGES[4], HOSTS[4]
    own = GroupRule("tcp", 2223, 2225, groups=("sg-hsm",))
    vpc = VPC_OF[where]
    network = Network(
        (SecurityGroup("sg-hsm", (own,), (own,)), SecurityGroup("sg-x", (), (EVERYBODY,))),
        tuple(NetworkAcl(f"acl-{each}", (each,), DEFAULT) for each in VPC_OF),
        tuple(RouteTable(f"rtb-{each[-1]}", each, (), True, (VpcRoute(ranges[each], "local"),)) for each in ("vpc-a", "vpc-b")),
        tuple(Subnet(each, (ranges[each],)) for each in VPC_OF),
        (),
        (),
    )  # fmt: skip
    client = NetworkInterface("eni-client", "vpc-a", "subnet-a1", ("sg-x", "sg-hsm"), (hosts["client"],))
    hsm = NetworkInterface("eni-hsm", vpc, where, ("sg-hsm",), (hosts[where],))
    return World(network, PathEnd(client, hosts["client"]), PathEnd(hsm, hosts[where]))


def without_group(world: World, *groups: str) -> World:
    interface = replace(world.client.interface, groups=groups)
    return replace(world, client=replace(world.client, interface=interface))


def with_network(world: World, **values: Any) -> World:
    return replace(world, network=replace(world.network, **values))


CAUSES = [
    (
        without_group(usual(), "sg-x"),
        "group-not-attached",
        "sg-hsm",
        "aws ec2 modify-network-interface-attribute --region eu-central-1 --network-interface-id eni-client --groups sg-x sg-hsm",
    ),
    (
        without_group(with_network(usual(), groups=None), "sg-x"),
        "group-not-attached",
        "sg-hsm",
        "aws ec2 modify-network-interface-attribute --region eu-central-1 --network-interface-id eni-client --groups sg-x sg-hsm",
    ),
    (
        without_group(usual(), "sg-x", "sg-1", "sg-2", "sg-3", "sg-4"),
        "group-rule-missing",
        "sg-hsm",
        ("aws ec2 authorize-security-group-ingress --region eu-central-1 --group-id sg-hsm"
        " --ip-permissions 'IpProtocol=tcp,FromPort=2223,ToPort=2225,UserIdGroupPairs=[{GroupId=sg-x}]'"),
    ),
    (
        with_network(usual(), groups=(SecurityGroup("sg-hsm", (GroupRule("tcp", 2223, 2224, groups=("sg-hsm",)),)), SecurityGroup("sg-x", (), (EVERYBODY,)))),
        "group-rule-missing",
        "sg-hsm",
        ("aws ec2 authorize-security-group-ingress --region eu-central-1 --group-id sg-hsm"
        " --ip-permissions 'IpProtocol=tcp,FromPort=2223,ToPort=2225,UserIdGroupPairs=[{GroupId=sg-hsm}]'"),
    ),
    (
        with_network(usual(), acls=(NetworkAcl("acl-1", ("subnet-a1",), (AclEntry(100, True, True, "-1", "0.0.0.0/0", 0, 65535),)),)),
        "network-acl-blocks",
        "acl-1",
        ("aws ec2 create-network-acl-entry --region eu-central-1 --network-acl-id acl-1 --ingress --rule-number 10"
        " --protocol tcp --port-range From=32768,To=60999 --cidr-block 10.0.2.6/32 --rule-action allow"),
    ),
    (
        with_network(usual(), tables=(RouteTable("rtb-1", "vpc-a", ("subnet-a1",), False, (VpcRoute("10.0.0.0/16", "local"), VpcRoute("10.0.2.0/24", "eni-gone", active=False))),)),
        "route-missing",
        "rtb-1",
        "aws ec2 delete-route --region eu-central-1 --route-table-id rtb-1 --destination-cidr-block 10.0.2.0/24",
    ),
    (
        replace(usual("subnet-b1"), network=replace(usual("subnet-b1").network, groups=(SecurityGroup("sg-hsm", (GroupRule("tcp", 2223, 2225, ("10.0.1.7/32",)),), ()), SecurityGroup("sg-x", (), (EVERYBODY,))))),
        "vpc-not-connected",
        "vpc-b",
        "aws ec2 create-vpc-peering-connection --region eu-central-1 --vpc-id vpc-a --peer-vpc-id vpc-b",
    ),
    (
        with_network(usual(), acls=(NetworkAcl("acl-2", ("subnet-a2",), (AclEntry(1, True, False, "6", "10.0.1.0/24", 40000, 50000), *DEFAULT)),)),
        "network-acl-blocks",
        "acl-2",
        "aws ec2 delete-network-acl-entry --region eu-central-1 --network-acl-id acl-2 --egress --rule-number 1",
    ),
    (
        with_network(
            usual("subnet-b1"),
            groups=(SecurityGroup("sg-hsm", (GroupRule("tcp", 2223, 2225, groups=("sg-x",)),)), SecurityGroup("sg-x", (), (EVERYBODY,))),
            attachments=(TransitAttachment("tgw-1", "vpc-a", "available"), TransitAttachment("tgw-1", "vpc-b", "available")),
        ),
        "group-rule-missing",
        "sg-hsm",
        ("aws ec2 authorize-security-group-ingress --region eu-central-1 --group-id sg-hsm"
        " --ip-permissions 'IpProtocol=tcp,FromPort=2223,ToPort=2225,IpRanges=[{CidrIp=10.0.1.7/32}]'"),
    ),
    (
        with_network(
            usual("subnet-b1"),
            groups=(SecurityGroup("sg-hsm", (GroupRule("tcp", 2223, 2225, groups=("sg-x",)),)), SecurityGroup("sg-x", (), (EVERYBODY,))),
            attachments=(TransitAttachment("tgw-1", "vpc-a", "available", references=True), TransitAttachment("tgw-1", "vpc-b", "available", references=True)),
        ),
        "route-missing",
        "rtb-a",
        "aws ec2 create-route --region eu-central-1 --route-table-id rtb-a --destination-cidr-block 10.1.1.0/24 --transit-gateway-id tgw-1",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("world", "code", "name", "command"), CAUSES, ids=range(len(CAUSES)))
def test_a_cause_is_named_with_its_id_and_the_command_that_cures_it(
    world: World, code: str, name: str, command: str
) -> None:
    obstacle = world.obstacle()
    assert obstacle is not None
    assert (obstacle.code, obstacle.id) == (code, name)
    assert obstacle.hint.startswith(f"`{command}`")
    is_full = len(world.client.interface.groups) >= MOST_GROUPS
    assert ("5 groups, and AWS allows 5" in obstacle.hint) is is_full
    assert CODES[obstacle.code].exit_status == 40


def test_a_full_interface_and_groups_that_nobody_described_are_cured_by_a_rule() -> None:
    full = without_group(with_network(usual(), groups=None), "sg-x", "sg-1", "sg-2", "sg-3", "sg-4")
    obstacle = full.obstacle()
    assert obstacle is not None
    assert (obstacle.code, obstacle.id, obstacle.saw) == (
        "group-not-attached", "sg-hsm", "eni-client has sg-x, sg-1, sg-2, sg-3, sg-4",
    )  # fmt: skip
    assert obstacle.command[2] == "authorize-security-group-ingress"
    assert obstacle.command[-1].endswith("UserIdGroupPairs=[{GroupId=sg-x}]")
    assert "5 groups, and AWS allows 5" in obstacle.hint


def test_a_group_of_another_vpc_may_match_while_nobody_knows_what_connects_them() -> None:
    rule = GroupRule("tcp", 2223, 2225, groups=("sg-x",))
    groups = (SecurityGroup("sg-hsm", (rule,)), SecurityGroup("sg-x", (), (EVERYBODY,)))
    world = without_group(with_network(usual("subnet-b1"), groups=groups, acls=None, tables=None), "sg-x")
    assert with_network(world, peerings=None).obstacle() is None
    assert with_network(world, attachments=None).obstacle() is None
    known = world.obstacle()
    assert known is not None
    assert known.code == "group-rule-missing"


@pytest.mark.parametrize("shown", ["vpc-a", "vpc-b"])
def test_a_transit_gateway_whose_other_side_is_another_accounts_is_not_blamed(shown: str) -> None:
    """EC2 shows an account its own VPCs' tables and attachments alone; the cluster's VPC may be of another one."""
    world = without_group(usual("subnet-b1"), "sg-x")
    groups = (
        SecurityGroup("sg-hsm", (GroupRule("tcp", 2223, 2225, groups=("sg-x",)),)),
        SecurityGroup("sg-x", (), (EVERYBODY,)),
    )
    other = "10.1.0.0/16" if shown == "vpc-a" else "10.0.0.0/16"
    local = "10.0.0.0/16" if shown == "vpc-a" else "10.1.0.0/16"
    table = RouteTable("rtb-1", shown, (), True, (VpcRoute(local, "local"), VpcRoute(other, "tgw-1")))
    mine = TransitAttachment("tgw-1", shown, "available", references=True)
    world = with_network(world, groups=groups, tables=(table,), attachments=(mine,), acls=())
    assert world.obstacle() is None
    elsewhere = replace(table, routes=(VpcRoute(local, "local"), VpcRoute(other, "tgw-2")))
    lost = with_network(world, tables=(elsewhere,)).obstacle()
    assert lost is not None
    assert lost.code == "vpc-not-connected"


def test_gateways_that_are_peered_connect_two_vpcs() -> None:
    routes = {
        "vpc-a": ("10.0.0.0/16", "10.1.0.0/16", "tgw-1"),
        "vpc-b": ("10.1.0.0/16", "10.0.0.0/16", "tgw-2"),
    }
    tables_ = tuple(
        RouteTable(f"rtb-{vpc}", vpc, (), True, (VpcRoute(own, "local"), VpcRoute(other, gateway)))
        for vpc, (own, other, gateway) in routes.items()
    )
    sides = tuple(TransitAttachment(each[2], vpc, "available") for vpc, each in routes.items())
    rule = GroupRule("tcp", 2223, 2225, ("10.0.1.7/32",))
    groups = (SecurityGroup("sg-hsm", (rule,)), SecurityGroup("sg-x", (), (EVERYBODY,)))
    world = without_group(usual("subnet-b1"), "sg-x")
    assert with_network(world, groups=groups, tables=tables_, attachments=sides).obstacle() is None


GROUP = "cluster-2abcdefghij-sg"


def test_a_group_that_is_known_by_its_name_is_attached_by_one_command_that_asks_for_its_id() -> None:
    mine = without_group(usual(), "sg-x", "sg-y").client.interface
    assert membership_obstacle(mine, ("web", GROUP), GROUP, REGION) is None
    found_ = membership_obstacle(mine, ("web", "db"), GROUP, REGION)
    assert found_ is not None
    assert (found_.code, found_.id, found_.want) == ("group-not-attached", GROUP, f"{GROUP} on eni-client")
    assert found_.hint == (
        "`aws ec2 modify-network-interface-attribute --region eu-central-1 --network-interface-id eni-client "
        "--groups sg-x sg-y $(aws ec2 describe-security-groups --region eu-central-1 --filters "
        f"Name=group-name,Values={GROUP} --query 'SecurityGroups[0].GroupId' --output text)`"
    )
    full = without_group(usual(), *(f"sg-{number}" for number in range(5))).client.interface
    rule = membership_obstacle(full, ("a", "b", "c", "d", "e"), GROUP, REGION)
    assert rule is not None
    assert rule.hint.startswith("`aws ec2 authorize-security-group-ingress")
    assert "UserIdGroupPairs=[{GroupId=sg-0}]" in rule.hint
    assert "5 groups" in rule.hint


def test_all_is_well_in_the_usual_world() -> None:
    assert usual().obstacle() is None
    assert reaches(usual())


def test_the_routes_of_a_gateway_endpoint_hide_nothing() -> None:
    table = RouteTable("rtb-1", "vpc-a", (), True, (VpcRoute("", "vpce-1"),))
    blind = with_network(usual(), tables=(table,)).obstacle()
    assert blind is not None
    assert (blind.code, blind.id, blind.command) == ("route-missing", "rtb-1", ())
    behind_a_list = replace(table, routes=(VpcRoute("", "pcx-1"),))
    assert with_network(usual(), tables=(behind_a_list,)).obstacle() is None
