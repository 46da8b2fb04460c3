"""Why TCP 2223-2225 does not get from an instance to an HSM: the first thing that stops it, there or back. Pure.

Groups come first, since they are the cause nearly always; then what connects two VPCs, routes, and ACLs. What was not
described, a prefix list's ranges, an appliance behind a route and a transit gateway's own tables are never blamed; only
an HSM's group that was not described is taken for what AWS makes: one that lets its members in.
"""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Union

from agent.aws.network import ANY_PROTOCOL, LAST_ENTRY, TCP
from agent.core.codes import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.aws.network import (
        AclEntry,
        GroupRule,
        Network,
        NetworkAcl,
        NetworkInterface,
        Peering,
        RouteTable,
        SecurityGroup,
        VpcRoute,
    )
    from agent.core.codes import CodeName

PORTS = (2223, 2225)
# From which ports a client connects: the kernels' defaults. Answers come back to these.
EPHEMERAL_LINUX = (32768, 60999)
EPHEMERAL_WINDOWS = (49152, 65535)
# AWS's quota of groups for one interface, unless the account has a larger one.
MOST_GROUPS = 5
# Routes to these lead out of AWS's sight, and what is behind them may well reach the HSM.
_OPAQUE = ("eni-", "i-", "vgw-", "vpce-", "lgw-", "cagw-", "arn:")

_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Span = tuple[int, int]


@dataclass(frozen=True)
class PathEnd:
    """One end of the path: an interface, and the address of it that is used."""

    interface: NetworkInterface
    address: str


@dataclass(frozen=True)
class Obstacle:
    """What stops the packets: its code, the id of what AWS calls it, and the command that cures it.

    Where no single command does, `command` is empty. `advice` is what has to be known beside the command.
    """

    code: CodeName
    id: str
    saw: str
    want: str
    command: tuple[str, ...] = ()
    advice: str = ""

    @property
    def hint(self) -> str:
        """The very command, and the advice; without either, what the code says."""
        command = f"`{shlex.join(self.command)}`" if self.command else ""
        return "; ".join(filter(None, (command, self.advice))) or CODES[self.code].fix


def find_obstacle(
    network: Network,
    client: PathEnd,
    hsm: PathEnd,
    *,
    region: str,
    ephemeral: Span = EPHEMERAL_LINUX,
    tried: Span = PORTS,
    is_let_in: bool = False,
) -> Obstacle | None:
    """Return the first thing that stops `tried` ports from `client` to `hsm`, or the answers; None where nothing does.

    `ephemeral` are the ports from which the client connects, and to which the answers come. `is_let_in`: another HSM
    of the cluster is reached, so that the group of all of them, where it was not described, is not the cause.
    """
    path = _Path(network, client, hsm, region, ephemeral, tried, is_let_in)
    return (
        path.ingress_obstacle()
        or path.egress_obstacle()
        or path.connection_obstacle()
        or path.route_obstacle(client, hsm)
        or path.route_obstacle(hsm, client)
        or path.acl_obstacle()
    )


def find_entry_obstacle(
    network: Network, source: str, host: PathEnd, port: int, *, region: str
) -> Obstacle | None:
    """Return what stops TCP to a port of an instance from an address whose own network AWS does not show."""
    outside = PathEnd(replace(host.interface, id="", vpc="", subnet="", groups=()), source)
    path = _Path(network, outside, host, region, EPHEMERAL_LINUX, (port, port), False)
    return path.ingress_obstacle() or path.acl_obstacle()


def find_public_obstacle(network: Network, host: PathEnd, port: int, *, region: str) -> Obstacle | None:
    """Return that an instance lets no public address in to a TCP port, for one that nobody knows; None where some are.

    The command asks AWS itself for the address that it sees, which a shell runs as it is.
    """
    groups = _named(network.groups, host.interface.groups)
    rules = [rule for each in groups or () for rule in each.ingress if _is_tcp(rule)]
    let_in = [rule for rule in rules if _covers([_ports_of(rule)], (port, port))]
    if groups is None or any(rule.opaque or any(map(_is_public, rule.ranges)) for rule in let_in):
        return None
    group = groups[0].id
    pair = f"IpProtocol=tcp,FromPort={port},ToPort={port},IpRanges=[{{CidrIp=$(curl -s https://checkip.amazonaws.com)/32}}]"
    place = f"--region {shlex.quote(region)} --group-id {shlex.quote(group)}"
    return Obstacle(
        "group-rule-missing",
        group,
        saw=f"{group} lets no public address in to TCP {port}",
        want=f"TCP {port} from this machine's public address in {group}",
        advice=f'`aws ec2 authorize-security-group-ingress {place} --ip-permissions "{pair}"`',
    )


def membership_obstacle(
    mine: NetworkInterface, names: Sequence[str], group: str, region: str
) -> Obstacle | None:
    """Return that an interface is not in the cluster's group, of which the name alone is known; None where it is.

    `names` are those of the interface's own groups. The id of the cluster's group is asked for by the command itself,
    which a shell and PowerShell run as it is.
    """
    if group in names:
        return None
    place = f"--region {shlex.quote(region)}"
    wanted = (
        f"$(aws ec2 describe-security-groups {place} --filters Name=group-name,Values={shlex.quote(group)} "
        "--query 'SecurityGroups[0].GroupId' --output text)"
    )
    own = shlex.join(mine.groups)
    if len(mine.groups) < MOST_GROUPS:
        command = (
            f"modify-network-interface-attribute {place} --network-interface-id {shlex.quote(mine.id)} "
            f"--groups {own} {wanted}"
        )
        advice = f"`aws ec2 {command}`"
    else:
        pair = f"IpProtocol=tcp,FromPort={PORTS[0]},ToPort={PORTS[1]},UserIdGroupPairs=[{{GroupId={mine.groups[0]}}}]"
        command = f"authorize-security-group-ingress {place} --group-id {wanted} --ip-permissions '{pair}'"
        advice = f"`aws ec2 {command}`; {_full(mine)}"
    return Obstacle(
        "group-not-attached",
        group,
        saw=f"{mine.id} has {', '.join(_both(names, mine.groups)) or 'no group'}",
        want=f"{group} on {mine.id}",
        advice=advice,
    )


def _both(names: Sequence[str], ids: Sequence[str]) -> tuple[str, ...]:
    """Return the groups by name and id; the metadata service does not say that both lists have one order."""
    return (*names, *(f"({each})" for each in ids)) if len(names) == 1 == len(ids) else (*names, *ids)


def _full(mine: NetworkInterface) -> str:
    return (
        f"{mine.id} has {len(mine.groups)} groups, and AWS allows {MOST_GROUPS} unless the quota was raised: this rule "
        f"lets {mine.groups[0]} in instead"
    )


@dataclass(frozen=True)
class _Path:
    network: Network
    client: PathEnd
    hsm: PathEnd
    region: str
    ephemeral: Span
    tried: Span
    is_let_in: bool

    @property
    def _one_vpc(self) -> bool:
        return self.client.interface.vpc == self.hsm.interface.vpc

    @property
    def _one_subnet(self) -> bool:
        return self.client.interface.subnet == self.hsm.interface.subnet

    def _aws(self, *words: str) -> tuple[str, ...]:
        return ("aws", "ec2", words[0], "--region", self.region, *words[1:])

    # security groups

    def ingress_obstacle(self) -> Obstacle | None:
        """Judge the groups of the HSM: do they let this client in?"""
        mine, theirs = self.client.interface, self.hsm.interface
        groups = _named(self.network.groups, theirs.groups)
        if groups is None:  # AWS makes the group of a cluster with rules for its members
            is_member = bool(set(mine.groups) & set(theirs.groups))
            if not theirs.groups or not self._one_vpc or is_member or self.is_let_in:
                return None
            if len(mine.groups) < MOST_GROUPS:
                return self._not_attached(theirs.groups[0])
            rule = self._rule_missing("ingress", theirs.groups[0], self.client)
            saw = f"{mine.id} has {', '.join(mine.groups)}"
            return replace(rule, code="group-not-attached", saw=saw, advice=_full(mine))
        if self._passes((rule for each in groups for rule in each.ingress), self.client):
            return None
        own = next((each for each in groups if _covers(_own_spans(each), self.tried)), None)
        if own and self._one_vpc and own.id not in mine.groups and len(mine.groups) < MOST_GROUPS:
            return self._not_attached(own.id)
        rule = self._rule_missing("ingress", theirs.groups[0], self.client)
        is_full = own and self._one_vpc and own.id not in mine.groups
        return replace(rule, advice=_full(mine)) if is_full else rule

    def egress_obstacle(self) -> Obstacle | None:
        """Judge the groups of the client: do they let it out to the HSM? Answers pass, as groups are stateful."""
        groups = _named(self.network.groups, self.client.interface.groups)
        if groups is None or self._passes((rule for each in groups for rule in each.egress), self.hsm):
            return None
        return self._rule_missing("egress", self.client.interface.groups[0], self.hsm)

    def _passes(self, rules: Iterable[GroupRule], peer: PathEnd) -> bool:
        """Tell whether rules let all that is tried through from or to a peer; one that nobody can read does."""
        spans: list[Span] = []
        for rule in rules:
            if not _is_tcp(rule):
                continue
            named = self._references_work and set(rule.groups) & set(peer.interface.groups)
            if rule.opaque or named or any(_contains(each, peer.address) for each in rule.ranges):
                spans.append(_ports_of(rule))
        return _covers(spans, self.tried)

    @property
    def _references_work(self) -> bool:
        """Whether a rule that names a group matches: within a VPC, over a peering, and over some transit gateways."""
        if self._one_vpc or any(each.state == "active" for each in self._peerings()):
            return True
        if self.network.peerings is None or self.network.attachments is None:
            return True  # nobody knows, and nothing is blamed on that
        sides = [each for each in self.network.attachments or () if each.vpc in self._vpcs]
        # of a VPC of another account no attachment is shown
        known = {each.vpc for each in sides}
        return bool(sides) and known == {each.vpc for each in sides if each.references}

    def _not_attached(self, group: str) -> Obstacle:
        mine = self.client.interface
        return Obstacle(
            "group-not-attached",
            group,
            saw=f"{mine.id} has {', '.join(mine.groups) or 'no group'}",
            want=f"{group} on {mine.id}",
            command=self._aws(
                "modify-network-interface-attribute",
                "--network-interface-id",
                mine.id,
                "--groups",
                *mine.groups,
                group,
            ),
        )

    def _rule_missing(self, direction: str, group: str, peer: PathEnd) -> Obstacle:
        """Name the rule that is missing; within a VPC by a group of the peer, else by its address."""
        if self._one_vpc and peer.interface.groups:
            own = group if group in peer.interface.groups else peer.interface.groups[0]
            who, words = own, f"UserIdGroupPairs=[{{GroupId={own}}}]"
        elif ":" in peer.address:
            who, words = peer.address, f"Ipv6Ranges=[{{CidrIpv6={peer.address}/128}}]"
        else:
            who, words = peer.address, f"IpRanges=[{{CidrIp={peer.address}/32}}]"
        way = "from" if direction == "ingress" else "to"
        # an HSM takes all its ports, whichever was tried
        first, last = PORTS if PORTS[0] <= self.tried[0] <= PORTS[1] else self.tried
        ports = str(first) if first == last else f"{first}-{last}"
        return Obstacle(
            "group-rule-missing",
            group,
            saw=f"{group} has no {direction} rule for TCP {ports} {way} {who}",
            want=f"TCP {ports} {way} {who} in {group}",
            command=self._aws(
                f"authorize-security-group-{direction}",
                "--group-id",
                group,
                "--ip-permissions",
                f"IpProtocol=tcp,FromPort={first},ToPort={last},{words}",
            ),
        )

    # what connects two VPCs, and the routes

    @property
    def _vpcs(self) -> tuple[str, str]:
        return self.client.interface.vpc, self.hsm.interface.vpc

    def _peerings(self) -> list[Peering]:
        return [each for each in self.network.peerings or () if set(each.vpcs) == set(self._vpcs)]

    def _gateways(self) -> list[str]:
        """Return the transit gateways that are attached to both VPCs."""
        ready = [each for each in self.network.attachments or () if each.state == "available"]
        here, there = ({each.gateway for each in ready if each.vpc == vpc} for vpc in self._vpcs)
        return sorted(here & there)

    def connection_obstacle(self) -> Obstacle | None:
        """Judge what connects the two VPCs: an active peering, a transit gateway, or what a route leads to unseen."""
        network = self.network
        if self._one_vpc or network.peerings is None or network.attachments is None:
            return None
        if self._gateways() or any(each.state == "active" for each in self._peerings()):
            return None
        if all(self._leads_elsewhere(*ends) for ends in ((self.client, self.hsm), (self.hsm, self.client))):
            return None
        waiting = next((each for each in self._peerings() if each.state == "pending-acceptance"), None)
        here, there = self._vpcs
        command = self._aws("create-vpc-peering-connection", "--vpc-id", here, "--peer-vpc-id", there)
        if waiting:
            command = self._aws("accept-vpc-peering-connection", "--vpc-peering-connection-id", waiting.id)
        return Obstacle(
            "vpc-not-connected",
            waiting.id if waiting else there,
            saw=f"{waiting.id} is {waiting.state}" if waiting else f"nothing connects {here} and {there}",
            want="an active peering or a transit gateway",
            command=command,
        )

    def _leads_elsewhere(self, source: PathEnd, goal: PathEnd) -> bool:
        table = self._table(source.interface)
        route = table and _best_route(table, goal.address)
        unseen = route and (_is_opaque(route) or self._enters_gateway(route, source))
        return table is None or bool(route and route.active and unseen)

    def _table(self, interface: NetworkInterface) -> RouteTable | None:
        """Return the route table of an interface's subnet, None when it was not described."""
        tables = [each for each in self.network.tables or () if each.vpc == interface.vpc]
        named = [each for each in tables if interface.subnet in each.subnets]
        return next(iter(named or [each for each in tables if each.main]), None)

    def route_obstacle(self, source: PathEnd, goal: PathEnd) -> Obstacle | None:
        """Judge the route from one end to the other; within a subnet nothing is routed."""
        table = self._table(source.interface)
        if table is None or self._one_subnet or any(_is_prefix_list(each) for each in table.routes):
            return None
        route = _best_route(table, goal.address)
        if route is not None and route.active and (_is_opaque(route) or self._connects(route, source)):
            return None
        seen = f"{route.destination} to {route.target or 'nowhere'}" if route else "no route"
        state = "" if route is None or route.active else " (blackhole)"
        return Obstacle(
            "route-missing",
            table.id,
            saw=f"{table.id} has {seen}{state} for {goal.address}",
            want=f"a route from {source.interface.subnet} to {goal.address}",
            command=self._route_command(table, route, goal),
        )

    def _enters_gateway(self, route: VpcRoute, source: PathEnd) -> bool:
        """Tell whether a route leads into a transit gateway that this VPC is attached to.

        The goal's attachment may be of another account, or of a gateway that is peered with this one: neither is shown.
        """
        attachments = self.network.attachments or ()
        here = (
            each for each in attachments if each.vpc == source.interface.vpc and each.state == "available"
        )
        return route.target in {each.gateway for each in here}

    def _connects(self, route: VpcRoute, source: PathEnd) -> bool:
        if self._one_vpc:
            return route.target == "local"
        if self.network.peerings is None or self.network.attachments is None:
            return route.target.startswith(("pcx-", "tgw-"))
        peered = (each.id for each in self._peerings() if each.state == "active")
        return route.target in peered or self._enters_gateway(route, source)

    def _route_command(self, table: RouteTable, route: VpcRoute | None, goal: PathEnd) -> tuple[str, ...]:
        """Return what makes the right route the most specific one: a new one, or another target for the wrong one."""
        kind = "--destination-ipv6-cidr-block" if ":" in goal.address else "--destination-cidr-block"
        words = ("--route-table-id", table.id, kind)
        if self._one_vpc:  # the local route is always there, and only a more specific one can hide it
            return self._aws("delete-route", *words, route.destination) if route else ()
        peering = next((each.id for each in self._peerings() if each.state == "active"), None)
        target: tuple[str, ...] = ("--vpc-peering-connection-id", peering or "")
        if peering is None:
            gateway = next(iter(self._gateways()), None)
            if gateway is None:  # what connects the VPCs was not described
                return ()
            target = ("--transit-gateway-id", gateway)
        ranges = next((each.ranges for each in self.network.subnets if each.id == goal.interface.subnet), ())
        wanted = next((each for each in ranges if _contains(each, goal.address)), None)
        wanted = wanted or f"{goal.address}/{128 if ':' in goal.address else 32}"
        if route is not None and _length(route.destination) >= _length(wanted):
            if route.target == "local":  # the ranges of the VPCs overlap: no route can tell them apart
                return ()
            return self._aws("replace-route", *words, route.destination, *target)
        return self._aws("create-route", *words, wanted, *target)

    # network ACLs

    def acl_obstacle(self) -> Obstacle | None:
        """Judge the ACLs of both subnets, for what goes there and for what comes back; within a subnet none counts."""
        if self._one_subnet or self.network.acls is None:
            return None
        here, there = self.client, self.hsm
        passages = (
            (here, there, True, self.tried),
            (there, here, False, self.tried),
            (there, here, True, self.ephemeral),
            (here, there, False, self.ephemeral),
        )
        return next(filter(None, (self._acl_obstacle(*passage) for passage in passages)), None)

    def _acl_obstacle(self, end: PathEnd, peer: PathEnd, egress: bool, ports: Span) -> Obstacle | None:
        subnet = end.interface.subnet
        acl = next((each for each in self.network.acls or () if subnet in each.subnets), None)
        if acl is None:
            return None
        number = _blocking_number(acl, egress, peer.address, ports)
        if number is None:
            return None
        direction = "egress" if egress else "ingress"
        span = f"{ports[0]}-{ports[1]}" if ports[0] < ports[1] else f"{ports[0]}"
        way = "to" if egress else "from"
        rule = "its last rule" if number == LAST_ENTRY else f"rule {number}"
        return Obstacle(
            "network-acl-blocks",
            acl.id,
            saw=f"{rule} of {acl.id} ({subnet}) denies {direction} of TCP {span} {way} {peer.address}",
            want=f"TCP {span} {way} {peer.address} allowed",
            command=self._acl_command(acl, number, direction, peer.address, ports),
        )

    def _acl_command(
        self, acl: NetworkAcl, number: int, direction: str, address: str, ports: Span
    ) -> tuple[str, ...]:
        """Return the entry that lets the packets pass, before the one that denies them; with no room, delete that."""
        taken = {each.number for each in acl.entries if each.egress is (direction == "egress")}
        before = max((each for each in taken if each < number), default=0)
        free = [
            each for each in (before + 10, *range(number - 1, 0, -1)) if each < number and each not in taken
        ]
        words = ("--network-acl-id", acl.id, f"--{direction}", "--rule-number")
        if not free:
            return self._aws("delete-network-acl-entry", *words, str(number))
        wide = ":" in address
        return self._aws(
            "create-network-acl-entry",
            *words,
            str(free[0]),
            "--protocol",
            "tcp",
            "--port-range",
            f"From={ports[0]},To={ports[1]}",
            "--ipv6-cidr-block" if wide else "--cidr-block",
            f"{address}/{128 if wide else 32}",
            "--rule-action",
            "allow",
        )


def _named(groups: Sequence[SecurityGroup] | None, ids: Sequence[str]) -> list[SecurityGroup] | None:
    """Return the groups of these ids, None unless all of them were described."""
    found = [each for each in groups or () if each.id in ids]
    return found if found and len(found) == len(set(ids)) else None


def _own_spans(group: SecurityGroup) -> list[Span]:
    """Return the ports at which a group lets its own members in."""
    return [_ports_of(rule) for rule in group.ingress if group.id in rule.groups and _is_tcp(rule)]


def _is_tcp(rule: GroupRule | AclEntry) -> bool:
    return rule.protocol in (ANY_PROTOCOL, *TCP)


def _ports_of(rule: GroupRule | AclEntry) -> Span:
    return (0, 65535) if rule.protocol == ANY_PROTOCOL else (rule.first, rule.last)


def _is_opaque(route: VpcRoute) -> bool:
    return route.target.startswith(_OPAQUE)


def _is_prefix_list(route: VpcRoute) -> bool:
    """Tell whether a route's destinations are unknown; those of a gateway endpoint are S3's or DynamoDB's."""
    return not route.destination and not route.target.startswith("vpce-")


def _best_route(table: RouteTable, address: str) -> VpcRoute | None:
    """Return the most specific route of an address."""
    matching = [each for each in table.routes if _contains(each.destination, address)]
    return max(matching, key=lambda each: _length(each.destination), default=None)


def _blocking_number(acl: NetworkAcl, egress: bool, address: str, ports: Span) -> int | None:
    """Return the number of the entry that denies some of these ports, None when all of them pass."""
    undecided = [ports]
    for entry in sorted(acl.entries, key=lambda each: each.number):
        if entry.egress is not egress or not _matches(entry, address):
            continue
        rest = _without(undecided, _ports_of(entry))
        if rest != undecided and not entry.allows:
            return entry.number
        undecided = rest
    return LAST_ENTRY if undecided else None


def _matches(entry: AclEntry, address: str) -> bool:
    return _is_tcp(entry) and _contains(entry.range, address)


def _without(spans: Iterable[Span], taken: Span) -> list[Span]:
    """Return what is left of spans of ports without one of them."""
    first, last = taken
    left = [
        part
        for begin, end in spans
        for part in ((begin, min(end, first - 1)), (max(begin, last + 1), end))
        if part[0] <= part[1]
    ]
    return sorted(set(left))


def _covers(spans: Iterable[Span], wanted: Span) -> bool:
    left = [wanted]
    for span in spans:
        left = _without(left, span)
    return not left


def _contains(text: str, address: str) -> bool:
    """Tell whether a range holds an address; a prefix list's id, and the other family, hold none."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    held: _Address = ipaddress.ip_address(address)
    return held.version == network.version and held in network


def _is_public(text: str) -> bool:
    """Tell whether a range holds public addresses; a prefix list's id holds none."""
    try:
        return not ipaddress.ip_network(text, strict=False).is_private
    except ValueError:
        return False


def _length(text: str) -> int:
    return int(text.rpartition("/")[2])
