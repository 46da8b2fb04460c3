"""`cfn:STACK/RESOURCE?region=…`: tell CloudFormation that this host came up, or that it did not."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.reporting.letter import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.reporting.letter import Letter, Means

_FORM = "cfn:STACK/RESOURCE?region=REGION"
_LONGEST = 64  # of a UniqueId
_CONNECT, _SILENCE = 5.0, 10.0


@dataclass(frozen=True)
class Goal:
    """Which resource of which stack, and where."""

    stack: str
    resource: str
    region: str


def check(uri: str) -> None:
    """Want a stack (a name or an ARN), a resource and a region, and the library that signs requests."""
    goal_of(uri)
    if importlib.util.find_spec("botocore") is None:
        raise ValueError(
            f"{uri!r} needs AWS's library, which is not installed here: pip install 'hsm-agent[aws]'"
        )


def goal_of(uri: str) -> Goal:
    match = re.fullmatch(
        r"cfn:([a-zA-Z][-a-zA-Z0-9]*|arn:[-a-zA-Z0-9:/._+]*)/([a-zA-Z0-9]+)(?:\?region=([a-z0-9-]*))?", uri
    )
    if match is None:
        raise ValueError(f"{uri!r} is not {_FORM}")
    if not match[3]:
        raise ValueError(f"{uri!r} names no region, and none is guessed: {_FORM}")
    return Goal(match[1], match[2], match[3])


def send(letter: Letter, means: Means) -> None:
    from botocore.config import Config  # noqa: PLC0415 -- 150 ms and more
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from botocore.session import get_session  # noqa: PLC0415

    goal, tree = goal_of(letter.uri), letter.tree
    once = {"total_max_attempts": 1 if means.hurried else 3, "mode": "standard"}
    config = Config(connect_timeout=_CONNECT, read_timeout=_SILENCE, retries=once)
    try:
        client = get_session().create_client("cloudformation", region_name=goal.region, config=config)
        client.signal_resource(
            StackName=goal.stack,
            LogicalResourceId=goal.resource,
            UniqueId=unique_id(tree),
            Status="SUCCESS" if tree["exit_status"] == 0 else "FAILURE",
        )
    except ClientError as error:
        said: Mapping[str, Any] = error.response.get("Error", {})
        if "cannot be signaled" not in said.get(
            "Message", ""
        ):  # it is complete, or gives up: nobody waits for us
            raise UndeliveredError(f"{said.get('Code')}: {said.get('Message')}") from None
    except BotoCoreError as error:
        raise UndeliveredError(str(error)) from None


def unique_id(tree: Mapping[str, Any]) -> str:
    """Return what the stack's events show: the instance, as AWS wants it, or else code, host and run."""
    host = tree["host"]
    if host["instance_id"]:
        return str(host["instance_id"])
    before, after = f"{tree['code'] or 'ok'}.", f".{tree['run_id']}"
    name = re.sub(r"[^A-Za-z0-9-]", "-", host["name"])
    return before + name[: _LONGEST - len(before) - len(after)] + after
