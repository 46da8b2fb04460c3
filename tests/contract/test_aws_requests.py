"""Requests, signatures and answers of AWS's API, with botocore's models, serializers, parsers and signer as judges."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import botocore.session
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as TheirCredentials
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.aws import operations
from agent.aws.operations import OPERATIONS, Operation, Protocol
from agent.aws.protocols import UnreadableAnswerError, decode, encode, refusal_of
from agent.aws.sigv4 import Credentials, sign
from agent.http.exchange import ApiRequest, ApiResponse

if TYPE_CHECKING:
    from botocore.model import ServiceModel

_SESSION = botocore.session.Session()
NOW = dt.datetime(2026, 11, 30, 9, 30, 12, tzinfo=dt.timezone.utc)
OURS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI", "t+/=oken")
_FILTERS = [{"Name": "group-id", "Values": ["sg-1", "sg-2"]}, {"Name": "vpc-id", "Values": ["vpc-1"]}]
_EC2_FILTERS = [{"Name": each["Name"], "Value": each["Values"]} for each in _FILTERS]
_SIGNAL = {"StackName": "web", "LogicalResourceId": "Group", "UniqueId": "i-1 ü&=", "Status": "SUCCESS"}
_ITEM = {
    "TypeName": "Custom:CloudHSMClient",
    "SchemaVersion": "1.0",
    "CaptureTime": "2026-11-30T09:30:12Z",
    "Content": [{"HostName": "ü", "Code": ""}],
}
_OF_EC2 = ({"Filters": _FILTERS, "MaxResults": 100}, {"Filter": _EC2_FILTERS, "MaxResults": 100})
# of EC2's operations whose model has no limit, the API reference has one
_EC2_PAGE = 1000
_FIRST_PAGE_ALONE = (operations.DESCRIBE_BACKUPS,)
# by operation: the parameters as botocore has them, and as they go over the wire
_SAMPLES: dict[Operation, tuple[dict[str, Any], dict[str, Any]]] = {
    operations.DESCRIBE_CLUSTERS: (
        {"Filters": {"clusterIds": ["cluster-2abcdefghij"]}, "MaxResults": 25, "NextToken": "n"},
    )
    * 2,
    operations.DESCRIBE_BACKUPS: (
        {"Filters": {"clusterIds": ["cluster-2abcdefghij"]}, "MaxResults": 50, "SortAscending": False},
    )
    * 2,
    operations.GET_ROLE: ({"RoleName": "AWSServiceRoleForCloudHSM"},) * 2,
    operations.GET_PARAMETER: ({"Name": "/a/b:3", "WithDecryption": True},) * 2,
    operations.GET_SECRET_VALUE: ({"SecretId": "arn:aws:secretsmanager:eu-west-1:1:secret:a"},) * 2,
    operations.SIGNAL_RESOURCE: (_SIGNAL, _SIGNAL),
    operations.PUT_INVENTORY: ({"InstanceId": "i-0abc123def4567890", "Items": [_ITEM]},) * 2,
    **{each: _OF_EC2 for each in OPERATIONS if each.service is operations.EC2},
    operations.GET_CONSOLE_OUTPUT: ({"InstanceId": "i-0abc123def4567890"},) * 2,
    operations.MODIFY_NETWORK_INTERFACE_ATTRIBUTE: (
        {"NetworkInterfaceId": "eni-1", "Groups": ["sg-1", "sg-2"]},
        {"NetworkInterfaceId": "eni-1", "SecurityGroupId": ["sg-1", "sg-2"]},
    ),
}


def model_of(operation: Operation) -> ServiceModel:
    return _SESSION.get_service_model(operation.service.name)


def their_protocol(operation: Operation) -> str:
    return {Protocol.JSON: "json", Protocol.QUERY: "query", Protocol.EC2: "ec2", Protocol.S3: "rest-xml"}[
        operation.service.protocol
    ]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.permission)
def test_an_operation_is_in_the_model_with_its_page_size(operation: Operation) -> None:
    model = model_of(operation).operation_model(operation.name)
    members = model.input_shape.members
    is_s3 = operation.service.protocol is Protocol.S3
    size, token = ("MaxKeys", "ContinuationToken") if is_s3 else ("MaxResults", "NextToken")
    limits = members[size].metadata if size in members else {"max": 0}
    assert operation.page <= limits.get("max", _EC2_PAGE)
    if operation not in _FIRST_PAGE_ALONE:
        assert bool(operation.page) == (token in members) == (size in members)


def test_a_page_of_objects_is_asked_for_as_botocore_does() -> None:
    model = model_of(operations.LIST_OBJECTS).operation_model("ListObjectsV2")
    own = {"Bucket": "reports", "Prefix": "fleet ü+/", "ContinuationToken": "t+/=", "MaxKeys": 1000}
    theirs = {**own, "Delimiter": "/", "EncodingType": "url"}
    wanted = create_serializer("rest-xml").serialize_to_request(theirs, model)
    request = urlsplit(encode(operations.LIST_OBJECTS, "https://service.example", own).url)
    asked = {name: value for name, (value,) in parse_qs(request.query).items()}
    assert request.path == "/reports"
    assert asked == {name: str(value) for name, value in wanted["query_string"].items()} | {"list-type": "2"}


@pytest.mark.parametrize("operation", _SAMPLES, ids=lambda operation: operation.permission)
def test_a_request_is_the_one_that_botocore_makes(operation: Operation) -> None:
    theirs, ours = _SAMPLES[operation]
    model = model_of(operation).operation_model(operation.name)
    wanted = create_serializer(their_protocol(operation)).serialize_to_request(theirs, model)
    request = encode(operation, "https://service.example", ours)
    assert request.method == wanted["method"]
    if operation.service.protocol is Protocol.JSON:
        assert json.loads(request.body) == json.loads(wanted["body"])
        assert request.headers["X-Amz-Target"] == wanted["headers"]["X-Amz-Target"]
    else:
        form = {name: value for name, (value,) in parse_qs(request.body.decode()).items()}
        assert form == {name: str(value) for name, value in wanted["body"].items()}
    assert request.headers["Content-Type"] == wanted["headers"]["Content-Type"]
    assert "t+/=oken" not in repr(request)


@pytest.mark.parametrize("key", ["ca.crt", "a b+c/ü~.crt", "x?y#z%20"])
def test_an_object_is_asked_for_by_its_path(key: str) -> None:
    model = model_of(operations.GET_OBJECT).operation_model("GetObject")
    wanted = create_serializer("rest-xml").serialize_to_request({"Bucket": "my.bucket", "Key": key}, model)
    request = encode(operations.GET_OBJECT, "https://s3.example", {"Bucket": "my.bucket", "Key": key})
    assert urlsplit(request.url).path in (wanted["url_path"], f"/my.bucket{wanted['url_path']}")
    versioned = encode(
        operations.GET_OBJECT, "https://s3.example", {"Bucket": "b", "Key": key, "VersionId": "v&1"}
    )
    assert versioned.url.endswith("?versionId=v%261")


@pytest.mark.parametrize(
    ("operation", "more"),
    [
        (operations.GET_OBJECT, {"Range": "bytes=0-99", "IfMatch": '"e1"'}),
        (operations.PUT_OBJECT, {"Body": b"{}", "ContentType": "application/json"}),
    ],
    ids=["GetObject", "PutObject"],
)
def test_an_object_is_read_in_parts_and_written_as_botocore_does(
    operation: Operation, more: dict[str, Any]
) -> None:
    params = {"Bucket": "my.bucket", "Key": "a b/x.json", **more}
    model = model_of(operation).operation_model(operation.name)
    wanted = create_serializer("rest-xml").serialize_to_request(params, model)
    request = encode(operation, "https://s3.example", params)
    assert (request.method, request.body) == (wanted["method"], wanted["body"] or b"")
    assert request.headers == wanted["headers"]


def signed_by_botocore(request: ApiRequest, service: str, credentials: Credentials) -> str:
    theirs = AWSRequest(
        method=request.method, url=request.url, data=request.body, headers=dict(request.headers)
    )
    signer = S3SigV4Auth if service == "s3" else SigV4Auth
    auth = signer(
        TheirCredentials(credentials.id, credentials.secret, credentials.token), service, "eu-central-1"
    )
    theirs.context["timestamp"] = f"{NOW:%Y%m%dT%H%M%SZ}"
    theirs.headers["X-Amz-Date"] = theirs.context["timestamp"]
    if credentials.token:
        theirs.headers["X-Amz-Security-Token"] = credentials.token
    if service == "s3":
        theirs.headers["X-Amz-Content-SHA256"] = auth.payload(theirs)
    text = auth.string_to_sign(theirs, auth.canonical_request(theirs))
    auth._inject_signature_to_request(theirs, auth.signature(text, theirs))  # noqa: SLF001 -- its last step
    return str(theirs.headers["Authorization"])


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST"]),
    path=st.text("abAB09-_.~/%+ ü", max_size=12),
    query=st.dictionaries(_TEXT.filter(bool), _TEXT, max_size=3),
    body=st.binary(max_size=40),
    service=st.sampled_from(["cloudhsm", "s3", "ec2"]),
    token=st.sampled_from([None, "t+/=oken"]),
)
def test_a_signature_is_the_one_that_botocore_makes(
    method: str, path: str, query: dict[str, str], body: bytes, service: str, token: str | None
) -> None:
    from urllib.parse import quote, urlencode

    clean = "/" + quote(path.lstrip("/"), safe="/-_.~")
    if service != "s3" and any(each in ("", ".", "..") for each in clean.split("/")[1:]):
        clean = "/"  # botocore normalises such a path; we ask no other
    url = f"https://host.example:8443{clean}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")
    request = ApiRequest(method, url, {"Content-Type": "text/plain;  charset=x"}, body)
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI", token)
    signed = sign(request, region="eu-central-1", service=service, credentials=credentials, now=NOW)
    assert signed.headers["Authorization"] == signed_by_botocore(request, service, credentials)
    assert "wJalrXUtnFEMI" not in repr(signed) + repr(credentials) + str(signed.headers)


GROUPS = """<?xml version="1.0" encoding="UTF-8"?>
<DescribeSecurityGroupsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>1</requestId>
  <securityGroupInfo><item><groupId>sg-1</groupId><groupName>cloudhsm-cluster-x-sg</groupName><vpcId>vpc-1</vpcId>
    <ipPermissions><item><ipProtocol>tcp</ipProtocol><fromPort>2223</fromPort><toPort>2225</toPort>
      <groups><item><userId>1</userId><groupId>sg-1</groupId></item></groups><ipRanges/></item></ipPermissions>
    <ipPermissionsEgress/></item></securityGroupInfo>
  <nextToken>more</nextToken>
</DescribeSecurityGroupsResponse>"""


def response(body: str | bytes, status: int = 200, **headers: str) -> ApiResponse:
    return ApiResponse(status, headers, body if isinstance(body, bytes) else body.encode())


def test_an_answer_of_ec2_is_read_as_botocore_reads_it() -> None:
    model = model_of(operations.DESCRIBE_SECURITY_GROUPS).operation_model("DescribeSecurityGroups")
    theirs = create_parser("ec2").parse(
        {"body": GROUPS.encode(), "headers": {}, "status_code": 200}, model.output_shape
    )
    tree = decode(operations.DESCRIBE_SECURITY_GROUPS, response(GROUPS))
    (group,), (their_group,) = tree["securityGroupInfo"], theirs["SecurityGroups"]
    assert (group["groupId"], group["vpcId"], tree["nextToken"]) == (
        their_group["GroupId"],
        their_group["VpcId"],
        theirs["NextToken"],
    )
    (rule,), (their_rule,) = group["ipPermissions"], their_group["IpPermissions"]
    assert (int(rule["fromPort"]), int(rule["toPort"])) == (their_rule["FromPort"], their_rule["ToPort"])
    assert rule["groups"] == [{"userId": "1", "groupId": "sg-1"}]
    assert (rule["ipRanges"] or [], group["ipPermissionsEgress"] or []) == ([], [])


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html></html>",
        GROUPS[:200],
        BOMB + "<DescribeSecurityGroupsResponse><x>&b;</x></DescribeSecurityGroupsResponse>",
        (BOMB + "<DescribeSecurityGroupsResponse/>").encode("utf-16"),
        b"\xff\xfe\x00",
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><DescribeSecurityGroupsResponse/>',
        "<DescribeSecurityGroupsResponse>&undefined;</DescribeSecurityGroupsResponse>",
        "<a>" * 100_000,
        "<DescribeSecurityGroupsResponse>" + "<a>" * 5000 + "</a>" * 5000 + "</DescribeSecurityGroupsResponse>",
    ],
    ids=range(10),
)  # fmt: skip
def test_xml_that_aws_never_sends_is_refused(body: str | bytes) -> None:
    with pytest.raises(UnreadableAnswerError):
        decode(operations.DESCRIBE_SECURITY_GROUPS, response(body))


@pytest.mark.parametrize(
    "body", ["{", "[]", "null", '"x"', '{"a": "\\ud8', "[" * 100_000, b"\xff\xfe"], ids=range(7)
)
def test_json_that_aws_never_sends_is_refused(body: str | bytes) -> None:
    with pytest.raises(UnreadableAnswerError):
        decode(operations.DESCRIBE_CLUSTERS, response(body))


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ('{"__type":"com.amazon#AccessDeniedException","Message":"User x"}', {}, "AccessDeniedException: User x"),
        ('{"message":"m"}', {"x-amzn-errortype": "ThrottlingException:http://x"}, "ThrottlingException: m"),
        ("<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You &quot;x&quot;</Message></Error></Errors></Response>", {}, 'UnauthorizedOperation: You "x"'),
        ("<Error><Code>NoSuchKey</Code><Message>gone\n\nCanonical: secret</Message></Error>", {}, "NoSuchKey: gone"),
        ("<html>Proxy error</html>", {}, "HTTP 403"),
        ("", {}, "HTTP 403"),
        ("{", {}, "HTTP 403"),
        ('{"__type":"X","message":"\\u001b[31mred"}', {}, "X: ?[31mred"),
    ],
)  # fmt: skip
def test_a_refusal_is_read_whatever_form_it_has(body: str, headers: dict[str, str], said: str) -> None:
    assert str(refusal_of(response(body, 403, **headers))) == said
