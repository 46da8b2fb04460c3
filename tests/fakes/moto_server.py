"""moto as a server on the loopback: fresh for a test, with users and roles whose policies it enforces on request.

What it cannot judge, clocks, and what it never does, throttling and answers that break, `tests.fakes.aws_server` adds.
"""

from __future__ import annotations

import http.client
import json
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterator

    from tests.fakes.aws_server import AwsServer

ACCOUNT = "123456789012"
REGION = "eu-central-1"
CLUSTER = "cluster-2abcdefghij"
_TRUST = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}


@contextmanager
def aws_server(
    listener: socket.socket | None = None, context: ssl.SSLContext | None = None
) -> Iterator[AwsServer]:
    """Yield a fresh moto behind its door: what was called is in `calls`, and it can misbehave."""
    from tests.fakes.aws_server import AwsServer  # moto may be missing where this module is only imported

    with AwsServer(listener, context) as server:
        yield server


@contextmanager
def server_with_bucket(name: str) -> Iterator[AwsServer]:
    """Yield a fresh moto in which this bucket is."""
    with aws_server() as server:
        s3 = client(server.url, "s3")
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield server


@contextmanager
def moto_server() -> Iterator[str]:
    """Yield the URL of a fresh moto, for the time of a test."""
    with aws_server() as server:
        yield server.url


@contextmanager
def enforced(url: str) -> Iterator[None]:
    """Have it check signatures and policies, but for their time: that is `AwsServer.enforcing`."""
    _post(url.split("/")[2], "/moto-api/reset-auth", "0")
    try:
        yield
    finally:
        _post(url.split("/")[2], "/moto-api/reset-auth", "inf")


def _post(place: str, path: str, body: str) -> None:
    connection = http.client.HTTPConnection(place, timeout=10)
    connection.request("POST", path, body, {"Content-Type": "text/plain"})
    assert connection.getresponse().status == 200
    connection.close()


@cache
def _session() -> Any:
    import botocore.session

    return botocore.session.Session()  # keeps the models, of which EC2's takes seconds


def client(url: str, service: str, **more: Any) -> Any:
    """Return botocore's client of it: another than ours, to set things up."""
    keys = {"aws_access_key_id": "admin", "aws_secret_access_key": "admin", **more}
    return _session().create_client(service, REGION, endpoint_url=url, **keys)


def policy(*actions: str) -> dict[str, Any]:
    """Return the document that allows these actions everywhere; without any, it says nothing."""
    statement = {"Effect": "Allow", "Resource": "*", "Action": list(actions)}
    return {"Version": "2012-10-17", "Statement": [statement] if actions else []}


def user_with(url: str, document: dict[str, Any]) -> dict[str, str]:
    """Make a user with this policy and return the variables of their keys."""
    iam = client(url, "iam")
    name = f"user-{len(iam.list_users()['Users'])}"
    iam.create_user(UserName=name)
    if document["Statement"]:
        iam.put_user_policy(UserName=name, PolicyName="given", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_SESSION_TOKEN": "",
    }


def user_who_may(url: str, *actions: str) -> dict[str, str]:
    """Make a user who may do this and no more, and return the variables of their keys."""
    return user_with(url, policy(*actions))


def role_with(url: str, document: dict[str, Any], name: str = "") -> dict[str, str]:
    """Make a role with this policy and return the variables of its credentials for a session."""
    iam = client(url, "iam")
    name = name or f"role-{len(iam.list_roles()['Roles'])}"
    trust = json.dumps({"Version": "2012-10-17", "Statement": [_TRUST]})
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    if document["Statement"]:
        iam.put_role_policy(RoleName=name, PolicyName="given", PolicyDocument=json.dumps(document))
    keys = client(url, "sts").assume_role(RoleArn=arn, RoleSessionName="i-0abc123def4567890")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": keys["SessionToken"],
    }
