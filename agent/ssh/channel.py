"""One command over a connection: its input and both outputs at once, and its status at the end."""

from __future__ import annotations

import collections
import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import paramiko

from agent.core.errors import AgentError
from agent.core.transport import ConnectionLostError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

    from agent.ssh.sockets import SocketCancelToken

# How much of the end of standard error is kept, in bytes.
_ERRORS = 64 * 1024
# How much is read at once, and how much output is buffered while input is being sent, in bytes.
_CHUNK, _BUFFER = 256 * 1024, 16 * 1024 * 1024
# How long a command may be silent, in seconds; the cancel token is the shorter bound.
SILENCE = 3600.0
# How long one attempt to send may wait for the peer's window, in seconds, before both outputs are drained.
_TURN = 0.1
# How long the status of an ended command may take, and paramiko to notice a lost connection, in seconds.
_STATUS, _SETTLE = 30.0, 0.5

# What helps where the login succeeded: `ssh -v` and the network are not at fault.
HUNG = "the login succeeded: look at the host's load and disks, and at what the shell of this user starts"
_REFUSED = (
    "look for a forced command in its sshd_config and in authorized_keys, and at the shell of this user"
)

_BROKEN = (paramiko.SSHException, OSError, EOFError, ValueError, LookupError, struct.error)


class OutputTail:
    """The last bytes of an output, however long it is."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data
        del self._kept[:-_ERRORS]

    def text(self) -> bytes:
        return bytes(self._kept)


class SshChannel:
    """A command with its channel. One thread does everything, so neither output can fill up while another is read."""

    def __init__(
        self,
        channel: paramiko.Channel,
        command: str,
        cancel_token: SocketCancelToken,
        patience: float,
    ) -> None:
        self._channel = channel
        self._cancel_token = cancel_token
        self._errors = OutputTail()
        self._buffered: collections.deque[bytes] = collections.deque()
        self._buffered_size = 0
        self._arrived = threading.Event()
        # paramiko waits without limit for the answer to `exec`
        spelled = command.encode(errors="surrogateescape")  # names of files need not be text
        late = threading.Event()

        def give_up() -> None:
            late.set()
            channel.close()

        limit = threading.Timer(patience, give_up)
        limit.start()
        try:
            channel.exec_command(spelled)
        except _BROKEN as error:
            cancel_token.raise_if_cancelled()
            channel.close()
            if late.is_set():
                raise AgentError(
                    "ssh-timed-out",
                    "the host does not start the command",
                    saw=f"no answer in {patience:g} s",
                    hint=HUNG,
                ) from None
            if not self._is_lost():
                raise AgentError(
                    "ssh-failed", "the host runs no commands over SSH", saw=str(error), hint=_REFUSED
                ) from None
            raise ConnectionLostError(str(error) or type(error).__name__) from None
        finally:
            limit.cancel()
            limit.join()
        # one event for both outputs, so that one wait is enough
        channel.in_buffer.set_event(self._arrived)
        channel.in_stderr_buffer.set_event(self._arrived)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes, *, timeout: float = SILENCE) -> None:
        """Send to the command's input. Its output meanwhile is kept for `receive`.

        Input that the command no longer reads is dropped.
        """
        rest = memoryview(data)
        last = time.monotonic()
        while rest:
            self._cancel_token.raise_if_cancelled()
            self._drain_errors()
            while self._buffered_size < _BUFFER and self._channel.recv_ready():
                self._keep(self._take())
            self._channel.settimeout(_TURN)
            try:
                sent = self._channel.send(bytes(rest[:_CHUNK]))
            except socket.timeout:
                self._check_silence(last, timeout, "does not read its input")
                continue
            except _BROKEN as error:
                if self._channel.closed and not self._is_lost():
                    return
                self._cancel_token.raise_if_cancelled()
                raise ConnectionLostError(str(error) or type(error).__name__) from None
            if not sent:
                if self._is_lost():
                    raise ConnectionLostError("the connection ended while data was being sent")
                return
            rest = rest[sent:]
            last = time.monotonic()

    def close_stdin(self) -> None:
        """Close the input of the command."""
        with self._connection_errors():
            self._channel.shutdown_write()

    def receive(self, *, timeout: float = SILENCE) -> bytes:
        """Return the next piece of standard output, b"" at its end.

        Raises ConnectionLostError, CancelledError and AgentError.
        """
        if self._buffered:
            data = self._buffered.popleft()
            self._buffered_size -= len(data)
            return data
        last = time.monotonic()
        while True:
            self._cancel_token.raise_if_cancelled()
            if self._drain_errors():
                last = time.monotonic()
            if self._channel.recv_ready() or self._channel.eof_received or self._channel.closed:
                return self._take() or self._end()
            self._check_silence(last, timeout, "says nothing")
            self._arrived.wait(max(0.0, min(timeout - (time.monotonic() - last), 60.0)))

    def status(self, *, timeout: float = _STATUS) -> int | None:
        """Return the command's exit status, None when there was none (death by a signal)."""
        if not self._channel.status_event.wait(timeout):
            raise AgentError(
                "ssh-timed-out",
                "the command over SSH does not end",
                saw=f"no status in {timeout:g} s",
                hint=HUNG,
            )
        self._cancel_token.raise_if_cancelled()
        status = self._channel.exit_status
        if status != -1:
            return status
        if self._is_lost():
            raise ConnectionLostError("the connection ended before the command's status came")
        return None

    def errors(self) -> bytes:
        """Return what is kept of standard error so far: the last 64 kB."""
        self._drain_errors()
        return self._errors.text()

    def close(self) -> None:
        with contextlib.suppress(*_BROKEN):
            self._channel.close()

    def _take(self) -> bytes:
        self._channel.settimeout(0.0)
        with self._connection_errors():
            return self._channel.recv(_CHUNK)

    def _keep(self, data: bytes) -> None:
        self._buffered.append(data)
        self._buffered_size += len(data)

    def _drain_errors(self) -> bool:
        """Read what has arrived on standard error; return whether that was anything."""
        found = False
        while self._channel.recv_stderr_ready():
            self._channel.settimeout(0.0)
            with self._connection_errors():
                self._errors.add(self._channel.recv_stderr(_CHUNK))
            found = True
        return found

    def _end(self) -> bytes:
        """Return the end of the output, or raise for that of the connection: a server announces only the first."""
        self._drain_errors()
        if not self._channel.eof_received and self._channel.exit_status == -1:
            self._cancel_token.raise_if_cancelled()
            raise ConnectionLostError("the connection ended in the middle of the output")
        return b""

    def _is_lost(self) -> bool:
        """Return whether the connection is lost. paramiko closes its channels a moment before it says so."""
        self._cancel_token.raise_if_cancelled()
        transport = self._channel.get_transport()
        if self._channel.closed:
            transport.join(_SETTLE)
        return not transport.is_active()

    def _check_silence(self, since: float, timeout: float, what: str) -> None:
        if time.monotonic() - since >= timeout:
            raise AgentError(
                "ssh-timed-out", f"the command over SSH {what}", saw=f"for {timeout:g} s", hint=HUNG
            )

    @contextlib.contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            self._cancel_token.raise_if_cancelled()
            raise ConnectionLostError(str(error) or type(error).__name__) from None
