"""The addresses of the HSMs: those that were given, or those that AWS has for the cluster that was named."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.cloudhsm.cluster import NamedCluster, address_changes, cluster_notices, find_cluster, is_settled
from agent.core.backoff import Backoff
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.model import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.aws.access import AwsAccess
    from agent.cloudhsm.cluster import ClusterDescription
    from agent.config.desired import Desired
    from agent.core.host import HostView

_AGAIN = Backoff(first=2.0, cap=15.0, least=0.5)
_PORT = 2223
# seconds for a connection that only shows whether any address of this machine leads there
_MOMENT = 0.2
_NOT_ASKED = CODES["aws-unreachable"].exit_status


@dataclass(frozen=True)
class HsmSource:
    """What is desired, its addresses filled in; and the cluster that was named, None where nothing is known of it."""

    desired: Desired
    cluster: NamedCluster | None = None
    notices: tuple[Notice, ...] = ()


def resolve_hsms(
    view: HostView,
    desired: Desired,
    access: AwsAccess,
    configured: Sequence[str],
    patience: float,
    described: ClusterDescription | None = None,
) -> HsmSource:
    """Ask AWS for the cluster if one is named, and fill in the addresses of its HSMs if none are.

    `described` is what an operator got from AWS and sent along: then AWS is not asked. `configured` are the addresses
    in use now. Where AWS cannot be asked they stand in, so that they are checked at least: the cluster is reported as
    unknown then. With addresses that were given, the cluster is only checked, and that it could not be is a notice.
    `patience`: how many seconds a list that AWS is changing is asked for again. Raises AgentError `aws-…`, `cluster-…`
    where no address is known.
    """
    if desired.cluster_id is None:
        return HsmSource(desired)
    try:
        cluster = described or describe_cluster(access, desired.cluster_id, configured, patience)
    except AgentError as error:
        if error.ends_run:
            raise
        return _unknown(desired, desired.cluster_id, error, configured)
    found = NamedCluster(cluster.id, cluster)
    addresses = desired.hsm_ip or cluster.addresses(configured, ipv6=_needs_ipv6(view, cluster, configured))
    if not addresses and found.error is not None:
        raise found.error
    changes = address_changes(cluster, configured)
    notices = (*cluster_notices(cluster), *((changes,) if changes else ()))
    return HsmSource(replace(desired, hsm_ip=addresses), found, notices)


def with_region_of(desired: Desired, environ: Mapping[str, str]) -> Desired:
    """Return what is desired with the region that the variables of this shell name, where AWS is asked for a cluster.

    It is recorded with the request: a run that repeats it may have another shell, or none.
    """
    if desired.cluster_id is None or desired.region is not None:
        return desired
    from agent.aws.session import region_of  # noqa: PLC0415 -- 30 ms that only this pays

    return replace(desired, region=region_of(environ))


def _needs_ipv6(view: HostView, cluster: ClusterDescription, configured: Sequence[str]) -> bool:
    """Tell whether this host has no IPv4 by which it could reach HSMs that have both kinds of address.

    One that uses either kind already is not asked: a network that is down for a moment must not change addresses.
    """
    both = [each for each in cluster.hsms if each.is_usable and len(each.addresses) > 1]
    if not both or set(both) & set(cluster.usable_at(configured)):
        return False
    tried = view.connect(both[0].ipv4, _PORT, timeout=_MOMENT, tls=False)
    return tried.cause == "hsm-no-route" and not tried.source


def describe_cluster(
    access: AwsAccess, cluster_id: str, known: Sequence[str], patience: float
) -> ClusterDescription:
    """Return what AWS says of a cluster, once its list of HSMs stands still, or as it is after `patience` seconds.

    Raises AgentError `aws-…` and `cluster-not-found`.
    """
    from agent.aws.operations import DESCRIBE_CLUSTERS  # noqa: PLC0415 -- 30 ms that only this pays

    session, before, attempt = access.client.session, None, 0
    ends = session.view.monotonic() + patience
    while True:
        attempt += 1
        pages = access.client.pages(DESCRIBE_CLUSTERS, {"Filters": {"clusterIds": [cluster_id]}})
        cluster = find_cluster(pages, cluster_id, session.region)
        pause = _AGAIN.pause(attempt)
        if is_settled(cluster, before, known) or session.view.monotonic() + pause >= ends:
            return cluster
        before = cluster
        session.view.sleep(pause)


def not_checked(cluster_id: str, error: AgentError) -> Notice:
    """Return the notice of a cluster that AWS could not be asked about, where its addresses were given."""
    text = f"{cluster_id} is not checked: {error.sentence}: {error.saw} ({error.code.name})"
    return Notice("cluster-not-checked", text)


def is_answer(error: AgentError) -> bool:
    """Tell whether AWS answered, and not that it could not be asked."""
    return error.code.exit_status != _NOT_ASKED


def _unknown(desired: Desired, cluster_id: str, error: AgentError, configured: Sequence[str]) -> HsmSource:
    """Return what is left to check where AWS has no description of the cluster."""
    if desired.hsm_ip and not is_answer(error):
        return HsmSource(desired, notices=(not_checked(cluster_id, error),))
    addresses = desired.hsm_ip or tuple(configured)
    if not addresses:
        raise error
    if not is_answer(error):
        given = " ".join(f"--hsm-ip {each}" for each in addresses)
        error.hint = f"{error.hint}; without AWS: `hsm-agent configure {given}`"
    return HsmSource(replace(desired, hsm_ip=addresses), NamedCluster(cluster_id, None, error))
