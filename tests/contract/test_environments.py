"""Wherever a command is started, it ends by the table: no traceback, no `internal`, and never a status of another kind.

Every command meets one environment of every kind, the next command the next one: not the product of both, which takes
half an hour. As root each runs on a copy of what it may change, with a network that has nothing but itself.
"""

from __future__ import annotations

import compileall
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from agent.cli import fleet, host
from agent.core.codes import EXIT_STATUSES
from tests.building import copied

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CA = ROOT / "tests" / "golden" / "screens" / "customerCA.crt"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the environments are those of a POSIX shell")

# an address that nobody but the copy has, where nothing listens
_WANTED = f"--hsm-ip 10.0.1.6 --ca-cert {CA} --platform u24.04 --package-source /nowhere"
_CLUSTER = "cluster-2abcdefghij --region eu-central-1"
_FLEET = "--inventory %/hosts --tree %/tree.tar.gz"
# % is the folder of the tests, where an inventory lies with a host that refuses
RUNS = (
    "", "fleet", "help", "help plan", "help fleet", "help nosuch", "version", "--help", "-V", "nosuch", "facts -o json", "facts --platform el9", "status -o json",
    "status", "status --wait 1s", "explain", "explain nosuch --output=json", "explain 40 -ojson", "explain hsm-degraded",
    f"plan {_WANTED} --quiet", "plan --hsm-ip bad -ojson", f"configure {_WANTED} -o json",
    f"configure {_WANTED} --report-to file:%/report", "verify -ojson", f"verify {_WANTED}", "rollback -o json",
    "rollback 20260101T000000Z-0000", "remove -o json", f"user-data --hsm-ip 10.0.0.1 --ca-cert {CA}",
    "user-data --hsm-ip 10.0.0.1 --format cloud-config",
    "iam-policy --cluster-id cluster-2abcdefghij --region eu-central-1", "iam-policy --for nobody -ojson", "config show --sdk 5 -ojson", "support /nowhere/x",
    "support /dev/null -ojson", "demo --fault nosuch",
    "demo --aws --fault nosuch -ojson", "cluster", f"cluster {_CLUSTER} -ojson", f"cluster {_CLUSTER} --html %/cluster.html",
    f"cluster {_CLUSTER} --profile nosuch -ojson",
    "fleet plan --inventory /nowhere -o json",
    f"fleet plan {_FLEET} {_WANTED} --trust-new-hosts -o json", f"fleet verify {_FLEET} -ojson",
    f"fleet rollout {_FLEET} {_WANTED} --html %/page.html --junit %/junit.xml", f"fleet remove {_FLEET} --all",
    "fleet remove --inventory %/hosts", "fleet status -o json", "fleet status --html %/page.html", "fleet runs -ojson",
)  # fmt: skip
COMMANDS = (
    *host.COMMANDS,
    "help",
    "user-data",
    "iam-policy",
    "config show",
    "cluster",
    "support",
    "demo",
    *(f"fleet {name}" for name in fleet.COMMANDS),
)

# What a shell does before it becomes the command.
STREAMS = {
    "no stdin": "exec <&-", "no stdout": "exec >&-", "no stderr": "exec 2>&-", "no streams": "exec <&- >&- 2>&-",
    "stdout full": "exec >/dev/full", "stderr full": "exec 2>/dev/full", "both full": "exec >/dev/full 2>&1",
}  # fmt: skip
LIMITS = {
    "few files": "ulimit -n 12", "very few files": "ulimit -n 7", "no file grows": "ulimit -f 0",
    "little memory": "ulimit -v 150000", "less memory": "ulimit -v 60000",
}  # fmt: skip
LOCALES = {
    "locale C": "export LC_ALL=C", "a locale that is none": "export LC_ALL=xx_YY.KOI8",
    "ASCII": "export LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0", "PYTHONIOENCODING": "export PYTHONIOENCODING=ascii",
}  # fmt: skip
VARIABLES = {
    "no HOME": "unset HOME", "HOME nowhere": "export HOME=/nowhere/at/all XDG_STATE_HOME=/proc/none", "no PATH": "unset PATH",
    "openssl.cnf is none": "export OPENSSL_CONF=/etc/passwd", "no variable": 'exec env -i "$@"',
    "proxies are none": "export https_proxy=x:y:z http_proxy='http://[' no_proxy='*' ALL_PROXY=socks9://",
    "a dumb terminal": "export TERM=dumb COLUMNS=x LINES=-1",
    "odd variables": "export HSM_AGENT_TIMEOUT=\"$(printf '\\377')\" HOME=\"$(printf '/\\377')\"",
    "a folder that is gone": 'd=$(mktemp -d); cd "$d"; rmdir "$d"', "ignored signals": "trap '' INT HUP PIPE TERM",
}  # fmt: skip
# the machine itself is odd
MACHINES = {
    "no passwd": ": >/etc/passwd", "no os-release": "rm /etc/os-release", "no devices": "mount -t tmpfs none /dev",
    "read-only": "mount -o remount,ro /var/lib; mount -t tmpfs -o ro none /run", "no /proc": "mount -t tmpfs none /proc",
    "full": "mkdir -p $STATE; mount -t tmpfs -o size=4k none $STATE; head -c 4096 /dev/zero >$STATE/x",
    "state is a file": "rm -rf $STATE; : >$STATE", "no package database": "rm -f /var/lib/dpkg/status",
    "records of another kind": "mkdir -p $STATE; for f in report desired; do printf '[\\377' >$STATE/$f.json; done",
}  # fmt: skip
PARTS = (
    "ssl", "readline", "_ctypes", "requests", "psutil", "rich", "fcntl", "_hashlib", "paramiko", "pwd", "resource", "grp",
    "termios", "jinja2", "tomllib", "cryptography", "_socket", "_json", "zlib",
)  # fmt: skip
_COPY = """
D=$(mktemp -d /tmp/hsm-agent-test-XXXXXX); mount -t tmpfs none $D
for p in var/lib etc opt run; do
    mkdir -p $D/$p.u $D/$p.w
    mount -t overlay none -o lowerdir=/$p,upperdir=$D/$p.u,workdir=$D/$p.w /$p
done
umount -l $D; rmdir $D
STATE=/var/lib/hsm-agent
ip link set lo up; ip address add 10.0.1.6/32 dev lo
"""


@dataclass(frozen=True)
class Cell:
    """A command in an environment: what the shell does before, by whom it is started, and as which program."""

    environment: str
    command: str
    shell: str = ""
    before: tuple[str, ...] = ()
    python: tuple[str, ...] = ("-m", "agent")

    @property
    def is_readable(self) -> bool:
        """Whether standard output takes all that is written to it."""
        lost = ("no stdout", "no streams", "stdout full", "both full", "no file grows")
        return self.environment not in lost


@dataclass(frozen=True)
class Bench:
    """Where commands are tried: a folder for what they read and write, and the agent, compiled once for all of them."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "source"

    def run(self, cell: Cell) -> subprocess.CompletedProcess[bytes]:
        root = os.geteuid() == 0
        alone = ("unshare", "--mount", "--net") if root else ()
        shell = f'{_COPY if root else ""}{cell.shell}\nexec "$@"'
        words = cell.command.replace("%", str(self.folder)).split()
        environment = {**os.environ, "PYTHONPATH": str(self.source)}
        return subprocess.run(
            [*alone, "/bin/sh", "-c", shell, "sh", *cell.before, sys.executable, *cell.python, *words],
            cwd=self.source, env=environment, capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def complaint(self, cell: Cell) -> str | None:
        done = self.run(cell)
        said = done.stdout + done.stderr
        wrong = []
        if done.returncode not in EXIT_STATUSES or done.returncode == 1:
            wrong.append(f"exit {done.returncode}")
        wrong += [word.decode() for word in (b"Traceback", b"Exception ignored", b"(exit 1,") if word in said]
        asked = any(each in cell.command for each in ("-o json", "-ojson", "--output=json"))
        if cell.is_readable and asked and not _is_document(done.stdout):
            wrong.append("no document")
        return f"{cell.environment}: hsm-agent {cell.command}: {wrong}\n{said[-600:]!r}" if wrong else None

    def hold(self, cells: list[Cell]) -> None:
        with ThreadPoolExecutor(2) as pool:
            wrong = [each for each in pool.map(self.complaint, cells) if each]
        assert not wrong, "\n\n".join(wrong)


def _is_document(said: bytes) -> bool:
    try:
        return bool(json.loads(said))
    except ValueError:
        return False


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    # not of pytest, whose folders users without a name cannot enter
    with tempfile.TemporaryDirectory(prefix="hsm-agent-test-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "hosts").write_text("127.0.0.1:1\n")
        text = f'__version__ = "{__version__}"\n'.encode()
        info = tarfile.TarInfo("hsm-agent/agent/__init__.py")
        info.size = len(text)
        with tarfile.open(folder / "tree.tar.gz", "w:gz") as tar:
            tar.addfile(info, io.BytesIO(text))
        compileall.compile_dir(copied(ROOT, folder / "source") / "agent", quiet=2)
        yield Bench(folder)


def runs() -> list[str]:
    """Return the calls that are safe here: without root there is no copy, and so neither address nor package source."""
    return [each for each in RUNS if os.geteuid() == 0 or _WANTED not in each]


def dealt(environments: dict[str, str]) -> list[Cell]:
    names = list(environments)
    return [
        Cell(name, command, environments[name])
        for number, command in enumerate(runs())
        for name in [names[number % len(names)]]
    ]


def test_every_command_is_among_them() -> None:
    assert [each for each in COMMANDS if not any(f"{run} ".startswith(f"{each} ") for run in RUNS)] == []


@pytest.mark.parametrize(
    "environments", [STREAMS, LIMITS, LOCALES, VARIABLES], ids=["streams", "limits", "locales", "variables"]
)
def test_every_command_ends_by_the_table(bench: Bench, environments: dict[str, str]) -> None:
    bench.hold(dealt(environments))


def test_help_ends_by_the_table(bench: Bench) -> None:
    shells = list({**STREAMS, **LIMITS, **LOCALES, **VARIABLES}.items())
    bench.hold([Cell(name, f"{each} --help", shell) for each, (name, shell) in zip(COMMANDS, shells)])


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has a copy of a machine to make it odd")


def test_a_relative_path_where_the_folder_is_gone_is_no_defect(bench: Bench) -> None:
    ways = (
        f"cluster {_CLUSTER} --html page.html",
        f"fleet verify {_FLEET}",
        "fleet verify --inventory hosts --html page.html -ojson",
        "user-data --hsm-ip 10.0.0.1 --config file.toml",
        "iam-policy --config file.toml",
        "plan --config file.toml -ojson",
    )
    name = "a folder that is gone"
    bench.hold([Cell(name, each, VARIABLES[name]) for each in ways])


@needs_root
def test_every_command_ends_by_the_table_on_an_odd_machine(bench: Bench) -> None:
    bench.hold(dealt(MACHINES))


def test_a_python_without_a_part_ends_by_the_table(bench: Bench) -> None:
    code = "import sys; sys.modules[{!r}] = None; from agent.__main__ import main; main()"
    parts = [PARTS[number % len(PARTS)] for number in range(len(runs()))]
    bench.hold(
        [Cell(f"no {part}", run, python=("-c", code.format(part))) for part, run in zip(parts, runs())]
    )


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux of before 2016")
def test_a_user_without_a_name_or_threads_ends_by_the_table(bench: Bench) -> None:
    """The limit counts all processes of a user: each has a user of its own, and room for one, two or three."""
    cells = []
    for number, run in enumerate(runs()):
        user = ("setpriv", "--reuid", str(54_000 + number), "--regid", "54321", "--clear-groups")
        few = ("prlimit", f"--nproc={number % 4}") if number % 4 else ()
        home = f"export HOME={bench.folder}" if number % 4 else "unset HOME"
        cells.append(Cell(f"user {number}", run, f"cd /; {home}", (*few, *user)))
    bench.hold(cells)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_is_gone_changes_nothing(bench: Bench, stream: str) -> None:
    for command, status in (("--help", 0), ("facts", 10), ("explain nosuch", 2), ("fleet runs", 0)):
        read, write = os.pipe()
        os.close(read)
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write}
        argv = ["/bin/sh", "-c", 'exec "$@"', "sh", sys.executable, "-m", "agent", *command.split()]
        with subprocess.Popen(argv, cwd=bench.source, **streams) as process:  # type: ignore[call-overload]
            os.close(write)
            out, err = process.communicate(timeout=120)
        allowed = (status, 0) if command == "facts" else (status,)  # by what this machine is
        assert process.returncode in allowed, (command, out, err)
        assert b"Traceback" not in (out or b"") + (err or b"")


# `printf` writes bytes that are no text: a command line of ours here has to be
ODD = {
    "no UTF-8": r"\377\376", "an option of it": r"--\377", "a value of it": r"--hsm-ip=\377", "a screen cleared": r"\033[2J",
    "empty": "", "a dash": "-", "dashes": "--", "a format": "%%s%%n", "much": "x" * 100_000,
}  # fmt: skip


def test_odd_bytes_on_the_command_line_end_by_the_table(bench: Bench) -> None:
    commands = (
        "plan",
        "explain",
        "fleet plan --inventory",
        "status",
        "rollback",
        "user-data --ca-cert",
        "demo --fault",
        "facts",
    )
    odd = list(ODD.items())
    cells = [
        Cell(name, f"{command}", f'set -- "$@" "$(printf \'{text}\')"')
        for number, command in enumerate(commands)
        for name, text in (odd[number % len(odd)], odd[(number + 4) % len(odd)], odd[(number + 5) % len(odd)])
    ]
    bench.hold(cells)
    assert not [
        each for each in cells if each.environment == "a screen cleared" and b"\x1b" in bench.run(each).stderr
    ]


@pytest.mark.parametrize("after", [0, 1, 3, 8, 12])
def test_an_interrupt_while_it_is_loaded_is_130(bench: Bench, after: int) -> None:
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
    done = bench.run(Cell("", f"{after} facts", python=("-c", code)))
    assert (done.returncode, done.stdout) == (130, b"")
    assert b"Traceback" not in done.stderr


def test_a_thread_that_is_left_behind_does_not_change_how_it_ends(bench: Bench) -> None:
    """It may be inside OpenSSL, and what the C library calls at the end of a process takes that down."""
    code = (
        "import ctypes, sys, threading\n"
        "c = ctypes.CDLL(None)\n"
        "c.__cxa_atexit(c._exit, ctypes.c_void_p(99), None)\n"
        "if sys.argv.pop(1) == 'left':\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "from agent.__main__ import main\n"
        "main()\n"
    )
    for threads, status in (("none", 99), ("left", 0)):
        done = bench.run(Cell("", f"{threads} explain usage", python=("-c", code)))
        assert (done.returncode, b"usage" in done.stdout) == (status, True), done.stderr


def test_a_signal_that_the_caller_ignores_stays_ignored(bench: Bench) -> None:
    code = (
        "import os, signal, sys, threading\n"
        "from agent.cli.interrupts import stopped_by_signals\n"
        "stop = stopped_by_signals(threading.Event())\n"
        "for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):\n"
        "    os.kill(os.getpid(), number)\n"
        "    print(int(stop.is_set()), end='')\n"
    )
    done = bench.run(Cell("", "", "trap '' INT HUP", python=("-c", code)))
    assert (done.returncode, done.stdout) == (0, b"001"), done.stderr
