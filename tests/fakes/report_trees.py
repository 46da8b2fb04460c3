"""A report as the tree that sinks get."""

from __future__ import annotations

from typing import Any

TREE: dict[str, Any] = {
    "run_id": "20261123T201500Z-1f3a", "command": "verify", "agent_version": "0.1.0",
    "host": {"name": "ip-10-0-1-12", "instance_id": None}, "steps": [], "hsms": [], "ca": None, "outcome": "ok",
    "code": None, "exit_status": 0, "changed": False, "failure": None,
    "started": "2026-11-23T20:15:00Z", "finished": "2026-11-23T20:15:09Z",
}  # fmt: skip
