"""Asks AWS about the surroundings of a cluster: who is in its VPC and its group, what joins them, backups, its role.

Each answer stands alone: what AWS denies is named, and the rest is asked all the same. A service that cannot be reached
is asked once, so that each of its time limits is not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.aws import operations
from agent.aws.client import AwsRefusedError
from agent.aws.endpoints import partition_of
from agent.aws.inventory import (
    UnansweredQuestion,
    VpcSurvey,
    newest_backup,
    read_instances,
    read_other_interfaces,
)
from agent.aws.network import Network, read_acls, read_groups, read_subnets, read_tables
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.aws.access import AwsAccess
    from agent.aws.client import AwsClient
    from agent.aws.operations import Operation

# Terminated instances are described for an hour.
_ALIVE = ("pending", "running", "stopping", "stopped", "shutting-down")
# IAM is one service for a whole partition, signed for this region; elsewhere there is no CloudHSM.
_IAM_REGIONS = {"aws": "us-east-1", "aws-us-gov": "us-gov-west-1"}
ROLE = "AWSServiceRoleForCloudHSM"


def describe_clusters(client: AwsClient, cluster_id: str | None) -> list[Mapping[str, Any]]:
    """Return the answers about one cluster, or about all of the region. Raises AgentError of exit status 12."""
    wanted = {"Filters": {"clusterIds": [cluster_id]}} if cluster_id else {}
    return list(client.pages(operations.DESCRIBE_CLUSTERS, wanted))


def survey(access: AwsAccess, cluster_id: str, vpc: str, group: str, *, role: bool) -> VpcSurvey:
    """Return what AWS says about a cluster's surroundings; `role`: ask IAM for the service-linked role too."""
    asked = _Questions(access.client)
    in_vpc, in_group = _filters({"vpc-id": [vpc]}), _filters({"group-id": [group]})
    alive = _filters({"vpc-id": [vpc], "instance-state-name": list(_ALIVE)})
    network = Network()
    instances = others = None
    if vpc:
        instances = asked.pages(operations.DESCRIBE_INSTANCES, alive, read_instances)
        network = Network(
            groups=asked.pages(operations.DESCRIBE_SECURITY_GROUPS, in_vpc, read_groups),
            acls=asked.pages(operations.DESCRIBE_NETWORK_ACLS, in_vpc, read_acls),
            tables=asked.pages(operations.DESCRIBE_ROUTE_TABLES, in_vpc, read_tables),
            subnets=asked.pages(operations.DESCRIBE_SUBNETS, in_vpc, read_subnets) or (),
        )
    if group:
        others = asked.pages(operations.DESCRIBE_NETWORK_INTERFACES, in_group, read_other_interfaces)
    of_cluster = {"Filters": {"clusterIds": [cluster_id]}, "MaxResults": 50, "SortAscending": False}
    return VpcSurvey(
        instances,
        others,
        network,
        backup=asked.one(operations.DESCRIBE_BACKUPS, of_cluster, newest_backup),
        has_service_role=_has_role(access, asked) if role else None,
        unanswered=tuple(asked.unanswered),
    )


def _filters(wanted: Mapping[str, list[str]]) -> dict[str, Any]:
    return {"Filter": [{"Name": name, "Value": values} for name, values in wanted.items()]}


def _has_role(access: AwsAccess, asked: _Questions) -> bool | None:
    """Tell whether the account has the role with which CloudHSM writes audit logs."""
    region = _IAM_REGIONS.get(partition_of(access.client.session.region).name)
    if region is None:
        return None
    of_iam = _Questions(access.client_in(region))
    found: bool | None = of_iam.one(
        operations.GET_ROLE, {"RoleName": ROLE}, bool, absent={"NoSuchEntity": False}
    )
    asked.unanswered += of_iam.unanswered
    return found


class _Questions:
    """Asks, and keeps what was not answered."""

    def __init__(self, client: AwsClient) -> None:
        self._client = client
        self._unreachable: set[str] = set()
        self.unanswered: list[UnansweredQuestion] = []

    def pages(
        self, operation: Operation, params: Mapping[str, Any], read: Callable[[list[Mapping[str, Any]]], Any]
    ) -> Any:
        """Return what `read` makes of all pages, None where AWS does not answer."""
        return self._ask(operation, lambda: read(list(self._client.pages(operation, params))))

    def one(
        self,
        operation: Operation,
        params: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], Any],
        absent: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return what `read` makes of one answer; `absent` has what certain refusals of AWS mean."""

        def ask() -> Any:
            try:
                return read(self._client.call(operation, params))
            except AwsRefusedError as error:
                if absent is None or error.refusal.code not in absent:
                    raise
                return absent[error.refusal.code]

        return self._ask(operation, ask)

    def _ask(self, operation: Operation, ask: Callable[[], Any]) -> Any:
        if operation.service.name in self._unreachable:
            return None
        try:
            return ask()
        except AgentError as error:
            if error.ends_run:
                raise
            if error.code.name == "aws-unreachable":
                self._unreachable.add(operation.service.name)
            self.unanswered.append(
                UnansweredQuestion(operation.permission, error.code.name, error.saw, error.hint or "")
            )
            return None
