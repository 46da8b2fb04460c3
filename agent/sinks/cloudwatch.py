"""`cloudwatch:GROUP/STREAM`: a line in the Embedded Metric Format, in a file that the CloudWatch agent reads."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from agent.core.plain import cut
from agent.core.system import LINUX
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.sinks.message import DeliveryContext, OutgoingReport

FILE = LINUX.join(LINUX.log, "emf.log")
NAMESPACE = "hsm-agent"
# A file that grows beyond this is moved to emf.log.1; CloudWatch itself takes lines of up to 256 KB.
LONG = 1_000_000
# characters of a dimension's value, and of a step's name: 200 of them fit into the 256 KB
_DIMENSION = 255
_SECONDS = 10.0
_UNITS = {"ExitStatus": "None", "Changed": "Count", "HsmsReached": "Count", "HsmsUnreached": "Count"}


def check(uri: str) -> None:
    """Require a log group and a log stream, in the characters that CloudWatch accepts."""
    group, stream = names(uri)
    if not re.fullmatch(r"[A-Za-z0-9_./#-]{1,512}", group) or not re.fullmatch(r"[^:*/]{1,512}", stream):
        raise ValueError(
            f"{uri!r} is not cloudwatch:GROUP/STREAM, the names of a log group and of a log stream"
        )


def names(uri: str) -> tuple[str, str]:
    """Return group and stream; a group may contain slashes."""
    group, _, stream = uri.partition(":")[2].rpartition("/")
    return group, stream


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    """Append the line. The file is not replaced: a program that follows it would start again at the beginning."""
    machine = context.machine
    if machine.system.is_windows:
        raise UndeliveredError(
            "the file that the CloudWatch agent picks up is kept on Linux alone", refused=True
        )
    written = line(report).encode()
    seen = machine.stat(FILE)
    if seen is not None and seen.size > LONG:
        machine.write(f"{FILE}.1", machine.read(FILE) or b"", mode=0o640)
        machine.remove(FILE)
        seen = None
    if seen is None:
        machine.write(FILE, written, mode=0o640)
    elif json.dumps(report.key).encode() not in (
        machine.read(FILE) or b""
    ):  # a killed run may have written it
        done = machine.run(["tee", "-a", FILE], timeout=_SECONDS, stdin=written)
        if not done.ok:
            raise UndeliveredError(done.tail(1) or f"`tee -a {FILE}` ended with {done.status}")


def line(report: OutgoingReport) -> str:
    """Return the report as one event: its numbers are metrics, by host, and the other fields can be searched."""
    tree = report.tree
    group, stream = names(report.uri)
    event: dict[str, Any] = {
        "_aws": {
            "Timestamp": _milliseconds(tree["finished"]),
            "LogGroupName": group,
            "LogStreamName": stream,
            "CloudWatchMetrics": [
                {
                    "Namespace": NAMESPACE,
                    "Dimensions": [["Host"]],
                    "Metrics": [{"Name": name, "Unit": unit} for name, unit in _UNITS.items()],
                }
            ],
        },
        "Host": cut(tree["host"]["name"], _DIMENSION),
        **_numbers(tree),
        "key": report.key,
        "run_id": tree["run_id"],
        "command": tree["command"],
        "outcome": tree["outcome"],
        "code": tree["code"],
        "agent_version": tree["agent_version"],
        "steps": {cut(step["id"], _DIMENSION): step["outcome"] for step in tree["steps"]},
    }
    return json.dumps(event) + "\n"


def _numbers(tree: Mapping[str, Any]) -> dict[str, int]:
    reached = sum(each["reached"] for each in tree["hsms"])
    numbers = (tree["exit_status"], int(tree["changed"]), reached, len(tree["hsms"]) - reached)
    return dict(zip(_UNITS, numbers))


def _milliseconds(text: str) -> int:
    """Return a time in milliseconds; the epoch for an invalid one, so that CloudWatch at least keeps the event."""
    moment = dt.datetime.fromtimestamp(0, dt.timezone.utc)
    with contextlib.suppress(ValueError):
        moment = dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.timezone.utc)
    return int(moment.timestamp() * 1000)
