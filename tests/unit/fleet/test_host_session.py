"""A visit to a host whose side of the conversation is written out: what is sent, and how the visit ends."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.fleet_model import ArchiveDigests, HostResult, HostState, Target
from agent.core.transport import CancelledError, ConnectionLostError
from agent.core.urls import PUSHED
from agent.fleet import controller, journal
from agent.fleet.agent_archive import AgentArchive, AgentArchives
from agent.fleet.host_session import HostRunner
from agent.fleet.launch import COMMAND, SHELL_PROBE
from agent.fleet.model import Deps, HostTask, RunSpec, RunState
from agent.fleet.replies import has_proof
from agent.fleet.ssh_transport import FleetOverSsh
from agent.hosts.posix import Posix
from agent.remote.protocol import RECORD
from agent.render.fleet import html, screen
from agent.render.fleet.counters import RolloutCounters
from agent.render.fleet.junit import suites
from tests.fakes.visits import HSM, REPORT, STEP

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent.core.codes import CodeName

HELLO: dict[str, Any] = {"event": "hello", "python": "3.11.2", "uid": 0}


def report(**more: Any) -> dict[str, Any]:
    return {"event": "report", "report": {**REPORT, **more}}


@dataclass
class Script:
    """A connection on which these records come (or bytes, or an error), and then the command's end.

    `shell` is what its shell answers when it is asked which one it is; `windows` is how PowerShell ends there, and
    `bare` how the shell does that is to bring a Python.
    """

    comes: tuple[dict[str, Any] | bytes | Exception, ...] = ()
    ends: int | None = 0
    said: bytes = b""
    trusted: str | None = None
    shell: bytes | Exception = b"%OS% :OS\n"
    windows: Script | None = None
    bare: Script | None = None
    sent: bytearray = field(default_factory=bytearray)
    began: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = list(self.comes)

    def send(self, data: bytes) -> None:
        self.sent += data

    def receive(self, *, timeout: float = 0.0) -> bytes:
        if not self._left:
            return b""
        what = self._left.pop(0)
        if isinstance(what, Exception):
            raise what
        what = what if isinstance(what, bytes) else RECORD + json.dumps(what).encode() + b"\n"
        return what.replace(RECORD, RECORD + self.request["word"].encode()) if RECORD in what else what

    def close_stdin(self) -> None:
        if not self.sent.endswith(b"<end>"):  # it may be said twice
            self.sent += b"<end>"

    def status(self) -> int | None:
        return self.ends

    def errors(self) -> bytes:
        return self.said

    @contextmanager
    def open_command(self, command: str) -> Iterator[Script]:
        self.began.append(command.partition(" ")[0])
        if command == SHELL_PROBE:
            yield Script((self.shell,))
        elif command == COMMAND:
            yield self
        elif command.startswith("exec /bin/sh"):
            assert self.bare is not None
            yield self.bare
        else:
            assert self.windows is not None
            yield self.windows

    @property
    def request(self) -> dict[str, Any]:
        if self.sent.startswith(b"# What"):  # the length of this program is in its command
            words: dict[str, Any] = json.loads(re.findall(rb'(?m)^\{"sha256": .*\}$', self.sent)[0])
            return words
        length, _, rest = bytes(self.sent).partition(b"\n")
        assert rest.startswith((b'"""The bootstrap program', b"# What agent/remote/bootstrap.py is on Linux"))
        found: dict[str, Any] = json.loads(rest[int(length) :].partition(b"\n")[0])
        return found

    @property
    def after(self) -> bytes:
        """What was sent after the request."""
        length, _, rest = bytes(self.sent).partition(b"\n")
        return rest[int(length) :].partition(b"\n")[2]


class Cord:
    def cancel(self) -> None: ...

    def wait(self, seconds: float) -> None: ...


@dataclass
class Scene:
    folder: Path
    scripts: tuple[Script | Exception, ...]
    command: str = "rollout"
    search: float = 60.0
    again: bool = False
    system: str | None = None
    build: AgentArchive | None = None
    linux: dict[str, AgentArchive] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def made(self) -> HostResult:
        left = list(self.scripts)

        class Door:
            def endpoints(self, targets: Sequence[Target], _stopped: object) -> dict[str, tuple[str, int]]:
                return {each.name: (each.address, each.port or 22) for each in targets}

            @contextmanager
            def open(self, target: Target, _line: Any) -> Iterator[Script]:
                assert target.name == "web-1"
                script = left.pop(0) if len(left) > 1 else left[0]
                if isinstance(script, Exception):
                    raise script
                yield script

        mirror = self.folder / "mirror"
        mirror.mkdir()
        (mirror / "Noble").mkdir()
        (mirror / "Noble" / "cloudhsm-cli_5.18.0-1_u24.04_amd64.deb").write_bytes(b"package")
        (self.folder / "id_rsa").write_text("secret")
        target = Target("web-1", "10.0.4.7", port=2222, system=self.system)
        desired = {"web-1": {"hsm_ip": ["10.0.1.6"], "package_source": str(mirror)}}
        spec = RunSpec(self.command, "hosts", (target,), desired, deadline=100.0)
        archives = AgentArchives(AgentArchive("t.tar.gz", "f00", b"TREE"), self.build, self.linux)
        run = RunState("RUN", "now", spec, archives.sent, endpoints={"web-1": ("10.0.4.7", 2222)})
        environ = {"XDG_CACHE_HOME": str(self.folder / "kept")}
        deps = Deps(
            Posix(),
            environ,
            lambda _spec: FleetOverSsh(Door(), archives),
            Cord,
            RolloutCounters(),
            lambda: 0,
            self.search,
        )
        self.host_task = HostTask(self.command, target, 3, 2, self.again)
        self.visitor = HostRunner(run, deps, Door(), archives)
        return self.visitor(self.host_task, Cord(), self.said.append)


def test_a_report_of_success_with_its_proof_is_ok(tmp_path: Path) -> None:
    script = Script(
        (b"Welcome to web-1!\r\n", HELLO, {"event": "at", "step": "package:cli"}, report()),
        trusted="SHA256:x",
    )
    scene = Scene(tmp_path, (script,))
    end = scene.made()
    assert end == HostResult(
        "web-1", "10.0.4.7", 2222, 3, HostState.OK, changed=True, exit_status=0, trusted="SHA256:x", report=REPORT,
        seconds=end.seconds,
    )  # fmt: skip
    assert scene.said == ["checking", "package:cli"]
    assert script.request == {
        "tree": {"sha256": "f00", "keep": True}, "command": "configure",
        "desired": {"hsm_ip": ["10.0.1.6"], "package_source": PUSHED}, "cluster": None,
        "request": "RUN/web-1/2", "again": False, "resumed": False, "removal": False,
        "seconds": script.request["seconds"], "word": script.request["word"], "agent": None, "removes_agent": False,
    }  # fmt: skip
    assert 80 < script.request["seconds"] <= 90


def test_plan_leaves_no_tree_behind(tmp_path: Path) -> None:
    script = Script((HELLO, report(outcome="drift", code="drift", exit_status=3, command="plan")))
    assert Scene(tmp_path, (script,), command="plan").made().state is HostState.DRIFTED
    assert script.request["tree"]["keep"] is False


@pytest.mark.parametrize(
    ("more", "state"),
    [
        ({"outcome": "degraded", "code": "hsm-degraded", "exit_status": 41}, HostState.DEGRADED),
        ({"outcome": "failed", "code": "hsm-timed-out", "exit_status": 40}, HostState.FAILED),
        ({"outcome": "rolled-back", "code": "rolled-back", "exit_status": 51}, HostState.FAILED),
        ({"outcome": "ok", "code": "report-undelivered", "exit_status": 60}, HostState.OK),
    ],
)
def test_the_outcome_of_a_report_is_the_hosts(tmp_path: Path, more: dict[str, Any], state: HostState) -> None:
    end = Scene(tmp_path, (Script((HELLO, report(**more))),)).made()
    assert (end.state, end.code, end.exit_status) == (state, more["code"], more["exit_status"])


@pytest.mark.parametrize(
    "more",
    [
        {"hsms": []},
        {"hsms": [{**HSM, "ip": ip, "reached": ip == "10.0.1.6"} for ip in ("10.0.1.6", "10.0.2.9")]},
        {"steps": []},
        {"steps": [{**REPORT["steps"][0], "outcome": "skipped"}]},
    ],
    ids=["no HSM", "one not reached", "no answer", "not asked"],
)
def test_success_is_not_believed_without_the_proof(tmp_path: Path, more: dict[str, Any]) -> None:
    assert not has_proof({**REPORT, **more})
    end = Scene(tmp_path, (Script((HELLO, report(**more))),)).made()
    assert (end.state, end.code) == (HostState.FAILED, "far-end-failed")


@pytest.mark.parametrize("more", [{"steps": [{"id": "service"}]}, {"warnings": None}, {"exit_status": "0"}])
def test_what_has_not_the_shape_of_a_report_is_none(tmp_path: Path, more: dict[str, Any]) -> None:
    end = Scene(tmp_path, (Script((HELLO, report(**more))),)).made()
    assert (end.state, end.code, end.report) == (HostState.FAILED, "far-end-failed", None)


@pytest.mark.parametrize("more", [{"request": "RUN/web-2/2"}, {"request": None}, {"command": "verify"}])
def test_a_report_of_another_request_is_none(tmp_path: Path, more: dict[str, Any]) -> None:
    end = Scene(tmp_path, (Script((HELLO, report(**more))),)).made()
    assert (end.state, end.code, end.report) == (HostState.FAILED, "far-end-failed", None)


def test_a_second_look_needs_its_proof_too(tmp_path: Path) -> None:
    script = Script((HELLO, report(command="verify", hsms=[])))
    assert Scene(tmp_path, (script,), command="verify").made().code == "far-end-failed"
    script = Script((HELLO, report(command="remove", hsms=[], steps=[])))
    (tmp_path / "more").mkdir()
    assert Scene(tmp_path / "more", (script,), command="remove").made().state is HostState.OK


@pytest.mark.parametrize(
    "record",
    [
        b'{"event": "at"}', b'{"event": "at", "step": 5}', b'{"event": ["at"]}', b'{"event": "else"}', b"{}",
        b'{"event": "want"}', b'{"event": "want", "what": "file"}', b'{"event": "want", "what": "file", "url": 1}',
        b'{"event": "want", "what": "file", "url": "x", "sha256": []}', b'{"event": "failed"}',
        b'{"event": "failed", "code": "made-up", "saw": "x"}', b'{"event": "failed", "code": [], "saw": "x"}',
        b'{"event": "failed", "code": "no-space", "saw": {}}', b'{"event": "hello", "uid": NaN}',
        b'{"event": "hello", "uid": 1e999}', b'{"event": "hello", "uid": -Infinity}', b"[" * 100_000,
        b'{"event": "hello", "uid": ' + b"[" * 60 + b"]" * 60 + b"}",
    ],
)  # fmt: skip
def test_a_host_that_lies_is_that_hosts_failure(tmp_path: Path, record: bytes) -> None:
    end = Scene(tmp_path, (Script((HELLO, RECORD + record + b"\n", report())),)).made()
    assert (end.state, end.code) == (HostState.FAILED, "far-end-failed")
    assert end.saw == record[:100].decode()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("endless", "saw"),
    [({"event": "at", "step": "x"}, "1001 records"), ({"event": "want", "what": "tree"}, "want tree"),
     (b"noise\n" * 10_000, "bytes"), (b"noise without an end", "bytes in one line")],
)  # fmt: skip
def test_a_host_that_does_not_stop_is_stopped(tmp_path: Path, endless: Any, saw: str) -> None:
    end = Scene(tmp_path, (Script((HELLO, *[endless] * (100_000 if saw.endswith("line") else 1001))),)).made()
    assert end.code == "far-end-failed"
    assert str(end.saw).endswith(saw)


def test_a_host_that_waited_in_vain_is_connected_to_again(tmp_path: Path) -> None:
    first = Script((HELLO, {"event": "failed", "code": "link-lost", "saw": "nothing came for 60 s"}))
    assert Scene(tmp_path, (first, Script((HELLO, report())))).made().state is HostState.OK


def test_each_loss_of_a_host_is_searched_for_by_itself(tmp_path: Path) -> None:
    """A link that broke, was made again and breaks once more much later is not given up for its first loss."""
    lost = [Script((HELLO, ConnectionLostError("broken"))) for _ in range(3)]
    assert Scene(tmp_path, (*lost, Script((HELLO, report()))), search=0).made().state is HostState.OK


def test_a_failure_comes_with_its_step_and_its_way_out(tmp_path: Path) -> None:
    failed = {
        **STEP,
        "id": "reach:10.0.1.6:2223",
        "outcome": "failed",
        "code": "hsm-timed-out",
        "saw": "timed out",
        "hint": "sg",
    }
    failure = {"code": "hsm-timed-out", "sentence": "s", "saw": "", "want": "", "hint": "general"}
    more = {
        "outcome": "failed",
        "code": "hsm-timed-out",
        "exit_status": 40,
        "steps": [failed],
        "failure": failure,
    }
    end = Scene(tmp_path, (Script((HELLO, report(**more))),)).made()
    assert (end.saw, end.hint) == ("timed out", "sg")


def test_the_agent_and_a_package_are_sent_when_they_are_wanted(tmp_path: Path) -> None:
    url = f"{tmp_path}/mirror/Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb"
    wants = ({"event": "want", "what": "tree"}, {"event": "want", "what": "file", "url": url, "sha256": None})
    script = Script((HELLO, *wants, report()))
    assert Scene(tmp_path, (script,)).made().state is HostState.OK
    tree, _, rest = script.after.partition(b"\n")
    assert json.loads(tree) == {"size": 4}
    assert rest.startswith(b'TREE{"size": 7, "sha256": "')
    assert rest.endswith(b"}\npackage<end>")


@pytest.mark.parametrize(
    "url",
    [
        "/etc/shadow", "file:///etc/shadow", "https://elsewhere/Noble/cloudhsm-cli_1_u24.04_amd64.deb", "{mirror}/../id_rsa",
        "{mirror}/Noble/../../id_rsa", "{mirror}/Noble/id_rsa", "{mirror}", "", "{mirror}-other/Noble/cloudhsm-cli.deb",
    ],
)  # fmt: skip
def test_a_host_is_sent_nothing_but_client_packages(tmp_path: Path, url: str) -> None:
    url = url.replace("{mirror}", f"{tmp_path}/mirror")
    script = Script((HELLO, {"event": "want", "what": "file", "url": url, "sha256": None}, report()))
    Scene(tmp_path, (script,)).made()
    told = json.loads(script.after.partition(b"\n")[0])
    assert (told["code"], told["saw"]) == ("download-failed", url)
    assert b"secret" not in script.sent


def test_a_package_that_is_not_there_is_told_to_the_host(tmp_path: Path) -> None:
    url = f"{tmp_path}/mirror/Noble/cloudhsm-jce_5.18.0-1_u24.04_amd64.deb"
    script = Script((HELLO, {"event": "want", "what": "file", "url": url, "sha256": None}, report()))
    Scene(tmp_path, (script,)).made()
    assert json.loads(script.after.partition(b"\n")[0])["code"] == "package-not-found"


@pytest.mark.parametrize("code", ["no-space", "checksum-mismatch", "read-only", "write-failed"])
def test_a_tree_that_cannot_be_laid_is_that_hosts_failure(tmp_path: Path, code: str) -> None:
    end = Scene(tmp_path, (Script((HELLO, {"event": "failed", "code": code, "saw": "why"})),)).made()
    assert (end.state, end.code, end.saw) == (HostState.FAILED, code, "why")


TRACEBACK = b"""Traceback (most recent call last):
  File "<string>", line 1, in <module>
    import ssl
    ^^^^^^^^^^

ModuleNotFoundError: No module named '_ssl'
"""
TRIED = (
    b"sudo: unable to resolve host web-1: Name or service not known\n"
    b"pyenv: python3: command not found\nhsm-agent: /usr/local/bin/python3 ended with 127\n"
    b"hsm-agent: /opt/python3.12 ended with 139\n"
    + TRACEBACK
    + b"hsm-agent: /usr/bin/python3.11 ended with 1\n"
    b"3.6.8\nhsm-agent: /usr/bin/python3 ended with 1\n"
)
SEEN = (
    "/usr/local/bin/python3: pyenv: python3: command not found\n/opt/python3.12: exit 139\n"
    "/usr/bin/python3.11: ModuleNotFoundError: No module named '_ssl'\n/usr/bin/python3: Python 3.6.8"
)
SUDO = "sudo: unable to resolve host web-1: Name or service not known\n"


@pytest.mark.parametrize("warned", ["", SUDO])
@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("sudo: a password is required", "NOPASSWD"), ("sudo: a terminal is required to read the password", "NOPASSWD"),
        ("sudo: interactive authentication is required", "NOPASSWD"),
        ("sudo: Ein Passwort ist notwendig", "sudo -n true"),
        ("sudo: sorry, you must have a tty to run sudo", "!requiretty"),
        ("sudo: Account or password is expired, reset your password and try again", "chage"),
        ("sudo: account validation failure, is your account locked?", "sudo -n true"),
        ("ec2-user is not in the sudoers file.  This incident will be reported.", "NOPASSWD"),
        ("Sorry, user ec2-user may not run sudo on web-1.", "NOPASSWD"),
        ("Sorry, user ec2-user is not allowed to execute '/bin/sh' as root on web-1. sudo", "NOPASSWD"),
        ("sudo: I'm sorry ec2-user. I'm afraid I can't do that", "NOPASSWD"),
        ("sh: 1: exec: sudo: not found", "root"), ("/bin/sh: line 1: exec: sudo: not found", "root"),
    ],
)  # fmt: skip
def test_a_refusal_of_sudo_is_told_with_what_helps(tmp_path: Path, said: str, hint: str, warned: str) -> None:
    end = Scene(tmp_path, (Script(ends=1, said=f"{warned}{said}\n".encode()),)).made()
    assert (end.code, end.saw) == ("sudo-refused", said)
    assert hint in str(end.hint)


def test_a_warning_of_sudo_is_no_refusal(tmp_path: Path) -> None:
    assert Scene(tmp_path, (Script((HELLO, report()), said=SUDO.encode()),)).made().state is HostState.OK
    (tmp_path / "more").mkdir()
    end = Scene(tmp_path / "more", (Script(ends=1, said=SUDO.encode()),)).made()
    assert end.code == "far-end-failed"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (b'Please login as the user "ec2-user" rather than the user "root".\n', "ec2-user"),
        (b"Please login as the user 'ubuntu' rather than the user 'root'.\n", "ubuntu"),
        (b"WARNING: Your password has expired.\nPassword change required but no TTY available.\n", "chage"),
    ],
)
@pytest.mark.parametrize("stream", ["output", "error"])
def test_a_login_that_is_refused_in_words_is_told_at_once(
    tmp_path: Path, words: bytes, hint: str, stream: str
) -> None:
    """EC2's line sleeps ten seconds behind its words, and a second session to ask for Windows ten more."""
    asleep = AssertionError("nobody waits for what comes behind")
    script = Script((words, asleep)) if stream == "output" else Script(ends=1, said=words)
    end = Scene(tmp_path, (script,)).made()
    assert (end.state, end.code, end.saw) == (
        HostState.UNREACHABLE,
        "login-refused",
        words.decode().splitlines()[0] if stream == "output" else words.decode().strip(),
    )
    assert hint in str(end.hint)
    assert script.began == ["exec"]


def test_who_reads_in_our_place_is_let_come_to_his_end(tmp_path: Path) -> None:
    """A `cat` in .bashrc would wait as long as we do."""
    script = Script((AgentError("ssh-timed-out", "nothing came"),), ends=95)
    end = Scene(tmp_path, (script,)).made()
    assert (end.code, ".bashrc" in str(end.hint)) == ("far-end-failed", True)
    assert script.after == b"<end>"
    (tmp_path / "more").mkdir()
    silent = AgentError("ssh-timed-out", "nothing came", saw="for 120 s")
    end = Scene(tmp_path / "more", (Script((silent, silent)),)).made()
    assert (end.state, end.code, end.saw) == (HostState.UNREACHABLE, "ssh-timed-out", "for 120 s")


@pytest.mark.parametrize(
    "code", ["nothing-recorded", "drift", "rollback-failed", "far-end-failed", "internal"]
)
def test_nobody_is_told_to_run_what_is_not_on_a_host(tmp_path: Path, code: str) -> None:
    fix = CODES[code].fix
    failure = {"code": code, "sentence": "s", "saw": "x", "want": "", "hint": fix}
    more = {
        "outcome": "failed",
        "code": code,
        "exit_status": CODES[code].exit_status,
        "failure": failure,
        "steps": [],
    }
    end = Scene(tmp_path, (Script((HELLO, report(**more))),)).made()
    for verb in ("configure", "verify", "rollback", "facts", "remove"):
        assert f"`hsm-agent {verb}" not in str(end.hint)
        assert f"sudo hsm-agent {verb}" not in str(end.hint)


def test_who_says_where_nobody_hears_is_let_come_to_his_end(tmp_path: Path) -> None:
    """An `exec >/dev/null` in .bashrc: what began there waits for more, and its status came after 30 s or never."""
    script = Script(ends=0)
    end = Scene(tmp_path, (script,)).made()
    assert (end.code, script.after) == ("far-end-failed", b"<end>")
    assert "ForceCommand" in str(end.hint)
    assert ".bashrc" in str(end.hint)


def test_what_a_shell_says_is_shown_without_our_own_program(tmp_path: Path) -> None:
    """It begins with the name that it was given: the whole of what it was to do."""
    program = COMMAND.split("'")[3]
    said = f"{program}: 1: exec: sudo: not found\n".encode()
    end = Scene(tmp_path, (Script(ends=127, said=said),)).made()
    assert (end.code, end.saw) == ("sudo-refused", "sh: 1: exec: sudo: not found")


def test_such_words_in_the_middle_of_a_run_are_noise(tmp_path: Path) -> None:
    words = b'Please login as the user "ec2-user" rather than the user "root".\n'
    assert Scene(tmp_path, (Script((HELLO, words, report())),)).made().state is HostState.OK


@pytest.mark.parametrize("tries", [2, 3])
def test_a_session_that_ends_right_after_the_login_is_tried_three_times(tmp_path: Path, tries: int) -> None:
    lost = [Script((ConnectionLostError("closed"),)) for _ in range(tries)]
    end = Scene(tmp_path, (*lost, Script((HELLO, report())))).made()
    expected = (HostState.OK, None) if tries == 2 else (HostState.UNREACHABLE, "ssh-failed")
    assert (end.state, end.code) == expected
    if tries == 3:
        assert end.saw == "the session ended right after the login: closed"
        assert "ChrootDirectory" in str(end.hint)


@pytest.mark.parametrize(
    ("script", "code", "saw"),
    [
        (Script(ends=93, said=b"Python 3.6.8\n"), "python-missing", "Python 3.6.8"),
        (Script(ends=93), "python-missing", "no python3 at all"),
        (
            Script(ends=1, said=b"sudo: a password is required\n"),
            "sudo-refused",
            "sudo: a password is required",
        ),
        (
            Script((b"This account is not available.\n",), ends=1),
            "far-end-failed",
            "This account is not available.",
        ),
        (Script((b"noise\n",), ends=1, said=b"last words\n"), "far-end-failed", "last words"),
        (Script(ends=1), "far-end-failed", "exit 1"),
        (Script(ends=95, said=b"x\n"), "far-end-failed", "x"),
        (Script(ends=1, said=TRACEBACK), "far-end-failed", "ModuleNotFoundError: No module named '_ssl'"),
        (
            Script((HELLO,), ends=1, said=b"before\n" + TRACEBACK),
            "far-end-failed",
            "before\nModuleNotFoundError: No module named '_ssl'",
        ),
        (
            Script(ends=93, said=TRIED),
            "python-missing",
            SEEN,
        ),
        (
            Script(ends=93, said=b"MemoryError\nhsm-agent: /usr/bin/python3 ended with 1\n"),
            "no-resources",
            "/usr/bin/python3: MemoryError",
        ),
        (Script((HELLO,), ends=137, said=b"Killed\n"), "far-end-failed", "Killed"),
        (Script((HELLO, RECORD + b"nonsense\n")), "far-end-failed", "nonsense"),
        (Script((HELLO, RECORD + b"[1]\n")), "far-end-failed", "[1]"),
        (Script((HELLO, RECORD + b"x" * 1_100_000)), "far-end-failed", "1100017 bytes in one line"),
    ],
)
def test_silence_has_a_cause(tmp_path: Path, script: Script, code: str, saw: str) -> None:
    end = Scene(tmp_path, (script,)).made()
    assert (end.state, end.code, end.saw) == (HostState.FAILED, code, saw)
    assert end.hint


def test_where_root_may_start_no_program_it_is_not_told_to_install_one(tmp_path: Path) -> None:
    said = b"hsm-agent: 6: /usr/bin/python3: Permission denied\nhsm-agent: /usr/bin/python3 ended with 126\n"
    end = Scene(tmp_path, (Script(ends=93, said=said),)).made()
    assert end.code == "python-missing"
    assert "NOEXEC" in str(end.hint)


@pytest.mark.parametrize(
    "code",
    ["host-name-unknown", "ssh-timed-out", "ssh-refused", "ssh-no-route", "ssh-failed", "host-key-unknown",
     "host-key-changed", "login-refused", "key-unusable"],
)  # fmt: skip
def test_a_host_that_is_not_reached_is_not_tried_again(tmp_path: Path, code: CodeName) -> None:
    end = Scene(tmp_path, (AgentError(code, "it failed", saw="this"), Script((HELLO, report())))).made()
    assert (end.state, end.code, end.saw, end.exit_status) == (HostState.UNREACHABLE, code, "this", 70)


def test_a_broken_link_is_made_again_and_the_report_read(tmp_path: Path) -> None:
    first = Script((HELLO, {"event": "at", "step": "package:cli"}, ConnectionLostError("broken")))
    second = Script((HELLO, report()))
    scene = Scene(tmp_path, (first, AgentError("ssh-refused", "not yet", saw="refused"), second))
    assert scene.made().state is HostState.OK
    assert (first.request["again"], second.request["again"]) == (False, True)
    assert first.request["request"] == second.request["request"]
    assert scene.said == ["checking", "package:cli", "connecting again", "connecting again", "checking"]


def test_a_host_that_stays_away_is_lost(tmp_path: Path) -> None:
    scene = Scene(
        tmp_path,
        (Script((HELLO, ConnectionLostError("broken"))), AgentError("ssh-timed-out", "x", saw="y")),
        search=0,
    )
    end = scene.made()
    assert (end.state, end.code) == (HostState.UNREACHABLE, "link-lost")


def test_a_run_that_something_else_interrupted_is_asked_for_once_more(tmp_path: Path) -> None:
    broken = report(outcome="failed", code="interrupted", exit_status=130)
    second = Script((HELLO, report()))
    assert Scene(tmp_path, (Script((HELLO, broken)), second)).made().state is HostState.OK
    (tmp_path / "again").mkdir()
    end = Scene(tmp_path / "again", (Script((HELLO, broken)), Script((HELLO, broken)))).made()
    assert (end.state, end.code) == (HostState.FAILED, "interrupted")


def test_a_link_that_was_cut_from_here_is_an_interrupt(tmp_path: Path) -> None:
    end = Scene(tmp_path, (Script((HELLO, CancelledError())),)).made()
    assert (end.state, end.code) == (HostState.FAILED, "interrupted")


def test_a_run_that_may_be_under_way_is_asked_for_its_report(tmp_path: Path) -> None:
    first, second = Script((HELLO, ConnectionLostError("broken"))), Script((HELLO, report()))
    Scene(tmp_path, (first, second), again=True).made()
    asked = [(each.request["again"], each.request["resumed"]) for each in (first, second)]
    assert asked == [(True, True), (True, False)]


def test_the_command_is_one_line_that_every_shell_takes_whole() -> None:
    before, first, between, second, after = COMMAND.split("'")
    assert (before, between, after) == ("exec /bin/sh -c ", " ", "")
    assert not set(first + second) & set("\\!\n'")


WINDOWS_TREE = AgentArchive("hsm-agent-0.1.0-x86_64-windows-0.zip", "f01", b"ZIP")
UNKNOWN = (
    b"'exec' is not recognized as an internal or external command,\r\noperable program or batch file.\r\n"
)
ANSWERS = {"cmd": b"AutoRun\r\nWindows_NT $env:OS\r\n", "powershell": b"%OS%\r\nWindows_NT\r\n"}


def on_windows(**more: Any) -> Script:
    """What PowerShell says on a host that has the build."""
    return Script(({"event": "settled"}, HELLO, report()), **more)


@pytest.mark.parametrize("shell", ANSWERS)
def test_a_shell_of_windows_is_found_out_and_remembered(tmp_path: Path, shell: str) -> None:
    script = Script(ends=1, said=UNKNOWN, shell=ANSWERS[shell], windows=on_windows())
    scene = Scene(tmp_path, (script,), build=WINDOWS_TREE)
    assert scene.made().state is HostState.OK
    assert script.began == ["exec", "echo", "powershell"]
    script.windows = on_windows()
    assert scene.visitor(scene.host_task, Cord(), scene.said.append).state is HostState.OK
    assert script.began == ["exec", "echo", "powershell", "powershell"]


def test_powershell_is_told_of_the_tree_first_and_of_the_rest_when_that_is_there(tmp_path: Path) -> None:
    powershell = Script(({"event": "want", "what": "tree"}, {"event": "settled"}, HELLO, report()))
    scene = Scene(tmp_path, (Script(windows=powershell),), system="windows", build=WINDOWS_TREE)
    assert scene.made().state is HostState.OK
    length, _, rest = bytes(powershell.sent).partition(b"\n")
    assert rest.startswith(b"# What agent/remote/bootstrap.py is on Linux")
    tree, size, request, end = rest[int(length) :].split(b"\n")
    word = json.loads(request[3:])["word"]
    assert (json.loads(tree), json.loads(size)) == (
        {"sha256": "f01", "keep": True, "word": word},
        {"size": 3},
    )
    assert (request[:3], json.loads(request[3:])["request"], end) == (b"ZIP", "RUN/web-1/2", b"<end>")
    assert scene.said == ["sending the agent", "checking"]


LINUX_TREE = AgentArchive("hsm-agent-0.1.0-x86_64-linux-0.tar.gz", "f02", b"PYTHON")
NO_PYTHON = b"hsm-agent: /usr/bin/python3 ended with 1\nhsm-agent: processor x86_64\n"


def test_a_host_without_python_gets_one_and_then_the_same_as_every_host(tmp_path: Path) -> None:
    shell = Script(
        (
            {"event": "want", "what": "tree"},
            {"event": "settled"},
            HELLO,
            {"event": "want", "what": "tree"},
            report(),
        )
    )
    script = Script(ends=93, said=NO_PYTHON, bare=shell)
    scene = Scene(tmp_path, (script,), linux={"x86_64": LINUX_TREE})
    assert scene.made().state is HostState.OK
    program, _, rest = bytes(shell.sent).partition(b'{"sha256": "f02", ')
    assert program.startswith(b"# What agent/remote/bootstrap.py is on a host with a Python")
    archive, _, second = rest.partition(b"\n")[2].partition(b"\n")
    assert (json.loads(archive), second[:6]) == ({"size": 6}, b"PYTHON")
    length, _, rest = second[6:].partition(b"\n")
    assert rest.startswith(b'"""The bootstrap program')
    request, *answer = rest[int(length) :].split(b"\n")
    assert json.loads(request)["tree"] == {"sha256": "f00", "keep": True}
    assert answer == [b'{"size": 4}', b"TREE<end>"]
    # it is remembered for the next session, which does not look for a Python again
    script.bare = Script(({"event": "settled"}, HELLO, report()))
    assert scene.visitor(scene.host_task, Cord(), scene.said.append).state is HostState.OK
    assert script.began == ["exec", "exec", "exec"]


@pytest.mark.parametrize("said", [NO_PYTHON.replace(b"x86_64", b"aarch64"), b"hsm-agent: processor \n", b""])
def test_a_host_without_python_for_which_there_is_no_build_is_told_which(tmp_path: Path, said: bytes) -> None:
    script = Script(ends=93, said=said)
    result = Scene(tmp_path, (script,), linux={"x86_64": LINUX_TREE}).made()
    assert (result.code, script.began) == ("python-missing", ["exec"])
    processor = "aarch64" if b"aarch64" in said else "ARCH"
    assert f"-{processor}-linux-HASH.tar.gz" in (result.hint or "")


def test_a_build_that_does_not_start_there_is_that_hosts_failure(tmp_path: Path) -> None:
    failed = Script(({"event": "failed", "code": "python-missing", "saw": "GLIBC_2.17 not found"},))
    result = Scene(
        tmp_path, (Script(ends=93, said=NO_PYTHON, bare=failed),), linux={"x86_64": LINUX_TREE}
    ).made()
    assert (result.code, result.saw) == ("python-missing", "GLIBC_2.17 not found")


@pytest.mark.parametrize(
    ("script", "began"),
    [
        (Script((HELLO, report())), ["exec"]),
        (Script(ends=93, said=b"Python 3.6.8\n"), ["exec"]),
        (Script(ends=1, said=b"sudo: a password is required\n"), ["exec"]),
        (Script((HELLO,), ends=1), ["exec"]),
        (Script(ends=1, said=UNKNOWN), ["exec", "echo"]),
    ],
    ids=["proven", "no Python", "no sudo", "broken off", "no words of ours"],
)
def test_only_a_shell_that_did_not_know_us_is_asked_which_one_it_is(
    tmp_path: Path, script: Script, began: list[str]
) -> None:
    Scene(tmp_path, (script,), build=WINDOWS_TREE).made()
    assert script.began == began


@pytest.mark.parametrize(
    "shell", [b"%OS% :OS\n", b"", b"Windows_NT :OS\n", AgentError("ssh-failed", "no more sessions")]
)
def test_what_is_not_windows_has_failed_with_its_first_words(
    tmp_path: Path, shell: bytes | AgentError
) -> None:
    script = Script(ends=1, said=b"exec: restricted\n", shell=shell)
    end = Scene(tmp_path, (script,), build=WINDOWS_TREE).made()
    assert (end.state, end.code, end.saw) == (HostState.FAILED, "far-end-failed", "exec: restricted")


def test_a_host_that_was_said_to_be_windows_and_is_not_is_a_failure(tmp_path: Path) -> None:
    powershell = Script(ends=127, said=b"sh: 1: powershell: not found\n")
    script = Script(windows=powershell)
    end = Scene(tmp_path, (script,), system="windows", build=WINDOWS_TREE).made()
    assert (end.code, end.saw) == ("far-end-failed", "sh: 1: powershell: not found")
    assert script.began == ["powershell"]


@pytest.mark.parametrize(
    ("said", "saw"),
    [
        ('#< CLIXML\r\n<Objs xmlns="x"><S S="Error">no &lt;such_x000D__x000A_</S><S S="Error"> thing_x000D__x000A_</S></Objs>',
         "no <such\n thing"),
        ('#< CLIXML\r\n<Objs xmlns="x"><Obj S="progress"></Obj></Objs>', '<Objs xmlns="x"><Obj S="progress"></Obj></Objs>'),
        ("", "exit 1"),
    ],
    ids=["errors", "progress", "nothing"],
)  # fmt: skip
def test_what_powershell_says_is_shown_without_its_xml(tmp_path: Path, said: str, saw: str) -> None:
    script = Script(windows=Script(ends=1, said=said.encode()))
    end = Scene(tmp_path, (script,), system="windows", build=WINDOWS_TREE).made()
    assert (end.code, str(end.saw).rpartition("CLIXML\n")[2]) == ("far-end-failed", saw)


def test_a_posix_host_gets_no_request_for_saying_a_word_of_windows(tmp_path: Path) -> None:
    script = Script((HELLO, {"event": "settled"}, report()))
    assert Scene(tmp_path, (script,)).made().state is HostState.OK
    assert script.after == b"<end>"


def test_the_words_of_a_jump_host_travel_whole(tmp_path: Path) -> None:
    """Into the end, the fleet's report, the screen, the page, JUnit and the journal; the target is not blamed."""
    refused = AgentError(
        "host-key-unknown", "the jump host bastion (192.0.2.1): the key of 192.0.2.1 is not in known_hosts",
        saw="SHA256:abc (ssh-ed25519)", want="this key under 192.0.2.1 in /k", hint="compare it",
    )  # fmt: skip
    end = Scene(tmp_path, (refused,)).made()
    words = (refused.sentence, refused.saw, refused.want, refused.hint)
    assert (end.state, end.code) == (HostState.UNREACHABLE, "host-key-unknown")
    assert (end.sentence, end.saw, end.want, end.hint) == words
    orders = RunSpec("verify", "hosts", (Target("web-1", "10.0.4.7"),), {"web-1": {}})
    with journal.opened(tmp_path / "run") as book:
        book.begin(RunState("RUN", "2026-11-30T00:00:00Z", orders, ArchiveDigests()))
        book.ended(end)
        book.sync()
    tree = controller.stored_report(tmp_path / "run")
    host = tree["hosts"][0]
    assert tuple(host[key] for key in ("sentence", "saw", "want", "hint")) == words
    for width in (None, 400):
        shown = screen.report(tree, width=width)
        assert f"{refused.sentence}: {refused.saw}, wanted {refused.want}" in shown
        assert CODES["host-key-unknown"].meaning not in shown
    assert refused.sentence in html.page(tree)
    assert f'message="{refused.sentence}"' in suites(tree)
