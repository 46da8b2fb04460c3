"""The policy for some options, judged by what IAM would allow with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.aws.operations import OPERATIONS
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.iam_policy import PURPOSES, InventoryQuestions, PolicyRequest, literal, policy_of
from tests.fakes.iam import actions, allows, misfits

REGION = "eu-central-1"
HERE = {"aws:RequestedRegion": REGION}
ELSEWHERE = {"aws:RequestedRegion": "us-east-1"}
CLUSTER = "cluster-2abcdefghij"
STACK = "arn:aws:cloudformation:eu-central-1:123456789012:stack/web/1a2b"


def policy(audience: str = "host", *, region: str | None = REGION, **options: Any) -> dict[str, Any]:
    more = {
        name: options.pop(name)
        for name in ("account", "keys", "agent", "search", "vpc", "ssm", "inventory")
        if name in options
    }
    made = policy_of(PolicyRequest(Desired(**options), audience, region, **more))
    assert misfits(made) == []
    names = [each["Sid"] for each in made["Statement"]]
    assert len(set(names)) == len(names)
    return made


def test_addresses_alone_take_no_permission() -> None:
    assert policy(hsm_ip=("10.0.1.6",), region=None) == {"Version": "2012-10-17", "Statement": []}


@pytest.mark.parametrize("audience", ["host", "operator"])
def test_a_cluster_is_described_in_its_region_alone(audience: str) -> None:
    made = policy(audience, cluster_id=CLUSTER)
    assert allows(made, "cloudhsm:DescribeClusters", "*", HERE)
    assert not allows(made, "cloudhsm:DescribeClusters", "*", ELSEWHERE)


def test_a_search_for_the_cause_goes_with_a_cluster_or_is_asked_for() -> None:
    asked = "ec2:DescribeNetworkAcls"
    made = policy(cluster_id=CLUSTER)
    assert allows(made, asked, "*", HERE)
    assert not allows(made, asked, "*", ELSEWHERE)
    assert asked in actions(policy(hsm_ip=("10.0.1.6",), search=True))
    assert "DescribePath" not in {each["Sid"] for each in policy("operator", cluster_id=CLUSTER)["Statement"]}


def test_a_group_is_attached_to_interfaces_of_the_account_or_of_a_vpc_alone() -> None:
    action, account = "ec2:ModifyNetworkInterfaceAttribute", "arn:aws:ec2:eu-central-1:123456789012"
    interface, group = f"{account}:network-interface/eni-1", f"{account}:security-group/sg-1"
    options: dict[str, Any] = {"cluster_id": CLUSTER, "attach_group": True, "account": "123456789012"}
    made = policy(**options)
    assert allows(made, action, interface)
    assert allows(made, action, group)
    assert not allows(made, action, f"{account}:instance/i-1")
    assert not allows(made, action, interface.replace("123456789012", "210987654321"))
    narrow = policy(**options, vpc="vpc-0a1b2c3d")
    assert allows(narrow, action, interface, {"ec2:Vpc": f"{account}:vpc/vpc-0a1b2c3d"})
    assert not allows(narrow, action, interface, {"ec2:Vpc": f"{account}:vpc/vpc-99999999"})
    assert "AttachGroup" not in {each["Sid"] for each in policy("operator", **options)["Statement"]}


def test_a_stack_is_signalled_and_no_other() -> None:
    made = policy(report_to=("cfn:web/Host?region=eu-central-1", "file:/report.json"), region=None)
    assert actions(made) == ["cloudformation:SignalResource"]
    assert allows(made, "cloudformation:SignalResource", STACK)
    assert not allows(made, "cloudformation:SignalResource", STACK.replace("web", "webs"))
    assert not allows(made, "cloudformation:SignalResource", STACK.replace("eu-central-1", "eu-west-1"))


def test_an_account_that_is_known_narrows_what_is_named() -> None:
    made = policy(report_to=("cfn:web/Host?region=eu-central-1",), account="123456789012")
    assert allows(made, "cloudformation:SignalResource", STACK)
    assert not allows(made, "cloudformation:SignalResource", STACK.replace("123456789012", "210987654321"))


def test_a_stack_that_is_an_arn_stays_what_it_is() -> None:
    made = policy(report_to=(f"cfn:{STACK}/Host?region=eu-central-1",))
    assert made["Statement"][0]["Resource"] == [STACK]


def test_a_roll_out_signals_from_its_hosts() -> None:
    made = policy("operator", cluster_id=CLUSTER, report_to=("cfn:web/Host?region=eu-central-1",))
    assert "cloudformation:SignalResource" not in actions(made)


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")],
)
def test_the_partition_follows_the_region(region: str, partition: str) -> None:
    made = policy(region=region, agent="s3://bucket/agent.deb")
    assert allows(made, "s3:GetObject", f"arn:{partition}:s3:::bucket/agent.deb")
    assert not allows(made, "s3:GetObject", f"arn:{partition}:s3:::bucket/other.deb")


def test_what_has_no_region_is_refused_and_never_guessed() -> None:
    with pytest.raises(AgentError) as caught:
        policy(region=None, cluster_id=CLUSTER)
    assert caught.value.code.name == "aws-region-unknown"


def of_ca(uri: str, **more: Any) -> dict[str, Any]:
    return policy(ca_cert=CaSource("aws", uri), **more)


@pytest.mark.parametrize("audience", ["host", "operator"])
def test_the_object_of_a_ca_is_read_and_no_other(audience: str) -> None:
    made = of_ca("s3://bucket/ca/*.crt", audience=audience)
    assert actions(made) == ["s3:GetObject"]
    assert allows(made, "s3:GetObject", "arn:aws:s3:::bucket/ca/*.crt")
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::bucket/ca/x.crt")
    assert actions(of_ca("s3://bucket/ca.crt?versionId=3")) == ["s3:GetObjectVersion"]
    china = of_ca("s3://bucket/ca.crt?region=cn-north-1")
    assert allows(china, "s3:GetObject", "arn:aws-cn:s3:::bucket/ca.crt")


PARAMETER = "arn:aws:ssm:eu-central-1:123456789012:parameter/hsm/ca"


@pytest.mark.parametrize(
    "name", ["/hsm/ca", "hsm/ca", "/hsm/ca:3", "/hsm/ca:prod", PARAMETER, f"{PARAMETER}:3"]
)
def test_a_parameter_is_read_in_whatever_way_it_is_named(name: str) -> None:
    made = of_ca(f"ssm:{name}")
    assert allows(made, "ssm:GetParameter", PARAMETER)
    assert not allows(made, "ssm:GetParameter", f"{PARAMETER}-other")
    assert not allows(made, "ssm:GetParameter", PARAMETER.replace("eu-central-1", "eu-west-1"))


SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:hsm/ca-a1B2c3"


@pytest.mark.parametrize("name", ["hsm/ca", "hsm/ca#certificate", SECRET, SECRET[: -len("-a1B2c3")]])
def test_a_secret_is_read_in_whatever_way_it_is_named(name: str) -> None:
    made = of_ca(f"secretsmanager:{name}")
    assert allows(made, "secretsmanager:GetSecretValue", SECRET)
    for other in ("hsm/ca-of-others-a1B2c3", "hsm/other-a1B2c3"):
        assert not allows(made, "secretsmanager:GetSecretValue", SECRET.replace("hsm/ca-a1B2c3", other))


KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab"


def test_a_key_decrypts_by_way_of_the_service_that_is_read() -> None:
    made = of_ca("ssm:/hsm/ca", keys=(KEY,))
    by_ssm, by_s3 = ({"kms:ViaService": f"{each}.eu-central-1.amazonaws.com"} for each in ("ssm", "s3"))
    assert allows(made, "kms:Decrypt", KEY, by_ssm)
    assert not allows(made, "kms:Decrypt", KEY, by_s3)
    assert not allows(made, "kms:Decrypt", KEY)
    assert not allows(made, "kms:Decrypt", KEY.replace("1234", "4321"), by_ssm)
    assert "kms:Decrypt" not in actions(of_ca("ssm:/hsm/ca"))
    assert policy(hsm_ip=("10.0.1.6",), keys=(KEY,))["Statement"] == []


@pytest.mark.parametrize("audience", ["host", "operator"])
def test_packages_are_read_below_their_prefix(audience: str) -> None:
    made = policy(audience, package_source="s3://bucket/mirror")
    assert actions(made) == ["s3:GetObject"]
    assert allows(made, "s3:GetObject", "arn:aws:s3:::bucket/mirror/Noble/cli.deb")
    for other in ("bucket/mirrors/cli.deb", "bucket/other", "buckets/mirror/cli.deb"):
        assert not allows(made, "s3:GetObject", f"arn:aws:s3:::{other}")


def test_reports_are_written_by_hosts_and_read_by_an_operator() -> None:
    places = ("s3://bucket/reports/", "s3://other/", "ssm-inventory:")
    made = policy(report_to=places, keys=(KEY,))
    assert actions(made) == ["kms:GenerateDataKey", "s3:PutObject", "ssm:PutInventory"]
    for key in (
        "bucket/reports/web-1.json",
        "bucket/reports/history/2026-11-30/web-1.json",
        "other/web-1.json",
    ):
        assert allows(made, "s3:PutObject", f"arn:aws:s3:::{key}")
    assert not allows(made, "s3:PutObject", "arn:aws:s3:::bucket/other.json")
    assert allows(made, "ssm:PutInventory", "*", HERE)
    assert not allows(made, "ssm:PutInventory", "*", ELSEWHERE)
    made = policy("operator", report_to=places, keys=(KEY,))
    assert actions(made) == ["kms:Decrypt", "s3:GetObject", "s3:ListBucket"]
    assert allows(made, "s3:GetObject", "arn:aws:s3:::bucket/reports/web-1.json")
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::bucket/other.json")
    listed = next(each for each in made["Statement"] if each["Sid"] == "ListReports")
    assert listed["Resource"] == ["arn:aws:s3:::bucket", "arn:aws:s3:::other"]
    assert listed["Condition"] == {"StringEquals": {"s3:prefix": ["", "reports/"]}}


def test_an_operator_sees_the_surroundings_of_a_cluster() -> None:
    made = policy("operator", cluster_id=CLUSTER, account="123456789012")
    role = "role/aws-service-role/cloudhsm.amazonaws.com/AWSServiceRoleForCloudHSM"
    assert allows(made, "iam:GetRole", f"arn:aws:iam::123456789012:{role}")
    assert not allows(made, "iam:GetRole", "arn:aws:iam::123456789012:role/other")
    assert allows(made, "ec2:DescribeInstances", "*", HERE)
    assert not allows(made, "ec2:DescribeInstances", "*", ELSEWHERE)


def test_an_agent_from_elsewhere_takes_no_permission() -> None:
    assert policy(region=None, agent="https://mirror.example/agent.deb")["Statement"] == []


def test_an_inventory_of_ec2_is_asked_in_its_regions_alone() -> None:
    regions = ("eu-central-1", "eu-west-1")
    made = policy("operator", inventory=InventoryQuestions(regions, images=False, consoles=True))
    assert "ec2:DescribeImages" not in actions(made)
    for region, is_allowed in (("eu-west-1", True), ("us-east-1", False)):
        where = {"aws:RequestedRegion": region}
        assert allows(made, "ec2:DescribeInstances", "*", where) is is_allowed
        console = f"arn:aws:ec2:{region}:123456789012:instance/i-0123456789abcdef0"
        assert allows(made, "ec2:GetConsoleOutput", console) is is_allowed
    assert policy("host", inventory=InventoryQuestions())["Statement"] == []


@pytest.mark.parametrize("text", ["a*b", "a?b", "$", "${aws:username}", "a b"])
def test_what_a_name_holds_is_no_wildcard_and_no_variable(text: str) -> None:
    made = policy(agent=f"s3://bucket/{text}")
    assert allows(made, "s3:GetObject", f"arn:aws:s3:::bucket/{text}")
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::bucket/axb")
    assert literal("plain/key-1.crt") == "plain/key-1.crt"


def test_whatever_the_client_asks_is_allowed_by_some_policy() -> None:
    """A new operation has a purpose, or nobody can write the policy for it."""
    reports = ("cfn:web/Host?region=eu-central-1", "s3://bucket/reports/", "ssm-inventory:")
    made = [
        policy(who, cluster_id=CLUSTER, attach_group=True, report_to=reports) for who in ("host", "operator")
    ]
    sources = ("s3://bucket/ca.crt", "s3://bucket/ca.crt?versionId=3", "ssm:/hsm/ca", "secretsmanager:hsm/ca")
    made += [of_ca(each) for each in sources]
    made.append(policy("operator", ssm=True))
    made.append(policy("operator", inventory=InventoryQuestions(clusters=True, consoles=True)))
    allowed = {action for each in made for action in actions(each)}
    assert {each.permission for each in OPERATIONS} - allowed == set()


def test_the_manual_has_a_row_for_each_purpose() -> None:
    page = (Path(__file__).parents[2] / "agent" / "docs" / "permissions.md").read_text(encoding="utf-8")
    assert all(purpose.sid.isalnum() for purpose in PURPOSES)
    assert [purpose.sid for purpose in PURPOSES if f"| `{purpose.sid}` |" not in page] == []
