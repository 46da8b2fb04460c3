"""Wherever a command is started, it ends by the table: no traceback, no `internal`, and never a status of another kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.core.errors import EXIT_STATUSES

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the environments are those of a POSIX shell")

# none of them changes this machine
COMMANDS = (
    "--help", "--version", "nosuch", "facts -o json", "status -o json", "explain", "explain nosuch --output=json",
    "plan --hsm-ip 127.0.0.1 --ca-cert /nowhere --quiet", "plan --hsm-ip bad -ojson",
    "user-data --hsm-ip 10.0.0.1", "config show", "fleet status", "fleet plan --inventory /nowhere -o json", "demo --fault nosuch",
)  # fmt: skip
# what a shell does before it becomes the command
SHELLS = {
    "as it is": "", "no stdin": "exec <&-", "no stdout": "exec >&-", "no stderr": "exec 2>&-",
    "no streams": "exec <&- >&- 2>&-", "stdout full": "exec >/dev/full", "stderr full": "exec 2>/dev/full",
    "both full": "exec >/dev/full 2>&1",  "few files": "ulimit -n 12", "no file grows": "ulimit -f 0",
    "locale C": "export LC_ALL=C", "a locale that is none": "export LC_ALL=xx_YY.KOI8",
    "ASCII": "export LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0", "PYTHONIOENCODING": "export PYTHONIOENCODING=ascii",
    "no HOME": "unset HOME", "HOME nowhere": "export HOME=/nowhere/at/all XDG_STATE_HOME=/proc/none", "no PATH": "unset PATH",
    "ignored signals": "trap '' INT HUP PIPE TERM", "openssl.cnf is none": "export OPENSSL_CONF=/etc/passwd",
    "proxies are none": "export https_proxy=x:y:z http_proxy='http://[' no_proxy='*' ALL_PROXY=socks9://",
    "a dumb terminal": "export TERM=dumb COLUMNS=x LINES=-1", "odd variables": "export HSM_AGENT_TIMEOUT=\"$(printf '\\377')\"",
    "a folder that is gone": 'd=$(mktemp -d); cd "$d"; rmdir "$d"',
}  # fmt: skip


def run(
    command: str, shell: str, *python: str, before: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[bytes]:
    python = python or ("-m", "agent")
    return subprocess.run(
        ["/bin/sh", "-c", f'{shell}\nexec "$@"', "sh", *before, sys.executable, *python, *command.split()],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def hold(done: subprocess.CompletedProcess[bytes], what: str) -> None:
    said = done.stdout + done.stderr
    assert done.returncode in EXIT_STATUSES, (what, done.returncode, said)
    assert done.returncode != 1, (what, said)
    assert b"Traceback" not in said, (what, said)
    assert b"Exception ignored" not in said, (what, said)


# A start takes a while: each environment has a third of the commands.
@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_ends_by_the_table(shell: str) -> None:
    for command in COMMANDS[list(SHELLS).index(shell) % 3 :: 3]:
        done = run(command, SHELLS[shell])
        hold(done, command)
        whole = not any(word in shell for word in ("full", "no stdout", "no streams", "no file grows"))
        if whole and "json" in command:
            tree = json.loads(done.stdout)
            assert tree["schema_version"] == 1, command


@pytest.mark.parametrize(
    "missing", ["ssl", "readline", "_ctypes", "requests", "psutil", "rich", "fcntl_none", "_hashlib"]
)
def test_a_python_without_a_part_ends_by_the_table(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from agent.__main__ import main; main()"
    for command in ("--version", "explain", "status -o json", "plan --hsm-ip bad -ojson"):
        hold(run(command, "", "-c", code), command)


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root becomes a user without a name"
)
def test_a_user_without_a_name_ends_by_the_table() -> None:
    user = ("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups")
    for command in COMMANDS[::2]:
        hold(run(command, "cd /; unset HOME", before=user), command)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("command", ["--help", "facts", "explain nosuch"])
def test_a_reader_that_is_gone_changes_nothing(command: str, stream: str) -> None:
    wanted = run(command, "").returncode
    read, write = os.pipe()
    os.close(read)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write}
    with subprocess.Popen([sys.executable, "-m", "agent", *command.split()], cwd=ROOT, **streams) as process:  # type: ignore[call-overload]
        os.close(write)
        out, err = process.communicate(timeout=120)
    assert process.returncode == wanted
    assert b"Traceback" not in (out or b"") + (err or b"")


@pytest.mark.parametrize(
    "argument", [b"\xff\xfe", b"--\xff", b"--hsm-ip=\xff", b"\x1b[2J", b"", b"-", b"--", b"x" * 100_000]
)
@pytest.mark.parametrize("command", ["plan", "fleet plan --inventory"])
def test_odd_bytes_on_the_command_line_end_by_the_table(argument: bytes, command: str) -> None:
    done = subprocess.run(
        [sys.executable.encode(), b"-m", b"agent", *(word.encode() for word in command.split()), argument],
        cwd=ROOT, capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    hold(done, command)
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 8, 12])
def test_an_interrupt_while_it_is_loaded_is_130(after: int) -> None:
    """The signal comes with the n-th module that is loaded, from the first of ours on."""
    code = (
        "import os, signal, sys\n"
        "from agent.__main__ import main\n"
        "class Interrupting:\n"
        "    left = int(sys.argv.pop(1))\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        Interrupting.left -= 1\n"
        "        if Interrupting.left == -1:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "main()\n"
    )
    done = run(f"{after} facts", "", "-c", code)
    assert (done.returncode, done.stdout) == (130, b"")
    assert b"Traceback" not in done.stderr


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    code = (
        "import os, signal, sys, threading\n"
        "from agent.cli.host import _stopped_by_signals\n"
        "stop = _stopped_by_signals(threading.Event())\n"
        "for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):\n"
        "    os.kill(os.getpid(), number)\n"
        "    print(int(stop.is_set()), end='')\n"
    )
    done = run("", "trap '' INT HUP", "-c", code)
    assert (done.returncode, done.stdout) == (0, b"001"), done.stderr
