"""What Ansible reads for an inventory: `group_vars/` and `host_vars/` beside it, and `ansible.cfg`."""

from __future__ import annotations

import configparser
import json
import os
import posixpath
from typing import TYPE_CHECKING, Any

from agent.config.options import InvalidValueError
from agent.core.errors import AgentError
from agent.fleet.inventory import variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.config.input_errors import InputErrors
    from agent.core.host import HostView

_EXTENSIONS = ("", ".yml", ".yaml", ".json")
_CONFIG = "ansible.cfg"
_LARGEST = 1_000_000
_DEEPEST = 16
_VAULT = "$ANSIBLE_VAULT"
_LISTED = "`ansible-inventory -i FILE --list > fleet.json` makes JSON of it"

# section and name in ansible.cfg -> the equivalent variable
_DEFAULTS = {
    ("defaults", "remote_user"): "ansible_user",
    ("defaults", "remote_port"): "ansible_port",
    ("defaults", "private_key_file"): "ansible_private_key_file",
    ("defaults", "transport"): variables.CONNECTION,
    ("connection", "ssh_args"): "ansible_ssh_args",
    ("ssh_connection", "ssh_args"): "ansible_ssh_args",
    ("ssh_connection", "ssh_common_args"): "ansible_ssh_common_args",
    ("ssh_connection", "ssh_extra_args"): "ansible_ssh_extra_args",
    ("ssh_connection", "ssh_executable"): "ansible_ssh_executable",
    ("ssh_connection", "pkcs11_provider"): "ansible_ssh_pkcs11_provider",
    ("paramiko_connection", "proxy_command"): "ansible_paramiko_proxy_command",
    ("privilege_escalation", "become_user"): "ansible_become_user",
    ("privilege_escalation", "become_method"): "ansible_become_method",
    ("privilege_escalation", "become_exe"): "ansible_become_exe",
    ("privilege_escalation", "become_flags"): "ansible_become_flags",
    ("sudo_become_plugin", "user"): "ansible_become_user",
    ("sudo_become_plugin", "executable"): "ansible_become_exe",
    ("sudo_become_plugin", "flags"): "ansible_become_flags",
}
# variable of the environment -> the equivalent variable; it overrides ansible.cfg, and the inventory overrides it
_ENVIRONMENT = {
    "ANSIBLE_REMOTE_USER": "ansible_user",
    "ANSIBLE_REMOTE_PORT": "ansible_port",
    "ANSIBLE_PRIVATE_KEY_FILE": "ansible_private_key_file",
    "ANSIBLE_TRANSPORT": variables.CONNECTION,
    "ANSIBLE_SSH_ARGS": "ansible_ssh_args",
    "ANSIBLE_SSH_COMMON_ARGS": "ansible_ssh_common_args",
    "ANSIBLE_SSH_EXTRA_ARGS": "ansible_ssh_extra_args",
    "ANSIBLE_SSH_EXECUTABLE": "ansible_ssh_executable",
    "ANSIBLE_PKCS11_PROVIDER": "ansible_ssh_pkcs11_provider",
    "ANSIBLE_BECOME_USER": "ansible_become_user",
    "ANSIBLE_SUDO_USER": "ansible_become_user",
    "ANSIBLE_BECOME_METHOD": "ansible_become_method",
    "ANSIBLE_BECOME_EXE": "ansible_become_exe",
    "ANSIBLE_SUDO_EXE": "ansible_become_exe",
    "ANSIBLE_BECOME_FLAGS": "ansible_become_flags",
    "ANSIBLE_SUDO_FLAGS": "ansible_become_flags",
}
# These change which files are read, or which of two values wins.
_REFUSED_VARIABLES = ("ANSIBLE_PRECEDENCE", "ANSIBLE_VARS_ENABLED", "ANSIBLE_YAML_FILENAME_EXT")
_REFUSED = (
    ("defaults", "precedence"),
    ("defaults", "vars_plugins_enabled"),
    ("defaults", "yaml_valid_extensions"),
)


def settings(view: HostView, inventory: str, input_errors: InputErrors, ignored: set[str]) -> dict[str, Any]:
    """Return Ansible's own settings for connections, as the equivalent variables; all others override them.

    Of them the environment is stronger than `ansible.cfg`.
    """
    found = _configured(view, inventory, input_errors, ignored)
    for name in _REFUSED_VARIABLES:
        if os.environ.get(name, "").strip():
            input_errors.add(name, f"this variable is not understood here: {_LISTED}")
    for name, variable in _ENVIRONMENT.items():
        value = os.environ.get(name, "").strip()
        if value:
            found.update(
                variables.parse_variable(variable, value, f"the variable {name}", input_errors, ignored)
            )
    return found


def _configured(
    view: HostView, inventory: str, input_errors: InputErrors, ignored: set[str]
) -> dict[str, Any]:
    """Return the settings of `ansible.cfg`.

    As for Ansible: the one that is named, of the current directory, of the user, or of the machine; and also the one
    beside the inventory. As Ansible does, it skips one in a world-writable directory unless it was named.
    """
    named = os.environ.get("ANSIBLE_CONFIG", "").strip()
    if named:
        path = posixpath.expanduser(named)
        path = posixpath.join(path, _CONFIG) if view.stat(posixpath.join(path, ".")) else path
        text = _text(view, path, input_errors)
        if text is not None:
            return _settings(text, path, input_errors, ignored)
    beside = posixpath.join(posixpath.dirname(inventory), _CONFIG)
    for path in (_CONFIG, beside, posixpath.expanduser(f"~/.{_CONFIG}"), f"/etc/ansible/{_CONFIG}"):
        folder = view.stat(posixpath.join(posixpath.dirname(path) or ".", "."))
        is_open = folder is not None and folder.mode & 0o002
        text = None if is_open else _text(view, path, input_errors)
        if text is not None:
            return _settings(text, path, input_errors, ignored)
    return {}


def _settings(text: str, path: str, input_errors: InputErrors, ignored: set[str]) -> dict[str, Any]:
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",), interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        input_errors.add(path, f"it cannot be read: {str(error).splitlines()[0]}")
        return {}
    for section, name in _REFUSED:
        if parser.has_option(section, name):
            input_errors.add(path, f"{name} in [{section}] is not understood here: {_LISTED}")
    found: dict[str, Any] = {}
    for (section, name), variable in _DEFAULTS.items():
        value = parser.get(section, name, fallback="").strip()
        if value and name == "private_key_file":  # a path in it is relative to its own directory
            value = value if value.startswith("~") else posixpath.join(posixpath.dirname(path), value)
        if value:
            where = f"{path}: {name} in [{section}]"
            found.update(variables.parse_variable(variable, value, where, input_errors, ignored))
    return found


def _text(view: HostView, path: str, input_errors: InputErrors) -> str | None:
    """Return a file's text; None when it is absent or there was an input error."""
    try:
        data = view.read(path)
    except AgentError as error:
        input_errors.add(path, f"{error.sentence}: {error.saw}")
        return None
    if data is not None and len(data) > _LARGEST:
        input_errors.add(path, f"too large: {len(data):,} bytes, at most {_LARGEST:,} are read")
        return None
    try:
        return None if data is None else data.decode("utf-8-sig")
    except UnicodeDecodeError:
        input_errors.add(path, "not UTF-8")
        return None


class VariableFiles:
    """The directory of an inventory, as far as Ansible reads it. Each file is read once."""

    def __init__(self, view: HostView, inventory: str, input_errors: InputErrors, ignored: set[str]) -> None:
        self._view = view
        self._folder = posixpath.dirname(inventory)
        self._input_errors = input_errors
        self._ignored = ignored
        self._names: dict[str, frozenset[str]] = {}

    def of_group(self, name: str) -> dict[str, Any]:
        return self._said("group_vars", name)

    def of_host(self, name: str) -> dict[str, Any]:
        return self._said("host_vars", name)

    def _said(self, kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in self._files(kind, name):
            for variable, value, where in self._variables(path):
                found.update(self._understood(variable, value, where))
        return found

    def _understood(self, name: str, value: Any, where: str) -> dict[str, Any]:
        return variables.parse_variable(name, value, where, self._input_errors, self._ignored)

    def _files(self, kind: str, name: str) -> Iterator[str]:
        """Return the files of one group or host: the first of the four names that exists, or all files in it."""
        folder = posixpath.join(self._folder, kind)
        if folder not in self._names:
            self._names[folder] = self._listed(folder)
        there = self._names[folder]
        if there and "/" in name:
            self._input_errors.add(folder, f"no file can be found in it for {name!r}")
            return
        for extension in _EXTENSIONS:
            if f"{name}{extension}" in there:
                path = posixpath.join(folder, f"{name}{extension}")
                yield from self._within(path, 0) if self._is_folder(path) else (path,)
                return

    def _listed(self, folder: str) -> frozenset[str]:
        # Ansible skips what is no directory
        return frozenset(self._view.list_dir(folder)) if self._is_folder(folder) else frozenset()

    def _within(self, folder: str, depth: int) -> Iterator[str]:
        if depth > _DEEPEST:
            self._input_errors.add(folder, f"directories in it are more than {_DEEPEST} deep")
            return
        for name in sorted(self._view.list_dir(folder)):
            extension = posixpath.splitext(name)[1]
            path = posixpath.join(folder, name)
            if name.startswith(".") or name.endswith("~"):
                continue
            if not self._is_folder(path):
                if extension in _EXTENSIONS:
                    yield path
            elif not extension:
                yield from self._within(path, depth + 1)

    def _is_folder(self, path: str) -> bool:
        """Return whether a path is a directory, also through a link."""
        seen = self._view.stat(path)
        if seen is None or seen.kind != "link":
            return seen is not None and seen.kind == "directory"
        return self._view.stat(posixpath.join(path, ".")) is not None

    def _variables(self, path: str) -> Iterator[tuple[str, Any, str]]:
        """Yield the variables of a file, each with its value and its place."""
        text = _text(self._view, path, self._input_errors)
        if text is None:
            return
        if text.startswith(_VAULT):
            self._input_errors.add(path, f"it is encrypted by ansible-vault: {_LISTED}")
            return
        try:
            tree, lines = _parsed(text)
        except InvalidValueError as error:
            self._input_errors.add(path, str(error))
            return
        for name, value in tree.items():
            yield name, value, f"{path}:{lines[name]}" if name in lines else path


def _parsed(text: str) -> tuple[dict[str, Any], Mapping[str, int]]:
    """Return a file's table, and the line of each of its keys: JSON, else YAML, as Ansible tries them."""
    lines: Mapping[str, int] = {}
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree, lines = _yaml(text)
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
        raise InvalidValueError("a table of variables is wanted")
    return tree, lines


def _yaml(text: str) -> tuple[Any, Mapping[str, int]]:
    try:
        import yaml  # noqa: PLC0415 -- only where such files are
    except ModuleNotFoundError:
        raise InvalidValueError(
            "YAML needs a library that a host does not: `pipx install 'hsm-agent[fleet]'`"
        ) from None

    class Loader(yaml.SafeLoader):
        """Knows Ansible's own tags: an encrypted value is kept as one, and refused where it is used."""

    Loader.add_constructor("!unsafe", lambda _, node: str(node.value))
    for tag in ("!vault", "!vault-encrypted"):
        Loader.add_constructor(tag, lambda _, node: variables.Encrypted(str(node.value)))
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        lines = {str(key.value): key.start_mark.line + 1 for key, _ in pairs}
        return loader.construct_document(node), lines
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise InvalidValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()
