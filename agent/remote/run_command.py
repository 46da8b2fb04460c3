"""The host's side of a roll-out over AWS Systems Manager: a request as a command's parameter, and one line back."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from agent import log
from agent.core.codes import CODES
from agent.hosts.local import local_host
from agent.remote.packed import MOST_BYTES, line_of, unpack
from agent.remote.protocol import Failed, HostRequest
from agent.remote.server import answer, stop_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.core.host import Host
    from agent.core.model import StepResult
    from agent.remote.protocol import ReportMessage

# the variable by which the agent of SSM says where a script runs
INSTANCE = "AWS_SSM_INSTANCE_ID"


def serve_command() -> int:
    """Answer the request on standard input, print the answer, and return the exit status of the run."""
    message = answer_to(sys.stdin.read(MOST_BYTES), os.environ, _open_host)
    sys.stdout.write(line_of(message.record()))
    sys.stdout.flush()
    return (
        CODES[message.code].exit_status if isinstance(message, Failed) else int(message.report["exit_status"])
    )


def answer_to(
    text: str, environ: Mapping[str, str], open_host: Callable[[HostRequest], Host]
) -> Failed | ReportMessage:
    """Return the answer to the request of this instance, out of those of all instances of the command."""
    try:
        requests = json.loads(unpack(text.strip()))["requests"]
        request = HostRequest.from_json(_own(requests, environ.get(INSTANCE)))
    except (ValueError, KeyError, TypeError) as error:
        return Failed("far-end-failed", f"the request is none: {type(error).__name__}: {error}")
    return answer(open_host(request), request, _Unheard())


def _open_host(request: HostRequest) -> Host:
    machine = local_host(stop_event())
    log.open_log(machine, may_write=machine.is_root() and request.command != "plan")
    return machine


def _own(requests: Mapping[str, Mapping[str, object]], instance: str | None) -> Mapping[str, object]:
    """Return the request for this instance. A command that was for one instance alone needs no variable to say so."""
    if instance is None and len(requests) == 1:
        return next(iter(requests.values()))
    return requests[instance or ""]


class _Unheard:
    """Hears the steps of a run, and nobody else does: SSM shows an output when its command has ended."""

    def began(self, line_id: str, *, changing: bool) -> None: ...

    def ended(self, line: StepResult) -> None: ...
