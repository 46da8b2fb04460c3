"""One command over a link: its input and both its outputs at once, and its status at the end."""

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
# How much is taken at once, and how much may wait here while input is still being sent.
_CHUNK, _WAITING = 256 * 1024, 16 * 1024 * 1024
# The longest silence of a command that is listened to, in seconds; the cancel token is the shorter bound.
SILENCE = 3600.0
# How long one attempt to send may wait for the far side's window, in seconds, before both outputs are drained.
_TURN = 0.1
# How long an ended command's status may take, and a lost link until paramiko knows it, in seconds.
_STATUS, _SETTLE = 30.0, 0.5

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
        self._heard: collections.deque[bytes] = collections.deque()
        self._waiting = 0
        self._bell = threading.Event()
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
                    "ssh-timed-out", "the host does not start the command", saw=f"no answer in {patience:g} s"
                ) from None
            if not self._has_gone():
                raise AgentError("ssh-failed", "the host runs no commands over SSH", saw=str(error)) from None
            raise ConnectionLostError(str(error) or type(error).__name__) from None
        finally:
            limit.cancel()
            limit.join()
        # both ring the same bell: one wait for two outputs
        channel.in_buffer.set_event(self._bell)
        channel.in_stderr_buffer.set_event(self._bell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, data: bytes, *, timeout: float = SILENCE) -> None:
        """Send to the command's input. What it says meanwhile is kept for `receive`.

        Input that the command no longer reads is thrown away, as a closed pipe would do.
        """
        rest = memoryview(data)
        last = time.monotonic()
        while rest:
            self._cancel_token.raise_if_cancelled()
            self._drain_errors()
            while self._waiting < _WAITING and self._channel.recv_ready():
                self._keep(self._take())
            self._channel.settimeout(_TURN)
            try:
                sent = self._channel.send(bytes(rest[:_CHUNK]))
            except socket.timeout:
                self._still(last, timeout, "does not read its input")
                continue
            except _BROKEN as error:
                if self._channel.closed and not self._has_gone():
                    return
                self._cancel_token.raise_if_cancelled()
                raise ConnectionLostError(str(error) or type(error).__name__) from None
            if not sent:
                if self._has_gone():
                    raise ConnectionLostError("the connection ended while data was being sent")
                return
            rest = rest[sent:]
            last = time.monotonic()

    def close_stdin(self) -> None:
        """Say that no more input comes."""
        with self._living():
            self._channel.shutdown_write()

    def receive(self, *, timeout: float = SILENCE) -> bytes:
        """Return the next piece of standard output, b"" at its end.

        Raises ConnectionLostError, CancelledError and AgentError.
        """
        if self._heard:
            data = self._heard.popleft()
            self._waiting -= len(data)
            return data
        last = time.monotonic()
        while True:
            self._cancel_token.raise_if_cancelled()
            if self._drain_errors():
                last = time.monotonic()
            if self._channel.recv_ready() or self._channel.eof_received or self._channel.closed:
                return self._take() or self._end()
            self._still(last, timeout, "says nothing")
            self._bell.wait(max(0.0, min(timeout - (time.monotonic() - last), 60.0)))

    def status(self, *, timeout: float = _STATUS) -> int | None:
        """Return the command's exit status, None when the channel went without one (death by a signal)."""
        if not self._channel.status_event.wait(timeout):
            raise AgentError(
                "ssh-timed-out", "the command over SSH does not end", saw=f"no status in {timeout:g} s"
            )
        self._cancel_token.raise_if_cancelled()
        status = self._channel.exit_status
        if status != -1:
            return status
        if self._has_gone():
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
        with self._living():
            return self._channel.recv(_CHUNK)

    def _keep(self, data: bytes) -> None:
        self._heard.append(data)
        self._waiting += len(data)

    def _drain_errors(self) -> bool:
        """Take what standard error holds, and tell whether that was anything."""
        heard = False
        while self._channel.recv_stderr_ready():
            self._channel.settimeout(0.0)
            with self._living():
                self._errors.add(self._channel.recv_stderr(_CHUNK))
            heard = True
        return heard

    def _end(self) -> bytes:
        """Tell the end of the output from that of the connection: a server says the first in so many words."""
        self._drain_errors()
        if not self._channel.eof_received and self._channel.exit_status == -1:
            self._cancel_token.raise_if_cancelled()
            raise ConnectionLostError("the connection ended in the middle of the output")
        return b""

    def _has_gone(self) -> bool:
        """Tell whether the whole connection is gone. Its thread closes the channels a moment before it says so."""
        self._cancel_token.raise_if_cancelled()
        transport = self._channel.get_transport()
        if self._channel.closed:
            transport.join(_SETTLE)
        return not transport.is_active()

    def _still(self, since: float, timeout: float, what: str) -> None:
        if time.monotonic() - since >= timeout:
            raise AgentError("ssh-timed-out", f"the command over SSH {what}", saw=f"for {timeout:g} s")

    @contextlib.contextmanager
    def _living(self) -> Iterator[None]:
        try:
            yield
        except _BROKEN as error:
            self._cancel_token.raise_if_cancelled()
            raise ConnectionLostError(str(error) or type(error).__name__) from None
