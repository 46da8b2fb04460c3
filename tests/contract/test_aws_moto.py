"""The client of AWS's API against moto, an implementation that is not ours and checks signatures and policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.aws import operations
from agent.aws.client import AwsClient, AwsRefusedError
from agent.aws.operations import OPERATIONS, Operation
from agent.aws.session import open_session
from agent.core.errors import AgentError
from tests.fakes.aws import KEYS, SECRET, RealTime
from tests.fakes.aws_cluster import seed_aws_cluster
from tests.fakes.moto_server import CLUSTER, REGION, aws_server, client, policy, user_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.aws_server import AwsServer


@pytest.fixture(scope="module")
def server() -> Iterator[AwsServer]:
    with aws_server() as place:
        yield place


@pytest.fixture(scope="module")
def url(server: AwsServer) -> str:
    return server.url


def ours(url: str, **environ: str) -> AwsClient:
    return AwsClient(open_session(RealTime(), {**KEYS, "AWS_ENDPOINT_URL": url, **environ}, REGION))


def test_a_cluster_is_described_as_botocore_sees_it(url: str) -> None:
    seeded = seed_aws_cluster(url)
    wanted = {"Filters": {"clusterIds": [CLUSTER]}}
    (page,) = ours(url).pages(operations.DESCRIBE_CLUSTERS, wanted)
    theirs = client(url, "cloudhsmv2").describe_clusters(**wanted)
    (cluster,), (their_cluster,) = page["Clusters"], theirs["Clusters"]
    assert cluster["Hsms"] == their_cluster["Hsms"]
    assert cluster["SecurityGroup"] == their_cluster["SecurityGroup"] == seeded.group


@pytest.mark.parametrize(
    "operation",
    [each for each in OPERATIONS if each.service is operations.EC2 and each.name.startswith("Describe")],
    ids=lambda each: each.name,
)
def test_ec2_is_described_as_botocore_sees_it(url: str, operation: Operation) -> None:
    ec2 = client(url, "ec2")
    method = "".join(f"_{each.lower()}" if each.isupper() else each for each in operation.name).lstrip("_")
    theirs = getattr(ec2, method)()
    theirs.pop("ResponseMetadata")
    (items,) = (value for value in theirs.values() if isinstance(value, list))
    found: list[Any] = []
    for page in ours(url).pages(operation, {}):
        found += next(value for value in page.values() if isinstance(value, list)) if items else []
    assert len(found) == len(items)


def test_a_filter_reaches_ec2(url: str) -> None:
    ec2 = client(url, "ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    params = {"Filter": [{"Name": "vpc-id", "Value": [vpc]}]}
    (page,) = ours(url).pages(operations.DESCRIBE_SECURITY_GROUPS, params)
    (group,) = page["securityGroupInfo"]
    assert (group["vpcId"], group["groupName"]) == (vpc, "default")


def test_what_may_hold_a_ca_is_read(url: str) -> None:
    client(url, "ssm").put_parameter(Name="/hsm/ca", Value="PEM ü", Type="SecureString")
    found = ours(url).call(operations.GET_PARAMETER, {"Name": "/hsm/ca", "WithDecryption": True})
    assert found["Parameter"]["Value"] == "PEM ü"
    client(url, "secretsmanager").create_secret(Name="ca", SecretString="PEM")
    assert ours(url).call(operations.GET_SECRET_VALUE, {"SecretId": "ca"})["SecretString"] == "PEM"
    s3 = client(url, "s3")
    s3.create_bucket(Bucket="my.bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="my.bucket", Key="a b+c/ca.crt", Body=b"PEM")
    asked = {"Bucket": "my.bucket", "Key": "a b+c/ca.crt"}
    assert ours(url).call(operations.GET_OBJECT, asked)["Body"] == b"PEM"


@pytest.mark.parametrize(
    ("operation", "params", "code"),
    [
        (operations.GET_PARAMETER, {"Name": "/none"}, "ParameterNotFound"),
        (operations.GET_SECRET_VALUE, {"SecretId": "none"}, "ResourceNotFoundException"),
        (operations.GET_OBJECT, {"Bucket": "no-such-bucket", "Key": "x"}, "NoSuchBucket"),
    ],
)
def test_what_is_not_there_is_named_by_aws_s_code(
    url: str, operation: Operation, params: dict[str, str], code: str
) -> None:
    with pytest.raises(AwsRefusedError) as caught:
        ours(url).call(operation, params)
    assert caught.value.refusal.code == code


def test_signatures_and_policies_hold(server: AwsServer, url: str) -> None:
    seed_aws_cluster(url)
    allowed = user_with(url, policy("cloudhsm:DescribeClusters", "s3:GetObject"))
    s3 = client(url, "s3")
    s3.create_bucket(Bucket="signed", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="signed", Key="a b+ü.crt", Body=b"PEM")
    with server.enforcing():
        assert ours(url, **allowed).call(operations.DESCRIBE_CLUSTERS, {})["Clusters"]
        found = ours(url, **allowed).call(operations.GET_OBJECT, {"Bucket": "signed", "Key": "a b+ü.crt"})
        assert found["Body"] == b"PEM"
        for operation in (operations.DESCRIBE_SUBNETS, operations.GET_PARAMETER):
            with pytest.raises(AgentError) as caught:
                ours(url, **allowed).call(operation, {"Name": "/x"} if operation.page == 0 else {})
            assert caught.value.code.name == "aws-denied"
            assert operation.permission in caught.value.sentence
        with pytest.raises(AgentError) as caught:
            ours(url, **{**allowed, "AWS_SECRET_ACCESS_KEY": SECRET}).call(operations.DESCRIBE_CLUSTERS, {})
        assert caught.value.code.name == "aws-no-credentials"
