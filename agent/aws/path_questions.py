"""What EC2 is asked about the path to an HSM: in the order in which the causes are judged, and no more than needed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from agent.aws import operations
from agent.aws.network import (
    Network,
    read_acls,
    read_attachments,
    read_groups,
    read_interfaces,
    read_peerings,
    read_subnets,
    read_tables,
)
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent.aws.client import AwsClient
    from agent.aws.network import NetworkInterface
    from agent.aws.operations import Operation

_Read = TypeVar("_Read")
# seconds for a question with all its tries: somebody waits for a run that has failed already
_EACH = 6.0
# Everything that may be asked here: the last two only between VPCs.
ASKED = (
    operations.DESCRIBE_NETWORK_INTERFACES,
    operations.DESCRIBE_SECURITY_GROUPS,
    operations.DESCRIBE_ROUTE_TABLES,
    operations.DESCRIBE_SUBNETS,
    operations.DESCRIBE_NETWORK_ACLS,
    operations.DESCRIBE_VPC_PEERING_CONNECTIONS,
    operations.DESCRIBE_TRANSIT_GATEWAY_VPC_ATTACHMENTS,
)
# What is asked about an instance and an address outside of AWS's sight.
WITHIN_VPC = (
    operations.DESCRIBE_SECURITY_GROUPS,
    operations.DESCRIBE_ROUTE_TABLES,
    operations.DESCRIBE_SUBNETS,
    operations.DESCRIBE_NETWORK_ACLS,
)


@dataclass
class PathQuestions:
    """Asks EC2 until `ends`, by the host's monotonic clock. What it does not answer stays unknown.

    `answered` and `denied` are the actions so far; `failure` is why nothing more is asked. Only the end of the run is
    raised.
    """

    client: AwsClient
    ends: float
    answered: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    failure: AgentError | None = None

    def interfaces(self, ids: Sequence[str]) -> tuple[NetworkInterface, ...]:
        """Return the interfaces of these ids."""
        operation = operations.DESCRIBE_NETWORK_INTERFACES
        return self._ask(operation, read_interfaces, {"network-interface-id": ids}) or ()

    def interfaces_at(self, addresses: Sequence[str]) -> tuple[NetworkInterface, ...] | None:
        """Return the interfaces that have one of these addresses, None where that is not known."""
        families = (
            ("addresses.private-ip-address", [each for each in addresses if ":" not in each]),
            ("ipv6-addresses.ipv6-address", [each for each in addresses if ":" in each]),
        )
        operation = operations.DESCRIBE_NETWORK_INTERFACES
        found = [self._ask(operation, read_interfaces, {name: some}) for name, some in families if some]
        return tuple(each for some in found for each in some or ()) if None not in found else None

    def networks(self, interfaces: Sequence[NetworkInterface]) -> Iterator[Network]:
        """Yield the network between these interfaces, each time with more of it described.

        What connects VPCs comes before the groups: only with both can a rule that names a group of the other VPC be
        judged.
        """
        vpcs = sorted({each.vpc for each in interfaces})
        subnets = {"subnet-id": sorted({each.subnet for each in interfaces})}
        network = Network()
        if len(vpcs) > 1:
            both = {"requester-vpc-info.vpc-id": vpcs, "accepter-vpc-info.vpc-id": vpcs}
            network = replace(
                network,
                peerings=self._ask(operations.DESCRIBE_VPC_PEERING_CONNECTIONS, read_peerings, both),
                attachments=self._ask(
                    operations.DESCRIBE_TRANSIT_GATEWAY_VPC_ATTACHMENTS, read_attachments, {"vpc-id": vpcs}
                ),
            )
        groups = {"group-id": sorted({group for each in interfaces for group in each.groups})}
        network = replace(network, groups=self._ask(operations.DESCRIBE_SECURITY_GROUPS, read_groups, groups))
        yield network
        tables = self._ask(operations.DESCRIBE_ROUTE_TABLES, read_tables, {"vpc-id": vpcs})
        described = self._ask(operations.DESCRIBE_SUBNETS, read_subnets, subnets) or ()
        network = replace(network, tables=tables, subnets=described)
        yield network
        associated = {f"association.{name}": values for name, values in subnets.items()}
        yield replace(network, acls=self._ask(operations.DESCRIBE_NETWORK_ACLS, read_acls, associated))

    def _ask(
        self,
        operation: Operation,
        read: Callable[[Iterable[Mapping[str, Any]]], _Read],
        filters: Mapping[str, Sequence[str]],
    ) -> _Read | None:
        left = self.ends - self.client.session.view.monotonic()
        if self.failure is not None or left <= 0:
            return None
        client = replace(self.client, seconds=min(_EACH, left))
        params = {"Filter": [{"Name": name, "Value": list(values)} for name, values in filters.items()]}
        try:
            found = client.read(operation, params, read)
        except AgentError as error:
            if error.ends_run:
                raise
            if error.code.name == "aws-denied":
                self.denied.append(operation.permission)
            else:
                self.failure = error
            return None
        self.answered.append(operation.permission)
        return found
