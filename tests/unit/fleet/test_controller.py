"""A run from its RunSpec to its report, over hosts that answer in this process: begun, left, resumed, reported."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable

import jsonschema  # type: ignore[import-untyped]
import pytest
from referencing import Registry, Resource

from agent.core.errors import AgentError
from agent.core.fleet_model import HostResult, HostState, Target
from agent.fleet import controller, journal
from agent.fleet.agent_archive import AgentArchive, AgentArchives
from agent.fleet.model import Deps, RunSpec, RunState
from agent.fleet.ssh_transport import FleetOverSsh
from agent.hosts.posix import Posix
from agent.remote.protocol import RECORD
from agent.render.fleet import one_host, runs
from agent.render.fleet.counters import RolloutCounters
from agent.render.fleet.html import page
from agent.render.fleet.junit import suites
from agent.render.fleet.schema import runs_schema, schema
from agent.render.fleet.screen import report as screen
from agent.render.json_report import schema as host_schema
from tests.fakes.cancel_tokens import Cord
from tests.fakes.visits import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

TREES = AgentArchives(AgentArchive("t.tar.gz", "f00", b"TREE"))
TARGETS = (Target("web-1", "10.0.4.7"), Target("web-2", "10.0.4.8"))
ORDERS = RunSpec("rollout", "hosts", TARGETS, {each.name: {"hsm_ip": ["10.0.1.6"]} for each in TARGETS})


@dataclass
class Fleet:
    """A door to hosts that answer every request with a report of success."""

    requests: list[dict[str, Any]] = field(default_factory=list)

    def endpoints(self, targets: Sequence[Target], _stopped: object) -> dict[str, tuple[str, int]]:
        return {each.name: (each.address, 22) for each in targets}

    @contextmanager
    def open(self, target: Target, line: Any) -> Iterator[_Link]:
        del target, line
        yield _Link(self)


@dataclass
class _Link:
    fleet: Fleet
    trusted: str | None = None
    heard: int = 0
    request: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def open_command(self, _command: str) -> Iterator[_Link]:
        yield self

    def send(self, data: bytes) -> None:
        length, _, rest = data.partition(b"\n")
        self.request = json.loads(rest[int(length) :])
        self.fleet.requests.append(self.request)

    def receive(self, *, timeout: float = 0.0) -> bytes:
        self.heard += 1
        asked = {key: self.request[key] for key in ("request", "command")}
        says = [{"event": "hello"}, {"event": "report", "report": {**REPORT, **asked}}]
        word: str = self.request["word"]
        return RECORD + word.encode() + json.dumps(says[self.heard - 1]).encode() + b"\n"

    def close_stdin(self) -> None: ...

    def status(self) -> int | None:
        return 0

    def errors(self) -> bytes:
        return b""


class HalfClosed(Fleet):
    """A fleet of which one host does not answer."""

    @contextmanager
    def open(self, target: Target, line: Any) -> Iterator[_Link]:
        if target.name == "web-2":
            raise AgentError("ssh-timed-out", "no answer", saw="10 s")
        with super().open(target, line) as link:
            yield link


@dataclass
class Scene:
    folder: Path
    fleet: Fleet = field(default_factory=Fleet)
    door: Callable[[str | None], Any] | None = None
    by: dict[str, str | None] | None = None

    @property
    def environ(self) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder / "cache")}

    @property
    def deps(self) -> Deps:
        door = self.door or (lambda _ssh_config: self.fleet)
        return Deps(
            Posix(),
            self.environ,
            lambda spec: FleetOverSsh(door(spec.ssh_config), TREES),
            Cord,
            RolloutCounters(),
            lambda: 0,
            by=self.by,
        )

    def start(self, orders: RunSpec = ORDERS) -> tuple[Path, dict[str, Any]]:
        return controller.start(orders, self.deps)

    def resume(self, folder: Path, **changed: Any) -> dict[str, Any]:
        def again(run: RunState) -> tuple[RunSpec, tuple[Target, ...]]:
            spec = replace(run.spec, **changed)
            done = {name for name, end in run.ends.items() if end.state.value == "ok"}
            return spec, tuple(each for each in spec.targets if each.name not in done)

        return controller.resume(folder, again, self.deps)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_host_that_was_given_up_at_work_is_asked_for_its_report(scene: Scene) -> None:
    folder = journal.runs_dir(scene.environ) / "run"
    with journal.opened(folder) as book:
        book.begin(RunState("run", "now", ORDERS, TREES.sent))
        book.began("web-2", 1)
        book.ended(HostResult("web-2", "10.0.4.8", 22, 1, HostState.FAILED, code="host-deadline"))
    assert scene.resume(folder)["outcome"] == "ok"
    asked = {each["request"]: (each["again"], each["resumed"]) for each in scene.fleet.requests}
    assert asked == {"run/web-1/1": (False, False), "run/web-2/1": (True, True)}


def test_a_report_of_what_was_wanted_before_is_not_taken_for_what_is_wanted_now(scene: Scene) -> None:
    folder = journal.runs_dir(scene.environ) / "run"
    with journal.opened(folder) as book:
        book.begin(RunState("run", "now", ORDERS, TREES.sent))
        book.began("web-1", 1)
    changed = {each.name: {"hsm_ip": ["10.0.2.9"]} for each in TARGETS}
    assert scene.resume(folder, desired=changed)["outcome"] == "ok"
    asked = {each["request"]: each["again"] for each in scene.fleet.requests}
    assert asked == {"run/web-1/2": True, "run/web-2/1": False}


def test_a_change_is_not_forgotten_by_a_controller_that_is_killed_with_it(scene: Scene) -> None:
    folder, _ = scene.start()
    changed = replace(ORDERS, desired={**ORDERS.desired, "web-1": {"hsm_ip": ["10.0.2.9"]}})
    with journal.opened(folder) as book:
        book.resume("later", changed, TREES.sent)
    stands = controller.stored_report(folder)
    assert [host["outcome"] for host in stands["hosts"]] == ["not-reached", "ok"]
    assert [host["report"] is None for host in controller.with_host_reports(folder, stands)["hosts"]] == [
        True,
        False,
    ]
    assert scene.resume(folder)["outcome"] == "ok"
    assert [each["request"] for each in scene.fleet.requests[2:]] == [f"{folder.name}/web-1/2"]


def test_a_change_is_asked_anew_of_a_host_that_may_be_at_work_for_what_was_before(scene: Scene) -> None:
    folder = journal.runs_dir(scene.environ) / "run"
    changed = {each.name: {"hsm_ip": ["10.0.2.9"]} for each in TARGETS}
    with journal.opened(folder) as book:
        book.begin(RunState("run", "now", ORDERS, TREES.sent))
        book.began("web-1", 1)
        book.resume("later", replace(ORDERS, desired=changed), TREES.sent)  # and is killed
    assert scene.resume(folder)["outcome"] == "ok"
    assert {each["request"] for each in scene.fleet.requests} == {"run/web-1/2", "run/web-2/1"}


def test_what_is_told_of_a_run_is_what_it_said(scene: Scene) -> None:
    folder, said = scene.start(replace(ORDERS, remarks=("hosts:1: a remark",)))
    assert said["warnings"] == [{"code": "inventory", "text": "hosts:1: a remark"}]
    assert controller.with_host_reports(
        folder, controller.stored_report(folder)
    ) == controller.with_host_reports(folder, said)


@pytest.mark.parametrize("alive", [True, False])
def test_a_host_that_was_at_work_is_not_called_not_reached(scene: Scene, alive: bool) -> None:
    folder = journal.runs_dir(scene.environ) / "20261125T031500Z-1f3a"
    with journal.opened(folder) as book:
        book.begin(RunState(folder.name, "2026-11-25T03:15:00Z", ORDERS, TREES.sent))
        book.began("web-2", 1)
        book.sync()
        told = controller.stored_report(folder) if alive else None
    told = told or controller.stored_report(folder)
    assert [host["outcome"] for host in told["hosts"]] == ["not-reached", "at-work"]
    assert (told["totals"]["at-work"], told["totals"]["not-reached"]) == (1, 1)
    assert (told["hosts"][1]["saw"] == "running") is alive
    whole = controller.with_host_reports(folder, told)
    registry: Registry[Any] = Registry().with_resource(
        host_schema()["$id"], Resource.from_contents(host_schema())
    )
    jsonschema.Draft202012Validator(schema(), registry=registry).validate(whole)
    assert "web-2" in screen(whole)
    assert 'skipped message="running"' in suites(whole) or not alive
    assert "web-2" in page(whole)
    assert controller.last_states(scene.environ)["web-2"] is HostState.AT_WORK


def test_a_host_that_is_not_reached_is_explained_in_report_and_journal(scene: Scene) -> None:
    asked: list[list[str]] = []

    def explain(
        _ssh_config: str | None, unreached: Sequence[tuple[Target, HostResult]]
    ) -> Sequence[HostResult]:
        asked.append([target.name for target, _ in unreached])
        return [replace(end, saw=f"{end.saw}; stopped") for _, end in unreached]

    scene.fleet = HalfClosed()
    folder, said = controller.start(replace(ORDERS, limit="1"), replace(scene.deps, explain=explain))
    assert asked == [["web-2"]]
    for report in (said, controller.stored_report(folder)):
        ends = {host["name"]: (host["outcome"], host["code"], host["saw"]) for host in report["hosts"]}
        assert ends["web-2"] == ("unreachable", "ssh-timed-out", "10 s; stopped")
    assert said["totals"]["unreachable"] == 1


def test_a_search_that_fails_costs_no_result(scene: Scene) -> None:
    def explain(*_asked: object) -> Sequence[HostResult]:
        raise KeyError("instanceId")

    scene.fleet = HalfClosed()
    _, said = controller.start(replace(ORDERS, limit="1"), replace(scene.deps, explain=explain))
    assert {host["name"]: host["saw"] for host in said["hosts"]}["web-2"] == "10 s"


def test_runs_are_listed_newest_first(scene: Scene) -> None:
    assert runs.lines(runs.to_tree(controller.recorded(scene.environ, 5))) == "no roll-out yet\n"
    names = [scene.start()[0].name for _ in range(3)]
    broken = journal.runs_dir(scene.environ) / "20261125T031500Z-dead"
    broken.mkdir()
    (broken / "journal.jsonl").write_text('{"v": 1, "kind": "run"}\n')
    tree = runs.to_tree(controller.recorded(scene.environ, 9))
    jsonschema.Draft202012Validator(runs_schema()).validate(tree)
    assert sorted(each["run_id"] for each in tree["runs"]) == sorted(names)
    assert [each["run_id"] for each in tree["runs"]] == sorted(names, reverse=True)
    assert {each["hosts"] for each in tree["runs"]} == {2}
    assert runs.lines(tree).splitlines()[0].startswith(max(names))
    assert len(list(controller.recorded(scene.environ, 2))) == 2


def test_old_runs_are_deleted_but_never_one_that_is_going_on(scene: Scene) -> None:
    base = journal.runs_dir(scene.environ)
    assert controller.prune(scene.environ, 60) == ()
    names = [scene.start()[0].name for _ in range(2)]
    others = [base / "20200101T000000Z-0001", base / "20200101T000000Z-0002", base / "notes"]
    for each in others:
        each.mkdir()
    (others[2] / "journal.jsonl").write_text("mine\n")
    (base / "20200101T000000Z-0003").symlink_to(others[2])
    for each in (others[0], others[2] / "journal.jsonl", others[2], base / names[0] / "journal.jsonl"):
        os.utime(each, (1, 1))
    with journal.opened(base / names[0]):
        os.utime(base / names[0] / "journal.jsonl", (1, 1))
        assert controller.prune(scene.environ, 60) == ("20200101T000000Z-0001",)
    assert controller.prune(scene.environ, 60) == (names[0],)
    tree = runs.to_tree(controller.recorded(scene.environ, 9), ("gone",))
    jsonschema.Draft202012Validator(runs_schema()).validate(tree)
    assert [each["run_id"] for each in tree["runs"]] == [names[1]]
    assert runs.lines(tree).splitlines()[0] == "deleted: gone"
    left = {"notes", names[1], "20200101T000000Z-0002", "20200101T000000Z-0003"}
    assert {each.name for each in base.iterdir()} == left


def test_who_asked_and_for_what_stands_in_journal_report_and_page(scene: Scene, ca_pem: bytes) -> None:
    anna: dict[str, str | None] = {"user": "root", "sudo_user": "anna", "host": "ops-1", "from": "192.0.2.7"}
    scene.by = anna
    wanted = {"hsm_ip": ["10.0.1.6"], "component": ["jce"], "ca_cert": f"inline:{ca_pem.decode()}"}
    spec = replace(ORDERS, desired={"web-1": wanted, "web-2": {}})
    folder, said = scene.start(spec)
    assert (said["by"], controller.find_run(scene.environ, "last")) == (anna, folder)
    root = hashlib.sha256(ssl.PEM_cert_to_DER_cert(ca_pem.decode())).hexdigest()
    assert said["asked"] == [
        {"hosts": 1, "addresses": ["10.0.1.6"], "components": ["jce"], "version": None, "sdk": 5,
         "platform": None, "ca_fingerprint": root, "accept_single_hsm": False, "cluster": None},
    ]  # fmt: skip
    stored = controller.stored_report(folder)
    assert (stored["by"], stored["asked"]) == (said["by"], said["asked"])
    who, what = "root (sudo by anna) on ops-1 from 192.0.2.7", f"10.0.1.6; jce; CA {root[:12]}"
    assert f"by:    {who}\nasked: {what}\n" in screen(stored)
    whole = controller.with_host_reports(folder, stored)
    assert all(words in page(whole) for words in (who, what))
    registry: Registry[Any] = Registry().with_resource(
        host_schema()["$id"], Resource.from_contents(host_schema())
    )
    jsonschema.Draft202012Validator(schema(), registry=registry).validate(whole)
    listed = runs.to_tree(controller.recorded(scene.environ, 9))
    assert runs.lines(listed).rstrip().endswith(f"by {who}")
    scene.by = {**anna, "sudo_user": None}
    assert scene.resume(folder)["by"]["sudo_user"] is None


@pytest.mark.parametrize(
    ("judged", "reported", "expected"),
    [
        (None, (None, 0), 0),
        ("hsm-timed-out", ("hsm-timed-out", 40), 40),
        ("report-undelivered", ("report-undelivered", 60), 60),
        ("far-end-failed", (None, 0), 70),  # success without its proof
    ],
)
def test_a_host_ends_as_the_roll_out_judged_it(
    judged: str | None, reported: tuple[str | None, int], expected: int
) -> None:
    code, status = reported
    part = {"code": judged, "report": {"code": code, "exit_status": status}}
    assert one_host.exit_status_of(part) == expected


def test_one_host_is_shown_in_full(scene: Scene) -> None:
    folder, _ = scene.start()
    part = controller.host_part(folder, "web-2")
    shown = one_host.screen(part)
    assert shown.splitlines()[0].startswith("ok  web-2  10.0.4.8:22  wave")
    assert all(f"{step['id']}" in shown for step in REPORT["steps"])
    with pytest.raises(AgentError, match="did you mean `web-"):
        controller.host_part(folder, "web-9")


@pytest.mark.parametrize(
    ("part", "code", "words"),
    [
        ({"code": "ssh-timed-out", "outcome": "unreachable", "saw": "no answer"}, "ssh-timed-out", "web-1: the host"),
        ({"code": None, "outcome": "not-reached", "saw": None}, "nothing-recorded", "no report of web-1"),
    ],
)  # fmt: skip
def test_a_host_without_a_report_is_its_failure(part: dict[str, Any], code: str, words: str) -> None:
    error = one_host.failure_of({"name": "web-1", "sentence": None, "want": None, "hint": None, **part})
    assert (error.code.name, words in error.sentence) == (code, True)


def test_what_is_wrong_with_the_way_begins_no_run(scene: Scene) -> None:
    """Else `--only failed` would next ask a run in which nobody had a turn."""

    def door(_ssh_config: str | None) -> Any:
        raise AgentError("config-invalid", "ssh's configuration cannot be used", saw="x")

    scene.door = door
    with pytest.raises(AgentError, match="ssh's configuration"):
        scene.start()
    assert journal.runs(journal.runs_dir(scene.environ)) == ()


def test_a_run_that_was_killed_before_its_first_record_is_none(scene: Scene) -> None:
    folder, _ = scene.start()
    late = folder.parent / "99991231T235959Z-ffff"
    late.mkdir()
    (late / "journal.jsonl").write_bytes(b'{"v": 1, "kind": "run", "run_')
    assert controller.find_run(scene.environ, None) == folder
    assert set(controller.last_states(scene.environ).values()) == {HostState.OK}


def test_a_run_that_is_finished_can_be_gone_on_with_and_nobody_is_begun(scene: Scene) -> None:
    folder, first = scene.start()
    again = scene.resume(folder)
    assert (again["outcome"], again["exit_status"], again["waves"]) == ("ok", 0, [])
    assert again["hosts"] == first["hosts"]
    assert len(scene.fleet.requests) == 2


def test_a_run_that_has_not_ended_is_told_by_whether_somebody_is_at_work(scene: Scene) -> None:
    folder = journal.runs_dir(scene.environ) / "run"
    with journal.opened(folder) as book:
        book.begin(RunState("run", "now", ORDERS, TREES.sent))
        assert controller.stored_report(folder)["failure"]["saw"].endswith("it is running")
    told = controller.stored_report(folder)
    assert told["exit_status"] == 130
    assert told["failure"]["saw"].endswith("its controller was ended")
