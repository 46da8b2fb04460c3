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
    """An instance. `name` is the value of its tag Name, empty without one.

    `private`, `public` and `ipv6` are addresses of its first interface, empty where it has none; `image` is the id of
    what it was launched from. `region` is where it was asked for.
    """

    id: str
    name: str = ""
    state: str = ""
    zone: str = ""
    is_windows: bool = False
    interfaces: tuple[NetworkInterface, ...] = ()
    private: str = ""
    public: str = ""
    ipv6: str = ""
    image: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    region: str = ""


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


def read_instances(pages: Iterable[Mapping[str, Any]], region: str = "") -> tuple[Instance, ...]:
    """Return the instances that DescribeInstances lists in a region."""
    return tuple(
        Instance(
            each["instanceId"],
            dict(_tags_of(each)).get("Name", ""),
            (each.get("instanceState") or {}).get("name", ""),
            (each.get("placement") or {}).get("availabilityZone", ""),
            each.get("platform", "").lower() == "windows",
            read_interfaces([each]),
            private=each.get("privateIpAddress", ""),
            public=each.get("ipAddress", ""),
            ipv6=_ipv6_of(each),
            image=each.get("imageId", ""),
            tags=_tags_of(each),
            region=region,
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


def read_image_names(pages: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the names of the images that DescribeImages lists, by their ids."""
    return {each["imageId"]: each.get("name", "") for page in pages for each in page.get("imagesSet") or ()}


def _tags_of(tree: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((each.get("key", ""), each.get("value") or "") for each in tree.get("tagSet") or ())


def _ipv6_of(tree: Mapping[str, Any]) -> str:
    """Return the first IPv6 address of the first interface: only newer answers have it at the instance itself."""
    first = next(iter(read_interfaces([tree])), None)
    found = (each for each in (first.addresses if first else ()) if ":" in each)
    return str(tree.get("ipv6Address") or next(found, ""))
