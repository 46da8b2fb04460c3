"""What `s3:`, `ssm:` and `secretsmanager:` may name, and what is refused with a complaint."""

from __future__ import annotations

import json

import pytest

from agent.config.desired import Desired, from_json, to_json
from agent.config.input_errors import InputErrors
from agent.config.options import CaSource
from agent.config.readers import read_flags
from agent.core.aws_names import Parameter, S3Location, Secret, name_of, s3_prefix, with_region

PARAMETER_ARN = "arn:aws:ssm:eu-west-1:123456789012:parameter/hsm/ca"
SECRET_ARN = "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:hsm/ca-AbCdEf"


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://my.bucket/ca.crt", S3Location("my.bucket", "ca.crt")),
        ("s3://bucket/a b/c+d.crt?versionId=v.1_2-3", S3Location("bucket", "a b/c+d.crt", "v.1_2-3")),
        ("s3://bucket/ca?region=eu-west-1&versionId=null", S3Location("bucket", "ca", "null", "eu-west-1")),
        ("ssm:ca", Parameter("ca")),
        ("ssm:/hsm/prod/ca:3", Parameter("/hsm/prod/ca:3")),
        ("ssm:/hsm/ca:approved", Parameter("/hsm/ca:approved")),
        (f"ssm:{PARAMETER_ARN}", Parameter(PARAMETER_ARN, "eu-west-1")),
        (f"ssm:{PARAMETER_ARN}:7", Parameter(f"{PARAMETER_ARN}:7", "eu-west-1")),
        ("secretsmanager:hsm/ca", Secret("hsm/ca")),
        ("secretsmanager:hsm/ca#customer CA#1", Secret("hsm/ca", "customer CA#1")),
        (f"secretsmanager:{SECRET_ARN}", Secret(SECRET_ARN, None, "us-gov-west-1")),
        (f"secretsmanager:{SECRET_ARN}#ca", Secret(SECRET_ARN, "ca", "us-gov-west-1")),
    ],
)
def test_a_source_in_aws_is_read_and_recorded_as_it_was_written(
    uri: str, name: S3Location | Parameter | Secret
) -> None:
    assert name_of(uri) == name
    input_errors = InputErrors()
    given = read_flags({"ca_cert": uri}, input_errors)
    assert given == {"ca_cert": CaSource("aws", uri)}
    assert from_json(json.loads(json.dumps(to_json(Desired(**given))))) == Desired(**given)


def test_a_scheme_in_capitals_is_the_same_scheme() -> None:
    given = read_flags({"ca_cert": "SSM:Ca"}, InputErrors())
    assert given["ca_cert"] == CaSource.of("ssm:Ca") == CaSource("aws", "ssm:Ca")


def test_a_file_with_such_a_name_stays_a_file() -> None:
    source = read_flags({"ca_cert": "file:ssm:ca"}, InputErrors())["ca_cert"]
    assert (source.kind, source.value, CaSource.of(source.text)) == ("file", "ssm:ca", source)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://b/ca.crt", "names no bucket"),
        ("s3:bucket/ca.crt", "names no bucket"),
        ("s3://Bucket/ca.crt", "names no bucket"),
        ("s3://bucket", "names no object"),
        ("s3://bucket/folder/", "names no object"),
        ("s3://bucket/ca?versionid=1", "versionId= or region= is wanted"),
        ("s3://bucket/ca?versionId=", "versionId= or region= is wanted"),
        ("s3://bucket/ca?region=evil.example", "versionId= or region= is wanted"),
        ("s3://bucket/" + "ü" * 513, "at most 1024 bytes"),
        ("s3://bucket/a\nb", "control characters"),
        ("ssm:", "names no parameter"),
        ("ssm:a:b:c", "names no parameter"),
        ("ssm:arn:aws:ssm:eu-west-1:1:parameter/x", "names no parameter"),
        ("secretsmanager:", "names no secret"),
        ("secretsmanager:a#", "names no secret"),
        ("secretsmanager:a b", "names no secret"),
        ("gs://bucket/ca", "s3:, ssm: or secretsmanager:"),
    ],
)
def test_what_names_nothing_in_aws_is_refused_with_what_would(uri: str, said: str) -> None:
    input_errors = InputErrors()
    assert read_flags({"ca_cert": uri}, input_errors) == {}
    assert said in input_errors.texts[0]


def test_a_prefix_is_a_folder_and_knows_its_region() -> None:
    assert s3_prefix("s3://bucket") == S3Location("bucket", "")
    assert s3_prefix("s3://bucket/a/b/").below("x.rpm") == "a/b/x.rpm"
    assert S3Location("bucket", "").below("x.rpm") == "x.rpm"
    with pytest.raises(ValueError, match="region= is wanted"):
        s3_prefix("s3://bucket/a?versionId=1")
    named = with_region("s3://bucket/a", "eu-west-1")
    assert s3_prefix(named) == S3Location("bucket", "a", region="eu-west-1")
    assert with_region(named, "us-east-1") == named
    assert with_region("s3://bucket/a", None) == "s3://bucket/a"
    assert with_region("https://mirror/a", "eu-west-1") == "https://mirror/a"
