"""Who is in a VPC, as EC2 describes it: its instances, and what else has an interface in a security group. Pure.

The trees are those that `AwsClient` returns: texts by the names of the API reference. Of what may be missing, the
identifiers alone are taken for granted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.aws.network import Network, read_interfaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.aws.network import NetworkInterface


@dataclass(frozen=True)
class Instance:
    """An instance. `name` is the value of its tag Name, empty without one."""

    id: str
    name: str = ""
    state: str = ""
    zone: str = ""
    is_windows: bool = False
    interfaces: tuple[NetworkInterface, ...] = ()


@dataclass(frozen=True)
class OtherInterface:
    """An interface that belongs to no instance: of a function, a container, an endpoint, or of an HSM."""

    interface: NetworkInterface
    zone: str = ""
    kind: str = ""
    description: str = ""


@dataclass(frozen=True)
class UnansweredQuestion:
    """A question that AWS did not answer: the action a policy must allow, and the code of the error."""

    permission: str
    code: str
    saw: str
    hint: str


@dataclass(frozen=True)
class VpcSurvey:
    """What was asked about the surroundings of a cluster. None stands for what AWS did not answer.

    `backup` is when the newest finished backup was made, in epoch seconds, 0 where there is none.
    """

    instances: tuple[Instance, ...] | None = None
    others: tuple[OtherInterface, ...] | None = None
    network: Network = field(default_factory=Network)
    backup: float | None = None
    has_service_role: bool | None = None
    unanswered: tuple[UnansweredQuestion, ...] = ()


def read_instances(pages: Iterable[Mapping[str, Any]]) -> tuple[Instance, ...]:
    """Return the instances that DescribeInstances lists."""
    return tuple(
        Instance(
            each["instanceId"],
            _name_of(each),
            (each.get("instanceState") or {}).get("name", ""),
            (each.get("placement") or {}).get("availabilityZone", ""),
            each.get("platform", "").lower() == "windows",
            read_interfaces([each]),
        )
        for page in pages
        for reservation in page.get("reservationSet") or ()
        for each in reservation.get("instancesSet") or ()
    )


def read_other_interfaces(pages: Iterable[Mapping[str, Any]]) -> tuple[OtherInterface, ...]:
    """Return those interfaces that DescribeNetworkInterfaces lists and no instance has."""
    found = [each for page in pages for each in page.get("networkInterfaceSet") or ()]
    return tuple(
        OtherInterface(
            read_interfaces([{"networkInterfaceSet": [each]}])[0],
            each.get("availabilityZone", ""),
            each.get("interfaceType", ""),
            each.get("description", ""),
        )
        for each in found
        if not (each.get("attachment") or {}).get("instanceId")
    )


def newest_backup(answer: Mapping[str, Any]) -> float:
    """Return when the newest finished backup that DescribeBackups lists was made, in epoch seconds; 0 without one."""
    times = [
        each.get("CreateTimestamp")
        for each in answer.get("Backups") or ()
        if each.get("BackupState") == "READY"
    ]
    return max((float(each) for each in times if isinstance(each, (int, float))), default=0.0)


def _name_of(tree: Mapping[str, Any]) -> str:
    tags = tree.get("tagSet") or ()
    return next((str(each.get("value") or "") for each in tags if each.get("key") == "Name"), "")
