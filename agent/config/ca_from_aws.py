"""The CA as AWS keeps it: the bytes of an object, a parameter or a secret, whatever form people gave them there."""

from __future__ import annotations

import base64
import json
from shlex import quote
from typing import TYPE_CHECKING

from agent.aws.buckets import BucketClient
from agent.aws.client import AwsAnswerTooLargeError, AwsRefusedError
from agent.aws.operations import GET_OBJECT, GET_OBJECT_VERSION, GET_PARAMETER, GET_SECRET_VALUE
from agent.core.aws_names import Parameter, S3Location, Secret, name_of
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from agent.aws.access import AwsAccess
    from agent.aws.client import AwsClient

WANT = "a PEM file"
# bytes: the last two are AWS's own limits
MOST_OBJECT = 1024 * 1024
MOST_PARAMETER = 8 * 1024
MOST_SECRET = 64 * 1024

# AWS's codes for what is not there, or not any more
_ABSENT = (
    "NoSuchBucket",
    "NoSuchKey",
    "NoSuchVersion",
    "ParameterNotFound",
    "ParameterVersionNotFound",
    "ResourceNotFoundException",
)
# and for what is there and is not given: a secret that is being deleted, an archived object, a marker of a deletion
_WITHHELD = ("InvalidRequestException", "InvalidObjectState", "MethodNotAllowed")
# base64 of `---`, with which PEM begins
_PEM_IN_BASE64 = b"LS0t"


def read_from_aws(access: AwsAccess, uri: str) -> bytes:
    """Return the bytes that a `--ca-cert` in AWS names. They may hold a secret, so nothing quotes them.

    Raises AgentError `ca-unreadable`, and where AWS cannot be asked a code of exit 12.
    """
    name = name_of(uri)
    try:
        if isinstance(name, S3Location):
            return _within(_object(access, name), MOST_OBJECT, uri)
        if isinstance(name, Parameter):
            return _unwrapped(_within(_parameter(access, name), MOST_PARAMETER, uri))
        return _unwrapped(_member(_within(_secret(access, name), MOST_SECRET, uri), name, uri))
    except AwsAnswerTooLargeError as error:
        raise _unreadable(uri, error.saw) from None
    except AwsRefusedError as error:
        if error.refusal.code in _WITHHELD:
            raise _unreadable(uri, error.saw) from None
        if error.refusal.code not in _ABSENT:
            raise
        hint = f"is the name right, and is it of {error.region}? `--region REGION` or an ARN names another region"
        if isinstance(name, S3Location):
            place = quote(f"s3://{name.bucket}/{name.key}")
            hint = f"is the name right? `aws s3 ls {place}` says what is there"
        raise _unreadable(uri, error.saw, sentence=f"{uri} is not there", hint=hint) from None


def _object(access: AwsAccess, name: S3Location) -> bytes:
    operation = GET_OBJECT_VERSION if name.version else GET_OBJECT
    answer = BucketClient(access, name).call(operation, {"Key": name.key, "VersionId": name.version})
    return bytes(answer["Body"])


def _parameter(access: AwsAccess, name: Parameter) -> bytes:
    answer = _client(access, name.region).call(GET_PARAMETER, {"Name": name.name, "WithDecryption": True})
    parameter = answer.get("Parameter")
    return _bytes_of(parameter.get("Value") if isinstance(parameter, dict) else None)


def _secret(access: AwsAccess, name: Secret) -> bytes:
    answer = _client(access, name.region).call(GET_SECRET_VALUE, {"SecretId": name.id})
    if answer.get("SecretString") is None and isinstance(answer.get("SecretBinary"), str):
        return _decoded(answer["SecretBinary"])
    return _bytes_of(answer.get("SecretString"))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:  # which AWS never sends
        return b""


def _client(access: AwsAccess, region: str) -> AwsClient:
    return access.client_in(region) if region else access.client


def _bytes_of(value: Any) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else b""


def _within(data: bytes, most: int, uri: str) -> bytes:
    if not data.strip():
        raise _unreadable(uri, "nothing", sentence=f"{uri} is empty")
    if len(data) > most:
        raise _unreadable(uri, f"{len(data)} bytes", want=f"at most {most} bytes")
    return data


def _member(data: bytes, name: Secret, uri: str) -> bytes:
    """Return what stands at a key of a secret that is JSON; neither the JSON nor its keys are shown."""
    if name.key is None:
        return data
    try:
        tree: Mapping[str, Any] | Any = json.loads(data)
    except (ValueError, RecursionError):
        hint = f"leave #{name.key} out where the secret is the certificate itself"
        raise _unreadable(
            uri, "a secret that is not JSON", want=f"JSON with the key {name.key}", hint=hint
        ) from None
    value = tree.get(name.key) if isinstance(tree, dict) else None
    if not isinstance(value, str) or not value.strip():
        saw = f"JSON without a text at the key {name.key}"
        raise _unreadable(uri, saw, want=f"JSON with the key {name.key}")
    return value.encode("utf-8", "replace")


def _unwrapped(data: bytes) -> bytes:
    """Return the text whose base64 this is, or else what it is."""
    if data.lstrip().startswith(_PEM_IN_BASE64):
        try:
            return base64.b64decode(b"".join(data.split()), validate=True)
        except ValueError:
            return data
    return data


def _unreadable(
    uri: str, saw: str, *, sentence: str = "", want: str = WANT, hint: str | None = None
) -> AgentError:
    return AgentError(
        "ca-unreadable", sentence or f"{uri} cannot be read as a CA", saw=saw, want=want, hint=hint
    )
