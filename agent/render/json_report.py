"""Report -> the JSON document of schema version 1 that scripts rely on; `report.schema.json` describes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.core.plain import plain

if TYPE_CHECKING:
    from agent.core.errors import AgentError
    from agent.core.model import InstalledAgent, Report, RequestedState, StepResult

SCHEMA_VERSION = 1


def _agent(agent: InstalledAgent | None) -> dict[str, Any] | None:
    return None if agent is None else {"version": agent.version, "daily_verify": agent.verifies}


def to_tree(report: Report) -> dict[str, Any]:
    """Return the report as plain JSON values, in the order people read it."""
    client, ca = report.client, report.ca
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": report.run_id,
        "request": report.request,
        "command": report.command,
        "agent_version": report.agent_version,
        "host": {
            "name": report.host.name,
            "os": report.host.os,
            "os_version": report.host.os_version,
            "title": report.host.title,
            "arch": report.host.arch,
            "platform": report.host.platform,
            "platform_forced": report.host.forced,
            "instance_id": report.host.instance_id,
            "identity": report.host.identity,
            # whoever runs it by hand sees whether it is installed
            **({"agent": _agent(report.host.agent)} if report.request else {}),
        },
        "asked": None if report.asked is None else _asked(report.asked),
        "client": None if client is None else {**asdict(client), "components": list(client.components)},
        "ca": None if ca is None else {**asdict(ca), "fingerprints": list(ca.fingerprints)},
        "cluster": None if report.cluster is None else asdict(report.cluster),
        "steps": [_line(line) for line in report.steps],
        "hsms": [asdict(hsm) for hsm in report.hsms],
        "warnings": [asdict(notice) for notice in report.notices],
        "restart_needed": [asdict(restart) for restart in report.restart_needed],
        "outcome": report.outcome.value,
        "code": report.code,
        "cause": report.cause,
        "failure": None if report.failure is None else asdict(report.failure),
        "exit_status": report.exit_status,
        "changed": report.changed,
        "started": report.started,
        "finished": report.finished,
    }


def _asked(asked: RequestedState) -> dict[str, Any]:
    return {**asdict(asked), "addresses": list(asked.addresses), "components": list(asked.components)}


def to_document(report: Report) -> str:
    """Return one JSON document, as it is printed and kept: in ASCII, which every encoding and terminal has."""
    return json.dumps(to_tree(report), indent=2) + "\n"


def to_error_document(error: AgentError) -> str:
    """Return the document of a command that ended before there was a report; `error.schema.json` describes it."""
    said = {"sentence": error.sentence, "saw": error.saw, "want": error.want, "hint": error.hint}
    tree = {"code": error.code.name, "exit_status": error.code.exit_status, **said}
    return json.dumps({"schema_version": SCHEMA_VERSION, **plain(tree)}, indent=2) + "\n"


def schema(kind: str = "report") -> dict[str, Any]:
    """Return the JSON Schema of a kind of document, which ships beside this module."""
    text = Path(__file__).with_name(f"{kind}.schema.json").read_text(encoding="utf-8")
    tree: dict[str, Any] = json.loads(text)
    return tree


def _line(line: StepResult) -> dict[str, Any]:
    words = {
        "id": line.id,
        "outcome": line.outcome.value,
        "saw": line.saw,
        "want": line.want,
        "code": line.code,
        "hint": line.hint,
        "seconds": round(line.seconds, 3),
    }
    return {**words, **{key: value for key, value in line.detail.items() if key not in words}}
