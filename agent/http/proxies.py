"""Which proxy to use for a URL, by the environment's variables; pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.core.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

_PORTS = {"http": 80, "https": 443}


class UnusableProxyError(ValueError):
    """A variable does not hold a usable proxy; the text names the variable, and shows no password."""


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that names it. Its `url` may contain a password, `place` does not."""

    variable: str
    place: str
    url: str = field(repr=False)

    @property
    def knows_us(self) -> bool:
        """Whether its URL names a user."""
        return "@" in self.url


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a URL, None for a direct connection, which this machine itself always gets.

    Raises UnusableProxyError for a variable without a usable proxy, ValueError for an invalid URL.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    # As in curl: the caller of a CGI script controls HTTP_PROXY in upper case, so it does not count.
    names = {"http": ("http_proxy",), "https": ("https_proxy", "HTTPS_PROXY")}.get(parts.scheme, ())
    variable = next((name for name in (*names, "all_proxy", "ALL_PROXY") if environ.get(name)), None)
    if variable is None or is_loopback(host):
        return None
    port = parts.port or _PORTS.get(parts.scheme, 0)
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY", "")
    if any(_covers(entry, host, port) for entry in re.split(r"[\s,]+", exceptions) if entry):
        return None
    return _read(variable, environ[variable].strip())


def _read(variable: str, text: str) -> Proxy:
    wanted = f"{variable} names no proxy that can be used: http://HOST:PORT is wanted"
    scheme, mark, _ = text.partition("://")
    whole = text if mark else f"http://{text}"
    if mark and scheme.lower() not in _PORTS:
        kind = scheme if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,15}", scheme) else "unknown"
        raise UnusableProxyError(
            f"{variable} names a proxy of the kind {kind}, which is not supported: http://HOST:PORT is wanted"
        )
    try:
        parts = urlsplit(whole)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
    except ValueError:
        raise UnusableProxyError(wanted) from None
    if not host or not re.fullmatch(r"[\w.:%-]+", host):
        raise UnusableProxyError(wanted)
    return Proxy(variable, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", whole)


def _covers(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of no_proxy matches this host: `*`, a name and all below it, an address, a range of them.

    A port behind it counts; an IPv6 address may be in brackets, with or without a port or a range behind it.
    """
    match = re.fullmatch(r"\[([^\]]*)\](/\d{1,3})?(?::(\d{1,5}))?", entry) or re.fullmatch(
        r"([^:]*)()(?::(\d{1,5}))?", entry
    )
    name, only = (match[1] + (match[2] or ""), match[3]) if match else (entry, None)
    if only is not None and int(only) != port:
        return False
    if name == "*":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]) in ipaddress.ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").strip(".").lower()
        return bool(name) and (host == name or host.endswith(f".{name}"))
