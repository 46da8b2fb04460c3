"""First boot by a cluster's id: cloud-init runs the printed user-data on an instance that has nothing but its role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.building import release_of_this_run
from tests.fakes.moto_server import REGION, policy, role_with

from .cloud import METADATA, Cloud, cloud
from .first_boot import user_data
from .installed import VERIFY, ended, last_report
from .scene import CA, servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .lab import Lab

# the least that these options take: nothing is looked for where every HSM is reached
ACTIONS = (
    "cloudhsm:DescribeClusters",
    "ec2:DescribeNetworkInterfaces",
    "ec2:ModifyNetworkInterfaceAttribute",
)
ENDPOINTS = "/etc/hsm-agent/aws-ca.pem"
IMAGE, ADDRESS = "ubuntu24.04", "10.77.20.21"


@pytest.fixture(scope="module")
def around(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(lab, tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release_of_this_run(tmp_path_factory).dist


def test_an_instance_finds_its_cluster_and_joins_its_group(
    around: Cloud, make_host: MakeHost, built: Path
) -> None:
    around.scene.package(IMAGE)
    told = ["--region", REGION, "--attach-group"]
    data = user_data(around.scene, IMAGE, "shell", next(built.glob("*.deb")), told, around.aws.id)
    assert not any(each.encode() in data for each in around.aws.addresses)
    host = make_host(f"{IMAGE}-cloud+systemd", init="idle", ip=ADDRESS)
    made = around.join(host, "boots", attached=False)
    role = role_with(around.aws.url, policy(*ACTIONS), "boot")
    made.assume(role)
    host.put("/var/lib/cloud/seed/nocloud/user-data", data)
    host.put("/var/lib/cloud/seed/nocloud/meta-data", f"instance-id: {made.instance.id}\n".encode())
    host.put(ENDPOINTS, around.bundle)
    # an instance needs neither: its firmware names EC2, and AWS's certificates are in every trust store
    surroundings = f"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://{METADATA} AWS_CA_BUNDLE={ENDPOINTS}"
    host.put(
        "/etc/systemd/system.conf.d/aws.conf", f"[Manager]\nDefaultEnvironment={surroundings}\n".encode()
    )
    host.kill9()
    host.init = "systemd"
    around.server.calls.clear()
    with around.server.enforcing():
        host.boot()
        report: dict[str, Any] = last_report(host)
        assert ended(host, VERIFY) == ("success", "0")
    assert host.must(["cloud-init", "status"]).strip() == "status: done"
    assert (report["command"], report["exit_status"]) == ("configure", 0), report
    outcomes = {each["id"]: each["outcome"] for each in report["steps"]}
    assert (outcomes["cluster:state"], outcomes["cluster:ca"], outcomes["cluster:group"]) == (
        "met",
        "met",
        "changed",
    )
    assert around.aws.group in around.aws.groups_of(made.instance.interface)
    assert servers(host) == list(around.aws.addresses)
    assert host.testinfra.file(CA).content == around.scene.made.ca.cert.read_bytes()
    mine = {each.permission for each in around.server.calls if each.key_id == role["AWS_ACCESS_KEY_ID"]}
    assert mine == set(ACTIONS)
    for secret in (role["AWS_SECRET_ACCESS_KEY"], role["AWS_SESSION_TOKEN"]):
        kept = host.run(
            ["grep", "-rlF", secret, "/var/lib", "/var/log", "/etc", "/opt", "/run", "/tmp", "/root"]
        )
        assert (kept.returncode, kept.stdout) == (1, "")
        assert secret not in json.dumps(report)
