"""Which instances of EC2 an inventory means, on the command line and in the table [ec2] of TOML. Pure.

    ec2:tag:Role=web,tag:Role=db,vpc=vpc-0a1b          # on the command line

    [ec2]                                              # in a TOML inventory
    select = ["tag:Role=web", "asg=payments"]
    regions = ["eu-central-1"]
    groups = ["Role"]

Terms of one name add up, terms of different names must all match, as EC2's own filters do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.cloudhsm.cluster import CLUSTER_ID
from agent.config.input_errors import did_you_mean
from agent.config.options import InvalidValueError
from agent.fleet.inventory import validators

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.config.input_errors import InputErrors

SCHEME = "ec2:"
_VPC_ID = re.compile(r"vpc-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}")
# The tag that an Auto Scaling group puts on its instances.
_ASG_TAG = "tag:aws:autoscaling:groupName"
RUNNING = "running"
# An instance that is going away has no address that lasts.
STATES = ("pending", RUNNING, "stopping", "stopped")
ADDRESSES = ("private", "public", "ipv6", "id")
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
    states: tuple[str, ...] = (RUNNING,)
    address: str = ADDRESSES[0]
    groups: tuple[str, ...] = ()
    users: tuple[tuple[str, str], ...] = ()
    user: str | None = None


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
            others.get("state", (RUNNING,)),
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
