"""The desired state -> the least IAM policy for whoever asks AWS for it, by a table of purposes.

Each action is that of a row of `agent.aws.operations`, so that a policy says what the client asks. Pure: AWS is not
asked, and what only AWS knows (the account, the id of a group) is a `*` unless it is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

from agent.aws import instance_search, operations, path_questions
from agent.aws.endpoints import partition_of
from agent.core.aws_names import Parameter, S3Location, name_of, s3_prefix
from agent.core.errors import AgentError
from agent.sinks import cloudformation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.aws.operations import Operation
    from agent.config.desired import Desired
    from agent.core.aws_names import Secret

SURROUNDINGS = (
    operations.DESCRIBE_BACKUPS,
    operations.DESCRIBE_INSTANCES,
    operations.DESCRIBE_NETWORK_ACLS,
    operations.DESCRIBE_NETWORK_INTERFACES,
    operations.DESCRIBE_ROUTE_TABLES,
    operations.DESCRIBE_SECURITY_GROUPS,
    operations.DESCRIBE_SUBNETS,
)
FOLLOWED = (
    operations.DESCRIBE_INSTANCE_INFORMATION,
    operations.GET_COMMAND_INVOCATION,
    operations.LIST_COMMAND_INVOCATIONS,
    operations.LIST_COMMANDS,
)
SERVICE_ROLE = "AWSServiceRoleForCloudHSM"
HOST, OPERATOR = "host", "operator"
AUDIENCES = (HOST, OPERATOR)
ANY = "*"
KEY_ARN = re.compile(r"arn:[a-z-]+:kms:([a-z0-9-]+):\d{12}:key/[A-Za-z0-9-]+")
# Secrets Manager adds a hyphen and six characters to a name, which nobody knows who has the name alone.
_UNKNOWN_END = "-??????"
_WHOLE_SECRET = re.compile(r".+-[A-Za-z0-9]{6}")


@dataclass(frozen=True)
class InventoryQuestions:
    """What an inventory of EC2 asks. `regions` are those that it names; `images`: who logs in to an image is asked."""

    regions: tuple[str, ...] = ()
    clusters: bool = False
    images: bool = True
    consoles: bool = False


@dataclass(frozen=True)
class PolicyRequest:
    """For whom a policy is made and what they are to do.

    `account` is a number or `*`, `keys` are ARNs of KMS keys with which what is read is encrypted, `agent` is where
    user-data gets hsm-agent (s3:// or anything else), `region` is None where nothing names one. `search`: find why an
    HSM is not reached without a cluster's id too. `vpc`: where interfaces may be changed, any if it is empty.
    `inventory` is what the inventory of a fleet asks, None where it asks nothing.
    `ssm`: the operator reaches hosts by Systems Manager.
    """

    desired: Desired
    audience: str
    region: str | None = None
    account: str = ANY
    keys: tuple[str, ...] = ()
    agent: str = ""
    search: bool = False
    vpc: str = ""
    inventory: InventoryQuestions | None = None
    ssm: bool = False

    def region_or(self, own: str) -> str:
        """Return the region that a name has of its own, else the general one. Raises `aws-region-unknown`."""
        if own or self.region:
            return own or str(self.region)
        raise AgentError(
            "aws-region-unknown",
            "a policy names its region, and none is given",
            saw="neither --region nor AWS_REGION nor AWS_DEFAULT_REGION",
            want="a region such as eu-central-1",
            hint="--region REGION: the partition (aws, aws-cn, aws-us-gov) is known by it too",
        )

    def arn(self, service: str, resource: str, region: str = "") -> str:
        """Return the ARN of something in an account and a region."""
        where = self.region_or(region)
        return f"arn:{partition_of(where).name}:{service}:{where}:{self.account}:{resource}"

    def object_arn(self, bucket: str, key: str, region: str = "") -> str:
        """Return the ARN of an object; a bucket's name has neither region nor account."""
        return f"arn:{partition_of(self.region_or(region)).name}:s3:::{bucket}/{key}"


@dataclass(frozen=True)
class Grant:
    """Actions on resources, under conditions as IAM has them: operator -> key -> value."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def statement(self, sid: str) -> dict[str, Any]:
        """Return it as IAM has it."""
        return {
            "Sid": sid,
            "Effect": "Allow",
            "Action": sorted(self.actions),
            "Resource": sorted(set(self.resources)),
            **({"Condition": self.conditions} if self.conditions else {}),
        }


def policy_of(request: PolicyRequest) -> dict[str, Any]:
    """Return the policy; without a statement where AWS is not asked. Raises AgentError `aws-region-unknown`."""
    grants = (
        (purpose.sid, purpose.grant(request)) for purpose in PURPOSES if request.audience in purpose.audiences
    )
    statements = [grant.statement(sid) for sid, grant in grants if grant is not None]
    return {"Version": "2012-10-17", "Statement": statements}


def literal(text: str) -> str:
    """Return a text in which IAM finds no wildcard and no variable."""
    return re.sub(r"[*?$]", lambda found: f"${{{found[0]}}}", text)


@dataclass(frozen=True)
class Purpose:
    """A row: what AWS is asked for, by whom, and what that takes; `grant` returns None where the options need none."""

    sid: str
    audiences: tuple[str, ...]
    grant: Callable[[PolicyRequest], Grant | None]


def _described(request: PolicyRequest, *asked: Operation) -> Grant:
    """Return the grant for actions that know no resource: of IAM's conditions only the region is about them."""
    conditions = {"StringEquals": {"aws:RequestedRegion": request.region_or("")}}
    return Grant(tuple(each.permission for each in asked), (ANY,), conditions)


def _cluster(request: PolicyRequest) -> Grant | None:
    if request.desired.cluster_id is None:
        return None
    return _described(request, operations.DESCRIBE_CLUSTERS)


def _path(request: PolicyRequest) -> Grant | None:
    """What finds why an HSM is not reached; without it, a report names what it could not ask."""
    if request.desired.cluster_id is None and not request.search:
        return None
    return _described(request, *path_questions.ASKED)


def _attachment(request: PolicyRequest) -> Grant | None:
    """The interface and each of its groups are named in the request, so both must be allowed."""
    if not request.desired.attach_group:
        return None
    arns = tuple(request.arn("ec2", f"{kind}/{ANY}") for kind in ("network-interface", "security-group"))
    vpc = {"ArnLike": {"ec2:Vpc": request.arn("ec2", f"vpc/{request.vpc}")}} if request.vpc else {}
    return Grant((operations.MODIFY_NETWORK_INTERFACE_ATTRIBUTE.permission,), arns, vpc)


def _surroundings(request: PolicyRequest) -> Grant | None:
    """What `hsm-agent cluster` asks besides; without it, it names what it was not told."""
    if request.desired.cluster_id is None:
        return None
    return _described(request, *SURROUNDINGS)


def _hosts(request: PolicyRequest) -> Grant | None:
    """What makes hosts of instances; without DescribeImages their users are not known."""
    inventory = request.inventory
    if inventory is None:
        return None
    asked = (
        *instance_search.ASKED,
        *((operations.DESCRIBE_IMAGES,) if inventory.images else ()),
        *(instance_search.ASKED_FOR_CLUSTERS if inventory.clusters else ()),
    )
    conditions = {"StringEquals": {"aws:RequestedRegion": _regions_of(request, inventory)}}
    return Grant(tuple(each.permission for each in asked), (ANY,), conditions)


def _entry(request: PolicyRequest) -> Grant | None:
    """What finds why an instance is not reached over SSH; without it, a report says what it could not ask."""
    if request.inventory is None:
        return None
    conditions = {"StringEquals": {"aws:RequestedRegion": _regions_of(request, request.inventory)}}
    return Grant(tuple(each.permission for each in path_questions.WITHIN_VPC), (ANY,), conditions)


def _consoles(request: PolicyRequest) -> Grant | None:
    inventory = request.inventory
    if inventory is None or not inventory.consoles:
        return None
    regions = inventory.regions or (request.region_or(""),)
    arns = (request.arn("ec2", f"instance/{ANY}", region) for region in regions)
    return _of_all(operations.GET_CONSOLE_OUTPUT.permission, arns)


def _regions_of(request: PolicyRequest, inventory: InventoryQuestions) -> str | list[str]:
    """Return the regions as IAM has them: one alone is a text."""
    regions = sorted(set(inventory.regions)) or [request.region_or("")]
    return regions if len(regions) > 1 else regions[0]


def _service_role(request: PolicyRequest) -> Grant | None:
    if request.desired.cluster_id is None:
        return None
    partition = partition_of(request.region_or("")).name
    path = "role/aws-service-role/cloudhsm.amazonaws.com"
    arn = f"arn:{partition}:iam::{request.account}:{path}/{SERVICE_ROLE}"
    return Grant((operations.GET_ROLE.permission,), (arn,))


def _commands(request: PolicyRequest) -> Grant | None:
    """What a roll-out over Systems Manager sends: its own documents, to instances and managed nodes."""
    if not request.ssm:
        return None
    kinds = (("ec2", "instance"), ("ssm", "managed-instance"))
    hosts = tuple(request.arn(service, f"{kind}/{ANY}") for service, kind in kinds)
    return Grant((operations.SEND_COMMAND.permission,), (_documents(request), *hosts))


def _own_documents(request: PolicyRequest) -> Grant | None:
    if not request.ssm:
        return None
    asked = (operations.CREATE_DOCUMENT, operations.GET_DOCUMENT)
    return Grant(tuple(each.permission for each in asked), (_documents(request),))


def _documents(request: PolicyRequest) -> str:
    return request.arn("ssm", f"document/hsm-agent-{ANY}")


def _followed(request: PolicyRequest) -> Grant | None:
    """Of these actions IAM knows no resource."""
    return _described(request, *FOLLOWED) if request.ssm else None


def _packages(request: PolicyRequest) -> Grant | None:
    return _below(request, operations.GET_OBJECT.permission, [request.desired.package_source or ""])


def _objects(request: PolicyRequest) -> Grant | None:
    return _below(request, operations.PUT_OBJECT.permission, request.desired.report_to)


def _listing(request: PolicyRequest) -> Grant | None:
    """`fleet status --from` lists the reports of a prefix, whose names it does not know."""
    places = [s3_prefix(uri) for uri in request.desired.report_to if uri.startswith("s3://")]
    if not places:
        return None
    buckets = (
        f"arn:{partition_of(request.region_or(each.region)).name}:s3:::{each.bucket}" for each in places
    )
    prefixes = sorted({literal(each.below("")) for each in places})
    conditions = {"StringEquals": {"s3:prefix": prefixes}}
    return Grant((operations.LIST_OBJECTS.permission,), tuple(buckets), conditions)


def _collected(request: PolicyRequest) -> Grant | None:
    return _below(request, operations.GET_OBJECT.permission, request.desired.report_to)


def _inventory(request: PolicyRequest) -> Grant | None:
    """PutInventory knows no resource: a host may write for others of its account and region."""
    if not _sinks(request, "ssm-inventory"):
        return None
    return _described(request, operations.PUT_INVENTORY)


def _below(request: PolicyRequest, action: str, uris: Iterable[str]) -> Grant | None:
    """Return the action on all objects below these prefixes, of which there may be none."""
    places = [s3_prefix(uri) for uri in uris if uri.startswith("s3://")]
    arns = (request.object_arn(each.bucket, literal(each.below("")) + ANY, each.region) for each in places)
    return _of_all(action, arns)


def _ca(request: PolicyRequest) -> Grant | None:
    name = _ca_name(request.desired)
    if name is None:
        return None
    if isinstance(name, S3Location):
        operation = operations.GET_OBJECT_VERSION if name.version else operations.GET_OBJECT
        return Grant(
            (operation.permission,), (request.object_arn(name.bucket, literal(name.key), name.region),)
        )
    if isinstance(name, Parameter):
        return Grant((operations.GET_PARAMETER.permission,), (_parameter_arn(request, name),))
    return Grant((operations.GET_SECRET_VALUE.permission,), (_secret_arn(request, name),))


def _ca_name(desired: Desired) -> S3Location | Parameter | Secret | None:
    source = desired.ca_cert
    return name_of(source.value) if source is not None and source.kind == "aws" else None


def _parameter_arn(request: PolicyRequest, name: Parameter) -> str:
    """Return the ARN of a parameter without version and label: IAM knows neither."""
    arn, mark, path = name.name.rpartition(":parameter/")
    path = path.partition(":")[0].lstrip("/")
    return f"{arn}{mark}{path}" if arn else request.arn("ssm", f"parameter/{path}")


def _secret_arn(request: PolicyRequest, name: Secret) -> str:
    if not name.id.startswith("arn:"):
        return request.arn("secretsmanager", f"secret:{name.id}{_UNKNOWN_END}")
    return name.id if _WHOLE_SECRET.fullmatch(name.id) else f"{name.id}{_UNKNOWN_END}"


def _keys(request: PolicyRequest) -> Grant | None:
    return _with_key(request, "kms:Decrypt", {each.partition(":")[0] for each in _read_from_aws(request)})


def _keys_of_reports(request: PolicyRequest) -> Grant | None:
    return _with_key(request, "kms:GenerateDataKey", {"s3"} if _objects(request) else set())


def _with_key(request: PolicyRequest, action: str, services: set[str]) -> Grant | None:
    """A key is used by the service that keeps what is encrypted with it, and only by way of that service."""
    if not request.keys or not services:
        return None
    regions = sorted({found[1] for found in map(KEY_ARN.fullmatch, request.keys) if found})
    # which of its two suffixes China has here no page of AWS says
    suffixes = {region: {"amazonaws.com", partition_of(region).suffix} for region in regions}
    via = (
        f"{each}.{region}.{suffix}" for each in services for region in regions for suffix in suffixes[region]
    )
    return Grant((action,), request.keys, {"StringEquals": {"kms:ViaService": sorted(via)}})


def _read_from_aws(request: PolicyRequest) -> list[str]:
    """Return the actions by which what may be encrypted is read."""
    own = _agent(request) if request.audience == HOST else _collected(request)
    grants = (_ca(request), _packages(request), own)
    return [action for grant in grants if grant is not None for action in grant.actions]


def _signals(request: PolicyRequest) -> Grant | None:
    return _of_all(
        operations.SIGNAL_RESOURCE.permission, (_stack(request, uri) for uri in _sinks(request, "cfn"))
    )


def _stack(request: PolicyRequest, uri: str) -> str:
    target = cloudformation.target_of(uri)
    if target.stack.startswith("arn:"):
        return target.stack
    return request.arn("cloudformation", f"stack/{target.stack}/*", target.region)


def _agent(request: PolicyRequest) -> Grant | None:
    """The image's own `aws` fetches it, before there is an agent."""
    bucket, _, key = request.agent.partition("s3://")[2].partition("/")
    arns = (request.object_arn(bucket, literal(key)),) if key else ()
    return _of_all(operations.GET_OBJECT.permission, arns)


def _of_all(action: str, resources: Iterable[str]) -> Grant | None:
    arns = tuple(resources)
    return Grant((action,), arns) if arns else None


def _sinks(request: PolicyRequest, scheme: str) -> list[str]:
    return [uri for uri in request.desired.report_to if uri.partition(":")[0] == scheme]


# In a roll-out, the operator asks for the cluster, the CA and the packages. Reports go out from each host, and who
# types `fleet status --from` reads them.
PURPOSES = (
    Purpose("DescribeCluster", AUDIENCES, _cluster),
    Purpose("DescribePath", (HOST,), _path),
    Purpose("AttachGroup", (HOST,), _attachment),
    Purpose("DescribeSurroundings", (OPERATOR,), _surroundings),
    Purpose("FindServiceRole", (OPERATOR,), _service_role),
    Purpose("FindHosts", (OPERATOR,), _hosts),
    Purpose("ReadConsoles", (OPERATOR,), _consoles),
    Purpose("DescribeEntry", (OPERATOR,), _entry),
    Purpose("SendCommands", (OPERATOR,), _commands),
    Purpose("FollowCommands", (OPERATOR,), _followed),
    Purpose("CreateDocuments", (OPERATOR,), _own_documents),
    Purpose("ReadCa", AUDIENCES, _ca),
    Purpose("FetchPackages", AUDIENCES, _packages),
    Purpose("FetchAgent", (HOST,), _agent),
    Purpose("ListReports", (OPERATOR,), _listing),
    Purpose("ReadReports", (OPERATOR,), _collected),
    Purpose("UseKey", AUDIENCES, _keys),
    Purpose("SignalStack", (HOST,), _signals),
    Purpose("WriteReports", (HOST,), _objects),
    Purpose("EncryptReports", (HOST,), _keys_of_reports),
    Purpose("WriteInventory", (HOST,), _inventory),
)
