"""The cloud around lab hosts: a VPC in moto whose groups, ACLs and routes are what really passes packets here.

Nothing is written twice. After each call that changes the description, it is compiled into nft rules and kernel routes
at every seat: groups statefully, ACLs statelessly and in order, routes by the kernel's longest prefix. So a cause that
the agent names can be judged by the kernel: its command, run against moto, lets the packets through or does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.fakes.aws_cluster import seed_aws_cluster
from tests.fakes.certificates import openssl
from tests.fakes.imds import imds, interface_texts, place_texts
from tests.fakes.moto_server import REGION, aws_server, policy, role_with

from . import scene
from .network import OPERATOR_IP, PREFIX, mac_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.fakes.aws_cluster import AwsCluster, Instance
    from tests.fakes.aws_server import AwsServer, Call
    from tests.fakes.imds import Imds

    from .host import LabHost
    from .kernel import Namespace
    from .lab import Lab
    from .network import HsmSeat, Seat

METADATA = "169.254.169.254"
BUNDLE = "/root/aws-ca.pem"
SERVICES = ("cloudhsmv2", "ec2", "ssm", "secretsmanager", "s3", "cloudformation", "sts")
NAMES = tuple(f"{service}.{REGION}.amazonaws.com" for service in SERVICES)
OTHER_BLOCK = "10.77.64.0/18"
CLUSTER_BLOCK = "10.77.0.0/18"
_CLONE_NEWNET = 0x40000000
_READING = ("Describe", "Get", "List", "Assume")


def listen_in(net: Namespace, address: str, port: int) -> socket.socket:
    """Return a socket that listens in another network namespace; served from here, by whatever thread.

    A socket belongs to the namespace of the thread that makes it, and only threads change theirs alone.
    """
    made: list[socket.socket] = []

    def make() -> None:
        with open(net.path, "rb") as file:  # noqa: PTH123 -- a magic link, to be opened as it is
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server((address, port)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


@contextlib.contextmanager
def cloud(lab: Lab, folder: Path, hsms: int = 2) -> Iterator[Cloud]:
    """Give a cloud with a cluster whose HSMs listen at the addresses that are described; hosts join it."""
    bundle, context = endpoint_certificate(folder)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(aws_server())
        addresses = [f"{PREFIX}.{10 + number % 3}.{10 + number // 3}" for number in range(hsms)]
        made = stack.enter_context(scene.cluster(lab, folder, addresses=addresses))
        certificate = made.made.hsm.cert.read_text()
        aws = seed_aws_cluster(server.url, hsms=hsms, begun=False, certificate=certificate, prefix=PREFIX)
        server.also_listen(listen_in(lab.operator.net, OPERATOR_IP, 443), context)
        around = Cloud(lab, server, aws, made, bundle, stack)
        server.listeners.append(around.on_call)
        around.compile()
        yield around
        server.listeners.clear()


def endpoint_certificate(folder: Path) -> tuple[bytes, ssl.SSLContext]:
    """Return what trusts, and what shows, a certificate for the names of AWS's endpoints."""
    cert, key = folder / "aws.crt", folder / "aws.key"
    names = ",".join(f"DNS:{name}" for name in NAMES)
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=aws", "-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(cert),
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert.read_bytes(), context


@dataclass
class CloudHost:
    """A lab host that is an instance: it has a metadata service at the well-known address, and a role."""

    host: LabHost
    instance: Instance
    metadata: Imds
    role: Mapping[str, str]

    @property
    def environ(self) -> dict[str, str]:
        """What an instance would not need: its firmware names EC2, and this machine's does not."""
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{METADATA}", "AWS_CA_BUNDLE": BUNDLE}

    def assume(self, role: Mapping[str, str]) -> None:
        """Have the metadata service give the credentials of a role from now on."""
        self.metadata.credentials = {
            "AccessKeyId": role["AWS_ACCESS_KEY_ID"],
            "SecretAccessKey": role["AWS_SECRET_ACCESS_KEY"],
            "Token": role["AWS_SESSION_TOKEN"],
            "Expiration": "2099-01-01T00:00:00Z",
        }


@dataclass
class Cloud:
    """moto on the lab's network, a cluster in it, and seats whose packets pass as it describes."""

    lab: Lab
    server: AwsServer
    aws: AwsCluster
    scene: scene.Scene
    bundle: bytes
    stack: contextlib.ExitStack
    hosts: list[CloudHost] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # --- hosts

    def join(self, host: LabHost, name: str, *, attached: bool = True, vpc: str | None = None) -> CloudHost:
        """Make a lab host an instance at its address, with a role that may describe clusters and networks."""
        instance = self.aws.add_instance(host.ip, name, attached=attached, vpc=vpc)
        host.seat.tool(["ip", "addr", "add", f"{METADATA}/32", "dev", "lo"])
        role = role_with(self.aws.url, policy("cloudhsm:DescribeClusters", "ec2:Describe*"), f"{name}-role")
        listener = listen_in(host.seat.net, METADATA, 80)
        metadata = self.stack.enter_context(
            imds(instance_id=instance.id, role=f"{name}-role", listener=listener)
        )
        metadata.live = lambda: self._said_of(instance)
        host.put(BUNDLE, self.bundle)
        known = host.run(["cat", "/etc/hosts"]).stdout
        host.put("/etc/hosts", f"{known}\n{OPERATOR_IP} {' '.join(NAMES)}\n".encode())
        joined = CloudHost(host, instance, metadata, role)
        joined.assume(role)
        self.hosts.append(joined)
        self.compile()
        return joined

    def _said_of(self, instance: Instance) -> dict[str, str]:
        """Return what the metadata service says of an instance now: its groups follow the description."""
        found = self.aws.ec2.describe_network_interfaces(NetworkInterfaceIds=[instance.interface])
        interface = found["NetworkInterfaces"][0]
        groups = {each["GroupId"]: each["GroupName"] for each in interface["Groups"]}
        mac = mac_of(instance.address)
        return {
            "mac": mac,
            "security-groups": "\n".join(groups.values()),
            "local-ipv4": instance.address,
            **place_texts(REGION, interface["AvailabilityZone"]),
            **interface_texts(
                mac,
                interface=instance.interface,
                vpc=instance.vpc,
                subnet=instance.subnet,
                groups=groups,
                ipv4s=[instance.address],
            ),
        }

    # --- what the description makes of the network

    def on_call(self, call: Call) -> None:
        """Follow each change of the description, before whoever made it gets the answer."""
        action = call.permission.partition(":")[2]
        if call.service == "ec2" and call.status == 200 and not action.startswith(_READING):
            self.compile()

    def compile(self) -> None:
        """Make every seat's rules and routes those of the description."""
        with self._lock:
            described = Described(self.aws)
            for seat, interface in self._seats():
                seat.tool(["nft", "-f", "-"], described.rules(interface))
                seat.tool(["ip", "-batch", "-"], described.routes(interface))

    def _seats(self) -> Iterator[tuple[Seat, str]]:
        for each in self.hosts:
            yield each.host.seat, each.instance.interface
        seats: dict[str, HsmSeat] = {seat.ip: seat for seat in self.scene.hsms}
        for hsm in self.aws.cluster.description["Hsms"]:
            if hsm.get("EniIp") in seats:
                yield seats[hsm["EniIp"]], hsm["EniId"]

    # --- two VPCs

    def connect(self, vpc: str) -> None:
        """Peer another VPC with the cluster's, route both ways, and let its block into the cluster's group."""
        peering = self.peer(vpc)
        self.route(vpc, CLUSTER_BLOCK, peering)
        self.route(self.aws.vpc, OTHER_BLOCK, peering)

    def peer(self, vpc: str) -> str:
        """Make a peering that both sides accepted."""
        made = self.aws.ec2.create_vpc_peering_connection(VpcId=vpc, PeerVpcId=self.aws.vpc)
        name = str(made["VpcPeeringConnection"]["VpcPeeringConnectionId"])
        self.aws.ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=name)
        return name

    def route(self, vpc: str, block: str, peering: str) -> None:
        """Add a route to the main table of a VPC."""
        self.aws.ec2.create_route(
            RouteTableId=self.main_table(vpc), DestinationCidrBlock=block, VpcPeeringConnectionId=peering
        )

    def main_table(self, vpc: str) -> str:
        """Return the id of a VPC's main route table."""
        wanted = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "association.main", "Values": ["true"]}]
        return str(self.aws.ec2.describe_route_tables(Filters=wanted)["RouteTables"][0]["RouteTableId"])

    def acl(self) -> str:
        """Return the id of the network ACL of the cluster's VPC."""
        wanted = [{"Name": "vpc-id", "Values": [self.aws.vpc]}]
        return str(self.aws.ec2.describe_network_acls(Filters=wanted)["NetworkAcls"][0]["NetworkAclId"])


class Described:
    """EC2's description of the network as it is now, and what it means for the seat of one interface."""

    def __init__(self, aws: AwsCluster) -> None:
        ec2 = aws.ec2
        self._interfaces = {
            each["NetworkInterfaceId"]: each
            for each in ec2.describe_network_interfaces()["NetworkInterfaces"]
        }
        self._groups = {each["GroupId"]: each for each in ec2.describe_security_groups()["SecurityGroups"]}
        self._acls = ec2.describe_network_acls()["NetworkAcls"]
        self._tables = ec2.describe_route_tables()["RouteTables"]
        self._subnets = {each["SubnetId"]: each["CidrBlock"] for each in ec2.describe_subnets()["Subnets"]}
        peerings = ec2.describe_vpc_peering_connections()["VpcPeeringConnections"]
        self._active = {
            each["VpcPeeringConnectionId"] for each in peerings if each["Status"]["Code"] == "active"
        }

    def rules(self, name: str) -> str:
        """Return the nft table of an interface: ACLs before groups on the way in, after them on the way out.

        Whoever runs the lab, at the operator's seat, is no part of the cloud and always passes.
        """
        interface = self._interfaces[name]
        groups = [self._groups[each["GroupId"]] for each in interface["Groups"]]
        inward = [
            line for group in groups for each in group["IpPermissions"] for line in self._lines("saddr", each)
        ]
        outward = [
            line
            for group in groups
            for each in group["IpPermissionsEgress"]
            for line in self._lines("daddr", each)
        ]
        own = f'oifname "lo" accept\nip daddr {OPERATOR_IP} accept'
        lo = f'iifname "lo" accept\nip saddr {OPERATOR_IP} accept'
        known = "ct state established,related accept"
        return "\n".join(
            (
                "add table inet cloud\ndelete table inet cloud\ntable inet cloud {",
                _chain(
                    "acl_in", "prerouting", -300, [lo, *self._acl_lines(interface, "saddr", egress=False)]
                ),
                _chain("group_in", "input", 10, [lo, known, *inward, "drop"]),
                _chain("group_out", "output", 10, [own, known, *outward, "drop"]),
                _chain(
                    "acl_out", "postrouting", 300, [own, *self._acl_lines(interface, "daddr", egress=True)]
                ),
                "}\n",
            )
        )

    def _lines(self, side: str, rule: Mapping[str, Any]) -> Iterator[str]:
        members = {each["GroupId"] for each in rule.get("UserIdGroupPairs", ())}
        peers = [
            each["PrivateIpAddress"]
            for each in self._interfaces.values()
            if members & {group["GroupId"] for group in each["Groups"]}
        ]
        for block in (*(each["CidrIp"] for each in rule.get("IpRanges", ())), *peers):
            ports = (
                f" tcp dport {rule['FromPort']}-{rule['ToPort']}"
                if rule["IpProtocol"] in ("tcp", "6")
                else ""
            )
            if ports or rule["IpProtocol"] == "-1":
                yield f"ip {side} {block}{ports} accept"

    def _acl_lines(self, interface: Mapping[str, Any], side: str, *, egress: bool) -> Iterator[str]:
        subnet = interface["SubnetId"]
        yield f"ip {side} {self._subnets[subnet]} accept"  # within a subnet no ACL counts
        (acl,) = (each for each in self._acls if subnet in {one["SubnetId"] for one in each["Associations"]})
        for entry in sorted(acl["Entries"], key=lambda each: int(each["RuleNumber"])):
            if entry["Egress"] is egress and "CidrBlock" in entry and entry["Protocol"] in ("-1", "6"):
                span = entry.get("PortRange")
                ports = f" tcp dport {span['From']}-{span['To']}" if span else ""
                verdict = "accept" if entry["RuleAction"] == "allow" else "drop"
                yield f"ip {side} {entry['CidrBlock']}{ports} {verdict}"

    def routes(self, name: str) -> str:
        """Return what `ip -batch` makes of the subnet's route table; what has no route there vanishes, as in AWS."""
        interface = self._interfaces[name]
        lines = [
            f"route flush exact {PREFIX}.0.0/16",  # the kernel's own, by which all seats see each other
            "route flush proto static",
            f"route replace {OPERATOR_IP}/32 dev eth0 proto static",
        ]
        for route in self._table(interface)["Routes"]:
            peering = route.get("VpcPeeringConnectionId")
            works = route["State"] == "active" and (
                route.get("GatewayId") == "local" or peering in self._active
            )
            way = "" if works else f"via {OPERATOR_IP} "
            lines.append(f"route replace {route['DestinationCidrBlock']} {way}dev eth0 proto static")
        return "\n".join(lines) + "\n"

    def _table(self, interface: Mapping[str, Any]) -> Mapping[str, Any]:
        tables: list[Mapping[str, Any]] = [
            each for each in self._tables if each["VpcId"] == interface["VpcId"]
        ]
        for table in tables:
            if interface["SubnetId"] in {each.get("SubnetId") for each in table["Associations"]}:
                return table
        return next(table for table in tables if any(each["Main"] for each in table["Associations"]))


def _chain(name: str, hook: str, priority: int, lines: Iterator[str] | list[str]) -> str:
    body = "\n".join(lines)
    return f"chain {name} {{\ntype filter hook {hook} priority {priority}; policy accept;\n{body}\n}}"
