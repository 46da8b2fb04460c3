"""An inventory that EC2 knows: which instances are meant, and what makes hosts of them. Pure; AWS is asked elsewhere.

    ec2:tag:Role=web,tag:Role=db,vpc=vpc-0a1b          # on the command line

    [ec2]                                              # in a TOML inventory
    select = ["tag:Role=web", "asg=payments"]
    regions = ["eu-central-1"]
    groups = ["Role"]

Terms of one name add up, terms of different names must all match, as EC2's own filters do. What EC2 says is weaker than
what the inventory says of a host, its zone and its groups.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Protocol

from agent.cloudhsm.cluster import CLUSTER_ID
from agent.config.input_errors import did_you_mean
from agent.config.options import InvalidValueError
from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.core.system import LINUX, windows
from agent.fleet.inventory import validators

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.aws.inventory import Instance
    from agent.config.input_errors import InputErrors

SCHEME = "ec2:"
INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_VPC_ID = re.compile(r"vpc-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}")
# The tag that an Auto Scaling group puts on its instances.
_ASG_TAG = "tag:aws:autoscaling:groupName"
_RUNNING = "running"
# An instance that is going away has no address that lasts.
STATES = ("pending", _RUNNING, "stopping", "stopped")
ADDRESSES = ("private", "public", "ipv6", "id")
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
_MOST_TERMS = 200


@dataclass(frozen=True)
class Ec2Selection:
    """Which instances are meant, and what of them is used. `filters` are EC2's, by name.

    `groups` are the tags whose values are groups; `address` is one of ADDRESSES; `users` are users by patterns of the
    names of images, the first that matches counts.
    """

    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    clusters: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    states: tuple[str, ...] = (_RUNNING,)
    address: str = ADDRESSES[0]
    groups: tuple[str, ...] = ()
    users: tuple[tuple[str, str], ...] = ()
    user: str | None = None


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


# on the command line


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


def parse(text: str, where: str, input_errors: InputErrors) -> Ec2Selection | None:
    """Return what `ec2:TERM,TERM...` selects; None when there was an input error."""
    before = len(input_errors.texts)
    terms = _Terms(where, input_errors)
    for term in _split(text[len(SCHEME) :], ","):
        terms.add(term)
    selection = terms.selection()
    return selection if len(input_errors.texts) == before else None


def _split(text: str, mark: str, most: int = -1) -> list[str]:
    """Split at a mark, at most so often, but not at one behind a backslash. Backslashes stay."""
    parts = [""]
    for piece in re.findall(r"\\.|.", text, re.DOTALL):
        if piece == mark and most != len(parts) - 1:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def _plain(text: str) -> str:
    r"""Take the backslashes from commas and equals signs; `\*`, `\?` and `\\` are EC2's own to read."""
    return re.sub(r"\\(.)", lambda found: found[1] if found[1] in ",=" else found[0], text, flags=re.DOTALL)


class _Terms:
    """The terms of a selection so far. Each complaint names its term."""

    def __init__(self, where: str, input_errors: InputErrors) -> None:
        self._where = where
        self._input_errors = input_errors
        self._filters: dict[str, dict[str, None]] = {}
        self._others: dict[str, list[str]] = {}

    def add(self, term: str) -> None:
        """Take one term: `tag:NAME=VALUE`, `tag:NAME`, `asg=NAME`, `vpc=ID`, `cluster=ID`, or how hosts are made."""
        if term.startswith("tag:"):
            name, *values = map(_plain, _split(term, "=", most=1))
            if name == "tag:":
                self._complain(f"{term!r} names no tag: tag:NAME=VALUE, or tag:NAME for any value")
            elif values:
                self._filter(name, values[0])
            else:
                self._filter("tag-key", name[len("tag:") :])
            return
        name, _, value = _plain(term).partition("=")
        if name not in _TERMS or not value:
            known = ("tag:NAME=VALUE", *(f"{each}=" for each in _TERMS))
            self._complain(
                f"{term!r} is not understood: a term is one of {', '.join(known)}"
                + did_you_mean(name, _TERMS)
            )
            return
        try:
            value = _TERMS[name](value)
        except InvalidValueError as error:
            self._complain(f"{name}: {error}")
            return
        if name in _FILTERS:
            self._filter(_FILTERS[name], value)
        else:
            self._others.setdefault(name, []).append(value)

    def selection(self, users: tuple[tuple[str, str], ...] = ()) -> Ec2Selection | None:
        """Return the selection; None, with a complaint, where it would mean every instance."""
        others = {name: tuple(dict.fromkeys(values)) for name, values in self._others.items()}
        for name in ("address", "user"):
            if len(others.get(name, ())) > 1:
                self._complain(f"{name} is given twice: {', '.join(others[name])}")
        if not self._filters and "cluster" not in others:
            self._complain(
                "which instances? at least one tag:NAME=VALUE, asg=NAME, vpc=ID or cluster=ID is wanted"
            )
            return None
        return Ec2Selection(
            tuple((name, tuple(values)) for name, values in self._filters.items()),
            others.get("cluster", ()),
            others.get("region", ()),
            others.get("state", (_RUNNING,)),
            others.get("address", ADDRESSES)[0],
            others.get("group", ()),
            users,
            others.get("user", (None,))[0],
        )

    def _filter(self, name: str, value: str) -> None:
        values = self._filters.setdefault(name, {})
        values[value] = None
        if len(values) == _MOST_TERMS + 1 or len(self._filters) == _MOST_TERMS + 1:
            self._complain(f"too many terms: EC2 takes {_MOST_TERMS} values of a filter")

    def _complain(self, text: str) -> None:
        self._input_errors.add(self._where, text)


def _matching(pattern: re.Pattern[str], example: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise InvalidValueError(f"{text[: validators.LONGEST]!r} is not of the form {example}")
        return text

    return check


def _one_of(known: Sequence[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in known:
            raise InvalidValueError(
                f"{text[: validators.LONGEST]!r} is not one of {', '.join(known)}" + did_you_mean(text, known)
            )
        return text

    return check


def _tag(text: str) -> str:
    if len(text) > 128:
        raise InvalidValueError("the key of a tag has at most 128 characters")
    return text


_TERMS: Mapping[str, Callable[[str], str]] = {
    "asg": str,
    "vpc": _matching(_VPC_ID, "vpc-0123456789abcdef0"),
    "cluster": _matching(CLUSTER_ID, "cluster-2abcdefghij"),
    "region": _matching(_REGION, "eu-central-1"),
    "state": _one_of(STATES),
    "address": _one_of(ADDRESSES),
    "group": _tag,
    "user": validators.user,
}
_FILTERS = {"asg": _ASG_TAG, "vpc": "vpc-id"}


# in a TOML inventory


_KEYS = ("select", "regions", "states", "address", "groups", "users")


def from_table(table: Any, where: Callable[[str], str], input_errors: InputErrors) -> Ec2Selection | None:
    """Return what the table `[ec2]` selects; None when there was an input error. `where` is the place of a key."""
    before = len(input_errors.texts)
    if not isinstance(table, dict):
        input_errors.add(where(""), '`ec2` is not a table: [ec2] with select = ["tag:NAME=VALUE"] is wanted')
        return None
    for key in table:
        if key not in _KEYS:
            input_errors.add(where(key), f"unknown key `ec2.{key}`" + did_you_mean(key, _KEYS))
    terms = _Terms(where("select"), input_errors)
    for term in _texts(table, "select", where, input_errors):
        terms.add(term)
    for key, name in (("regions", "region"), ("states", "state"), ("groups", "group")):
        for value in _texts(table, key, where, input_errors):
            terms.add(f"{name}={value}")
    if "address" in table:
        terms.add(f"address={table['address']}")
    selection = terms.selection(_users(table.get("users", {}), where("users"), input_errors))
    return selection if len(input_errors.texts) == before else None


def _texts(
    table: Mapping[str, Any], key: str, where: Callable[[str], str], input_errors: InputErrors
) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        input_errors.add(where(key), f"`ec2.{key}` is not a list of texts")
        return []
    return value


def _users(value: Any, where: str, input_errors: InputErrors) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        input_errors.add(where, '`ec2.users` is a table of users by names of images: "my-base-*" = "ops"')
        return ()
    try:
        return tuple((pattern, validators.user(user)) for pattern, user in value.items())
    except InvalidValueError as error:
        input_errors.add(where, str(error))
        return ()


# instances -> hosts


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
