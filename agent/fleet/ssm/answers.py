"""What a command printed on a host -> how it ended there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.fleet_model import HostState
from agent.fleet.launch import last_words
from agent.fleet.replies import parse_record, validate_report
from agent.fleet.ssm.run_command import MOST_OUTPUT
from agent.remote.packed import CutError, text_in, unpack
from agent.remote.protocol import Failed, ReportMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.codes import CodeName
    from agent.core.fleet_model import HostResult
    from agent.fleet.host_end import HostEnd
    from agent.fleet.ssm.run_command import Invocation, StepOutput
    from agent.remote.protocol import HostRequest

# What the script of a document prints where there is no agent yet.
_FAILED = re.compile(r"^hsm-agent failed ([a-z-]{1,40}): (.*)\Z", re.MULTILINE | re.DOTALL)
# AWS's details of an invocation that ended without an answer -> our code; others are the script's own end.
_ENDS: dict[str, CodeName] = {
    "DeliveryTimedOut": "ssm-not-delivered",
    "Undeliverable": "ssm-not-delivered",
    "Terminated": "ssm-not-delivered",
    "InvalidPlatform": "ssm-not-delivered",
    "AccessDenied": "ssm-not-delivered",
    "RateExceeded": "ssm-not-delivered",
    "ExecutionTimedOut": "ssm-timed-out",
    "Cancelled": "ssm-cancelled",
    "Canceled": "ssm-cancelled",
}


def result_of(
    end: HostEnd, invocation: Invocation, output: StepOutput, request: HostRequest, schema: Mapping[str, Any]
) -> HostResult:
    """Return how it ended on a host. Whatever AWS says of the command, an answer of the agent counts."""
    try:
        packed = text_in(output.stdout)
        if packed is not None:
            return _answered(end, unpack(packed), request, schema)
    except CutError as error:
        return end.ended(HostState.FAILED, "ssm-output-cut", saw=str(error))
    except ValueError as error:
        return end.ended(HostState.FAILED, "far-end-failed", saw=f"an answer that is none: {error}")
    except AgentError as error:
        return end.failed(error, HostState.FAILED)
    return _unanswered(end, invocation, output)


def _answered(end: HostEnd, text: bytes, request: HostRequest, schema: Mapping[str, Any]) -> HostResult:
    message = parse_record(text)
    if isinstance(message, Failed):
        return end.ended(HostState.FAILED, CODES[message.code].name, saw=message.saw)
    report = message.report if isinstance(message, ReportMessage) else None
    return end.reported(validate_report(report, request, schema))


def _unanswered(end: HostEnd, invocation: Invocation, output: StepOutput) -> HostResult:
    failed = _FAILED.search(output.stdout)
    if failed is not None and failed[1] in CODES:
        return end.ended(HostState.FAILED, CODES[failed[1]].name, saw=failed[2].strip())
    code = _ENDS.get(invocation.details)
    if code is not None:
        state = HostState.UNREACHABLE if code == "ssm-not-delivered" else HostState.FAILED
        return end.ended(state, code, saw=f"{invocation.details}: {invocation.status}")
    if len(output.stdout) >= MOST_OUTPUT:
        return end.ended(HostState.FAILED, "ssm-output-cut", saw=f"{len(output.stdout)} characters")
    saw = last_words(output.status, output.stderr, output.stdout)
    return end.ended(HostState.FAILED, "far-end-failed", saw=saw)
