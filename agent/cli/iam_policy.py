"""`hsm-agent iam-policy`: print the least IAM policy for some options."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Annotated, Any, List, Optional

import typer

from agent.cli.options import PROFILE, Config, with_options
from agent.cli.terminal import print_result
from agent.config.desired import resolve
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS
from agent.config.sources import read_sources
from agent.core.aws_names import name_of
from agent.core.urls import scheme_of
from agent.fleet.run_spec import VIA
from agent.hosts.local import local_host
from agent.iam_policy import ANY, AUDIENCES, HOST, KEY_ARN, InventoryQuestions, PolicyRequest, policy_of
from agent.render.output import print_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView

For = Annotated[
    str,
    typer.Option(
        "--for",
        metavar="|".join(AUDIENCES),
        help="who asks AWS: a host (configure, verify), or who types fleet and cluster",
    ),
]
Account = Annotated[
    Optional[str], typer.Option(metavar="ID", help="the AWS account of what is named; default: any (*)")
]
KmsKey = Annotated[
    Optional[List[str]],
    typer.Option(metavar="ARN", help="a KMS key of yours with which a CA or a package is encrypted"),
]
Agent = Annotated[
    Optional[str], typer.Option(metavar="SOURCE", help="the --agent of user-data: s3://BUCKET/KEY counts")
]
Search = Annotated[
    bool,
    typer.Option(
        "--search", help="without --cluster-id, also find why an HSM is not reached (ec2:Describe…)"
    ),
]
Vpc = Annotated[
    Optional[str],
    typer.Option(metavar="ID", help="the cluster's VPC, in which --attach-group may change interfaces"),
]
Inventory = Annotated[
    Optional[str],
    typer.Option(
        metavar="FILE|ec2:TERMS",
        help="with --for operator: the inventory of a fleet; what it asks EC2 counts",
    ),
]
TrustConsole = Annotated[
    bool, typer.Option("--trust-console", help="with --inventory: its host keys are read from consoles")
]
Via = Annotated[
    str,
    typer.Option(metavar="|".join(VIA), help="how an operator's fleet reaches hosts: ssm needs permissions"),
]
Profile = Annotated[
    Optional[str], typer.Option(PROFILE.switch, metavar=PROFILE.metavar, help="its region counts")
]


def _iam_policy(
    *,
    given: Mapping[str, Any],
    audience: For = HOST,
    account: Account = None,
    kms_key: KmsKey = None,
    agent: Agent = None,
    search: Search = False,
    vpc: Vpc = None,
    inventory: Inventory = None,
    trust_console: TrustConsole = False,
    via: Via = "ssh",
    profile: Profile = None,
    config: Config = None,
) -> None:
    """Print the least IAM policy for these options, as JSON.

    The options are those of configure. AWS is not asked. Without an option that asks AWS the policy has no statement.
    """
    machine = local_host()
    input_errors = InputErrors()
    said = read_sources(machine, given, config, input_errors)
    if audience not in AUDIENCES:
        input_errors.add("--for", f"{audience!r} is not one of {', '.join(AUDIENCES)}")
    if via not in VIA:
        input_errors.add("--via", f"{via!r} is not one of {', '.join(VIA)}")
    if account is not None and not re.fullmatch(r"\d{12}", account):
        input_errors.add("--account", f"{account!r} is not a number of 12 digits")
    if vpc is not None and not re.fullmatch(r"vpc-[0-9a-f]{8,17}", vpc):
        input_errors.add("--vpc", f"{vpc!r} is not an id such as vpc-0123456789abcdef0")
    for key in kms_key or ():
        if not KEY_ARN.fullmatch(key):
            input_errors.add("--kms-key", f"{key!r} is not arn:aws:kms:REGION:ACCOUNT:key/ID")
    if agent is not None and scheme_of(agent) == "s3":
        try:
            name_of(agent)
        except ValueError as error:
            input_errors.add("--agent", str(error))
    questions = _questions(machine, inventory, input_errors, consoles=trust_console)
    desired = resolve(said, input_errors)
    region = desired.region or _region(machine, profile)
    request = PolicyRequest(
        desired,
        audience,
        region,
        account or ANY,
        tuple(kms_key or ()),
        agent or "",
        search,
        vpc or "",
        questions,
        via == "ssm",
    )
    policy = policy_of(request)
    if not policy["Statement"]:
        print_error(
            "note: these options need no permission of AWS, and IAM takes no policy without a statement\n"
        )
    print_result(json.dumps(policy, indent=2) + "\n")


def _questions(
    machine: HostView, inventory: str | None, input_errors: InputErrors, *, consoles: bool
) -> InventoryQuestions | None:
    """Return what an inventory asks EC2, None where it has its hosts itself."""
    if inventory is None:
        return None
    from agent.fleet.inventory import selection  # noqa: PLC0415 -- only for a fleet

    found = selection(machine, inventory, input_errors)
    if found is None:
        return None
    return InventoryQuestions(found.regions, bool(found.clusters), found.user is None, consoles)


def _region(machine: HostView, profile: str | None) -> str | None:
    """Return the region of the environment, else of the profile that is named; the metadata service is not asked."""
    from agent.aws.session import REGIONS  # noqa: PLC0415 -- 30 ms, where no option names a region

    named = next((os.environ[name] for name in REGIONS if os.environ.get(name)), None)
    if named is not None or profile is None:
        return named
    from agent.aws.operator import OperatorCredentials  # noqa: PLC0415 -- as above

    return OperatorCredentials(machine, os.environ, profile).region()


iam_policy = with_options(_iam_policy, given=OPTIONS)
