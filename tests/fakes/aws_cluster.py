"""A cluster in moto as AWS really makes one, and the network around it: VPC, subnets, group, HSMs' interfaces, hosts.

Whatever a test changes through the API or in `cluster.description` is what the next call describes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moto.cloudhsmv2.models import cloudhsmv2_backends
from moto.ec2.models import ec2_backends

from tests.fakes import cluster_answers
from tests.fakes.moto_lessons import DescribedCluster, kept
from tests.fakes.moto_server import ACCOUNT, CLUSTER, REGION, client

if TYPE_CHECKING:
    from collections.abc import Sequence

ZONES = tuple(f"{REGION}{letter}" for letter in "abc")
PORTS = {"IpProtocol": "tcp", "FromPort": 2223, "ToPort": 2225}
EVERYTHING = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
IPV6 = "2001:db8:77:{subnet:x}00::{host:x}"


def hsm_id(number: int) -> str:
    """Return the id of HSM `number`: AWS uses no 0, 1, 8 and 9 in them."""
    return f"hsm-{chr(ord('a') + number)}bcdefghij2"


@dataclass(frozen=True)
class Instance:
    """An instance with one interface."""

    id: str
    interface: str
    address: str
    subnet: str
    vpc: str


@dataclass
class AwsCluster:
    """A cluster, and the VPC whose first 24 bits of addresses are `prefix` and the number of the subnet.

    HSM n lies in zone n at PREFIX.(10 + n).10; instances lie in subnets of their own, 20 and on.
    """

    url: str
    vpc: str
    group: str
    subnets: dict[str, str]
    cluster: DescribedCluster
    prefix: str

    @cached_property
    def ec2(self) -> Any:
        """botocore's client, with all rights."""
        return client(self.url, "ec2")

    @property
    def id(self) -> str:
        return self.cluster.cluster_id

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of its HSMs, as a test that asks nobody knows them."""
        return tuple(each["EniIp"] for each in self.cluster.description["Hsms"] if "EniIp" in each)

    def add_hsm(self, number: int, *, dual_stack: bool = False) -> dict[str, Any]:
        """Put an HSM that works into zone `number`, with its interface in EC2, and return its description."""
        subnet = self.subnets[ZONES[number % 3]]
        hsm = cluster_answers.hsm(
            number, HsmId=hsm_id(number), SubnetId=subnet, AvailabilityZone=ZONES[number % 3]
        )
        address = f"{self.prefix}.{10 + number % 3}.{10 + number // 3}"
        made = self.ec2.create_network_interface(
            SubnetId=subnet,
            Groups=[self.group],
            PrivateIpAddress=address,
            Description=f"CloudHsm ENI {hsm['HsmId']}",
        )["NetworkInterface"]
        hsm.update(EniId=made["NetworkInterfaceId"], EniIp=address)
        if dual_stack:
            hsm["EniIpV6"] = IPV6.format(subnet=10 + number % 3, host=10 + number // 3)
            interface = ec2_backends[ACCOUNT][REGION].enis[hsm["EniId"]]
            interface.ipv6_addresses.append(hsm["EniIpV6"])
        self.cluster.description["Hsms"].append(hsm)
        return hsm

    def begin_hsm(self, number: int) -> dict[str, Any]:
        """List an HSM that AWS is still making: it has neither address nor interface."""
        zone = ZONES[number % 3]
        hsm = cluster_answers.hsm(
            number,
            "CREATE_IN_PROGRESS",
            HsmId=hsm_id(number),
            EniIp=None,
            EniId=None,
            SubnetId=self.subnets[zone],
            AvailabilityZone=zone,
        )
        self.cluster.description["Hsms"].append(hsm)
        return hsm

    def remove_hsm(self, hsm_id: str) -> None:
        """Take an HSM and its interface away for good."""
        hsm = self.cluster.hsm(hsm_id)
        self.cluster.description["Hsms"].remove(hsm)
        if "EniId" in hsm:
            self.ec2.delete_network_interface(NetworkInterfaceId=hsm["EniId"])

    def add_instance(
        self,
        address: str,
        name: str,
        *,
        attached: bool = True,
        groups: Sequence[str] = (),
        vpc: str | None = None,
    ) -> Instance:
        """Run an instance at an address, in a subnet of its own; `attached`: it has the cluster's group as well."""
        vpc = vpc or self.vpc
        subnet = self.subnet(vpc, address)
        groups = [*(groups or [self.group_of(vpc, "web")]), *([self.group] if attached else [])]
        tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}]
        (made,) = self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=tags,
            NetworkInterfaces=[
                {"DeviceIndex": 0, "SubnetId": subnet, "Groups": groups, "PrivateIpAddress": address}
            ],
        )["Instances"]
        (interface,) = made["NetworkInterfaces"]
        return Instance(made["InstanceId"], interface["NetworkInterfaceId"], address, subnet, vpc)

    def subnet(self, vpc: str, address: str, zone: str = ZONES[0]) -> str:
        """Return the subnet of an address, which is made unless it is there."""
        block = f"{address.rpartition('.')[0]}.0/24"
        wanted = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "cidr-block", "Values": [block]}]
        for each in self.ec2.describe_subnets(Filters=wanted)["Subnets"]:
            return str(each["SubnetId"])
        made = self.ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone)
        return str(made["Subnet"]["SubnetId"])

    def group_of(self, vpc: str, name: str) -> str:
        """Return a group that lets everything out and nothing in, which is made unless it is there."""
        wanted = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": [name]}]
        for each in self.ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]:
            return str(each["GroupId"])
        return str(self.ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"])

    def add_vpc(self, block: str) -> str:
        """Make another VPC, connected with nothing."""
        return str(self.ec2.create_vpc(CidrBlock=block)["Vpc"]["VpcId"])

    def groups_of(self, interface: str) -> list[str]:
        """Return the ids of the groups of an interface."""
        found = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])
        return [each["GroupId"] for each in found["NetworkInterfaces"][0]["Groups"]]

    def set_image(self, instance: str, name: str) -> str:
        """Let an instance have been launched from a new image of this name, and return its id."""
        image = str(self.ec2.register_image(Name=name)["ImageId"])
        made = ec2_backends[ACCOUNT][REGION].get_instance(instance)
        made.image_id, made.platform = image, None
        return image

    def set_platform(self, instance: str, platform: str) -> None:
        """Let an instance be of a platform, `windows`."""
        ec2_backends[ACCOUNT][REGION].get_instance(instance).platform = platform

    def set_public(self, instance: str, address: str) -> str:
        """Give an instance a public address, and return it."""
        made = ec2_backends[ACCOUNT][REGION].get_instance(instance)
        made.nics[0].public_ip = address
        return address

    def put_console(self, instance: str, text: str) -> None:
        """Let an instance have posted this on its console."""
        kept(ec2_backends[ACCOUNT][REGION])[instance] = text


def seed_aws_cluster(
    url: str,
    *,
    hsms: int = 3,
    begun: bool = True,
    state: str = "ACTIVE",
    certificate: str = "",
    dual_stack: bool = False,
    prefix: str = "10.77",
    cluster_id: str = CLUSTER,
    **more: Any,
) -> AwsCluster:
    """Make a VPC with a cluster: HSMs in three zones and, if `begun`, one without an address yet.

    `certificate` is ClusterCertificate, which a cluster that is UNINITIALIZED has not: it has a signing request. `more`
    are members of the description, as DescribeClusters has them.
    """
    ec2 = client(url, "ec2")
    vpc = ec2.create_vpc(CidrBlock=f"{prefix}.0.0/18")["Vpc"]["VpcId"]
    subnets = {
        zone: ec2.create_subnet(VpcId=vpc, CidrBlock=f"{prefix}.{10 + number}.0/24", AvailabilityZone=zone)[
            "Subnet"
        ]["SubnetId"]
        for number, zone in enumerate(ZONES)
    }
    group = ec2.create_security_group(
        GroupName=f"cloudhsm-{cluster_id}-sg", Description="CloudHSM security group", VpcId=vpc
    )["GroupId"]
    own = [{**PORTS, "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=own)
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=EVERYTHING)
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=own)
    without = state in ("CREATE_IN_PROGRESS", "UNINITIALIZED", "INITIALIZE_IN_PROGRESS")
    request = {"ClusterCsr": "-----BEGIN CERTIFICATE REQUEST-----\n"}
    description = cluster_answers.cluster(
        state,
        ClusterId=cluster_id,
        VpcId=vpc,
        SecurityGroup=group,
        SubnetMapping=subnets,
        Certificates=request if without else {"ClusterCertificate": certificate},
        NetworkType="DUALSTACK" if dual_stack else "IPV4",
        CreateTimestamp=1764489600.0,
        TagList=[{"Key": "Name", "Value": "payments"}],
        **more,
    )
    cluster = DescribedCluster(description)
    cluster.vpc_id = vpc
    cloudhsmv2_backends[ACCOUNT][REGION].clusters[cluster_id] = cluster
    seeded = AwsCluster(url, vpc, group, subnets, cluster, prefix)
    for number in range(hsms):
        seeded.add_hsm(number, dual_stack=dual_stack)
    if begun:
        seeded.begin_hsm(hsms)
    return seeded
