"""The registry of Windows through any HostView: its 64-bit part, which contains all keys that the agent uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.registry import RegistryKey

if TYPE_CHECKING:
    from agent.core.host import HostView


def read_key(view: HostView, key: str) -> RegistryKey:
    """Return a key, an empty one when it is absent. Raises AgentError `unreadable`."""
    return view.registry(key) or RegistryKey()
