"""What a command needs of the machine on which it is typed, in addition to the host that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import HostView


def require_linux(view: HostView, command: str) -> None:
    """Raise AgentError `platform-unsupported` on other systems: the command uses features of Linux."""
    if view.system.is_windows:
        raise AgentError(
            "platform-unsupported",
            f"`hsm-agent {command}` runs on Linux alone",
            saw=view.system.kind,
            want="linux",
            hint="type it on a Linux machine; it needs nothing of this one",
        )
