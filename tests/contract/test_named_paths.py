"""What an operator named and is no file: written to where that is what it is for, else refused and left as it is."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from agent.core.errors import AgentError
from agent.hosts.posix import Posix
from agent.sinks.file import put

ROOT = Path(__file__).parents[2]
PUT = "import sys\nfrom agent.hosts.posix import Posix\nfrom agent.sinks.file import put\nput(Posix(), sys.argv[1], 'told')"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")


def run(path: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", PUT, path], cwd=ROOT, timeout=60, check=False,
        **{"capture_output": True, "stdin": subprocess.DEVNULL, **streams},
    )  # fmt: skip


def fifo(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def disk(path: Path) -> None:
    os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(7, 250))


def unix(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # a socket's path has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def folder(path: Path) -> None:
    path.mkdir()


def link(path: Path) -> None:
    path.symlink_to("target")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def to_device(path: Path) -> None:
    path.symlink_to("/dev/null")


@as_root
@pytest.mark.parametrize("make", [fifo, device, disk, unix, folder, link, dangling, to_device])
def test_what_is_no_file_is_refused_and_stays(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    path = tmp_path / "named"
    make(path)
    before = path.lstat()
    with pytest.raises(AgentError) as refused:
        put(Posix(), str(path), "told")
    assert (refused.value.code.name, str(path) in refused.value.saw) == ("write-failed", True)
    after = path.lstat()
    assert (after.st_mode, after.st_ino, after.st_rdev) == (before.st_mode, before.st_ino, before.st_rdev)
    assert (tmp_path / "target").read_text() == "mine"


@as_root
@pytest.mark.parametrize("make", [fifo, device, unix, folder])
def test_no_write_of_a_host_replaces_what_is_no_file(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "named")
    before = (tmp_path / "named").lstat()
    with pytest.raises(AgentError):
        Posix().write(str(tmp_path / "named"), b"x", mode=0o600)
    assert (tmp_path / "named").lstat().st_ino == before.st_ino
    assert [each.name for each in tmp_path.iterdir()] == ["named"]


@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/2"])
def test_a_stream_is_written_to_and_stays(name: str) -> None:
    before = os.lstat(name) if not name.startswith("/proc") else None
    done = run(name)
    assert done.returncode == 0, done.stderr
    wanted = {"/dev/null": (b"", b""), "/dev/stdout": (b"told", b""), "/dev/fd/1": (b"told", b"")}
    assert (done.stdout, done.stderr) == wanted.get(name, (b"", b"told"))
    assert before is None or os.lstat(name).st_ino == before.st_ino


def test_a_file_behind_standard_output_is_gone_on_with(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before ")
        out.flush()
        assert run("/dev/stdout", capture_output=False, stdout=out).returncode == 0
    assert (tmp_path / "out").read_bytes() == b"before told"


# beyond what one process may open: no descriptor of this one has that number
@pytest.mark.parametrize(
    ("name", "code"), [("/dev/full", "no-space"), ("/dev/fd/2147483647", "write-failed")]
)
def test_a_stream_that_takes_nothing_is_named(name: str, code: str) -> None:
    with pytest.raises(AgentError) as refused:
        put(Posix(), name, "told")
    assert (refused.value.code.name, name in refused.value.saw) == (code, True)


def test_standard_output_that_is_a_socket_is_written_to() -> None:
    ours, theirs = socket.socketpair()
    heard = []
    with ours, theirs:
        reader = threading.Thread(target=lambda: heard.append(ours.recv(100)))
        reader.start()
        assert run("/dev/stdout", capture_output=False, stdout=theirs).returncode == 0
        reader.join(30)
    assert heard == [b"told"]


@as_root
def test_a_program_is_called_what_the_kernel_calls_it(tmp_path: Path) -> None:
    """Not what it wrote over its own command line, which may be anything and of any length."""
    library = tmp_path / "libcloudhsm.so"
    library.write_bytes(b"x" * 4096)
    code = (
        "import ctypes, mmap, sys\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "ctypes.CDLL(None).prctl(15, b'\\xff\\xfe\\x1b[2Jx23456789', 0, 0, 0)\n"
        "print(flush=True)\nsys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", code, str(library), "long" * 20_000]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = Posix().processes_mapping(f"{tmp_path}/")
        process.communicate()
    assert [(each.pid, each.name) for each in found] == [(process.pid, "\ufffd\ufffd?[2Jx23456789")]
