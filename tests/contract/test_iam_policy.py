"""The printed policy against what commands call: AWS's stand-in enforces it, and each action without its permission fails.

The stand-in judges actions, and the objects of S3. Other resources and conditions are judged by `tests.fakes.iam`, from
the parameters of each call.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable
from urllib.parse import unquote

import pytest

from agent import commands
from agent.aws.access import AwsAccess
from agent.aws.path_questions import PathQuestions
from agent.cli.cluster_query import ask_cluster
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.hosts.posix import Posix
from agent.iam_policy import PURPOSES, PolicyRequest, policy_of
from agent.render.cluster.document import to_tree
from agent.render.json_report import to_document
from agent.render.progress import NullProgress
from agent.report import new_run
from tests.fakes.authorities import maker as maker  # noqa: PLC0414 -- pytest takes it from here
from tests.fakes.aws import RealTime
from tests.fakes.aws_cluster import AwsCluster, seed_aws_cluster
from tests.fakes.iam import actions, allows, misfits
from tests.fakes.imds import imds
from tests.fakes.moto_server import ACCOUNT, CLUSTER, REGION, aws_server, client, user_with
from tests.fakes.unreached import Scene
from tests.fakes.vendor import MIRROR, Vendor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.fakes.authorities import Made, Maker
    from tests.fakes.aws_server import AwsServer, Call
    from tests.fakes.imds import Imds

pytest.importorskip("moto")
pytest.importorskip("flask")


FAR = "10.88.20.5"  # an instance in another VPC


@dataclass
class Site:
    """AWS with a cluster and what options name; a host is made for each run."""

    server: AwsServer
    cluster: AwsCluster
    ca: Made
    metadata: Imds
    instances: int = 10

    def configure(self, desired: Desired, keys: Mapping[str, str]) -> str:
        """Configure a new host with somebody's keys, and return the report."""
        vendor = Vendor(addresses=self.cluster.addresses)
        host = vendor.machine(dt.datetime.now(dt.timezone.utc))
        run = new_run(host, "configure", self.environ(keys))
        wanted = Desired(
            ca_cert=CaSource("inline", self.ca.pem.decode()),
            package_source=MIRROR,
            sha256=vendor.checksums(),
        )
        given = {name: value for name, value in vars(desired).items() if value != getattr(Desired(), name)}
        if not desired.names_hsms:
            given["hsm_ip"] = self.cluster.addresses
        whole = Desired(**{**vars(wanted), **given})
        return to_document(commands.configure(host, whole, run, NullProgress()))

    def search(self, _desired: Desired, keys: Mapping[str, str]) -> str:
        """Ask all that may be asked about a path between two VPCs, as is done where an HSM is not reached."""
        view = RealTime()
        client = AwsAccess(view, self.environ(keys), REGION).client
        asked = PathQuestions(client, view.monotonic() + 60)
        found = [asked.interfaces_at((address,)) or () for address in (FAR, self.cluster.addresses[0])]
        list(asked.networks([each for some in found for each in some]))
        return "".join(f"aws-denied {each}" for each in asked.denied)

    def configure_and_search(self, desired: Desired, keys: Mapping[str, str]) -> str:
        return f"{self.configure(desired, keys)}{self.search(desired, keys)}"

    def attach(self, desired: Desired, keys: Mapping[str, str]) -> str:
        """Configure an instance that has not the cluster's group, and search."""
        self.instances += 1
        made = self.cluster.add_instance(f"10.77.20.{self.instances}", "new", attached=False)
        Scene(self.server, self.cluster, made, self.metadata).tell_metadata(made.interface)
        return self.configure_and_search(desired, keys)

    def environ(self, keys: Mapping[str, str]) -> dict[str, str]:
        return {
            **keys,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.server.url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.metadata.url,
        }

    def describe(self, desired: Desired, keys: Mapping[str, str]) -> str:
        """Ask what `hsm-agent cluster` asks; what was denied stands in it."""
        source = desired.ca_cert.value if desired.ca_cert else None
        machine = Vendor().machine(dt.datetime.now(dt.timezone.utc))
        environ = {**self.environ(keys), "AWS_EC2_METADATA_DISABLED": "true"}
        try:
            view = ask_cluster(machine, environ, CLUSTER, REGION, None, source)
        except AgentError as error:
            return f"{error.code.name} {error.sentence}"
        return json.dumps(to_tree(view))

    def fetch_packages(self, desired: Desired, keys: Mapping[str, str]) -> str:
        """Download a package as a host does, and as an operator does for a roll-out."""
        url = f"{desired.package_source}/Noble/cli.deb"
        with tempfile.TemporaryDirectory() as folder:
            machine = Posix(environ=self.environ(keys))
            try:
                machine.download(url, f"{folder}/cli", sha256=None, limit=99, timeout=20)
            except AgentError as error:
                return f"{error.code.name} {error.sentence}"
        return ""

    def fetch_agent(self, _desired: Desired, keys: Mapping[str, str]) -> str:
        """Fetch what user-data names as the image's `aws` does: botocore is what it is made of."""
        names = ("aws_access_key_id", "aws_secret_access_key")
        given = dict(zip(names, (keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"])))
        try:
            client(self.server.url, "s3", **given).get_object(Bucket="packages", Key="agent.deb")
        except Exception as error:  # noqa: BLE001 -- a class of botocore's own, made at run time
            return f"aws-denied s3:GetObject: {error}"
        return ""


@pytest.fixture(scope="module")
def site(maker: Maker) -> Iterator[Site]:
    ca = maker.root("policy-ca", "/CN=customer", days=3652)
    leaf = maker.below(ca, "policy-cluster", "/CN=cluster", section="leaf")
    with aws_server() as server, imds() as metadata:
        metadata.texts["placement/region"] = REGION
        s3 = client(server.url, "s3")
        s3.create_bucket(Bucket="packages", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket="packages", Key="agent.deb", Body=b"deb")
        s3.put_object(Bucket="packages", Key="ca.crt", Body=ca.pem)
        s3.put_object(Bucket="packages", Key="mirror/Noble/cli.deb", Body=b"deb")
        client(server.url, "iam").create_role(
            RoleName="AWSServiceRoleForCloudHSM",
            Path=f"/{ROLE_PATH}",
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [TRUST]}),
        )
        client(server.url, "ssm").put_parameter(Name="/hsm/ca", Value=ca.pem.decode(), Type="SecureString")
        client(server.url, "secretsmanager").create_secret(Name="hsm/ca", SecretString=ca.pem.decode())
        cluster = seed_aws_cluster(server.url, begun=False, certificate=leaf.pem.decode())
        cluster.add_instance(FAR, "far", attached=False, vpc=cluster.add_vpc("10.88.0.0/16"))
        yield Site(server, cluster, ca, metadata)


@dataclass(frozen=True)
class Case:
    """Options, and a command that calls AWS for all of them."""

    name: str
    options: dict[str, Any]
    run: Callable[[Site, Desired, Mapping[str, str]], str] = Site.configure
    audience: str = "host"
    more: dict[str, Any] = field(default_factory=dict)

    def policy(self) -> dict[str, Any]:
        return policy_of(PolicyRequest(Desired(**self.options), self.audience, REGION, **self.more))


ROLE_PATH = "aws-service-role/cloudhsm.amazonaws.com/"
TRUST = {"Effect": "Allow", "Principal": {"Service": "cloudhsm.amazonaws.com"}, "Action": "sts:AssumeRole"}
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab"
STACK = "cfn:web/Host?region=eu-central-1"
CASES = (
    Case("addresses", {"hsm_ip": ("10.77.10.10", "10.77.11.10", "10.77.12.10")}),
    Case("search", {"hsm_ip": ("10.77.10.10",)}, Site.search, more={"search": True}),
    Case("cluster", {"cluster_id": CLUSTER, "region": REGION}, Site.configure_and_search),
    Case("signal", {"report_to": (STACK,)}),
    Case(
        "attach",
        {"cluster_id": CLUSTER, "region": REGION, "attach_group": True},
        Site.attach,
        more={"vpc": "vpc-0a1b2c3d"},
    ),
    Case(
        "cluster and signal",
        {"cluster_id": CLUSTER, "region": REGION, "report_to": (STACK,)},
        Site.configure_and_search,
    ),
    Case("account", {"report_to": (STACK,)}, more={"account": ACCOUNT}),
    Case("CA in S3", {"ca_cert": CaSource("aws", "s3://packages/ca.crt"), "region": REGION}),
    Case("CA in Parameter Store", {"ca_cert": CaSource("aws", "ssm:/hsm/ca"), "region": REGION}),
    Case("CA in Secrets Manager", {"ca_cert": CaSource("aws", "secretsmanager:hsm/ca"), "region": REGION}),
    Case(
        "CA and key", {"ca_cert": CaSource("aws", "ssm:/hsm/ca:1"), "region": REGION}, more={"keys": (KEY,)}
    ),
    Case(
        "CA of an operator",
        {"cluster_id": CLUSTER, "region": REGION, "ca_cert": CaSource("aws", "s3://packages/ca.crt")},
        Site.describe,
        "operator",
    ),
    Case("operator", {"cluster_id": CLUSTER, "region": REGION}, Site.describe, "operator"),
    Case("packages", {"package_source": "s3://packages/mirror"}, Site.fetch_packages),
    Case(
        "packages of an operator", {"package_source": "s3://packages/mirror"}, Site.fetch_packages, "operator"
    ),
    Case("reports in S3", {"report_to": ("s3://packages/reports/",), "region": REGION}),
    Case(
        "reports and key", {"report_to": ("s3://packages/reports/",), "region": REGION}, more={"keys": (KEY,)}
    ),
    Case("inventory", {"report_to": ("ssm-inventory:",), "region": REGION}),
    Case(
        "everything",
        {
            "cluster_id": CLUSTER,
            "region": REGION,
            "ca_cert": CaSource("aws", "ssm:/hsm/ca"),
            "report_to": (STACK, "s3://packages/reports/", "ssm-inventory:"),
        },
        Site.configure_and_search,
    ),
    Case("agent", {}, Site.fetch_agent, more={"agent": "s3://packages/agent.deb"}),
)


def calls_of(site: Site, case: Case, policy: Mapping[str, Any]) -> tuple[str, list[Call]]:
    """Run the command as a user with this policy; return what it says, and what it called."""
    keys = user_with(site.server.url, for_moto(policy))
    with site.server.enforcing():
        said = case.run(site, Desired(**case.options), keys)
    return said, [each for each in site.server.calls if each.key_id == keys["AWS_ACCESS_KEY_ID"]]


def called(policy: Mapping[str, Any]) -> list[str]:
    """Return the actions of a policy that somebody calls: a key's is for the service that keeps what is read."""
    return [each for each in actions(policy) if not each.startswith("kms:")]


def for_moto(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy that moto understands: but for S3 it asks whether an action is allowed on `*`, and unasked."""
    return {
        **policy,
        "Statement": [
            each if each["Action"][0].startswith("s3:") else {**each, "Resource": ["*"], "Condition": {}}
            for each in policy["Statement"]
        ],
    }


def resource_of(call: Call) -> str:
    """Return the ARN that AWS looks for in a policy, from the parameters of a call."""
    place, named = f"{call.region}:{ACCOUNT}", {"path": "", **call.params}
    arns: dict[str, Callable[[], str]] = {
        "cloudformation:SignalResource": lambda: f"cloudformation:{place}:stack/{named['StackName']}/0a1b2c",
        "ec2:ModifyNetworkInterfaceAttribute": lambda: (
            f"ec2:{place}:network-interface/{named['NetworkInterfaceId']}"
        ),
        "iam:GetRole": lambda: f"iam::{ACCOUNT}:role/{ROLE_PATH}{named['RoleName']}",
        "secretsmanager:GetSecretValue": lambda: f"secretsmanager:{place}:secret:{named['SecretId']}-a1B2c3",
        "ssm:GetParameter": lambda: f"ssm:{place}:parameter/{named['Name'].strip('/').partition(':')[0]}",
        **dict.fromkeys(
            ("s3:GetObject", "s3:PutObject"), lambda: f"s3:::{unquote(named['path']).lstrip('/')}"
        ),
    }
    return f"arn:aws:{arns[call.permission]()}" if call.permission in arns else "*"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_policy_allows_what_is_called_and_nothing_more(site: Site, case: Case) -> None:
    policy = case.policy()
    said, calls = calls_of(site, case, policy)
    assert "aws-denied" not in said
    assert [each for each in calls if each.status >= 300] == []
    assert sorted({each.permission for each in calls}) == called(policy)
    for each in calls:
        context = {
            "aws:RequestedRegion": each.region,
            "ec2:Vpc": f"arn:aws:ec2:{each.region}:{ACCOUNT}:vpc/vpc-0a1b2c3d",
        }
        assert allows(policy, each.permission, resource_of(each), context)
    assert misfits(policy) == []


@pytest.mark.parametrize(
    "case", [each for each in CASES if called(each.policy())], ids=lambda case: case.name
)
def test_without_any_one_action_it_is_denied_and_named(site: Site, case: Case) -> None:
    for action in called(case.policy()):
        less = case.policy()
        for each in less["Statement"]:
            each["Action"] = [other for other in each["Action"] if other != action]
        less["Statement"] = [each for each in less["Statement"] if each["Action"]]
        said, calls = calls_of(site, case, less)
        assert action in said
        assert [each.status for each in calls if each.permission == action] != []


@pytest.mark.parametrize(
    "case", [each for each in CASES if called(each.policy())], ids=lambda case: case.name
)
def test_iam_takes_the_policy(site: Site, case: Case) -> None:
    """moto has IAM's rules of form: Sids, ARNs, operators."""
    iam = client(site.server.url, "iam")
    name = f"policy-{case.name.replace(' ', '-')}"
    iam.create_policy(PolicyName=name, PolicyDocument=json.dumps(case.policy()))


def test_every_purpose_is_called_by_some_case() -> None:
    covered = {each["Sid"] for case in CASES for each in case.policy()["Statement"]}
    # called in test_fleet_over_ssm.py, test_ec2_inventory.py, test_trust_console.py and test_collected_reports.py
    of_ssm = {"SendCommands", "FollowCommands", "CreateDocuments"}
    of_fleets = {"FindHosts", "ReadConsoles", "DescribeEntry", "ListReports", "ReadReports"}
    assert covered | of_ssm | of_fleets == {purpose.sid for purpose in PURPOSES}
