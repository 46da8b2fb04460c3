"""What a host says in a visit, and who listens."""

from __future__ import annotations

from typing import Any

from agent.render.json_report import to_tree
from tests.golden.runs import first_run

STEP: dict[str, Any] = {"want": None, "code": None, "hint": None, "seconds": 0.0}
HSM: dict[str, Any] = {"port": 2223, "cause": None, "connect_ms": None}
REPORT: dict[str, Any] = {
    **to_tree(first_run()),
    "request": "RUN/web-1/2",
    "command": "configure",
    "hsms": [{**HSM, "ip": "10.0.1.6", "reached": True}],
    "steps": [{**STEP, "id": "client:hsm-info", "outcome": "met", "saw": "2 HSMs"}],
}
