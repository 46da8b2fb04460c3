"""One child process of Windows: in a job of its own, drained without blocking, and ended with all its descendants."""

# ruff: noqa: PTH113
# (names are strings in the Host interface)

from __future__ import annotations

import contextlib
import ntpath
import os
import re
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING

from agent.core.host import CommandResult
from agent.core.utf16 import text_of
from agent.hosts.processes import EDGE, HeadTailBuffer, Stopped
from agent.hosts.windows import win32

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# How often the clock and an interrupt are checked, in seconds; a child's end wakes at once.
_TURN = 0.02
# A pipe holds far less than this, so an ended program cannot leave more in it.
_REST = 1024 * 1024
# How long the processes of an ended job may take to disappear.
_REAP = 5.0
_ENDED = 1
_SUSPENDED = 0x4
# The variables that a program of Windows needs; it gets nothing else of the agent's environment.
_KEPT = (
    "ALLUSERSPROFILE", "APPDATA", "COMMONPROGRAMFILES", "COMMONPROGRAMFILES(X86)", "COMMONPROGRAMW6432",
    "COMPUTERNAME", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "NUMBER_OF_PROCESSORS", "OS", "PATHEXT",
    "PROCESSOR_ARCHITECTURE", "PROGRAMDATA", "PROGRAMFILES", "PROGRAMFILES(X86)", "PROGRAMW6432", "PUBLIC",
    "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERDOMAIN", "USERNAME", "USERPROFILE", "WINDIR",
    "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
)  # fmt: skip
_LEFT_OUT = re.compile(rb"(\n\[\d+ bytes left out\]\n)")
_FOLDERS = ("System32", "", r"System32\Wbem", r"System32\WindowsPowerShell\v1.0", r"System32\OpenSSH")


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program: the variables that Windows needs, and a PATH that no user can write to."""
    upper = {name.upper(): value for name, value in environ.items()}
    kept = {name: upper[name] for name in _KEPT if name in upper}
    kept["PATH"] = ";".join(_search(upper))
    return kept


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: float,
    stdin: bytes = b"",
    stopped: Callable[[], bool] = lambda: False,
) -> CommandResult:
    """Run a program to its end. The whole job is ended when the time is up, or when `stopped` is true: then Stopped.

    The end is never polite: a program without a window or a console receives no request. Its input comes from a
    file, so that a program that does not read cannot block the agent.
    """
    program = find(argv[0], env)
    if program is None:
        return CommandResult(127, "", f"{argv[0]}: there is no such program\n")
    if program.lower().endswith((".bat", ".cmd")):
        # cmd.exe would read the arguments as commands
        return CommandResult(126, "", f"{argv[0]}: a batch file is no program\n")
    try:
        with _input_file(stdin) as input_file, contextlib.closing(win32.Job()) as job:
            return _run_in(job, argv, program, env, input_file, time.monotonic() + timeout, stopped)
    except OSError as error:
        return CommandResult(126, "", f"{argv[0]}: {error.strerror or error}\n")


def find(program: str, env: Mapping[str, str]) -> str | None:
    """Return the file of a program: a path as it is, a bare name from the folders of Windows and from no other."""
    if "\\" in program or "/" in program:
        found = [program, f"{program}.exe"]
    else:
        names = [program] if ntpath.splitext(program)[1] else [f"{program}.exe"]
        found = [ntpath.join(folder, name) for folder in _search(env) for name in names]
    return next((path for path in found if os.path.isfile(path)), None)


@contextlib.contextmanager
def _input_file(stdin: bytes) -> Iterator[IO[bytes] | int]:
    """Yield the input of a program."""
    if not stdin:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(stdin)
        file.seek(0)
        yield file


def _run_in(
    job: win32.Job,
    argv: Sequence[str],
    program: str,
    env: Mapping[str, str],
    input_file: IO[bytes] | int,
    deadline: float,
    stopped: Callable[[], bool],
) -> CommandResult:
    # not as a context manager: that would wait for ever for a program that cannot be ended
    child = subprocess.Popen(
        argv, executable=program, stdin=input_file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        env=dict(env), cwd=env.get("SYSTEMROOT"),
        creationflags=subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP | _SUSPENDED,
    )  # fmt: skip
    pipes = _WindowsPipes(child)
    try:
        job.take(int(child._handle))  # type: ignore[attr-defined]  # noqa: SLF001 -- the way it is named
        return _watch(child, job, pipes, deadline, stopped)
    finally:
        if child.poll() is None:
            _end(child, job, pipes)
        pipes.close()


def _watch(
    child: subprocess.Popen[bytes],
    job: win32.Job,
    pipes: _WindowsPipes,
    deadline: float,
    stopped: Callable[[], bool],
) -> CommandResult:
    while child.poll() is None:
        left = deadline - time.monotonic()
        if left <= 0 or stopped():
            _end(child, job, pipes)
            if left <= 0:
                return CommandResult(None, *pipes.output())
            raise Stopped
        if not pipes.poll():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(min(_TURN, left))
    pipes.drain()
    return CommandResult(child.returncode, *pipes.output())


def _end(child: subprocess.Popen[bytes], job: win32.Job, pipes: _WindowsPipes) -> None:
    with contextlib.suppress(OSError):
        job.end(_ENDED)
    with contextlib.suppress(OSError):
        child.kill()  # if it was never put into the job
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_REAP)
    pipes.drain()


class _WindowsPipes:
    """Both outputs of a child, read only when bytes are available."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._streams: list[tuple[IO[bytes], HeadTailBuffer]] = []
        self._out, self._err = HeadTailBuffer(EDGE), HeadTailBuffer(EDGE)
        for stream, buffer in ((child.stdout, self._out), (child.stderr, self._err)):
            if stream is not None:
                self._streams.append((stream, buffer))

    def poll(self) -> int:
        """Read what is available, and return how many bytes that was."""
        taken = 0
        for stream, buffer in list(self._streams):
            available = win32.bytes_available(stream.fileno())
            if available is None:
                self._streams.remove((stream, buffer))
                stream.close()
            elif available:
                data = os.read(stream.fileno(), min(available, 65536))
                buffer.add(data)
                taken += len(data)
        return taken

    def drain(self) -> None:
        """Read what an ended program left, without waiting for other processes that hold its pipes."""
        taken = 0
        while taken < _REST:
            received = self.poll()
            if not received:
                return
            taken += received

    def output(self) -> tuple[str, str]:
        return _text(self._out.text()), _text(self._err.text())

    def close(self) -> None:
        for stream, _ in self._streams:
            stream.close()
        self._streams.clear()


def _search(env: Mapping[str, str]) -> list[str]:
    root = env.get("SYSTEMROOT", r"C:\Windows")
    return [ntpath.join(root, folder).rstrip("\\") for folder in _FOLDERS]


def _text(output: bytes) -> str:
    """Return an output as text, by default in the code page of the console; lines end with a newline."""
    pieces = _LEFT_OUT.split(output)  # the cut can split a character of two bytes
    return "".join(text_of(piece, "oem") for piece in pieces).replace("\r\n", "\n")
