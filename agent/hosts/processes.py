"""One child process: in its own session, drained without blocking, and ended by the clock."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from agent.core.errors import AgentError, is_exhaustion
from agent.core.host import CommandResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# How much of each end of an output is kept: a program that prints endlessly must not eat the memory.
EDGE = 512 * 1024

# How often the clock, an interrupt and the child's end are checked, in seconds.
_TURN = 0.05
# The most that a pipe holds, and so the most that an ended program can leave in it.
_PIPE = 1024 * 1024
# What an installer or a tool of the vendor's writes is for every program on the host, whatever a hardened root's umask.
_UMASK = 0o022
# How long a killed child may take to die; one in uninterruptible sleep (a dead NFS mount) never does.
_REAP = 5.0


@dataclass(frozen=True)
class RawResult:
    """A program that has ended, in bytes. `status` is None when its time ran out, 128 + N after signal N."""

    status: int | None
    out: bytes
    err: bytes

    def decoded(self) -> CommandResult:
        """Return it as text, each output cut to its first and last EDGE bytes."""
        return CommandResult(self.status, _text(self.out), _text(self.err))


class Stopped(Exception):  # noqa: N818 -- an event, not an error
    """The program was ended because `stopped` returned true."""


class HeadTailBuffer:
    """The first and the last bytes of an output, however long it is."""

    def __init__(self, edge: int) -> None:
        self._edge = edge
        self._head = bytearray()
        self._tail = bytearray()
        self._lost = 0

    def add(self, data: bytes) -> None:
        space = self._edge - len(self._head)
        self._head += data[:space]
        self._tail += data[space:]
        surplus = len(self._tail) - self._edge
        if surplus > 0:
            del self._tail[:surplus]
            self._lost += surplus

    def text(self) -> bytes:
        note = f"\n[{self._lost} bytes left out]\n".encode() if self._lost else b""
        return bytes(self._head) + note + bytes(self._tail)


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: float,
    stdin: bytes = b"",
    grace: float = 1.0,
    keep: int = EDGE,
    stopped: Callable[[], bool] = lambda: False,
    folder: str = "/",
) -> RawResult:
    """Run a program until it ends, or until its time is up.

    The end of the program itself counts, not that of its output: a daemon that it leaves behind may hold the pipes.
    After `timeout` the whole process group gets SIGTERM, and `grace` seconds later SIGKILL. Its own session
    protects it from a Ctrl-C in the terminal. A missing program gives 127, one that cannot be run 126.

    Of each output the first and the last `keep` bytes are kept.
    Raises Stopped when `stopped` becomes true; the group is ended first. Raises AgentError `no-resources` when the host
    can start no program at all, which is not the fault of this program.
    """
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            cwd=folder,
            start_new_session=True,
            umask=_UMASK,
            bufsize=0,
        )
    except OSError as error:
        if _is_exhausted(error):
            raise _exhausted(argv[0], error) from error
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return RawResult(127 if missing else 126, b"", f"{argv[0]}: {error.strerror}\n".encode())
    deadline = time.monotonic() + timeout
    try:
        pipes = _Pipes(child, stdin, keep)
    except OSError as error:
        child.kill()
        child.wait()
        raise _exhausted(argv[0], error) from error
    try:
        while not _has_ended(child):
            left = deadline - time.monotonic()
            if left <= 0 or stopped():
                _end(child, pipes, grace)
                if left <= 0:
                    return RawResult(None, *pipes.output())
                raise Stopped
            pipes.poll(min(_TURN, left))
            if not pipes.open:
                # The usual end: both outputs are closed a moment before the program ends.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(min(_TURN, left))
        pipes.drain()
        status = child.wait()
        return RawResult(128 - status if status < 0 else status, *pipes.output())
    finally:
        if child.returncode is None:
            _end(child, pipes, 0)
        pipes.close()


def _is_exhausted(error: OSError) -> bool:
    """Tell whether the host is at its limits, or lacks /dev/null; in both cases the program itself is not missing."""
    return is_exhaustion(error) or error.filename == os.devnull


def _exhausted(program: str, error: OSError) -> AgentError:
    what = f"{error.filename}: {error.strerror}" if error.filename == os.devnull else error.strerror
    return AgentError(
        "no-resources",
        f"{program} could not be started",
        saw=what or type(error).__name__,
        want="a host that can start programs",
    )


class _Pipes:
    """The three streams of a child, read and written without ever blocking."""

    def __init__(self, child: subprocess.Popen[bytes], stdin: bytes, keep: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._pending = memoryview(stdin)
        self._out, self._err = HeadTailBuffer(keep), HeadTailBuffer(keep)
        self._streams: list[IO[bytes]] = []
        for stream, buffer, event in (
            (child.stdin, None, selectors.EVENT_WRITE),
            (child.stdout, self._out, selectors.EVENT_READ),
            (child.stderr, self._err, selectors.EVENT_READ),
        ):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, event, buffer)
                self._streams.append(stream)

    @property
    def open(self) -> bool:
        """Whether an output is still open."""
        return any(key.data is not None for key in self._selector.get_map().values())

    def poll(self, seconds: float) -> int:
        """Wait until a stream is ready, read and write what is possible, and return how many bytes were read."""
        received = 0
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._write_input(key)
            else:
                received += self._read_output(key)
        return received

    def drain(self) -> None:
        """Read what an ended program left in its pipes, without waiting for other processes that hold them."""
        taken = 0
        while self.open and taken < 2 * _PIPE:
            received = self.poll(0)
            if not received and not self._selector.select(0):
                return
            taken += received or 1

    def output(self) -> tuple[bytes, bytes]:
        return self._out.text(), self._err.text()

    def close(self) -> None:
        self._selector.close()
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()

    def _write_input(self, key: selectors.SelectorKey) -> None:
        try:
            self._pending = self._pending[os.write(key.fd, self._pending[:65536]) :]
        except BlockingIOError:
            return
        except OSError:  # the program does not read its input, which is its own decision
            self._pending = self._pending[:0]
        if not self._pending:
            self._finish(key)

    def _read_output(self, key: selectors.SelectorKey) -> int:
        try:
            data = os.read(key.fd, 65536)
        except BlockingIOError:
            return 0
        if not data:
            self._finish(key)
        key.data.add(data)
        return len(data)

    def _finish(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        for stream in self._streams:
            if stream is key.fileobj:
                stream.close()


def _text(output: bytes) -> str:
    cut = HeadTailBuffer(EDGE)
    cut.add(output)
    return cut.text().decode(errors="replace")


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Tell whether the child has ended, and leave it unreaped, so that the number of its group cannot be re-used."""
    if child.returncode is not None:
        return True
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def _end(child: subprocess.Popen[bytes], pipes: _Pipes, grace: float) -> None:
    """Ask the process group to end, then kill it; read its output meanwhile."""
    if child.returncode is not None:
        return
    _signal(child, signal.SIGTERM)
    limit = time.monotonic() + grace
    while time.monotonic() < limit and (pipes.open or not _has_ended(child)):
        pipes.poll(_TURN)
    _signal(child, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_REAP)
    pipes.drain()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
