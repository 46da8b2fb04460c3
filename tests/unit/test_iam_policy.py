"""The policy for some options, judged by what IAM would allow with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.config.desired import Desired
from agent.core.errors import AgentError
from agent.iam_policy import PURPOSES, PolicyRequest, literal, policy_of
from tests.fakes.iam import actions, allows, misfits

REGION = "eu-central-1"
HERE = {"aws:RequestedRegion": REGION}
ELSEWHERE = {"aws:RequestedRegion": "us-east-1"}
CLUSTER = "cluster-2abcdefghij"
STACK = "arn:aws:cloudformation:eu-central-1:123456789012:stack/web/1a2b"


def policy(audience: str = "host", *, region: str | None = REGION, **options: Any) -> dict[str, Any]:
    more = {name: options.pop(name) for name in ("account", "keys", "agent") if name in options}
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
    assert actions(made) == ["cloudhsm:DescribeClusters"]


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


def test_an_agent_from_elsewhere_takes_no_permission() -> None:
    assert policy(region=None, agent="https://mirror.example/agent.deb")["Statement"] == []


@pytest.mark.parametrize("text", ["a*b", "a?b", "$", "${aws:username}", "a b"])
def test_what_a_name_holds_is_no_wildcard_and_no_variable(text: str) -> None:
    made = policy(agent=f"s3://bucket/{text}")
    assert allows(made, "s3:GetObject", f"arn:aws:s3:::bucket/{text}")
    assert not allows(made, "s3:GetObject", "arn:aws:s3:::bucket/axb")
    assert literal("plain/key-1.crt") == "plain/key-1.crt"


def test_the_manual_has_a_row_for_each_purpose() -> None:
    page = (Path(__file__).parents[2] / "agent" / "docs" / "permissions.md").read_text(encoding="utf-8")
    assert all(purpose.sid.isalnum() for purpose in PURPOSES)
    assert [purpose.sid for purpose in PURPOSES if f"| `{purpose.sid}` |" not in page] == []
