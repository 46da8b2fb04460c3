"""`prometheus:DIR`: the report as a file for node-exporter's textfile collector."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from agent.core.model import RunOutcome
from agent.core.paths import path_of_uri
from agent.core.plain import lines
from agent.sinks import file
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.sinks.message import DeliveryContext, OutgoingReport

NAME = "hsm_agent.prom"
Sample = tuple[dict[str, str], float]


def check(uri: str) -> None:
    """Require an absolute path of a folder."""
    folder_of(uri)


def folder_of(uri: str) -> str:
    """Return the path of the folder that `prometheus:DIR` names; raise ValueError when there is none."""
    try:
        return path_of_uri(uri).rstrip("/\\") or "/"
    except ValueError as error:
        raise ValueError(
            f"{error}; prometheus:/DIR is wanted, the directory of the textfile collector"
        ) from None


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    folder = folder_of(report.uri)
    if context.machine.stat(folder) is None:  # node-exporter might not be allowed to list a new folder
        raise UndeliveredError(f"there is no directory {folder}")
    file.put(context.machine, f"{folder.rstrip('/')}/{NAME}", page(report.tree))


def page(tree: Mapping[str, Any]) -> str:
    """Return the metrics of a report in the text format; it contains only what the run knew."""
    lines: list[str] = []
    for name, help_text, samples in _metrics(tree):
        rows = [f"hsm_agent_{name}{_labels(labels)} {value:.15g}" for labels, value in samples]
        if rows:
            lines += [f"# HELP hsm_agent_{name} {help_text}", f"# TYPE hsm_agent_{name} gauge", *rows]
    return "\n".join(lines) + "\n"


def _metrics(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, Iterable[Sample]]]:
    hsms = [({"ip": each["ip"], "port": str(each["port"])}, each) for each in tree["hsms"]]
    steps = dict.fromkeys((each["id"], each["outcome"]) for each in tree["steps"])
    yield (
        "info",
        "The agent, the run and the code that decided it, empty when all is well.",
        [({"version": tree["agent_version"], "command": tree["command"], "code": tree["code"] or ""}, 1)],
    )
    yield (
        "run_outcome",
        "1 for the outcome of the last run, 0 for the others.",
        [({"outcome": each.value}, tree["outcome"] == each.value) for each in RunOutcome],
    )
    yield "exit_status", "Exit status of the last run.", [({}, tree["exit_status"])]
    yield "changed", "1 when the last run changed the host.", [({}, tree["changed"])]
    yield "run_timestamp_seconds", "When the last run ended.", _moment(tree["finished"])
    yield (
        "hsm_reached",
        "1 when the HSM could be reached.",
        [(labels, each["reached"]) for labels, each in hsms],
    )
    yield (
        "hsm_connect_seconds",
        "Time to connect to the HSM.",
        [(labels, each["connect_ms"] / 1000) for labels, each in hsms if each["connect_ms"] is not None],
    )
    yield (
        "step_outcome",
        "1, with how the step ended in the last run.",
        [({"step": step, "outcome": outcome}, 1) for step, outcome in steps],
    )
    ca = tree["ca"]
    yield (
        "ca_not_after_timestamp_seconds",
        "When the cluster's CA expires.",
        _moment(ca["not_after"]) if ca else [],
    )


def _moment(text: str) -> list[Sample]:
    """Return the sample of a time; none for an invalid time, so that the other metrics remain."""
    try:
        moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return [({}, (moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)).timestamp())]
    except (ValueError, OverflowError):
        return []


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    quoted = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(quoted) + "}"


def _escaped(text: str) -> str:
    return lines(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
