"""Roll-outs over Run Command, against its stand-in behind AWS's API: the same waves, stop rule, journal and reports."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

import pytest

from agent.aws.access import AwsAccess
from agent.config.desired import Desired
from agent.core.fleet_model import Target
from agent.fleet import controller
from agent.fleet.model import Deps, RunSpec, RunState
from agent.fleet.ssm.transport import FleetOverSsm
from agent.hosts.posix import Posix
from agent.iam_policy import OPERATOR, PolicyRequest, policy_of
from agent.remote.packed import line_of
from agent.remote.protocol import Failed
from agent.render.fleet.counters import RolloutCounters
from agent.render.fleet.screen import report as screen
from agent.ssm_document import AgentSources, name_of, rollout_document
from tests.fakes.aws import refuses
from tests.fakes.cancel_tokens import Cord
from tests.fakes.iam import actions, misfits
from tests.fakes.moto_server import REGION, aws_server, user_with
from tests.fakes.ssm import Node, Ran
from tests.fakes.visits import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.fakes.aws_server import AwsServer
    from tests.fakes.ssm import SystemsManager

pytest.importorskip("moto")
pytest.importorskip("flask")

DOCUMENT = rollout_document(AgentSources())
SETTINGS = {
    "region": REGION,
    "agent": {"kind": "package", "name": "", "url": "", "sha256": ""},
    "windows_agent": None,
}
ADMIN = {"AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "admin"}


def requests_of(env: Mapping[str, str]) -> dict[str, Any]:
    """Return what a command requests, by instance."""
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(env["SSM_request"])))["requests"]
    return found


def proven(script: str, env: Mapping[str, str], _seconds: float) -> Ran:
    """Answer as an agent whose run succeeds."""
    del script
    asked = requests_of(env)[env["AWS_SSM_INSTANCE_ID"]]
    report = {**REPORT, "request": asked["request"], "command": asked["command"]}
    return Ran(0, line_of({"event": "report", "report": report}), "progress\n")


def prints(stdout: str, status: int = 0, stderr: str = "") -> Callable[..., Ran]:
    return lambda *_ignored: Ran(status, stdout, stderr)


@dataclass
class Scene:
    """A fleet behind SSM, and the operator's own disk."""

    server: AwsServer
    folder: Path
    keys: Mapping[str, str]

    @property
    def ssm(self) -> SystemsManager:
        return self.server.ssm

    @property
    def environ(self) -> dict[str, str]:
        aws = {"AWS_ENDPOINT_URL": self.server.url, "AWS_EC2_METADATA_DISABLED": "true"}
        return {
            "XDG_STATE_HOME": str(self.folder),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            **aws,
            **self.keys,
        }

    def add(self, *runs: Any, **more: Any) -> tuple[Target, ...]:
        """Add a node for each runner, and return the targets."""
        targets = []
        for run in runs:
            instance = f"i-{len(self.ssm.nodes) + 1:017x}"
            self.ssm.nodes[instance] = Node(run, **more)
            targets.append(Target(f"web-{len(self.ssm.nodes)}", instance))
        return tuple(targets)

    @property
    def deps(self) -> Deps:
        def open_access(region: str | None) -> AwsAccess:
            return AwsAccess(Posix(), self.environ, region)

        return Deps(
            Posix(), self.environ, lambda spec: FleetOverSsm(spec.ssm, open_access), Cord, RolloutCounters(), lambda: 0,
            start_spacing=0.0,
        )  # fmt: skip

    def start(self, targets: Sequence[Target], **more: Any) -> tuple[Path, dict[str, Any]]:
        desired = {each.name: {"hsm_ip": ["10.0.1.6"]} for each in targets}
        asked = {"shares": "100%", "deadline": 30.0, "ssm": SETTINGS, **more}
        folder, report = controller.start(
            RunSpec("rollout", "hosts", tuple(targets), desired, **asked), self.deps
        )
        return folder, report

    def resume(self, folder: Path) -> dict[str, Any]:
        def again(run: RunState) -> tuple[RunSpec, tuple[Target, ...]]:
            done = {name for name, end in run.ends.items() if end.state.value == "ok"}
            return run.spec, tuple(each for each in run.spec.targets if each.name not in done)

        return controller.resume(folder, again, self.deps)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with aws_server() as server:
        yield Scene(server, tmp_path, ADMIN)
        server.ssm.settle()


def outcomes(report: Mapping[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {host["name"]: (host["outcome"], host["code"]) for host in report["hosts"]}


def test_a_wave_is_one_command_with_its_ids(scene: Scene) -> None:
    targets = scene.add(*[proven] * 5)
    folder, report = scene.start(targets, shares="1,100%", parallel=4)
    assert (report["outcome"], report["exit_status"]) == ("ok", 0)
    assert outcomes(report) == {each.name: ("ok", None) for each in targets}
    asked = [each.params for each in scene.ssm.commands]
    assert [each["InstanceIds"] for each in asked] == [
        [targets[0].address],
        [each.address for each in targets[1:]],
    ]
    assert [(each["MaxConcurrency"], each["MaxErrors"]) for each in asked] == [("1", "100%"), ("4", "100%")]
    assert all(each["DocumentVersion"] == "1" for each in asked)
    (kept,) = scene.ssm.documents
    assert kept == name_of(DOCUMENT)
    whole = controller.with_host_reports(folder, report)
    assert whole["hosts"][1]["report"]["hsms"] == REPORT["hsms"]
    assert whole["hosts"][1]["report"]["request"] == f"{report['run_id']}/web-2/1"


def test_no_more_hosts_are_in_the_hands_of_aws_than_may_run(scene: Scene) -> None:
    """So a failure above the limit leaves the rest of its wave without any command, and nothing has to be cancelled."""
    targets = scene.add(prints("", 1), *[proven] * 3)
    _, report = scene.start(targets, parallel=1)
    assert (report["exit_status"], len(scene.ssm.commands)) == (71, 1)
    assert [each["outcome"] for each in report["hosts"]] == ["failed", *["not-reached"] * 3]
    assert {each["port"] for each in report["hosts"]} == {0}
    assert f"{targets[0].address}:" not in screen(report)


def test_fifty_ids_are_all_that_a_command_takes(scene: Scene) -> None:
    targets = scene.add(*[proven] * 55)
    _, report = scene.start(targets, parallel=60)
    assert report["outcome"] == "ok"
    assert sorted(len(each.params["InstanceIds"]) for each in scene.ssm.commands) == [5, 50]


def test_hosts_without_an_agent_are_named_before_anything_is_sent(scene: Scene) -> None:
    (good,) = scene.add(proven)
    (lost,) = scene.add(proven, ping="ConnectionLost")
    absent = Target("web-9", f"i-{9:017x}")
    _, report = scene.start((good, lost, absent), limit="2")
    assert outcomes(report) == {
        "web-1": ("ok", None),
        "web-2": ("unreachable", "ssm-agent-lost"),
        "web-9": ("unreachable", "ssm-agent-absent"),
    }
    (sent,) = scene.ssm.commands
    assert sent.params["InstanceIds"] == [good.address]
    assert "last heard at 2025-" in report["hosts"][1]["saw"]


def test_a_host_that_loses_its_network_before_the_command_arrives_is_named(scene: Scene) -> None:
    targets = (*scene.add(proven), *scene.add(proven, is_deaf=True))
    scene.ssm.speed = 60.0
    _, report = scene.start(targets, limit="1")
    assert outcomes(report) == {"web-1": ("ok", None), "web-2": ("unreachable", "ssm-not-delivered")}


def test_a_command_that_is_cancelled_outside_is_named(scene: Scene) -> None:
    def cancelled(*_ignored: object) -> Ran:
        (command,) = scene.ssm.commands
        scene.ssm.answer("CancelCommand", {"CommandId": command.id})
        return Ran(137, "", "")

    _, report = scene.start(scene.add(cancelled))
    assert outcomes(report) == {"web-1": ("failed", "ssm-cancelled")}


LONG = line_of({"event": "report", "report": {**REPORT, "warnings": [os.urandom(30_000).hex()]}})


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (prints(LONG), "ssm-output-cut"),
        (prints("x" * 30_000), "ssm-output-cut"),
        (prints("no agent at all\n", 127), "far-end-failed"),
        (prints("hsm-agent-report:QUJD:end\n"), "far-end-failed"),
        (prints(line_of({"event": "report", "report": {}})), "far-end-failed"),
        (prints(line_of({"event": "report", "report": {**REPORT, "request": "OTHER/web-1/1"}})), "far-end-failed"),
        (prints(line_of(Failed("run-locked", "another run").record())), "run-locked"),
        (prints("hsm-agent failed checksum-mismatch: its SHA-256 is 0\n", 21), "checksum-mismatch"),
        (prints("hsm-agent failed no-such-code: what\n", 21), "far-end-failed"),
        (lambda *_ignored: Ran(None, "", ""), "ssm-timed-out"),
    ],
)  # fmt: skip
def test_whatever_a_host_prints_has_a_code(scene: Scene, run: Any, code: str) -> None:
    _, report = scene.start(scene.add(run))
    assert outcomes(report) == {"web-1": ("failed", code)}
    assert report["exit_status"] == 71


def test_invocations_that_are_not_there_yet_are_waited_for(scene: Scene) -> None:
    scene.ssm.lag, scene.ssm.creating = 2, 1
    _, report = scene.start(scene.add(proven))
    assert report["outcome"] == "ok"


def test_throttling_delays_a_wave_and_ends_nothing(scene: Scene) -> None:
    targets = scene.add(*[proven] * 2)
    throttled = refuses("ThrottlingException", "Rate exceeded")
    scene.server.misbehave(None, *[throttled] * 3, None, None, throttled, None)
    _, report = scene.start(targets)
    assert (report["outcome"], len(scene.ssm.commands)) == ("ok", 1)


def test_an_answer_that_is_lost_sends_nothing_twice(scene: Scene) -> None:
    """The command is taken, and its id never arrives: it is found by its comment."""
    targets = scene.add(proven)
    lost: list[bool] = []

    def lose(_command: object) -> None:
        if not lost:
            lost.append(True)
            raise ConnectionError

    scene.ssm.on_send, scene.ssm.hidden = lose, 1
    _, report = scene.start(targets)
    assert (report["outcome"], len(scene.ssm.commands), lost) == ("ok", 1, [True])


def test_a_document_of_somebody_else_is_not_run(scene: Scene) -> None:
    scene.ssm.documents[name_of(DOCUMENT)] = {**DOCUMENT, "description": "another"}
    _, report = scene.start(scene.add(proven))
    assert (outcomes(report), scene.ssm.commands) == ({"web-1": ("unreachable", "ssm-document-differs")}, [])


def test_an_old_agent_of_ssm_gets_the_request_as_text(scene: Scene) -> None:
    def old(script: str, env: Mapping[str, str], seconds: float) -> Ran:
        (line,) = [each for each in script.splitlines() if each.startswith("request=")]
        return proven(script, {**env, "SSM_request": line.split("'")[1]}, seconds)

    _, report = scene.start(scene.add(old, version="3.2.2303.0"))
    assert report["outcome"] == "ok"


def test_the_policy_of_the_operator_is_what_it_takes(scene: Scene) -> None:
    policy = policy_of(PolicyRequest(Desired(), OPERATOR, REGION, ssm=True))
    assert misfits(policy) == []
    scene.keys = user_with(scene.server.url, policy)
    scene.ssm.on_send, scene.ssm.hidden = _break_once(), 1
    with scene.server.enforcing():
        _, report = scene.start(scene.add(proven, proven), shares="1,100%")
    assert report["outcome"] == "ok", report["hosts"]
    assert set(actions(policy)) == {each for each in scene.server.permissions() if each.startswith("ssm:")}


def _break_once() -> Callable[[object], None]:
    lost: list[object] = []

    def lose(command: object) -> None:
        if not lost:
            lost.append(command)
            raise ConnectionError

    return lose


def test_who_may_not_send_is_named_with_the_action(scene: Scene) -> None:
    policy = policy_of(PolicyRequest(Desired(), OPERATOR, REGION, ssm=True))
    statements = [each for each in policy["Statement"] if each["Sid"] != "SendCommands"]
    scene.keys = user_with(scene.server.url, {**policy, "Statement": statements})
    with scene.server.enforcing():
        _, report = scene.start(scene.add(proven))
    assert outcomes(report) == {"web-1": ("unreachable", "aws-denied")}
    assert "ssm:SendCommand" in report["hosts"][0]["sentence"]


def command(scene: Scene, *words: str) -> subprocess.Popen[str]:
    environ = {**os.environ, **scene.environ, "AWS_REGION": REGION}
    return subprocess.Popen(
        [sys.executable, "-m", "agent", "fleet", "rollout", *words, "--output", "json", "--quiet"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_controller_that_is_killed_as_its_command_is_taken_resumes_without_another(
    scene: Scene, tmp_path: Path
) -> None:
    targets = scene.add(*[proven] * 3)
    inventory = tmp_path / "fleet.toml"
    inventory.write_text("".join(f'[hosts.{each.name}]\naddress = "{each.address}"\n' for each in targets))
    words = ("--inventory", str(inventory), "--via", "ssm", "--hsm-ip", "10.0.1.6", "--waves", "100%")
    killed: list[int] = []

    def kill(_command: object) -> None:
        if not killed:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.wait())

    scene.ssm.on_send = kill
    process = command(scene, *words)
    _, err = process.communicate(timeout=60)
    assert killed == [-signal.SIGKILL], err
    scene.ssm.settle()
    second = command(scene, "--resume", controller.find_run(scene.environ, None).name)
    out, err = second.communicate(timeout=60)
    report = json.loads(out)
    assert (second.returncode, report["outcome"]) == (0, "ok"), err
    assert [host["address"] for host in report["hosts"]] == [each.address for each in targets]
    assert len(scene.ssm.commands) == 1


def test_what_ssm_cannot_do_is_refused_before_the_run(scene: Scene, tmp_path: Path) -> None:
    inventory = tmp_path / "fleet.txt"
    inventory.write_text("10.0.4.7\n")
    (tmp_path / "mirror").mkdir()
    process = command(
        scene, "--inventory", str(inventory), "--via", "ssm", "--hsm-ip", "10.0.1.6", "--ssh-config", str(inventory),
        "--package-source", str(tmp_path / "mirror"), "--agent", "https://x.example/a.deb",
    )  # fmt: skip
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    for complaint in (
        "has no instance id",
        "--package-source: ",
        "--ssh-config: it is for SSH",
        "--agent-sha256: ",
    ):
        assert complaint in err


def test_a_run_keeps_how_it_reaches_its_hosts(scene: Scene) -> None:
    folder, _ = scene.start(scene.add(prints("", 1)))
    process = command(scene, "--resume", folder.name, "--via", "ssh")
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "--via: the run keeps" in err) == (2, True)
