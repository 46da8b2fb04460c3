"""CloudFormation signals against a small server that looks at the form of a request and has botocore sign it too.

moto 5.2.5 has no SignalResource (HTTP 500, NotImplementedError), so this stands in for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from agent.http.imds import ENDPOINT
from agent.sinks.cloudformation import SignalTarget, target_of
from agent.sinks.registry import check
from tests.fakes.imds import CREDENTIALS, imds
from tests.fakes.receiver import Answer, Exchange, Receiver, only, receiver

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
URI = "cfn:web/Group?region=eu-central-1"
NAMESPACE = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
KEY = "wJalrXUtnFEMI"
OURS = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": KEY}
DOCUMENT = {
    "run_id": "20261123T201500Z-1f3a", "host": {"name": "ip-10-0-1-12", "instance_id": None}, "exit_status": 0,
    "code": None,
}  # fmt: skip

# in a process of its own, with an environment of its own
SEND = """
import os, sys
from agent.sinks.message import OutgoingReport, DeliveryContext, UndeliveredError
from agent.sinks.registry import send
from tests.fakes.memory import Memory
memory = Memory()
try:
    send(OutgoingReport(sys.argv[1], sys.argv[2]), DeliveryContext(memory, 60.0, os.environ, hurried=sys.argv[3] == "hurried"))
except UndeliveredError as error:
    print(error.saw)
"""


def signal(
    server: Receiver | None,
    uri: str = URI,
    *,
    hurried: bool = False,
    secret: str = KEY,
    environ: Mapping[str, str] | None = None,
    **more: object,
) -> str:
    """Send one; return why it did not arrive, empty when it did."""
    address = f"http://127.0.0.1:{server.server_port if server else 9}"
    environment = {
        "AWS_ENDPOINT_URL_CLOUDFORMATION": address,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE" if secret else "",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": "",
        **(environ or {}),
    }
    done = subprocess.run(
        [sys.executable, "-c", SEND, uri, json.dumps({**DOCUMENT, **more}), "hurried" if hurried else ""],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def said(exchange: Exchange, status: int, body: str) -> None:
    exchange.answer(status, Content_Type="text/xml", Content_Length=len(body))
    exchange.wfile.write(body.encode())


def signed_by_botocore(exchange: Exchange, keys: Mapping[str, str]) -> str:
    """Sign the very same request with AWS's own library, at the time that it names."""
    headers = {name: exchange.headers[name] for name in ("Content-Type", "Host", "X-Amz-Date")}
    if keys.get("Token"):
        headers["X-Amz-Security-Token"] = exchange.headers["X-Amz-Security-Token"]
        assert headers["X-Amz-Security-Token"] == keys["Token"]
    url = f"http://{exchange.headers['Host']}{exchange.path}"
    request = AWSRequest(method="POST", url=url, data=exchange.document, headers=headers)
    request.context["timestamp"] = exchange.headers["X-Amz-Date"]
    who = Credentials(keys["AccessKeyId"], keys["SecretAccessKey"], keys.get("Token"))
    auth = SigV4Auth(who, "cloudformation", "eu-central-1")
    text = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(text, request))  # noqa: SLF001 -- its last step
    return str(request.headers["Authorization"])


def accept(seen: list[Mapping[str, Any]], keys: Mapping[str, str] = OURS) -> Answer:
    """Answer as the API does, and hold the request to its form."""

    def answer(exchange: Exchange) -> None:
        form = parse_qs(exchange.document.decode(), strict_parsing=True)
        seen.append({name: value for name, (value,) in form.items()})
        assert exchange.headers["Authorization"] == signed_by_botocore(exchange, keys)
        assert KEY not in str(exchange.headers)
        said(
            exchange,
            200,
            f'<SignalResourceResponse xmlns="{NAMESPACE}"><ResponseMetadata/></SignalResourceResponse>',
        )

    return answer


def refuse(code: str, message: str, status: int = 400) -> Answer:
    return lambda exchange: said(
        exchange,
        status,
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
        f"<Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>",
    )


@pytest.mark.parametrize(
    ("exit_status", "code", "status"), [(0, None, "SUCCESS"), (41, "hsm-degraded", "FAILURE")]
)
def test_a_signal_says_success_or_failure_with_the_code(
    exit_status: int, code: str | None, status: str
) -> None:
    seen: list[Mapping[str, Any]] = []
    with receiver(accept(seen)) as server:
        assert signal(server, exit_status=exit_status, code=code) == ""
    assert seen == [
        {
            "Action": "SignalResource",
            "Version": "2010-05-15",
            "StackName": "web",
            "LogicalResourceId": "Group",
            "UniqueId": f"{code or 'ok'}.ip-10-0-1-12.20261123T201500Z-1f3a",
            "Status": status,
        }
    ]


@pytest.mark.parametrize("state", ["CREATE_COMPLETE", "UPDATE_COMPLETE", "ROLLBACK_IN_PROGRESS"])
def test_a_stack_that_no_longer_waits_is_no_error(state: str) -> None:
    words = (
        f"Stack arn:aws:cloudformation:eu-central-1:1:stack/web/1 is in {state} state and cannot be signaled"
    )
    with receiver(refuse("ValidationError", words)) as server:
        assert signal(server) == ""
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("code", "message", "status"),
    [
        ("AccessDenied", "User: arn:aws:sts::1:assumed-role/web is not authorized to perform this", 403),
        ("ValidationError", "Stack web does not exist", 400),
        ("ExpiredToken", "The security token included in the request is expired", 403),
    ],
)
def test_a_refusal_is_told_in_aws_s_own_words(code: str, message: str, status: int) -> None:
    with receiver(refuse(code, message, status)) as server:
        assert signal(server).endswith(f"{code}: {message}")


def test_a_server_that_fails_is_asked_again_but_not_by_a_run_in_a_hurry() -> None:
    seen: list[Mapping[str, Any]] = []
    with receiver(only(500), accept(seen)) as server:
        assert signal(server) == ""
        assert (len(server.requests), len(seen)) == (2, 1)
    with receiver(only(500)) as server:
        assert signal(server, hurried=True) != ""
        assert len(server.requests) == 1


def test_without_credentials_or_a_way_to_aws_it_says_so() -> None:
    assert signal(None, secret="").startswith("there are no AWS credentials")
    assert "refused" in signal(None)


@pytest.mark.parametrize("secret", ["", KEY], ids=["the role's", "the environment's"])
def test_the_credentials_are_the_environment_s_or_those_of_the_role(secret: str) -> None:
    seen: list[Mapping[str, Any]] = []
    with imds(role="web-role") as service, receiver(accept(seen, OURS if secret else CREDENTIALS)) as server:
        assert signal(server, secret=secret, environ={ENDPOINT: service.url}) == ""
        assert bool(service.requests) is not bool(secret)
    assert len(seen) == 1


def test_credentials_that_end_are_sent_with_their_token() -> None:
    seen: list[Mapping[str, Any]] = []
    with receiver(accept(seen, {**OURS, "Token": "t+/="})) as server:
        assert signal(server, environ={"AWS_SESSION_TOKEN": "t+/="}) == ""
    assert len(seen) == 1


def test_an_instance_is_named_by_its_id() -> None:
    seen: list[Mapping[str, Any]] = []
    with receiver(accept(seen)) as server:
        assert signal(server, host={"name": "ip-10-0-1-12", "instance_id": "i-0abc123def4567890"}) == ""
    assert seen[0]["UniqueId"] == "i-0abc123def4567890"


def test_throttling_is_waited_for() -> None:
    seen: list[Mapping[str, Any]] = []
    with receiver(refuse("Throttling", "Rate exceeded"), accept(seen)) as server:
        assert signal(server) == ""
    assert len(seen) == 1


def test_a_stack_may_be_named_by_its_arn() -> None:
    arn = "arn:aws:cloudformation:eu-west-1:123456789012:stack/web/7d2e3dd0-f5f3-11e7"
    check(f"cfn:{arn}/Group?region=eu-west-1")
    assert target_of(f"cfn:{arn}/Group?region=eu-west-1") == SignalTarget(arn, "Group", "eu-west-1")
