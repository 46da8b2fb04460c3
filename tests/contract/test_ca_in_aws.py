"""The CA in S3, Parameter Store and Secrets Manager: read as people keep it, against moto; and every way it is not there."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from agent.aws.access import AwsAccess
from agent.config.ca_source import load_ca, read_source
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.core.timeouts import Timeouts
from tests.fakes.aws import KEYS, SECRET, TOKEN, RealTime, answers, refuses, says
from tests.fakes.moto_server import REGION, client, enforced, moto_server, user_who_may
from tests.fakes.receiver import receiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.receiver import Answer


PRIVATE = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto_server() as place:
        s3 = client(place, "s3")
        s3.create_bucket(Bucket="cas", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_bucket_versioning(Bucket="cas", VersioningConfiguration={"Status": "Enabled"})
        yield place


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    for secret in (SECRET, TOKEN, "MIIEvQIBADAN", "hunter2"):
        assert secret not in caplog.text


def access(url: str, **environ: str) -> AwsAccess:
    names = {**KEYS, "AWS_REGION": REGION, "AWS_ENDPOINT_URL": url, **environ}
    return AwsAccess(RealTime(), {name: value for name, value in names.items() if value})


def read(url: str, source: str, **environ: str) -> bytes:
    return read_source(RealTime(), CaSource.of(source), Timeouts(), access(url, **environ))


def ca(url: str, source: str) -> bytes:
    """Return the CA as the host gets it, whatever form it is kept in."""
    desired = Desired(ca_cert=CaSource.of(source))
    return load_ca(RealTime(), desired, Timeouts(), access(url))[0].pem


def refused(url: str, source: str, **environ: str) -> AgentError:
    """Return how a source is refused: its text holds nothing secret, and its chain of causes neither."""
    with pytest.raises(AgentError) as caught:
        load_ca(RealTime(), Desired(ca_cert=CaSource.of(source)), Timeouts(), access(url, **environ))
    error = caught.value
    text = f"{error!r} {error} {error.sentence} {error.saw} {error.want} {error.hint} {error.__cause__!r}"
    for secret in (SECRET, TOKEN, "MIIEvQIBADAN", "hunter2"):
        assert secret not in text
    return error


def put_parameter(url: str, name: str, value: str, kind: str = "String") -> None:
    client(url, "ssm").put_parameter(Name=name, Value=value, Type=kind, Tier="Advanced", Overwrite=True)


def put_secret(url: str, name: str, value: str | bytes) -> str:
    kind = {"SecretString": value} if isinstance(value, str) else {"SecretBinary": value}
    return str(client(url, "secretsmanager").create_secret(Name=name, **kind)["ARN"])


def test_an_object_is_read_also_in_an_earlier_version(url: str, ca_pem: bytes, other_ca_pem: bytes) -> None:
    s3 = client(url, "s3")
    first = s3.put_object(Bucket="cas", Key="prod/customer CA+1.crt", Body=ca_pem)["VersionId"]
    s3.put_object(Bucket="cas", Key="prod/customer CA+1.crt", Body=other_ca_pem)
    assert ca(url, "s3://cas/prod/customer CA+1.crt") == other_ca_pem
    assert ca(url, f"s3://cas/prod/customer CA+1.crt?versionId={first}") == ca_pem


def test_a_parameter_is_read_by_name_version_label_and_arn(
    url: str, ca_pem: bytes, other_ca_pem: bytes
) -> None:
    ssm = client(url, "ssm")
    put_parameter(url, "/hsm/ca", ca_pem.decode())
    ssm.label_parameter_version(Name="/hsm/ca", ParameterVersion=1, Labels=["approved"])
    put_parameter(url, "/hsm/ca", other_ca_pem.decode(), "SecureString")
    assert ca(url, "ssm:/hsm/ca") == other_ca_pem
    assert ca(url, "ssm:/hsm/ca:1") == ca(url, "ssm:/hsm/ca:approved") == ca_pem
    arn = ssm.get_parameter(Name="/hsm/ca")["Parameter"]["ARN"]
    assert ca(url, f"ssm:{arn}") == other_ca_pem


def test_a_secret_is_read_in_every_form_that_people_keep(url: str, ca_pem: bytes) -> None:
    text = ca_pem.decode()
    arn = put_secret(url, "plain", text)
    put_secret(url, "blanks", text.replace("\n", " "))
    put_secret(url, "binary", ca_pem)
    put_secret(url, "base64", base64.b64encode(ca_pem).decode())
    put_secret(url, "wrapped", base64.encodebytes(ca_pem).decode())
    put_secret(url, "json", json.dumps({"certificate": text, "password": "hunter2", "key": PRIVATE}))
    put_secret(url, "json64", json.dumps({"certificate": base64.b64encode(ca_pem).decode()}).encode())
    sources = [
        "plain",
        arn,
        arn[:-7],
        "blanks",
        "binary",
        "base64",
        "wrapped",
        "json#certificate",
        "json64#certificate",
    ]
    for source in sources:
        assert ca(url, f"secretsmanager:{source}") == ca_pem, source


@pytest.mark.parametrize("name", ["private#key", "private", "private64#all"])
def test_a_private_key_is_refused_wherever_it_stands(url: str, name: str, ca_pem: bytes) -> None:
    both = ca_pem.decode() + PRIVATE
    if name == "private#key":
        put_secret(url, "private", json.dumps({"certificate": ca_pem.decode(), "key": PRIVATE}))
    elif name == "private64#all":
        put_secret(url, "private64", json.dumps({"all": base64.b64encode(both.encode()).decode()}))
    assert refused(url, f"secretsmanager:{name}").code.name == "ca-is-private-key"


@pytest.mark.parametrize(
    ("source", "saw"),
    [
        ("s3://cas/none.crt", "NoSuchKey"),
        ("s3://no-such-bucket-at-all/ca.crt", "NoSuchBucket"),
        ("ssm:/none", "ParameterNotFound"),
        ("secretsmanager:none", "ResourceNotFoundException"),
    ],
)
def test_what_is_not_there_is_a_ca_that_cannot_be_read(url: str, source: str, saw: str) -> None:
    error = refused(url, source)
    assert (error.code.name, error.code.exit_status) == ("ca-unreadable", 30)
    assert saw in error.saw
    assert error.sentence == f"{source} is not there"
    assert "is the name right" in error.hint


@pytest.mark.parametrize(
    ("source", "answer", "code", "saw"),
    [
        ("s3://bucket/ca", says(b""), "ca-unreadable", "nothing"),
        ("s3://bucket/ca", says(b"x" * (1024 * 1024 + 1)), "ca-unreadable", "1048577 bytes"),
        ("s3://bucket/ca", says(b"x" * (4 * 1024 * 1024 + 1)), "ca-unreadable", "more than 4194304 bytes"),
        ("s3://bucket/ca", says(b"<html></html>"), "ca-not-a-certificate", "an HTML or XML page"),
        ("ssm:ca", answers({"Parameter": {"Value": ""}}), "ca-unreadable", "nothing"),
        ("ssm:ca", answers({"Parameter": {"Value": "x" * 8193}}), "ca-unreadable", "8193 bytes"),
        ("ssm:ca", answers({"Parameter": None}), "ca-unreadable", "nothing"),
        ("ssm:ca", answers({}), "ca-unreadable", "nothing"),
        ("secretsmanager:ca", answers({"SecretString": "x" * 65537}), "ca-unreadable", "65537 bytes"),
        ("secretsmanager:ca", answers({"SecretString": ["hunter2"]}), "ca-unreadable", "nothing"),
        ("secretsmanager:ca", answers({"SecretBinary": "h"}), "ca-unreadable", "nothing"),
        ("secretsmanager:ca", answers({"SecretString": "hunter2"}), "ca-not-a-certificate", "without a BEGIN"),
        ("secretsmanager:ca", answers({"SecretBinary": "MIIBIjANBg=="}), "ca-not-a-certificate", "binary (DER)"),
        ("secretsmanager:ca#pem", answers({"SecretString": "hunter2"}), "ca-unreadable", "not JSON"),
        ("secretsmanager:ca#pem", answers({"SecretString": '["hunter2"]'}), "ca-unreadable", "without a text at the key pem"),
        ("secretsmanager:ca#pem", answers({"SecretString": '{"a":"hunter2"}'}), "ca-unreadable", "without a text at the key pem"),
        ("secretsmanager:ca#pem", answers({"SecretString": '{"pem":{"a":1}}'}), "ca-unreadable", "without a text at the key pem"),
        ("secretsmanager:ca#pem", answers({"SecretString": "[" * 60000}), "ca-unreadable", "not JSON"),
        ("secretsmanager:ca", answers({"SecretString": "LS0t!"}), "ca-not-a-certificate", "base64"),
        ("secretsmanager:ca", refuses("InvalidRequestException", "marked for deletion"), "ca-unreadable", "marked for deletion"),
        ("s3://bucket/ca", says("<Error><Code>InvalidObjectState</Code></Error>", 403), "ca-unreadable", "InvalidObjectState"),
    ],
)  # fmt: skip
def test_content_that_is_no_ca_is_refused(source: str, answer: Answer, code: str, saw: str) -> None:
    with receiver(answer) as double:
        error = refused(f"http://127.0.0.1:{double.server_port}", source)
    assert (error.code.name, error.code.exit_status) == (code, 30)
    assert saw in error.saw


_NO_KMS = (
    "User: arn:aws:sts::1:assumed-role/host/i-1 is not authorized to perform: kms:Decrypt on the resource "
    "associated with this ciphertext because no identity-based policy allows the kms:Decrypt action"
)


@pytest.mark.parametrize(
    ("source", "answer", "action"),
    [
        ("s3://bucket/ca", says("<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>", 403), "s3:GetObject"),
        ("s3://bucket/ca?versionId=1", says("<Error><Code>AccessDenied</Code></Error>", 403), "s3:GetObjectVersion"),
        ("s3://bucket/ca", says(f"<Error><Code>AccessDenied</Code><Message>{_NO_KMS}</Message></Error>", 403), "kms:Decrypt"),
        ("ssm:ca", refuses("AccessDeniedException", "User: x is not authorized to perform: ssm:GetParameter on y"), "ssm:GetParameter"),
        ("ssm:ca", refuses("AccessDeniedException", _NO_KMS), "kms:Decrypt"),
        ("ssm:ca", refuses("InvalidKeyId", "The ciphertext refers to a customer master key that does not exist"), "kms:Decrypt"),
        ("secretsmanager:ca", refuses("AccessDeniedException", "Access to KMS is not allowed"), "kms:Decrypt"),
        ("secretsmanager:ca", refuses("DecryptionFailure", "Secrets Manager can't decrypt"), "kms:Decrypt"),
        ("secretsmanager:ca", refuses("AccessDeniedException", "User: x"), "secretsmanager:GetSecretValue"),
    ],
)  # fmt: skip
def test_a_denial_names_the_action_that_is_missing(source: str, answer: Answer, action: str) -> None:
    with receiver(answer) as double:
        error = refused(f"http://127.0.0.1:{double.server_port}", source)
    assert (error.code.name, error.code.exit_status) == ("aws-denied", 12)
    assert action in error.sentence
    assert f"allow {action} " in error.hint
    assert ("s3:ListBucket" in error.hint) == action.startswith("s3:")


def test_a_policy_for_these_actions_alone_is_enough(url: str, ca_pem: bytes) -> None:
    client(url, "s3").put_object(Bucket="cas", Key="ca.crt", Body=ca_pem)
    put_parameter(url, "/policy/ca", ca_pem.decode())
    put_secret(url, "policy", ca_pem.decode())
    sources = {"s3://cas/ca.crt": "s3:GetObject", "ssm:/policy/ca": "ssm:GetParameter",
               "secretsmanager:policy": "secretsmanager:GetSecretValue"}  # fmt: skip
    for source, action in sources.items():
        may = user_who_may(url, action)
        with enforced(url):
            assert read(url, source, **may) == ca_pem
            other = next(each for each in sources if each != source)
            assert refused(url, other, **may).code.name == "aws-denied"


@pytest.mark.parametrize(
    "answer",
    [
        says("<Error><Code>PermanentRedirect</Code></Error>", 301, x_amz_bucket_region="us-west-2"),
        says("<Error><Code>AuthorizationHeaderMalformed</Code><Region>us-west-2</Region></Error>", 400),
    ],
    ids=["301", "400"],
)
def test_a_bucket_of_another_region_is_asked_once_in_that_region(answer: Answer, ca_pem: bytes) -> None:
    with receiver(answer, says(ca_pem)) as double:
        assert read(f"http://127.0.0.1:{double.server_port}", "s3://bucket/ca") == ca_pem
        regions = [headers["Authorization"].split("/")[2] for _, headers in double.requests]
    assert regions == [REGION, "us-west-2"]
    with receiver(answer) as double:
        error = refused(f"http://127.0.0.1:{double.server_port}", "s3://bucket/ca")
        assert len(double.requests) == 2
    assert error.code.name == "aws-refused"


def test_a_region_that_is_named_is_asked_first(ca_pem: bytes) -> None:
    arn = "arn:aws:ssm:ap-south-1:123456789012:parameter/ca"
    document: dict[str, Any] = {"Parameter": {"Value": ca_pem.decode()}}
    with receiver(says(ca_pem), answers(document)) as double:
        place = f"http://127.0.0.1:{double.server_port}"
        assert read(place, "s3://bucket/ca?region=us-west-2") == ca_pem
        assert read(place, f"ssm:{arn}") == ca_pem
        heads = [headers for _, headers in double.requests]
    assert "/us-west-2/s3/" in heads[0]["Authorization"]
    assert "/ap-south-1/ssm/" in heads[1]["Authorization"]


@pytest.mark.parametrize("source", ["s3://bucket/ca", "ssm:ca", "secretsmanager:ca"])
def test_what_keeps_aws_from_being_asked_stays_its_own_code(source: str) -> None:
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    assert refused("http://127.0.0.1:9", source, **none).code.name == "aws-no-credentials"
    none = {"AWS_REGION": "", "AWS_EC2_METADATA_DISABLED": "true"}
    assert refused("http://127.0.0.1:9", source, **none).code.name == "aws-region-unknown"
