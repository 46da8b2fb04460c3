"""What IAM makes of a policy of ours: actions, resources and conditions, written from its user guide and from no code of ours.

moto judges actions alone. `RESOURCES` is what each action knows by the Service Authorization Reference (seen
2026-11-30); a resource of another form allows nothing, and IAM does not say so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_NONE = r"\*"
RESOURCES = {
    "cloudformation:SignalResource": r"arn:[a-z-]+:cloudformation:[a-z0-9-]+:(\d{12}|\*):stack/[^/]+/.+",
    "cloudhsm:DescribeBackups": _NONE,
    "cloudhsm:DescribeClusters": _NONE,
    "ec2:DescribeImages": _NONE,
    "ec2:DescribeInstances": _NONE,
    "ec2:DescribeNetworkAcls": _NONE,
    "ec2:DescribeNetworkInterfaces": _NONE,
    "ec2:DescribeRouteTables": _NONE,
    "ec2:DescribeSecurityGroups": _NONE,
    "ec2:DescribeSubnets": _NONE,
    "ec2:DescribeTransitGatewayVpcAttachments": _NONE,
    "ec2:DescribeVpcPeeringConnections": _NONE,
    "ec2:GetConsoleOutput": r"arn:[a-z-]+:ec2:[a-z0-9-]+:(\d{12}|\*):instance/.+",
    "ec2:ModifyNetworkInterfaceAttribute": r"arn:[a-z-]+:ec2:[a-z0-9-]+:(\d{12}|\*):(network-interface|security-group)/.+",
    "iam:GetRole": r"arn:[a-z-]+:iam::(\d{12}|\*):role/.+",
    "kms:Decrypt": r"arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:key/.+",
    "kms:GenerateDataKey": r"arn:[a-z-]+:kms:[a-z0-9-]+:\d{12}:key/.+",
    "s3:GetObject": r"arn:[a-z-]+:s3:::[^/*]+/.+",
    "s3:GetObjectVersion": r"arn:[a-z-]+:s3:::[^/*]+/.+",
    "s3:ListBucket": r"arn:[a-z-]+:s3:::[^/*]+",
    "s3:PutObject": r"arn:[a-z-]+:s3:::[^/*]+/.+",
    "secretsmanager:GetSecretValue": r"arn:[a-z-]+:secretsmanager:[a-z0-9-]+:(\d{12}|\*):secret:.+",
    "ssm:CreateDocument": r"arn:[a-z-]+:ssm:[a-z0-9-]+:(\d{12}|\*):document/.+",
    "ssm:DescribeInstanceInformation": _NONE,
    "ssm:GetCommandInvocation": _NONE,
    "ssm:GetDocument": r"arn:[a-z-]+:ssm:[a-z0-9-]+:(\d{12}|\*):document/.+",
    "ssm:GetParameter": r"arn:[a-z-]+:ssm:[a-z0-9-]+:(\d{12}|\*):parameter/[^/].*",
    "ssm:ListCommandInvocations": _NONE,
    "ssm:ListCommands": _NONE,
    "ssm:PutInventory": _NONE,
    "ssm:SendCommand": r"arn:[a-z-]+:(ssm|ec2):[a-z0-9-]+:(\d{12}|\*):(document|instance|managed-instance)/.+",
}


def allows(
    policy: Mapping[str, Any], action: str, resource: str = "*", context: Mapping[str, str] | None = None
) -> bool:
    """Tell whether a policy allows an action on a resource; `context` has the values of condition keys."""
    return any(
        action in each["Action"]
        and any(_is_like(pattern, resource) for pattern in each["Resource"])
        and _holds(each.get("Condition", {}), context or {})
        for each in policy["Statement"]
    )


def actions(policy: Mapping[str, Any]) -> list[str]:
    """Return the actions that a policy allows, in order."""
    return sorted(action for each in policy["Statement"] for action in each["Action"])


def misfits(policy: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return each action with a resource that it does not know, and which therefore never is allowed."""
    return [
        (action, resource)
        for each in policy["Statement"]
        for action in each["Action"]
        for resource in each["Resource"]
        if not re.fullmatch(RESOURCES[action], resource)
    ]


def _is_like(pattern: str, resource: str) -> bool:
    """Compare as IAM does: `*` is anything, `?` one character, and `${*}` the character itself."""
    parts = re.split(r"(\$\{[*?$]\}|[*?])", pattern)
    joined = "".join(
        {"*": ".*", "?": "."}.get(each, re.escape(re.sub(r"^\$\{(.)\}$", r"\1", each))) for each in parts
    )
    return re.fullmatch(joined, resource, re.DOTALL) is not None


def _holds(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    compare = {"StringEquals": lambda wanted, seen: wanted == seen, "ArnLike": _is_like}
    return all(
        any(
            compare[operator](value, context.get(key, ""))
            for value in (values if isinstance(values, list) else [values])
        )
        for operator, wanted in conditions.items()
        for key, values in wanted.items()
    )
