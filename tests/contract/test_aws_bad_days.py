"""AWS's bad days, asked twice: by our client and by botocore, at the same door. Both must understand the same.

Where ours refuses what botocore reads, on purpose, the test says so, and shows that nothing else was wrong.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from agent.aws import operations
from agent.aws.client import AwsClient, AwsRefusedError
from agent.aws.session import open_session
from agent.cloudhsm.cluster import read_cluster
from agent.core.errors import AgentError
from tests.fakes import cluster_answers
from tests.fakes.aws import KEYS, RealTime, answers, half, says
from tests.fakes.aws_server import Call, expired_token, refusal
from tests.fakes.imds import imds
from tests.fakes.moto_server import REGION, aws_server, client
from tests.fakes.receiver import silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.aws.operations import Operation
    from tests.fakes.aws_server import AwsServer
    from tests.fakes.receiver import Answer

CLUSTERS = operations.DESCRIBE_CLUSTERS
SUBNETS = operations.DESCRIBE_SUBNETS
OBJECT = operations.GET_OBJECT
PARAMETER = operations.GET_PARAMETER
SIGNAL = operations.SIGNAL_RESOURCE
PARAMS: dict[Operation, dict[str, Any]] = {
    OBJECT: {"Bucket": "my.bucket", "Key": "ca.crt"},
    PARAMETER: {"Name": "/ca"},
    SIGNAL: {"StackName": "web", "LogicalResourceId": "Group", "UniqueId": "i-1", "Status": "SUCCESS"},
}
_MEANT = {
    "aws-throttled": "throttled",
    "aws-denied": "denied",
    "aws-no-credentials": "no credentials",
    "aws-clock": "wrong clock",
    "aws-unreachable": "no answer",
}
# botocore gives the service's own words; what they mean is in the API references, not in ours.
_THEIRS = {
    "Throttling": "throttled", "ThrottlingException": "throttled", "RequestLimitExceeded": "throttled", "SlowDown": "throttled",
    "AccessDenied": "denied", "AccessDeniedException": "denied", "UnauthorizedOperation": "denied",
    "CloudHsmAccessDeniedException": "denied",
    "ExpiredToken": "no credentials", "ExpiredTokenException": "no credentials", "RequestExpired": "no credentials",
    "UnrecognizedClientException": "no credentials", "AuthFailure": "no credentials", "InvalidAccessKeyId": "no credentials",
    "RequestTimeTooSkewed": "wrong clock",
    "InternalFailure": "no answer", "InternalError": "no answer", "ServiceUnavailable": "no answer",
}  # fmt: skip


@pytest.fixture(scope="module")
def place() -> Iterator[AwsServer]:
    with aws_server() as server:
        yield server


@pytest.fixture
def server(place: AwsServer) -> Iterator[AwsServer]:
    yield place
    place.misbehave()
    place.calls.clear()


def ours(server: AwsServer, environ: dict[str, str] = KEYS) -> AwsClient:
    return AwsClient(
        open_session(RealTime(), {**environ, "AWS_ENDPOINT_URL": server.url}, REGION), seconds=1.0
    )


def theirs(server: AwsServer, operation: Operation) -> Any:
    config = Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1})
    asked = client(server.url, operation.service.name, config=config)
    method = "".join(f"_{each.lower()}" if each.isupper() else each for each in operation.name).lstrip("_")
    return getattr(asked, method)


def meant_to_us(server: AwsServer, operation: Operation) -> str:
    try:
        ours(server).call(operation, PARAMS.get(operation, {}))
    except AwsRefusedError as error:
        return str(error.refusal.code)
    except AgentError as error:
        return _MEANT[error.code.name]
    return "an answer"


def meant_to_them(server: AwsServer, operation: Operation) -> str:
    try:
        answer = theirs(server, operation)(**PARAMS.get(operation, {}))
        if operation is OBJECT:
            answer["Body"].read()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return str(_THEIRS.get(code, code))
    except (BotoCoreError, ResponseParserError, HTTPError, OSError, ValueError):
        return "no answer"
    return "an answer"


def refused(operation: Operation, status: int, code: str, message: str = "No.") -> Answer:
    """Answer with a refusal in the shape of the operation's service."""
    response = refusal(call_of(operation), status, code, message)
    return says(response.get_data(), response.status_code)


def call_of(operation: Operation) -> Call:
    return Call(f"{operation.service.signs_as}:{operation.name}", REGION, "ASIAEXAMPLE")


def expired(operation: Operation) -> Answer:
    response = expired_token(call_of(operation))
    return says(response.get_data(), response.status_code)


_CASES = [
    (CLUSTERS, refused(CLUSTERS, 400, "ThrottlingException", "Rate exceeded"), "throttled"),
    (PARAMETER, refused(PARAMETER, 400, "ThrottlingException", "Rate exceeded"), "throttled"),
    (SUBNETS, refused(SUBNETS, 503, "RequestLimitExceeded", "Request limit exceeded."), "throttled"),
    (OBJECT, refused(OBJECT, 503, "SlowDown", "Please reduce your request rate."), "throttled"),
    (SIGNAL, refused(SIGNAL, 400, "Throttling", "Rate exceeded"), "throttled"),
    (CLUSTERS, refused(CLUSTERS, 400, "CloudHsmAccessDeniedException"), "denied"),
    (CLUSTERS, refused(CLUSTERS, 403, "AccessDeniedException"), "denied"),
    (PARAMETER, refused(PARAMETER, 400, "AccessDeniedException"), "denied"),
    (SUBNETS, refused(SUBNETS, 403, "UnauthorizedOperation"), "denied"),
    (OBJECT, refused(OBJECT, 403, "AccessDenied", "Access Denied"), "denied"),
    (SIGNAL, refused(SIGNAL, 403, "AccessDenied"), "denied"),
    *((each, expired(each), "no credentials") for each in (CLUSTERS, SUBNETS, OBJECT, SIGNAL)),
    (CLUSTERS, refused(CLUSTERS, 403, "UnrecognizedClientException"), "no credentials"),
    (SUBNETS, refused(SUBNETS, 401, "AuthFailure"), "no credentials"),
    (OBJECT, refused(OBJECT, 403, "InvalidAccessKeyId"), "no credentials"),
    (OBJECT, refused(OBJECT, 403, "RequestTimeTooSkewed"), "wrong clock"),
    (CLUSTERS, refused(CLUSTERS, 500, "InternalFailure"), "no answer"),
    (SUBNETS, refused(SUBNETS, 500, "InternalError"), "no answer"),
    (OBJECT, refused(OBJECT, 503, "ServiceUnavailable"), "no answer"),
    (PARAMETER, refused(PARAMETER, 400, "ParameterNotFound"), "ParameterNotFound"),
    (OBJECT, refused(OBJECT, 404, "NoSuchKey"), "NoSuchKey"),
    (SUBNETS, refused(SUBNETS, 400, "InvalidSubnetID.NotFound"), "InvalidSubnetID.NotFound"),
    (CLUSTERS, silent, "no answer"),
    (SUBNETS, silent, "no answer"),
    (CLUSTERS, half(json.dumps({"Clusters": []}), "chunks"), "no answer"),
    (SUBNETS, half("<DescribeSubnetsResponse><subnetSet/></DescribeSubnetsResponse>", "json"), "no answer"),
    (OBJECT, half("-----BEGIN CERTIFICATE-----", "length"), "no answer"),
    (CLUSTERS, answers({}), "an answer"),
    (CLUSTERS, answers({"Clusters": None, "NextToken": None}), "an answer"),
    (SUBNETS, says("<DescribeSubnetsResponse><requestId>1</requestId></DescribeSubnetsResponse>"), "an answer"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("operation", "answer", "meant"),
    _CASES,
    ids=[f"{operation.name}-{number}-{meant}" for number, (operation, _, meant) in enumerate(_CASES)],
)
def test_both_clients_understand_the_same(
    server: AwsServer, operation: Operation, answer: Answer, meant: str
) -> None:
    server.misbehave(answer)
    assert (meant_to_us(server, operation), meant_to_them(server, operation)) == (meant, meant)
    assert {each.permission for each in server.calls} == {call_of(operation).permission}


STRANGE = [
    cluster_answers.cluster(
        "HIBERNATING",
        cluster_answers.hsm(1, "REBALANCING"),
        cluster_answers.hsm(2, EniIp=None, EniId=None),
        Certificates=None,
    ),
    cluster_answers.cluster("CREATE_IN_PROGRESS", Certificates={}, SecurityGroup=None, SubnetMapping=None),
    cluster_answers.cluster("ACTIVE", Hsms=None, StateMessage="x" * 300, NewMember={"a": [1]}),
]


@pytest.mark.parametrize("tree", STRANGE, ids=["unknown states", "nothing yet", "new member"])
def test_a_strange_cluster_says_the_same_to_both(server: AwsServer, tree: dict[str, Any]) -> None:
    server.misbehave(answers({"Clusters": [tree]}))
    (our,) = ours(server).call(CLUSTERS, {})["Clusters"]
    (their,) = theirs(server, CLUSTERS)()["Clusters"]
    assert read_cluster(our, REGION) == read_cluster(their, REGION)
    assert read_cluster(our, REGION).state == tree["State"]


PAGES = [
    answers(cluster_answers.page(cluster_answers.cluster("ACTIVE", ClusterId=f"cluster-{name * 11}"), token=token))
    for name, token in (("a", "1"), ("b", "2"), ("c", ""))
]  # fmt: skip
SUBNET_PAGE = (
    "<DescribeSubnetsResponse><subnetSet><item><subnetId>{name}</subnetId></item></subnetSet>"
    "<nextToken>{token}</nextToken></DescribeSubnetsResponse>"
)
SUBNET_PAGES = [
    says(SUBNET_PAGE.format(name=name, token=token))
    for name, token in (("subnet-a", "1"), ("subnet-b", "2"), ("subnet-c", ""))
]


@pytest.mark.parametrize(
    ("operation", "pages", "item", "ours_in", "theirs_in"),
    [
        (CLUSTERS, PAGES, "ClusterId", "Clusters", "Clusters"),
        (SUBNETS, SUBNET_PAGES, "ubnetId", "subnetSet", "Subnets"),
    ],
    ids=["cloudhsm", "ec2"],
)
def test_both_read_pages_to_their_end(
    server: AwsServer, operation: Operation, pages: list[Answer], item: str, ours_in: str, theirs_in: str
) -> None:
    def ids(found: Any, place: str) -> list[str]:
        members = [each for page in found for each in page[place]]
        return [value for each in members for name, value in each.items() if name.endswith(item)]

    server.misbehave(*pages)
    read = ids(ours(server).pages(operation, {}), ours_in)
    server.misbehave(*pages)
    paginator = theirs(server, operation).__self__.get_paginator(theirs(server, operation).__name__)
    assert read == ids(paginator.paginate(), theirs_in)
    assert len(read) == 3


def test_credentials_that_ended_are_read_again_where_ec2_calls_the_request_old(server: AwsServer) -> None:
    with imds(role="web") as service:
        server.misbehave(
            expired(SUBNETS),
            says("<DescribeSubnetsResponse><requestId>1</requestId></DescribeSubnetsResponse>"),
        )
        environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url}
        ours(server, environ).call(SUBNETS, {})
        assert service.requests.count("/latest/meta-data/iam/security-credentials/web") == 2


# --- what ours refuses and botocore reads


@pytest.mark.parametrize("kind", ["length", "headers", "json"])
def test_half_of_some_json_is_an_answer_to_botocore_alone(server: AwsServer, kind: str) -> None:
    server.misbehave(half(json.dumps({"Clusters": []}), kind))
    assert meant_to_us(server, CLUSTERS) == "no answer"
    assert "Clusters" not in theirs(server, CLUSTERS)()


BOMB = '<!DOCTYPE x [<!ENTITY a "subnet-a">]>' + SUBNET_PAGE.format(name="&a;", token="")


def test_entities_are_expanded_by_botocore_alone(server: AwsServer) -> None:
    server.misbehave(says(BOMB))
    assert theirs(server, SUBNETS)()["Subnets"] == [{"SubnetId": "subnet-a"}]
    assert meant_to_us(server, SUBNETS) == "no answer"


def test_more_than_4_megabytes_are_read_by_botocore_alone(server: AwsServer) -> None:
    server.misbehave(answers({"Clusters": [], "Padding": "x" * operations.MOST_BYTES}))
    assert theirs(server, CLUSTERS)()["Clusters"] == []
    assert meant_to_us(server, CLUSTERS) == "no answer"
    server.misbehave(answers({"Clusters": [], "Padding": "x" * (operations.MOST_BYTES - 100)}))
    assert meant_to_us(server, CLUSTERS) == "an answer"
