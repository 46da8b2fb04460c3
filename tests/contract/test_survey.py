"""The surroundings of a cluster, asked for at the same time: what each question is worth when others fail."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.aws.access import AwsAccess
from agent.aws.survey import survey
from tests.fakes.aws import KEYS, RealTime, refuses, says
from tests.fakes.receiver import receiver

if TYPE_CHECKING:
    from agent.aws.inventory import VpcSurvey
    from tests.fakes.receiver import Exchange, Receiver

REGION = "eu-central-1"
QUESTIONS = {
    "ec2:DescribeInstances",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeNetworkAcls",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSubnets",
    "ec2:DescribeNetworkInterfaces",
    "cloudhsm:DescribeBackups",
    "iam:GetRole",
}


def ask(server: Receiver) -> VpcSurvey:
    access = AwsAccess(RealTime(), {**KEYS, "AWS_ENDPOINT_URL": server.origin}, REGION)
    return survey(access, "cluster-2abcdefghij", "vpc-1", "sg-1", role=True)


def test_all_questions_are_asked_at_the_same_time() -> None:
    everybody = threading.Barrier(len(QUESTIONS))

    def refuse(exchange: Exchange) -> None:
        """Answer nobody before all have asked."""
        everybody.wait(timeout=4)
        refuses("AccessDeniedException", "No.")(exchange)

    with receiver(refuse) as server:
        found = ask(server)
    assert {(each.permission, each.code) for each in found.unanswered} == {
        (each, "aws-denied") for each in QUESTIONS
    }


def test_an_answer_that_lacks_what_it_must_have_is_no_answer() -> None:
    def answer(exchange: Exchange) -> None:
        """Describe one thing without its id, whatever is asked for."""
        action = exchange.document.decode().partition("Action=Describe")[2].partition("&")[0]
        place = {"Instances": "reservationSet", "NetworkInterfaces": "networkInterfaceSet"}.get(action)
        if place is None:
            refuses("AccessDeniedException", "No.")(exchange)
            return
        item = (
            "<instancesSet><item><tagSet/></item></instancesSet>"
            if action == "Instances"
            else "<vpcId>v</vpcId>"
        )
        body = f"<{place}><item>{item}</item></{place}>"
        says(f"<Describe{action}Response>{body}<requestId>1</requestId></Describe{action}Response>")(exchange)

    with receiver(answer) as server:
        found = ask(server)
    assert (found.instances, found.others) == (None, None)
    lacking = {each.permission: each.saw for each in found.unanswered if each.code == "aws-unreachable"}
    assert lacking == {"ec2:DescribeInstances": "KeyError: 'instanceId'"}
