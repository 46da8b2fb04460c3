"""Flags, environment, configuration files and the last run -> Desired; or every complaint about them at once."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import sys
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Callable

from agent.cloudhsm.fingerprint import parse_fingerprint
from agent.cloudhsm.layout import COMPONENTS
from agent.core.errors import AgentError

if sys.version_info >= (3, 11):
    import tomllib
else:  # the same parser, from the index, on the Pythons before it moved into the standard library
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.core.host import HostView

ENVIRONMENT_PREFIX = "HSM_AGENT_"
CONFIGURATION = "/etc/hsm-agent/config.toml"
CONFIGURATION_FOLDER = "/etc/hsm-agent/conf.d"

# sources that a later release reads; refused now, rather than taken for a file name
_NOT_YET = ("s3:", "ssm:", "secretsmanager:")


@dataclass(frozen=True)
class Desired:
    """What the caller asked for, validated. None and empty mean: not said."""

    hsm_ip: tuple[str, ...] = ()
    ca_cert: str | None = None
    ca_fingerprint: str | None = None
    replace_ca: bool = False
    component: tuple[str, ...] = ()
    client_version: str | None = None
    package_source: str | None = None
    sha256: tuple[str, ...] = ()
    sdk: int | None = None
    platform: str | None = None
    accept_single_hsm: bool = False
    log_level: str | None = None
    log_file: str | None = None
    log_type: str | None = None
    log_rotation: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    timeout: float | None = None

    def checksums(self) -> dict[str, str]:
        """Return file name -> SHA-256 as given by the caller."""
        return dict(pair.split("=", 1) for pair in self.sha256)


@dataclass(frozen=True)
class Option:
    """One thing that can be said, in its three spellings. `many` may be repeated; `flag` takes no value."""

    name: str
    key: str | None
    help: str
    parse: Callable[[str], Any]
    many: bool = False
    flag: bool = False
    metavar: str | None = None

    @property
    def switch(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()


class _WrongError(ValueError):
    """A value is not acceptable; the text is the complaint."""


def _address(text: str) -> str:
    # 010 is 8 to some programs and 10 to others; Pythons before 3.9.5 take it, newer ones refuse
    if not re.search(r"(^|\.)0\d", text):
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(text.strip()))
    hint = "an IPv4 or IPv6 address of an HSM's ENI is wanted, such as 10.0.1.6"
    if re.fullmatch(r"\[?[0-9a-fA-F.:]+\]?:\d+", text):
        hint = "the address alone is wanted; the port is always 2223"
    elif re.fullmatch(r"[A-Za-z0-9.-]+", text) and re.search(r"[A-Za-z]", text):
        hint = "a name is not accepted, since the configure tool takes addresses only; the ENI's IP address is wanted"
    raise _WrongError(f"{text!r} is not an IP address: {hint}")


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in allowed:
            return text
        near = get_close_matches(text, allowed, 1)
        raise _WrongError(
            f"{text!r} is not one of {', '.join(allowed)}" + (f"; did you mean {near[0]}?" if near else "")
        )

    return parse


def _plain(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise _WrongError("an empty value")
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or any(ord(char) < 32 for char in text):
        raise _WrongError(f"{text!r} is not an absolute path")
    return text


def _ca(text: str) -> str:
    if text.startswith(_NOT_YET):
        raise _WrongError(
            f"{text.split(':', 1)[0]}: is not a source this version reads; use a path, -, file: or https:"
        )
    if text.startswith("http://"):
        raise _WrongError("a CA is not fetched over http; use https: or a file")
    return _plain(text)


def _source(text: str) -> str:
    if re.match(r"[a-z][a-z0-9+.-]*://", text) and not text.startswith(("http://", "https://", "file:///")):
        raise _WrongError(f"{text!r} is not http://, https://, file:/// or a folder")
    return _plain(text).rstrip("/")


def _version(text: str) -> str:
    if text == "latest" or re.fullmatch(r"\d+\.\d+\.\d+(-\d+)?", text):
        return text
    raise _WrongError(f"{text!r} is not a version: one such as 5.18.0, or latest, is wanted")


def _sdk(text: str) -> int:
    return int(_one_of("5", "3")(text))


def _checksum(text: str) -> str:
    name, _, value = text.partition("=")
    if name and "/" not in name and re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return f"{name}={value.lower()}"
    raise _WrongError(f"{text!r} is not FILE=SHA256 (64 hexadecimal digits)")


def _fingerprint(text: str) -> str:
    try:
        return parse_fingerprint(text)
    except ValueError as error:
        raise _WrongError(str(error)) from None


def _row(text: str) -> str:
    # which rows there are is the catalogue's to say; here only what can be a name at all
    if re.fullmatch(r"[a-z0-9.]+", text):
        return text
    raise _WrongError(f"{text!r} is not the name of a catalogue row, such as el9 or u24.04")


def duration(text: str) -> float:
    """Return seconds from `90`, `90s`, `15m` or `2h`. Raises ValueError with a sentence."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not 0 < seconds <= 86400:
        raise _WrongError(f"{text!r} is not a duration between 1s and 24h, such as 90s, 15m or 2h")
    return seconds


def _yes(text: str) -> bool:
    return _one_of("true", "false", "1", "0", "yes", "no")(text.lower()) in ("true", "1", "yes")


OPTIONS = (
    Option("hsm_ip", "hsm.ip", "ENI address of an HSM, IPv4 or IPv6; all go to the configure tool in one call",
           _address, many=True, metavar="IP"),
    Option("ca_cert", "hsm.ca_cert", "customerCA.crt: a path, -, file:PATH, https:URL or the PEM text itself",
           _ca, metavar="SOURCE"),
    Option("ca_fingerprint", "hsm.ca_fingerprint", "refuse any other CA: its SHA-256, of a chain the root's",
           _fingerprint, metavar="SHA256"),
    Option("replace_ca", None, "allow a CA different from the one on the host", _yes, flag=True),
    Option("component", "client.components",
           "cli (default), pkcs11, jce, dyn, openssl-provider; what is installed already is always configured too",
           _one_of(*COMPONENTS), many=True, metavar="NAME"),
    Option("client_version", "client.version",
           "a pinned version, or latest (unverified); default: what is installed, else the catalogue's newest",
           _version, metavar="V"),
    Option("package_source", "client.source", "a mirror or folder with the vendor's layout; checksums hold there too",
           _source, metavar="URL|DIR"),
    Option("sha256", "client.sha256", "a checksum for a file that the catalogue does not know", _checksum, many=True,
           metavar="FILE=HASH"),
    Option("sdk", "client.sdk", "5 (default), or 3: the end-of-support client, from your own mirror", _sdk,
           metavar="5|3"),
    Option("platform", "client.platform", "treat this host as a catalogue row, such as el9 on Rocky Linux", _row,
           metavar="ROW"),
    Option("accept_single_hsm", "hsm.accept_single_hsm",
           "turn the key-availability check off, for a cluster with one HSM; in every report", _yes, flag=True),
    Option("log_level", "client.log_level", "passed on to the configure tools",
           _one_of("error", "warn", "info", "debug", "trace"), metavar="LEVEL"),
    Option("log_file", "client.log_file", "passed on to the configure tools", _path, metavar="PATH"),
    Option("log_type", "client.log_type", "passed on to the configure tools: term or file", _one_of("term", "file"),
           metavar="TYPE"),
    Option("log_rotation", "client.log_rotation", "passed on to the configure tools",
           _one_of("never", "hourly", "daily"), metavar="EVERY"),
    Option("client_cert", "client.client_cert", "certificate for mutual TLS with the HSM (path on this host)", _path,
           metavar="PATH"),
    Option("client_key", "client.client_key", "its key, without a passphrase (path on this host)", _path,
           metavar="PATH"),
    Option("timeout", None, "a limit for the whole run, and so for each wait in it: 90s, 15m, 2h", duration,
           metavar="DURATION"),
)  # fmt: skip

_BY_KEY = {option.key: option for option in OPTIONS if option.key}

Said = dict[str, Any]


class Complaints:
    """Everything that is wrong with the input, gathered so that it can be said at once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, where: str, text: str) -> None:
        self.texts.append(f"{where}: {text}")

    def raise_any(self) -> None:
        """Raise AgentError `config-invalid` naming all complaints, when there is one."""
        if self.texts:
            count = f"{len(self.texts)} things are" if len(self.texts) > 1 else "one thing is"
            raise AgentError(
                "config-invalid",
                f"{count} wrong with the input",
                saw="\n".join(self.texts),
            )


def read_flags(given: Mapping[str, Any], complaints: Complaints) -> Said:
    """Take what was typed: option name -> text, list of texts or bool; None and empty were not typed."""
    return {
        option.name: value
        for option in OPTIONS
        if given.get(option.name) not in (None, [], (), False)
        for value in _parsed(option, given[option.name], option.switch, complaints)
    }


def read_environment(environment: Mapping[str, str], complaints: Complaints) -> Said:
    """Take HSM_AGENT_…; a list is separated by commas or blanks. Unknown names are errors, as they are in the file."""
    said: Said = {}
    variables = {option.variable: option for option in OPTIONS}
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or not environment[name].strip():
            continue
        option = variables.get(name)
        if option is None:
            complaints.add(name, "unknown variable" + _meant(name, variables))
            continue
        text = environment[name]
        values: Any = re.split(r"[,\s]+", text.strip()) if option.many else text
        for value in _parsed(option, values, name, complaints):
            said[option.name] = value
    return said


def read_document(text: str, where: str, complaints: Complaints, *, is_json: bool = False) -> Said:
    """Take a TOML or JSON document. Complaints name the file, the line and the nearest known key."""
    try:
        tree = json.loads(text) if is_json else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, RecursionError) as error:
        complaints.add(where, f"not valid {'JSON' if is_json else 'TOML'}: {error}")
        return {}
    if not isinstance(tree, dict):
        complaints.add(where, "a table is wanted at the top")
        return {}
    said: Said = {}
    for key, value in _flat(tree):
        place = f"{where}:{_line_of(text, key)}" if not is_json else where
        option = _BY_KEY.get(key)
        if option is None:
            complaints.add(place, f"unknown key `{key}`" + _meant(key, _BY_KEY))
            continue
        for parsed in _parsed(option, value, f"{place}: {key}", complaints):
            said[option.name] = parsed
    return said


def read_files(view: HostView, complaints: Complaints) -> Said:
    """Take the configuration file and then conf.d/*.toml in the order of their names; later ones win."""
    said: Said = {}
    folder = [
        f"{CONFIGURATION_FOLDER}/{name}"
        for name in view.names(CONFIGURATION_FOLDER)
        if name.endswith(".toml")
    ]
    for path in (CONFIGURATION, *folder):
        data = view.read(path)
        if data is not None:
            said.update(read_text(data, path, complaints))
    return said


def read_text(data: bytes, where: str, complaints: Complaints) -> Said:
    """Take the bytes of one configuration file; JSON when they start with a brace."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        complaints.add(where, f"not UTF-8: byte {error.start}")
        return {}
    return read_document(text, where, complaints, is_json=text.lstrip().startswith("{"))


def settle(said: Iterable[Said], complaints: Complaints) -> Desired:
    """Merge what was said, the strongest source first, and check what only the whole can show.

    Raises AgentError `config-invalid` with every complaint so far.
    """
    merged: Said = {}
    for source in reversed(list(said)):
        merged.update(source)
    desired = Desired(**merged)
    if bool(desired.client_cert) != bool(desired.client_key):
        complaints.add("--client-cert, --client-key", "each needs the other")
    if desired.sdk == 3:
        if desired.package_source is None:
            complaints.add("--sdk 3", "AWS no longer hosts SDK 3: name your own mirror with --package-source")
        for name in ("accept_single_hsm", "client_cert", "log_level", "log_file", "log_type", "log_rotation"):
            if getattr(desired, name):
                complaints.add("--sdk 3", f"--{name.replace('_', '-')} belongs to SDK 5")
    complaints.raise_any()
    return desired


def to_json(desired: Desired) -> dict[str, Any]:
    """Return what `from_json` reads back; only what was said."""
    return {
        each.name: list(value) if isinstance(value, tuple) else value
        for each in fields(Desired)
        for value in [getattr(desired, each.name)]
        if value != each.default
    }


def from_json(tree: Mapping[str, Any]) -> Desired:
    """Read what `to_json` wrote. Raises TypeError for keys of another version."""
    said: Said = {key: tuple(value) if isinstance(value, list) else value for key, value in tree.items()}
    return Desired(**said)


def _parsed(option: Option, value: Any, where: str, complaints: Complaints) -> list[Any]:
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
            complaints.add(where, "true or false is wanted" if option.flag else "a text is wanted")
            continue
        try:
            parsed.append(each if isinstance(each, bool) else option.parse(str(each)))
        except _WrongError as error:
            complaints.add(where, str(error))
    if len(parsed) < len(values):
        return []
    if not option.many:
        return parsed
    for each in parsed:
        if parsed.count(each) > 1:
            complaints.add(where, f"{each} is given more than once")
            return []
    return [tuple(parsed)] if parsed else []


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in _BY_KEY:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _meant(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean `{near[0]}`?" if near else ""


def _line_of(text: str, key: str) -> int:
    """Return the line a key stands in: its table's header first, then the name before an equals sign."""
    table, _, name = key.rpartition(".")
    here = ""
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([^\]]+?)\s*\]", line)
        if header:
            here = header[1].replace('"', "").replace(" ", "")
            continue
        written = re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line)
        if written and written[1] in ((name, key) if here == table else (key,)):
            return number
    return 1
