"""A roll-out over Run Command to hosts without sshd: a stand-in of Systems Manager runs the document's scripts on them."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.building import release_of_this_run
from tests.fakes.moto_server import REGION, aws_server
from tests.fakes.ssm import Node, Ran

from .cloud import listen_in
from .fleet import Operator
from .network import OPERATOR_IP
from .scene import CA, cluster, servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.fakes.aws_server import AwsServer
    from tests.fakes.ssm import Runner

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab
    from .scene import Scene

pytest.importorskip("moto")
pytest.importorskip("flask")

PORT = 8791
SCRIPT = "/var/lib/amazon/ssm/script.sh"
IMAGES = ("ubuntu22.04", "amzn2023", "rhel9")


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        for image in IMAGES:
            made.package(image)
        yield made


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Path:
    """The whole tree, in the bucket, which is the mirror."""
    dist = release_of_this_run(tmp_path_factory).dist
    (tree,) = [each for each in dist.glob("hsm-agent-*.tar.gz") if "far-end" not in each.name]
    (scene.folder / "mirror" / tree.name).write_bytes(tree.read_bytes())
    return tree


@pytest.fixture
def aws(lab: Lab) -> Iterator[AwsServer]:
    with aws_server() as server:
        server.also_listen(listen_in(lab.operator.net, OPERATOR_IP, PORT))
        yield server
        server.ssm.settle()


@dataclass
class Person(Operator):
    """An operator who reaches hosts by their instance ids, and has them fetch the agent."""

    agent: Path | None = None

    @property
    def env(self) -> Mapping[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "admin", "AWS_REGION": REGION}
        return {**super().env, **keys, "AWS_ENDPOINT_URL": f"http://{OPERATOR_IP}:{PORT}"}

    def manage(self, aws: AwsServer, *hosts: LabHost) -> None:
        """Have SSM know hosts, and the inventory their ids."""
        lines = []
        for number, host in enumerate(hosts, 1):
            instance = f"i-{number:017x}"
            aws.ssm.nodes[instance] = Node(runs_on(host))
            self.hosts[host.name] = host
            lines += [f"[hosts.{host.name}]", f'address = "{instance}"']
        (self.home / "fleet.toml").write_text("\n".join(lines) + "\n")

    def everything(self) -> list[str]:
        options = self.options()
        options[options.index("--package-source") + 1] = self.scene.url
        assert self.agent is not None
        digest = hashlib.sha256(self.agent.read_bytes()).hexdigest()
        agent = ["--agent", f"{self.scene.url}/{self.agent.name}", "--agent-sha256", digest]
        return ["--inventory", str(self.home / "fleet.toml"), "--via", "ssm", *agent, *options]

    def argv(self, command: str, *more: str) -> list[str]:
        argv = super().argv(command, *more)
        return argv[: argv.index("--tree")] if "--tree" in argv else argv


def runs_on(host: LabHost) -> Runner:
    """Return what runs scripts on a host as the agent of SSM does: from a file, as root, without any input."""

    def run(script: str, env: Mapping[str, str], seconds: float) -> Ran:
        host.must(["mkdir", "-p", SCRIPT.rpartition("/")[0]])
        host.put(SCRIPT, script.encode(), 0o700)
        try:
            done = host.run(["sh", "-c", SCRIPT], env=env, timeout=min(seconds, 200))
        except subprocess.TimeoutExpired:
            return Ran(None, "", "")
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


def proven(host: LabHost, scene: Scene) -> bool:
    """Judge a host by other means than the agent."""
    answer = host.run(["/opt/cloudhsm/bin/cloudhsm-cli", "cluster", "hsm-info"])
    return bool(
        host.testinfra.package("cloudhsm-cli").is_installed
        and host.testinfra.file(CA).content == scene.made.ca.cert.read_bytes()
        and servers(host) == list(scene.addresses)
        and answer.stdout.count("serial-number") == len(scene.addresses)
    )


def lines_of(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(step["id"], step["outcome"]) for step in report["steps"]]


def test_a_fleet_without_sshd_is_killed_in_the_middle_and_resumed(
    scene: Scene, release: Path, aws: AwsServer, make_host: MakeHost, tmp_path: Path
) -> None:
    hosts = [make_host(image, init="idle") for image in IMAGES]
    person = Person(scene, tmp_path / "home", release, agent=release)
    person.manage(aws, *hosts)
    killed: list[int] = []

    def kill(_command: object) -> None:
        """End the controller as its second command is taken, before it can know its id."""
        if len(aws.ssm.commands) == 2 and not killed:
            killed.append(controller.pid)
            controller.send_signal(signal.SIGKILL)
            controller.wait(30)

    aws.ssm.on_send = kill
    controller = person.start("--waves", "1,100%")
    _, err = controller.communicate(timeout=240)
    assert controller.returncode == -signal.SIGKILL, err
    assert len(person.ends()) == 1
    resumed = person.rollout("--resume", person.last_run().name)
    assert (resumed.exit_status, set(resumed.outcomes.values())) == (0, {"ok"}), resumed
    assert [len(each.params["InstanceIds"]) for each in aws.ssm.commands] == [1, 2]
    assert all(proven(host, scene) for host in hosts)
    assert all(host.run(["pgrep", "-x", "sshd"]).returncode for host in hosts)

    # once more: everything is there, the agent too, and nothing changes
    again = person.rollout()
    assert (again.exit_status, set(again.changed.values())) == (0, {False}), again
    drifted = hosts[0]
    drifted.must(["rm", CA])
    verified = person.fleet("verify", *person.everything())
    assert (verified.exit_status, verified.outcomes[drifted.name]) == (3, "drifted"), verified


def test_the_report_is_that_of_a_roll_out_over_ssh(
    scene: Scene,
    release: Path,
    aws: AwsServer,
    make_host: MakeHost,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    far_end = release_of_this_run(tmp_path_factory).archive
    by_ssh, by_ssm = make_host(IMAGES[0]), make_host(IMAGES[0], init="idle")
    operator = Operator(scene, tmp_path / "other", far_end)
    operator.meet(by_ssh)
    operator.inventory()
    person = Person(scene, tmp_path / "home", release, agent=release)
    person.manage(aws, by_ssm)
    one, other = operator.rollout().report, person.rollout().report
    assert one.keys() == other.keys()
    (left,), (right,) = one["hosts"], other["hosts"]
    assert left.keys() == right.keys()
    assert (left["outcome"], left["changed"]) == (right["outcome"], right["changed"]) == ("ok", True)
    assert left["report"].keys() == right["report"].keys()
    assert lines_of(left["report"]) == lines_of(right["report"])
