"""`cfn:STACK/RESOURCE?region=…`: signal to CloudFormation that this host succeeded, or that it failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.sinks.message import DeliveryContext, OutgoingReport

_FORM = "cfn:STACK/RESOURCE?region=REGION"
_LONGEST = 64  # of a UniqueId


@dataclass(frozen=True)
class SignalTarget:
    """The resource, its stack and region."""

    stack: str
    resource: str
    region: str


def check(uri: str) -> None:
    """Require a stack (a name or an ARN), a resource and a region."""
    target_of(uri)


def target_of(uri: str) -> SignalTarget:
    match = re.fullmatch(
        r"cfn:([a-zA-Z][-a-zA-Z0-9]*|arn:[-a-zA-Z0-9:/._+]*)/([a-zA-Z0-9]+)(?:\?region=([a-z0-9-]*))?", uri
    )
    if match is None:
        raise ValueError(f"{uri!r} is not {_FORM}")
    if not match[3]:
        raise ValueError(f"{uri!r} names no region, and none is guessed: {_FORM}")
    return SignalTarget(match[1], match[2], match[3])


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    """Signal the resource. A stack that no longer waits is no failure. Raises UndeliveredError."""
    from agent.aws.access import AwsAccess  # noqa: PLC0415 -- 30 ms
    from agent.aws.client import AwsRefusedError  # noqa: PLC0415 -- as above
    from agent.aws.operations import SIGNAL_RESOURCE  # noqa: PLC0415 -- as above
    from agent.sinks.aws import undelivered, within  # noqa: PLC0415 -- as above

    target, tree = target_of(report.uri), report.tree
    params = {
        "StackName": target.stack,
        "LogicalResourceId": target.resource,
        "UniqueId": unique_id(tree),
        "Status": "SUCCESS" if tree["exit_status"] == 0 else "FAILURE",
    }
    try:
        access = AwsAccess(context.machine, context.environ, target.region)
        within(context, access.client).call(SIGNAL_RESOURCE, params)
    except AwsRefusedError as error:
        # otherwise the stack is complete, or has given up
        if "cannot be signaled" not in error.refusal.message:
            raise UndeliveredError(error.saw) from None
    except AgentError as error:
        raise undelivered(error) from None


def unique_id(tree: Mapping[str, Any]) -> str:
    """Return the id that the stack's events show: the instance, as AWS recommends, or else code, host and run."""
    host = tree["host"]
    if host["instance_id"]:
        return str(host["instance_id"])
    before, after = f"{tree['code'] or 'ok'}.", f".{tree['run_id']}"
    name = re.sub(r"[^A-Za-z0-9-]", "-", host["name"])
    return before + name[: _LONGEST - len(before) - len(after)] + after
