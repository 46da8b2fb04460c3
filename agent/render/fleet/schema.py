"""The JSON Schema of a fleet's report, which ships beside that of a host's and refers to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def schema() -> dict[str, Any]:
    """Return the schema; its `$ref` to `urn:hsm-agent:report:1` is `agent.render.json_report.schema()`."""
    return _read("fleet-report.schema.json")


def runs_schema() -> dict[str, Any]:
    """Return the schema of what `fleet runs` prints."""
    return _read("fleet-runs.schema.json")


def _read(name: str) -> dict[str, Any]:
    text = Path(__file__).parents[1].joinpath(name).read_text(encoding="utf-8")
    tree: dict[str, Any] = json.loads(text)
    return tree
