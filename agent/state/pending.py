"""What an unfinished replacement of packages leaves in the cache: downloads, and a mark for each package to install."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from agent.cloudhsm.components import PACKAGE_PATTERN
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_MARK = ".due"
# packages, parts of them, the installer's logs, and marks
_OWN = re.compile(
    rf"({PACKAGE_PATTERN})([_-](\d[\w.+~-]*|latest[\w.-]*)\.(deb|rpm|msi)(\.part|\.part\.from|\.log)?|{re.escape(_MARK)})"
)


def mark_pending(host: Host, package: str) -> None:
    """Record that a package replaces another one, before that one is removed: a run may end in between."""
    host.write(host.system.join(host.system.cache, f"{package}{_MARK}"), b"", mode=0o644)


def pending_packages(view: HostView) -> tuple[str, ...]:
    """Return the packages that replace others which are removed already."""
    with contextlib.suppress(AgentError):  # an ordinary user may not list it, and has nothing to complete
        return tuple(name[: -len(_MARK)] for name in view.list_dir(view.system.cache) if name.endswith(_MARK))
    return ()


def clear_cache(host: Host) -> None:
    """Remove what runs left in the cache. Call it only if every package is installed.

    A file that no run names so belongs to somebody else, and stays.
    """
    cache = host.system.cache
    for name in host.list_dir(cache):
        if _OWN.fullmatch(name):
            host.remove(host.system.join(cache, name))
