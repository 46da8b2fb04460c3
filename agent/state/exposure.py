"""Could a user other than root have written the state? Then root does not trust it, and `configure` closes its folder.

The parent folders are not checked: a user who can replace the state folder owns all of its content. On Windows the
access list of a folder is checked where it is opened.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.links import resolve_link
from agent.core.model import Notice
from agent.hosts.owned import fault_of

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_STICKY = 0o1000


def exposed(view: HostView, *paths: str) -> str | None:
    """Return how a user other than root and the caller can change one of these names, None when no one can."""
    if view.system.separator != "/":
        return None
    for path in paths:
        try:
            at = resolve_link(view, path)
            stat = view.stat(at)
        except AgentError as error:
            return error.saw
        # no other user needs these folders, so a sticky bit excuses nothing
        fault = None if stat is None else fault_of(replace(stat, mode=stat.mode & ~_STICKY), at)
        if fault is not None:
            return fault
    return None


def close(host: Host) -> tuple[Notice, ...]:
    """Give the folders of the state to root alone, and return a notice of each. Raises AgentError as `chmod` does."""
    notices = []
    for path in (host.system.state, host.system.snapshots, host.system.spool):
        fault = exposed(host, path)
        stat = None
        with contextlib.suppress(
            AgentError
        ):  # the code that needs the folder reports links that lead nowhere
            at = resolve_link(host, path)
            stat = host.stat(at)
        if fault is not None and stat is not None:
            host.chmod(at, stat.mode & ~0o022, owner=(0, stat.gid))
            notices.append(Notice("state-closed", f"{fault}: what was recorded there is not believed"))
    return tuple(notices)


def close_cache(host: Host, *files: str) -> None:
    """Close the folder of downloads to all but root, and remove what others could have put there. May raise as `chmod`.

    A package is installed by its name after its checksum was compared: whoever may write there could exchange it
    in between.
    """
    cache = host.system.cache
    if exposed(host, cache) is not None:
        at = resolve_link(host, cache)
        stat = host.stat(at)
        if stat is not None:
            host.chmod(at, stat.mode & ~0o022, owner=(0, stat.gid))
    for path in files:
        if exposed(host, path) is not None:
            host.remove(path)
