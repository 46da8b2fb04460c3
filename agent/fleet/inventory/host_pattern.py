"""`--limit web*,&eu,!web-07` -> its targets, in the order of the inventory, as Ansible users know it."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from agent.config.input_errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.config.input_errors import InputErrors
    from agent.core.fleet_model import Target


def select(
    targets: Sequence[Target], pattern: str, input_errors: InputErrors, where: str = "--limit"
) -> tuple[Target, ...]:
    """Return the targets of a pattern.

    Parts are separated by commas: names of hosts, groups or zones, with `*` and `?`, and the words `all` and
    `ungrouped`. Plain parts add up; then only what every `&part` means too is kept; then what any `!part` means
    goes. Without a plain part all are taken first. A part that means nothing is a complaint: a typing error after
    `!` would touch a host that was to be left alone. Where a host and a group have one name, a plain part means the
    host, `&` the group, as with Ansible; `!` leaves both alone. A pattern such as `a*` matches the group `all` as well:
    where that would mean more hosts, it is refused.
    """
    parts = [part.strip() for part in pattern.split(",") if part.strip()]
    if not parts:
        input_errors.add(where, "it is empty: names of hosts or groups are wanted")
        return ()
    before = len(input_errors.texts)
    added: set[str] = set()
    kept = {target.name for target in targets}
    gone: set[str] = set()
    for part in parts:
        sign = part[0] if part[0] in "!&" else ""
        names = _meant_by(sign, part[len(sign) :].strip(), targets, where, input_errors)
        if sign == "!":
            gone |= names
        elif sign == "&":
            kept &= names
        else:
            added |= names
    if all(part[0] in "!&" for part in parts):
        added = {target.name for target in targets}
    left = (added & kept) - gone
    if len(input_errors.texts) > before:
        return ()
    if not left:
        input_errors.add(
            where, f"nothing is left of {len(targets)} hosts: {pattern!r} excludes all it includes"
        )
    return tuple(target for target in targets if target.name in left)


def _meant_by(
    sign: str, part: str, targets: Sequence[Target], where: str, input_errors: InputErrors
) -> set[str]:
    reserved = {
        "all": {target.name for target in targets},
        "ungrouped": {target.name for target in targets if not target.groups},
    }
    names = reserved[part] if part in reserved else _named(sign, part, targets)
    for group, members in reserved.items() if names else ():
        if part not in reserved and fnmatchcase(group, part.replace("[", "[[]")) and not members <= names:
            input_errors.add(
                where,
                f"{part!r} matches the group `{group}` too, of which Ansible takes every host: name the hosts or their "
                f"group, or `{group}`",
            )
    if not names:
        known = {target.name for target in targets} | {group for target in targets for group in target.groups}
        # the nearest of many names takes long to find, and a pattern is near to none
        hint = "" if len(known) > 1_000 or "*" in part or "?" in part else did_you_mean(part, known)
        if part.startswith("~"):
            hint = "; regular expressions are not understood, * and ? are"
        elif part.startswith("@"):
            hint = "; files are not read here, `--resume RUN --only failed` continues a run"
        elif "[" in part:
            hint = "; ranges and positions are not understood, * and ? are"
        elif re.search(r"[:\s]", part):
            hint = "; parts are separated by commas"
        input_errors.add(where, f"{part!r} means no host of the inventory{hint}")
    return names


def _named(sign: str, part: str, targets: Sequence[Target]) -> set[str]:
    """Return the hosts whose own name, or that of a group of theirs, a part matches."""
    glob = part.replace("[", "[[]")
    groups = {group for target in targets for group in target.groups}
    matching = {group for group in groups if fnmatchcase(group, glob)}
    hosts = {target.name for target in targets if fnmatchcase(target.name, glob)}
    members = {target.name for target in targets if not matching.isdisjoint(target.groups)}
    if part in hosts and not sign:
        return {part}
    if part in matching and sign == "&" and "." not in part:
        return members
    return hosts | members
