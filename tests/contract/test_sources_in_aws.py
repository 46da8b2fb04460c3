"""`configure` with its CA and its sinks in AWS: on a host in memory, against moto; what is kept holds no secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from agent import commands
from agent.config.desired import Desired, to_json
from agent.config.options import CaSource
from agent.render.json_report import to_document
from agent.render.progress import NullProgress
from agent.report import new_run
from agent.user_data import parse_agent_source, user_data
from tests.fakes.aws import KEYS, SECRET, TOKEN
from tests.fakes.moto_server import REGION, aws_server, client
from tests.fakes.vendor import MIRROR, Vendor
from tests.golden.runs import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.core.model import Report
    from tests.fakes.aws_server import AwsServer

CA_PATH = "/opt/cloudhsm/etc/customerCA.crt"
ADDRESS = "10.0.1.6"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAhunter2\n-----END RSA PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def running() -> Iterator[AwsServer]:
    with aws_server() as server:
        yield server


@pytest.fixture
def server(running: AwsServer) -> AwsServer:
    running.misbehave()
    running.calls.clear()
    return running


class Site:
    """A host whose environment has credentials, and nothing of which may keep a secret."""

    def __init__(self, server: AwsServer) -> None:
        self.vendor = Vendor(addresses=(ADDRESS,))
        self.host = self.vendor.machine(NOW)
        self.environ = {**KEYS, "AWS_ENDPOINT_URL": server.url, "AWS_EC2_METADATA_DISABLED": "true"}

    def desired(self, source: str, **more: object) -> Desired:
        options: dict[str, object] = {
            "hsm_ip": (ADDRESS,), "region": REGION, "ca_cert": CaSource.of(source), "accept_single_hsm": True,
            "package_source": MIRROR, "sha256": self.vendor.checksums(), **more,
        }  # fmt: skip
        return Desired(**options)  # type: ignore[arg-type]

    def configure(self, desired: Desired) -> Report:
        run = new_run(self.host, "configure", self.environ)
        return self._kept(commands.configure(self.host, desired, run, NullProgress()))

    def verify(self) -> Report:
        run = new_run(self.host, "verify", self.environ)
        return self._kept(commands.verify(self.host, Desired(), run, NullProgress()))

    def _kept(self, report: Report) -> Report:
        kept = to_document(report) + repr(self.host.entries)
        for secret in (SECRET, TOKEN, "hunter2", "PRIVATE KEY"):
            assert secret not in kept
        self.host.sleep(1.0)  # a name of its own for each run
        return report


@pytest.fixture
def site(server: AwsServer) -> Site:
    return Site(server)


def test_a_ca_in_a_secret_is_placed_and_then_known(site: Site, server: AwsServer, ca_pem: bytes) -> None:
    secret = json.dumps({"pem": ca_pem.decode().replace("\n", " "), "password": "hunter2"})
    client(server.url, "secretsmanager").create_secret(Name="hsm", SecretString=secret)
    report = site.configure(site.desired("secretsmanager:hsm#pem"))
    assert (report.code, report.exit_status) == (None, 0)
    assert site.host.read(CA_PATH) == ca_pem
    server.calls.clear()
    assert site.verify().exit_status == 0
    assert server.calls == []


def test_a_private_key_in_the_secret_ends_the_run_before_any_change(site: Site, server: AwsServer) -> None:
    secrets = client(server.url, "secretsmanager")
    secrets.create_secret(Name="both", SecretString=json.dumps({"key": KEY}))
    report = site.configure(site.desired("secretsmanager:both#key"))
    assert (report.code, report.exit_status) == ("ca-is-private-key", 30)
    assert report.failure is not None
    assert "secretsmanager:NAME#KEY" in report.failure.hint
    assert site.host.stat(CA_PATH) is None
    assert not report.changed


@pytest.mark.parametrize(
    ("source", "code", "status"),
    [("ssm:/not/there", "ca-unreadable", 30), ("s3://no-such-bucket-at-all/ca", "ca-unreadable", 30)],
)
def test_a_ca_that_is_not_there_ends_the_run_before_any_change(
    site: Site, source: str, code: str, status: int
) -> None:
    report = site.configure(site.desired(source))
    assert (report.code, report.exit_status, report.changed) == (code, status, False)
    assert report.failure is not None
    assert source in report.failure.sentence


def test_a_report_goes_to_a_bucket_and_to_the_inventory(site: Site, server: AwsServer, ca_pem: bytes) -> None:
    s3 = client(server.url, "s3")
    s3.create_bucket(Bucket="reports", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="reports", Key="ca.crt", Body=ca_pem)
    site.host.place("/var/lib/amazon/ssm/mi-0abc123def4567890", kind="directory")
    sinks = ("s3://reports/all/", "ssm-inventory:")
    report = site.configure(site.desired("s3://reports/ca.crt", report_to=sinks))
    assert (report.code, report.exit_status, report.notices) == (None, 0, report.notices)
    assert not [each for each in report.notices if each.code.startswith("report-")]
    stored = json.loads(s3.get_object(Bucket="reports", Key="all/memory.json")["Body"].read())
    assert (stored["run_id"], stored["outcome"]) == (report.run_id, "ok")
    path = "/var/lib/amazon/ssm/mi-0abc123def4567890/inventory/custom/CloudHSMClient.json"
    left = json.loads(site.host.read(path) or b"")["Content"]
    assert (left["RunId"], left["ClientVersion"], left["HsmsReached"]) == (report.run_id, "5.18.0", "1")


@pytest.mark.parametrize("source", ["ssm:/hsm/ca", "s3://bucket/ca.crt", "secretsmanager:hsm#ca"])
@pytest.mark.parametrize("form", ["shell", "cloud-config"])
def test_user_data_names_the_source_and_asks_nothing(
    site: Site, server: AwsServer, source: str, form: str
) -> None:
    desired = site.desired(source)
    agent = parse_agent_source(site.host, "package", None, form)
    text = user_data(site.host, desired, agent, form).decode()
    assert source in text
    assert to_json(desired)["ca_cert"] == source
    assert server.calls == []
