"""The instances that EC2 knows -> the hosts of an inventory. Pure; AWS is asked elsewhere.

What EC2 says is weaker than what the inventory says of a host, its zone and its groups.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.core.system import LINUX, windows
from agent.fleet.inventory import validators
from agent.fleet.inventory.ec2_selection import ADDRESSES, Ec2Selection, parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.aws.inventory import Instance
    from agent.config.input_errors import InputErrors

INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")
# What AWS's own images and those of the distributions log in as, by the beginning of the image's name (EC2 User Guide,
# "Default usernames for AMIs"). Those that changed it between releases are left out.
_IMAGE_USERS = (
    ("al20??-ami-*", "ec2-user"),
    ("amzn*-ami-*", "ec2-user"),
    ("ubuntu*", "ubuntu"),
    ("debian-*", "admin"),
    ("RHEL-*", "ec2-user"),
    ("suse-*", "ec2-user"),
    ("Rocky-*", "rocky"),
)
_WINDOWS_USER = "Administrator"
# How many instances a remark names.
_NAMED = 5


class InstanceSource(Protocol):
    """Asks EC2. Both raise AgentError of exit status 12."""

    def find(self, selection: Ec2Selection) -> tuple[Instance, ...]:
        """Return what matches filters and clusters, whatever its state."""

    def image_names(self, instances: Sequence[Instance]) -> Mapping[str, str]:
        """Return the names of the images of instances, by their ids; one that is gone has none."""


@dataclass(frozen=True)
class Ec2Host:
    """An instance as a host: its groups by its tags, and where it is reached."""

    instance: Instance
    address: str
    groups: tuple[str, ...]

    def target(self, target: Target) -> Target:
        """Return a target with what EC2 says of it, where the inventory says nothing."""
        kind = windows().kind if self.instance.is_windows else LINUX.kind
        return replace(
            target,
            system=target.system or kind,
            instance_id=self.instance.id,
            region=self.instance.region,
        )


def read(
    text: str,
    where: str,
    input_errors: InputErrors,
    remarks: InputErrors,
    source: InstanceSource | None,
) -> tuple[Target, ...]:
    """Return the hosts of `ec2:TERM,TERM...`; `where` is the option. Raises AgentError of exit status 12."""
    selection = parse(text, where, input_errors)
    if selection is None:
        return ()
    hosts = find_hosts(selection, where, input_errors, remarks, source)
    targets = (
        each.target(
            Target(
                each.instance.id,
                each.address,
                user=selection.user,
                groups=tuple(sorted({*each.groups, each.instance.zone} - {""})),
                where=where,
            )
        )
        for each in hosts
    )
    return with_users(tuple(targets), hosts, selection, where, remarks, source)


def find_hosts(
    selection: Ec2Selection,
    where: str,
    input_errors: InputErrors,
    remarks: InputErrors,
    source: InstanceSource | None,
) -> tuple[Ec2Host, ...]:
    """Return the instances that are hosts, and remark the others. Raises AgentError of exit status 12."""
    if source is None:
        input_errors.add(where, "EC2 is not asked by this command")
        return ()
    instances = source.find(selection)
    wanted = [each for each in instances if each.state in selection.states]
    for text in _left_out(instances, selection):
        remarks.add(where, text)
    groups = _Groups(selection.groups)
    hosts = tuple(Ec2Host(each, _address(each, selection.address), groups.of(each)) for each in wanted)
    for text in groups.remarks():
        remarks.add(where, text)
    lacking = [each.instance for each in hosts if not each.address]
    if lacking:
        input_errors.add(
            where,
            f"{_some(lacking)} {'has' if len(lacking) == 1 else 'have'} no {_ADDRESS_WORDS[selection.address]}: choose "
            f"another address, one of {', '.join(ADDRESSES)}, or other instances",
        )
    if not hosts and not input_errors.texts:
        input_errors.add(where, _nothing(instances, selection))
    return hosts


_ADDRESS_WORDS = {"private": "private IPv4 address", "public": "public IPv4 address", "ipv6": "IPv6 address"}


def with_users(
    targets: tuple[Target, ...],
    hosts: Iterable[Ec2Host],
    selection: Ec2Selection,
    where: str,
    remarks: InputErrors,
    source: InstanceSource | None,
) -> tuple[Target, ...]:
    """Return the targets with the user that the image of each has; ssh's own configuration decides for the others.

    Only the images of hosts without a user are asked for.
    """
    instances = {each.instance.id: each.instance for each in hosts}
    lacking = [instances[each.name] for each in targets if each.user is None and each.name in instances]
    if not lacking or source is None:
        return targets
    names: Mapping[str, str] = {}
    try:
        names = source.image_names(lacking)
    except AgentError as error:
        if error.ends_run:
            raise
        remarks.add(
            where,
            f"which users the images have is not known, and ssh's configuration decides: {error.sentence} "
            f"({error.code.name})",
        )
    users = {each.id: _user_of(each, names.get(each.image, ""), selection.users) for each in lacking}
    unknown = sorted({each.image for each in lacking if users[each.id] is None and each.image})
    if unknown and names:
        named = (f"{each} ({names[each]})" if names.get(each) else each for each in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        remarks.add(
            where,
            f"no user is known for hosts of the images {', '.join(named)}{more}: ssh's configuration decides",
        )
    return tuple(
        replace(each, user=users[each.name]) if each.user is None and each.name in users else each
        for each in targets
    )


def _user_of(instance: Instance, image: str, users: Iterable[tuple[str, str]]) -> str | None:
    named = next((user for pattern, user in users if fnmatchcase(image, pattern)), None)
    if named is not None or not instance.is_windows:
        return named or next((user for pattern, user in _IMAGE_USERS if fnmatchcase(image, pattern)), None)
    return _WINDOWS_USER


def _address(instance: Instance, kind: str) -> str:
    addresses = {
        "private": instance.private,
        "public": instance.public,
        "ipv6": instance.ipv6,
        "id": instance.id,
    }
    return addresses[kind]


def _left_out(instances: Sequence[Instance], selection: Ec2Selection) -> list[str]:
    """Say which instances match and are in no state in which they are hosts."""
    by_state: dict[str, list[Instance]] = {}
    for each in instances:
        if each.state not in selection.states:
            by_state.setdefault(each.state or "in no state", []).append(each)
    return [
        f"left out, since {'it is' if len(some) == 1 else f'all {len(some)} are'} {state}: {_some(some)}"
        for state, some in sorted(by_state.items())
    ]


def _nothing(instances: Sequence[Instance], selection: Ec2Selection) -> str:
    regions = f" in {', '.join(selection.regions)}" if selection.regions else ""
    states = " or ".join(selection.states)
    if not instances:
        return f"no instance matches{regions}: tags and their values are compared with upper and lower case"
    found = Counter(each.state for each in instances)
    seen = ", ".join(f"{count} {state}" for state, count in sorted(found.items()))
    return f"no instance that matches{regions} is {states}: {seen}"


def _some(instances: Sequence[Instance]) -> str:
    named = (f"{each.id} ({each.name})" if each.name else each.id for each in instances[:_NAMED])
    more = f" and {len(instances) - _NAMED} more" if len(instances) > _NAMED else ""
    return ", ".join(named) + more


@dataclass
class _Groups:
    """The groups that tags make. A group's name has no space and no comma, which `--limit` could not name."""

    tags: tuple[str, ...]
    _values: dict[str, set[str]] = field(default_factory=dict)

    def of(self, instance: Instance) -> tuple[str, ...]:
        tags = dict(instance.tags)
        found = []
        for value in filter(None, (tags.get(name) for name in self.tags)):
            group = _group_name(value)
            self._values.setdefault(group, set()).add(value)
            found.append(group)
        return tuple(dict.fromkeys(found))

    def remarks(self) -> list[str]:
        return [
            f"the values {', '.join(map(repr, sorted(values)))} of tags are one group here: {group}"
            for group, values in sorted(self._values.items())
            if len(values) > 1
        ]


def _group_name(value: str) -> str:
    name = "".join(char if char.isalnum() or char in "._-+/%~@" else "_" for char in value)
    return f"_{name}" if name[0] in "-~@" or name in validators.RESERVED else name
