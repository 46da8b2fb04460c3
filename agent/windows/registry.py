"""The registry of Windows through any HostView: its 64-bit part, which is where everything of ours is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.registry import RegistryKey

if TYPE_CHECKING:
    from agent.core.host import HostView


def read_key(view: HostView, key: str) -> RegistryKey:
    """Return a key, an empty one when it is absent. Raises AgentError `unreadable`."""
    return view.registry(key) or RegistryKey()
