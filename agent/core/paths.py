r"""Paths as people give them, for this host or another: `/x`, `C:\x`, `\\server\share\x`, or as a `file:` URI.

One parser for every option that takes a path, so that all options accept the same paths, and none accepts a path that
fails in every run.
"""

from __future__ import annotations

import re

from agent.core.system import is_absolute

_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')
# The names that are devices on Windows in any folder, whatever follows a dot.
_DEVICE = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.IGNORECASE
)
_DRIVE = re.compile(r"[A-Za-z]:(?=[\\/]|$)")


def parse_path(text: str) -> str:
    """Return an absolute path as given. Raises ValueError with a sentence if it is absolute on no system."""
    if not is_absolute(text):
        raise ValueError(f"{text!r} is not an absolute path")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise ValueError(f"{text!r} is not an absolute path: it has a control character in it")
    if not text.startswith("/"):
        for name in filter(None, re.split(r"[\\/]", _DRIVE.sub("", text, count=1))):
            if name not in (".", ".."):
                require_windows_name(name)
    return text


def require_windows_name(name: str) -> None:
    """Raise ValueError for the name of a file that is a device, a stream or another name on Windows."""
    if _FORBIDDEN.search(name):
        raise ValueError(f"{name!r} holds a character that no name has on Windows")
    if name[-1] in " .":
        raise ValueError(f"{name!r} ends with a space or a dot, which Windows drops")
    if _DEVICE.fullmatch(name):
        raise ValueError(f"{name!r} is a device on Windows")


def path_of_uri(uri: str) -> str:
    """Return the absolute path that `SCHEME:PATH`, `SCHEME:///PATH` or `SCHEME://localhost/PATH` names.

    `%20` is a space, and a plain space is accepted too (RFC 8089, and what people type). Raises ValueError.
    """
    scheme, _, rest = uri.partition(":")
    path = _decoded(rest)
    if path.startswith("//") and path[2:3] not in ("", "/", "\\"):
        server, slash, below = path[2:].partition("/")
        if server.lower() != "localhost":
            raise ValueError(f"{uri!r} names a file of another machine: {scheme}:///PATH is wanted")
        path = slash + below
    elif path.startswith("//"):
        path = "/" + path.lstrip("/")
    if _DRIVE.match(path[1:]) and path.startswith("/"):  # the slash belongs to the URI and not to C:/x
        path = path[1:]
    return parse_path(path)


def _decoded(text: str) -> str:
    data = re.sub(
        rb"%([0-9A-Fa-f]{2})",
        lambda found: bytes([int(found[1], 16)]),
        text.encode("utf-8", "surrogateescape"),
    )
    return data.decode("utf-8", "surrogateescape")
