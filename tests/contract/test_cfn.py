"""CloudFormation signals: real botocore against a small server that looks at the form of the request.

moto 5.2.5 has no SignalResource (HTTP 500, NotImplementedError), so this stands in for it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest

from agent.reporting.cfn import Goal, goal_of
from agent.reporting.places import check
from tests.doubles.receiver import Answer, Exchange, Receiver, only, receiver

if TYPE_CHECKING:
    from collections.abc import Mapping

pytest.importorskip("botocore", reason="cfn: needs the extra hsm-agent[aws]")

ROOT = Path(__file__).parents[2]
URI = "cfn:web/Group?region=eu-central-1"
NAMESPACE = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
KEY = "wJalrXUtnFEMI"
DOCUMENT = {
    "run_id": "20261123T201500Z-1f3a", "host": {"name": "ip-10-0-1-12", "instance_id": None}, "exit_status": 0,
    "code": None,
}  # fmt: skip

# in a process of its own, whose environment is the only thing that tells botocore where to go
SEND = """
import sys
from agent.reporting.letter import Letter, Means, UndeliveredError
from agent.reporting.places import send
from tests.doubles.memory import Memory
memory = Memory()
try:
    send(Letter(sys.argv[1], sys.argv[2]), Means(memory, 60.0, hurried=sys.argv[3] == "hurried"))
except UndeliveredError as error:
    print(error.saw)
"""


def signal(
    server: Receiver | None, uri: str = URI, *, hurried: bool = False, secret: str = KEY, **more: object
) -> str:
    """Send one; return why it did not arrive, empty when it did."""
    address = f"http://127.0.0.1:{server.server_port if server else 9}"
    environment = {
        "AWS_ENDPOINT_URL_CLOUDFORMATION": address,
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE" if secret else "",
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
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


def accept(seen: list[Mapping[str, Any]]) -> Answer:
    """Answer as the API does, and hold the request to its form."""

    def answer(exchange: Exchange) -> None:
        form = parse_qs(exchange.document.decode(), strict_parsing=True)
        seen.append({name: value for name, (value,) in form.items()})
        authorization = exchange.headers["Authorization"]
        scope = r"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/\d{8}/eu-central-1/cloudformation/aws4_request, "
        assert re.match(scope + r"SignedHeaders=[a-z0-9;-]+, Signature=[0-9a-f]{64}$", authorization)
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
        assert signal(server) == f"{code}: {message}"


def test_a_server_that_fails_is_asked_again_but_not_by_a_run_in_a_hurry() -> None:
    seen: list[Mapping[str, Any]] = []
    with receiver(only(500), accept(seen)) as server:
        assert signal(server) == ""
        assert (len(server.requests), len(seen)) == (2, 1)
    with receiver(only(500)) as server:
        assert signal(server, hurried=True) != ""
        assert len(server.requests) == 1


def test_without_credentials_or_a_way_to_aws_it_says_so() -> None:
    assert signal(None, secret="") == "Unable to locate credentials"
    assert "Could not connect" in signal(None)


def test_a_stack_may_be_named_by_its_arn() -> None:
    arn = "arn:aws:cloudformation:eu-west-1:123456789012:stack/web/7d2e3dd0-f5f3-11e7"
    check(f"cfn:{arn}/Group?region=eu-west-1")
    assert goal_of(f"cfn:{arn}/Group?region=eu-west-1") == Goal(arn, "Group", "eu-west-1")


def test_without_the_library_the_option_is_refused() -> None:
    check(URI)
    code = "import sys; from agent.reporting.places import check; check(sys.argv[1])"
    # -S and our folder alone: the standard library, and nothing that was installed
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, URI],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "pip install 'hsm-agent[aws]'" in done.stderr.splitlines()[-1]
