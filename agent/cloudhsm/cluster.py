"""What DescribeClusters' answer means for a client: addresses, state, what stands against it. Pure.

Every member of the answer but an HSM's id is optional, and states that are not known here are carried through. It holds
a secret, PreCoPassword, which is left in it.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError
from agent.core.model import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CLUSTER_ID = re.compile(r"cluster-[2-7a-zA-Z]{11,16}")

# An HSM that is on its way may have an address already or still, and does not answer there.
_COMING = ("CREATE_IN_PROGRESS",)
_GONE = ("DELETE_IN_PROGRESS", "DELETED")
# of a cluster: before there is a CA, nobody can connect
_WITHOUT_CA = ("UNINITIALIZED", "INITIALIZE_IN_PROGRESS")
# These pass by themselves; all others want somebody to do something.
_PASSING = ("CREATE_IN_PROGRESS", "INITIALIZE_IN_PROGRESS")
_MIGRATING = ("MODIFY_IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "PENDING_ROLLBACK")
# the first client that knows hsm2m (CloudHSM User Guide, "HSM types")
_HSM2M_CLIENT = (5, 9, 0)


@dataclass(frozen=True)
class ClusterHsm:
    """One HSM. `ipv4` and `ipv6` are addresses of one network interface; while it comes, it has neither.

    `message` is AWS's sentence on its state.
    """

    id: str
    state: str
    zone: str = ""
    subnet: str = ""
    interface: str = ""
    ipv4: str = ""
    ipv6: str = ""
    message: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return its addresses, the IPv4 one first."""
        return tuple(filter(None, (self.ipv4, self.ipv6)))

    @property
    def is_usable(self) -> bool:
        return bool(self.ipv4 or self.ipv6) and self.state not in (*_COMING, *_GONE)

    @property
    def canonical_addresses(self) -> frozenset[str]:
        """Its addresses, each in its one spelling."""
        return frozenset(map(canonical_address, self.addresses))

    @property
    def is_moving(self) -> bool:
        """Whether AWS is still making or deleting it, so that the list of addresses will change."""
        return self.state in (*_COMING, "DELETE_IN_PROGRESS") or not (
            self.ipv4 or self.ipv6 or self.state in _GONE
        )


@dataclass(frozen=True)
class ClusterDescription:
    """A cluster as AWS describes it. `certificate` is ClusterCertificate, empty before initialisation.

    `message` is AWS's sentence on its state.
    """

    id: str
    state: str
    region: str
    hsm_type: str = ""
    mode: str = ""
    vpc: str = ""
    security_group: str = ""
    subnets: tuple[str, ...] = ()
    certificate: str = field(default="", repr=False)
    hsms: tuple[ClusterHsm, ...] = ()
    message: str = ""

    def addresses(self, known: Sequence[str] = (), *, ipv6: bool = False) -> tuple[str, ...]:
        """Return one address for each usable HSM: of two the one in `known`, else IPv4, or IPv6 where `ipv6` says so.

        `known` are the addresses in use: the other address of the same HSM is no change.
        """
        usable = (each.addresses[::-1] if ipv6 else each.addresses for each in self.hsms if each.is_usable)
        there = set(map(canonical_address, known))
        return tuple(
            next((each for each in both if canonical_address(each) in there), both[0]) for both in usable
        )

    def usable_at(self, given: Sequence[str]) -> tuple[ClusterHsm, ...]:
        """Return the usable HSMs that have one of these addresses, whichever of their two it is."""
        known = set(map(canonical_address, given))
        return tuple(each for each in self.hsms if each.is_usable and known & each.canonical_addresses)

    @property
    def is_moving(self) -> bool:
        """Whether the list of addresses will change soon: who writes it down should ask again."""
        return any(each.is_moving for each in self.hsms)

    @property
    def may_become_ready(self) -> bool:
        """Whether waiting can help against what `error` says."""
        return self.state in _PASSING or (self.state not in (*_GONE, *_WITHOUT_CA) and self.is_moving)

    @property
    def is_activated(self) -> bool:
        """Whether `cluster activate` was run, as far as the state says: only INITIALIZED says that it was not."""
        return self.state != "INITIALIZED"


@dataclass(frozen=True)
class NamedCluster:
    """The cluster that was named: as AWS describes it, or why it does not."""

    id: str
    description: ClusterDescription | None
    unknown: AgentError | None = None

    @property
    def error(self) -> AgentError | None:
        """Why no client can use it, or why that is not known."""
        return self.unknown if self.description is None else cluster_error(self.description)


def group_name(cluster_id: str) -> str:
    """Return the name that AWS gives to the group of a cluster; nobody can change the name of a group."""
    return f"cloudhsm-{cluster_id}-sg"


def find_cluster(pages: Iterable[Mapping[str, Any]], cluster_id: str, region: str) -> ClusterDescription:
    """Return the cluster of this id from the answers of DescribeClusters. Raises AgentError `cluster-not-found`."""
    others = 0
    for page in pages:
        for tree in page.get("Clusters") or ():
            if _text(tree, "ClusterId") == cluster_id:
                return read_cluster(tree, region)
            others += 1
    raise AgentError(
        "cluster-not-found",
        f"there is no cluster {cluster_id} in {region}",
        saw=f"{others} other clusters" if others else "no cluster",
        want=cluster_id,
    )


def read_cluster(tree: Mapping[str, Any], region: str) -> ClusterDescription:
    """Return what a member of Clusters says; whatever is missing is empty."""
    subnets, certificates = (tree.get(name) or {} for name in ("SubnetMapping", "Certificates"))
    return ClusterDescription(
        id=_text(tree, "ClusterId"),
        state=_text(tree, "State"),
        region=region,
        hsm_type=_text(tree, "HsmType"),
        mode=_text(tree, "Mode"),
        vpc=_text(tree, "VpcId"),
        security_group=_text(tree, "SecurityGroup"),
        subnets=tuple(sorted(str(each) for each in subnets.values())),
        certificate=_text(certificates, "ClusterCertificate"),
        hsms=tuple(
            sorted((_read_hsm(each) for each in tree.get("Hsms") or ()), key=lambda hsm: (hsm.zone, hsm.id))
        ),
        message=_text(tree, "StateMessage"),
    )


def description_to_json(cluster: ClusterDescription) -> dict[str, Any]:
    """Return what `description_from_json` reads, without any secret: an operator sends it to hosts."""
    return asdict(cluster)


def description_from_json(tree: Mapping[str, Any]) -> ClusterDescription:
    """Read what `description_to_json` wrote. Raises TypeError for anything else."""
    try:
        hsms = tuple(
            ClusterHsm(**{name: str(value) for name, value in each.items()}) for each in tree["hsms"]
        )
        texts = {name: str(value) for name, value in tree.items() if name not in ("hsms", "subnets")}
        return ClusterDescription(**texts, subnets=tuple(map(str, tree["subnets"])), hsms=hsms)
    except (KeyError, AttributeError) as error:
        raise TypeError(f"not a description of a cluster: {error}") from error


def cluster_error(cluster: ClusterDescription) -> AgentError | None:
    """Return why no client can use this cluster, before anything is changed for it; None when one can."""
    state = cluster.state
    seen = f"{cluster.id} is {state}"
    if state in _GONE:
        return AgentError(
            "cluster-not-found",
            f"the cluster {cluster.id} is deleted",
            saw=seen,
            want="a cluster that is there",
            hint="a deleted cluster comes back from its backup, with another id: name that one",
        )
    if state in _WITHOUT_CA:
        return AgentError(
            "cluster-uninitialized",
            "the cluster has no CA yet",
            saw=seen,
            want="INITIALIZED or ACTIVE",
        )
    if not cluster.addresses():
        coming = sum(each.state in _COMING for each in cluster.hsms)
        saw = (
            f"{seen}, with {coming} HSMs that are being created"
            if coming
            else f"{seen}, without a usable HSM"
        )
        return AgentError(
            "cluster-empty", "the cluster has no HSM to connect to", saw=saw, want="at least one HSM"
        )
    return None


def activation_error(cluster: ClusterDescription) -> AgentError | None:
    """Return what is still to be done once clients reach a cluster that was never activated."""
    if cluster.is_activated:
        return None
    return AgentError(
        "cluster-not-activated",
        "the cluster is initialised but not activated",
        saw=f"{cluster.id} is {cluster.state}",
        want="ACTIVE",
    )


def client_error(cluster: ClusterDescription, sdk: int, version: tuple[int, ...] | None) -> AgentError | None:
    """Return why this client cannot talk to this type of HSM: hsm2m wants SDK 5 from 5.9.0 on.

    `version` is X.Y.Z as numbers, None where it is not known yet.
    """
    if not cluster.hsm_type.startswith("hsm2m"):
        return None
    old = version is not None and version[:3] < _HSM2M_CLIENT
    if sdk == 5 and not old:
        return None
    client = "SDK 3" if sdk == 3 else f"client {'.'.join(map(str, version or ()))}"
    return AgentError(
        "sdk-not-for-cluster",
        f"{client} cannot talk to HSMs of the type {cluster.hsm_type}",
        saw=client,
        want="SDK 5, client 5.9.0 or newer",
    )


def address_error(cluster: ClusterDescription, given: Sequence[str]) -> AgentError | None:
    """Return which of the addresses that were given are none of the cluster's HSMs."""
    known = frozenset[str]().union(*(hsm.canonical_addresses for hsm in cluster.hsms))
    foreign = [each for each in given if canonical_address(each) not in known]
    if not foreign:
        return None
    return AgentError(
        "hsm-not-of-cluster",
        f"{', '.join(foreign)}: no HSM of {cluster.id} has this address",
        saw=", ".join(foreign),
        want=", ".join(cluster.addresses()) or "an address of the cluster",
    )


def cluster_notices(cluster: ClusterDescription) -> tuple[Notice, ...]:
    """Return what is worth knowing of a cluster that can be used."""
    notices = []
    if cluster.is_moving:
        left_out = [f"{each.id} is {each.state}" for each in cluster.hsms if each.is_moving]
        notices.append(
            Notice("cluster-changing", f"the HSMs of {cluster.id} are changing: {', '.join(left_out)}")
        )
    if cluster.state in _MIGRATING:
        notices.append(
            Notice(
                "cluster-changing", f"{cluster.id} is {cluster.state}: writing is limited until AWS has ended"
            )
        )
    weak = [each.id for each in cluster.hsms if each.state == "DEGRADED"]
    if cluster.state == "DEGRADED" or weak:
        named = f": {', '.join(weak)}" if weak else ""
        notices.append(Notice("cluster-degraded", f"AWS calls {cluster.id} degraded{named}"))
    return tuple(notices)


def is_settled(cluster: ClusterDescription, before: ClusterDescription | None, known: Sequence[str]) -> bool:
    """Tell whether this answer can be relied on: AWS is changing nothing that a client needs.

    `before` is the answer before it. AWS shows a new or deleted HSM tens of seconds late, so that a list without one of
    the addresses in use, `known`, counts only once it was seen twice.
    """
    if cluster.is_moving or (cluster_error(cluster) is not None and cluster.may_become_ready):
        return False
    return cluster == before or not _gone(cluster, known)


def address_changes(cluster: ClusterDescription, configured: Sequence[str]) -> Notice | None:
    """Return how the addresses that were configured differ from the cluster's; None where they do not."""
    there = cluster.usable_at(configured)
    new = [each.ipv4 or each.ipv6 for each in cluster.hsms if each.is_usable and each not in there]
    gone = _gone(cluster, configured)
    if not configured or not (new or gone):
        return None
    words = [
        *([f"new are {', '.join(new)}"] if new else ()),
        *([f"gone are {', '.join(gone)}"] if gone else ()),
    ]
    text = f"{cluster.id} has other HSMs than this host was configured for: {'; '.join(words)}"
    return Notice("cluster-addresses-changed", text)


def _gone(cluster: ClusterDescription, configured: Sequence[str]) -> list[str]:
    """Return the addresses at which no usable HSM is."""
    return [each for each in configured if not cluster.usable_at([each])]


def canonical_address(text: str) -> str:
    """Return an address in its one spelling, and what is none as it is."""
    import ipaddress  # noqa: PLC0415 -- 5 ms that a host without a cluster id need not pay

    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return text


def _read_hsm(tree: Mapping[str, Any]) -> ClusterHsm:
    fields = ("HsmId", "State", "AvailabilityZone", "SubnetId", "EniId", "EniIp", "EniIpV6", "StateMessage")
    values = {name: _text(tree, name) for name in fields}
    values.update({name: _of_interface(values[name]) for name in ("EniIp", "EniIpV6")})
    return ClusterHsm(*values.values())


def _of_interface(text: str) -> str:
    """Return an address that an interface may have, empty for anything else: it becomes a word of a command line.

    An HSM without an address is one that is not there yet, and AWS is asked again.
    """
    import ipaddress  # noqa: PLC0415 -- as above

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    is_nobodys = (
        address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    )
    return "" if is_nobodys or "%" in text else text


def _text(tree: Mapping[str, Any], name: str) -> str:
    return str(tree.get(name) or "")
