"""Which operations of AWS's API a host asks, as a table: their service, permission, page size and limits.

Each has one implementation: `AwsClient.call` with its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# of an answer; DescribeClusters with 28 HSMs is below 100 kB
MOST_BYTES = 4 * 1024 * 1024


class Protocol(Enum):
    """How a request is written and an answer read."""

    JSON = "json 1.1"
    QUERY = "query"
    EC2 = "ec2 query"
    S3 = "s3"


@dataclass(frozen=True)
class Service:
    """One service. `name` begins its host name and ends that of its VPC endpoint service.

    `variable` ends AWS_ENDPOINT_URL_…; `signs_as` is its name in a signature, `permission` in a policy; `version` is
    the API version or, for JSON, the prefix of X-Amz-Target. `plain_fips_in_gov`: its plain name in GovCloud is FIPS.
    `dual_stack` is the form of its host name where IPv6 is asked for, but in the partitions `plain_dual_stack`: there
    its plain name has both kinds of address. `hosts` are the host names by partition of a service that has no regions.
    """

    name: str
    variable: str
    protocol: Protocol
    version: str
    signs_as: str
    permission: str
    plain_fips_in_gov: bool = False
    dual_stack: str = "{name}.{region}.{api}"
    plain_dual_stack: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()


CLOUDHSM = Service("cloudhsmv2", "CLOUDHSM_V2", Protocol.JSON, "BaldrApiService", "cloudhsm", "cloudhsm")
EC2 = Service("ec2", "EC2", Protocol.EC2, "2016-11-15", "ec2", "ec2", plain_fips_in_gov=True)
SSM = Service("ssm", "SSM", Protocol.JSON, "AmazonSSM", "ssm", "ssm", plain_fips_in_gov=True)
SECRETS_MANAGER = Service(
    "secretsmanager",
    "SECRETS_MANAGER",
    Protocol.JSON,
    "secretsmanager",
    "secretsmanager",
    "secretsmanager",
    plain_dual_stack=("aws", "aws-cn", "aws-us-gov"),
)
CLOUDFORMATION = Service(
    "cloudformation",
    "CLOUDFORMATION",
    Protocol.QUERY,
    "2010-05-15",
    "cloudformation",
    "cloudformation",
    plain_fips_in_gov=True,
)
S3 = Service(
    "s3", "S3", Protocol.S3, "2006-03-01", "s3", "s3", dual_stack="{name}.dualstack.{region}.{suffix}"
)
IAM = Service(
    "iam",
    "IAM",
    Protocol.QUERY,
    "2010-05-08",
    "iam",
    "iam",
    hosts=(("aws", "iam.amazonaws.com"), ("aws-us-gov", "iam.us-gov.amazonaws.com")),
)
SERVICES = (CLOUDHSM, EC2, SSM, SECRETS_MANAGER, CLOUDFORMATION, S3, IAM)


@dataclass(frozen=True)
class Operation:
    """One operation. `page` is how many items are asked for at a time, 0 for an operation without pages.

    At most `pages` pages are read, and answers of at most `answer` bytes. `action` is its name in a policy, where that
    is another.
    """

    service: Service
    name: str
    page: int = 0
    pages: int = 1
    answer: int = MOST_BYTES
    action: str = ""

    @property
    def permission(self) -> str:
        """The action that a policy must allow."""
        return f"{self.service.permission}:{self.action or self.name}"


# The quota is 4 clusters in a region, so that one page nearly always does.
DESCRIBE_CLUSTERS = Operation(CLOUDHSM, "DescribeClusters", page=25, pages=20)
# One page: the newest come first.
DESCRIBE_BACKUPS = Operation(CLOUDHSM, "DescribeBackups")
# An instance is described in some 6 kB; an inventory has at most 10,000.
DESCRIBE_INSTANCES = Operation(EC2, "DescribeInstances", page=300, pages=40)
DESCRIBE_IMAGES = Operation(EC2, "DescribeImages", page=200, pages=5)
# At most 64 kB of text, in base64.
GET_CONSOLE_OUTPUT = Operation(EC2, "GetConsoleOutput", answer=256 * 1024)
DESCRIBE_NETWORK_INTERFACES = Operation(EC2, "DescribeNetworkInterfaces", page=1000, pages=20)
DESCRIBE_SECURITY_GROUPS = Operation(EC2, "DescribeSecurityGroups", page=1000, pages=20)
DESCRIBE_NETWORK_ACLS = Operation(EC2, "DescribeNetworkAcls", page=1000, pages=20)
DESCRIBE_ROUTE_TABLES = Operation(EC2, "DescribeRouteTables", page=100, pages=20)
DESCRIBE_SUBNETS = Operation(EC2, "DescribeSubnets", page=1000, pages=20)
DESCRIBE_VPC_PEERING_CONNECTIONS = Operation(EC2, "DescribeVpcPeeringConnections", page=1000, pages=20)
DESCRIBE_TRANSIT_GATEWAY_VPC_ATTACHMENTS = Operation(
    EC2, "DescribeTransitGatewayVpcAttachments", page=1000, pages=20
)
# The only one that changes anything.
MODIFY_NETWORK_INTERFACE_ATTRIBUTE = Operation(EC2, "ModifyNetworkInterfaceAttribute", answer=64 * 1024)
GET_PARAMETER = Operation(SSM, "GetParameter", answer=64 * 1024)  # its value has at most 8 kB
GET_SECRET_VALUE = Operation(SECRETS_MANAGER, "GetSecretValue", answer=256 * 1024)  # and its, 64 kB
GET_OBJECT = Operation(S3, "GetObject")
GET_OBJECT_VERSION = Operation(S3, "GetObject", action="GetObjectVersion")  # the same with a VersionId
LIST_OBJECTS = Operation(S3, "ListObjectsV2", page=1000, pages=100, action="ListBucket")
PUT_OBJECT = Operation(S3, "PutObject", answer=64 * 1024)
PUT_INVENTORY = Operation(SSM, "PutInventory", answer=64 * 1024)
CREATE_DOCUMENT = Operation(SSM, "CreateDocument", answer=256 * 1024)
GET_DOCUMENT = Operation(SSM, "GetDocument", answer=256 * 1024)
DESCRIBE_INSTANCE_INFORMATION = Operation(SSM, "DescribeInstanceInformation", page=50, pages=4)
SEND_COMMAND = Operation(SSM, "SendCommand", answer=256 * 1024)  # with the document's parameters
LIST_COMMANDS = Operation(SSM, "ListCommands", page=50, pages=20)
LIST_COMMAND_INVOCATIONS = Operation(SSM, "ListCommandInvocations", page=50, pages=4)
GET_COMMAND_INVOCATION = Operation(
    SSM, "GetCommandInvocation", answer=256 * 1024
)  # 24,000 and 8,000 characters
SIGNAL_RESOURCE = Operation(CLOUDFORMATION, "SignalResource", answer=64 * 1024)
GET_ROLE = Operation(IAM, "GetRole", answer=64 * 1024)
OPERATIONS = (
    DESCRIBE_CLUSTERS,
    DESCRIBE_BACKUPS,
    DESCRIBE_INSTANCES,
    DESCRIBE_IMAGES,
    GET_CONSOLE_OUTPUT,
    DESCRIBE_NETWORK_INTERFACES,
    DESCRIBE_SECURITY_GROUPS,
    DESCRIBE_NETWORK_ACLS,
    DESCRIBE_ROUTE_TABLES,
    DESCRIBE_SUBNETS,
    DESCRIBE_VPC_PEERING_CONNECTIONS,
    DESCRIBE_TRANSIT_GATEWAY_VPC_ATTACHMENTS,
    MODIFY_NETWORK_INTERFACE_ATTRIBUTE,
    GET_PARAMETER,
    GET_SECRET_VALUE,
    GET_OBJECT,
    GET_OBJECT_VERSION,
    LIST_OBJECTS,
    PUT_OBJECT,
    PUT_INVENTORY,
    CREATE_DOCUMENT,
    GET_DOCUMENT,
    DESCRIBE_INSTANCE_INFORMATION,
    SEND_COMMAND,
    LIST_COMMANDS,
    LIST_COMMAND_INVOCATIONS,
    GET_COMMAND_INVOCATION,
    SIGNAL_RESOURCE,
    GET_ROLE,
)
