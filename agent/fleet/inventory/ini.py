"""A plain list of hosts, or an inventory in Ansible's INI: the list is an INI without sections."""

from __future__ import annotations

import ipaddress
import re
import shlex
from typing import TYPE_CHECKING, Any

from agent.config.options import InvalidValueError
from agent.fleet.inventory.ansible import AnsibleInventory
from agent.fleet.inventory.ranges import HostBudget, expanded
from agent.fleet.inventory.validators import HostSpec, parse_host_spec

if TYPE_CHECKING:
    from agent.config.input_errors import InputErrors
    from agent.core.fleet_model import Target
    from agent.core.host import HostView

LONGEST_LINE = 16_384  # `shlex` takes time with the square of a word's length
_CONSTANTS = {"None": None, "True": True, "False": False}
_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")


def read(
    text: str, where: str, input_errors: InputErrors, remarks: InputErrors, view: HostView | None = None
) -> tuple[Target, ...]:
    """Read the lines of an inventory; with a view of its machine also the files beside it that Ansible reads."""
    return _IniReader(where, input_errors, remarks, view).read(text)


class _IniReader:
    def __init__(
        self, where: str, input_errors: InputErrors, remarks: InputErrors, view: HostView | None
    ) -> None:
        self._where = where
        self._input_errors = input_errors
        self._gathered = AnsibleInventory(where, input_errors, remarks, view)
        self._allowance = HostBudget()
        # as if the first line were [ungrouped]
        self._group = "ungrouped"
        self._kind = "hosts"
        # hosts with variables of their own here, and the lines
        self._own: dict[str, str] = {}

    def read(self, text: str) -> tuple[Target, ...]:
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip()
            if not stripped or stripped[0] in "#;":
                continue
            try:
                if len(line) > LONGEST_LINE:
                    raise InvalidValueError(f"the line is longer than {LONGEST_LINE:,} characters")
                self._line(stripped, f"{self._where}:{number}")
            except InvalidValueError as error:
                self._input_errors.add(f"{self._where}:{number}", str(error))
        self._check_names()
        return self._gathered.targets()

    def _check_names(self) -> None:
        """Refuse variables of a host with the name of a group: Ansible gives them to the group, if that came before."""
        for name, where in self._own.items():
            if name in self._gathered.groups:
                self._input_errors.add(
                    where,
                    f"`{name}` is also the name of a group, to which Ansible gives these variables: give one of them "
                    "another name",
                )

    def _line(self, line: str, where: str) -> None:
        section = _SECTION.fullmatch(line)
        if section:
            self._section(section[1], section[2] or "hosts", where)
        elif line.startswith("[") and line.endswith("]") and not _is_address(line[1:-1]):
            self._kind = ""
            raise InvalidValueError(
                f"{line[:60]!r} is not a section: [group], [group:children] or [group:vars]"
            )
        elif self._kind == "hosts":
            self._hosts(line, where)
        elif self._kind == "vars":
            self._variable(line, where)
        elif self._kind == "children":
            self._child(line, where)

    def _section(self, name: str, kind: str, where: str) -> None:
        self._group, self._kind = name, kind
        if kind not in ("hosts", "children", "vars"):
            self._kind = ""  # what follows would only produce consequential errors
            raise InvalidValueError(f"[{name}:{kind}]: {kind!r} is none of children, vars, hosts")
        group = self._gathered.group(name, where)
        if group is None:
            self._kind = ""
        elif kind != "vars":
            group.declared = True

    def _hosts(self, line: str, where: str) -> None:
        words = _split(line)
        said: dict[str, Any] = {}
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if not equals or not name:
                hint = "; if this is TOML, its name must end in .toml" if words[1] == "=" else ""
                raise InvalidValueError(f"NAME=VALUE is wanted behind a host{hint}")
            said.update(self._gathered.understood(name, _value(value), where))
        for text in expanded(words[0], self._allowance):
            found: HostSpec = parse_host_spec(text)
            is_new = found.host not in self._gathered.hosts
            host = self._gathered.host(found.host, self._group, where)
            if found.port is not None and is_new:  # Ansible takes a port from where a host is first named
                host.variables["ansible_port"] = found.port
            if found.user is not None:
                host.variables["ansible_user"] = found.user
            host.variables.update(said)
            if said:
                self._own.setdefault(found.host, where)

    def _variable(self, line: str, where: str) -> None:
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise InvalidValueError(f"NAME=VALUE is wanted in [{self._group}:vars]")
        found = self._gathered.understood(name.strip(), _value(value.strip()), where)
        self._gathered.groups[self._group].variables.update(found)

    def _child(self, line: str, where: str) -> None:
        name = re.fullmatch(r"([^:\]\s]+)\s*(?:#.*)?", line)
        if not name:
            raise InvalidValueError(
                f"{line[:60]!r}: the name of one group is wanted in [{self._group}:children]"
            )
        if self._gathered.group(name[1], where):
            self._gathered.groups[self._group].children.setdefault(name[1], where)


def _split(line: str) -> list[str]:
    # the text is not shown: such lines may contain passwords
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise InvalidValueError(f"the line cannot be split into words: {error}") from None


def _value(text: str) -> str | bool | None:
    """Remove quotes, and a comment after quotes or a number, as Ansible does; it keeps one after a bare word.

    To Ansible every value is Python where it can be: `None` is not a name.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    quoted = re.fullmatch(r"""(["'])((?:(?!\1)[^\\])*)\1\s*(?:#.*)?""", text)
    number = re.fullmatch(r"(\d+)\s*(?:#.*)?", text)
    return quoted[2] if quoted else number[1] if number else text


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return False
    return True
