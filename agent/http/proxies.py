"""Through which proxy a URL is asked, by the environment's own variables; pure."""

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
    """What a variable holds is no proxy that can be used; it says which one, and shows no password."""


@dataclass(frozen=True)
class Proxy:
    """A proxy, and the variable that names it. Its `url` may hold a password, `place` does not."""

    variable: str
    place: str
    url: str = field(repr=False)

    @property
    def knows_us(self) -> bool:
        """Whether a user is named to it."""
        return "@" in self.url


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a URL, None where it is asked directly: this very machine always is.

    Raises UnusableProxyError for what a variable holds, ValueError for what is no URL.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    # As for curl: HTTP_PROXY in capitals is what a CGI script's caller controls, so it does not count.
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
            f"{variable} names a proxy of the kind {kind}, which is not supported: {wanted}"
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
    """Tell whether an entry of no_proxy is of this host: `*`, a name and all below it, an address, a range of them.

    A port behind it counts; brackets may stand around an address of IPv6, whether or not a port or a range follows.
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
