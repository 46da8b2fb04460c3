"""`cfn:STACK/RESOURCE?region=…`: tell CloudFormation that this host came up, or that it did not."""

from __future__ import annotations

import contextlib
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from agent.core.errors import AgentError
from agent.http.client import ResponseHead, RetryableError, stream_response
from agent.http.imds import role_credentials
from agent.http.sigv4 import Credentials, signed
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.sinks.message import DeliveryContext, OutgoingReport

_FORM = "cfn:STACK/RESOURCE?region=REGION"
_LONGEST = 64  # of a UniqueId
ATTEMPTS = 3
_ANSWER = 16 * 1024
_LATER = ("Throttling", "ServiceUnavailable", "InternalFailure", "RequestTimeout")


@dataclass(frozen=True)
class SignalTarget:
    """Which resource of which stack, and where."""

    stack: str
    resource: str
    region: str


def check(uri: str) -> None:
    """Want a stack (a name or an ARN), a resource and a region."""
    goal_of(uri)


def goal_of(uri: str) -> SignalTarget:
    match = re.fullmatch(
        r"cfn:([a-zA-Z][-a-zA-Z0-9]*|arn:[-a-zA-Z0-9:/._+]*)/([a-zA-Z0-9]+)(?:\?region=([a-z0-9-]*))?", uri
    )
    if match is None:
        raise ValueError(f"{uri!r} is not {_FORM}")
    if not match[3]:
        raise ValueError(f"{uri!r} names no region, and none is guessed: {_FORM}")
    return SignalTarget(match[1], match[2], match[3])


def send(letter: OutgoingReport, means: DeliveryContext) -> None:
    goal, tree = goal_of(letter.uri), letter.tree
    form = {
        "Action": "SignalResource",
        "Version": "2010-05-15",
        "StackName": goal.stack,
        "LogicalResourceId": goal.resource,
        "UniqueId": unique_id(tree),
        "Status": "SUCCESS" if tree["exit_status"] == 0 else "FAILURE",
    }
    keys = _keys(means)
    url, body = endpoint(goal.region, means.environ), urlencode(form).encode()
    for attempt in range(1, ATTEMPTS + 1):
        headers = signed(
            url, body, region=goal.region, service="cloudformation", keys=keys, now=means.machine.now()
        )
        again = _post(url, headers, body, means)
        if again is None:
            return
        wait = random.uniform(0, 2**attempt)  # noqa: S311 -- not a secret
        if attempt == ATTEMPTS or means.hurried or means.left() <= wait:
            raise UndeliveredError(f"{again}; attempt {attempt} of {ATTEMPTS}")
        try:
            means.machine.sleep(wait)
        except AgentError:
            raise UndeliveredError(f"{again}, then interrupted") from None


def endpoint(region: str, environ: Mapping[str, str]) -> str:
    """Return where the API is: by the SDK's own variables, or the region's."""
    named = environ.get("AWS_ENDPOINT_URL_CLOUDFORMATION") or environ.get("AWS_ENDPOINT_URL")
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return (named or f"https://cloudformation.{region}.{suffix}").rstrip("/") + "/"


def _keys(means: DeliveryContext) -> Credentials:
    """Return the credentials of the environment, or else of the instance's role. No profile of a person is read."""
    environ = means.environ
    if environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"):
        token = environ.get("AWS_SESSION_TOKEN") or None
        return Credentials(environ["AWS_ACCESS_KEY_ID"], environ["AWS_SECRET_ACCESS_KEY"], token)
    found = role_credentials(means.machine, environ)
    if not found:
        raise UndeliveredError(
            "there are no AWS credentials: neither in the environment nor a role of this instance"
        )
    return Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["Token"])


def _post(url: str, headers: Mapping[str, str], body: bytes, means: DeliveryContext) -> RetryableError | None:
    """Ask once; return why it has to be asked again, None when nobody waits any more. Raises UndeliveredError."""
    coming = stream_response(url, headers, environ=means.environ, mind=means.mind, body=body)
    status, text = 0, b""
    try:
        with contextlib.closing(coming):
            for item in coming:
                if isinstance(item, ResponseHead):
                    status = item.status
                else:
                    text += item
                if len(text) >= _ANSWER:
                    break
    except RetryableError as again:
        return again
    except AgentError as error:
        words = "interrupted" if error.code.name == "interrupted" else error.saw
        raise UndeliveredError(words) from None
    if status == 200:
        return None
    said = text[:_ANSWER].decode("utf-8", "replace")
    code, message = (_between(said, name) for name in ("Code", "Message"))
    if "cannot be signaled" in message:  # it is complete, or gives up: nobody waits for us
        return None
    saw = f"{code}: {message}" if code else f"HTTP {status}"
    if status >= 500 or code.startswith(_LATER):
        return RetryableError(saw)
    raise UndeliveredError(saw)


def _between(text: str, name: str) -> str:
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return " ".join(found[1].split())[:500] if found else ""


def unique_id(tree: Mapping[str, Any]) -> str:
    """Return what the stack's events show: the instance, as AWS wants it, or else code, host and run."""
    host = tree["host"]
    if host["instance_id"]:
        return str(host["instance_id"])
    before, after = f"{tree['code'] or 'ok'}.", f".{tree['run_id']}"
    name = re.sub(r"[^A-Za-z0-9-]", "-", host["name"])
    return before + name[: _LONGEST - len(before) - len(after)] + after
