"""What a command needs of the machine where it is typed, beside the host that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import HostView


def require_linux(view: HostView, command: str) -> None:
    """Raise AgentError `platform-unsupported` elsewhere: the command uses what only Linux has."""
    if view.system.is_windows:
        raise AgentError(
            "platform-unsupported",
            f"`hsm-agent {command}` runs on Linux alone",
            saw=view.system.kind,
            want="linux",
            hint="type it on a Linux machine; it needs nothing of this one",
        )
