"""A disk that is full or read-only is the cause of many failures that do not say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import HostView

# With less than this no package unpacks, and hardly a file is written.
_LEAST = 1024 * 1024


def refuse_without_room(view: HostView, *paths: str) -> None:
    """Raise AgentError `read-only` or `no-space` when one of the places cannot be written."""
    for path in paths:
        room = view.room(path)
        if not room.writable:
            raise AgentError(
                "read-only",
                f"{path} cannot be written",
                saw=f"{path} is read-only",
                want="a writable file system",
            )
        if room.free < _LEAST:
            raise AgentError(
                "no-space",
                f"there is no room at {path}",
                saw=f"{room.free // 1024} kB free at {path}",
                want="room for the client, some 100 MB",
            )
