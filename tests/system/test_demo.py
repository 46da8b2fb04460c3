"""`hsm-agent demo` as a stranger runs it: on this machine and on an rpm host, with every fault, and ended in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from agent.core.errors import AgentError
from agent.demo import sandbox
from agent.demo.play import FAULTS
from agent.render.json_report import schema

from . import images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import MakeHost

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "agent", "demo"]
# what each fault is found as: the step that tells, its outcome and code, and how the run ends
FOUND = {
    "hsm-refused": ("reach:10.0.2.9:2223", "failed", "hsm-refused", "degraded", "hsm-degraded"),
    "hsm-silent": ("reach:10.0.1.6:2223", "failed", "hsm-no-tls", "failed", "hsm-no-tls"),
    "not-activated": (
        "client:activated",
        "failed",
        "cluster-not-activated",
        "failed",
        "cluster-not-activated",
    ),
    "mutual-tls": ("client:hsm-info", "failed", "client-disconnected", "failed", "client-disconnected"),
    "wrong-ca": ("client:hsm-info", "failed", "client-tls-failed", "rolled-back", "rolled-back"),
    "drift": ("configure:cli", "would-change", None, "drift", "drift"),
    "tool-lies": ("configure:cli", "failed", "configure-not-applied", "failed", "configure-not-applied"),
    "wrong-bytes": ("package:pkcs11", "failed", "checksum-mismatch", "failed", "checksum-mismatch"),
}


@pytest.fixture(autouse=True)
def _able() -> None:
    reason = images.reason_not_to_run()
    if reason:
        pytest.skip(reason)


def mark() -> str:
    return f"DEMO_OF_A_TEST={secrets.token_hex(8)}"


@contextlib.contextmanager
def begun() -> Iterator[tuple[subprocess.Popen[str], IO[str], str]]:
    """Start the demo in a session of its own: its process, what it shows, and the mark that all of its processes carry."""
    marked = mark()
    name, _, value = marked.partition("=")
    with subprocess.Popen(
        DEMO, cwd=ROOT, env={**os.environ, name: value}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process, process.stdout, marked


def running(marked: str) -> list[str]:
    """Return the processes of one demo: its mark is in the environment of all that are outside its copy."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while we looked
            if marked.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def loading(marked: str) -> int | None:
    """Return the process inside once it has begun to load its modules, of which some are shared libraries."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            inside = words[0] != b"unshare" and b"agent.demo.play" in words
            if inside and marked.encode() in (folder / "environ").read_bytes():
                return int(folder.name) if b"lib-dynload" in (folder / "maps").read_bytes() else None
    return None


def machine() -> dict[str, Any]:
    """Look at everything of this machine that a demo could touch."""
    listed = ("/", "/opt", "/etc", "/root", "/var/lib", "/var/cache", "/var/tmp", "/run/netns")
    databases = ("/var/lib/dpkg/status", "/var/lib/rpm/rpmdb.sqlite", "/etc/os-release")
    kept = [
        path
        for place in ("/opt/cloudhsm", "/var/lib/hsm-agent", "/etc/hsm-agent")
        for path in Path(place).rglob("*")
    ]
    return {
        "folders": {
            each: sorted(path.name for path in Path(each).iterdir()) for each in listed if Path(each).is_dir()
        },
        "databases": {each: Path(each).read_bytes() for each in databases if Path(each).is_file()},
        "client": [(str(path), path.lstat().st_mtime_ns) for path in sorted(kept)],
        "temp": sorted(path.name for path in Path(tempfile.gettempdir()).glob("hsm-agent*")),
        "mounts": [
            line
            for line in Path("/proc/self/mounts").read_text().splitlines()
            if "hsm-agent" in line or " /sys " in line
        ],
        "space": {kind: str(Path("/proc/self/ns", kind).readlink()) for kind in ("mnt", "net", "pid")},
        "addresses": Path("/proc/net/fib_trie").read_text().count("10.0.1.6"),
    }


@pytest.fixture(scope="module")
def settled() -> None:
    """Whatever the tests install on this machine is installed: what changes it from here on is the demo."""
    images.install_tools()


@pytest.fixture
def untouched(settled: None) -> Iterator[None]:
    before = machine()
    yield
    assert machine() == before


def play(
    *arguments: str, path: str | None = None, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        [*before, *DEMO, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("fault", FAULTS)
def test_every_act_of_every_fault_ends_as_it_must(fault: str) -> None:
    done = play("--fault", fault, "--output", "json")
    assert (done.returncode, done.stderr) == (0, "")
    tree = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema()).validate(tree)
    assert (tree["fault"], tree["ok"]) == (fault, True)
    assert [act["exit_status"] for act in tree["acts"]] == [act["expected"] for act in tree["acts"]]
    first, second, broken, cured = (act["report"] for act in tree["acts"])
    assert (first["outcome"], first["changed"]) == ("ok", True)
    assert second["changed"] is False
    assert {step["outcome"] for step in second["steps"]} == {"met"}
    step_id, outcome, code, verdict, ended = FOUND[fault]
    step = next(each for each in broken["steps"] if each["id"] == step_id)
    assert (step["outcome"], step["code"]) == (outcome, code)
    assert (broken["outcome"], broken["code"]) == (verdict, ended)
    assert cured["outcome"] == "ok"


@pytest.mark.usefixtures("untouched")
def test_with_aws_a_cause_is_named_cured_and_an_hsm_replaced() -> None:
    done = play("--aws", "--output", "json")
    assert (done.returncode, done.stderr) == (0, "")
    tree = json.loads(done.stdout)
    jsonschema.Draft202012Validator(schema()).validate(tree)
    assert [act["exit_status"] for act in tree["acts"]] == [40, 0, 3, 0]
    broken, cured, drifted, followed = (act["report"] for act in tree["acts"])
    assert (tree["fault"], broken["code"], cured["outcome"]) == (
        "group-not-attached",
        "group-not-attached",
        "ok",
    )
    assert "aws ec2 modify-network-interface-attribute" in done.stdout
    assert "cluster-addresses-changed" in {each["code"] for each in drifted["warnings"]}
    step = next(each for each in followed["steps"] if each["id"] == "configure:cli")
    assert (step["outcome"], step["saw"], step["want"]) == (
        "changed",
        "10.0.1.6 10.0.2.9",
        "10.0.1.6 10.0.2.31",
    )
    refused = play("--aws", "--fault", "drift")
    assert (refused.returncode, "--aws has acts of its own" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("untouched")
def test_the_demo_is_told_as_a_story_with_the_calls_a_reader_can_repeat() -> None:
    done = play()
    assert (done.returncode, done.stderr) == (0, "")
    headings = [line for line in done.stdout.splitlines() if line.startswith("── ")]
    assert [heading[3] for heading in headings] == ["1", "2", "3", "4"]
    assert "# hsm-agent verify" in done.stdout
    assert "--sha256" not in done.stdout
    assert "\033" not in done.stdout
    assert done.stdout.index("degraded: 1 of 2 HSMs reached (exit 41") < done.stdout.index(
        "ok: all as wanted"
    )
    others = done.stdout.partition("Other faults")[2].split()
    assert [name for name in FAULTS if name not in others] == ["hsm-refused"]
    # a command in a hint is copied, so its line stays whole
    assert [line for line in done.stdout.splitlines() if len(line) > 80 and "hint: " not in line] == []
    assert "checksum-replaced" not in done.stdout
    assert done.stdout.count("stand-ins") == 1


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGKILL, -signal.SIGKILL, ""),
        (signal.SIGTERM, 130, "the demo was interrupted (exit 130, interrupted)"),
        (signal.SIGHUP, 130, "saw:  SIGHUP"),
        (signal.SIGINT, 130, "the demo was interrupted (exit 130, interrupted)"),
    ],
)
def test_ended_in_the_middle_nothing_is_left(number: int, status: int, said: str) -> None:
    with begun() as (process, shown, marked):
        while not shown.readline().startswith("── 1"):
            assert process.poll() is None
        assert running(marked) != []
        process.send_signal(number)
        # the end of both streams: nobody is left who could write to them
        told = process.communicate(timeout=120)[1]
    assert process.returncode == status
    assert (said in told, "Traceback" in told) == (True, False)
    assert running(marked) == []


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("moment", ["unshare", "agent.demo.play", "openssl", "dpkg-deb", "agent.demo.mirror"])
def test_a_key_at_any_moment_of_the_setting_up_leaves_nothing(moment: str) -> None:
    """A terminal's Ctrl-C goes to all processes of its group, twice where somebody is impatient."""
    with begun() as (process, _shown, marked):
        while not any(moment in each for each in running(marked)):
            assert process.poll() is None
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=120)[1]
    assert (process.returncode, "Traceback" in told) == (130, False), told
    assert running(marked) == []


@pytest.mark.usefixtures("untouched")
def test_the_key_is_heard_by_the_process_outside_alone() -> None:
    """One that is inside, and has just begun to load its modules, would say so in a traceback."""
    with begun() as (process, shown, marked):
        inside = None
        while inside is None:
            assert process.poll() is None
            inside = loading(marked)
        os.kill(inside, signal.SIGINT)
        while not shown.readline().startswith("── 1"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=120)[1]
    assert (process.returncode, "Traceback" in told) == (130, False), told


@pytest.mark.usefixtures("untouched")
def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -1', "demo", *DEMO],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("output", "status", "said"),
    [(">/dev/full", 11, "exit 11, write-failed"), (">&-", 0, "")],
    ids=["full", "closed"],
)
def test_an_output_that_takes_nothing_is_no_traceback(output: str, status: int, said: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {output}', "demo", *DEMO],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("untouched")
def test_a_checkout_below_tmp_plays_too(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "agent", tmp_path / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    venv = tmp_path / ".venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(venv)],
        check=True,
        timeout=60,
    )
    libraries = next(path for path in sys.path if path.endswith("site-packages"))
    next(venv.glob("lib/python*/site-packages")).joinpath("here.pth").write_text(f"{libraries}\n")
    done = subprocess.run(
        [str(venv / "bin" / "python"), "-m", "agent", "demo"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_an_ordinary_user_is_told_to_use_sudo() -> None:
    # in a user namespace without a mapping root is nobody, and can still read its own checkout
    done = play(before=("unshare", "--user", "--"))
    assert (done.returncode, done.stdout) == (11, "")
    assert "(exit 11, not-root)" in done.stderr
    assert "sudo" in done.stderr


@pytest.mark.usefixtures("untouched")
def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    for program in ("openssl", "ip", "chroot", "dpkg-deb"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    done = play(path=str(tmp_path))
    assert (done.returncode, done.stdout) == (11, "")
    assert "error: programs are missing (exit 11, demo-unavailable)\nsaw:  no unshare\n" in done.stderr
    assert "`apt-get install util-linux`" in done.stderr


def test_an_interpreter_without_ctypes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of our own build for Linux."""
    monkeypatch.setitem(sys.modules, "_ctypes", None)
    with pytest.raises(AgentError) as caught:
        sandbox.enter("agent.demo.server_process", ())
    assert (caught.value.code.name, caught.value.saw) == ("demo-unavailable", "no module ctypes")
    assert "a distribution's Python" in str(caught.value.want)


@pytest.mark.usefixtures("untouched")
def test_a_kernel_that_refuses_is_told_in_its_own_words() -> None:
    done = play(before=("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"))
    assert (done.returncode, done.stdout) == (11, "")
    assert "demo-unavailable" in done.stderr
    assert "Operation not permitted" in done.stderr


@pytest.mark.parametrize("image", ["amzn2023", "rhel9"])
def test_it_plays_on_an_rpm_host_with_the_real_rpm_and_dnf(make_host: MakeHost, image: str) -> None:
    host = make_host(image, agent=True)
    before = host.must(["rpm", "-qa"])
    done = host.run(["hsm-agent", "demo", "--output", "json"], timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    tree = json.loads(done.stdout)
    assert [act["exit_status"] for act in tree["acts"]] == [0, 0, 41, 0]
    assert tree["acts"][0]["report"]["steps"][0]["saw"] == "absent"
    assert tree["acts"][0]["report"]["host"]["platform"] == ("amzn2023" if image == "amzn2023" else "el9")
    assert host.must(["rpm", "-qa"]) == before
    assert not host.testinfra.file("/opt/cloudhsm").exists
    assert not host.testinfra.file("/var/lib/hsm-agent").exists

    host.must(["mv", "/usr/bin/rpmbuild", "/root/rpmbuild"])
    refused = host.run(["hsm-agent", "demo"])
    assert refused.returncode == 11
    assert "no rpmbuild" in refused.stderr
    assert "`dnf install rpm-build`" in refused.stderr
