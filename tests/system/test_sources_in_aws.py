"""Hosts that get their CA and packages from AWS and report there, with an instance's role: real apt, dnf and TLS."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.fakes.moto_server import REGION, client, policy

from .cloud import Cloud, CloudHost, cloud
from .desk import spool
from .scene import CA, ROWS, STATE, agent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .lab import Lab

IMAGES = ("ubuntu22.04", "rhel9")
SINKS = ("s3://reports/lab/", "ssm-inventory:")
READS = ("s3:GetObject", "ssm:GetParameter", "secretsmanager:GetSecretValue")
WRITES = ("s3:PutObject", "ssm:PutInventory")


@pytest.fixture(scope="module")
def around(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A cloud whose buckets, parameters and secrets have what hosts need, and one private key."""
    with cloud(lab, tmp_path_factory.mktemp("cloud")) as made:
        url, ca = made.server.url, made.scene.made.ca
        s3, pem = client(url, "s3"), ca.cert.read_text()
        for bucket in ("packages", "reports"):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
        for image in IMAGES:
            file = made.scene.package(image, padding_mb=5)
            key = f"{ROWS[image][1]}/{file}"
            data = (made.scene.folder / "mirror" / key).read_bytes()
            s3.put_object(Bucket="packages", Key=f"mirror/{key}", Body=data)
        client(url, "ssm").put_parameter(Name="/hsm/ca", Value=pem, Type="SecureString")
        secret = json.dumps({"pem": pem.replace("\n", " "), "key": ca.key.read_text()})
        client(url, "secretsmanager").create_secret(Name="hsm", SecretString=secret)
        yield made


@pytest.fixture
def host(image: str, around: Cloud, lab: Lab) -> CloudHost:
    made = lab.host(image, agent=True, ip=f"10.77.20.{20 + IMAGES.index(image)}")
    around.stack.callback(lab.end, made)
    return around.join(made, image.replace(".", "-"))


@pytest.mark.parametrize("image", IMAGES)
def test_a_host_needs_nothing_but_its_role(around: Cloud, host: CloudHost, image: str) -> None:
    machine, scene, env = host.host, around.scene, host.environ

    def allow(*actions: str) -> None:
        """Let the role of the host do this and no more."""
        client(around.server.url, "iam").put_role_policy(
            RoleName=f"{image.replace('.', '-')}-role",
            PolicyName="given",
            PolicyDocument=json.dumps(policy(*actions)),
        )

    options = [word for address in scene.addresses for word in ("--hsm-ip", address)]
    options += [word for file, digest in scene.sums.items() for word in ("--sha256", f"{file}={digest}")]
    options += [word for uri in SINKS for word in ("--report-to", uri)]
    options += ["--package-source", "s3://packages/mirror"]
    around.server.calls.clear()

    with around.server.enforcing():
        allow(*WRITES)
        denied = agent(machine, "configure", *options, "--ca-cert", "ssm:/hsm/ca", env=env)
        assert (denied.exit_status, denied.code) == (12, "aws-denied"), denied
        assert "ssm:GetParameter" in denied.report["failure"]["sentence"]
        allow(*READS, *WRITES)
        wrong = agent(machine, "configure", *options, "--ca-cert", "secretsmanager:hsm#key", env=env)
        assert (wrong.exit_status, wrong.code, wrong.report["changed"]) == (30, "ca-is-private-key", False)
        assert not machine.testinfra.package("cloudhsm-cli").is_installed
        first = agent(machine, "configure", *options, "--ca-cert", "secretsmanager:hsm#pem", env=env)
    assert (first.exit_status, first.code, first.outcome("package:cli")) == (0, None, "changed"), first
    assert machine.testinfra.package("cloudhsm-cli").is_installed
    assert machine.get(CA) == scene.made.ca.cert.read_bytes()
    assert first.step("package:cli")["url"].startswith("s3://packages/mirror/")
    parts = [each for each in around.server.calls if each.permission == "s3:GetObject"]
    assert len(parts) > 2
    assert {each.permission for each in around.server.calls if each.key_id == host.role["AWS_ACCESS_KEY_ID"]} == {
        *READS, *WRITES,
    }  # fmt: skip

    again = agent(machine, "configure", *options, "--ca-cert", "ssm:/hsm/ca", env=env)
    assert (again.exit_status, again.outcomes) == (0, {"met"}), again
    allow("ssm:PutInventory")
    with around.server.enforcing():
        kept = agent(machine, "verify", env=env)  # the CA is known; the bucket is denied
    assert (kept.exit_status, kept.code, kept.outcomes) == (60, "report-undelivered", {"met"}), kept
    assert "s3:PutObject" in kept.report["warnings"][-1]["text"]
    assert len(spool(machine)) == 1
    allow(*WRITES)
    with around.server.enforcing():
        last = agent(machine, "verify", env=env)
    assert (last.exit_status, spool(machine)) == (0, []), last

    s3, ssm = client(around.server.url, "s3"), client(around.server.url, "ssm")
    name = first.report["host"]["name"]
    stored = json.loads(s3.get_object(Bucket="reports", Key=f"lab/{name}.json")["Body"].read())
    assert stored["run_id"] == last.report["run_id"]
    found = s3.list_objects_v2(Bucket="reports", Prefix="lab/history/")["Contents"]
    assert [each["Key"].rpartition("/")[2] for each in found].count(f"{name}.json") in (1, 2)  # midnight
    (item,) = ssm.list_inventory_entries(InstanceId=host.instance.id, TypeName="Custom:CloudHSMClient")[
        "Entries"
    ]
    assert (item["RunId"], item["ClientVersion"]) == (last.report["run_id"], "5.18.0")

    key = scene.made.ca.key.read_text().splitlines()[1]
    secrets = (host.role["AWS_SECRET_ACCESS_KEY"], host.role["AWS_SESSION_TOKEN"], key)
    for secret in secrets:
        for place in (STATE, "/var/log", "/run", "/var/cache", "/opt/cloudhsm"):
            assert machine.run(["grep", "-rqsF", "-e", secret, place]).returncode == 1, (secret[:8], place)
