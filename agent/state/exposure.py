"""Could others than root have written what is kept? Then root does not believe it, and a `configure` closes its folder.

The folders above are not looked at: whoever exchanges the state folder owns what is there then. On Windows a folder's
list is judged where it is opened.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.links import goal
from agent.core.model import Notice
from agent.hosts.owned import fault_of

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_STICKY = 0o1000


def exposed(view: HostView, *paths: str) -> str | None:
    """Say how others than root and the caller can change one of these names, None when nobody can."""
    if view.system.separator != "/":
        return None
    for path in paths:
        try:
            at = goal(view, path)
            stat = view.stat(at)
        except AgentError as error:
            return error.saw
        # nobody has business in these folders, so that a sticky bit excuses nothing
        fault = None if stat is None else fault_of(replace(stat, mode=stat.mode & ~_STICKY), at)
        if fault is not None:
            return fault
    return None


def close(host: Host) -> tuple[Notice, ...]:
    """Leave the folders of the state to root, and say so. Raises AgentError as `chmod` does."""
    said = []
    for path in (host.system.state, host.system.snapshots, host.system.spool):
        fault = exposed(host, path)
        stat = None
        with contextlib.suppress(AgentError):  # whoever needs it names links that lead nowhere
            at = goal(host, path)
            stat = host.stat(at)
        if fault is not None and stat is not None:
            host.chmod(at, stat.mode & ~0o022, owner=(0, stat.gid))
            said.append(Notice("state-closed", f"{fault}: what was recorded there is not believed"))
    return tuple(said)
