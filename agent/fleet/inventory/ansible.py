"""Hosts, groups and variables as Ansible has them -> targets, merged by Ansible's own rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.config.input_errors import did_you_mean
from agent.config.options import InvalidValueError
from agent.fleet.inventory import validators, variables
from agent.fleet.inventory.group_tree import MOST_GROUPS, group_tree
from agent.fleet.inventory.variable_files import VariableFiles, settings

if TYPE_CHECKING:
    from agent.config.input_errors import InputErrors
    from agent.core.fleet_model import Target
    from agent.core.host import HostView


@dataclass
class AnsibleHost:
    """A host while its inventory is read: where it was first named, its own variables, the groups that name it."""

    where: str
    variables: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)


@dataclass
class AnsibleGroup:
    """A group while its inventory is read: its hosts, and whether anything declares it."""

    where: str
    declared: bool = False
    variables: dict[str, Any] = field(default_factory=dict)
    children: dict[str, str] = field(default_factory=dict)


class AnsibleInventory:
    """The contents of an inventory so far. With `merged`, each host already has the variables of its groups."""

    def __init__(
        self,
        where: str,
        input_errors: InputErrors,
        remarks: InputErrors,
        view: HostView | None = None,
        *,
        merged: bool = False,
    ) -> None:
        self.where = where
        self.hosts: dict[str, AnsibleHost] = {}
        self.groups: dict[str, AnsibleGroup] = {}
        self.ignored: set[str] = set()
        self._input_errors = input_errors
        self._remarks = remarks
        self._weakest = {} if view is None else settings(view, where, input_errors, self.ignored)
        self._beside = (
            None if view is None or merged else VariableFiles(view, where, input_errors, self.ignored)
        )

    def group(self, name: str, where: str) -> AnsibleGroup | None:
        """Return the group of this name, a new one if needed; None for an invalid name."""
        if name not in self.groups:
            try:
                validators.group(name)
            except InvalidValueError as error:
                self._input_errors.add(where, str(error))
                return None
            if len(self.groups) >= MOST_GROUPS:
                self._input_errors.add(where, f"too many groups: at most {MOST_GROUPS:,}")
                return None
            self.groups[name] = AnsibleGroup(where)
        return self.groups[name]

    def host(self, name: str, group: str, where: str) -> AnsibleHost:
        """Return the host of this name, a new one if needed, and record the group that names it."""
        known = self.hosts.setdefault(name, AnsibleHost(where))
        if group in known.groups:
            section = f"in [{group}]" if group != "ungrouped" else "outside of all groups"
            self._input_errors.add(where, f"{name} is named twice {section}: first at {known.groups[group]}")
        known.groups[group] = where
        return known

    def understood(self, name: str, value: Any, where: str) -> dict[str, Any]:
        return variables.parse_variable(name, value, where, self._input_errors, self.ignored)

    def targets(self) -> tuple[Target, ...]:
        """Return all hosts in the order in which they were first named."""
        self._check_groups()
        line = group_tree(
            {
                name: [
                    child
                    for child in group.children
                    if child in self.groups and child not in validators.RESERVED
                ]
                for name, group in self.groups.items()
                if name not in validators.RESERVED
            }
        )
        if line.circle:
            first, second = line.circle[0], line.circle[1]
            self._input_errors.add(
                self.groups[first].children[second], f"groups contain each other: {' > '.join(line.circle)}"
            )
            return ()
        priority = {name: group.variables.get(variables.PRIORITY, 1) for name, group in self.groups.items()}
        order = sorted(line.above, key=lambda name: (line.depth[name], priority[name], name))
        rank = {name: place for place, name in enumerate(order)}
        merged: dict[frozenset[str], tuple[tuple[str, ...], dict[str, Any]]] = {}
        for_group: dict[str, dict[str, Any]] = {}
        found: list[Target] = []
        left_out: list[str] = []
        for name, host in self.hosts.items():
            direct = frozenset(host.groups) - set(validators.RESERVED)
            if direct not in merged:
                above = direct.union(*(line.above[each] for each in direct))
                ranked = ("all", *(sorted(above, key=rank.__getitem__) or ("ungrouped",)))
                merged[direct] = (tuple(sorted(above)), {**self._weakest, **self._merged(ranked, for_group)})
            groups, of_groups = merged[direct]
            whole = {**of_groups, **host.variables}
            if self._beside:
                whole.update(self._beside.of_host(name))
            if variables.uses_other_connection(whole):
                left_out.append(name)
            else:
                found.append(variables.target(name, groups, whole, host.where))
        self._remark(left_out)
        return tuple(found)

    def _merged(self, ranked: tuple[str, ...], of_files: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Merge the variables of groups, weakest first. Any file is stronger than what the inventory itself says."""
        whole: dict[str, Any] = {}
        for name in ranked:
            if name in self.groups:
                whole.update(self.groups[name].variables)
        for name in ranked if self._beside else ():
            if self._beside and name not in of_files:
                of_files[name] = self._beside.of_group(name)
            whole.update(of_files[name])
        return whole

    def _check_groups(self) -> None:
        known = {name for name, group in self.groups.items() if group.declared} - set(validators.RESERVED)
        for parent, group in self.groups.items():
            for child, where in group.children.items():
                if child in validators.RESERVED and parent not in validators.RESERVED:
                    self._input_errors.add(where, f"`{child}` cannot be in another group")
                elif child not in known and child not in validators.RESERVED:
                    self._input_errors.add(where, f"unknown group `{child}`" + did_you_mean(child, known))
        wanted = {child for group in self.groups.values() for child in group.children}
        for name, group in self.groups.items():
            if name not in known and name not in wanted and name not in validators.RESERVED:
                self._input_errors.add(
                    group.where, f"variables for an unknown group `{name}`" + did_you_mean(name, known)
                )

    def _remark(self, left_out: list[str]) -> None:
        if left_out:
            self._remarks.add(
                self.where, f"left out, since Ansible does not reach them over SSH: {_some(left_out)}"
            )
        if self.ignored:
            self._remarks.add(
                self.where, f"variables that mean nothing here are ignored: {_some(sorted(self.ignored))}"
            )
        both = sorted(set(self.hosts) & set(self.groups))
        if both:
            self._remarks.add(self.where, f"the name of a host and of a group: {_some(both)}")


def _some(words: list[str]) -> str:
    more = f" and {len(words) - 10} more" if len(words) > 10 else ""
    return ", ".join(words[:10]) + more
