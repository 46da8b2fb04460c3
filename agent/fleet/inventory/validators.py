"""The valid forms of a host, a user, a port, a key file and a jump host; each error is a sentence."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from agent.config.options import InvalidValueError
from agent.core.system import LINUX, windows

LONGEST = 255
RESERVED = ("all", "ungrouped")  # what `--limit` and Ansible mean by these is fixed


_SYSTEMS = (LINUX.kind, windows().kind)
# by the kinds of shell that Ansible knows, which is how its inventories tell Windows
_SHELLS = {
    **dict.fromkeys(("sh", "csh", "fish"), _SYSTEMS[0]),
    **dict.fromkeys(("cmd", "powershell"), _SYSTEMS[1]),
}


@dataclass(frozen=True)
class HostSpec:
    """The parts of `[user@]host[:port]`."""

    user: str | None
    host: str
    port: int | None


def parse_host_spec(text: str) -> HostSpec:
    """Return the parts of `[user@]host[:port]`. An IPv6 address with a port is in brackets."""
    before, at, rest = text.rpartition("@")
    inside, closed, after = rest[1:].partition("]")
    if rest.startswith("[") and closed and ":" in inside and "[" not in inside and after[:1] in ("", ":"):
        name, colon, number = inside, after[:1], after[1:]
    elif rest.count(":") > 1:
        name, colon, number = rest, "", ""
    else:
        name, colon, number = rest.partition(":")
    return HostSpec(user(before) if at else None, host(name), port(number) if colon else None)


def host(text: str) -> str:
    """Return the name or address of a host."""
    _bounded(text, "the name of a host")
    if text.startswith("-"):
        raise InvalidValueError(f"{text!r} begins with -, which ssh would take for an option")
    if ":" in text:
        try:
            ipaddress.IPv6Address(text.partition("%")[0])
        except ValueError:
            raise InvalidValueError(
                f"{text!r} is not an IPv6 address; a port is written NAME:PORT or [ADDRESS]:PORT"
            ) from None
    for char in text:
        if not (char.isalnum() or char in "._-:%+~"):
            hint = ""
            if char in "[]":
                hint = "; a range is written web[01:20] or web[a:f]"
            elif char == "@":
                hint = "; the user is named elsewhere"
            raise InvalidValueError(f"{text!r} is not the name of a host: {char!r} cannot be in one{hint}")
    return text


def group(text: str) -> str:
    """Return the name of a group or zone."""
    _bounded(text, "the name of a group")
    for char in text:
        if not (char.isalnum() or char in "._-+/%~@") or text[0] in "-~@":
            raise InvalidValueError(f"{text!r} is not the name of a group: letters, digits and . _ - are")
    return text


def user(text: str) -> str:
    """Return the name of a user, by the rules that ssh has for it."""
    _bounded(text, "the name of a user")
    bad = re.search(r"^-|[\s'\"`;&<>|(){}$]|\\$", text)
    if bad or not text.isprintable():
        raise InvalidValueError(f"{text!r} is not the name of a user")
    return text


def port(text: str) -> int:
    """Return a TCP port."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise InvalidValueError(f"{text[:LONGEST]!r} is not a port from 1 to 65535")
    return int(text)


def key(text: str) -> str:
    """Return the path of a private key on the operator's machine."""
    if "-----BEGIN" in text:
        raise InvalidValueError("the path of a private key is wanted, not the key itself")
    if not text.strip() or not text.isprintable() or len(text) > 4096:
        raise InvalidValueError(f"{text[:LONGEST]!r} is not the path of a private key")
    return text


def system(text: str) -> str:
    """Return the kind of a system."""
    if text not in _SYSTEMS:
        raise InvalidValueError(f"{text[:LONGEST]!r} is not one of {', '.join(_SYSTEMS)}")
    return text


def shell(text: str) -> str:
    """Return the kind of system that has a shell of this kind."""
    if text not in _SHELLS:
        raise InvalidValueError(f"{text[:LONGEST]!r} is not one of {', '.join(_SHELLS)}")
    return _SHELLS[text]


def jump(text: str) -> str:
    """Return jump hosts as ProxyJump has them: `[user@]host[:port]`, several separated by commas, or `none`."""
    if text != "none":
        for hop in text.split(","):
            parse_host_spec(hop.strip())
    return text


def _bounded(text: str, what: str) -> None:
    if not text:
        raise InvalidValueError(f"{what} is empty")
    if len(text) > LONGEST:
        raise InvalidValueError(f"{text[:40]!r}... is not {what}: it is longer than {LONGEST} characters")
