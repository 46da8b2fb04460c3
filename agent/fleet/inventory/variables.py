"""One variable of an Ansible inventory -> its meaning for a roll-out, or none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Callable

from agent.config.input_errors import did_you_mean
from agent.config.options import ENVIRONMENT_PREFIX, OPTIONS, SECRET_VARIABLES, InvalidValueError
from agent.core.fleet_model import Target
from agent.fleet.inventory import validators
from agent.fleet.inventory.option_values import parse_option
from agent.fleet.inventory.ssh_args import jump_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config.input_errors import InputErrors

LONGEST_VALUE = 16_384
PRIORITY = "ansible_group_priority"
CONNECTION = "ansible_connection"
_OVER_SSH = ("ssh", "paramiko", "paramiko_ssh", "smart")
# Connections of Ansible other than SSH: their hosts are not part of a roll-out.
_ELSEWHERE = (
    "local",
    "winrm",
    "psrp",
    "network_cli",
    "netconf",
    "httpapi",
    "docker",
    "podman",
    "lxd",
    "chroot",
    "aws_ssm",
    "buildah",
    "incus",
    "jail",
    "kubectl",
    "libssh",
    "lxc",
    "oc",
    "proxmox_pct_remote",
    "qubes",
    "zone",
)
_OPTIONS = {option.variable.lower(): option for option in OPTIONS}
# Of two names for one setting Ansible uses the later one of its own list.
_HOST = ("ansible_ssh_host", "ansible_host")
_PORT = ("ansible_ssh_port", "ansible_port")
_USER = ("ansible_ssh_user", "ansible_user")
_KEY = ("ansible_ssh_private_key_file", "ansible_private_key_file")
_SHELL = "ansible_shell_type"
_ARGUMENTS = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
# They select a program, a key or a user for the connection in ways that are not supported here.
_ELSEWISE = (
    "ansible_paramiko_host",
    "ansible_paramiko_port",
    "ansible_paramiko_private_key_file",
    "ansible_paramiko_proxy_command",
    "ansible_paramiko_user",
    "ansible_private_key",
    "ansible_ssh_pkcs11_provider",
    "ansible_ssh_private_key",
)


class Encrypted(str):
    """A value that only ansible-vault can read."""

    __slots__ = ()


def parse_variable(
    name: str, value: Any, where: str, input_errors: InputErrors, ignored: set[str]
) -> dict[str, Any]:
    """Return the variable by its own name, with its parsed value; nothing after an input error or a warning."""
    ours = name.startswith(ENVIRONMENT_PREFIX.lower())
    if name not in _PARSED and not ours:
        ignored.add(name)
    elif isinstance(value, Encrypted) or (
        isinstance(value, list) and any(isinstance(each, Encrypted) for each in value)
    ):
        input_errors.add(
            where, f"{name}: it is encrypted by ansible-vault; `ansible-inventory --list` shows it"
        )
    elif isinstance(value, str) and len(value) > LONGEST_VALUE:
        input_errors.add(where, f"{name}: longer than {LONGEST_VALUE:,} characters")
    elif _has_template(value):
        input_errors.add(where, f"{name}: templates are not evaluated here; write the value itself")
    elif ours:
        return _option(name, value, where, input_errors)
    elif isinstance(value, bool) or not isinstance(value, (str, int)):
        input_errors.add(where, f"{name}: a text is wanted")
    else:
        try:
            return {name: _PARSED[name](str(value))}
        except InvalidValueError as error:
            input_errors.add(where, f"{name}: {error}")
    return {}


def _has_template(value: Any) -> bool:
    # one level: deeper values are not used, and a list of YAML may contain itself
    texts = value if isinstance(value, list) else [value]
    return any(isinstance(each, str) and ("{{" in each or "{%" in each) for each in texts)


def _option(name: str, value: Any, where: str, input_errors: InputErrors) -> dict[str, Any]:
    option = _OPTIONS.get(name)
    if option is None:
        secret = name.upper() in SECRET_VARIABLES
        input_errors.add(
            where,
            f"`{name}` is a secret: it is taken from the environment only"
            if secret
            else f"unknown variable `{name}`" + did_you_mean(name, _OPTIONS),
        )
        return {}
    if isinstance(value, str):
        value = value.strip()
        if option.many:
            value = [each for each in re.split(r"[,\s]+", _unlisted(value)) if each]
    said = parse_option(option, value, f"{where}: {name}", input_errors)
    return {name: said[option.name]} if said else {}


def uses_other_connection(variables: Mapping[str, Any]) -> bool:
    """Return whether Ansible connects to this host by other means than SSH."""
    return variables.get(CONNECTION, "ssh") not in _OVER_SSH


def target(name: str, groups: tuple[str, ...], variables: Mapping[str, Any], where: str) -> Target:
    """Return the target of a host with its merged and parsed variables."""
    jumps = [variables[each] for each in _ARGUMENTS if variables.get(each)]
    return Target(
        name=name,
        address=_first(variables, _HOST) or name,
        port=_first(variables, _PORT),
        user=_first(variables, _USER),
        key=_first(variables, _KEY),
        jump=jumps[0] if jumps else None,
        groups=groups,
        options={
            option.name: variables[variable] for variable, option in _OPTIONS.items() if variable in variables
        },
        where=where,
        system=variables.get(_SHELL),
    )


def _first(variables: Mapping[str, Any], known: tuple[str, ...]) -> Any:
    return next((variables[each] for each in known if each in variables), None)


def _unlisted(text: str) -> str:
    """Remove the brackets and quotes of a list, since Ansible reads `['a', 'b']` in an INI as one."""
    inside = re.fullmatch(r"\[(.*)\]", text.strip(), re.DOTALL)
    return re.sub(r"['\"]", "", inside[1]) if inside else text


def _connection(text: str) -> str:
    """Return the plug-in. One with its full name (`amazon.aws.aws_ssm`) is a plug-in, whatever it is called."""
    collection, _, kind = text.rpartition(".")
    if kind not in (*_ELSEWHERE, *_OVER_SSH) and not re.fullmatch(r"\w+\.\w+", collection):
        raise InvalidValueError(f"{text!r} is not how a host is reached here: ssh is")
    return kind if collection in ("", "ansible.builtin", "ansible.legacy") or kind in _ELSEWHERE else text


def _elsewise(_text: str) -> str:
    raise InvalidValueError("it is not understood here; ssh's configuration file and its keys are")


def _program(text: str) -> str:
    if text.rpartition("/")[2] != "ssh":
        raise InvalidValueError(f"{text!r} is not run here: only ssh's configuration is read")
    return text


def _root(text: str) -> str:
    if text != "root":
        raise InvalidValueError(f"{text!r} is not who does the work on a host: root is")
    return text


def _sudo(text: str) -> str:
    if text.rpartition("/")[2].rpartition(".")[2] != "sudo":
        raise InvalidValueError(f"{text!r} is not how one becomes root here: sudo is")
    return text


def _flags(text: str) -> str:
    if not all(re.fullmatch(r"-[HSnEk]+", word) for word in text.split()):
        raise InvalidValueError(f"{text!r} is not how sudo is called here: `sudo -n`")
    return text


def _priority(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InvalidValueError(f"{text!r} is not a whole number")
    return int(text)


_PARSED: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(_HOST, validators.host),
    **dict.fromkeys(_PORT, validators.port),
    **dict.fromkeys(_USER, validators.user),
    **dict.fromkeys(_KEY, validators.key),
    **dict.fromkeys(_ARGUMENTS, jump_in),
    _SHELL: validators.shell,
    CONNECTION: _connection,
    PRIORITY: _priority,
    **dict.fromkeys(_ELSEWISE, _elsewise),
    "ansible_ssh_executable": _program,
    **dict.fromkeys(("ansible_become_user", "ansible_sudo_user"), _root),
    **dict.fromkeys(("ansible_become_method", "ansible_become_exe", "ansible_sudo_exe"), _sudo),
    **dict.fromkeys(("ansible_become_flags", "ansible_sudo_flags"), _flags),
}
