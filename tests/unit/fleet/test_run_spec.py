"""What was typed and the inventory become orders, or every complaint at once, before any host is contacted."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.aws.access import AwsAccess
from agent.cloudhsm.cluster import ClusterHsm, description_from_json
from agent.config.desired import from_json
from agent.config.input_errors import InputErrors
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.core.fleet_model import ArchiveDigests, HostResult, HostState, Target
from agent.fleet import run_spec
from agent.fleet.model import RunSpec, RunState
from agent.fleet.run_spec import FleetOptions
from agent.hosts.posix import Posix
from tests.fakes import cluster_answers as aws
from tests.fakes.aws import KEYS, RealTime, answers, refuses
from tests.fakes.receiver import receiver

if TYPE_CHECKING:
    from pathlib import Path

TOML = """
user = "ec2-user"
hsm.ip = ["10.0.1.6"]
[groups.web]
hosts = ["web-[1:2]"]
[groups.db]
hosts = ["db-1"]
hsm.ip = ["10.0.2.9"]
"""


class Scene:
    def __init__(self, folder: Path, pem: bytes) -> None:
        self.folder = folder
        (folder / "ca.crt").write_bytes(pem)
        (folder / "fleet.toml").write_text(TOML)
        (folder / "hosts").write_text("web-1\nweb-2\n")
        (folder / "fleet.yml").write_text("all:\n")
        self.flags: dict[str, Any] = {
            "ca_cert": CaSource("file", str(folder / "ca.crt")),
            "hsm_ip": ("10.0.1.7",),
        }
        self.below: list[dict[str, Any]] = []
        self.known: dict[str, HostState] = {}
        self.configured: dict[str, dict[str, Any]] = {}
        self.again: dict[str, Any] = {}
        self.aws = "http://127.0.0.1:9"

    def made(self, inventory: str | None = "hosts", command: str = "rollout", **typed: Any) -> RunSpec:
        path = str(self.folder / inventory) if inventory else None
        this = FleetOptions(inventory=path, **typed)
        return run_spec.new_spec(
            Posix(),
            self.access,
            command,
            this,
            self.flags,
            self.below,
            self.known,
            InputErrors(),
            self.configured,
        )

    def access(self, region: str | None) -> AwsAccess:
        """Return AWS on this loopback, where nobody listens unless a test says so."""
        return AwsAccess(RealTime(), {**KEYS, "AWS_ENDPOINT_URL": self.aws}, region or "eu-west-1")

    def refused(self, inventory: str | None = "hosts", **typed: Any) -> AgentError:
        with pytest.raises(AgentError) as refused:
            self.made(inventory, **typed)
        return refused.value


@pytest.fixture
def scene(tmp_path: Path, ca_pem: bytes) -> Scene:
    return Scene(tmp_path, ca_pem)


def test_the_ca_is_read_here_and_sent_as_text(scene: Scene, ca_pem: bytes) -> None:
    made = scene.made()
    assert [target.name for target in made.targets] == ["web-1", "web-2"]
    assert from_json(made.desired["web-2"]).ca_cert == CaSource("inline", ca_pem.decode())
    assert (made.parallel, made.shares, made.limit, made.soak, made.deadline) == (
        32,
        "1,10%,100%",
        "0",
        0.0,
        900.0,
    )


def test_the_inventory_is_stronger_than_the_file_and_weaker_than_a_flag(scene: Scene) -> None:
    scene.below = [{"hsm_ip": ("10.9.9.9",), "component": ("pkcs11",)}]
    del scene.flags["hsm_ip"]
    made = scene.made("fleet.toml")
    assert {name: tree["hsm_ip"] for name, tree in made.desired.items()} == {
        "web-1": ["10.0.1.6"], "web-2": ["10.0.1.6"], "db-1": ["10.0.2.9"],
    }  # fmt: skip
    assert made.desired["db-1"]["component"] == ["pkcs11"]
    scene.flags["hsm_ip"] = ("10.0.1.7",)
    assert {tuple(tree["hsm_ip"]) for tree in scene.made("fleet.toml").desired.values()} == {("10.0.1.7",)}


def test_a_repeated_roll_out_pushes_from_where_the_packages_lay(scene: Scene) -> None:
    """The host's record says only that they are pushed: which folder that was is on this side."""
    scene.flags = {}
    mirror = {"package_source": "/srv/mirror"}
    scene.configured = {"web-1": {**mirror, "hsm_ip": ["10.0.1.6"]}, "web-2": {}, "db-1": mirror}
    made = scene.made()
    assert (made.desired, made.before) == ({"web-1": {}, "web-2": {}}, {"web-1": mirror, "web-2": {}})
    scene.configured = {"web-1": mirror}
    assert "no roll-out from here configured web-2 (1 of 2 hosts)" in scene.refused().saw
    scene.known = {"web-2": HostState.DRIFTED}
    assert [each.name for each in scene.made(only=("drifted",)).targets] == ["web-2"]


def test_limit_and_only_choose_hosts(scene: Scene) -> None:
    assert [each.name for each in scene.made("fleet.toml", limit="web").targets] == ["web-1", "web-2"]
    named = scene.made("fleet.toml", host=("db-1", "web-2"))
    assert [each.name for each in named.targets] == ["web-2", "db-1"]
    scene.known = {"web-1": HostState.OK, "web-2": HostState.DEGRADED, "db-1": HostState.DRIFTED}
    assert [each.name for each in scene.made("fleet.toml", only=("failed",)).targets] == ["web-2"]
    assert [each.name for each in scene.made("fleet.toml", only=("failed", "drifted")).targets] == [
        "web-2",
        "db-1",
    ]


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        (
            {"parallel": "0"},
            "--parallel: '0' is not a number from 1 to 225: a cluster takes 900 client connections",
        ),
        ({"parallel": "226"}, "--parallel: '226' is not a number from 1 to 225"),
        ({"waves": "5,3,100%"}, "--waves: 3 does not go beyond 5"),
        ({"max_failed": "many"}, "--max-failed: 'many' is neither a number of hosts nor a percentage"),
        ({"soak": "soon"}, "--soak: 'soon' is not a duration"),
        ({"deadline": "0"}, "--deadline: '0' is not a duration"),
    ],
)
def test_a_pace_that_makes_no_sense_is_told(scene: Scene, typed: dict[str, str], complaint: str) -> None:
    error = scene.refused(**typed)
    assert error.code.name == "config-invalid"
    assert complaint in error.saw


def test_every_complaint_about_the_pace_comes_at_once(scene: Scene) -> None:
    error = scene.refused(parallel="x", waves="x", soak="x", max_failed="x", deadline="x", only=("bad",))
    assert (error.code.name, len(error.saw.splitlines())) == ("config-invalid", 6)
    error = scene.refused(
        "nothing", parallel="x", waves="x", soak="x", max_failed="x", deadline="x", only=("bad",)
    )
    assert (error.code.name, len(error.saw.splitlines())) == ("inventory-invalid", 7)


@pytest.mark.parametrize(
    ("inventory", "typed", "complaint"),
    [
        (None, {}, "--inventory: the file with the hosts is needed"),
        ("nothing", {}, "--inventory: there is no file"),
        ("fleet.yml", {}, "YAML is not read"),
        ("hosts", {"limit": "nobody"}, "nobody"),
        (
            "hosts",
            {"host": ("web-3",)},
            "--host: there is no host 'web-3' in the inventory; did you mean `web-",
        ),
        ("hosts", {"host": ("web-1",), "limit": "web-2"}, "--limit, --host, --all: one of them at a time"),
        ("hosts", {"only": ("failed",)}, "--only: there is no earlier run to choose by"),
    ],
)
def test_an_inventory_that_cannot_be_used_is_told(
    scene: Scene, inventory: str | None, typed: dict[str, Any], complaint: str
) -> None:
    error = scene.refused(inventory, **typed)
    assert error.code.name == "inventory-invalid"
    assert complaint in error.saw


def test_nobody_who_ended_so_is_told(scene: Scene) -> None:
    scene.known = {"web-1": HostState.OK}
    assert "no host of the inventory ended failed in the last run" in scene.refused(only=("failed",)).saw


def test_what_many_hosts_share_is_complained_about_once(scene: Scene) -> None:
    scene.flags["client_cert"] = "/root/client.crt"
    error = scene.refused()
    assert error.saw == "options: --client-cert, --client-key: each needs the other"


def test_a_ca_that_is_none_is_refused_here(scene: Scene) -> None:
    scene.flags["ca_cert"] = CaSource("file", str(scene.folder / "hosts"))
    assert scene.refused().code.name == "ca-not-a-certificate"
    scene.flags["ca_cert"] = CaSource("file", str(scene.folder / "none"))
    assert scene.refused().code.name == "ca-unreadable"


def test_another_ca_than_the_fingerprint_says_is_refused_here(scene: Scene) -> None:
    scene.flags["ca_fingerprint"] = "0" * 64
    assert scene.refused().code.name == "ca-fingerprint-differs"


def test_each_fingerprint_is_held_against_the_ca(scene: Scene) -> None:
    """Also the second of two hosts with one CA."""
    right = hashlib.sha256(ssl.PEM_cert_to_DER_cert((scene.folder / "ca.crt").read_text())).hexdigest()
    text = "".join(
        f'[hosts.{name}]\nhsm.ca_fingerprint = "{said}"\n' for name, said in (("a", right), ("b", "0" * 64))
    )
    (scene.folder / "two.toml").write_text(text)
    assert scene.refused("two.toml").code.name == "ca-fingerprint-differs"


def test_a_folder_of_packages_is_one_of_this_machine(scene: Scene) -> None:
    scene.flags["package_source"] = str(scene.folder)
    assert scene.made().desired["web-1"]["package_source"] == str(scene.folder)
    scene.flags["package_source"] = str(scene.folder / "none")
    assert scene.refused().saw == f"options: --package-source: there is no directory {scene.folder / 'none'}"
    scene.flags["package_source"] = "https://mirror.example/x"
    assert scene.made().desired["web-1"]["package_source"] == "https://mirror.example/x"


def story(scene: Scene) -> RunState:
    made = scene.made("fleet.toml")
    ends = {
        "web-1": HostResult("web-1", "web-1", 22, 1, HostState.OK),
        "web-2": HostResult("web-2", "web-2", 22, 2, HostState.UNREACHABLE),
    }
    return RunState("RUN", "now", made, ArchiveDigests(), ends=ends)


def go_on(scene: Scene, command: str = "rollout", **typed: Any) -> tuple[RunSpec, list[str]]:
    these, due = run_spec.resume_spec(
        Posix(),
        scene.access,
        story(scene),
        command,
        FleetOptions(resume="RUN", **typed),
        scene.again,
        InputErrors(),
    )
    return these, [target.name for target in due]


def test_what_is_left_is_everything_that_is_not_proven(scene: Scene) -> None:
    scene.again = {}
    these, due = go_on(scene)
    assert due == ["web-2", "db-1"]
    assert these == story(scene).spec
    assert go_on(scene, only=("unreachable",))[1] == ["web-2"]
    assert go_on(scene, only=("not-reached",))[1] == ["db-1"]


def test_what_is_typed_again_changes_every_host(scene: Scene) -> None:
    scene.again = {"hsm_ip": ("10.0.9.9",)}
    these, _ = go_on(scene, parallel="3")
    assert (these.parallel, {tuple(tree["hsm_ip"]) for tree in these.desired.values()}) == (
        3,
        {("10.0.9.9",)},
    )
    assert all(tree["ca_cert"].startswith("inline:") for tree in these.desired.values())


@pytest.mark.parametrize(
    ("command", "typed", "complaint"),
    [
        ("verify", {}, "--resume: that run is a `fleet rollout`"),
        ("rollout", {"inventory": "x"}, "--resume: the run has its hosts already"),
        ("rollout", {"limit": "x"}, "--resume: the run has its hosts already"),
        ("rollout", {"host": ("x",)}, "--resume: the run has its hosts already"),
        (
            "rollout",
            {"only": ("bad",)},
            "--only: 'bad' is not one of failed, unreachable, not-reached, drifted",
        ),
    ],
)
def test_going_on_has_its_own_complaints(
    scene: Scene, command: str, typed: dict[str, Any], complaint: str
) -> None:
    scene.again = {}
    with pytest.raises(AgentError) as refused:
        go_on(scene, command, **typed)
    assert complaint in refused.value.saw


def test_what_is_typed_again_is_complained_about_once(scene: Scene) -> None:
    scene.again = {"package_source": str(scene.folder / "none")}
    with pytest.raises(AgentError) as refused:
        go_on(scene)
    assert refused.value.saw == f"options: --package-source: there is no directory {scene.folder / 'none'}"


def test_a_run_of_another_version_is_told(scene: Scene) -> None:
    this = story(scene)
    old = replace(this, spec=replace(this.spec, desired={"web-1": {"colour": "red"}}))
    with pytest.raises(AgentError) as refused:
        run_spec.resume_spec(
            Posix(), scene.access, old, "rollout", FleetOptions(resume="RUN"), {}, InputErrors()
        )
    assert refused.value.code.name == "nothing-recorded"


def test_a_host_without_an_end_is_due(scene: Scene) -> None:
    before = replace(story(scene), ends={})
    _, due = run_spec.resume_spec(
        Posix(), scene.access, before, "rollout", FleetOptions(resume="RUN"), {}, InputErrors()
    )
    assert [target.name for target in due] == ["web-1", "web-2", "db-1"]


def test_what_was_proven_for_something_else_is_due_again(scene: Scene) -> None:
    """Else a run would end as proven with hosts that never had what was wanted at its end."""
    scene.again = {"hsm_ip": ("10.0.9.9",)}
    assert go_on(scene)[1] == ["web-1", "web-2", "db-1"]
    wanted = story(scene).spec.desired["web-1"]
    scene.again = {"hsm_ip": tuple(wanted["hsm_ip"])}
    these, due = go_on(scene)
    assert due == ["web-2", "db-1"]
    assert these.desired["web-1"] == wanted


def test_with_only_what_is_typed_again_is_for_those_hosts(scene: Scene) -> None:
    scene.again = {"hsm_ip": ("10.0.9.9",)}
    before = story(scene).spec.desired
    these, due = go_on(scene, only=("unreachable",))
    assert due == ["web-2"]
    assert {name for name, wanted in these.desired.items() if wanted != before[name]} == {"web-2"}


def test_targets_are_kept_without_what_was_said_for_them(scene: Scene) -> None:
    made = scene.made("fleet.toml")
    assert all(target.options == {} for target in made.targets)
    assert isinstance(made.targets[0], Target)


def test_a_ca_in_aws_is_read_here_once_and_sent_as_text(scene: Scene, ca_pem: bytes) -> None:
    scene.flags["ca_cert"] = CaSource("aws", "ssm:/hsm/ca")
    with receiver(answers({"Parameter": {"Value": ca_pem.decode()}})) as server:
        scene.aws = f"http://127.0.0.1:{server.server_port}"
        made = scene.made()
        assert len(server.requests) == 1
    assert {from_json(each).ca_cert for each in made.desired.values()} == {
        CaSource("inline", ca_pem.decode())
    }


def test_a_ca_in_aws_that_is_denied_here_ends_the_roll_out_before_any_host(scene: Scene) -> None:
    scene.flags["ca_cert"] = CaSource("aws", "secretsmanager:hsm#pem")
    with receiver(refuses("AccessDeniedException", "no", 403)) as server:
        scene.aws = f"http://127.0.0.1:{server.server_port}"
        error = scene.refused()
    assert (error.code.name, error.code.exit_status) == ("aws-denied", 12)
    assert "secretsmanager:GetSecretValue" in error.sentence


def test_packages_in_s3_are_of_the_region_that_was_named(scene: Scene) -> None:
    scene.flags |= {"package_source": "s3://bucket/mirror", "region": "eu-west-1"}
    sources = {from_json(each).package_source for each in scene.made().desired.values()}
    assert sources == {"s3://bucket/mirror?region=eu-west-1"}


CLUSTER = aws.cluster("ACTIVE", aws.hsm(1), aws.hsm(2), Certificates={})


def of_the_cluster(scene: Scene, tree: dict[str, Any] = CLUSTER, **flags: Any) -> tuple[RunSpec, int]:
    """Plan a roll-out that names the cluster; return the spec, and how often AWS was asked."""
    scene.flags = {
        "ca_cert": scene.flags["ca_cert"],
        "cluster_id": aws.CLUSTER_ID,
        "region": "eu-west-1",
        **flags,
    }
    with receiver(answers(aws.page(tree))) as server:
        scene.aws = f"http://127.0.0.1:{server.server_port}"
        return scene.made(), len(server.requests)


def test_the_operator_asks_once_and_sends_the_answer_along(scene: Scene) -> None:
    made, asked = of_the_cluster(scene)
    assert asked == 1
    for tree in made.desired.values():
        assert from_json(tree).hsm_ip == ("10.0.1.6", "10.0.2.6")
        assert (tree["cluster_id"], tree["region"]) == (aws.CLUSTER_ID, "eu-west-1")
    sent = description_from_json(made.clusters[aws.CLUSTER_ID])
    assert (sent.state, sent.region, len(sent.hsms)) == ("ACTIVE", "eu-west-1", 2)
    assert isinstance(sent.hsms[0], ClusterHsm)
    assert aws.SECRET not in repr(made)


@pytest.mark.parametrize(
    ("tree", "flags", "code"),
    [
        (aws.cluster("UNINITIALIZED", aws.hsm(1)), {}, "cluster-uninitialized"),
        (aws.cluster("ACTIVE"), {}, "cluster-empty"),
        (CLUSTER, {"hsm_ip": ("10.0.9.9",)}, "hsm-not-of-cluster"),
        ({**CLUSTER, "ClusterId": "cluster-7zyxwvutsrq"}, {}, "cluster-not-found"),
    ],
)
def test_a_cluster_that_no_host_can_use_begins_no_roll_out(
    scene: Scene, tree: dict[str, Any], flags: dict[str, Any], code: str
) -> None:
    with pytest.raises(AgentError) as refused:
        of_the_cluster(scene, tree, **flags)
    assert refused.value.code.name == code


def test_the_operator_proves_the_ca_before_the_first_wave(
    scene: Scene, ca_pem: bytes, other_ca_pem: bytes
) -> None:
    # a root is issued by itself
    good, bad = (
        {**CLUSTER, "Certificates": {"ClusterCertificate": each.decode()}} for each in (ca_pem, other_ca_pem)
    )
    assert of_the_cluster(scene, good)[0].clusters
    with pytest.raises(AgentError) as refused:
        of_the_cluster(scene, bad)
    assert refused.value.code.name == "ca-not-of-cluster"


def test_a_roll_out_by_addresses_goes_on_without_aws(scene: Scene) -> None:
    scene.flags |= {"cluster_id": aws.CLUSTER_ID}
    with receiver(refuses("AccessDeniedException", "no", 403)) as server:
        scene.aws = f"http://127.0.0.1:{server.server_port}"
        made = scene.made()
        scene.flags.pop("hsm_ip")
        with pytest.raises(AgentError) as refused:
            scene.made()
    assert made.clusters == {}
    (remark,) = made.remarks
    assert "aws-denied" in remark
    assert refused.value.code.name == "aws-denied"


def test_what_aws_is_changing_is_remarked_on(scene: Scene) -> None:
    moving = {**CLUSTER, "Hsms": [aws.hsm(1), aws.hsm(2, "CREATE_IN_PROGRESS", EniIp=None)]}
    made, asked = of_the_cluster(scene, moving)
    assert asked == 1
    assert from_json(made.desired["web-1"]).hsm_ip == ("10.0.1.6",)
    assert "are changing" in made.remarks[0]


def test_another_cluster_for_a_resumed_run_brings_its_own_addresses(scene: Scene) -> None:
    scene.again = {"cluster_id": aws.CLUSTER_ID}
    with receiver(answers(aws.page(CLUSTER))) as server:
        scene.aws = f"http://127.0.0.1:{server.server_port}"
        these, due = go_on(scene)
    assert due == ["web-1", "web-2", "db-1"]
    assert {tuple(tree["hsm_ip"]) for tree in these.desired.values()} == {("10.0.1.6", "10.0.2.6")}
    assert set(these.clusters) == {aws.CLUSTER_ID}


def test_a_resumed_run_with_other_options_asks_for_the_addresses_anew(scene: Scene) -> None:
    made, _ = of_the_cluster(scene)
    run = RunState("RUN", "now", made, ArchiveDigests(), ends={})
    flags = {"component": ("pkcs11",)}
    with receiver(
        answers(aws.page(aws.cluster("ACTIVE", aws.hsm(1), aws.hsm(3), Certificates={})))
    ) as server:
        scene.aws = f"http://127.0.0.1:{server.server_port}"
        these, _ = run_spec.resume_spec(
            Posix(), scene.access, run, "rollout", FleetOptions(resume="RUN"), flags, InputErrors()
        )
    assert {tuple(tree["hsm_ip"]) for tree in these.desired.values()} == {("10.0.3.6", "10.0.1.6")}
    kept, _ = run_spec.resume_spec(
        Posix(), scene.access, run, "rollout", FleetOptions(resume="RUN"), {}, InputErrors()
    )
    assert kept.desired == made.desired


def test_consoles_are_those_of_instances(scene: Scene) -> None:
    assert "no host of the inventory is an EC2 instance" in str(scene.refused(trust_console=True).saw)


def test_without_aws_there_is_no_inventory_of_ec2(scene: Scene) -> None:
    (scene.folder / "ec2.toml").write_text('[ec2]\nselect = ["asg=web"]\n')
    error = scene.refused("ec2.toml")
    assert (error.code.name, error.code.exit_status) == ("aws-unreachable", 12)
