"""What AWS says of a cluster and what this host has, as one value: who reaches which HSM, the CA, the risks. Pure."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.aws.network import Network, NetworkInterface
from agent.aws.path import EPHEMERAL_LINUX, EPHEMERAL_WINDOWS, PathEnd
from agent.aws.reachability import BlockedPath, Reachability
from agent.cloudhsm.ca_proof import CaProof, prove_ca
from agent.cloudhsm.cluster import (
    activation_error,
    canonical_address,
    client_error,
    cluster_error,
    cluster_notices,
    group_name,
)
from agent.core.codes import CODES
from agent.core.notices import WARNINGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.aws.inventory import Instance, OtherInterface, VpcSurvey
    from agent.cloudhsm.cluster import ClusterDescription, ClusterHsm
    from agent.core.errors import AgentError

# AWS makes a backup at least once a day (User Guide, "Cluster backups").
_BACKUP_OLD = dt.timedelta(days=2)
# User Guide, "HSM types": the day from which hsm1.medium is out of support
_HSM1_ENDS = dt.date(2026, 3, 31)


@dataclass(frozen=True)
class Risk:
    """Something true of the cluster that may hurt one day, or a question that AWS did not answer; and what to do."""

    code: str
    text: str
    cure: str


@dataclass(frozen=True)
class VpcInstance:
    """An instance of the cluster's VPC. `interface` is the one that its path to the HSMs starts at.

    `reaches`: whether AWS's network lets it reach every HSM, None where that is not known.
    """

    instance: Instance
    interface: NetworkInterface | None
    in_group: bool
    is_this_host: bool = False
    reaches: bool | None = None
    blocked: tuple[BlockedPath, ...] = ()


@dataclass(frozen=True)
class HostSide:
    """What this host has: its instance id and interface by its metadata, its client, its configuration, its CA.

    `interface` is None where there are several, or none is known. `servers` are the addresses of each component's
    configuration, `clients` the version (X.Y.Z as numbers) by SDK and component, `ca_source` says where `ca` is from.
    """

    name: str
    instance_id: str | None = None
    interface: NetworkInterface | None = None
    servers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clients: Mapping[tuple[int, str], tuple[int, ...]] = field(default_factory=dict)
    ca: bytes | None = None
    ca_source: str = ""


@dataclass(frozen=True)
class ConfigurationMatch:
    """One component's configuration against the cluster: HSMs whose address it lacks, addresses no HSM has."""

    component: str
    servers: tuple[str, ...]
    missing: tuple[str, ...]
    foreign: tuple[str, ...]


@dataclass(frozen=True)
class ClusterView:
    """A cluster with its surroundings. `instances` and `others` are None where they are not known.

    `subnet_ranges` and `zones` are those of subnets, by their ids, as far as they are known.
    `in_group` tells whether this host is in the cluster's group, None where that is not known; `backup` is the time of
    the newest backup, None where it is not known or there is none; `error` is why clients cannot use the cluster.
    """

    cluster: ClusterDescription
    named_by: str
    asked: dt.datetime
    group_name: str
    subnet_ranges: Mapping[str, str]
    zones: Mapping[str, str]
    instances: tuple[VpcInstance, ...] | None
    others: tuple[OtherInterface, ...] | None
    host: HostSide
    in_group: bool | None
    matches: tuple[ConfigurationMatch, ...]
    ca: CaProof | None
    backup: dt.datetime | None
    risks: tuple[Risk, ...]
    error: AgentError | None


def view_cluster(
    cluster: ClusterDescription, survey: VpcSurvey, host: HostSide, *, now: dt.datetime, named_by: str
) -> ClusterView:
    """Return what the answers say together; `named_by` says who named this cluster."""
    name = next(
        (
            each.name
            for each in survey.network.groups or ()
            if each.id == cluster.security_group and each.name
        ),
        group_name(cluster.id),
    )
    instances = _instances(cluster, survey, host)
    others = None
    if survey.others is not None:
        own = {each.interface for each in cluster.hsms}
        others = tuple(each for each in survey.others if each.interface.id not in own)
    view = ClusterView(
        cluster=cluster,
        named_by=named_by,
        asked=now,
        group_name=name,
        subnet_ranges={each.id: " ".join(each.ranges) for each in survey.network.subnets},
        zones={
            **{each.subnet: each.zone for each in cluster.hsms},
            **{each.id: each.zone for each in survey.network.subnets},
        },
        instances=instances,
        others=others,
        host=host,
        in_group=_in_group(cluster, instances, host),
        matches=tuple(_match(cluster, *each) for each in sorted(host.servers.items())),
        ca=_proof(cluster, host),
        backup=dt.datetime.fromtimestamp(survey.backup, dt.timezone.utc) if survey.backup else None,
        risks=(),
        error=cluster_error(cluster) or activation_error(cluster),
    )
    return replace(view, risks=tuple(_risks(view, survey)))


def _in_group(
    cluster: ClusterDescription, instances: Sequence[VpcInstance] | None, host: HostSide
) -> bool | None:
    """Tell whether this host is in the group: by what EC2 describes, else by its metadata."""
    described = [each.in_group for each in instances or () if each.is_this_host]
    if described:
        return described[0]
    return None if host.interface is None else cluster.security_group in host.interface.groups


# who reaches which HSM


def _instances(
    cluster: ClusterDescription, survey: VpcSurvey, host: HostSide
) -> tuple[VpcInstance, ...] | None:
    if survey.instances is None:
        return None
    paths = _Paths(cluster, survey)
    found = (paths.judge(each, is_this_host=each.id == host.instance_id) for each in survey.instances)
    return tuple(sorted(found, key=_order))


def _order(each: VpcInstance) -> tuple[object, ...]:
    """Sort this host first, then members of the group, of them those that are blocked; then by name, 2 before 10."""
    instance = each.instance
    parts = re.split(r"([0-9]{1,9})", instance.name)
    natural = tuple((int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts))
    return (not each.is_this_host, not each.in_group, not each.blocked, natural, instance.id)


class _Paths:
    """The paths from instances to the usable HSMs of a cluster."""

    def __init__(self, cluster: ClusterDescription, survey: VpcSurvey) -> None:
        self._cluster = cluster
        # only groups, ACLs and routes together tell that nothing stops a packet
        self._is_known = None not in (survey.network.groups, survey.network.acls, survey.network.tables)
        ends = [_end_of(cluster, each).address for each in cluster.hsms if each.is_usable]
        self._has_hsms = bool(ends)
        self._families = {":" in each for each in ends}
        self._reachability = _reachability(cluster, survey.network)

    def judge(self, instance: Instance, *, is_this_host: bool) -> VpcInstance:
        interface = self._interface_of(instance)
        in_group = interface is not None and self._cluster.security_group in interface.groups
        ports = EPHEMERAL_WINDOWS if instance.is_windows else EPHEMERAL_LINUX
        blocked = self._reachability.blocked(interface, ports) if interface else ()
        reaches = None
        if interface is not None and self._has_hsms and (self._is_known or blocked):
            own = {":" in each for each in interface.addresses}
            # whether an instance of a subnet without IPv4 has another way (NAT64, say) is not known
            reaches = False if blocked else self._families <= own or None
        return VpcInstance(instance, interface, in_group, is_this_host, reaches, blocked)

    def _interface_of(self, instance: Instance) -> NetworkInterface | None:
        """Return the interface that is in the group, else the first one in the VPC of the cluster."""
        near = [each for each in instance.interfaces if each.vpc == self._cluster.vpc and each.addresses]
        members = [each for each in near if self._cluster.security_group in each.groups]
        return next(iter(members or near), None)


def _reachability(cluster: ClusterDescription, network: Network) -> Reachability:
    """Return the paths to the usable HSMs, as far as the network is known."""
    ends = [(each.id, _end_of(cluster, each)) for each in cluster.hsms if each.is_usable]
    return Reachability(network, ends, cluster.region)


def _end_of(cluster: ClusterDescription, hsm: ClusterHsm) -> PathEnd:
    groups = tuple(filter(None, (cluster.security_group,)))
    interface = NetworkInterface(hsm.interface, cluster.vpc, hsm.subnet, groups, hsm.addresses)
    return PathEnd(interface, hsm.addresses[0])


# this host


def _match(cluster: ClusterDescription, component: str, servers: tuple[str, ...]) -> ConfigurationMatch:
    known = frozenset[str]().union(*(hsm.canonical_addresses for hsm in cluster.hsms))
    there = cluster.usable_at(servers)
    missing = tuple(each.ipv4 or each.ipv6 for each in cluster.hsms if each.is_usable and each not in there)
    foreign = tuple(each for each in servers if canonical_address(each) not in known)
    return ConfigurationMatch(component, servers, missing, foreign)


def _proof(cluster: ClusterDescription, host: HostSide) -> CaProof | None:
    if host.ca is None:
        return None
    if not cluster.certificate:
        return CaProof(None, "AWS shows no certificate of the cluster yet")
    return prove_ca(host.ca, cluster.certificate.encode())


# risks


def _risks(view: ClusterView, survey: VpcSurvey) -> Iterator[Risk]:
    """Yield what may hurt, the most urgent first; then what AWS did not answer."""
    for notice in cluster_notices(view.cluster):
        yield _risk(notice.code, notice.text)
    yield from _host_risks(view)
    yield from _hsm_risks(view)
    yield from _account_risks(view, survey)
    for each in survey.unanswered:
        yield Risk(each.code, f"{each.permission} was not answered: {each.saw}", each.hint)


def _host_risks(view: ClusterView) -> Iterator[Risk]:
    cluster = view.cluster
    if view.ca is not None and view.ca.error is not None:
        yield _of_code("ca-not-of-cluster", f"{view.host.ca_source}: {view.ca.saw}")
    if view.instances is None and view.host.interface is not None:
        for path in _reachability(cluster, Network()).blocked(view.host.interface, EPHEMERAL_LINUX):
            obstacle = path.obstacle
            yield Risk(obstacle.code, f"this host is not in {view.group_name}: {obstacle.saw}", obstacle.hint)
    for each in view.matches:
        parts = [f"lacks {', '.join(each.missing)}"] if each.missing else []
        parts += [f"has {', '.join(each.foreign)}, where no HSM is"] if each.foreign else []
        if parts:
            text = f"the configuration of {each.component} {' and '.join(parts)}"
            yield _risk("cluster-addresses-changed", text)
    for (sdk, component), version in sorted(view.host.clients.items()):
        error = client_error(cluster, sdk, version)
        if error is not None:
            yield _of_code(error.code.name, f"{component}: {error.sentence}; wanted {error.want}")


def _hsm_risks(view: ClusterView) -> Iterator[Risk]:
    cluster = view.cluster
    usable = [each for each in cluster.hsms if each.is_usable]
    if len(usable) == 1:
        text = "while AWS replaces it after a failure, nothing works, and keys newer than the last backup are lost"
        yield _risk("single-hsm", f"{cluster.id} has one HSM: {text}")
    zones = {each.zone for each in usable if each.zone}
    if len(usable) > 1 and len(zones) == 1:
        text = f"all {len(usable)} HSMs are in {', '.join(zones)}: a failure of this zone stops them all"
        yield _risk("single-zone", text)
    if cluster.hsm_type.startswith("hsm1"):
        ends = "ends" if view.asked.date() <= _HSM1_ENDS else "ended"
        yield _risk(
            "hsm-type-ending", f"the HSMs are {cluster.hsm_type}, whose support {ends} on {_HSM1_ENDS}"
        )


def _account_risks(view: ClusterView, survey: VpcSurvey) -> Iterator[Risk]:
    if survey.backup is not None and view.error is None:
        if view.backup is None:
            yield _risk("backup-old", f"AWS lists no finished backup of {view.cluster.id}")
        elif view.asked - view.backup > _BACKUP_OLD:
            days = (view.asked - view.backup).days
            yield _risk("backup-old", f"the newest backup is {days} days old; AWS makes one every day")
    if survey.has_service_role is False:
        text = (
            "the account has no role AWSServiceRoleForCloudHSM, so that the HSMs' audit logs are not written"
        )
        yield _risk("service-role-missing", text)


def _risk(code: str, text: str) -> Risk:
    return Risk(code, text, WARNINGS[code].fix)


def _of_code(code: str, text: str) -> Risk:
    return Risk(code, text, CODES[code].fix)
