"""Who can change a file? A file with instructions is trusted only if no other local user can change it."""

# ruff: noqa: PTH109
# (names are strings in the Host interface)

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.core.host import HostView, Stat

_OTHERS, _GROUP, _STICKY = 0o002, 0o020, 0o1000
# the limit of Linux
_MOST_LINKS = 40


def changeable(view: HostView, path: str) -> str | None:
    """Return how a user other than root and the caller can change what is read at `path`, None when no one can.

    The file counts, each folder on its path, and the targets of links. When all of these are safe, no other user can
    replace anything between this check and the read. On Windows folders are checked where they are opened.
    """
    if view.system.separator != "/":
        stat = view.stat(path)
        found = None if stat is None or stat.kind != "file" else fault_of(stat, "it")
    else:
        absolute = path if path.startswith("/") else f"{os.getcwd()}/{path}"
        names = _resolve(view, absolute)
        faults = (fault_of(stat, "it" if at == absolute else at) for at, stat in names)
        found = next(filter(None, faults), None)
    return f"{found}; make it writable for {view.system.admin_role} alone" if found else None


def foreign_link(view: HostView, path: str) -> str | None:
    """Return the first link on the way to a path that belongs to another user than root and the caller, if any.

    Whoever owns it chooses what is written there: a file of root's, in a folder of that user's choice.
    """
    names = _resolve(view, path) if view.system.separator == "/" else ()
    links = (
        f"{at} is a link of user {stat.uid}"
        for at, stat in names
        if stat.kind == "link" and not is_ours(stat)
    )
    return next(iter(links), None)


def _resolve(view: HostView, path: str) -> Iterator[tuple[str, Stat]]:
    """Resolve a path as the kernel does, from the root on, through links."""
    folder, rest, links = "", list(reversed(path.split("/"))), 0
    root = view.stat("/")
    if root is not None:
        yield "/", root
    while rest:
        part = rest.pop()
        if part == "..":
            folder = folder.rpartition("/")[0]
        if part in ("", ".", ".."):
            continue
        at = f"{folder}/{part}"
        stat = view.stat(at)
        if stat is None or links > _MOST_LINKS:
            return
        yield at, stat
        if stat.kind == "link":
            links += 1
            target = view.readlink(at) or ""
            folder = "" if target.startswith("/") else folder
            rest += reversed(target.split("/"))
        else:
            folder = at


def fault_of(stat: Stat, what: str) -> str | None:
    """Return how a user other than root and the caller can change this one name, None when no one can.

    In a folder with the sticky bit, such as /tmp, no other user can rename or remove a file.
    """
    users, groups = _ours()
    if stat.uid >= 0 and stat.uid not in users:
        return f"{what} belongs to user {stat.uid}"
    if stat.kind == "link":
        return None
    if stat.kind != "directory" or not stat.mode & _STICKY:
        if stat.mode & _OTHERS:
            return f"everybody may write to {what}"
        if stat.mode & _GROUP and stat.gid not in groups:
            return f"group {stat.gid} may write to {what}"
    ours = {"user": users, "group": groups}
    strangers = [f"{kind} {number}" for kind, number in stat.writers if number not in ours[kind]]
    return f"{strangers[0]} may write to {what}, by its access list" if strangers else None


def is_ours(stat: Stat) -> bool:
    """Tell whether a file belongs to root or to the caller."""
    return stat.uid in _ours()[0]


def _ours() -> tuple[set[int], set[int]]:
    """Return the users and groups whose files count as the caller's own: root's, and an ordinary user's."""
    if sys.platform == "win32":
        return {0}, {0}
    else:
        return {0, os.geteuid()}, {0, os.getegid()}
