"""One suite over every Host: what agent/core/host.py promises holds on each of them, and so the double is honest."""

from __future__ import annotations

import datetime as dt
import os
import select
import shlex
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from agent.core.errors import AgentError
from agent.core.host import READ_LIMIT, CommandResult, DiskSpace, Host, LockHolder, ProcessInfo, Stat
from agent.hosts import processes
from agent.hosts.allowlist import CommandNotAllowed
from agent.hosts.deadline import DeadlineHost
from agent.hosts.local import local_host
from agent.hosts.read_only import ReadOnlyHost, WriteForbidden
from agent.state.running import current_run
from tests.contract.grounds import Ground, cause_of, ground_of, python, raises, silent_server
from tests.fakes.memory import Memory
from tests.full_server import full_server

if sys.platform != "win32":
    from agent.hosts.posix import PATH, Posix

if TYPE_CHECKING:
    from collections.abc import Iterator


# This suite also runs inside Wine, started by tests/windows; what only Windows promises is in test_windows_host.py.
WINDOWS = sys.platform == "win32"
if sys.platform == "win32":
    REAL: tuple[str, ...] = ("windows",)
else:
    REAL = ("posix",)
EVERY = (*REAL, "memory")

NOBODY = 65534
is_root = pytest.mark.skipif(
    WINDOWS or os.geteuid() != 0, reason="only root of Linux can become another user or mount"
)
posix_only = pytest.mark.skipif(WINDOWS, reason="a thing of POSIX, or arranged with its programs")
# what a careless program would trip over
ODD_NAME = "a b'$(x)" if WINDOWS else "a b'$(x)\n*"
BLANKS = "c d e" if WINDOWS else "c d\ne"


@pytest.fixture(params=EVERY)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with ground_of(request.param) as made:
        yield made


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A ground with real processes and a real kernel under it."""
    with ground_of(request.param) as made:
        yield made


@pytest.fixture(params=REAL)
def as_nobody(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A ground whose host works as a user without rights."""
    with ground_of(request.param) as made:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            yield made
        finally:
            os.seteuid(0)
            os.setegid(0)


@contextmanager
def as_root() -> Iterator[None]:
    """Arrange something while the test itself has no rights."""
    was = os.geteuid(), os.getegid()
    os.seteuid(0)
    os.setegid(0)
    try:
        yield
    finally:
        os.setegid(was[1])
        os.seteuid(was[0])


# --- the registry


def test_a_key_that_nobody_made_is_absent(ground: Ground) -> None:
    """As every key is where there is no registry."""
    assert ground.host.registry(r"HKLM\SOFTWARE\nobody made this") is None


# --- read


def test_what_is_absent_is_none(ground: Ground) -> None:
    file = ground.file("file")
    nowhere = ground.link("nowhere", "goal")
    absent = [ground.path("no"), ground.path("no/such"), f"{file}/below", nowhere]
    assert [ground.host.read(path) for path in absent] == [None] * 4


def test_bytes_are_read_as_they_are(ground: Ground) -> None:
    data = bytes(range(256)) + b"\n\n\0"
    assert ground.host.read(ground.file(ODD_NAME, data)) == data
    assert ground.host.read(ground.file("-empty", b"")) == b""


def test_a_file_as_large_as_the_limit_is_whole(ground: Ground) -> None:
    data = os.urandom(READ_LIMIT // 16) * 16
    assert ground.host.read(ground.file("large", data)) == data


def test_a_link_is_followed(ground: Ground) -> None:
    ground.file("etc/file", b"here")
    assert ground.host.read(ground.link("link", "etc/file")) == b"here"


@posix_only
def test_what_is_no_regular_file_is_unreadable_and_does_not_block(ground: Ground) -> None:
    fifo = ground.fifo("fifo")
    for path in (ground.directory("folder"), fifo, ground.link("link", fifo), "/dev/zero", "/a\0b"):
        with raises("unreadable"):
            ground.host.read(path)


def test_a_file_above_the_limit_is_unreadable(ground: Ground) -> None:
    path = ground.file("file", b"12345")
    assert ground.host.read(path, limit=5) == b"12345"
    assert cause_of(lambda: ground.host.read(path, limit=4)) == ("unreadable", "more than 4 bytes")


def test_reading_can_start_anywhere(ground: Ground) -> None:
    path = ground.file("file", b"12345")
    assert ground.host.read(path, offset=3, limit=2) == b"45"
    assert ground.host.read(path, offset=5) == b""
    assert ground.host.read(path, offset=50) == b""
    with raises("unreadable"):
        ground.host.read(path, offset=2, limit=2)


@posix_only
def test_a_file_without_a_size_is_read(real: Ground) -> None:
    assert (real.host.read("/proc/self/status") or b"").startswith(b"Name:")


@is_root
def test_a_file_that_may_not_be_read_is_unreadable(as_nobody: Ground) -> None:
    with as_root():
        paths = [as_nobody.file("file", b"x", 0o600), as_nobody.file("closed/file", b"x")]
        Path(as_nobody.path("closed")).chmod(0o700)
    for path in paths:
        assert cause_of(lambda path=path: as_nobody.host.read(path))[0] == "unreadable"  # type: ignore[misc]
    with raises("unreadable"):
        as_nobody.host.stat(paths[1])
    with raises("unreadable"):
        as_nobody.host.list_dir(as_nobody.path("closed"))


# --- stat, names, remove


@posix_only
def test_stat_tells_the_kind_and_does_not_follow(ground: Ground) -> None:
    ground.file("file", b"123", 0o640)
    ground.directory("folder")
    ground.fifo("fifo")
    ground.link("link", "file")
    seen = {
        name: ground.host.stat(ground.path(name))
        for name in ("file", "folder", "fifo", "link", "no", "file/x")
    }
    kinds = {name: stat.kind if stat else None for name, stat in seen.items()}
    want = {
        "file": "file",
        "folder": "directory",
        "fifo": "other",
        "link": "link",
        "no": None,
        "file/x": None,
    }
    assert kinds == want
    file = seen["file"]
    assert file == Stat("file", 0o640, os.geteuid(), os.getegid(), 3, file.mtime if file else 0)
    assert abs(file.mtime - ground.host.now().timestamp()) < 30


def test_names_are_sorted_and_whole(ground: Ground) -> None:
    for name in ("b", ".a", BLANKS, "-f", "ü"):
        ground.file(f"folder/{name}")
    ground.file("folder/below/deep")
    assert ground.host.list_dir(ground.path("folder")) == ("-f", ".a", "b", "below", BLANKS, "ü")
    assert ground.host.list_dir(ground.link("link", "folder"))[:2] == ("-f", ".a")
    assert ground.host.list_dir(ground.path("absent")) == ()
    assert ground.host.list_dir(ground.directory("empty")) == ()


@posix_only
def test_a_name_need_not_be_text(real: Ground) -> None:
    Path(os.fsdecode(os.fsencode(real.folder) + b"/\xff")).write_bytes(b"x")
    (name,) = real.host.list_dir(real.folder)
    assert os.fsencode(name) == b"\xff"
    assert real.host.read(real.path(name)) == b"x"


def test_a_file_has_no_names(ground: Ground) -> None:
    with raises("unreadable"):
        ground.host.list_dir(ground.file("file"))


def test_remove_takes_files_and_trees(ground: Ground) -> None:
    ground.file("tree/a/b")
    ground.host.remove(ground.file("file"))
    ground.host.remove(ground.path("tree"))
    ground.host.remove(ground.path("absent"))
    ground.host.remove(ground.path("absent/below"))
    assert ground.host.list_dir(ground.folder) == ()


def test_remove_never_follows_a_link(ground: Ground) -> None:
    precious = ground.file("precious/file")
    ground.directory("tree")
    ground.link("tree/inside", "../precious")
    ground.host.remove(ground.link("link", "precious"))
    ground.host.remove(ground.link("slash", "precious") + "/")
    ground.host.remove(ground.path("tree"))
    assert ground.host.list_dir(ground.folder) == ("precious",)
    assert ground.host.stat(precious) is not None


def test_the_root_is_never_removed(ground: Ground) -> None:
    for path in ("/", "//", ""):
        with raises("write-failed"):
            ground.host.remove(path)


# --- write


def test_a_file_is_written_with_its_mode_whatever_the_umask(ground: Ground) -> None:
    was = os.umask(0o077)
    try:
        ground.host.write(ground.path("open"), b"\0a\n", mode=0o644)
        os.umask(0o000)
        ground.host.write(ground.path("a/b'c/-secret"), b"", mode=0o600)
    finally:
        os.umask(was)
    seen = {name: ground.host.stat(ground.path(name)) for name in ("open", "a", "a/b'c", "a/b'c/-secret")}
    modes = {name: oct(stat.mode) if stat else None for name, stat in seen.items()}
    assert modes == {"open": "0o644", "a": "0o711", "a/b'c": "0o711", "a/b'c/-secret": "0o600"}
    assert ground.host.read(ground.path("open")) == b"\0a\n"
    assert ground.host.read(ground.path("a/b'c/-secret")) == b""


def test_a_file_is_replaced(ground: Ground) -> None:
    path = ground.file("file", b"a longer text", 0o600)
    mode = 0o644 if WINDOWS else 0o640  # there a file has no group
    ground.host.write(path, b"new", mode=mode)
    stat = ground.host.stat(path)
    assert stat is not None
    assert (ground.host.read(path), stat.mode) == (b"new", mode)
    assert ground.host.list_dir(ground.folder) == ("file",)


@is_root
def test_a_file_gets_its_owner(ground: Ground) -> None:
    ground.host.write(ground.path("file"), b"x", mode=0o640, owner=(NOBODY, 12))
    stat = ground.host.stat(ground.path("file"))
    assert stat is not None
    assert (stat.uid, stat.gid, stat.mode) == (NOBODY, 12, 0o640)


def test_a_link_is_replaced_and_its_goal_left_alone(ground: Ground) -> None:
    goal = ground.file("goal", b"old")
    link = ground.link("link", "goal")
    ground.host.write(link, b"new", mode=0o644)
    assert (ground.host.read(goal), ground.host.read(link)) == (b"old", b"new")


@posix_only
def test_what_a_link_says_is_told_and_can_be_written(ground: Ground) -> None:
    goal = ground.file("goal", b"data")
    link = ground.link("link", "goal")
    assert [ground.host.readlink(each) for each in (link, goal, ground.path("none"), goal + "/below")] == [
        "goal",
        None,
        None,
        None,
    ]
    for target in ("../elsewhere", "a b'$(x)", "/nowhere"):
        ground.host.symlink(link, target)  # in place of a link
        assert ground.host.readlink(link) == target
    fresh = ground.path("deep/fresh")
    ground.host.symlink(fresh, "../goal")
    assert (ground.host.read(fresh), ground.host.read(goal)) == (b"data", b"data")
    ground.host.symlink(goal, "/nowhere")  # in place of a file
    assert ground.host.list_dir(ground.folder) == ("deep", "goal", "link")
    with raises("write-failed"):
        ground.host.symlink(ground.directory("folder"), "goal")
    assert ground.host.list_dir(ground.path("folder")) == ()


@posix_only
def test_links_in_a_circle_are_unreadable(ground: Ground) -> None:
    ground.link("one", "two")
    link = ground.link("two", "one")
    with raises("unreadable"):
        ground.host.read(link)
    assert ground.host.readlink(link) == "one"


@posix_only
def test_a_mode_is_given_to_files_and_folders_and_never_through_a_link(ground: Ground) -> None:
    goal = ground.file("goal", mode=0o666)
    for path, mode in ((goal, 0o640), (ground.directory("folder"), 0o750)):
        ground.host.chmod(path, mode)
        seen = ground.host.stat(path)
        assert seen is not None
        assert seen.mode == mode
    for path in (ground.link("link", "goal"), ground.path("none")):
        with raises("write-failed"):
            ground.host.chmod(path, 0o777)
    after = ground.host.stat(goal)
    assert after is not None
    assert after.mode == 0o640


def test_a_write_that_cannot_be_says_where(ground: Ground) -> None:
    folder = ground.directory("folder")
    inside = ground.file("file") + "/below"
    for path in (folder, inside):
        code, saw = cause_of(lambda path=path: ground.host.write(path, b"x", mode=0o644))  # type: ignore[misc]
        assert (code, path in saw) == ("write-failed", True)
    assert ground.host.list_dir(ground.folder) == ("file", "folder")


def test_what_a_killed_write_left_goes_with_the_next_one(ground: Ground) -> None:
    for name in (".a.hsm-agent-00c0ffee", ".a b.hsm-agent-1", ".other.hsm-agent-1", "a.hsm-agent-1"):
        ground.file(name)
    ground.host.write(ground.path("a"), b"x", mode=0o644)
    left = ground.host.list_dir(ground.folder)
    if ground.memory is None:
        assert left == (".a b.hsm-agent-1", ".other.hsm-agent-1", "a", "a.hsm-agent-1")


def test_a_reader_sees_the_old_bytes_or_the_new_ones(real: Ground) -> None:
    path = real.path("file")
    texts = {letter * 300_000 for letter in (b"a", b"b")}
    real.host.write(path, b"a" * 300_000, mode=0o644)
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        # on Windows nobody can replace what a program like this one holds open: there it lets go now and then
        while not done.wait(0.02 if WINDOWS else 0):
            with suppress(PermissionError):  # of Windows, just while the file is exchanged
                seen.add(Path(path).read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            for text in sorted(texts):
                real.host.write(path, text, mode=0o644)
    finally:
        done.set()
        reader.join()
    assert seen <= texts


@is_root
def test_a_write_without_permission_leaves_everything_as_it_was(as_nobody: Ground) -> None:
    with as_root():
        path = as_nobody.file("file", b"old")
    code, saw = cause_of(lambda: as_nobody.host.write(path, b"new", mode=0o644))
    assert (code, "Permission denied" in saw, path in saw) == ("write-failed", True, True)
    assert cause_of(lambda: as_nobody.host.remove(path))[0] == "write-failed"
    assert as_nobody.host.list_dir(as_nobody.folder) == ("file",)
    assert as_nobody.host.read(path) == b"old"


@contextmanager
def mounted(folder: str, options: str) -> Iterator[None]:
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "hsm-agent-test", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("cannot mount here; the lab does")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@is_root
def test_a_full_disk_is_told_and_leaves_the_old_file(real: Ground) -> None:
    folder = real.directory("disk")
    with mounted(folder, "size=64k"):
        path = real.file("disk/file", b"old")
        with raises("no-space"):
            real.host.write(path, b"x" * 200_000, mode=0o644)
        assert (real.host.read(path), real.host.list_dir(folder)) == (b"old", ("file",))
        assert real.host.disk_space(path).free <= 65536


@is_root
def test_a_read_only_disk_is_told(real: Ground) -> None:
    folder = real.directory("disk")
    with mounted(folder, "ro"):
        with raises("read-only"):
            real.host.write(f"{folder}/a/file", b"x", mode=0o644)
        assert real.host.disk_space(f"{folder}/a/file").writable is False


def test_the_double_has_a_full_and_a_read_only_disk() -> None:
    memory = Memory({"/file": b"old"})
    memory.full = True
    with raises("no-space"):
        memory.write("/file", b"new", mode=0o644)
    memory.read_only = True
    with raises("read-only"):
        memory.write("/file", b"new", mode=0o644)
    assert (memory.read("/file"), memory.disk_space("/")) == (b"old", DiskSpace(0, writable=False))


@is_root
def test_stat_tells_whom_an_access_list_lets_write(real: Ground) -> None:
    path = real.file("listed")
    nobody = 0xFFFFFFFF
    entries = (
        (1, 6, nobody),
        (2, 6, 1000),
        (2, 4, 1001),
        (4, 4, nobody),
        (8, 7, 1002),
        (0x10, 6, nobody),
        (0x20, 4, nobody),
    )
    data = (2).to_bytes(4, "little") + b"".join(struct.pack("<HHI", *each) for each in entries)
    os.setxattr(path, "system.posix_acl_access", data)
    stat = real.host.stat(path)
    assert stat is not None
    assert stat.writers == (("user", 1000), ("group", 1002))
    Path(path).chmod(0o644)  # takes the list's mask away
    assert replace(stat, mode=0o644, writers=()) == real.host.stat(path)


@posix_only
@pytest.mark.parametrize(("mode", "mask"), [(0o640, 4), (0o600, 0)], ids=["as it was", "closed"])
def test_who_may_read_a_file_by_its_access_list_still_may_after_a_write(
    real: Ground, mode: int, mask: int
) -> None:
    path = real.file("listed")
    nobody = 0xFFFFFFFF
    listed = [(1, 6, nobody), (2, 6, 4711), (4, 0, nobody), (0x10, 6, nobody), (0x20, 0, nobody)]
    name = "system.posix_acl_access"

    def data() -> bytes:
        return (2).to_bytes(4, "little") + b"".join(struct.pack("<HHI", *each) for each in listed)

    os.setxattr(path, name, data())
    real.host.write(path, b"new", mode=mode)
    listed[3] = (0x10, mask, nobody)  # what the list lets do is no more than the mode lets the group
    assert (os.getxattr(path, name), Path(path).read_bytes()) == (data(), b"new")


@is_root
def test_a_file_keeps_its_label_after_a_write(real: Ground) -> None:
    path, name = real.file("labelled"), "security.selinux"
    os.setxattr(path, name, b"system_u:object_r:cert_t:s0\0")
    real.host.write(path, b"new", mode=0o644)
    assert (os.getxattr(path, name), Path(path).read_bytes()) == (b"system_u:object_r:cert_t:s0\0", b"new")


# --- ask, do


@posix_only
def test_ask_runs_what_is_allowed_and_nothing_else(real: Ground) -> None:
    mark = real.path("mark")
    ldd = real.program("ldd", 'echo "$1"; echo said >&2; exit 3')
    assert real.host.query((ldd, "/a b'$x"), timeout=10) == CommandResult(3, "/a b'$x\n", "said\n")
    with pytest.raises(CommandNotAllowed):
        real.host.query((real.program("touch", f"touch {mark}"),), timeout=10)
    assert real.host.stat(mark) is None


def test_the_double_asks_the_allow_list_too() -> None:
    memory = Memory(
        answers={("uname", "-m"): CommandResult(0, "x86_64\n", ""), ("rm", "x"): CommandResult(0, "", "")}
    )
    assert memory.query(("uname", "-m"), timeout=1).out == "x86_64\n"
    with pytest.raises(CommandNotAllowed):
        memory.query(("rm", "x"), timeout=1)


def test_a_missing_program_is_127_and_one_that_cannot_run_126(real: Ground) -> None:
    assert real.host.run(("no-such-program",), timeout=10).status == 127
    assert real.host.run((real.path("no/such"), "x"), timeout=10).status == 127
    assert real.host.run((real.file("text", b"no program\n", 0o644),), timeout=10).status == 126


@posix_only
def test_a_signal_is_told_as_a_shell_does(real: Ground) -> None:
    assert real.host.run(("sh", "-c", "kill -9 $$"), timeout=10).status == 137


@posix_only
def test_a_program_gets_its_input_and_no_other(real: Ground) -> None:
    data = os.urandom(700_000).hex().encode()
    assert real.host.run(("cat",), timeout=10, stdin=b"a\0b\n").out == "a\0b\n"
    assert real.host.run(("wc", "-c"), timeout=10, stdin=data).out.strip() == str(len(data))
    assert real.host.run(("true",), timeout=10, stdin=data).ok
    assert real.host.run(("cat",), timeout=10) == CommandResult(0, "", "")


@posix_only
def test_no_service_of_others_is_restarted_by_what_installs(real: Ground) -> None:
    """needrestart, which Ubuntu hangs behind apt, restarts whatever uses a library that was replaced at some time."""
    seen = real.host.run(("sh", "-c", 'echo "$NEEDRESTART_SUSPEND"'), timeout=10)
    assert seen.out == "1\n"


@posix_only
def test_a_program_sees_a_plain_environment(real: Ground) -> None:
    seen = real.host.run(("sh", "-c", 'echo "$LC_ALL $LANG $DEBIAN_FRONTEND $PATH"; pwd'), timeout=10)
    assert seen.out == f"C C noninteractive {PATH}\n/\n"


@posix_only
def test_a_short_file_takes_little_memory_whatever_its_limit(real: Ground) -> None:
    path = real.file("short", b"x" * 99, 0o644)
    tracemalloc.start()
    try:
        assert real.host.read(path, limit=256 * 1024 * 1024) == b"x" * 99
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


@posix_only
def test_what_a_program_writes_is_for_all_to_read_whatever_the_umask(real: Ground) -> None:
    """A hardened root has 077; with that a configure tool would leave a file that no web server can read."""
    before = os.umask(0o077)
    try:
        assert real.host.run(("sh", "-c", "umask"), timeout=10).out == "0022\n"
    finally:
        os.umask(before)


@posix_only
def test_output_that_is_no_text_does_no_harm(real: Ground) -> None:
    assert real.host.run(("printf", r"a\377b"), timeout=10).out == "a\ufffdb"


@posix_only
def test_both_outputs_may_be_large(real: Ground) -> None:
    script = "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo end; echo end >&2"
    done = real.host.run(("sh", "-c", script), timeout=20)
    kept = 2 * processes.EDGE
    assert done.ok
    for said in (done.out, done.err):
        assert said.endswith("\0end\n")
        assert kept <= len(said) < kept + 100
        assert "bytes left out]" in said


@posix_only
def test_endless_output_is_ended_with_its_program(real: Ground) -> None:
    done = real.host.run(("yes",), timeout=0.3)
    assert done.timed_out
    assert len(done.out) < 2 * processes.EDGE + 100


@posix_only
def test_a_program_that_takes_too_long_is_ended_with_all_its_children(real: Ground) -> None:
    fifo = real.fifo("fifo")
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        ldd = real.program("ldd", f"trap '' TERM; sleep 60 >{fifo} & echo begun; sleep 60 >{fifo}")
        start = time.monotonic()
        done = real.host.query((ldd, "x"), timeout=0.3)
        assert time.monotonic() - start < 5
        assert done == CommandResult(None, "begun\n", "")
        # the end of the FIFO comes when the last of them is gone
        assert select.select([reader], [], [], 5)[0]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


@posix_only
def test_what_a_program_leaves_behind_is_not_waited_for(real: Ground) -> None:
    fifo = real.fifo("fifo")
    start = time.monotonic()
    done = real.host.run(("sh", "-c", f"echo out; cat {fifo} & exit 4"), timeout=20)
    assert time.monotonic() - start < 10
    assert done == CommandResult(4, "out\n", "")
    Path(fifo).write_bytes(b"")  # the cat ends


@posix_only
def test_a_child_has_a_session_of_its_own() -> None:
    done = Posix().run(("sh", "-c", "echo $$; cut -d ' ' -f 5,6 /proc/$$/stat"), timeout=10)
    pid, group_and_session = done.out.splitlines()
    assert group_and_session == f"{pid} {pid}"


def test_the_double_knows_only_what_it_was_told() -> None:
    def dpkg(argv: tuple[str, ...], memory: Memory) -> CommandResult:
        memory.clock += 100
        return CommandResult(0, f"{argv[1]} {memory.stdin.decode()}", "")

    memory = Memory(programs={"dpkg": dpkg})
    assert memory.run(("dpkg", "-i"), timeout=200, stdin=b"in") == CommandResult(0, "-i in", "")
    assert memory.run(("dpkg", "-i"), timeout=50).timed_out
    assert (memory.monotonic(), memory.touches) == (150, [("run", "dpkg", "-i")] * 2)
    with pytest.raises(BaseException, match="does not know `apt-get x`"):
        memory.run(("apt-get", "x"), timeout=1)


# --- interrupts


@contextmanager
def when(path: str, act: Callable[[], object]) -> Iterator[None]:
    """Act as soon as somebody opens the FIFO at `path` for writing."""

    def wait() -> None:
        with Path(path).open("rb"):
            act()

    waiter = threading.Thread(target=wait)
    waiter.start()
    try:
        yield
    finally:
        with suppress(OSError):  # nobody came: let the thread go
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        waiter.join()


@posix_only
def test_an_interrupt_ends_a_look() -> None:
    stop = threading.Event()
    with ground_of("posix") as ground, when(ground.fifo("fifo"), stop.set):
        ldd = ground.program("ldd", f": >{ground.path('fifo')}; exec sleep 60")
        with raises("interrupted"):
            Posix(stop).query((ldd, "x"), timeout=30)


@posix_only
def test_an_interrupt_lets_a_touch_finish() -> None:
    stop = threading.Event()

    def stop_and_let_go() -> None:
        stop.set()
        Path(go).write_bytes(b"")

    with ground_of("posix") as ground:
        begun, go = ground.fifo("begun"), ground.fifo("go")
        with when(begun, stop_and_let_go):
            done = Posix(stop).run(("sh", "-c", f": >{begun}; cat {go}; exit 3"), timeout=30)
        assert stop.is_set()
        assert done.status == 3


@posix_only
def test_an_interrupt_ends_every_wait() -> None:
    stop = threading.Event()
    stop.set()
    with raises("interrupted"):
        Posix(stop).sleep(60)
    with silent_server() as port, raises("interrupted"):
        Posix(stop).connect("127.0.0.1", port, timeout=30)
    memory = Memory(ports={("10.0.0.1", 2223): None})
    memory.stopped = True
    with raises("interrupted"):
        memory.sleep(60)
    with raises("interrupted"):
        memory.connect("10.0.0.1", 2223, timeout=30)


# --- reach


@contextmanager
def server(
    answer: Callable[[socket.socket], None], family: socket.AddressFamily = socket.AF_INET
) -> Iterator[int]:
    """A listener that does `answer` with every connection until the test ends."""
    with closing(socket.socket(family)) as listener:
        listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        listener.listen(5)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.settimeout(10)
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):  # Windows does not know this of a listener, and wakes it at its close
                listener.shutdown(socket.SHUT_RDWR)
            if WINDOWS:
                listener.close()
            thread.join()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate nobody signed, with its key, in one file; inside Wine, where no openssl is, it is given."""
    if WINDOWS:
        return Path(os.environ["HSM_AGENT_TEST_CERTIFICATE"])
    path = tmp_path_factory.mktemp("pki") / "server.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hsm -keyout {0} -out {0}.crt"
    subprocess.run(command.format(path).split(), check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture(scope="session")
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def speaks(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as talk:
            talk.recv(1)

    return answer


def test_an_hsm_is_reached(ground: Ground, tls: ssl.SSLContext) -> None:
    with server(speaks(tls)) as port:
        if ground.memory:
            ground.memory.ports["127.0.0.1", port] = None
        reached = ground.host.connect("127.0.0.1", port, timeout=5)
        assert (reached.address, reached.port, reached.cause, reached.tls) == ("127.0.0.1", port, None, True)
        assert reached.seconds is not None
        assert 0 < reached.seconds < 5
        plain = ground.host.connect("127.0.0.1", port, timeout=5, tls=False)
        assert (plain.cause, plain.tls) == (None, None)


def test_an_hsm_is_reached_over_ipv6(real: Ground, tls: ssl.SSLContext) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    with server(speaks(tls), socket.AF_INET6) as port:
        assert real.host.connect("::1", port, timeout=5).tls is True


def test_an_hsm_that_wants_a_client_certificate_is_reached(real: Ground, certificate: Path) -> None:
    mutual = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    mutual.load_cert_chain(certificate)
    mutual.verify_mode = ssl.CERT_REQUIRED
    mutual.load_verify_locations(f"{certificate}.crt")
    mutual.maximum_version = ssl.TLSVersion.TLSv1_2  # there the refusal comes within the handshake
    with server(speaks(mutual)) as port:
        reached = real.host.connect("127.0.0.1", port, timeout=5)
    assert (reached.cause, reached.tls) == (None, True)


def test_a_tls_alert_proves_tls(real: Ground) -> None:
    def refuse(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
        connection.recv(1)

    with server(refuse) as port:
        reached = real.host.connect("127.0.0.1", port, timeout=5)
    assert (reached.cause, reached.tls) == (None, True)
    assert "refused" in reached.detail


def test_a_port_nobody_listens_on_is_refused(ground: Ground) -> None:
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        if ground.memory:
            ground.memory.ports["127.0.0.1", port] = "hsm-refused"
        reached = ground.host.connect("127.0.0.1", port, timeout=5)
    assert (reached.cause, reached.seconds, reached.tls) == ("hsm-refused", None, None)


def test_an_hsm_that_is_silent_does_not_speak_tls(ground: Ground) -> None:
    with silent_server() as port:
        if ground.memory:
            ground.memory.ports["127.0.0.1", port] = "hsm-no-tls"
        reached = ground.host.connect("127.0.0.1", port, timeout=0.3)
        assert (reached.cause, reached.tls) == ("hsm-no-tls", False)
        assert reached.detail == "connected, then was silent for 0.3 s"
        assert ground.host.connect("127.0.0.1", port, timeout=5, tls=False).cause is None


@pytest.mark.parametrize(
    "answer",
    [
        lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        lambda connection: connection.recv(1),
        lambda connection: (connection.recv(4096), connection.sendall(b"\x16")),
    ],
    ids=["another language", "closed", "half an answer"],
)
def test_what_does_not_speak_tls_is_told(real: Ground, answer: Callable[[socket.socket], None]) -> None:
    with server(answer) as port:
        reached = real.host.connect("127.0.0.1", port, timeout=5)
    assert (reached.cause, reached.tls) == ("hsm-no-tls", False)


def record(kind: int, content: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(content).to_bytes(2, "big") + content


HELLO_REQUEST = record(22, bytes(4))
# what a side does after our first message, over and over until it is gone
PEERS: dict[str, Callable[[socket.socket], None]] = {
    "silent": lambda _connection: None,
    "flooding with empty greetings": lambda connection: connection.sendall(HELLO_REQUEST * 5000),
    "one greeting after the other": lambda connection: connection.sendall(HELLO_REQUEST),
    "warnings": lambda connection: connection.sendall(record(21, b"\x01\x5a") * 100),
    "a record that never ends": lambda connection: connection.sendall(
        b"\x16\x03\x03\x40\x00\x02\x00\xff\xff\x00"
    ),
    "a byte now and then": lambda connection: connection.sendall(
        b"\x16" * len(select.select([], [], [], 0.05)[:1])
    ),
    "fragments of a greeting": lambda connection: connection.sendall(record(22, b"\x00")),
    "half closed": lambda connection: connection.shutdown(socket.SHUT_RD),
}


@pytest.mark.parametrize("peer", PEERS)
def test_no_peer_outlives_the_limit_of_a_connection(real: Ground, peer: str) -> None:
    gone = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        while not gone.is_set():
            PEERS[peer](connection)
            if peer in ("silent", "half closed", "a record that never ends"):
                gone.wait(10)

    with server(answer) as port:
        start = real.host.monotonic()
        reached = real.host.connect("127.0.0.1", port, timeout=0.5)
        took = real.host.monotonic() - start
        gone.set()
    assert took < 1.5
    assert reached.cause == "hsm-no-tls" or "refused" in reached.detail


def test_connecting_and_the_handshake_have_one_limit(real: Ground) -> None:
    """A peer that is slow to accept has no second limit for being slow to answer."""
    with silent_server() as port:
        start = real.host.monotonic()
        assert real.host.connect("127.0.0.1", port, timeout=0.5).cause == "hsm-no-tls"
        assert real.host.monotonic() - start < 1


OPENSSL = {
    "half of FIPS": "init\n[init]\nproviders = all\n[all]\nfips = fips\nbase = base\n[fips]\nactivate = 1\n[base]\nactivate = 1",
    "an unknown group": "init\n[init]\nssl_conf = all\n[all]\nsystem_default = it\n[it]\nGroups = X25519NOTYET:P-256",
}
REACHES = """
import ctypes, ctypes.util, sys
from agent.core.errors import AgentError
from agent.http import tls
from agent.hosts.posix import Posix
if "stale" in sys.argv:
    library = ctypes.CDLL(ctypes.util.find_library("crypto"))
    library.ERR_new()
    library.ERR_set_error(20, 161, None)
reached = Posix().connect("127.0.0.1", int(sys.argv[1]), timeout=5)
print(reached.cause, reached.tls, reached.detail)
try:
    tls.require()
    Posix().http_get(f"https://127.0.0.1:{sys.argv[1]}/", limit=1, timeout=5)
except AgentError as error:
    print(error.code.name, error.saw)
"""


@posix_only
@pytest.mark.parametrize("configuration", OPENSSL)
@pytest.mark.parametrize("queue", ["stale", "empty"])
def test_what_openssl_complained_about_before_is_no_finding(
    tls: ssl.SSLContext, tmp_path: Path, configuration: str, queue: str
) -> None:
    (tmp_path / "cnf").write_text(f"openssl_conf = {OPENSSL[configuration]}\n", encoding="utf-8")
    if queue == "stale" and ssl.OPENSSL_VERSION_INFO < (3,):
        pytest.skip("ERR_new came with OpenSSL 3.0")
    environment = {"OPENSSL_CONF": str(tmp_path / "cnf"), "PYTHONPATH": str(Path(__file__).parents[2])}
    with server(speaks(tls)) as port:
        done = subprocess.run(
            [sys.executable, "-c", REACHES, str(port), queue],
            check=False,
            env=environment,
            capture_output=True,
            text=True,
        )
    first, second = done.stdout.splitlines()
    if configuration == "half of FIPS" and ssl.OPENSSL_VERSION_INFO >= (3,):
        assert first.startswith("openssl-unusable None connected; ")
        assert sys.executable in first
        assert second.split()[0] == "openssl-unusable"
        assert sys.executable in second
    else:
        assert first.startswith("None True TLSv1."), done.stderr
        assert second.startswith("download-failed "), done.stderr  # nobody signed that certificate
        assert "ertificate" in second


TOOLS = {
    "that never stops": "sleep 60",
    "that floods": "exec yes",
    "that floods its errors": "exec yes >&2",
    "that ignores the request to end": "trap '' TERM; while :; do sleep 1; done",
    "that floods and ignores it": "trap '' TERM; yes; yes; yes",
    "whose children go on": "sleep 60 & (trap '' TERM; sleep 60) & wait",
    "that leaves one that holds its output": "(trap '' TERM; sleep 5) & exit 0",
    "that reads what never ends": "cat /dev/zero >/dev/null",
    "that waits for a FIFO": "cat fifo",
}


@posix_only
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("single", [0.8, 60], ids=["its own limit", "the run's"])
def test_no_tool_outlives_a_limit(tmp_path: Path, tool: str, single: float) -> None:
    os.mkfifo(tmp_path / "fifo")
    host = DeadlineHost(Posix(), 60 if single < 1 else 0.8)
    start = host.monotonic()
    with suppress(AgentError):
        host.run(("sh", "-c", f"cd {tmp_path}; {TOOLS[tool]}"), timeout=single)
    assert host.monotonic() - start < 1.8


@posix_only
@pytest.mark.parametrize("what", ["/dev/zero", "/dev/tty", "/proc/kmsg", "fifo", "sparse", "/proc/self/mem"])
def test_no_file_outlives_a_limit(tmp_path: Path, what: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    host = DeadlineHost(Posix(), 5)
    start = host.monotonic()
    code, _ = cause_of(lambda: host.read(what if what.startswith("/") else str(tmp_path / what)))
    assert code == "unreadable"
    assert host.monotonic() - start < 1


SPENT = """
import os, resource, sys
from agent.core.errors import AgentError
from agent.hosts.posix import Posix
host, what = Posix(), sys.argv[1]
def do(): return host.run(("true",), timeout=5).status
asked = {"tool": do, "read": lambda: host.read("/etc/passwd"), "names": lambda: host.list_dir("/etc"),
  "write": lambda: host.write(sys.argv[2] + "/x", b"", mode=0o600), "reach": lambda: host.connect("127.0.0.1", 9, timeout=1).cause}
have = len(os.listdir("/proc/self/fd")) - 1
for spare in range(int(sys.argv[3])):
    resource.setrlimit(resource.RLIMIT_NOFILE, (have + spare, 4096))
    try:
        print(asked[what]())
    except AgentError as error:
        print(error.code.name, error.saw)
"""


@posix_only
@pytest.mark.parametrize("what", ["tool", "read", "names", "write", "reach"])
def test_few_open_files_are_told_as_the_machines_limit(tmp_path: Path, what: str) -> None:
    spare = 8 if what == "tool" else 1
    argv = [sys.executable, "-c", SPENT, what, str(tmp_path), str(spare)]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(root)}
    )
    lines = done.stdout.splitlines()
    assert len(lines) == spare, done.stderr
    assert all(line.split()[0] in ("no-resources", "0") for line in lines), lines
    assert lines[0].split()[0] == "no-resources"


@posix_only
def test_a_machine_without_dev_null_is_no_fault_of_a_tool() -> None:
    script = (
        "from agent.hosts.posix import Posix\nfrom agent.core.errors import AgentError\n"
        "try: print(Posix().run(('true',), timeout=5))\n"
        "except AgentError as error: print(error.code.name, error.saw)\n"
    )
    line = f"mount -t tmpfs none /dev && exec {shlex.join([sys.executable, '-c', script])}"
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", line], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout == "no-resources /dev/null: No such file or directory\n", done.stderr


def test_an_hsm_behind_a_wall_times_out(ground: Ground) -> None:
    with full_server() as port:
        if ground.memory:
            ground.memory.ports["127.0.0.1", port] = "hsm-timed-out"
        start = ground.host.monotonic()
        reached = ground.host.connect("127.0.0.1", port, timeout=0.25)
        took = ground.host.monotonic() - start
    assert (reached.cause, reached.seconds) == ("hsm-timed-out", None)
    assert 0.25 <= took < 5


def test_what_is_no_address_is_not_looked_up(real: Ground) -> None:
    reached = real.host.connect("hsm.example", 2223, timeout=5)
    assert (reached.cause, reached.detail) == ("hsm-no-route", "not an IP address")


# --- locks, processes, room, time

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX if sys.argv[2] == "write" else fcntl.LOCK_SH)
print("ready", flush=True)
sys.stdin.read()
"""


@posix_only
@pytest.mark.parametrize("kind", ["write", "read"])
def test_the_holder_of_a_lock_is_named(ground: Ground, kind: str) -> None:
    path = ground.file("lock")
    if ground.memory:
        ground.memory.locks[path] = LockHolder(812, "apt-get")
        assert ground.host.lock_holder(path) == LockHolder(812, "apt-get")
        return
    with python(HOLD, path, kind) as child:
        name = Path(f"/proc/{child.pid}/comm").read_text().strip()
        assert ground.host.lock_holder(path) == LockHolder(child.pid, name)
    assert ground.host.lock_holder(path) is None


@posix_only
def test_a_free_lock_has_no_holder(ground: Ground) -> None:
    assert ground.host.lock_holder(ground.file("lock")) is None
    assert ground.host.lock_holder(ground.path("absent")) is None


LOCK = """
import sys
from agent.hosts.local import local_host
with local_host().lock(sys.argv[1], "configure"):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", [REAL[0], "memory"])
def test_the_run_lock_is_held_by_one(kind: str) -> None:
    with ground_of(kind) as ground:
        path = ground.path("run/lock")
        with ground.host.lock(path, "configure"):
            code, saw = cause_of(lambda: ground.host.lock(path, "verify").__enter__())
            assert (code, "configure" in saw) == ("run-locked", True)
            assert WINDOWS or ground.host.lock_holder(path) is None  # and looking does not drop it
            with raises("run-locked"), ground.host.lock(path, "verify"):
                pass
        with ground.host.lock(path, "verify"):
            pass


AS_ANOTHER = """
import fcntl, os, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError as error:
    print(error.strerror, flush=True)
else:
    print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_by_another(path: str) -> Iterator[str]:
    """Have another user try to lock a file, and say what came of it."""
    argv = [sys.executable, "-c", AS_ANOTHER, path]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin
        assert child.stdout
        yield child.stdout.readline().strip()
        child.stdin.close()


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder of root's that everybody may look into, as /run is.

    It is no tmp_path: another run of pytest closes the folder that those of all runs lie in.
    """
    if WINDOWS or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory(prefix="host-of-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_another_user_cannot_lock_what_locks_a_run(room: Path) -> None:
    path = str(room / "lock")
    with Posix().lock(path, "configure"):
        with locked_by_another(path) as said:
            assert said == "Permission denied"
        # who holds it is everybody's to read, and no lock
        with locked_by_another(f"{path}.holder") as said:
            assert said == "locked"
            assert "configure (pid " in Path(f"{path}.holder").read_text()
    with locked_by_another(path) as said:
        assert said == "Permission denied"
        with Posix().lock(path, "verify"):
            pass
    assert not Path(f"{path}.holder").exists()
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def left(path: Path, mode: int, owner: int = 0) -> None:
    path.write_bytes(b"")
    path.chmod(mode)
    os.chown(path, owner, owner)


def bound(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as one:
        one.bind(str(path))


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "of an older version": lambda path, _: left(path, 0o644),
    "writable to all": lambda path, _: left(path, 0o666),
    "somebody else's": lambda path, _: left(path, 0o600, NOBODY),
    "a link": lambda path, other: path.symlink_to(other),
    "a dangling link": lambda path, _: path.symlink_to("nowhere"),
    "a second name": lambda path, other: os.link(other, path),
    "a FIFO": lambda path, _: os.mkfifo(path, 0o666),
    "a socket": lambda path, _: bound(path),
}


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("name", ["lock", "lock.holder"])
def test_what_lies_where_a_lock_will_be_neither_blocks_nor_is_written_to(
    room: Path, what: str, name: str
) -> None:
    other = room / "other"
    other.write_bytes(b"somebody's")
    other.chmod(0o600)
    PLANTED[what](room / name, other)
    with ExitStack() as stack:
        if (room / name).is_file() and not (room / name).is_symlink():
            stack.enter_context(locked_by_another(str(room / name)))
        stack.enter_context(Posix().lock(str(room / "lock"), "configure"))
        with raises("run-locked"):
            Posix().lock(str(room / "lock"), "verify").__enter__()
    assert other.read_bytes() == b"somebody's"
    assert stat.S_IMODE(other.stat().st_mode) == 0o600
    assert (room / "lock").is_file()


@pytest.mark.parametrize("name", ["lock", "lock.holder"])
def test_a_folder_where_a_lock_will_be_is_named(room: Path, name: str) -> None:
    (room / name / "in").mkdir(parents=True)
    if name == "lock":
        code, saw = cause_of(lambda: Posix().lock(str(room / "lock"), "verify").__enter__())
        assert (code, str(room / "lock") in saw) == ("write-failed", True)
    else:
        with Posix().lock(str(room / "lock"), "verify"):  # words are not needed
            pass
        assert (room / name / "in").is_dir()


def test_a_full_file_system_takes_the_words_of_a_lock_and_not_the_lock(room: Path) -> None:
    script = (
        "import sys; from agent.hosts.posix import Posix\n"
        "path = sys.argv[1]\nopen(path + '/fill', 'wb').write(bytes(4096))\n"
        "with Posix().lock(path + '/lock', 'configure'): print('held')\n"
    )
    mount = f"mount -t tmpfs -o size=4k,mode=755 full {shlex.quote(str(room))}"
    line = f"{mount} && exec {shlex.join([sys.executable, '-c', script, str(room)])}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", line], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.stdout, done.stderr) == ("held\n", "")


def test_a_dead_holder_never_blocks() -> None:
    with ground_of(REAL[0]) as ground:
        path = ground.path("lock")
        with python(LOCK, path) as child:
            code, saw = cause_of(lambda: ground.host.lock(path, "verify").__enter__())
            assert (code, saw) == ("run-locked", f"configure (pid {child.pid})")
            child.kill()
            child.wait()
            with ground.host.lock(path, "verify"):
                pass


@posix_only
def test_a_child_does_not_inherit_the_run_lock() -> None:
    with ground_of("posix") as ground:
        path, fifo = ground.path("lock"), ground.fifo("fifo")
        with ground.host.lock(path, "configure"):
            assert ground.host.run(("sh", "-c", f"cat {fifo} & exit 0"), timeout=10).ok
        with ground.host.lock(path, "verify"):
            pass
        Path(fifo).write_bytes(b"")  # the daemon ends


MAP = """
import mmap, sys
file = open(sys.argv[1], "rb")
held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
print("ready", flush=True)
sys.stdin.read()
"""


@posix_only
def test_a_process_with_the_client_mapped_is_found(real: Ground) -> None:
    path = real.file("lib/client.so", b"x" * 5000)
    other = real.file("library/client.so", b"x" * 5000)
    with python(MAP, path) as child, python(MAP, other):
        name = Path(f"/proc/{child.pid}/comm").read_text().strip()
        (seen,) = real.host.processes_mapping(real.path("lib/"))
        assert seen == ProcessInfo(child.pid, name, os.geteuid(), os.getegid(), seen.started, (path,))
        assert abs(seen.started - time.time()) < 60
        Path(path).unlink()
        assert real.host.processes_mapping(real.path("lib/"))[0].mapped == (f"{path} (deleted)",)
    assert real.host.processes_mapping(real.path("lib/")) == ()


# in a root of its own it maps its own file at the same path
CONTAINED = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
root = sys.argv[1]
def done(status):
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
done(libc.unshare(0x20000))  # CLONE_NEWNS
done(libc.mount(b"none", b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
done(libc.mount(b"none", root.encode(), b"tmpfs", 0, None))
os.makedirs(f"{root}/hsm-agent-contained/lib")
os.mkdir(f"{root}/before")
with open(f"{root}/hsm-agent-contained/lib/client.so", "wb") as file:
    file.write(b"x" * 5000)
with open(f"{root}/hsm-agent-contained/lib/client.so", "rb") as file:
    held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
done(libc.pivot_root(root.encode(), f"{root}/before".encode()))
print("ready", flush=True)
sys.stdin.read()
"""


@is_root
def test_a_process_in_a_container_uses_its_own_client(tmp_path: Path) -> None:
    with python(CONTAINED, str(tmp_path)) as child:
        path = "/hsm-agent-contained/lib/client.so"
        assert path in Path(f"/proc/{child.pid}/maps").read_text()
        assert local_host().processes_mapping("/hsm-agent-contained/") == ()


@posix_only
def test_programs_that_take_too_long_to_check_are_not_waited_for() -> None:
    with raises("unreadable"):
        local_host().processes_mapping("/", timeout=0)
    stop = threading.Event()
    stop.set()
    with raises("interrupted"):
        local_host(stop).processes_mapping("/")


def test_the_double_finds_processes_too() -> None:
    memory = Memory()
    memory.running = (ProcessInfo(7, "java", 0, 0, 1.0, ("/lib/libc.so", "/opt/cloudhsm/lib/a.so")),)
    assert memory.processes_mapping("/opt/cloudhsm/") == (
        ProcessInfo(7, "java", 0, 0, 1.0, ("/opt/cloudhsm/lib/a.so",)),
    )
    assert memory.processes_mapping("/opt/other/") == ()


def test_room_is_that_of_the_nearest_parent(ground: Ground) -> None:
    here = ground.host.disk_space(ground.folder)
    assert here.free > 0
    assert here.writable
    assert here.inodes is None or here.inodes > 0
    assert here.executable
    assert ground.host.disk_space(ground.path("no/such/folder")).writable


def test_time_passes_and_is_in_utc(ground: Ground) -> None:
    wall, start = ground.host.now(), ground.host.monotonic()
    ground.host.sleep(0.05)
    assert ground.host.now().utcoffset() == dt.timedelta(0)
    assert ground.host.now() - wall >= dt.timedelta(seconds=0.04)
    assert ground.host.monotonic() - start >= 0.05
    if ground.memory is None:
        assert abs(wall - dt.datetime.now(dt.timezone.utc)) < dt.timedelta(seconds=30)


def test_a_host_knows_its_name_and_its_rights(ground: Ground) -> None:
    assert ground.host.name
    assert WINDOWS or ground.host.is_root() is (os.geteuid() == 0)


@is_root
def test_a_user_is_not_root(as_nobody: Ground) -> None:
    assert as_nobody.host.is_root() is False


# --- the dry host


def test_a_dry_host_looks_and_never_touches(ground: Ground) -> None:
    path = ground.file("file", b"old")
    dry: Host = ReadOnlyHost(ground.host)
    assert dry.read(path) == b"old"
    assert dry.list_dir(ground.folder) == ("file",)
    assert dry.readlink(path) is None
    for touch in (
        lambda: dry.write(path, b"new", mode=0o644),
        lambda: dry.symlink(path, "elsewhere"),
        lambda: dry.chmod(path, 0o777),
        lambda: dry.remove(path),
        lambda: dry.run(("rm", path), timeout=1),
        lambda: dry.lock(path, "configure"),
        lambda: dry.download("/etc/passwd", path, sha256=None, limit=READ_LIMIT, timeout=1),
    ):
        with pytest.raises(WriteForbidden):
            touch()
    assert ground.host.read(path) == b"old"
    assert ground.memory is None or ground.memory.touches == []


@posix_only
def test_a_program_that_does_not_even_end_when_it_is_told_to_gets_no_more_time_than_it_had() -> None:
    began = time.monotonic()
    done = local_host().run(("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"), timeout=0.5)
    assert done.timed_out
    assert time.monotonic() - began < 5  # ten seconds is what an installation gets to end


@posix_only
def test_the_kernel_lists_the_lock_of_a_run_until_it_ends(tmp_path: Path) -> None:
    memory = Memory()
    memory.place(memory.system.lock, b"hsm-agent configure, run 2026 (pid 812)\n")
    memory.place("/proc/812/cmdline", b"hsm-agent\0configure\0")
    for run in (local_host().lock(str(tmp_path / "lock"), "hsm-agent configure, run 2026"), nullcontext()):
        with run:
            locks = local_host().read("/proc/locks") or b""
        memory.place("/proc/locks", locks.replace(f" {os.getpid()} ".encode(), b" 812 "))
        assert (current_run(memory) is None) is isinstance(run, nullcontext)
