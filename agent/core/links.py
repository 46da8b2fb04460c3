"""Where a link leads, and the real folders on its path: resolved by read-only calls, one name at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.system import is_absolute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.core.host import HostView

# the limit of Linux
_MOST_LINKS = 40


def resolve_link(view: HostView, path: str) -> str:
    """Return the path with its last name resolved: links in that place are followed.

    Their target may be absent. Raises AgentError `unreadable` for a loop of links.
    """
    current = path
    for _ in range(_MOST_LINKS):
        target = view.readlink(current)
        if target is None:
            return current
        current = _joined(view, current.rpartition(view.system.separator)[0], target)
    raise _circle(path)


def require_target(view: HostView, path: str) -> None:
    """Raise AgentError `unreadable` for a link that leads nowhere: the agent does not guess what it is for."""
    resolved = resolve_link(view, path)
    if resolved != path and view.stat(resolved) is None:
        raise AgentError(
            "unreadable",
            f"{path} is a link that leads nowhere",
            saw=f"{path} -> {resolved}, where nothing is",
            want="a file, or a link to one",
            hint=f"mount or make what {path} leads to, or remove the link: then a file is put in its place",
        )


def path_prefixes(view: HostView, path: str) -> Iterator[str]:
    """Yield every real folder of a resolved POSIX path, the root first, and at last the resolved path itself.

    Raises AgentError `unreadable` for a loop of links.
    """
    left = path.split("/")
    parts: list[str] = []
    links = 0
    yield "/"
    while left:
        name = left.pop(0)
        if name == "..":
            parts = parts[:-1]
        if name in ("", ".", ".."):
            continue
        target = view.readlink("/" + "/".join([*parts, name]))
        if target is None:
            parts = [*parts, name]
            yield "/" + "/".join(parts)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise _circle(path)
        parts = [] if target.startswith("/") else parts
        left = [*target.split("/"), *left]


def _joined(view: HostView, folder: str, target: str) -> str:
    return target if is_absolute(target) else view.system.join(folder, target)


def _circle(path: str) -> AgentError:
    return AgentError(
        "unreadable",
        f"{path!r} cannot be read",
        saw="links that lead in a circle",
        want="a file, or a link to one",
    )
