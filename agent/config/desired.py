"""Flags, environment, configuration files and the last run -> Desired; or every complaint about them at once."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from agent.cloudhsm.client_options import CLIENT_OPTIONS, ClientOptions
from agent.config.options import (
    ENVIRONMENT_PREFIX,
    OPTIONS,
    SDKS,
    SECRET_VARIABLES,
    CaSource,
    InvalidValueError,
    checksums_of,
    spelled_address,
)
from agent.core.errors import CODES, AgentError, CodeName
from agent.hosts.owned import changeable

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser, from the index, on the Pythons before it moved into the standard library
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.config.options import Option
    from agent.core.host import HostView


@dataclass(frozen=True)
class Desired:
    """What the caller asked for, validated. None and empty: it was not given; but an empty path: none is wanted.

    `sha256` is file -> checksum, `client` what is only passed on to the vendor's tools.
    """

    hsm_ip: tuple[str, ...] = ()
    ca_cert: CaSource | None = None
    ca_fingerprint: str | None = None
    replace_ca: bool = False
    component: tuple[str, ...] = ()
    client_version: str | None = None
    package_source: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict, hash=False)
    sdk: int | None = None
    platform: str | None = None
    accept_single_hsm: bool = False
    allow_firewall: bool = False
    client: ClientOptions = field(default_factory=ClientOptions)
    report_to: tuple[str, ...] = ()
    report_ca: str | None = None
    report_token_file: str | None = None
    timeout: float | None = None


_MANY = "tuple[str, ...]"
_PASSED_ON = tuple(option.name for option in CLIENT_OPTIONS)
# option -> its annotation and its default, as JSON and records have it
_FIELDS: Mapping[str, tuple[Any, Any]] = {
    **{each.name: (each.type, each.default) for each in fields(Desired) if each.name != "client"},
    "ca_cert": ("str | None", None),
    "sha256": (_MANY, ()),
    **dict.fromkeys(_PASSED_ON, ("str | None", None)),
}
NO_HSM_IP = "at least one address of an HSM is needed"
_BY_KEY = {option.key: option for option in OPTIONS if option.key}
RawOptions = dict[str, Any]


class InputErrors:
    """Everything that is wrong with the input, collected so that it is reported at once."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts: list[str] = list(texts)

    def add(self, where: str, text: str) -> None:
        self.texts.append(f"{where}: {text}")

    def raise_any(self, code: CodeName = "config-invalid", what: str = "the input") -> None:
        """Raise AgentError `code` naming all complaints, when there is one."""
        if self.texts:
            raise self.error(code, what)

    def error(self, code: CodeName = "config-invalid", what: str = "the input") -> AgentError:
        """Return all complaints as one error."""
        count = len(self.texts)
        every = "every line of the complaint; they are all given at once"
        hint = None if count > 1 else CODES[code].fix.replace(every, "what is named")
        count_text = f"{count} things are" if count > 1 else "one thing is"
        return AgentError(code, f"{count_text} wrong with {what}", saw="\n".join(self.texts), hint=hint)


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
    for key, value in _flat(tree):
        place = f"{where}:{_line_of(text, key)}" if not is_json else where
        option = _BY_KEY.get(key)
        if option is None:
            input_errors.add(place, f"unknown key `{key}`" + did_you_mean(key, _BY_KEY))
            continue
        if option.name in given:  # `hsm.ip` as one name, beside `ip` below `hsm`
            input_errors.add(place, f"`{key}` stands there twice")
        for parsed in _parsed(option, value, f"{place}: {key}", input_errors):
            given[option.name] = parsed
    return given


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
    system = view.system
    folder = [
        system.join(system.configuration_folder, name)
        for name in view.list_dir(system.configuration_folder)
        if name.endswith(".toml")
    ]
    for path in (system.configuration, *folder):
        given.update(read_file(view, path, input_errors) or {})
    return given


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


def merged(given: Iterable[RawOptions]) -> Desired:
    """Return what was given, the strongest source first, unchecked."""
    every: RawOptions = {}
    for source in reversed(list(given)):
        every.update(source)
    return with_options(Desired(), every)


def with_options(desired: Desired, given: Mapping[str, Any]) -> Desired:
    """Return what is desired with other values for some options, by their names. Raises TypeError for unknown ones."""
    passed_on = {name: value for name, value in given.items() if name in _PASSED_ON}
    own = {name: value for name, value in given.items() if name not in _PASSED_ON}
    return replace(desired, **own, client=ClientOptions({**desired.client.values, **passed_on}))


def options_of(desired: Desired) -> RawOptions:
    """Return the value of every option that was given, by its name."""
    nothing = Desired()
    return {
        name: getattr(desired, name)
        for name in _FIELDS
        if name not in _PASSED_ON and getattr(desired, name) != getattr(nothing, name)
    } | dict(desired.client.values)


def resolve(given: Iterable[RawOptions], input_errors: InputErrors, *, complete: bool = False) -> Desired:
    """Merge what was given, the strongest source first, and check what only all of it can show.

    `complete`: no record will complete it, so the address of an HSM must be among it. Raises AgentError
    `config-invalid` with every complaint so far.
    """
    desired = merged(given)
    if complete and not desired.hsm_ip and not any(_is_about_hsm_ip(text) for text in input_errors.texts):
        input_errors.add("--hsm-ip", NO_HSM_IP)
    pair = (desired.client["client_cert"], desired.client["client_key"])
    if bool(pair[0]) != bool(pair[1]) or (None in pair and pair != (None, None)):
        input_errors.add("--client-cert, --client-key", "each needs the other")
    if desired.sdk == 3:
        if desired.package_source is None:
            input_errors.add(
                "--sdk 3", "AWS no longer hosts SDK 3: name your own mirror with --package-source"
            )
        of_sdk5 = ["accept_single_hsm", *(each.name for each in CLIENT_OPTIONS if 3 not in each.sdks)]
        for name in of_sdk5:
            if options_of(desired).get(name):
                input_errors.add("--sdk 3", f"--{name.replace('_', '-')} belongs to SDK 5")
    input_errors.raise_any()
    return desired


def _is_about_hsm_ip(complaint: str) -> bool:
    option = _BY_KEY["hsm.ip"]
    return any(name in complaint for name in (option.switch, option.variable, str(option.key)))


def to_json(desired: Desired) -> dict[str, Any]:
    """Return what `from_json` reads back; only what was given."""
    return {name: spelled(value) for name, value in options_of(desired).items()}


def spelled(value: Any) -> Any:
    """Return the value of an option as JSON and configuration files have it."""
    if isinstance(value, CaSource):
        return value.text
    if isinstance(value, dict):
        return [f"{name}={digest}" for name, digest in value.items()]
    return list(value) if isinstance(value, tuple) else value


def from_json(tree: Mapping[str, Any]) -> Desired:
    """Read what `to_json` wrote. Raises TypeError for keys of another version, and for values of another kind.

    An earlier version kept addresses as they were typed; whether one can be an HSM's was judged where it was typed.
    """
    given: RawOptions = {
        key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()
    }
    if given.keys() - _FIELDS.keys():
        raise TypeError(f"unknown: {sorted(given.keys() - _FIELDS.keys())}")
    for name, (annotation, default) in _FIELDS.items():
        value = given.get(name, default)
        if value != default and not _is_of_kind(annotation, value):
            raise TypeError(name)
    if given.get("sdk") not in (None, *SDKS):
        raise TypeError("sdk")
    try:
        values: RawOptions = {
            "hsm_ip": tuple(dict.fromkeys(spelled_address(each) for each in given.get("hsm_ip", ()))),
            "sha256": checksums_of(given.get("sha256", ())),
        }
    except ValueError as error:
        raise TypeError("hsm_ip, sha256") from error
    if given.get("ca_cert") is not None:
        values["ca_cert"] = CaSource.of(given["ca_cert"])
    passed_on = {name: value for name, value in given.items() if name not in _PASSED_ON or value is not None}
    return with_options(Desired(), {**passed_on, **values})


# an annotation of Desired -> of what type a value is, or each of several
_KINDS: Mapping[Any, tuple[type, ...]] = {
    "bool": (bool,),
    "int | None": (int,),
    "float | None": (int, float),
    "str | None": (str,),
    _MANY: (str,),
}


def _is_of_kind(annotation: Any, value: Any) -> bool:
    """Tell whether a value is of the kind that a field of Desired holds; a text is one that a file can hold."""
    if (annotation == _MANY) != isinstance(value, tuple):
        return False
    values = value if isinstance(value, tuple) else (value,)
    return all(type(each) in _KINDS[annotation] and _is_writable(each) for each in values)


def _is_writable(value: Any) -> bool:
    r"""Tell whether a text can be written: JSON may hold half of a pair (\ud800), which is no text of any host."""
    if isinstance(value, str):
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return False
    return True


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


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in _BY_KEY:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a complaint about an unknown name: the nearest known one, when there is one."""
    from difflib import get_close_matches  # noqa: PLC0415 -- only for a complaint

    near = get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean `{near[0]}`?" if near else ""


def _line_of(text: str, key: str) -> int:
    """Return the line a key stands in: its table's header first, then the name before an equals sign."""
    table, _, name = key.rpartition(".")
    here = ""
    for number, line in enumerate(text.splitlines(), 1):
        opened, _, rest = line.strip().partition("[")
        if not opened and "]" in rest:
            here = rest.partition("]")[0].replace('"', "").replace(" ", "").replace("\t", "")
            continue
        written = re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line)
        if written and written[1] in ((name, key) if here == table else (key,)):
            return number
    return 1
