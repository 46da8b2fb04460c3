"""What a Host promises where Windows differs: runs on Windows alone, for the tests inside Wine (see tests/windows)."""

from __future__ import annotations

import ctypes
import hashlib
import ntpath
import os
import re
import ssl
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from agent.core.errors import AgentError
from agent.core.host import READ_LIMIT, CommandResult, LockHolder, ProcessInfo
from agent.hosts.allowlist import CommandNotAllowed
from tests.contract.grounds import Ground, cause_of, ground_of, python, raises, silent_server

assert sys.platform == "win32"

import winreg  # noqa: E402

from agent.hosts import processes  # noqa: E402
from agent.hosts.windows import acl, paths, win32  # noqa: E402
from agent.hosts.windows.files import Files  # noqa: E402
from agent.hosts.windows.host import Windows  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

# long enough to be noticed, and no program lets go meanwhile
SHORT = 0.2
# how long something may take on a busy machine that takes no time on another
WAIT = 100.0


@pytest.fixture
def ground() -> Iterator[Ground]:
    with ground_of("windows") as made:
        yield made


def run(program: str, *words: str, timeout: float = 120, stdin: bytes = b"") -> CommandResult:
    return Windows().run((sys.executable, "-c", program, *words), timeout=timeout, stdin=stdin)


# --- the agent's own folder


def test_the_user_of_this_process_is_known() -> None:
    assert re.fullmatch(r"S-1-5-21(-\d+){4}|S-1-5-18", win32.user())


def test_a_folder_that_others_may_write_to_is_not_taken_for_our_own(ground: Ground) -> None:
    theirs = r"Z:\scratch"  # of another user, and open to all
    assert ground.host.stat(theirs).mode == 0o777  # type: ignore[union-attr]
    code, saw = cause_of(lambda: ground.host.lock(rf"{theirs}\lock", "configure").__enter__())
    assert code == "write-failed"
    assert saw.startswith("a directory that others may write to: ")
    ours = ground.path("ours")
    with ground.host.lock(f"{ours}/lock", "configure"):
        assert ground.host.stat(ours).mode == 0o711  # type: ignore[union-attr]


def test_the_folders_above_count_down_from_the_one_of_all_programs(ground: Ground) -> None:
    machine = Windows()
    with machine.lock(machine.system.lock, "configure"):
        assert machine.stat(ntpath.dirname(machine.system.state)).mode == 0o711  # type: ignore[union-attr]
    root = ground.path("root")
    below = ntpath.join(root, "ours", "state")
    files = Files()
    files.require_own(below, f"{root}\\")
    files.require_own(below, root)
    theirs = r"Z:\scratch"
    with raises("write-failed"):
        files.require_own(rf"{theirs}\state", "Z:")
    assert not os.path.lexists(rf"{theirs}\state")


# --- what it trusts


@contextmanager
def trusted(certificate: bytes) -> Iterator[None]:
    """A store of Windows has one more, for the time being; to the one of roots Wine adds nothing."""
    crypt32 = ctypes.WinDLL("crypt32", use_last_error=True)
    crypt32.CertOpenStore.restype = ctypes.c_void_p
    crypt32.CertOpenStore.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_wchar_p,
    ]  # fmt: skip
    add = crypt32.CertAddEncodedCertificateToStore
    add.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.POINTER(ctypes.c_void_p),
    ]  # fmt: skip
    system, of_the_user, replace_existing, der = 10, 0x10000, 3, 1
    store = crypt32.CertOpenStore(system, 0, None, of_the_user, "CA")
    assert store, ctypes.WinError(ctypes.get_last_error())
    context = ctypes.c_void_p()
    assert add(store, der, certificate, len(certificate), replace_existing, ctypes.byref(context))
    commit = 3
    crypt32.CertControlStore.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p]
    assert crypt32.CertControlStore(store, 0, commit, None)
    try:
        yield
    finally:
        crypt32.CertDeleteCertificateFromStore.argtypes = [ctypes.c_void_p]
        assert crypt32.CertDeleteCertificateFromStore(context)
        crypt32.CertCloseStore.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        crypt32.CertCloseStore(store, 0)


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "9")
        self.end_headers()
        self.wfile.write(b"an answer")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_root_in_the_store_of_windows_is_trusted(ground: Ground) -> None:
    pem = Path(os.environ["HSM_AGENT_TEST_CERTIFICATE"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"https://127.0.0.1:{server.server_port}/x"
    try:
        code, saw = cause_of(lambda: Windows(environ={}).http_get(url, limit=100, timeout=WAIT))
        assert (code, saw) == ("download-failed", "the server's certificate: self-signed certificate")
        with trusted(ssl.PEM_cert_to_DER_cert(Path(f"{pem}.crt").read_text(encoding="ascii"))):
            assert Windows(environ={}).http_get(url, limit=100, timeout=WAIT) == b"an answer"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- files


def test_a_file_that_is_open_is_replaced_once_it_is_closed(ground: Ground) -> None:
    path = ground.file("file", b"old")
    file = Path(path).open("rb")  # noqa: SIM115 -- the timer closes it
    timer = threading.Timer(SHORT, file.close)
    timer.start()
    ground.host.write(path, b"new", mode=0o644)
    timer.join()
    assert ground.host.read(path) == b"new"


def test_a_file_that_stays_open_is_told_and_stays_as_it_was(ground: Ground) -> None:
    path = ground.file("file", b"old")
    with Path(path).open("rb"):
        for touch in (
            lambda: Windows(patience=SHORT).write(path, b"new", mode=0o644),
            lambda: Windows(patience=SHORT).remove(path),
        ):
            code, saw = cause_of(touch)
            assert (code, path in saw, "Windows error" in saw) == ("write-failed", True, True)
    assert (ground.host.read(path), ground.host.list_dir(ground.folder)) == (b"old", ("file",))


def test_our_own_reading_keeps_nobody_out(ground: Ground) -> None:
    path = ground.file("file", b"old")
    with os.fdopen(win32.open_file(path), "rb") as file:
        Path(path).unlink()
        assert file.read() == b"old"


def test_a_read_only_file_is_replaced_and_one_in_use_keeps_its_mark(ground: Ground) -> None:
    path = ground.file("file", b"old")
    Path(path).chmod(stat.S_IREAD)
    with Path(path).open("rb"), raises("write-failed"):
        Windows(patience=SHORT).write(path, b"new", mode=0o644)
    assert not Path(path).stat().st_mode & stat.S_IWRITE
    ground.host.write(path, b"new", mode=0o644)
    assert ground.host.read(path) == b"new"
    assert Path(path).stat().st_mode & stat.S_IWRITE


def test_what_can_never_be_is_not_waited_for(ground: Ground) -> None:
    patient = Windows(patience=60)
    start = time.monotonic()
    with raises("write-failed"):
        patient.write(ground.directory("folder"), b"x", mode=0o644)
    with raises("write-failed"):
        patient.write(ground.file("file") + "/below", b"x", mode=0o644)
    assert time.monotonic() - start < 10


def test_a_mode_is_an_access_control_list(ground: Ground) -> None:
    secret, public = ground.path("secret"), ground.path("public")
    ground.host.write(secret, b"x", mode=0o600)
    ground.host.write(public, b"x", mode=0o644)
    assert [ground.host.stat(path).mode for path in (secret, public)] == [0o600, 0o644]  # type: ignore[union-attr]
    assert ";WD)" not in win32.security(secret)
    assert ";WD)" in win32.security(public)


def test_a_mode_or_an_owner_without_a_counterpart_is_refused(ground: Ground) -> None:
    path = ground.path("file")
    for mode in (0o640, 0o400, 0o4755):
        assert cause_of(lambda mode=mode: ground.host.write(path, b"x", mode=mode))[0] == "write-failed"  # type: ignore[misc]
    with raises("write-failed"):
        ground.host.write(path, b"x", mode=0o600, owner=(0, 0))
    assert ground.host.list_dir(ground.folder) == ()


def test_what_stat_tells_can_be_given_back(ground: Ground) -> None:
    path = ground.path("file")
    ground.host.write(path, b"x", mode=0o600)
    seen = ground.host.stat(path)
    assert seen is not None
    ground.host.write(path, b"y", mode=seen.mode, owner=(seen.uid, seen.gid))
    assert ground.host.read(path) == b"y"


def test_stat_tells_the_kind(ground: Ground) -> None:
    seen = ground.host.stat(ground.file("file", b"123"))
    assert seen is not None
    assert (seen.kind, seen.size, abs(seen.mtime - time.time()) < 30) == ("file", 3, True)
    folder = ground.host.stat(ground.directory("folder"))
    assert folder is not None
    assert folder.kind == "directory"


def test_a_path_may_be_long_and_hold_blanks_and_any_letter(ground: Ground) -> None:
    path = ground.path("/".join(["Program Files ü 漢字 " + "x" * 40 + "y"] * 6) + "/a file.cfg")
    assert len(path) > 350
    ground.host.write(path, b"text", mode=0o600)
    assert ground.host.read(path.replace("/", "\\")) == b"text"
    assert ground.host.list_dir(os.path.dirname(path)) == ("a file.cfg",)  # noqa: PTH120
    with ground.host.lock(path + ".lock", "configure"):
        pass
    assert ground.host.disk_space(path).free > 0
    ground.host.remove(ground.path("Program Files ü 漢字 " + "x" * 40 + "y"))
    assert ground.host.list_dir(ground.folder) == ()


@pytest.mark.parametrize("name", ["NUL", "con.txt", "COM1", "a:stream", "a?b", "dot.", "blank ", "a\0b"])
def test_a_name_that_means_something_else_is_refused(ground: Ground, name: str) -> None:
    path = ground.path(name)
    for look in (ground.host.read, ground.host.stat, ground.host.list_dir):
        with raises("unreadable"):
            look(path)
    with raises("write-failed"):
        ground.host.write(path, b"x", mode=0o644)
    with raises("write-failed"):
        ground.host.remove(path)
    assert ground.host.list_dir(ground.folder) == ()


def test_a_device_or_a_folder_is_no_file(ground: Ground) -> None:
    for path in (r"\\.\NUL", r"\\.\PhysicalDrive0", "CON", ground.directory("folder")):
        with raises("unreadable"):
            ground.host.read(path)


def test_a_drive_is_never_removed(ground: Ground) -> None:
    for path in ("C:", "C:\\", "C:/", "\\\\?\\C:\\", "/", "//", ""):
        with raises("write-failed"):
            ground.host.remove(path)
    assert ground.host.list_dir("C:\\")


def test_read_only_files_are_removed_with_their_folder(ground: Ground) -> None:
    for name in ("tree/a/b", "tree/c"):
        Path(ground.file(name)).chmod(stat.S_IREAD)
    ground.host.remove(ground.path("tree"))
    assert ground.host.list_dir(ground.folder) == ()


def test_names_know_no_case(ground: Ground) -> None:
    path = ground.file("Customer.crt", b"x")
    assert ground.host.read(path.upper()) == b"x"
    with ground.host.lock(ground.path("lock"), "configure"), raises("run-locked"):
        ground.host.lock(ground.path("LOCK").replace("/", "\\"), "verify").__enter__()


# --- programs


def test_an_exit_status_is_whole() -> None:
    assert run("import sys; sys.exit(3010)").status == 3010


def test_a_program_gets_its_words_and_its_input() -> None:
    words = ("a b", 'q"uote', "tr\\", "", "ü", "%PATH%")
    assert run("import sys; print(ascii(sys.argv[1:]))", *words).out == f"{list(words)!a}\n"
    data = os.urandom(700_000)
    told = run("import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())", stdin=data)
    assert told.out.strip() == hashlib.sha256(data).hexdigest()
    assert run("pass", stdin=data).ok
    assert run("import sys; print(sys.stdin.buffer.read())").out == "b''\n"


def test_lines_end_alike_and_no_text_does_no_harm() -> None:
    said = run(r"import sys; sys.stdout.buffer.write(b'a\r\nb\xff\n'); sys.stderr.write('c\n')")
    assert said.out.startswith("a\nb")
    assert said.out.endswith("\n")
    assert said.err == "c\n"


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-8-sig", "oem"])
def test_what_is_said_in_utf_16_is_read(coding: str) -> None:
    said = run(f"import sys; sys.stderr.buffer.write('Zugriff für x verweigert\\r\\n'.encode({coding!r}))")
    assert (said.out, said.err) == ("", "Zugriff für x verweigert\n")
    # more than is kept, and cut in the midst of a letter
    long = run(
        f"import sys; sys.stdout.buffer.write(('abc ' * 400_000 + 'x\\r\\n').encode({coding!r})[:-1])"
    ).out
    assert "bytes left out" in long
    assert "\0" not in long
    assert long.startswith("abc abc")


def test_a_program_sees_a_plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    seen = run("import os; print(sorted(os.environ)); print(os.environ['PATH']); print(os.getcwd())").out
    names, path, folder = seen.splitlines()
    assert "'SYSTEMROOT'" in names
    assert "'PROGRAMDATA'" in names
    assert "SECRET" not in names
    root = os.environ["SYSTEMROOT"].lower()
    assert {each.lower().startswith(root) for each in path.split(";")} == {True}
    assert folder.lower() == root


def test_a_program_is_looked_for_where_no_user_can_write(ground: Ground) -> None:
    planted = ground.file("planted.exe", Path(sys.executable).read_bytes()[:100])
    was = Path.cwd()
    os.chdir(ground.folder)
    try:
        assert ground.host.run(("planted", "x"), timeout=10).status == 127
        assert ground.host.run((planted,), timeout=10).status == 126
        assert ground.host.run(("cmd", "/c", "exit", "5"), timeout=10).status == 5
    finally:
        os.chdir(was)


def test_a_batch_file_is_no_program(ground: Ground) -> None:
    batch = ground.file("tool.BAT", f"echo x >{ground.path('mark')}\r\n".encode())
    assert ground.host.run((batch, "&calc"), timeout=10).status == 126
    assert ground.host.list_dir(ground.folder) == ("tool.BAT",)


def test_both_outputs_may_be_large() -> None:
    done = run("import os\nfor fd in (1, 2): os.write(fd, b'x' * 3_000_000); os.write(fd, b'end')")
    for said in (done.out, done.err):
        assert said.endswith("xend")
        assert "bytes left out]" in said
        assert len(said) < 2 * processes.EDGE + 100
    assert done.ok


def test_endless_output_is_ended_with_its_program() -> None:
    done = run("import os\nwhile True: os.write(1, b'x' * 10000)", timeout=1)
    assert done.timed_out
    assert len(done.out) < 2 * processes.EDGE + 100


# says who it is, starts one that waits for the same connection to end, and waits itself
TREE = """
import os, socket, subprocess, sys
port, depth = int(sys.argv[1]), int(sys.argv[2])
if depth:
    subprocess.Popen([sys.executable, "-c", sys.argv[3], str(port), str(depth - 1), sys.argv[3]])
with socket.create_connection(("127.0.0.1", port)) as line:
    line.sendall(b"%d " % os.getpid())
    if len(sys.argv) > 4:
        line.recv(1)
        os._exit(4)
    line.recv(100)
"""


@contextmanager
def tree(count: int) -> Iterator[tuple[int, list[psutil.Process], threading.Event]]:
    """A port to which `count` processes connect; they are told, once all are there, and until the block ends."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(count)
        members: list[psutil.Process] = []
        lines: list[socket.socket] = []
        complete = threading.Event()

        def gather() -> None:
            for _ in range(count):
                line, _ = listener.accept()
                lines.append(line)
                members.append(psutil.Process(int(line.recv(20))))
            complete.set()

        thread = threading.Thread(target=gather)
        thread.start()
        try:
            yield listener.getsockname()[1], members, complete
        finally:
            thread.join(WAIT)
            for line in lines:
                line.close()


def test_a_program_that_takes_too_long_is_ended_with_all_its_children() -> None:
    with tree(3) as (port, members, complete):
        ended: list[CommandResult] = []
        stop = threading.Event()
        words = (sys.executable, "-c", TREE, str(port), "2", TREE)

        def act() -> None:
            with pytest.raises(Exception, match="ended by the test"):
                _run_until(stop, words)
            ended.append(CommandResult(None, "", ""))

        thread = threading.Thread(target=act)
        thread.start()
        assert complete.wait(WAIT)
        stop.set()
        thread.join(WAIT)
        assert ended
        gone, alive = psutil.wait_procs(members, timeout=WAIT)
        assert (len(gone), alive) == (3, [])


def _run_until(stop: threading.Event, words: tuple[str, ...]) -> None:
    from agent.hosts.windows import processes as windows

    try:
        windows.run(words, env=windows.environment(os.environ), timeout=60, stopped=stop.is_set)
    except processes.Stopped:
        raise RuntimeError("ended by the test") from None


def test_the_clock_ends_a_program() -> None:
    start = time.monotonic()
    done = run("import sys, threading; print('begun', flush=True); threading.Event().wait(60)", timeout=2)
    assert done.timed_out
    assert done.out in ("begun\n", "")  # a busy machine may not have started it in that time
    assert time.monotonic() - start < WAIT


def test_what_a_program_leaves_behind_is_not_waited_for() -> None:
    """And goes on: a service that an installer started must not end with the installer."""
    with tree(1) as (port, members, complete):
        program = (
            "import subprocess, sys\n"
            "subprocess.Popen([sys.executable, '-c', sys.argv[1], sys.argv[2], '0', ''])\n"
            "print('out', flush=True); sys.exit(4)"
        )
        start = time.monotonic()
        assert run(program, TREE, str(port)) == CommandResult(4, "out\n", "")
        assert time.monotonic() - start < WAIT
        assert complete.wait(WAIT)
        assert members[0].is_running()


def test_a_child_does_not_inherit_the_run_lock(ground: Ground) -> None:
    path = ground.path("lock")
    with tree(1) as (port, _, complete):
        with ground.host.lock(path, "configure"):
            program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])"
            assert run(program, TREE, str(port), "0", "").ok
        assert complete.wait(WAIT)
        with ground.host.lock(path, "verify"):
            pass


def test_ask_runs_what_only_looks_and_comes_from_the_system(ground: Ground) -> None:
    done = ground.host.query(("tasklist", "/fi", f"PID eq {os.getpid()}", "/fo", "csv", "/nh"), timeout=30)
    assert done.ok
    assert ground.host.query(("sc", "query", "nobody-has-this"), timeout=30).status == 1060
    for argv in (
        ("reg", "query", CURRENT),
        ("sc", "query", "x", "&", "calc"),
        (ground.path("sc"), "query", "x"),
        ("sc", "stop", "Spooler"),
        ("cmd", "/c", "ver"),
    ):
        with pytest.raises(CommandNotAllowed):
            ground.host.query(argv, timeout=1)


# --- the registry

CURRENT = r"HKLM\Software\Microsoft\Windows NT\CurrentVersion"
PLACE = r"SOFTWARE\hsm-agent-test"


@pytest.fixture
def planted() -> Iterator[winreg.HKEYType]:
    """A key of our own in the 64-bit part, empty."""
    rights = winreg.KEY_ALL_ACCESS | winreg.KEY_WOW64_64KEY
    with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, PLACE, access=rights) as key:
        yield key
        while winreg.QueryInfoKey(key)[0]:
            winreg.DeleteKey(key, winreg.EnumKey(key, 0))
    winreg.DeleteKeyEx(winreg.HKEY_LOCAL_MACHINE, PLACE, winreg.KEY_WOW64_64KEY)


def test_a_key_is_read_with_its_values_and_subkeys(ground: Ground, planted: winreg.HKEYType) -> None:
    for name, kind, value in (
        ("Text", winreg.REG_SZ, "ü日"), ("", winreg.REG_SZ, "the nameless"), ("Empty", winreg.REG_SZ, ""),
        ("Path", winreg.REG_EXPAND_SZ, r"%SystemRoot%\x"), ("Several", winreg.REG_MULTI_SZ, ["a", "", "b"]),
        ("Number", winreg.REG_DWORD, 0xFFFFFFFF), ("Large", winreg.REG_QWORD, 1 << 40), ("Zero", winreg.REG_DWORD, 0),
        ("Bytes", winreg.REG_BINARY, b"\0\1"), ("None", winreg.REG_NONE, b""),
    ):  # fmt: skip
        winreg.SetValueEx(planted, name, 0, kind, value)
    for name in ("b", "A"):
        winreg.CreateKey(planted, name).Close()
    found = ground.host.registry(rf"HKLM\{PLACE}")
    assert found is not None
    assert found.values == {
        "Text": "ü日", "": "the nameless", "Empty": "", "Path": r"%SystemRoot%\x", "Several": ("a", "", "b"),
        "Number": 0xFFFFFFFF, "Large": 1 << 40, "Zero": 0,
    }  # fmt: skip
    assert sorted(found.subkeys) == ["A", "b"]
    assert (found.text("TEXT"), found.number("zero"), found.texts("several")) == ("ü日", 0, ("a", "", "b"))


def test_absence_is_a_value_and_another_root_a_mistake(ground: Ground) -> None:
    assert ground.host.registry(rf"HKLM\{PLACE}\No\nor this") is None
    current = ground.host.registry(CURRENT)
    assert current is not None
    assert current.text("CurrentBuildNumber").isdigit()
    for key in ("HKCU\\Software", r"\\other\HKLM\Software", "HKLM"):
        with pytest.raises(ValueError, match="below"):
            ground.host.registry(key)


def test_a_long_list_is_read_to_its_end(ground: Ground, planted: winreg.HKEYType) -> None:
    """Over 1 MB, and more subkeys than programs are installed anywhere."""
    for number in range(3_000):
        winreg.SetValueEx(planted, f"{number}", 0, winreg.REG_SZ, "x" * 400)
    for number in range(1_300):
        winreg.CreateKey(planted, f"{number}").Close()
    found = ground.host.registry(rf"HKLM\{PLACE}")
    assert found is not None
    assert (len(found.values), len(found.subkeys)) == (3_000, 1_300)


def test_a_value_that_makes_too_much_is_refused(ground: Ground, planted: winreg.HKEYType) -> None:
    for number in range(5):
        winreg.SetValueEx(planted, f"{number}", 0, winreg.REG_SZ, "x" * 14 * 1024 * 1024)
    with pytest.raises(AgentError) as caught:
        ground.host.registry(rf"HKLM\{PLACE}")
    assert (caught.value.code.name, PLACE in caught.value.sentence) == ("unreadable", True)


# --- interrupts


def test_an_interrupt_ends_every_wait_and_no_touch() -> None:
    stop = threading.Event()
    stop.set()
    machine = Windows(stop)
    with raises("interrupted"):
        machine.sleep(60)
    with silent_server() as port, raises("interrupted"):
        machine.connect("127.0.0.1", port, timeout=30)
    with raises("interrupted"):
        machine.query(("sc", "query", "Spooler"), timeout=30)
    assert machine.run((sys.executable, "-c", "raise SystemExit(3)"), timeout=30).status == 3


# --- locks, processes, downloads

OWN = """
import ctypes, sys
kernel32 = ctypes.WinDLL("kernel32")
kernel32.CreateMutexW.restype = ctypes.c_void_p
assert kernel32.CreateMutexW(None, True, sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def test_whoever_holds_the_words_of_a_lock_open_keeps_nobody_from_it(ground: Ground) -> None:
    path = ground.path("lock")
    with ground.host.lock(path, "configure"):
        pass  # so that the folder is there
    began = time.monotonic()
    with win32.exclusive(f"{path}.holder", acl.descriptor(0o644)), ground.host.lock(path, "configure"):
        code, saw = cause_of(lambda: ground.host.lock(path, "verify").__enter__())
        assert (code, "configure" in saw) == ("run-locked", True)
    assert time.monotonic() - began < 4  # nor does he make it wait
    # what a dead holder left is no lock either
    with ground.host.lock(path, "verify"):
        assert b"verify" in (ground.host.read(path) or b"")


def test_no_name_that_is_everybodys_is_a_lock(ground: Ground) -> None:
    """Mutexes and events share their names with all users: whoever took one first kept every run from beginning."""
    path = ground.path("lock")
    where = paths.full(path, "C:\\").lower()
    taken = f"Global\\hsm-agent-{hashlib.sha256(where.encode()).hexdigest()[:32]}"
    event = ctypes.WinDLL("kernel32").CreateEventW(None, True, False, taken)
    assert event
    with ground.host.lock(path, "configure"):
        pass
    ctypes.WinDLL("kernel32").CloseHandle(event)


def test_the_holder_of_a_mutex_is_seen() -> None:
    name = f"Global\\hsm-agent-test-{os.getpid()}"
    assert Windows().lock_holder(name) is None
    with python(OWN, name) as child:
        assert Windows().lock_holder(name) == LockHolder(0, "")
        assert Windows().lock_holder(name) == LockHolder(0, "")
        child.kill()
        child.wait()
    assert Windows().lock_holder(name) is None
    with pytest.raises(ValueError, match="not the name of a mutex"):
        Windows().lock_holder("C:\\file")


MAP = """
import mmap, sys
file = open(sys.argv[1], "rb")
held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
first = held[0]
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_process_with_the_client_mapped_is_found(ground: Ground) -> None:
    path = ground.file("Lib/client.dll", b"x" * 5000)
    other = ground.file("library/client.dll", b"x" * 5000)
    with python(MAP, path) as child, python(MAP, other):
        (seen,) = ground.host.processes_mapping(ground.path("lib/"))
        assert seen == ProcessInfo(
            child.pid, psutil.Process(child.pid).name(), -1, -1, seen.started, seen.mapped
        )
        assert [each.lower().replace("\\", "/") for each in seen.mapped] == [path.lower().replace("\\", "/")]
        assert abs(seen.started - time.time()) < 60
    assert ground.host.processes_mapping(ground.path("lib/")) == ()


def test_a_host_knows_its_name_and_its_rights() -> None:
    assert Windows().name == os.environ["COMPUTERNAME"]
    assert Windows().is_root() is bool(ctypes.windll.shell32.IsUserAnAdmin())


DATA = os.urandom(300_000)
HASH = hashlib.sha256(DATA).hexdigest()


@contextmanager
def mirror() -> Iterator[tuple[str, list[str]]]:
    """A server that breaks the first connection off in the middle, and notes which ranges it is asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Range", ""))
            start = int(asked[-1][6:-1]) if asked[-1] else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(DATA) - start))
            self.send_header("ETag", '"1"')
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
            self.end_headers()
            self.wfile.write(DATA[start : 200_000 if len(asked) == 1 else None])

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/a.msi", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_download_is_resumed_and_takes_its_name(ground: Ground) -> None:
    path = ground.path("cache/a.msi")
    with mirror() as (url, asked):
        got = ground.host.download(url, path, sha256=HASH, limit=READ_LIMIT, timeout=60)
    assert (got, asked) == (HASH, ["", "bytes=200000-"])
    assert ground.host.read(path) == DATA
    assert ground.host.list_dir(ground.path("cache")) == ("a.msi",)


def test_a_package_may_lie_on_a_drive(ground: Ground) -> None:
    source = ground.file("a b.msi", DATA).replace("/", "\\")
    for url in (source, Path(source).as_uri()):
        goal = ground.path("copy.msi")
        assert ground.host.download(url, goal, sha256=HASH, limit=READ_LIMIT, timeout=60) == HASH
        ground.host.remove(goal)
    with raises("checksum-mismatch"):
        ground.host.download(source, ground.path("copy.msi"), sha256="0" * 64, limit=READ_LIMIT, timeout=60)
    with raises("package-not-found"):
        ground.host.download("C:\\no\\a.msi", ground.path("copy.msi"), sha256=HASH, limit=1, timeout=60)


def test_the_suite_itself_ran_as_wanted() -> None:
    """Nothing of POSIX is loaded on Windows, and this Python really is one of Windows."""
    assert {"agent.hosts.posix", "agent.hosts.files", "fcntl"} & set(sys.modules) == set()
    assert subprocess.list2cmdline(["a b"]) == '"a b"'
