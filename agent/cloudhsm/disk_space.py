"""A disk that is full or read-only is the cause of many failures that do not say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.codes import fix
from agent.core.errors import AgentError, immutable

if TYPE_CHECKING:
    from agent.core.host import HostView

# With less than this no package unpacks, and hardly a file is written: in bytes, and in files.
_LEAST = 1024 * 1024
_FEWEST = 4


def refuse_without_room(view: HostView, *paths: str) -> None:
    """Raise AgentError `read-only`, `no-space`, or `write-failed` for what is immutable, when one cannot be written."""
    for path in paths:
        room = view.disk_space(path)
        if room.fixed:
            raise immutable(path)
        if not room.writable:
            raise AgentError(
                "read-only",
                f"{path} cannot be written",
                saw=f"{path} is read-only",
                want="a writable file system",
                hint=fix("read-only", PATH=path),
            )
        if room.free < _LEAST:
            raise AgentError(
                "no-space",
                f"there is no room at {path}",
                saw=f"{room.free // 1024} kB free at {path}",
                want="room for the client, some 100 MB",
            )
        if room.inodes is not None and room.inodes < _FEWEST:
            raise AgentError(
                "no-space",
                f"{path} takes no more files",
                saw=f"{room.inodes} inodes free at {path}",
                want="inodes for the client, some 100",
                hint=f"find what has so many small files, `df -i {path}`, and remove what is not needed",
            )


def require_executable(view: HostView, path: str) -> None:
    """Raise AgentError `no-exec` when no program may run from a place."""
    if not view.disk_space(path).executable:
        raise AgentError(
            "no-exec",
            f"no program may run from {path}",
            saw=f"{path} is mounted noexec",
            want="a file system that lets its programs run",
        )
