"""Asks AWS about the surroundings of a cluster: who is in its VPC and its group, what joins them, backups, its role.

All questions are asked at the same time, so that the slowest answer is waited for and not their sum. Each answer stands
alone: what AWS denies is named, and the rest counts all the same.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.aws import operations
from agent.aws.client import AwsRefusedError
from agent.aws.endpoints import partition_of
from agent.aws.inventory import (
    UnansweredQuestion,
    VpcSurvey,
    newest_backup,
    read_instances,
    read_other_interfaces,
)
from agent.aws.network import Network, read_acls, read_groups, read_subnets, read_tables
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.aws.access import AwsAccess
    from agent.aws.client import AwsClient
    from agent.aws.operations import Operation

# Terminated instances are described for an hour.
_ALIVE = ("pending", "running", "stopping", "stopped", "shutting-down")
# IAM is one service for a whole partition, signed for this region; elsewhere there is no CloudHSM.
_IAM_REGIONS = {"aws": "us-east-1", "aws-us-gov": "us-gov-west-1"}
ROLE = "AWSServiceRoleForCloudHSM"
# A thread for each of the questions below. EC2 answers a hundred Describe calls at once before it throttles.
_AT_ONCE = 8


def describe_clusters(client: AwsClient, cluster_id: str | None) -> list[Mapping[str, Any]]:
    """Return the answers about one cluster, or about all of the region. Raises AgentError of exit status 12."""
    wanted = {"Filters": {"clusterIds": [cluster_id]}} if cluster_id else {}
    return list(client.pages(operations.DESCRIBE_CLUSTERS, wanted))


@dataclass(frozen=True)
class _Question:
    """A question to AWS; `ask` returns what its answer means."""

    operation: Operation
    ask: Callable[[], Any]


def survey(access: AwsAccess, cluster_id: str, vpc: str, group: str, *, role: bool) -> VpcSurvey:
    """Return what AWS says about a cluster's surroundings; `role`: ask IAM for the service-linked role too.

    The client of `access` must have asked something before: then its credentials are found and its clock is right, and
    its threads need not agree on either.
    """
    client = access.client
    in_vpc, in_group = {"vpc-id": [vpc]}, {"group-id": [group]}
    alive = {**in_vpc, "instance-state-name": list(_ALIVE)}
    of_cluster = {"Filters": {"clusterIds": [cluster_id]}, "MaxResults": 50, "SortAscending": False}
    questions = {}
    if vpc:
        questions = {
            "instances": _pages(client, operations.DESCRIBE_INSTANCES, alive, read_instances),
            "groups": _pages(client, operations.DESCRIBE_SECURITY_GROUPS, in_vpc, read_groups),
            "acls": _pages(client, operations.DESCRIBE_NETWORK_ACLS, in_vpc, read_acls),
            "tables": _pages(client, operations.DESCRIBE_ROUTE_TABLES, in_vpc, read_tables),
            "subnets": _pages(client, operations.DESCRIBE_SUBNETS, in_vpc, read_subnets),
        }
    if group:
        others = operations.DESCRIBE_NETWORK_INTERFACES
        questions["others"] = _pages(client, others, in_group, read_other_interfaces)
    backups = operations.DESCRIBE_BACKUPS
    questions["backup"] = _Question(backups, lambda: newest_backup(client.call(backups, of_cluster)))
    region = _IAM_REGIONS.get(partition_of(client.session.region).name)
    if role and region is not None:
        iam = access.client_in(region)
        questions["role"] = _Question(operations.GET_ROLE, lambda: _has_role(iam))
    found = dict(zip(questions, _ask_together(tuple(questions.values()))))
    unanswered = [each for each in found.values() if isinstance(each, UnansweredQuestion)]
    answers = {name: each for name, each in found.items() if each not in unanswered}
    return VpcSurvey(
        answers.get("instances"),
        answers.get("others"),
        Network(
            groups=answers.get("groups"),
            acls=answers.get("acls"),
            tables=answers.get("tables"),
            subnets=answers.get("subnets", ()),
        ),
        backup=answers.get("backup"),
        has_service_role=answers.get("role"),
        unanswered=_once_for_each_service(unanswered),
    )


def _pages(
    client: AwsClient,
    operation: Operation,
    filters: Mapping[str, list[str]],
    read: Callable[[Iterable[Mapping[str, Any]]], Any],
) -> _Question:
    """Return the question for all pages of an operation of EC2."""
    params = {"Filter": [{"Name": name, "Value": values} for name, values in filters.items()]}
    return _Question(operation, lambda: client.read(operation, params, read))


def _has_role(iam: AwsClient) -> bool:
    """Tell whether the account has the role with which CloudHSM writes audit logs."""
    try:
        return bool(iam.call(operations.GET_ROLE, {"RoleName": ROLE}))
    except AwsRefusedError as error:
        if error.refusal.code != "NoSuchEntity":
            raise
        return False


def _ask_together(questions: Sequence[_Question]) -> list[Any]:
    """Return what was made of each answer, an UnansweredQuestion where there is none. Raises what ends the run."""
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="hsm-agent-survey") as pool:
        return list(pool.map(_answer, questions))


def _answer(question: _Question) -> Any:
    try:
        return question.ask()
    except AgentError as error:
        if error.ends_run:
            raise
        return UnansweredQuestion(question.operation.permission, error.code.name, error.saw, error.hint or "")


def _once_for_each_service(unanswered: Sequence[UnansweredQuestion]) -> tuple[UnansweredQuestion, ...]:
    """Return the questions without an answer, of a service that is not reached the first one alone."""
    kept: dict[tuple[str, str], UnansweredQuestion] = {}
    for each in unanswered:
        service = each.permission.partition(":")[0]
        kept.setdefault((each.code, service if each.code == "aws-unreachable" else each.permission), each)
    return tuple(kept.values())
