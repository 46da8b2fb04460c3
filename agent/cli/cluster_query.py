"""The question of `hsm-agent cluster`: which cluster is meant, what AWS says of it, what this host has."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.aws.operator import operator_access
from agent.aws.own_interface import OwnInterface, find_own_interface
from agent.aws.survey import describe_clusters, survey
from agent.catalogue.versions import base_version
from agent.cloudhsm.client_config import parse_client_config
from agent.cloudhsm.cluster import CLUSTER_ID, find_cluster, read_cluster
from agent.cloudhsm.cluster_view import HostSide, view_cluster
from agent.cloudhsm.paths import client_paths
from agent.config.ca_source import read_source
from agent.config.input_errors import InputErrors
from agent.config.readers import read_environment, read_files, read_flags
from agent.core.errors import AgentError
from agent.core.timeouts import Timeouts
from agent.facts import gather
from agent.http.imds import instance_id
from agent.state.records import read_last

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.aws.access import AwsAccess
    from agent.cloudhsm.cluster import ClusterDescription
    from agent.cloudhsm.cluster_view import ClusterView
    from agent.config.options import CaSource
    from agent.core.host import HostView

_ARGUMENT, _OPTION, _RECORD = "the argument", "an option", "the last configure"
_CLIENT, _ONLY = "the client's configuration", "no one: it is the only cluster in the region"


def ask_cluster(
    machine: HostView,
    environ: Mapping[str, str],
    cluster_id: str | None,
    region: str | None,
    profile: str | None,
    ca_cert: str | None,
    *,
    has_terminal: bool = False,
) -> ClusterView:
    """Ask AWS and this host; `has_terminal`: a person can type what the profile asks for.

    Raises AgentError where AWS cannot be asked, or no cluster is named.
    """
    meant = _meant_cluster(machine, environ, cluster_id, region)
    access = operator_access(machine, environ, meant.region, profile, has_terminal=has_terminal)
    description = _describe(access, meant.id)
    host = _host_side(machine, environ, access, ca_cert)
    # a host is not asked for its account's roles: its own role may not
    role = host.instance_id is None or profile is not None
    answers = survey(access, description.id, description.vpc, description.security_group, role=role)
    now = access.client.session.now()  # by AWS's clock, where this host's is known to be wrong
    return view_cluster(description, answers, host, now=now, named_by=meant.named_by)


def _describe(access: AwsAccess, cluster_id: str | None) -> ClusterDescription:
    """Return the cluster of this id, without one the only one of the region. Raises AgentError."""
    if cluster_id is not None and not CLUSTER_ID.fullmatch(cluster_id):
        raise AgentError(
            "usage", f"`{cluster_id}` is no id of a cluster", saw=cluster_id, want="an id such as cluster-2abcdefghij",
            hint="`hsm-agent cluster` without an id lists the clusters of the region",
        )  # fmt: skip
    region = access.client.session.region
    pages = describe_clusters(access.client, cluster_id)
    if cluster_id is not None:
        return find_cluster(pages, cluster_id, region)
    found = [read_cluster(each, region) for page in pages for each in page.get("Clusters") or ()]
    alive = [each for each in found if each.state != "DELETED"]
    if len(alive) == 1:
        return alive[0]
    raise _not_one(alive, region)


def _not_one(found: Sequence[ClusterDescription], region: str) -> AgentError:
    if not found:
        return AgentError(
            "cluster-not-found", f"there is no cluster in {region}", saw="no cluster", want="one cluster"
        )
    return AgentError(
        "usage",
        f"{region} has {len(found)} clusters, and none is named",
        saw="\n".join(f"{each.id}  {each.state}  {each.vpc}" for each in found),
        want="the id of one",
        hint=f"hsm-agent cluster {found[0].id} --region {region}",
    )


@dataclass(frozen=True)
class _MeantCluster:
    """Which cluster is asked about: who names it, its id and region; None where nobody does."""

    named_by: str
    id: str | None
    region: str | None


def _meant_cluster(
    machine: HostView, environ: Mapping[str, str], cluster_id: str | None, region: str | None
) -> _MeantCluster:
    """Return the cluster of the command line, the options, the last configure or the client, in this order.

    Raises AgentError `config-invalid`, unless the command line says all.
    """
    if cluster_id is not None and region is not None:
        return _MeantCluster(_ARGUMENT, cluster_id, region)
    input_errors = InputErrors()
    given: dict[str, Any] = {**read_files(machine, input_errors), **read_environment(environ, input_errors)}
    input_errors.raise_any()
    recorded: Mapping[str, Any] = {}
    with contextlib.suppress(AgentError):  # none, damaged, or for root alone
        recorded = read_last(machine).desired
    found = [(_OPTION, given.get("cluster_id")), (_RECORD, recorded.get("cluster_id"))]
    if cluster_id is not None:
        found = [(_ARGUMENT, cluster_id)]
    found += [(_CLIENT, each) for each in _ids_of_client(machine)]
    named_by, name = next((each for each in found if each[1] is not None), (_ONLY, None))
    own = recorded.get("region") if recorded.get("cluster_id") in (name, None) else None
    return _MeantCluster(named_by, name, region or given.get("region") or own)


def _ids_of_client(machine: HostView) -> Iterator[str]:
    """Yield the ids of clusters in the configuration of the client's components."""
    for path in client_paths(machine.system).all_settings(machine):
        with contextlib.suppress(AgentError, ValueError):
            named = parse_client_config(machine.read(path) or b"").cluster_id
            if named:
                yield named


def _host_side(
    machine: HostView, environ: Mapping[str, str], access: AwsAccess, ca_cert: str | None
) -> HostSide:
    """Return what this host has; what cannot be read of it is left out, a CA that was named excepted."""
    servers: dict[str, tuple[str, ...]] = {}
    clients = {}
    with contextlib.suppress(AgentError):
        known = gather(machine)
        servers = {each.component: each.servers for each in known.configured if each.servers}
        packages = {(sdk, name): known.package(sdk, name) for sdk in (5, 3) for name in known.components(sdk)}
        clients = {key: base_version(each.version) for key, each in packages.items() if each is not None}
    instance = instance_id(machine, environ)
    own = find_own_interface(machine, environ, "") if instance else None
    source, ca = _ca(machine, access, ca_cert)
    return HostSide(
        name=machine.name,
        instance_id=instance,
        interface=own.interface if isinstance(own, OwnInterface) else None,
        servers=servers,
        clients=clients,
        ca=ca,
        ca_source=source,
    )


def _ca(machine: HostView, access: AwsAccess, ca_cert: str | None) -> tuple[str, bytes | None]:
    """Return where the CA is, and its bytes; None where none was named and this host has none."""
    if ca_cert is None:
        path = client_paths(machine.system).ca
        with contextlib.suppress(AgentError):
            return path, machine.read(path)
        return path, None
    input_errors = InputErrors()
    given = read_flags({"ca_cert": ca_cert}, input_errors)
    input_errors.raise_any()
    source: CaSource = given["ca_cert"]
    if source.kind == "stdin":
        raise AgentError(
            "usage", "--ca-cert takes no standard input here", saw="-", want="a path or a URL",
            hint="`hsm-agent cluster` only reads it: name the file",
        )  # fmt: skip
    shown = "--ca-cert" if source.kind == "inline" else ca_cert
    return shown, read_source(machine, source, Timeouts(), access)
