"""Questions about a URL: how it is shown, what lies below it, whether it is of this very machine; pure."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

# The source of packages that a roll-out sends: the operator's machine knows the real source, and the host need not.
PUSHED = "pushed://roll-out"

# A redirect may lead to 64 kB of text.
_LONGEST = 500
# `C:` is a drive
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


def scheme_of(text: str) -> str | None:
    """Return the scheme of a URL in lower case, None for a path of either kind of system."""
    match = _SCHEME.match(text)
    return match[1].lower() if match else None


def split(url: str) -> SplitResult:
    """Split a URL into its parts. Raises ValueError for an invalid port: it may be a part of a password."""
    parts = urlsplit(url)
    if parts.port is None and parts.netloc.endswith(":"):
        raise ValueError("no port behind the colon")
    return parts


def names_user(url: str) -> bool:
    """Tell whether a URL contains a user or a password, or an @ before the query that may have been meant so.

    A slash in a password ends the server's part in the grammar of URLs. In a path an @ can be written as %40.
    """
    return "@" in re.split(r"[?#]", url, maxsplit=1)[0]


def below(base: str, path: str) -> str:
    """Return a URL below a mirror or a folder; a query of the mirror's, such as a signature, stays at the end."""
    if scheme_of(base) not in ("http", "https", "s3"):
        return f"{base}/{path}"
    plain, mark, query = base.partition("?")
    return f"{plain.rstrip('/')}/{path}{mark}{query}"


def redact_url(url: str) -> str:
    """Return a URL as it may be shown and logged: one line without user, password, query and fragment.

    A URL that cannot be parsed is not shown at all, since a password may be anywhere in it. A path is unchanged.
    """
    text = url
    if scheme_of(url) is not None or url.startswith("//"):
        try:
            parts = split(url)
        except ValueError:
            return "the URL"
        if parts.scheme != "file" and (not parts.netloc or "@" in parts.path):
            return "the URL"
        text = SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()
    line = "".join(each if each.isprintable() else "?" for each in text)
    return line if len(line) <= _LONGEST else line[:_LONGEST] + "…"


def is_loopback(host: str) -> bool:
    """Tell whether a URL's host is this machine itself, by its loopback name or address."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name.partition("%")[0])
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback
    return False
