"""Asks EC2 for the instances of an inventory, with the credentials of the operator: once for each region."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cloudhsm.cluster import find_cluster
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.aws.client import AwsClient
    from agent.aws.inventory import Instance
    from agent.fleet.inventory.ec2_selection import Ec2Selection
    from agent.fleet.shared_input import OpenAccess


class Ec2Source:
    """EC2 as an inventory asks it. `region` counts where the inventory names none, None is the operator's own."""

    def __init__(self, open_access: OpenAccess, region: str | None) -> None:
        self._open_access = open_access
        self._region = region

    def find(self, selection: Ec2Selection) -> tuple[Instance, ...]:
        """Return what matches, whatever its state. Raises AgentError `aws-…`, `cluster-not-found`."""
        from agent.aws.instance_search import find_instances, patient  # noqa: PLC0415 -- only where AWS is asked

        clients = [patient(self._open_access(each).client) for each in selection.regions or (self._region,)]
        groups = self._groups(clients, selection.clusters)
        found: dict[str, Instance] = {}
        for client in clients:
            own = groups.get(client.session.region, []) if selection.clusters else None
            found.update({each.id: each for each in find_instances(client, selection.filters, own)})
        return tuple(found[name] for name in sorted(found))

    @staticmethod
    def _groups(clients: Sequence[AwsClient], clusters: Sequence[str]) -> dict[str, list[str]]:
        """Return by region the security groups of clusters; each must be in one of the regions."""
        groups: dict[str, list[str]] = {}
        for cluster_id in clusters:
            answers = {client.session.region: _group_of(client, cluster_id) for client in clients}
            named = {region: each for region, each in answers.items() if isinstance(each, str)}
            if not named:
                raise next(each for each in answers.values() if isinstance(each, AgentError))
            for region, group in named.items():
                groups.setdefault(region, []).append(group)
        return groups

    def image_names(self, instances: Sequence[Instance]) -> Mapping[str, str]:
        """Return the names of the images of instances, by their ids. Raises AgentError `aws-…`."""
        from agent.aws.instance_search import find_image_names, patient  # noqa: PLC0415 -- as above

        images: dict[str, list[str]] = {}
        for each in instances:
            if each.image:
                images.setdefault(each.region, []).append(each.image)
        return {
            image: name
            for region, ids in images.items()
            for image, name in find_image_names(patient(self._open_access(region).client), ids).items()
        }


def _group_of(client: AwsClient, cluster_id: str) -> str | AgentError:
    """Return the group of a cluster's members, or that the region has no such cluster."""
    from agent.aws.operations import DESCRIBE_CLUSTERS  # noqa: PLC0415 -- as above

    pages = client.pages(DESCRIBE_CLUSTERS, {"Filters": {"clusterIds": [cluster_id]}})
    try:
        cluster = find_cluster(pages, cluster_id, client.session.region)
    except AgentError as error:
        if error.code.name != "cluster-not-found":
            raise
        return error
    return cluster.security_group or AgentError(
        "cluster-not-found",
        f"AWS names no security group of {cluster_id}",
        saw=f"the cluster is {cluster.state}",
        want="the group of its members",
    )
