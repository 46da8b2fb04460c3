"""Flags, environment and configuration files -> the values of options, and a complaint for each that is wrong."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from agent.config.input_errors import did_you_mean
from agent.config.options import BY_KEY, ENVIRONMENT_PREFIX, OPTIONS, SECRET_VARIABLES, InvalidValueError
from agent.config.toml_lines import TomlLines
from agent.hosts.owned import changeable

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser, from the index, on the Pythons before it moved into the standard library
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.config.desired import RawOptions
    from agent.config.input_errors import InputErrors
    from agent.config.options import Option
    from agent.core.host import HostView


def read_flags(given: Mapping[str, Any], input_errors: InputErrors) -> RawOptions:
    """Take what was typed: option name -> text, list of texts or bool; None and empty were not typed."""
    return {
        option.name: value
        for option in OPTIONS
        if given.get(option.name) not in (None, [], (), False)
        for value in _parsed(option, given[option.name], option.switch, input_errors)
    }


def read_environment(environment: Mapping[str, str], input_errors: InputErrors) -> RawOptions:
    """Take HSM_AGENT_…; a list is separated by commas or spaces. Unknown names are errors, as they are in the file."""
    given: RawOptions = {}
    variables = {option.variable: option for option in OPTIONS}
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or not environment[name].strip():
            continue
        option = variables.get(name)
        if name in SECRET_VARIABLES:
            continue
        if option is None:
            input_errors.add(name, "unknown variable" + did_you_mean(name, variables))
            continue
        text = environment[name]
        values: Any = re.split(r"[,\s]+", text.strip()) if option.many else text
        for value in _parsed(option, values, name, input_errors):
            given[option.name] = value
    return given


def read_document(text: str, where: str, input_errors: InputErrors, *, is_json: bool = False) -> RawOptions:
    """Take a TOML or JSON document. Complaints name the file, the line and the nearest known key."""
    try:
        tree = json.loads(text, object_pairs_hook=_once) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of a number with thousands of digits
        input_errors.add(where, f"not valid {'JSON' if is_json else 'TOML'}: {error}")
        return {}
    if not isinstance(tree, dict):
        input_errors.add(where, "a table is wanted at the top")
        return {}
    given: RawOptions = {}
    for key, value, place in _entries(tree, where, None if is_json else TomlLines(text)):
        option = BY_KEY.get(key)
        if option is None:
            input_errors.add(place, f"unknown key `{key}`" + did_you_mean(key, BY_KEY))
            continue
        if option.name in given:  # `hsm.ip` as one name, beside `ip` below `hsm`
            input_errors.add(place, f"`{key}` stands there twice")
        for parsed in _parsed(option, value, f"{place}: {key}", input_errors):
            given[option.name] = parsed
    return given


def places_of(data: bytes, where: str) -> dict[str, str]:
    """Return where each option stands in a configuration file that `read_text` took: the file, and in TOML the line."""
    text = data.decode("utf-8-sig")
    is_json = text.lstrip().startswith("{")
    tree = json.loads(text) if is_json else tomllib.loads(text)
    entries = _entries(tree, where, None if is_json else TomlLines(text))
    return {BY_KEY[key].name: place for key, _, place in entries}


def _entries(tree: Mapping[str, Any], where: str, lines: TomlLines | None) -> Iterable[tuple[str, Any, str]]:
    for path, value in _flat(tree):
        yield ".".join(path), value, f"{where}:{lines.of(*path)}" if lines else where


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the members of a JSON object. Of two with one name Python drops the first without an error."""
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"`{name}` stands there twice")
        members[name] = value
    return members


def read_files(view: HostView, input_errors: InputErrors) -> RawOptions:
    """Take the configuration file and then conf.d/*.toml in the order of their names; later ones win."""
    given: RawOptions = {}
    for path in configuration_files(view):
        given.update(read_file(view, path, input_errors) or {})
    return given


def configuration_files(view: HostView) -> tuple[str, ...]:
    """Return the paths of the configuration file and of those in conf.d; what stands in a later one wins."""
    system = view.system
    folder = [
        system.join(system.configuration_folder, name)
        for name in view.list_dir(system.configuration_folder)
        if name.endswith(".toml")
    ]
    return (system.configuration, *folder)


def read_file(view: HostView, path: str, input_errors: InputErrors) -> RawOptions | None:
    """Take one configuration file, None for no such file. One that somebody else can change is not taken."""
    fault = changeable(view, path)
    data = view.read(path)
    if data is None:
        return None
    if fault is not None:
        input_errors.add(path, fault)
        return {}
    return read_text(data, path, input_errors)


def read_text(data: bytes, where: str, input_errors: InputErrors) -> RawOptions:
    """Take the bytes of one configuration file; JSON when they start with a brace."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        input_errors.add(where, f"not UTF-8: byte {error.start}")
        return {}
    return read_document(text, where, input_errors, is_json=text.lstrip().startswith("{"))


def read_option(option: Option, value: Any, where: str, input_errors: InputErrors) -> RawOptions:
    """Take one value of one option, as a document has it, whatever its source."""
    parsed = _parsed(option, value, where, input_errors)
    return {option.name: parsed[0]} if parsed else {}


def _parsed(option: Option, value: Any, where: str, input_errors: InputErrors) -> list[Any]:
    """Return the parsed value in a list, or nothing when there was something to complain about."""
    values = list(value) if option.many and isinstance(value, (list, tuple)) else [value]
    if option.key == "client.sha256" and isinstance(value, dict):
        values = [f"{name}={digest}" for name, digest in value.items()]
    parsed: list[Any] = []
    for each in values:
        # a number may be written as one in TOML (`sdk = 5`); a switch may be the text of an environment variable
        if not isinstance(each, (str, bool) if option.flag else (str, int)) or (
            isinstance(each, bool) and not option.flag
        ):
            input_errors.add(where, "true or false is wanted" if option.flag else "a text is wanted")
            continue
        try:
            parsed.append(each if isinstance(each, bool) else option.parse(str(each)))
        except InvalidValueError as error:
            input_errors.add(where, str(error))
    if len(parsed) < len(values):
        return []
    if not option.many:
        return parsed
    for each in parsed:
        if parsed.count(each) > 1:
            plain = str(each).partition("?")[0]  # what stands behind it in a URL may be a secret
            input_errors.add(where, f"{plain} is given more than once")
            return []
    return [option.collect(parsed)] if parsed else []


def _flat(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        path = (*above, key)
        if isinstance(value, dict) and ".".join(path) not in BY_KEY:
            yield from _flat(value, path)
        else:
            yield path, value
