"""`hsm-agent cluster` against moto: whom it asks, which cluster it means, and what stands where AWS denies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from agent.cli.cluster_query import ask_cluster
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.render.cluster.document import to_tree
from agent.state.records import LastConfigure, write_last
from tests.fakes.aws import KEYS, SECRET, TOKEN, RealTime
from tests.fakes.cluster_answers import SECRET as DESCRIBED
from tests.fakes.imds import imds, interface_texts
from tests.fakes.moto_server import CLUSTER, REGION, client, enforced, moto_server, user_who_may

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.cloudhsm.cluster_view import ClusterView

pytest.importorskip("moto")
pytest.importorskip("flask")

from tests.fakes.aws_cluster import AwsCluster, seed_aws_cluster

_CLIENT = b'{"clusters": [{"type": "hsm1", "cluster": {"cluster_id": "%s", "servers": [{"hostname": "10.77.10.10", "port": 2223, "enable": true}]}}]}'


@dataclass(frozen=True)
class Place:
    """moto with a cluster of two HSMs, a member of its group and an instance outside it."""

    cluster: AwsCluster
    member: str
    outsider: str

    @property
    def url(self) -> str:
        return self.cluster.url


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with moto_server() as url:
        cluster = seed_aws_cluster(url, hsms=2, begun=False)
        member = cluster.add_instance("10.77.20.7", "web-1")
        outsider = cluster.add_instance("10.77.20.8", "bastion", attached=False)
        yield Place(cluster, member.id, outsider.id)


def host() -> RealTime:
    machine = RealTime()
    machine.answers[("uname", "-m")] = CommandResult(0, "x86_64\n", "")
    return machine


def ask(
    place: Place,
    environ: Mapping[str, str] = MappingProxyType({}),
    *,
    machine: RealTime | None = None,
    cluster: str | None = CLUSTER,
) -> ClusterView:
    found = {**KEYS, "AWS_ENDPOINT_URL": place.url, "AWS_REGION": REGION, **environ}
    return ask_cluster(machine or host(), found, cluster, None, None, None)


def codes(view: ClusterView) -> dict[str, str]:
    return {each.code: each.text for each in view.risks}


def test_all_is_asked_and_said(place: Place) -> None:
    client(place.url, "iam").create_service_linked_role(AWSServiceName="cloudhsm.amazonaws.com")
    view = ask(place)
    instances = {each.instance.name: each for each in view.instances or ()}
    assert set(instances) == {"web-1", "bastion"}
    assert (instances["web-1"].in_group, instances["web-1"].reaches) == (True, True)
    (blocked,) = instances["bastion"].blocked
    assert (blocked.obstacle.code, blocked.obstacle.id) == ("group-not-attached", place.cluster.group)
    assert (view.group_name, view.others, view.error) == (f"cloudhsm-{CLUSTER}-sg", (), None)
    assert "10.77.10.0/24" in view.subnet_ranges.values()
    # moto calls the role by another name than AWS does
    assert set(codes(view)) == {"backup-old", "service-role-missing"}


def test_a_stopped_instance_is_there_and_a_terminated_one_is_not(place: Place) -> None:
    stopped, gone = (
        place.cluster.add_instance(f"10.77.20.{number}", f"web-{number}").id for number in (9, 10)
    )
    place.cluster.ec2.stop_instances(InstanceIds=[stopped])
    place.cluster.ec2.terminate_instances(InstanceIds=[gone])
    found = {each.instance.name: each.instance.state for each in ask(place).instances or ()}
    place.cluster.ec2.terminate_instances(InstanceIds=[stopped])
    assert found == {"web-1": "running", "bastion": "running", "web-9": "stopped"}


def test_this_host_is_found_by_its_metadata_and_asks_iam_nothing(place: Place) -> None:
    with imds(instance_id=place.outsider) as service:
        view = ask(place, {"AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url})
    assert [each.instance.name for each in view.instances or () if each.is_this_host] == ["bastion"]
    assert view.in_group is False
    assert "service-role-missing" not in codes(view)


def test_where_ec2_is_denied_the_metadata_tells_whether_this_host_is_in_the_group(place: Place) -> None:
    said = interface_texts(
        "02:00:00:00:00:07", interface="eni-0abc", vpc=place.cluster.vpc, subnet="subnet-1", groups={"sg-web": "web"},
        ipv4s=["10.77.20.7"],
    )  # fmt: skip
    environ = user_who_may(place.url, "cloudhsm:DescribeClusters")
    with imds(instance_id=place.member) as service, enforced(place.url):
        service.texts.update(said)
        view = ask(place, {**environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": service.url})
    assert (view.in_group, view.instances) == (False, None)
    (risk,) = (each for each in view.risks if each.code == "group-not-attached")
    assert f"--network-interface-id eni-0abc --groups sg-web {place.cluster.group}" in risk.cure


@pytest.mark.parametrize(
    ("actions", "wanted"),
    [
        (["cloudhsm:DescribeClusters"], {"instances": None, "other_interfaces": None}),
        (["cloudhsm:DescribeClusters", "ec2:DescribeInstances"], {"other_interfaces": None}),
        (["cloudhsm:DescribeClusters", "ec2:DescribeSecurityGroups"], {"instances": None}),
    ],
)
def test_what_is_denied_is_named_and_the_rest_stands(
    place: Place, actions: list[str], wanted: dict[str, None]
) -> None:
    environ = user_who_may(place.url, *actions)
    with enforced(place.url):
        view = ask(place, environ)
    tree = to_tree(view)
    assert {name: tree[name] for name in wanted} == wanted
    denied = [each.text.split(" ")[0] for each in view.risks if each.code == "aws-denied"]
    everything = {
        "ec2:DescribeInstances", "ec2:DescribeSecurityGroups", "ec2:DescribeNetworkAcls", "ec2:DescribeRouteTables",
        "ec2:DescribeSubnets", "ec2:DescribeNetworkInterfaces", "cloudhsm:DescribeBackups", "iam:GetRole",
    }  # fmt: skip
    assert set(denied) == everything - set(actions)
    assert (tree["exit_status"], len(tree["hsms"])) == (0, 2)
    if "ec2:DescribeInstances" in actions:
        # that group's rules are not known, but AWS makes them so that only members are let in
        assert {each["name"]: each["reaches"] for each in tree["instances"]} == {
            "web-1": None,
            "bastion": False,
        }


def test_without_describe_clusters_nothing_can_be_said(place: Place) -> None:
    environ = user_who_may(place.url, "ec2:DescribeInstances")
    with enforced(place.url), pytest.raises(AgentError) as caught:
        ask(place, environ)
    assert (caught.value.code.name, caught.value.code.exit_status) == ("aws-denied", 12)
    assert "cloudhsm:DescribeClusters" in caught.value.sentence


def test_a_service_that_is_not_reached_is_asked_once(place: Place) -> None:
    view = ask(place, dict.fromkeys(("AWS_ENDPOINT_URL_EC2", "AWS_ENDPOINT_URL_IAM"), "http://127.0.0.1:9"))
    assert [each.text.split(" ")[0] for each in view.risks if each.code == "aws-unreachable"] == [
        "ec2:DescribeInstances",
        "iam:GetRole",
    ]


# which cluster is meant


def test_an_id_that_is_none_is_refused_before_anybody_is_asked(place: Place) -> None:
    for name in ("cluster-1", "2abcdefghij", "cluster-2abcdefghij; rm -rf /", ""):
        with pytest.raises(AgentError) as caught:
            ask(place, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, cluster=name)
        assert caught.value.code.name == "usage"


def test_a_cluster_that_is_not_there_is_said_with_the_region(place: Place) -> None:
    with pytest.raises(AgentError) as caught:
        ask(place, cluster="cluster-zzzzzzzzzzz")
    assert (caught.value.code.name, caught.value.code.exit_status) == ("cluster-not-found", 43)
    assert REGION in caught.value.sentence


def test_the_only_one_of_the_region_is_meant(place: Place) -> None:
    view = ask(place, cluster=None)
    assert (view.cluster.id, view.named_by) == (CLUSTER, "no one: it is the only cluster in the region")
    with pytest.raises(AgentError) as caught:
        ask(place, {"AWS_REGION": "us-east-1"}, cluster=None)
    assert caught.value.code.name == "cluster-not-found"


def test_the_client_s_configuration_names_one(place: Place) -> None:
    machine = host()
    machine.place("/opt/cloudhsm/etc/cloudhsm-cli.cfg", _CLIENT % CLUSTER.encode())
    machine.place("/opt/cloudhsm/etc/cloudhsm-pkcs11.cfg", b"{")
    view = ask(place, machine=machine, cluster=None)
    assert view.named_by == "the client's configuration"
    (match,) = view.matches
    assert (match.component, match.missing, match.foreign) == ("cli", ("10.77.11.10",), ())
    machine.place("/opt/cloudhsm/etc/cloudhsm-cli.cfg", _CLIENT % b"cluster-zzzzzzzzzzz")
    with pytest.raises(AgentError) as caught:
        ask(place, machine=machine, cluster=None)
    assert caught.value.code.name == "cluster-not-found"


def test_the_options_in_force_and_the_record_name_one_with_its_region(place: Place) -> None:
    machine = host()
    elsewhere = {"AWS_REGION": "us-east-1"}
    options = {"HSM_AGENT_CLUSTER_ID": CLUSTER, "HSM_AGENT_REGION": REGION}
    view = ask(place, {**elsewhere, **options}, machine=machine, cluster=None)
    assert (view.cluster.region, view.named_by) == (REGION, "an option")
    recorded = {"cluster_id": CLUSTER, "region": REGION}
    write_last(machine, LastConfigure(recorded, None, "20261130T120000Z-0000"))
    view = ask(place, elsewhere, machine=machine, cluster=None)
    assert (view.cluster.region, view.named_by) == (REGION, "the last configure")
    view = ask(place, elsewhere, machine=machine)
    assert (view.cluster.region, view.named_by) == (REGION, "the argument")
    with pytest.raises(AgentError) as caught:
        ask(
            place, {**elsewhere, "HSM_AGENT_CLUSTER_ID": "cluster-zzzzzzzzzzz"}, machine=machine, cluster=None
        )
    assert (caught.value.code.name, "us-east-1" in caught.value.sentence) == ("cluster-not-found", True)


def test_of_several_none_is_chosen(place: Place) -> None:
    cloudhsm = client(place.url, "cloudhsmv2")
    subnet = client(place.url, "ec2").describe_subnets()["Subnets"][0]["SubnetId"]
    second = cloudhsm.create_cluster(HsmType="hsm1.medium", SubnetIds=[subnet])["Cluster"]["ClusterId"]
    try:
        with pytest.raises(AgentError) as caught:
            ask(place, cluster=None)
    finally:
        cloudhsm.delete_cluster(ClusterId=second)
    error = caught.value
    assert (error.code.name, error.code.exit_status) == ("usage", 2)
    assert {CLUSTER, second} <= set(error.saw.split())
    assert error.hint.startswith("hsm-agent cluster ")


# the command


def run(place: Place, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    found = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HSM_AGENT_"))}
    return subprocess.run(
        [sys.executable, "-m", "agent", "cluster", *argv],
        env={**found, **KEYS, "AWS_ENDPOINT_URL": place.url, "AWS_REGION": REGION, **environ},
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_command_prints_one_document(place: Place) -> None:
    done = run(place, CLUSTER, "--output", "json")
    assert (done.returncode, done.stderr) == (0, "")
    tree = json.loads(done.stdout)
    assert (tree["cluster"]["id"], tree["cluster"]["region"], tree["outcome"]) == (CLUSTER, REGION, "ok")
    assert not {SECRET, TOKEN} & set(done.stdout.split('"'))


def test_the_region_of_the_command_line_counts(place: Place) -> None:
    done = run(place, CLUSTER, "--region", "us-east-1", "--output", "json")
    assert done.returncode == 43
    assert json.loads(done.stdout)["code"] == "cluster-not-found"


def test_a_ca_that_is_named_is_proven_or_refused(
    place: Place, tmp_path: Path, ca_pem: bytes, other_ca_pem: bytes
) -> None:
    # a root is issued by itself, so that it may stand for the certificate of the cluster
    place.cluster.cluster.description["Certificates"] = {"ClusterCertificate": ca_pem.decode()}
    path = tmp_path / "customerCA.crt"
    for data, proven in ((ca_pem, True), (other_ca_pem, False)):
        path.write_bytes(data)
        done = run(place, CLUSTER, "--ca-cert", str(path), "--output", "json")
        tree = json.loads(done.stdout)
        assert (done.returncode, tree["ca"]["source"], tree["ca"]["proven"]) == (0, str(path), proven)
        assert ("ca-not-of-cluster" in {each["code"] for each in tree["notices"]}) is not proven
    done = run(place, CLUSTER, "--ca-cert", str(tmp_path / "none.crt"))
    assert (done.returncode, "ca-unreadable" in done.stderr) == (30, True)


def test_a_page_is_written_beside_the_result(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "cluster.html"
    done = run(place, CLUSTER, "--html", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    text = path.read_text(encoding="utf-8")
    assert ("bastion" in text, "bastion" in done.stdout) == (True, False)
    assert not any(secret in text for secret in (SECRET, TOKEN, DESCRIBED))
    done = run(place, CLUSTER, "--html", str(tmp_path / "none" / "cluster.html"), "--output", "json")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (2, "usage")
    done = run(place, CLUSTER, "--html", str(tmp_path), "--output", "json")
    assert (done.returncode, json.loads(done.stdout)["cluster"]["id"]) == (11, CLUSTER)
    assert str(tmp_path) in done.stderr


def test_no_aws_is_exit_12(place: Place) -> None:
    done = run(place, CLUSTER, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (12, "")
    assert "aws-unreachable" in done.stderr
