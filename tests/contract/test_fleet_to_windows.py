"""The fleet and Windows hosts: a stand-in's shell answers as cmd and PowerShell do, over real SSH on this machine."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import threading
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agent import __version__
from agent.core.fleet_model import HostResult, HostState, Target
from agent.fleet.agent_archive import AgentArchive, AgentArchives
from agent.fleet.host_session import HostRunner
from agent.fleet.launch import LaunchMethods
from agent.fleet.model import Deps, HostTask, RunSpec, RunState
from agent.fleet.ssh_transport import FleetOverSsh
from agent.hosts.posix import Posix
from agent.remote.protocol import STAGING_PREFIX
from agent.render.fleet.counters import RolloutCounters
from agent.ssh.connector import SshConnector
from agent.ssh.sockets import SocketCancelToken
from tests.fakes.visits import REPORT
from tests.fakes.windows_ssh import SOMEBODY, Exec, WindowsHost, agent_of_linux, serving
from tests.sshd import keygen
from tests.threads import InThread

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs OpenSSH's ssh-keygen")

PACKAGE = "Windows/AWSCloudHSMCLI-5.18.0-1.msi"
WITHOUT_BUILD = AgentArchive("hsm-agent-far-end-0.tar.gz", "f00", b"for POSIX")
LOOKS = ("exec", "echo", "powershell")


def build(size: int = 100_000) -> AgentArchive:
    """What travels: as the zip of a release, with a program that nobody runs."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("hsm-agent-1/hsm-agent.exe", bytes(size))
        packed.writestr("hsm-agent-1/agent/__init__.py", f'__version__ = "{__version__}"\n')
    data = buffer.getvalue()
    return AgentArchive("hsm-agent-1-x86_64-windows-1.zip", hashlib.sha256(data).hexdigest(), data)


BUILD = build()


@dataclass
class FarEnd:
    """What hsm-agent.exe says on a host: that it is there, which package it wants, and a report of success.

    `gone` makes the connection break so often in the middle of the run.
    """

    url: str = ""
    gone: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)

    def __call__(self, streams: Exec) -> int:
        request = streams.line()
        self.requests.append(request)
        streams.say("hello", python="3.13.2")
        streams.say("at", step="package:cli", changing=True)
        if len(self.requests) <= self.gone:
            streams.channel.get_transport().close()
            return 1
        if self.url:
            streams.say("want", what="file", url=self.url, sha256=None)
            self.answers.append(streams.line())
            self.files.append(streams.incoming.read(self.answers[-1].get("size", 0)))
        mine = {"command": request["command"], "request": request["request"]}
        streams.say("report", report={**REPORT, **mine})
        assert streams.incoming.read() == b""
        return 0


class Seat:
    """The operator's seat, with ssh's configuration and keys, and one host in a fleet."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.folder = folder
        self.keys = keygen(folder / "host_key"), keygen(folder / "user")
        (folder / "data").mkdir()
        (folder / "mirror" / "Windows").mkdir(parents=True)
        (folder / "mirror" / PACKAGE).write_bytes(b"package")
        self.far_end = FarEnd()
        self.host = WindowsHost(shell, folder / "data", self.far_end)
        self.said: list[str] = []
        self.cancel_token = SocketCancelToken()
        self.build: AgentArchive | None = BUILD

    def visitor(self, port: int) -> HostRunner:
        (self.folder / "config").write_text(
            f"Host *\n IdentityFile {self.keys[1]}\n IdentitiesOnly yes\n IdentityAgent none\n User administrator\n"
            f" Port {port}\n UserKnownHostsFile {self.folder / 'known'}\n GlobalKnownHostsFile none\n"
        )
        desired = {"hsm_ip": ["127.0.0.9"], "package_source": str(self.folder / "mirror")}
        spec = RunSpec("rollout", "hosts", (Target("win-1", "127.0.0.1"),), {"win-1": desired}, deadline=60.0)
        archives = AgentArchives(WITHOUT_BUILD, self.build)
        run = RunState("RUN", "now", spec, archives.sent, endpoints={"win-1": ("127.0.0.1", port)})
        connector = SshConnector(str(self.folder / "config"), trust_new=True)
        environ = {"XDG_CACHE_HOME": str(self.folder / "kept")}
        deps = Deps(
            Posix(), environ, lambda _spec: FleetOverSsh(connector, archives), SocketCancelToken, RolloutCounters(), lambda: 0,
            search=20.0,
        )  # fmt: skip
        return HostRunner(run, deps, connector, archives)

    def visit(self, visitor: HostRunner, command: str = "rollout", system: str | None = None) -> HostResult:
        host_task = HostTask(command, Target("win-1", "127.0.0.1", system=system), 1, 1, again=False)
        return visitor(host_task, self.cancel_token, self.said.append)

    def once(self, command: str = "rollout", system: str | None = None) -> HostResult:
        with serving(self.host, *self.keys) as port:
            return self.visit(self.visitor(port), command, system)


@pytest.fixture(params=["cmd", "powershell"])
def seat(request: pytest.FixtureRequest, tmp_path: Path) -> Seat:
    return Seat(tmp_path, request.param)


def test_a_host_is_found_out_and_brought_the_build_once(seat: Seat) -> None:
    with serving(seat.host, *seat.keys) as port:
        visitor = seat.visitor(port)
        first = seat.visit(visitor)
        assert (first.state, first.code, first.saw) == (HostState.OK, None, None)
        assert seat.said == ["sending the agent", "checking", "package:cli"]
        assert (tuple(seat.host.began), seat.host.names) == (LOOKS, [BUILD.sha256])
        seat.host.began.clear()
        second = seat.visit(visitor)
        assert (second.state, seat.host.began) == (HostState.OK, ["powershell"])
        assert seat.said[3:] == ["checking", "package:cli"]
    assert seat.far_end.requests[0]["tree"] == {"sha256": BUILD.sha256, "keep": True}


def test_a_host_that_is_said_to_be_windows_is_asked_at_once(seat: Seat) -> None:
    assert seat.once(system="windows").state is HostState.OK
    assert seat.host.began == ["powershell"]


def test_a_host_that_is_said_to_be_linux_is_not_asked(seat: Seat) -> None:
    end = seat.once(system="linux")
    assert (end.state, end.code, seat.host.began) == (HostState.FAILED, "far-end-failed", ["exec"])
    assert "exec" in str(end.saw) or "CommandNotFound" in str(end.saw) or "batch file" in str(end.saw)


@pytest.mark.parametrize("status", [0, 1, 9009])
def test_how_cmd_ends_after_unknown_words_does_not_matter(tmp_path: Path, status: int) -> None:
    seat = Seat(tmp_path, "cmd")
    seat.host.status = status
    assert seat.once().state is HostState.OK


def test_what_a_shell_prints_before_does_no_harm(seat: Seat) -> None:
    seat.host.noise = b"Willkommen auf WIN-1!\r\n\x84\x94 {}\r\nWindows_NT is not asked for here\r\nunended "
    assert seat.once(system="windows").state is HostState.OK
    seat.host.noise = seat.host.noise.rpartition(b"\n")[0] + b"\n"
    assert seat.once().state is HostState.OK


def test_plan_leaves_nothing_and_uses_what_is_there(seat: Seat) -> None:
    assert seat.once("plan").code is None
    assert (seat.host.names, seat.said.count("sending the agent")) == ([], 1)
    assert seat.once("rollout").state is HostState.OK
    assert seat.once("plan").code is None
    assert (seat.host.names, seat.said.count("sending the agent")) == ([BUILD.sha256], 2)


def test_a_package_travels_over_the_same_wire(seat: Seat) -> None:
    seat.far_end.url = f"{seat.folder}/mirror/{PACKAGE}"
    assert seat.once().state is HostState.OK
    assert seat.far_end.answers == [{"size": 7, "sha256": hashlib.sha256(b"package").hexdigest()}]
    assert seat.far_end.files == [b"package"]


def test_a_host_is_sent_nothing_but_client_packages(seat: Seat) -> None:
    seat.far_end.url = str(seat.keys[1])
    seat.once()
    assert (seat.far_end.answers[0]["code"], seat.far_end.files) == ("download-failed", [b""])


def test_without_a_build_it_says_where_to_get_one(seat: Seat) -> None:
    seat.build = None
    for system in (None, "windows"):
        end = seat.once(system=system)
        assert (end.state, end.code) == (HostState.FAILED, "tree-missing")
        assert "packaging/build.py --windows" in str(end.hint)


BLOCKED = """At line:1 char:1
+ $ErrorActionPreference = 'Stop' <# and so on #>
+ ~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~
This script contains malicious content and has been blocked by your antivirus software.
    + CategoryInfo          : ParserError: (:) [], ParentContainsErrorRecordException
    + FullyQualifiedErrorId : ScriptContainedMaliciousContent
"""


def test_a_script_that_is_not_allowed_is_told_in_the_hosts_words(seat: Seat) -> None:
    seat.host.blocked = BLOCKED
    end = seat.once()
    assert (end.state, end.code) == (HostState.FAILED, "far-end-failed")
    assert end.saw == BLOCKED.splitlines()[3]
    assert "-EncodedCommand" in str(end.hint)
    assert seat.host.names == []


def test_a_plain_user_is_refused_before_anything_is_sent(seat: Seat) -> None:
    seat.host.administrator = False
    end = seat.once()
    assert (end.state, end.code, end.exit_status) == (HostState.FAILED, "not-root", 11)
    assert not (seat.folder / "data" / "hsm-agent").exists()


@pytest.mark.parametrize("folder", ["", r"\trees", rf"\trees\{BUILD.sha256}"], ids=["ours", "trees", "tree"])
def test_nothing_is_started_from_a_folder_of_somebody_else(seat: Seat, folder: str) -> None:
    assert seat.once().state is HostState.OK
    place = rf"hsm-agent{folder}"
    seat.host.owners[place] = SOMEBODY
    end = seat.once()
    assert (end.state, end.code) == (HostState.FAILED, "write-failed")
    assert end.saw == rf"C:\ProgramData\{place} belongs to {SOMEBODY}"
    assert len(seat.far_end.requests) == 1


@pytest.mark.parametrize("fault", ["is a link", "has no access list", f"can be changed by {SOMEBODY}"])
@pytest.mark.parametrize("folder", ["", r"\trees", rf"\trees\{BUILD.sha256}"], ids=["ours", "trees", "tree"])
def test_nothing_is_started_where_somebody_else_can_exchange_it(seat: Seat, folder: str, fault: str) -> None:
    assert seat.once().state is HostState.OK
    place = rf"hsm-agent{folder}"
    seat.host.faults[place] = fault
    end = seat.once()
    assert (end.state, end.code, end.saw) == (
        HostState.FAILED,
        "write-failed",
        rf"C:\ProgramData\{place} {fault}",
    )
    assert len(seat.far_end.requests) == 1


def test_a_full_disk_ends_the_push(seat: Seat) -> None:
    seat.build = build(8_000_000)
    seat.host.room = 100_000
    end = seat.once()
    assert (end.state, end.code, seat.host.names) == (HostState.FAILED, "no-space", [])


def test_other_bytes_than_were_sent_are_refused(seat: Seat) -> None:
    seat.host.damaged = True
    end = seat.once()
    assert (end.state, end.code, seat.host.names) == (HostState.FAILED, "checksum-mismatch", [])
    assert str(end.saw).endswith(f"wanted sha256:{BUILD.sha256}")


def test_a_link_that_is_cut_in_the_middle_of_the_push_is_made_again(seat: Seat) -> None:
    seat.build = build(4_000_000)
    seat.host.cuts = [1_000_000]
    end = seat.once()
    assert (end.state, end.code) == (HostState.OK, None)
    assert seat.host.names == [seat.build.sha256]
    # it had not said hello before, so nothing can be under way there
    assert [each["again"] for each in seat.far_end.requests] == [False]
    assert seat.host.began == ["exec", "echo", "powershell", "powershell"]


def test_a_link_that_is_cut_in_the_middle_of_the_run_is_made_again_and_asks_for_its_report(
    seat: Seat,
) -> None:
    seat.far_end.gone = 1
    assert seat.once().state is HostState.OK
    assert [(each["again"], each["request"]) for each in seat.far_end.requests] == [
        (False, "RUN/win-1/1"), (True, "RUN/win-1/1"),
    ]  # fmt: skip
    assert seat.said.count("sending the agent") == 1


def test_old_trees_and_drafts_are_pruned(seat: Seat) -> None:
    for age, name in enumerate(("old", "older", "new", f"{STAGING_PREFIX}left")):
        (seat.host.trees / name).mkdir(parents=True)
        os.utime(seat.host.trees / name, (1000 + age, 1000 + age))
    assert seat.once().state is HostState.OK
    assert set(seat.host.names) == {"older", "new", BUILD.sha256}


def test_a_cut_ends_a_visit_in_the_middle_of_a_run(seat: Seat) -> None:
    entered, go = threading.Event(), threading.Event()

    def stays(streams: Exec) -> int:
        streams.say("hello", python="3.13.2")
        entered.set()
        go.wait(30)
        return 0

    seat.host.far_end = stays
    with serving(seat.host, *seat.keys) as port:
        ends: list[HostResult] = []
        visitor = seat.visitor(port)
        waiting = InThread(lambda: ends.append(seat.visit(visitor)))
        assert entered.wait(30)
        seat.cancel_token.cancel()
        assert waiting.ended() is None
        go.set()
    assert [end.code for end in ends] == ["interrupted"]


def test_the_agent_itself_answers_on_the_other_side(seat: Seat) -> None:
    """With this machine's Python: what it says is what the operator's end takes for a report, and no more is shown."""
    seat.host.far_end = agent_of_linux
    end = seat.once("plan")
    assert end.report is not None, end
    assert (end.report["command"], end.report["request"]) == ("plan", "RUN/win-1/1")
    assert json.dumps(end.report)
    assert seat.said[:2] == ["sending the agent", "checking"]


def test_the_scripts_hold_no_value_and_are_read_by_a_grammar_of_powershell() -> None:
    grammar = pytest.importorskip("tree_sitter_powershell", reason="has no wheel for this Python")
    from tree_sitter import Language, Parser

    way = LaunchMethods(AgentArchives(WITHOUT_BUILD, BUILD)).for_windows(Target("win-1", "10.0.4.7"))
    before, _, encoded = way.command.rpartition(" ")
    assert re.fullmatch(r"powershell( -\w+| None)+", before)
    assert len(way.command) < 8191 // 2  # of cmd; not to come near
    parser = Parser(Language(grammar.language()))
    length, _, program = way.preamble.partition(b"\n")
    assert int(length) == len(program)
    for script in (base64.b64decode(encoded).decode("utf-16-le").encode("ascii"), program):
        script.decode("ascii")
        assert not parser.parse(script).root_node.has_error
        before_last, _, after_last = script.rpartition(b"}")
        assert parser.parse(before_last + after_last).root_node.has_error  # it would have told
