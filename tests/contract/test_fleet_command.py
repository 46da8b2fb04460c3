"""`hsm-agent fleet` as a program, with a fleet that nobody answers for: what it prints, writes and listens to."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from agent.core.errors import AgentError
from agent.fleet.agent_archive import load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture
def argv(tmp_path: Path, ca_pem: bytes) -> list[str]:
    """A roll-out to a port of this machine at which nothing listens."""
    (tmp_path / "hosts").write_text("web-1 ansible_host=127.0.0.9 ansible_port=1\n")
    (tmp_path / "ca.crt").write_bytes(ca_pem)
    text = f'__version__ = "{__version__}"\n'.encode()
    info = tarfile.TarInfo("hsm-agent/agent/__init__.py")
    info.size = len(text)
    with tarfile.open(tmp_path / "tree.tar.gz", "w:gz") as tar:
        tar.addfile(info, io.BytesIO(text))
    return [
        "fleet", "rollout", "--inventory", str(tmp_path / "hosts"), "--tree", str(tmp_path / "tree.tar.gz"),
        "--hsm-ip", "10.0.1.6", "--ca-cert", str(tmp_path / "ca.crt"),
    ]  # fmt: skip


def run(
    argv: list[str], home: Path, start: Sequence[str] = ("-m", "agent")
) -> subprocess.CompletedProcess[str]:
    environ = {
        **os.environ,
        "HOME": str(home),
        "XDG_STATE_HOME": "",
        "XDG_CACHE_HOME": "",
        "SSH_AUTH_SOCK": "",
    }
    return subprocess.run(
        [sys.executable, *start, *argv],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_file_that_cannot_be_written_does_not_cost_the_result(argv: list[str], tmp_path: Path) -> None:
    done = run(
        [*argv, "--output", "json", "--html", "/proc/page.html", "--junit", str(tmp_path / "junit.xml")],
        tmp_path,
    )
    assert json.loads(done.stdout)["totals"]["unreachable"] == 1
    assert (done.returncode, "page.html" in done.stderr) == (71, True)
    assert "web-1" in (tmp_path / "junit.xml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--html", "--junit"])
@pytest.mark.parametrize("name", ["none/page.html", ".", "hosts/page", "link", "fifo", "x" * 300])
def test_a_file_that_can_never_be_written_is_told_before_the_run(
    argv: list[str], tmp_path: Path, option: str, name: str
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "page.html")
    done = run([*argv, option, str(tmp_path / name)], tmp_path)
    assert (done.returncode, done.stdout, option in done.stderr) == (2, "", True)
    assert not (tmp_path / ".local").exists()


def test_one_file_for_both_is_told_before_the_run(argv: list[str], tmp_path: Path) -> None:
    done = run([*argv, "--html", str(tmp_path / "page"), "--junit", str(tmp_path / "page")], tmp_path)
    assert (done.returncode, done.stdout, "--junit, --html" in done.stderr) == (2, "", True)
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize("option", ["--html", "--junit"])
@pytest.mark.parametrize(
    "name",
    ["hosts", "folder/../hosts", "by-link/hosts", "second-name", "ca.crt", "tree.tar.gz", ".local/state/hsm-agent/runs/x/journal"],
)  # fmt: skip
def test_a_file_that_the_run_reads_or_keeps_is_never_written_over(
    argv: list[str], tmp_path: Path, option: str, name: str
) -> None:
    for folder in ("folder", ".local/state/hsm-agent/runs/x"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "by-link").symlink_to(tmp_path)
    os.link(tmp_path / "hosts", tmp_path / "second-name")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    done = run([*argv, option, str(tmp_path / name)], tmp_path)
    assert (done.returncode, done.stdout, option in done.stderr) == (2, "", True), done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_two_names_of_one_file_are_told_before_the_run(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "by-link").symlink_to(tmp_path)
    done = run(
        [*argv, "--html", str(tmp_path / "page"), "--junit", str(tmp_path / "by-link" / "page")], tmp_path
    )
    assert (done.returncode, done.stdout, "cannot hold both" in done.stderr) == (2, "", True)


def test_the_journal_of_a_run_is_no_place_for_its_page(tmp_path: Path) -> None:
    runs = tmp_path / ".local" / "state" / "hsm-agent" / "runs"
    runs.mkdir(parents=True)
    done = run(["fleet", "status", "--html", str(runs / "journal")], tmp_path)
    assert (done.returncode, "among the records of runs" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", ["fifo", "/dev/zero", "folder"])
def test_a_tree_that_is_no_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    named = str(tmp_path / name)
    with pytest.raises(AgentError) as caught:
        load(named, None)
    assert (caught.value.code.name, caught.value.saw) == ("tree-missing", "no regular file")


_AS_NOBODY = """
import os, sys
import agent.fleet.journal  # nobody may not read a checkout that is private
from agent.cli.fleet_output import require_writable
from agent.config.input_errors import InputErrors
from agent.hosts.local import local_host
machine, complaints = local_host(), InputErrors()
os.getuid() or os.setuid(65534)
require_writable(machine, {"junit": sys.argv[1]}, {}, complaints)
sys.exit(len(complaints.texts))
"""


@pytest.mark.parametrize(
    ("path", "wrong"), [("/dev/stdout", 0), ("/dev/fd/1", 0), ("/dev/null", 0), ("/dev/page", 1)]
)
def test_anybody_may_have_a_file_on_a_stream(tmp_path: Path, path: str, wrong: int) -> None:
    assert run([path], tmp_path, start=("-c", _AS_NOBODY)).returncode == wrong


@pytest.mark.parametrize("more", [(), ("--only", "failed"), ("--limit", "web-1", "--all")])
def test_removal_from_hosts_that_nobody_named_is_refused(
    argv: list[str], tmp_path: Path, more: tuple[str, ...]
) -> None:
    inventory = argv[argv.index("--inventory") + 1]
    done = run(["fleet", "remove", "--inventory", inventory, *more], tmp_path)
    assert (done.returncode, done.stdout, "--limit, --host, --all" in done.stderr) == (2, "", True)
    assert not (tmp_path / ".local").exists()


@pytest.mark.parametrize(
    "more", [("--limit", "web-1"), ("--all",), ("--plan",), ("--plan", "--limit", "web-*")]
)
def test_removal_from_hosts_that_were_named_begins(
    argv: list[str], tmp_path: Path, more: tuple[str, ...]
) -> None:
    inventory, tree = (argv[argv.index(option) + 1] for option in ("--inventory", "--tree"))
    done = run(["fleet", "remove", "--inventory", inventory, "--tree", tree, *more, "-o", "json"], tmp_path)
    report = json.loads(done.stdout)
    assert report["command"] == ("fleet remove --plan" if "--plan" in more else "fleet remove")
    assert report["totals"]["unreachable"] == 1
    assert report["resume"].startswith(f"hsm-agent {report['command']} --resume ")


@pytest.mark.parametrize("command", ["rollout", "plan"])
def test_hosts_that_nobody_said_anything_of_are_told_before_they_are_contacted(
    argv: list[str], tmp_path: Path, command: str
) -> None:
    inventory, tree = (argv[argv.index(option) + 1] for option in ("--inventory", "--tree"))
    bare = ["fleet", command, "--inventory", inventory, "--tree", tree]
    done = run(bare, tmp_path)
    assert (done.returncode, done.stdout, "--hsm-ip" in done.stderr, "web-1" in done.stderr) == (
        2,
        "",
        True,
        True,
    )
    assert run(argv, tmp_path).returncode == 71
    assert run(bare, tmp_path).returncode in (70, 71)  # its host was asked for something before


def test_a_run_is_listed_shown_by_host_continued_and_deleted(argv: list[str], tmp_path: Path) -> None:
    assert run(argv, tmp_path).returncode == 71
    one = run(["fleet", "status", "last", "web-1", "-o", "json"], tmp_path)
    assert (one.returncode, json.loads(one.stdout)["code"]) == (70, "ssh-refused")
    assert run(["fleet", "status", "last", "web-9"], tmp_path).returncode == 2
    assert run(["fleet", "status", "last", "web-1", "--html", str(tmp_path / "x")], tmp_path).returncode == 2
    tree = argv[argv.index("--tree") + 1]
    again = run(["fleet", "rollout", "--resume", "last", "--tree", tree, "-o", "json"], tmp_path)
    report = json.loads(again.stdout)
    assert (again.returncode, report["by"]["host"]) == (71, os.uname().nodename)
    journal = next((tmp_path / ".local/state/hsm-agent/runs").iterdir()) / "journal.jsonl"
    os.utime(journal, (1, 1))
    listed = json.loads(run(["fleet", "runs", "--prune", "3650d", "-o", "json"], tmp_path).stdout)
    assert (listed["runs"], listed["pruned"]) == ([], [report["run_id"]])
    assert run(["fleet", "runs", "--prune", "soon"], tmp_path).returncode == 2


def test_short_options_name_inventory_and_hosts(argv: list[str], tmp_path: Path) -> None:
    inventory, tree = (argv[argv.index(option) + 1] for option in ("--inventory", "--tree"))
    done = run(["fleet", "remove", "-i", inventory, "-l", "web-*", "--tree", tree, "-o", "json"], tmp_path)
    assert json.loads(done.stdout)["totals"]["unreachable"] == 1
    refused = run(["fleet", "remove", "-i", inventory], tmp_path)
    assert f"`hsm-agent fleet remove --inventory {inventory} --all`" in refused.stderr
    named = run(
        ["fleet", "remove", "-i", inventory, "--host", "web-1", "--tree", tree, "-o", "json"], tmp_path
    )
    assert json.loads(named.stdout)["totals"]["unreachable"] == 1


def test_fleet_alone_prints_its_help(tmp_path: Path) -> None:
    done = run(["fleet"], tmp_path)
    assert (done.returncode, "rollout" in done.stdout, done.stderr) == (0, True, "")


_SIGNALS = """
import os, signal, sys
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
from agent.cli.fleet import interrupts
heard = interrupts()
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    os.kill(os.getpid(), number)
print(*(signal.Signals(number).name for number in heard))
"""


@pytest.mark.parametrize(
    ("ignored", "heard"),
    [([], "SIGHUP SIGINT SIGTERM"), (["SIGHUP"], "SIGINT SIGTERM")],
    ids=["plain", "nohup"],
)
def test_what_is_ignored_stays_ignored(ignored: list[str], heard: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALS, *ignored], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == heard


@pytest.mark.parametrize(
    ("limit", "parallel", "told"),
    [
        (40, "32", "a limit of 40 open files"),
        (60, "8", "`ulimit -n 96`, or `--parallel 2`"),
        (60, "2", None),
        (1024, "225", "`--parallel 162`"),
    ],
)
def test_too_few_open_files_are_told_before_a_host_is_contacted(
    argv: list[str], tmp_path: Path, limit: int, parallel: str, told: str | None
) -> None:
    lines = [f"web-{number} ansible_host=127.0.0.9 ansible_port={number}\n" for number in range(1, 226)]
    count = 225 if parallel == "225" else 8
    (tmp_path / "hosts").write_text("".join(lines[:count]))
    bounded = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", sys.executable, "-m", "agent"]
    done = subprocess.run(
        [*bounded, *argv, "--parallel", parallel, "--quiet"], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": "", "XDG_CACHE_HOME": "", "SSH_AUTH_SOCK": ""},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    if told is None:
        assert done.returncode == 71  # nobody answers
        return
    assert (done.returncode, "no-resources" in done.stderr, told in done.stderr) == (11, True, True), (
        done.stderr
    )


def test_a_soft_limit_is_no_limit(argv: list[str], tmp_path: Path) -> None:
    bounded = ["sh", "-c", 'ulimit -S -n 40; exec "$@"', "sh", sys.executable, "-m", "agent"]
    done = subprocess.run(
        [*bounded, *argv], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": "", "XDG_CACHE_HOME": "", "SSH_AUTH_SOCK": ""},
    )  # fmt: skip
    assert done.returncode == 71


ESCAPE = "\x1b]0;owned\x07"


def test_nothing_of_an_inventory_or_a_path_drives_the_terminal(argv: list[str], tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(f"web{ESCAPE}1\nweb-2 hsm_agent_{ESCAPE}=1\n[we{ESCAPE}b]\n")
    for more in ([], ["--tree", f"{tmp_path}/{ESCAPE}"], ["--inventory", f"{tmp_path}/{ESCAPE}"]):
        if more:
            hosts.write_text("web-1\n")
        done = run([*argv, *more], tmp_path)
        assert done.returncode
        assert all(line.isprintable() for line in done.stderr.split("\n")), done.stderr
        assert "owned" in done.stderr


def test_what_is_wrong_with_hosts_and_options_is_said_at_once(argv: list[str], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("web;1\nweb-2 ansible_port=x\n")
    done = run(
        [
            *argv,
            "--only",
            "broken",
            "--parallel",
            "0",
            "--waves",
            "x",
            "--deadline",
            "soon",
            "--hsm-ip",
            "a.b",
        ],
        tmp_path,
    )
    assert (done.returncode, "inventory-invalid" in done.stderr) == (2, True)
    for word in (
        "web;1",
        "ansible_port",
        "--only: 'broken' is not one of",
        "--parallel",
        "--waves",
        "--deadline",
        "a.b",
    ):
        assert word in done.stderr, word


@pytest.mark.parametrize("hosts", ["web-1\n", "web;1\n"])
def test_a_state_that_is_none_is_told(argv: list[str], tmp_path: Path, hosts: str) -> None:
    (tmp_path / "hosts").write_text(hosts)
    done = run([*argv, "--only", "failed", "--only", "faild"], tmp_path)
    assert (done.returncode, "'faild' is not one of failed, unreachable" in done.stderr) == (2, True)


def test_an_inventory_that_is_no_file_or_too_large_is_a_complaint(argv: list[str], tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_bytes(b"# a comment\n" * 500_000)
    done = run(argv, tmp_path)
    assert (done.returncode, "inventory-invalid" in done.stderr, "bytes" in done.stderr) == (2, True, True)
    hosts.unlink()
    hosts.mkdir()
    done = run(argv, tmp_path)
    assert (done.returncode, "ansible-inventory -i" in done.stderr) == (2, True)
    hosts.rmdir()
    os.mkfifo(hosts)
    done = run(argv, tmp_path)
    assert (done.returncode, "it is a device, a FIFO or a socket" in done.stderr) == (2, True), done.stderr


def test_a_record_that_cannot_be_used_is_said_with_what_to_look_at(tmp_path: Path) -> None:
    state = tmp_path / ".local"
    state.write_text("")
    done = run(["fleet", "status"], tmp_path)
    assert (done.returncode, f"`ls -ld {state}/state/hsm-agent/runs`" in done.stderr) == (2, True), (
        done.stderr
    )
    state.unlink()
    folder = state / "state" / "hsm-agent" / "runs" / "20260101T000000Z-0000"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text('{"a":\n')
    done = run(["fleet", "status"], tmp_path)
    assert (done.returncode, "hint: `hsm-agent fleet runs`" in done.stderr) == (2, True), done.stderr
