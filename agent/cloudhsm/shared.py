"""The client's files that have other names (hard links): replacing a file leaves the other names with the old one.

To write into the file itself would keep them, and leave half a file where a run is killed in the middle of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cloudhsm.paths import client_paths
from agent.core.errors import AgentError
from agent.core.links import resolve_link
from agent.core.model import Notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView


def shared(view: HostView) -> dict[str, int]:
    """Return the CA and the configuration files that have other names, and how many names each has in all."""
    here = client_paths(view.system)
    found = {path: _names(view, path) for path in (here.ca, *here.all_settings(view))}
    return {path: names for path, names in found.items() if names > 1}


def parted(view: HostView, before: Mapping[str, int]) -> tuple[Notice, ...]:
    """Return a notice for each file that was shared `before` and has fewer names now."""
    return tuple(
        Notice(
            "hard-link-cut",
            f"{path} had other names (hard links), and was replaced under this one alone: by another name a program"
            " reads another file now",
        )
        for path, names in before.items()
        if 0 < _names(view, path) < names
    )


def _names(view: HostView, path: str) -> int:
    try:
        stat = view.stat(resolve_link(view, path))
    except AgentError:
        return 0
    return 0 if stat is None else stat.names
