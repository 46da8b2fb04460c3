"""AWS as a delivery asks it: within the time that is left, and its failures as those of a delivery."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.aws.client import TRIES, WHOLE, AwsRefusedError
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Container

    from agent.aws.client import AwsClient
    from agent.core.errors import AgentError
    from agent.sinks.message import DeliveryContext


def within(context: DeliveryContext, client: AwsClient) -> AwsClient:
    """Return a client that asks no longer than this delivery may take, and once if it is hurried."""
    return replace(
        client,
        check_stopped=context.check_stopped,
        tries=1 if context.hurried else TRIES,
        seconds=max(0.0, min(WHOLE, context.left())),
    )


def undelivered(error: AgentError, permanent: Container[str] = ()) -> UndeliveredError:
    """Return a failure of AWS as one of a delivery; with a code of AWS in `permanent` it is refused for good."""
    if error.code.name == "interrupted":
        return UndeliveredError("interrupted")
    refused = isinstance(error, AwsRefusedError) and error.refusal.code in permanent
    saw = f"{error.sentence}: {error.saw}" if error.code.name != "aws-unreachable" else error.saw
    return UndeliveredError(saw, refused=refused)
