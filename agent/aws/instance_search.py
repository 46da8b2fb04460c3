"""Asks EC2 for the instances of an inventory: those that match filters, and have an interface in a group."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.aws import operations
from agent.aws.inventory import read_image_names, read_instances

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.aws.client import AwsClient
    from agent.aws.inventory import Instance

# Names of EC2's filters, each with its values.
Filters = tuple[tuple[str, tuple[str, ...]], ...]
# What is always asked here, beside the images; and what the members of a cluster's group take.
ASKED = (operations.DESCRIBE_INSTANCES,)
ASKED_FOR_CLUSTERS = (operations.DESCRIBE_CLUSTERS, operations.DESCRIBE_NETWORK_INTERFACES)
# EC2 takes so many values of one filter.
_MOST_VALUES = 200
# An inventory is asked for once, and a part of it is worth nothing: a throttled page is waited for.
_TRIES, _SECONDS, _TRY = 8, 60.0, 20.0


def patient(client: AwsClient) -> AwsClient:
    """Return a client that waits for what is throttled: for whoever can do nothing without the answer."""
    return replace(client, tries=_TRIES, seconds=_SECONDS, try_seconds=_TRY)


def find_instances(
    client: AwsClient, filters: Filters, groups: Sequence[str] | None = None
) -> tuple[Instance, ...]:
    """Return the instances of a region of which every filter matches by one of its values, whatever their state.

    With `groups` they must also have an interface in one of these security groups. Raises AgentError of exit status 12.
    """
    members = None if groups is None else [each for group in groups for each in _attached(client, group)]
    region = client.session.region
    found = {}
    for some in _with_ids(filters, members):
        pages = client.pages(operations.DESCRIBE_INSTANCES, _params(some))
        found.update({each.id: each for each in read_instances(pages, region)})
    return tuple(found.values())


def find_image_names(client: AwsClient, ids: Sequence[str]) -> dict[str, str]:
    """Return the names of images by their ids; one that is not there any more has none."""
    names: dict[str, str] = {}
    for filters in _with_ids((), ids, "image-id"):
        params = {"IncludeDeprecated": True, **_params(filters)}
        names.update(read_image_names(client.pages(operations.DESCRIBE_IMAGES, params)))
    return names


def _attached(client: AwsClient, group: str) -> Iterator[str]:
    """Yield the instances with an interface in a group; those of HSMs belong to none.

    EC2's filter of instances by their group may not see a second interface.
    """
    params = _params((("group-id", (group,)),))
    for page in client.pages(operations.DESCRIBE_NETWORK_INTERFACES, params):
        for each in page.get("networkInterfaceSet") or ():
            instance = (each.get("attachment") or {}).get("instanceId")
            if instance:
                yield instance


def _with_ids(filters: Filters, ids: Sequence[str] | None, name: str = "instance-id") -> Iterator[Filters]:
    """Yield the filters once, or for ids once for each of as many as one filter takes."""
    if ids is None:
        yield filters
        return
    every = sorted(set(ids))
    for start in range(0, len(every), _MOST_VALUES):
        yield (*filters, (name, tuple(every[start : start + _MOST_VALUES])))


def _params(filters: Filters) -> Mapping[str, Any]:
    return {"Filter": [{"Name": name, "Value": list(values)} for name, values in filters]}
