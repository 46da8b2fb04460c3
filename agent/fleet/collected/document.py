"""What lies where reports are collected -> a valid report, or why it is none: anybody may have written it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.fleet import bounded_json
from agent.fleet.collected.sources import MOST_BYTES
from agent.fleet.replies import first_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERSION = 1
# the keys by which a document is meant as a report, whatever its version
_MARKS = {"schema_version", "run_id", "host"}


class ForeignDocumentError(ValueError):
    """A valid document that is no report of any version: another program put it there."""


class UnusableReportError(ValueError):
    """A report that cannot be used; the text says why."""


def read_report(data: bytes, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a valid report. Raises ForeignDocumentError and UnusableReportError."""
    try:
        tree = bounded_json.load(data, MOST_BYTES)
    except ValueError:
        what = "it is empty" if not data.strip() else "it is not a whole JSON document"
        raise UnusableReportError(what) from None
    if not isinstance(tree, dict) or not tree.keys() >= _MARKS:
        raise ForeignDocumentError("no report")
    version = tree["schema_version"]
    if version != _VERSION:
        shown = version if isinstance(version, int) else "unknown"
        raise UnusableReportError(f"its schema version is {shown}, and this hsm-agent reads {_VERSION}")
    where = first_fault(tree, schema)
    if where is not None:
        raise UnusableReportError(f"it is wrong at {where}")
    return tree
