"""`hsm-agent fleet` as it is typed: what is wrong is said at once, before anything is contacted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.building import release_of_this_run

ROOT = Path(__file__).parents[2]


class Typist:
    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "hosts").write_text("web-1\nweb-2\n")

    def type(self, *argv: str, code: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        env = {name: value for name, value in env.items() if not name.startswith(("XDG_", "HSM_AGENT_"))}
        start = f"{code}\nimport sys\nfrom agent.cli.root import main\nsys.exit(main(sys.argv[1:]))"
        return subprocess.run(
            [sys.executable, "-c", start, "fleet", *argv],
            cwd=self.home, env=env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(release_of_this_run(tmp_path_factory, "--tree").archive)


@pytest.fixture
def typist(tmp_path: Path) -> Typist:
    return Typist(tmp_path)


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["rollout"], 2, "--inventory: the file with the hosts is needed"),
        (["rollout", "--inventory", "none"], 2, "--inventory: there is no file none"),
        (["rollout", "--inventory", "hosts", "--limit", "nobody"], 2, "nobody"),
        (["rollout", "--inventory", "hosts", "--parallel", "x"], 2, "--parallel: 'x' is not a number"),
        (
            ["rollout", "--inventory", "hosts", "--hsm-ip", "10.0.1"],
            2,
            "--hsm-ip: '10.0.1' is not an IP address",
        ),
        (["rollout", "--inventory", "hosts", "--only", "failed"], 2, "--only: there is no earlier run"),
        (["rollout", "--inventory", "hosts"], 2, "--hsm-ip: the address of an HSM is needed"),
        (["verify", "--inventory", "hosts"], 11, "tree-missing"),
        (["remove", "--inventory", "hosts"], 2, "--limit, --host, --all: which of the 2 hosts?"),
        (["rollout", "--resume", "x"], 2, "there is no such roll-out"),
        (["plan", "--waves", "1"], 2, "No such option: --waves"),
        (["status"], 2, "there is no roll-out yet"),
        (["nonsense"], 2, "No such command"),
        (["plan", "--output", "yaml"], 2, "--output takes text or json"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_printed(
    typist: Typist, argv: list[str], status: int, said: str
) -> None:
    if status == 11 and list((ROOT / "agent" / "fleet").glob("*.tar.gz")):
        pytest.skip("this is a release, which has its archive")
    done = typist.type(*argv)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (typist.home / ".local").exists()


def test_without_its_libraries_it_says_where_to_get_them(typist: Typist, archive: str) -> None:
    done = typist.type(
        "verify",
        "--inventory",
        "hosts",
        "--tree",
        archive,
        code="import sys; sys.modules['paramiko'] = None",
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "pipx install '.[fleet]'" in done.stderr


def test_hosts_that_cannot_be_named_are_unreachable_and_the_run_is_on_record(
    typist: Typist, archive: str
) -> None:
    (typist.home / "hosts").write_text("no-such-host.invalid\n")
    (typist.home / "config").write_text("Host *\n  HostName 127.0.0.1\n  Port 1\n")
    files = ["--junit", "junit.xml", "--html", "page.html"]
    argv = ["verify", "--inventory", "hosts", "--tree", archive, "--ssh-config", "config", *files]
    done = typist.type(*argv, "--output", "json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit_status"], report["code"]) == (70, 70, "hosts-failed")
    (host,) = report["hosts"]
    assert (host["outcome"], host["code"], host["address"], host["port"]) == (
        "unreachable",
        "ssh-refused",
        "127.0.0.1",
        1,
    )
    assert "ssh-refused" in (typist.home / "junit.xml").read_text()
    assert "no-such-host.invalid" in (typist.home / "page.html").read_text()
    again = typist.type("status", "--output", "json")
    assert (again.returncode, json.loads(again.stdout)["hosts"]) == (70, report["hosts"])
    assert "no-such-host.invalid" in typist.type("status").stdout
