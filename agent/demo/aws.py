"""AWS's API and EC2's metadata for `hsm-agent demo --aws`: a VPC with a cluster, and the instance that this host plays.

The answers have the shapes of the API reference; tests have botocore's models judge them. Signatures are not checked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import selectors
import sys
import threading
from dataclasses import asdict, dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from agent.demo import server_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CLUSTER_ID = "cluster-2demo3demo4"
REGION = "eu-central-1"
ACCOUNT = "123456789012"
VPC = "vpc-0de30000000000001"
BLOCK = "10.0.0.0/16"
GROUP = "sg-0de30000000000c10"
GROUP_NAME = f"cloudhsm-{CLUSTER_ID}-sg"
WEB = "sg-0de30000000000e0b"
INTERFACE = "eni-0de3000000000057a"
INSTANCE = "i-0de300000000057a7"
ADDRESS = "10.0.4.7"
SUBNET = "subnet-0de3000000000004"
MAC = "02:de:30:00:04:07"
ROLE = "demo-host"
TOKEN = "demo-token"  # noqa: S105 -- whoever asks gets it
_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


@dataclass(frozen=True)
class DemoHsm:
    """An HSM of the cluster, in the zone and the subnet of its number."""

    id: str
    zone: int
    address: str

    @property
    def subnet(self) -> str:
        """The id of its subnet."""
        return f"subnet-0de300000000000{self.zone}"

    @property
    def interface(self) -> str:
        """The id of its network interface."""
        return f"eni-0de30000000{self.address.replace('.', ''):0>6}"


@dataclass(frozen=True)
class DemoCloud:
    """What AWS describes: the HSMs, the cluster's certificate, and the groups of the instance's interface."""

    hsms: tuple[DemoHsm, ...]
    certificate: str
    groups: tuple[str, ...] = (WEB,)

    def save(self, path: Path) -> None:
        """Describe this from the next request on."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(asdict(self)), encoding="utf-8")
        part.replace(path)


def load(path: Path) -> DemoCloud:
    """Return what is described now."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    hsms = tuple(DemoHsm(**each) for each in tree["hsms"])
    return DemoCloud(hsms, tree["certificate"], tuple(tree["groups"]))


@contextlib.contextmanager
def running(state: Path) -> Iterator[str]:
    """Serve what `state` holds in a process of its own while the block lasts; yield the URL."""
    with server_process.running("agent.demo.aws", [f"--state={state}"]) as started:
        yield f"http://{started.address}:{started.ports[0]}"


def clusters(cloud: DemoCloud) -> dict[str, Any]:
    """Return the answer of DescribeClusters."""
    hsms = [
        {
            "AvailabilityZone": _zone(each.zone),
            "ClusterId": CLUSTER_ID,
            "SubnetId": each.subnet,
            "EniId": each.interface,
            "EniIp": each.address,
            "HsmId": each.id,
            "HsmType": "hsm2m.medium",
            "State": "ACTIVE",
        }
        for each in cloud.hsms
    ]
    cluster = {
        "BackupPolicy": "DEFAULT",
        "ClusterId": CLUSTER_ID,
        "CreateTimestamp": 1764489600,
        "Hsms": hsms,
        "HsmType": "hsm2m.medium",
        "Mode": "FIPS",
        "NetworkType": "IPV4",
        "SecurityGroup": GROUP,
        "State": "ACTIVE",
        "SubnetMapping": {_zone(each.zone): each.subnet for each in cloud.hsms},
        "VpcId": VPC,
        "Certificates": {"ClusterCertificate": cloud.certificate},
    }
    return {"Clusters": [cluster]}


def described(cloud: DemoCloud, action: str) -> dict[str, Any] | None:
    """Return the answer of one of EC2's Describe actions, None for one that the demo does not have.

    The filters are left out: all that there is belongs to one VPC, and a caller finds its own in it.
    """
    names = {GROUP: GROUP_NAME, WEB: "web"}
    ends = [(INTERFACE, SUBNET, ADDRESS, cloud.groups, "")]
    ends += [
        (each.interface, each.subnet, each.address, (GROUP,), f"CloudHsm ENI {each.id}")
        for each in cloud.hsms
    ]
    own = {
        "ipProtocol": "tcp",
        "fromPort": 2223,
        "toPort": 2225,
        "groups": [{"userId": ACCOUNT, "groupId": GROUP}],
    }
    everything = {"ipProtocol": "-1", "ipRanges": [{"cidrIp": "0.0.0.0/0"}]}
    subnets = {SUBNET: "10.0.4.0/24", **{each.subnet: f"10.0.{each.zone}.0/24" for each in cloud.hsms}}
    local = {
        "destinationCidrBlock": BLOCK,
        "gatewayId": "local",
        "state": "active",
        "origin": "CreateRouteTable",
    }
    answers: dict[str, dict[str, Any]] = {
        "DescribeNetworkInterfaces": {
            "networkInterfaceSet": [
                {
                    "networkInterfaceId": name,
                    "subnetId": subnet,
                    "vpcId": VPC,
                    "description": text,
                    "ownerId": ACCOUNT,
                    "status": "in-use",
                    "privateIpAddress": address,
                    "groupSet": [{"groupId": each, "groupName": names[each]} for each in groups],
                    "privateIpAddressesSet": [{"privateIpAddress": address, "primary": True}],
                }
                for name, subnet, address, groups, text in ends
            ]
        },
        "DescribeSecurityGroups": {
            "securityGroupInfo": [
                {
                    "ownerId": ACCOUNT,
                    "groupId": group,
                    "groupName": name,
                    "groupDescription": name,
                    "vpcId": VPC,
                    "ipPermissions": [own] if group == GROUP else [],
                    "ipPermissionsEgress": [own] if group == GROUP else [everything],
                }
                for group, name in names.items()
            ]
        },
        "DescribeSubnets": {
            "subnetSet": [
                {"subnetId": name, "vpcId": VPC, "cidrBlock": block, "state": "available"}
                for name, block in subnets.items()
            ]
        },
        "DescribeRouteTables": {
            "routeTableSet": [
                {
                    "routeTableId": "rtb-0de3000000000000a",
                    "vpcId": VPC,
                    "routeSet": [local],
                    "associationSet": [{"routeTableAssociationId": "rtbassoc-0de3", "main": True}],
                }
            ]
        },
        "DescribeNetworkAcls": {
            "networkAclSet": [
                {
                    "networkAclId": "acl-0de3000000000000a",
                    "vpcId": VPC,
                    "default": True,
                    "entrySet": [
                        {
                            "ruleNumber": number,
                            "protocol": "-1",
                            "ruleAction": verdict,
                            "egress": egress,
                            "cidrBlock": "0.0.0.0/0",
                        }
                        for egress in (True, False)
                        for number, verdict in ((100, "allow"), (32767, "deny"))
                    ],
                    "associationSet": [{"subnetId": each} for each in subnets],
                }
            ]
        },
    }
    return answers.get(action)


def metadata(cloud: DemoCloud) -> dict[str, str]:
    """Return what the metadata service says, by its path below meta-data."""
    names = {GROUP: GROUP_NAME, WEB: "web"}
    mine = f"network/interfaces/macs/{MAC}"
    credentials = {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "AccessKeyId": "ASIADEMO",
        "SecretAccessKey": "demo",
        "Token": "demo",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    return {
        "instance-id": INSTANCE,
        "placement/region": REGION,
        "network/interfaces/macs": f"{MAC}/",
        f"{mine}/interface-id": INTERFACE,
        f"{mine}/vpc-id": VPC,
        f"{mine}/subnet-id": SUBNET,
        f"{mine}/local-ipv4s": ADDRESS,
        f"{mine}/security-group-ids": "\n".join(cloud.groups),
        f"{mine}/security-groups": "\n".join(names[each] for each in cloud.groups),
        "security-groups": "\n".join(names[each] for each in cloud.groups),
        "iam/security-credentials": ROLE,
        f"iam/security-credentials/{ROLE}": json.dumps(credentials),
    }


def _zone(number: int) -> str:
    return f"{REGION}{'abc'[number - 1]}"


def _xml(tree: Any) -> str:
    """Return a tree as EC2 writes it: a list's members are items."""
    if isinstance(tree, dict):
        return "".join(f"<{name}>{_xml(value)}</{name}>" for name, value in tree.items())
    if isinstance(tree, list):
        return "".join(f"<item>{_xml(each)}</item>" for each in tree)
    return escape(str(tree).lower() if isinstance(tree, bool) else str(tree))


class _AwsHandler(BaseHTTPRequestHandler):
    server: _AwsDemoServer
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self._send(200, TOKEN) if self.path == "/latest/api/token" else self._send(404, "")

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self._send(401, "")
            return
        _, _, path = self.path.partition("/latest/meta-data/")
        text = metadata(load(self.server.state)).get(path.rstrip("/"))
        self._send(404 if text is None else 200, text or "")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        cloud = load(self.server.state)
        if self.headers.get("X-Amz-Target", "").endswith(".DescribeClusters"):
            self._send(200, json.dumps(clusters(cloud)))
            return
        form = dict(parse_qsl(body.decode("utf-8", "replace")))
        action = form.get("Action", "")
        tree = described(cloud, action)
        if action == "ModifyNetworkInterfaceAttribute":
            tree = self._modify(cloud, form)
        if tree is None:
            error = _xml(
                {"Errors": {"Error": {"Code": "InvalidAction", "Message": f"no {action} in the demo"}}}
            )
            self._send(400, f"<Response>{error}<RequestID>demo</RequestID></Response>")
            return
        name = f"{action}Response"
        self._send(200, f'<{name} xmlns="{_NAMESPACE}"><requestId>demo</requestId>{_xml(tree)}</{name}>')

    def _modify(self, cloud: DemoCloud, form: Mapping[str, str]) -> dict[str, Any] | None:
        """Give the instance's interface other groups: those of the request replace all that it has."""
        groups = tuple(value for name, value in form.items() if name.startswith("SecurityGroupId."))
        if form.get("NetworkInterfaceId") != INTERFACE or not set(groups) <= {WEB, GROUP} or not groups:
            return None
        replace(cloud, groups=groups).save(self.server.state)
        return {"return": True}

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Print nothing on standard error."""


class _AwsDemoServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: Path) -> None:
        self.state = state
        super().__init__(("127.0.0.1", 0), _AwsHandler)


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM, SIGINT or, if asked for, the end of standard input."""
    parser = argparse.ArgumentParser(prog="python -m agent.demo.aws", description=__doc__)
    parser.add_argument("--state", required=True, type=Path, help="JSON file: what is described")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    given = parser.parse_args(arguments)
    server = _AwsDemoServer(given.state)
    selector = selectors.DefaultSelector()
    for each in server_process.ending(until_eof=given.until_eof):
        selector.register(each, selectors.EVENT_READ)  # type: ignore[arg-type]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server_process.say_ready("127.0.0.1", [server.server_address[1]])
    selector.select()


if __name__ == "__main__":
    main(sys.argv[1:])
