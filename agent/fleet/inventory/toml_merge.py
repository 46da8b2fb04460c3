"""The settings of each host at every level of an inventory, merged into a target.

A host overrides its zone, the zone its groups, a group the group around it, and all of them the top level.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.config.options import OPTIONS
from agent.core.fleet_model import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config.input_errors import InputErrors
    from agent.fleet.inventory.group_tree import GroupTree

# by the key that a setting has in a file
OPTION_OF = {option.key: option for option in OPTIONS if option.key}


@dataclass(frozen=True)
class Scope:
    """The settings of one table by name, and their lines."""

    said: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass
class HostEntry:
    """All mentions of a host: its first line, its groups and zones, its own settings."""

    line: int
    groups: set[str] = field(default_factory=set)
    zones: dict[str, int] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)
    own_lines: dict[str, int] = field(default_factory=dict)


class Merge:
    """All levels of every host, merged."""

    def __init__(
        self,
        top: Scope,
        groups: Mapping[str, Scope],
        zones: Mapping[str, Scope],
        family: GroupTree,
        hosts: Mapping[str, HostEntry],
        where: str,
        input_errors: InputErrors,
    ) -> None:
        self._top = top
        self._groups = groups
        self._zones = zones
        self._family = family
        self._hosts = hosts
        self._where = where
        self._input_errors = input_errors
        # what two groups disagree about -> the hosts that are in both
        self._torn: dict[tuple[str, str, str], list[str]] = {}
        self._of_groups: dict[frozenset[str], tuple[dict[str, Any], dict[str, tuple[str, str]]]] = {}

    def targets(self) -> tuple[Target, ...]:
        found = [self._target(name, host) for name, host in self._hosts.items()]
        for (setting, one, other), torn in self._torn.items():
            line = self._groups[other].lines[setting]
            more = f" and {len(torn) - 1} more" if len(torn) > 1 else ""
            self._input_errors.add(
                f"{self._where}:{line}",
                f"groups {one} and {other} say different things about {setting}, and both hold {torn[0]}{more}: "
                "say it for the host or its zone",
            )
        order = {name: host.line for name, host in self._hosts.items()}
        return tuple(sorted(found, key=lambda target: order[target.name]))

    def _target(self, name: str, host: HostEntry) -> Target:
        of_groups, torn = self._said_by_groups(frozenset(host.groups))
        zone = self._zone(name, host, {**self._top.said, **of_groups, **host.own})
        of_zone = self._zones.get(zone or "", Scope()).said
        for setting, (one, other) in torn.items():
            if setting not in host.own and setting not in of_zone and not (setting == "zone" and host.zones):
                self._torn.setdefault((setting, one, other), []).append(name)
        whole = {**self._top.said, **of_groups, **of_zone, **host.own}
        above = host.groups.union(*(self._family.above[group] for group in host.groups))
        return Target(
            name=name,
            address=whole.get("address", name),
            port=whole.get("port"),
            user=whole.get("user"),
            key=whole.get("key"),
            jump=whole.get("jump"),
            groups=tuple(sorted(above | ({zone} if zone else set()))),
            options={option.name: whole[key] for key, option in OPTION_OF.items() if key in whole},
            where=f"{self._where}:{host.line}",
            system=whole.get("system"),
        )

    def _zone(self, name: str, host: HostEntry, said: Mapping[str, Any]) -> str | None:
        own = {host.own["zone"]} if "zone" in host.own else set()
        named = sorted(own | set(host.zones))
        if len(named) > 1:
            line = max((*host.zones.values(), host.own_lines.get("zone", 0)))
            self._input_errors.add(
                f"{self._where}:{line}", f"{name} is in more than one zone: {', '.join(named)}"
            )
        zone: str | None = named[0] if named else said.get("zone")
        return zone

    def _said_by_groups(self, direct: frozenset[str]) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        """Return the settings of a host's groups, and those that two of them set differently."""
        if direct not in self._of_groups:
            above = direct.union(*(self._family.above[group] for group in direct))
            deepest_first = sorted(above, key=lambda group: (-self._family.depth[group], group))
            said: dict[str, Any] = {}
            torn: dict[str, tuple[str, str]] = {}
            for setting in sorted({key for group in above for key in self._groups[group].said}):
                nearest: list[str] = []
                covered: set[str] = set()
                for group in deepest_first:
                    if setting in self._groups[group].said and group not in covered:
                        nearest.append(group)
                        covered |= self._family.above[group]
                first, *others = sorted(nearest)
                said[setting] = self._groups[first].said[setting]
                differing = [group for group in others if self._groups[group].said[setting] != said[setting]]
                if differing:
                    torn[setting] = (first, differing[0])
            self._of_groups[direct] = (said, torn)
        return self._of_groups[direct]
