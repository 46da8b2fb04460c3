"""A roll-out by the id of a cluster: the operator asks AWS, and hosts need neither a permission nor a way to it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.building import release_of_this_run
from tests.fakes.moto_server import REGION, policy, role_with

from .cloud import Cloud, cloud, listen_in
from .fleet import Operator
from .network import OPERATOR_IP
from .scene import agent, servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .host import LabHost
    from .lab import Lab

IMAGES = ("ubuntu22.04", "amzn2023")


@pytest.fixture(scope="module")
def around(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(lab, tmp_path_factory.mktemp("cloud"), hsms=3) as made:
        for image in IMAGES:
            made.scene.package(image)
        yield made


@dataclass
class Person(Operator):
    """An operator with a role in AWS, who names the cluster."""

    aws: Mapping[str, str] | None = None
    cluster: str = ""

    @property
    def env(self) -> Mapping[str, str]:
        return {**super().env, **(self.aws or {}), "AWS_REGION": REGION}

    def options(self) -> list[str]:
        argv = super().options()
        while "--hsm-ip" in argv:
            at = argv.index("--hsm-ip")
            del argv[at : at + 2]
        return ["--cluster-id", self.cluster, *argv]


@pytest.fixture(scope="module")
def keys(around: Cloud, lab: Lab) -> dict[str, str]:
    """The variables of a person who may describe clusters, and of the endpoint at the operator's seat."""
    role = role_with(around.aws.url, policy("cloudhsm:DescribeClusters"), "person")
    url = around.server.also_listen(listen_in(lab.operator.net, OPERATOR_IP, 8790))
    return {**role, "AWS_ENDPOINT_URL": url}


@pytest.fixture
def person(
    around: Cloud, keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Person:
    tree = release_of_this_run(tmp_path_factory).archive
    return Person(around.scene, tmp_path / "home", tree, aws=keys, cluster=around.aws.id)


def member(around: Cloud, lab: Lab, image: str, address: str) -> LabHost:
    """Return a host in the cluster's group, on which nothing says where AWS is."""
    host = lab.host(image, agent=True, ip=address)
    around.stack.callback(lab.end, host)
    around.join(host, host.name)
    return host


def test_the_operator_asks_for_all_hosts(around: Cloud, lab: Lab, person: Person) -> None:
    hosts = [member(around, lab, image, f"10.77.20.{number}") for number, image in enumerate(IMAGES, 7)]
    person.meet(*hosts)
    person.inventory()
    description = around.aws.cluster.description
    every = list(description["Hsms"])
    around.server.calls.clear()

    # before its third HSM is there
    description["Hsms"] = every[:2]
    with around.server.enforcing():
        first = person.rollout()
    assert (first.exit_status, set(first.outcomes.values())) == (0, {"ok"}), first
    assert [call.permission for call in around.server.calls] == ["cloudhsm:DescribeClusters"]
    for host in hosts:
        assert servers(host) == [each["EniIp"] for each in every[:2]]
        report = first.host(host.name)["report"]
        assert report["cluster"]["id"] == around.aws.id
        lines = {each["id"]: each["outcome"] for each in report["steps"]}
        assert {lines[f"cluster:{name}"] for name in ("state", "addresses", "ca")} == {"met"}

    # a host checks itself against what it was sent, without AWS
    alone = agent(hosts[0], "verify")
    assert (alone.exit_status, alone.code) == (0, None), alone
    assert "cluster-not-checked" in {each["code"] for each in alone.report["warnings"]}

    description["Hsms"] = every
    with around.server.enforcing():
        second = person.rollout()
    assert (second.exit_status, set(second.outcomes.values())) == (0, {"ok"}), second
    for host in hosts:
        assert servers(host) == [each["EniIp"] for each in every]


def test_a_cluster_that_cannot_be_used_stops_a_roll_out_before_its_first_host(
    around: Cloud, lab: Lab, person: Person
) -> None:
    host = member(around, lab, IMAGES[0], "10.77.20.20")
    person.meet(host)
    person.inventory()
    description = around.aws.cluster.description
    description["State"] = "UNINITIALIZED"
    try:
        done = person.run("rollout", *person.everything(), "--output", "json")
    finally:
        description["State"] = "ACTIVE"
    assert done.returncode == 43, done
    assert "cluster-uninitialized" in done.stdout
    assert not host.testinfra.file("/var/lib/hsm-agent").exists


EC2 = (
    "cloudhsm:DescribeClusters", "ec2:DescribeInstances", "ec2:DescribeImages", "ec2:DescribeNetworkInterfaces",
    "ec2:GetConsoleOutput",
)  # fmt: skip


def console(host: LabHost) -> str:
    """Return what cloud-init prints of a host's keys on a serial console."""
    key = host.get("/etc/ssh/ssh_host_ed25519_key.pub").decode()
    text = f"boot\n-----BEGIN SSH HOST KEY KEYS-----\n{key}-----END SSH HOST KEY KEYS-----\nlogin:\n"
    return text.replace("\n", "\r\n")


def test_an_inventory_of_ec2_and_keys_on_consoles_need_no_list_and_no_blind_trust(
    around: Cloud, lab: Lab, person: Person
) -> None:
    hosts = [member(around, lab, image, f"10.77.20.{number}") for number, image in enumerate(IMAGES, 31)]
    first, second = (next(each.instance for each in around.hosts if each.host is host) for host in hosts)
    for each in (first, second):
        around.aws.set_image(each.id, "al2023-ami-2023.9.20260101.0-kernel-6.1-x86_64")
        around.aws.ec2.create_tags(Resources=[each.id], Tags=[{"Key": "Role", "Value": "lab, ec2"}])
    around.aws.put_console(first.id, console(hosts[0]))
    around.aws.put_console(second.id, console(hosts[0]))  # of another boot, or of another host: not its keys
    person.aws = {**(person.aws or {}), **role_with(around.aws.url, policy(*EC2), "fleet")}
    terms = rf"ec2:cluster={around.aws.id},tag:Role=lab\, ec2,group=Role"
    asked = [
        "--inventory",
        terms,
        "--trust-console",
        *person.options(),
        "--max-failed",
        "1",
        "--output",
        "json",
    ]

    around.server.calls.clear()
    with around.server.enforcing():
        done = person.run("rollout", *asked)
    report = json.loads(done.stdout)
    ends = {each["name"]: each for each in report["hosts"]}
    assert {name: each["outcome"] for name, each in ends.items()} == {
        first.id: "ok",
        second.id: "unreachable",
    }, done
    assert ends[second.id]["code"] == "host-key-unknown"
    assert f"the console of {second.id} shows SHA256:" in ends[second.id]["saw"]
    assert around.server.permissions().count("ec2:DescribeInstances") == 1
    assert servers(hosts[0]) == list(around.aws.addresses)
    assert not hosts[1].testinfra.file("/var/lib/hsm-agent").exists

    around.aws.put_console(second.id, console(hosts[1]))
    with around.server.enforcing():
        done = person.run("rollout", "--resume", "last", "--trust-console", "--output", "json")
    report = json.loads(done.stdout)
    assert {each["name"]: each["outcome"] for each in report["hosts"]} == {first.id: "ok", second.id: "ok"}, (
        done
    )
    assert servers(hosts[1]) == list(around.aws.addresses)
    assert sorted(line.split()[0] for line in person.known_hosts.read_text().splitlines()) == sorted(
        (first.id, second.id)
    )
