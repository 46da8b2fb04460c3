"""The agent's folder on the host: versioned JSON, written atomically, read with distrust."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_VERSION = 1


@dataclass(frozen=True)
class Last:
    """What the last `configure` was asked for; `ca_pem` is the CA it was given, normalised."""

    desired: dict[str, Any]
    ca_pem: str


def read_last(view: HostView) -> Last:
    """Return the last desired state. Raises AgentError `nothing-recorded`, also for what cannot be understood."""
    tree = _read(view, view.system.desired)
    if tree is None or not isinstance(tree.get("desired"), dict) or not isinstance(tree.get("ca_pem"), str):
        raise AgentError(
            "nothing-recorded",
            "this host has no record of a `configure`",
            saw=f"no usable {view.system.desired}",
            want="an earlier run, or options",
        )
    return Last(tree["desired"], tree["ca_pem"])


def write_last(host: Host, last: Last) -> None:
    tree = {"schema_version": _VERSION, "desired": last.desired, "ca_pem": last.ca_pem}
    host.write(host.system.desired, json.dumps(tree, indent=1).encode(), mode=0o600)


def read_report(view: HostView) -> dict[str, Any]:
    """Return the last report as it was written. Raises AgentError `nothing-recorded`."""
    tree = _read(view, view.system.report)
    if tree is None:
        raise AgentError(
            "nothing-recorded",
            "this host has no report yet",
            saw=f"no usable {view.system.report}",
            want="an earlier run",
        )
    return tree


def write_report(host: Host, document: str) -> None:
    host.write(host.system.report, document.encode(), mode=0o644)


def _read(view: HostView, path: str) -> dict[str, Any] | None:
    try:
        tree = json.loads(view.read(path) or b"")
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) and tree.get("schema_version") == _VERSION else None
