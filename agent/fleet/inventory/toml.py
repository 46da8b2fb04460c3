"""An inventory in TOML: groups, zones and hosts, each with its own settings.

    user = "ops"                        # for every host: user, port, key, jump, system, zone
    jump = "bastion.example.com"
    hsm.ca_cert = "customerCA.crt"      # and every option, spelled as in the configuration file

    [groups.web]
    hosts = ["web-[01:20]", "web-special"]
    client.components = ["cli", "pkcs11"]

    [groups.production]
    children = ["web"]                  # groups in a group

    [zones.eu-central-1a]
    hosts = ["web-[01:10]"]
    hsm.ip = ["10.0.1.6", "10.0.2.9"]

    [hosts.web-special]                 # a host needs a table only for its own settings
    address = "10.0.4.7"
    zone = "eu-central-1a"
    port = 2222

A table `[ec2]` adds the instances that EC2 has to the hosts, their zones with them (see `ec2.py`).

A host overrides its zone, the zone its groups, a group the group around it, and all of them the top level. Two groups
that set one option of a host differently, neither being in the other, are an input error: their order means nothing.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, Callable

from agent.config.input_errors import did_you_mean
from agent.config.options import InvalidValueError
from agent.config.toml_lines import TomlLines
from agent.fleet.inventory import ec2, ec2_selection, validators
from agent.fleet.inventory.group_tree import MOST_GROUPS, GroupTree, group_tree
from agent.fleet.inventory.option_values import parse_option
from agent.fleet.inventory.ranges import HostBudget, expanded
from agent.fleet.inventory.toml_merge import OPTION_OF, HostEntry, Merge, Scope

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser, from the index, on the Pythons before it moved into the standard library
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.config.input_errors import InputErrors
    from agent.core.fleet_model import Target

# the parser's time grows with the square of their number
_DEEP = re.compile(r"(?:\.[ \t]*[\w-]+[ \t]*){100}")
_CONNECTION: dict[str, Callable[[str], Any]] = {
    "user": validators.user,
    "port": validators.port,
    "key": validators.key,
    "jump": validators.jump,
    "system": validators.system,
}
_PARSED = {**_CONNECTION, "address": validators.host, "zone": validators.group}


def read(
    text: str,
    where: str,
    input_errors: InputErrors,
    remarks: InputErrors,
    source: ec2.InstanceSource | None = None,
) -> tuple[Target, ...]:
    """Read the document, and ask `source` for the instances of its `[ec2]`. Raises AgentError of exit status 12."""
    tree = _tree(text, where, input_errors)
    if tree is None:
        return ()
    return _TomlReader(TomlLines(text), where, input_errors, remarks).read(tree, source)


def selection(text: str, where: str, input_errors: InputErrors) -> ec2_selection.Ec2Selection | None:
    """Return what the `[ec2]` of a document selects; None without one."""
    tree = _tree(text, where, input_errors)
    if not tree:
        return None
    return _TomlReader(TomlLines(text), where, input_errors, input_errors).selection(tree)


def _tree(text: str, where: str, input_errors: InputErrors) -> dict[str, Any] | None:
    deep = _DEEP.search(text)
    if deep:
        input_errors.add(
            f"{where}:{text.count(chr(10), 0, deep.start()) + 1}", "a key of more than 100 parts"
        )
        return None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        line = re.search(r"at line (\d+)", str(error))
        input_errors.add(f"{where}:{line[1]}" if line else where, f"not valid TOML: {error}")
        return None


class _TomlReader:
    def __init__(self, lines: TomlLines, where: str, input_errors: InputErrors, remarks: InputErrors) -> None:
        self._lines = lines
        self._where = where
        self._input_errors = input_errors
        self._remarks = remarks
        self._allowance = HostBudget()
        self._hosts: dict[str, HostEntry] = {}

    def read(self, tree: dict[str, Any], source: ec2.InstanceSource | None) -> tuple[Target, ...]:
        top = self._level(tree, (), (*_CONNECTION, "zone"), ("groups", "zones", "hosts", "ec2"))
        groups = self._tables(tree, "groups", (*_CONNECTION, "zone"), ("hosts", "children"))
        zones = self._tables(tree, "zones", tuple(_CONNECTION), ("hosts",))
        for name in sorted(groups.keys() & zones.keys()):
            self._complain(("zones", name), f"`{name}` is the name of a group and of a zone")
        for name, (path, table) in self._named(tree, "groups"):
            for host in self._members(table, (*path, "hosts")):
                host.groups.add(name)
        for name, (path, table) in self._named(tree, "zones"):
            for host in self._members(table, (*path, "hosts")):
                host.zones.setdefault(name, self._lines.of(*path, "hosts"))
        for level in (top, *groups.values(), *self._read_hosts(tree, groups)):
            zone = level.said.get("zone")
            if zone is not None and zone not in zones:
                line = f"{self._where}:{level.lines['zone']}"
                self._input_errors.add(
                    line, f"unknown zone `{zone}`: [zones.{zone}] is missing" + did_you_mean(zone, zones)
                )
        chosen = self.selection(tree)
        instances = self._instances(chosen, groups, source) if chosen else ()
        family = self._family(tree, groups)
        if family.circle or not self._hosts:
            return ()
        targets = Merge(top, groups, zones, family, self._hosts, self._where, self._input_errors).targets()
        if chosen is None:
            return targets
        found = {each.instance.id: each for each in instances}
        known = tuple(found[each.name].target(each) if each.name in found else each for each in targets)
        where = f"{self._where}:{self._lines.of('ec2')}"
        return ec2.with_users(known, instances, chosen, where, self._remarks, source)

    def selection(self, tree: dict[str, Any]) -> ec2_selection.Ec2Selection | None:
        """Return what `[ec2]` selects; None without one, or with an input error."""
        if "ec2" not in tree:
            return None

        def place(key: str) -> str:
            return f"{self._where}:{self._lines.of(*('ec2', key) if key else ('ec2',))}"

        return ec2_selection.from_table(tree["ec2"], place, self._input_errors)

    def _instances(
        self,
        selection: ec2_selection.Ec2Selection,
        groups: dict[str, Scope],
        source: ec2.InstanceSource | None,
    ) -> tuple[ec2.Ec2Host, ...]:
        """Add the instances of a selection to the hosts; one that has a table of its own keeps what that says.

        AWS is not asked while there are input errors: they are reported at once.
        """
        if self._input_errors.texts:
            return ()
        line = self._lines.of("ec2")
        where = f"{self._where}:{line}"
        found = ec2.find_hosts(selection, where, self._input_errors, self._remarks, source)
        for each in found:
            host = self._hosts.setdefault(each.instance.id, HostEntry(line))
            host.groups |= set(each.groups)
            host.own.setdefault("address", each.address)
            if each.instance.zone and "zone" not in host.own:
                host.zones.setdefault(each.instance.zone, line)
            for group in each.groups:
                groups.setdefault(group, Scope())
        self._drop_settings_alone({each.instance.id for each in found}, where)
        return found

    def _drop_settings_alone(self, found: set[str], where: str) -> None:
        """Leave out instances that only have settings here: without EC2 nobody knows their address."""
        gone = [
            name
            for name, host in self._hosts.items()
            if name not in found and ec2.INSTANCE_ID.fullmatch(name) and "address" not in host.own
        ]
        for name in gone:
            del self._hosts[name]
        if gone:
            self._remarks.add(
                where, f"left out, since EC2 shows no such host: {', '.join(sorted(gone)[:10])}"
            )

    def _tables(
        self, tree: dict[str, Any], kind: str, settings: tuple[str, ...], shape: tuple[str, ...]
    ) -> dict[str, Scope]:
        """Return the levels of `[groups.NAME]` or `[zones.NAME]`, and report invalid ones."""
        tables = tree.get(kind, {})
        if not isinstance(tables, dict):
            self._complain((kind,), f"`{kind}` is not a table: [{kind}.NAME] is wanted")
            return {}
        if len(tables) > MOST_GROUPS:
            self._complain((kind,), f"too many {kind}: at most {MOST_GROUPS:,}")
            return {}
        levels: dict[str, Scope] = {}
        for name, table in tables.items():
            path = (kind, name)
            try:
                validators.group(name)
            except InvalidValueError as error:
                self._complain(path, str(error))
            if name in validators.RESERVED:
                self._complain(
                    path, f"`{name}` has a meaning of its own; what applies to every host is at the top"
                )
            if not isinstance(table, dict):
                self._complain(path, f"`{kind}.{name}` is not a table")
                continue
            levels[name] = self._level(table, path, settings, shape)
        return levels

    @staticmethod
    def _named(
        tree: dict[str, Any], kind: str
    ) -> Iterable[tuple[str, tuple[tuple[str, str], dict[str, Any]]]]:
        tables = tree.get(kind)
        for name, table in tables.items() if isinstance(tables, dict) else ():
            if isinstance(table, dict):
                yield name, ((kind, name), table)

    def _read_hosts(self, tree: dict[str, Any], groups: Mapping[str, Scope]) -> list[Scope]:
        tables = tree.get("hosts", {})
        levels: list[Scope] = []
        if isinstance(tables, list):
            self._members(tree, ("hosts",))
            return levels
        if not isinstance(tables, dict):
            self._complain(("hosts",), "`hosts` is a list of names, or [hosts.NAME] are tables")
            return levels
        for text, table in tables.items():
            path = ("hosts", text)
            found = self._mentioned(text, path)
            if not isinstance(table, dict):
                self._complain(path, f"`hosts.{text}` is not a table")
                continue
            level = self._level(table, path, ("address", *_CONNECTION, "zone"), ("groups",))
            levels.append(level)
            in_groups = self._texts(table, (*path, "groups"))
            for place, name in in_groups:
                if name not in groups:
                    self._complain(place, f"unknown group `{name}`" + did_you_mean(name, groups))
            for name, host in found.items():
                host.groups |= {group for _, group in in_groups if group in groups}
                for setting, value in level.said.items():
                    if host.own.setdefault(setting, value) != value:
                        self._complain(
                            (*path, *setting.split(".")),
                            f"{setting} of {name} is something else in line {host.own_lines[setting]}",
                        )
                    host.own_lines.setdefault(setting, level.lines[setting])
        return levels

    def _members(self, table: dict[str, Any], path: tuple[str, ...]) -> list[HostEntry]:
        """Return the hosts that the list at a path names."""
        here: dict[str, HostEntry] = {}
        for place, text in self._texts(table, path):
            for name, host in self._mentioned(text, place).items():
                if name in here:
                    self._complain(place, f"{name} is named twice in `{'.'.join(path)}`")
                here[name] = host
        return list(here.values())

    def _mentioned(self, text: str, place: tuple[str | int, ...]) -> dict[str, HostEntry]:
        line = self._lines.of(*place)
        found: dict[str, HostEntry] = {}
        try:
            for name in expanded(text, self._allowance):
                host = self._hosts.setdefault(validators.host(name), HostEntry(line))
                host.line = min(host.line, line)
                found[name] = host
        except InvalidValueError as error:
            self._complain(place, str(error))
        return found

    def _texts(self, table: dict[str, Any], path: tuple[str, ...]) -> list[tuple[tuple[str | int, ...], str]]:
        """Return the texts of a list, each with its place."""
        value = table.get(path[-1], [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._complain(path, f"`{'.'.join(path)}` is not a list of names")
            return []
        return [((*path, index), each) for index, each in enumerate(value)]

    def _level(
        self, table: dict[str, Any], path: tuple[str, ...], settings: tuple[str, ...], shape: tuple[str, ...]
    ) -> Scope:
        """Return the settings of a table; `shape` are the keys that select hosts."""
        said: dict[str, Any] = {}
        lines: dict[str, int] = {}
        known = (*settings, *shape, *OPTION_OF)
        for key, value in _flat(table, shape):
            place = (*path, *key.split("."))
            line = self._lines.of(*place)
            where = f"{self._where}:{line}"
            if key in OPTION_OF:
                option = OPTION_OF[key]
                parsed = parse_option(option, value, f"{where}: {key}", self._input_errors)
                said.update((key, each) for each in parsed.values())
            elif key in _PARSED and key not in settings:
                only = "a host" if key == "address" else "hosts and groups, and at the top"
                self._input_errors.add(where, f"`{key}` cannot be given here, only for {only}")
            elif key not in settings:
                self._input_errors.add(
                    where, f"unknown key `{'.'.join((*path, key))}`" + did_you_mean(key, known)
                )
            elif isinstance(value, bool) or not isinstance(value, (str, int) if key == "port" else str):
                self._input_errors.add(where, f"{key}: {'a number' if key == 'port' else 'a text'} is wanted")
            else:
                try:
                    said[key] = _PARSED[key](str(value))
                except InvalidValueError as error:
                    self._input_errors.add(where, f"{key}: {error}")
            lines[key] = line
        return Scope(said, lines)

    def _family(self, tree: dict[str, Any], groups: Mapping[str, Scope]) -> GroupTree:
        children: dict[str, dict[str, tuple[str | int, ...]]] = {name: {} for name in groups}
        for name, (path, table) in self._named(tree, "groups"):
            for place, child in self._texts(table, (*path, "children")):
                if child in groups:
                    children[name][child] = place
                else:
                    self._complain(place, f"unknown group `{child}`" + did_you_mean(child, groups))
        family = group_tree(children)
        if family.circle:
            first, second = family.circle[:2]
            self._complain(children[first][second], f"groups contain each other: {' > '.join(family.circle)}")
        return family

    def _complain(self, place: tuple[str | int, ...], text: str) -> None:
        self._input_errors.add(f"{self._where}:{self._lines.of(*place)}", text)


def _flat(tree: Mapping[str, Any], shape: tuple[str, ...], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if not prefix and key in shape:
            continue
        if isinstance(value, dict) and not prefix:
            yield from _flat(value, (), f"{name}.")
        else:
            yield name, value
