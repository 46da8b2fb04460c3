"""What a program that asked for JSON gets whatever it typed, and a standard input that says nothing or too much."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from agent import __version__

ROOT = Path(__file__).parents[2]
CA = ROOT / "tests" / "golden" / "screens" / "customerCA.crt"
AGENT = (sys.executable, "-m", "agent")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("HSM_AGENT_")}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AGENT, *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "explain --outpu json", "explain --out json", "explain --ouptut=json", "explain --Output json", "explain --output JSON",
        "explain -o=json", "explain --json", "explain -output json", "explain nosuch -ojson", "explain --nosuch -o json",
        "plan --output=json --hsm-ip", "plan -qojson --nosuch", "verify -qo json --nosuch", "fleet plan --nosuch --output json",
        "fleet nosuch --output json", "nosuch -o json", "--output json facts", "facts --output text --output json --nosuch",
    ],
)  # fmt: skip
def test_whoever_asks_for_json_gets_one_document(line: str) -> None:
    done = run(*line.split())
    tree = json.loads(done.stdout)
    assert (done.returncode, tree["exit_status"], tree["code"]) == (2, 2, "usage"), done.stderr
    assert tree["schema_version"] == 1


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("demo --fault nosuch", "demo"),
        ("status 5m", "status"),
        ("facts -o yaml", "facts"),
        ("fleet status -o yaml", "fleet status"),
        ("config show -o yaml", "config show"),
        ("user-data --format nosuch", "user-data"),
    ],
)
def test_a_hint_names_the_command_that_was_typed(line: str, command: str) -> None:
    done = run(*line.split())
    assert (done.returncode, f"hint: `hsm-agent {command} --help`" in done.stderr) == (2, True), done.stderr


def test_a_very_long_value_is_not_repeated_whole() -> None:
    done = run("user-data", "--hsm-ip", "x" * 70_000, "--region", "y" * 70_000)
    assert (done.returncode, "--hsm-ip: 'xxx" in done.stderr, "--region: 'yyy" in done.stderr) == (
        2,
        True,
        True,
    )
    assert len(done.stderr) < 2_000


def test_a_ca_that_is_no_file_is_named_with_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, what in (("fifo", "it is a device, a FIFO or a socket"), ("", "it is a directory")):
        path = str(tmp_path / name) if name else str(tmp_path)
        done = run("user-data", "--hsm-ip", "10.0.0.1", "--ca-cert", path)
        assert (done.returncode, f"saw:  {path}: {what}" in done.stderr) == (30, True), done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "explain json", "explain -- -ojson", "explain --nosuch json", "explain -o text json json", "plan --only json",
        "explain --output json -o text --nosuch", "plan --timeout json", "fleet plan --junit json",
    ],
)  # fmt: skip
def test_whoever_does_not_gets_none(line: str) -> None:
    done = run(*line.split())
    assert (done.returncode, done.stdout[:1]) == (2, "") or "{" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals as POSIX has them")
@pytest.mark.parametrize(
    ("option", "said", "code"),
    [("--ca-cert", b"", "timed-out"), ("--ca-cert", b"-----BEGIN CERT", "timed-out"), ("--config", b"", "timed-out"),
     ("--config", b"[hsm]\n", "timed-out")],
)  # fmt: skip
def test_a_standard_input_that_does_not_end_is_not_waited_for_without_limit(
    option: str, said: bytes, code: str
) -> None:
    words = ("plan", "--hsm-ip", "10.0.1.6", option, "-", "--timeout", "1s", "-ojson")
    began = time.monotonic()
    with subprocess.Popen(
        [*AGENT, *words], cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(said)
        process.stdin.flush()  # and it stays open
        tree = json.loads(process.stdout.read())
        process.wait(30)
    assert (process.returncode, tree["code"]) == (75, code)
    assert time.monotonic() - began < 20
    assert f"`{option} FILE`" in tree["failure"]["hint"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals as POSIX has them")
@pytest.mark.parametrize(("option", "status"), [("--ca-cert", 30), ("--config", 2)])
def test_a_standard_input_without_end_is_not_read_to_the_end(option: str, status: int) -> None:
    with Path("/dev/zero").open("rb") as endless:
        done = subprocess.run(
            [*AGENT, "plan", "--hsm-ip", "10.0.1.6", option, "-", "-ojson"],
            cwd=ROOT, env=ENVIRONMENT, stdin=endless, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert "more than 1048576 bytes" in json.loads(done.stdout)["failure"]["saw"]


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals as POSIX has them")
def test_what_comes_in_pieces_is_read_whole() -> None:
    text = CA.read_bytes()
    with subprocess.Popen(
        [*AGENT, "user-data", "--hsm-ip", "10.0.1.6", "--ca-cert", "-"],
        cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for start in range(0, len(text), 100):
            process.stdin.write(text[start : start + 100])
            process.stdin.flush()
        process.stdin.close()
        data = process.stdout.read()
    assert process.returncode == 0
    assert text.splitlines()[5] in data


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals as POSIX has them")
@pytest.mark.parametrize("command", ["plan", "user-data"])
def test_the_wait_for_standard_input_can_be_interrupted(command: str) -> None:
    """More is written than a pipe holds, so that it has begun to read when the signal comes."""
    with subprocess.Popen(
        [*AGENT, command, "--hsm-ip", "10.0.1.6", "--ca-cert", "-"],
        cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(bytes(256 * 1024))
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        process.wait(30)
    assert process.returncode == 130, said
    assert b"Traceback" not in said


def typed(variables: dict[str, str], *words: str) -> tuple[int, bytes]:
    """Run a command with a terminal of its own as its three streams, on a network that has nothing."""
    import pty

    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("TERM", "NO_COLOR")}
    ours, theirs = pty.openpty()
    alone = ("unshare", "--net") if os.geteuid() == 0 else ()
    with subprocess.Popen(
        [*alone, *AGENT, *words], cwd=ROOT, env={**environment, **variables}, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # which is how a terminal of Linux ends
            while piece := os.read(ours, 65536):
                said += piece
        os.close(ours)
    return process.returncode, said


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root has a network of its own")
@pytest.mark.parametrize(
    "variables",
    [
        {"TERM": "dumb"},
        {},
        {"TERM": ""},
        {"TERM": "unknown"},
        {"TERM": "xterm", "NO_COLOR": "1"},
        {"TERM": "xterm"},
    ],
    ids=str,
)
def test_a_terminal_gets_only_what_it_can_show(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "hosts").write_text("127.0.0.1:1\n")
    wanted = ("--hsm-ip", "10.0.1.6", "--ca-cert", str(CA), "--platform", "u24.04")
    said = b"".join(
        typed({**variables, "HOME": str(tmp_path)}, *words)[1]
        for words in (
            ("plan", *wanted),
            ("fleet", "plan", "--inventory", str(tmp_path / "hosts"), "--tree", tree(tmp_path), *wanted),
            ("facts",),
        )
    )
    moves, paints = (
        re.findall(each, said) for each in (rb"\x1b\[[0-9;?]*[A-Zhl]|\r(?!\n)", rb"\x1b\[[0-9;]*m")
    )
    assert b"hsm-no-route" in said
    assert b"ssh-refused" in said or b"ssh-no-route" in said
    knows = variables.get("TERM") == "xterm"
    assert (bool(moves), bool(paints)) == (knows, knows and "NO_COLOR" not in variables), said


def tree(folder: Path) -> str:
    """Return an archive that is one of the agent as far as that can be seen here."""
    path, text = folder / "tree.tar.gz", f'__version__ = "{__version__}"\n'.encode()
    info = tarfile.TarInfo("hsm-agent/agent/__init__.py")
    info.size = len(text)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(info, io.BytesIO(text))
    return str(path)
