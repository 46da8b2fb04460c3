"""What `ansible-inventory --list` prints: any inventory that Ansible understands, as one JSON document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.config.options import InvalidValueError
from agent.fleet.inventory import validators
from agent.fleet.inventory.ansible import AnsibleInventory
from agent.fleet.inventory.ranges import HostBudget
from agent.fleet.inventory.variables import Encrypted

if TYPE_CHECKING:
    from agent.config.input_errors import InputErrors
    from agent.core.fleet_model import Target
    from agent.core.host import HostView

_HINT = "what `ansible-inventory --list` prints is wanted"


def read(
    text: str, where: str, input_errors: InputErrors, remarks: InputErrors, view: HostView | None = None
) -> tuple[Target, ...]:
    """Read the document. Each host has its variables merged already, without the settings of `ansible.cfg`."""
    try:
        tree = json.loads(text)
        groups = _table(tree, "the document")
        meta = _table(groups.get("_meta"), "_meta")
        hostvars = _table(meta.get("hostvars", {}), "_meta.hostvars")
    except json.JSONDecodeError as error:
        input_errors.add(f"{where}:{error.lineno}", f"not valid JSON: {error.msg}")
        return ()
    except (InvalidValueError, RecursionError, ValueError) as error:
        input_errors.add(where, f"{error}; {_HINT}")
        return ()
    gathered = AnsibleInventory(where, input_errors, remarks, view, merged=True)
    try:
        _gather(groups, hostvars, gathered)
    except InvalidValueError as error:
        input_errors.add(where, str(error))
        return ()
    return gathered.targets()


def _gather(groups: dict[str, Any], hostvars: dict[str, Any], gathered: AnsibleInventory) -> None:
    allowance = HostBudget()
    for name, content in groups.items():
        table = _table(content, name)
        group = gathered.group(name, gathered.where) if name != "_meta" else None
        if group is None:
            continue
        if table.get("vars"):
            raise InvalidValueError(f"{name}: it has variables of its own; list again without --export")
        group.declared = True
        for child in _texts(table.get("children", []), f"{name}.children"):
            if gathered.group(child, gathered.where):
                # a group without hosts is named among the children and nowhere else
                gathered.groups[child].declared = True
                group.children[child] = gathered.where
        hosts = _texts(table.get("hosts", []), f"{name}.hosts")
        allowance.take(len(hosts))
        for host in hosts:
            _host(host, name, hostvars, gathered)


def _host(text: str, group: str, hostvars: dict[str, Any], gathered: AnsibleInventory) -> None:
    found = validators.parse_host_spec(text)
    host = gathered.host(found.host, group, gathered.where)
    if len(host.groups) > 1:
        return
    if found.user is not None:
        host.variables["ansible_user"] = found.user
    for variable, value in _table(hostvars.get(text, {}), f"_meta.hostvars.{text}").items():
        host.variables.update(gathered.understood(variable, _bare(value), f"{gathered.where}: {text}"))


def _bare(value: Any) -> Any:
    """Remove the wrapper that Ansible puts around a text that is no template, or is encrypted."""
    if isinstance(value, dict) and len(value) == 1:
        (kind, text), *_ = value.items()
        if kind == "__ansible_unsafe":
            return text
        if kind == "__ansible_vault":
            return Encrypted(text)
    return value


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValueError(f"{where}: a table is wanted")
    return value


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidValueError(f"{where}: a list of names is wanted")
    return value
