"""Where a link leads, and the real names on the way: told by looking alone, one name at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.system import is_absolute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.core.host import HostView

# as many as Linux follows
_MOST_LINKS = 40


def goal(view: HostView, path: str) -> str:
    """Return what is meant by a path: every link in the place of its last name followed.

    What it leads to need not be there. Raises AgentError `unreadable` for links in a circle.
    """
    here = path
    for _ in range(_MOST_LINKS):
        target = view.readlink(here)
        if target is None:
            return here
        here = _joined(view, here.rpartition(view.system.separator)[0], target)
    raise _circle(path)


def require_whole(view: HostView, path: str) -> None:
    """Raise AgentError `unreadable` for a link that leads nowhere: what it is for is not ours to guess."""
    there = goal(view, path)
    if there != path and view.stat(there) is None:
        raise AgentError(
            "unreadable",
            f"{path} is a link that leads nowhere",
            saw=f"{path} -> {there}, where nothing is",
            want="a file, or a link to one",
            hint=f"mount or make what {path} leads to, or remove the link: then a file is put in its place",
        )


def way(view: HostView, path: str) -> Iterator[str]:
    """Yield every real folder on the way to what a POSIX path means, the root first, and at last that itself.

    Raises AgentError `unreadable` for links in a circle.
    """
    left = path.split("/")
    here: list[str] = []
    links = 0
    yield "/"
    while left:
        name = left.pop(0)
        if name == "..":
            here = here[:-1]
        if name in ("", ".", ".."):
            continue
        target = view.readlink("/" + "/".join([*here, name]))
        if target is None:
            here = [*here, name]
            yield "/" + "/".join(here)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise _circle(path)
        here = [] if target.startswith("/") else here
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
