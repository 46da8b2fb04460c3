"""A network as moto's EC2 describes it, read into values, and the cause that is found in it, cured there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.parsers import create_parser

from agent.aws import network, operations
from agent.aws.client import AwsClient
from agent.aws.path import PathEnd, find_obstacle
from agent.aws.protocols import decode
from agent.aws.session import open_session
from agent.http.exchange import ApiResponse
from tests.fakes.aws import KEYS, RealTime
from tests.fakes.moto_server import REGION, client, moto_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with moto_server() as place:
        yield place


def described(asked: AwsClient) -> network.Network:
    return network.Network(
        groups=network.read_groups(asked.pages(operations.DESCRIBE_SECURITY_GROUPS, {})),
        acls=network.read_acls(asked.pages(operations.DESCRIBE_NETWORK_ACLS, {})),
        tables=network.read_tables(asked.pages(operations.DESCRIBE_ROUTE_TABLES, {})),
        subnets=network.read_subnets(asked.pages(operations.DESCRIBE_SUBNETS, {})),
        peerings=network.read_peerings(asked.pages(operations.DESCRIBE_VPC_PEERING_CONNECTIONS, {})),
        attachments=network.read_attachments(
            asked.pages(operations.DESCRIBE_TRANSIT_GATEWAY_VPC_ATTACHMENTS, {})
        ),
    )


def test_a_network_is_read_and_its_causes_are_cured_one_by_one(url: str) -> None:
    ec2 = client(url, "ec2")
    asked = AwsClient(open_session(RealTime(), {**KEYS, "AWS_ENDPOINT_URL": url}, REGION))
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    here, there = (
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{number}.0/24")["Subnet"]["SubnetId"]
        for number in (1, 2)
    )
    group = ec2.create_security_group(GroupName="cloudhsm-x-sg", Description="x", VpcId=vpc)["GroupId"]
    ports = {"IpProtocol": "tcp", "FromPort": 2223, "ToPort": 2225}
    own = [{**ports, "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=own)
    other = ec2.create_security_group(GroupName="web", Description="x", VpcId=vpc)["GroupId"]
    mine = ec2.create_network_interface(SubnetId=here, Groups=[other], PrivateIpAddress="10.9.1.7")[
        "NetworkInterface"
    ]
    hsms = ec2.create_network_interface(SubnetId=there, Groups=[group], PrivateIpAddress="10.9.2.6")[
        "NetworkInterface"
    ]

    def obstacle() -> Any:
        found = network.read_interfaces(asked.pages(operations.DESCRIBE_NETWORK_INTERFACES, {}))
        ends = {each.id: each for each in found}
        client_, hsm = (
            PathEnd(ends[each["NetworkInterfaceId"]], each["PrivateIpAddress"]) for each in (mine, hsms)
        )
        assert (hsm.interface.subnet, hsm.interface.addresses, hsm.interface.vpc) == (
            there,
            ("10.9.2.6",),
            vpc,
        )
        return find_obstacle(described(asked), client_, hsm, region=REGION)

    first = obstacle()
    assert (first.code, first.id) == ("group-not-attached", group)
    assert first.command[-3:] == ("--groups", other, group)
    ec2.modify_network_interface_attribute(
        NetworkInterfaceId=mine["NetworkInterfaceId"], Groups=list(first.command[-2:])
    )
    assert obstacle() is None

    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    for each in (other, group):
        ec2.revoke_security_group_egress(GroupId=each, IpPermissions=everything)
    second = obstacle()
    assert (second.code, "egress" in second.saw) == ("group-rule-missing", True)
    ec2.authorize_security_group_egress(GroupId=second.id, IpPermissions=own)
    assert obstacle() is None

    acl = ec2.describe_network_acls(Filters=[{"Name": "association.subnet-id", "Values": [there]}])[
        "NetworkAcls"
    ][0]
    ec2.create_network_acl_entry(
        NetworkAclId=acl["NetworkAclId"], RuleNumber=50, Protocol="6", RuleAction="deny", Egress=True,
        CidrBlock="10.9.1.0/24", PortRange={"From": 40000, "To": 40010},
    )  # fmt: skip
    third = obstacle()
    assert (third.code, third.id) == ("network-acl-blocks", acl["NetworkAclId"])
    assert "rule 50" in third.saw
    ec2.delete_network_acl_entry(NetworkAclId=acl["NetworkAclId"], RuleNumber=50, Egress=True)
    assert obstacle() is None


def test_a_peering_and_its_routes_are_read(url: str) -> None:
    ec2 = client(url, "ec2")
    asked = AwsClient(open_session(RealTime(), {**KEYS, "AWS_ENDPOINT_URL": url}, REGION))
    one, other = (ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"] for number in (11, 12))
    made = ec2.create_vpc_peering_connection(VpcId=one, PeerVpcId=other)["VpcPeeringConnection"]
    name = made["VpcPeeringConnectionId"]
    (peering,) = (each for each in described(asked).peerings or () if each.id == name)
    assert (peering.vpcs, peering.state) == ((one, other), "pending-acceptance")
    ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=name)
    (table,) = (each for each in described(asked).tables or () if each.vpc == one)
    assert (table.main, [each.target for each in table.routes]) == (True, ["local"])
    ec2.create_route(RouteTableId=table.id, DestinationCidrBlock="10.12.0.0/16", VpcPeeringConnectionId=name)
    (table,) = (each for each in described(asked).tables or () if each.vpc == one)
    assert network.VpcRoute("10.12.0.0/16", name) in table.routes
    (peering,) = (each for each in described(asked).peerings or () if each.id == name)
    assert peering.state == "active"


ATTACHMENTS = """<DescribeTransitGatewayVpcAttachmentsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
<transitGatewayVpcAttachments><item><transitGatewayAttachmentId>tgw-attach-1</transitGatewayAttachmentId>
<transitGatewayId>tgw-1</transitGatewayId><vpcId>vpc-1</vpcId><state>available</state>
<options><securityGroupReferencingSupport>enable</securityGroupReferencingSupport></options></item></transitGatewayVpcAttachments>
</DescribeTransitGatewayVpcAttachmentsResponse>"""

RULES = """<DescribeSecurityGroupsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><securityGroupInfo><item>
<groupId>sg-1</groupId><ipPermissions>
<item><ipProtocol>tcp</ipProtocol><fromPort>2223</fromPort><toPort>2225</toPort><ipv6Ranges><item><cidrIpv6>::/0</cidrIpv6></item></ipv6Ranges></item>
<item><ipProtocol>-1</ipProtocol><prefixListIds><item><prefixListId>pl-1</prefixListId></item></prefixListIds></item>
</ipPermissions></item></securityGroupInfo></DescribeSecurityGroupsResponse>"""


@pytest.mark.parametrize(
    ("operation", "body", "read", "wanted"),
    [
        (operations.DESCRIBE_TRANSIT_GATEWAY_VPC_ATTACHMENTS, ATTACHMENTS, network.read_attachments,
         (network.TransitAttachment("tgw-1", "vpc-1", "available", references=True),)),
        (operations.DESCRIBE_SECURITY_GROUPS, RULES, network.read_groups,
         (network.SecurityGroup("sg-1", (network.GroupRule("tcp", 2223, 2225, ("::/0",)),
                                         network.GroupRule("-1", 0, 65535, opaque=True))),)),
    ],
    ids=["attachments", "rules"],
)  # fmt: skip
def test_what_moto_does_not_say_is_read_by_botocore_s_names(
    operation: operations.Operation, body: str, read: Any, wanted: Any
) -> None:
    import botocore.session

    model = botocore.session.Session().get_service_model("ec2").operation_model(operation.name)
    theirs = create_parser("ec2").parse(
        {"body": body.encode(), "headers": {}, "status_code": 200}, model.output_shape
    )
    known = str(theirs)
    for value in ("tgw-1", "enable") if "Transit" in operation.name else ("pl-1", "::/0", "2225"):
        assert value in known
    assert read([decode(operation, ApiResponse(200, {}, body.encode()))]) == wanted
