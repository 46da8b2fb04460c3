"""The socket under an SSH connection: TCP or the user's proxy command, and the token that cancels it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.transport import CancelledError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# TCP keepalive: the first after so long, then so often, in seconds; so many may go unanswered.
_IDLE, _INTERVAL, _PROBES = 30, 10, 3
# Data that is not acknowledged for so long, in milliseconds, ends the connection.
_UNACKNOWLEDGED = 60_000
# The largest packet, in bytes: a peer sends channel data in pieces of 32 kB.
_PACKET = 1024 * 1024
# How much of a proxy command's standard error is kept, in bytes.
_SAID = 4096
# How long a proxy command may take to end after its input is closed, and after each signal, in seconds.
_LEAVE = 0.5


class SocketCancelToken:
    """Ends every wait on one connection at once, when another thread cancels it.

    It only shuts sockets down and wakes waiters. The thread that owns a socket closes it: a descriptor that is closed
    while another thread polls it may already be that of another connection. Name resolution is the C library's and ends
    by the time-outs of resolv.conf; nothing ends it earlier.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._acts: dict[object, Callable[[], None]] = {}

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Cancel. Any thread may call it, more than once; it does not wait for the owner."""
        with self._lock:
            self._cancelled.set()
            acts = list(self._acts.values())
            self._acts.clear()
        for act in acts:
            act()

    def raise_if_cancelled(self) -> None:
        if self.is_cancelled:
            raise CancelledError

    def wait(self, seconds: float) -> None:
        """Wait so long, or raise CancelledError as soon as the token is cancelled."""
        if self._cancelled.wait(seconds):
            raise CancelledError

    def on_cancel(self, act: Callable[[], None]) -> object:
        """Have `act` called when the token is cancelled. Raises CancelledError when it already is."""
        token = object()
        with self._lock:
            self.raise_if_cancelled()
            self._acts[token] = act
        return token

    def release(self, token: object) -> None:
        with self._lock:
            self._acts.pop(token, None)

    @contextlib.contextmanager
    def cancelling(self, act: Callable[[], None]) -> Iterator[None]:
        token = self.on_cancel(act)
        try:
            yield
        finally:
            self.release(token)


class _Socket(socket.socket):
    """A socket that acknowledges at once.

    After the login sshd sends a message, and holds the next one back until the first is acknowledged (Nagle); the
    kernel here delays the acknowledgement by 40 ms. Measured: 48 ms for a session without this, 5 ms with it.
    """

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        if size > _PACKET:  # paramiko reads a whole packet, and trusts any length
            raise OSError(errno.EMSGSIZE, f"a packet of {size} bytes")
        data = super().recv(size, flags)
        if hasattr(socket, "TCP_QUICKACK"):  # Linux only, and not permanent
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data


class SocketHandle:
    """One socket, and how to shut it down and close it."""

    def __init__(
        self, sock: socket.socket, cancel_token: SocketCancelToken, proxy: ProxyCommand | None = None
    ) -> None:
        self.sock = sock
        self.proxy = proxy
        self._cancel_token = cancel_token
        try:
            self._token = cancel_token.on_cancel(self.shut)
        except CancelledError:
            self.close()
            raise

    def shut(self) -> None:
        """Make every wait on the socket return, in any thread."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if token := getattr(self, "_token", None):
            self._cancel_token.release(token)
        self.shut()
        self.sock.close()
        if self.proxy is not None:
            self.proxy.end(patient=not self._cancel_token.is_cancelled)


def source_address(address: str) -> str | None:
    """Return the address from which this machine connects to another, None without a route; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def connect_tcp(
    host: str,
    port: int,
    *,
    family: socket.AddressFamily,
    source: str | None = None,
    timeout: float,
    cancel_token: SocketCancelToken,
) -> SocketHandle:
    """Connect by TCP to the first address that answers, all of them together within `timeout` seconds.

    `source` is the address of this machine to connect from, None for any. Raises AgentError when none answers,
    with the cause of the last, and CancelledError.
    """
    cancel_token.raise_if_cancelled()
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        raise AgentError("host-name-unknown", f"{host} is no name that resolves", saw=str(error)) from None
    deadline = time.monotonic() + timeout
    last: OSError = TimeoutError(errno.ETIMEDOUT, "timed out")
    for number, (kind, _, _, _, address) in enumerate(found):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        share = left / (len(found) - number)
        try:
            return _connect(kind, address, source, share, cancel_token)
        except OSError as error:
            cancel_token.raise_if_cancelled()
            last = error
    raise _unreached(f"{host} port {port}", last, timeout)


def _connect(
    family: int, address: object, source: str | None, timeout: float, cancel_token: SocketCancelToken
) -> SocketHandle:
    sock = _Socket(family, socket.SOCK_STREAM)
    handle = SocketHandle(sock, cancel_token)
    try:
        sock.settimeout(timeout)
        if source is not None:
            sock.bind(socket.getaddrinfo(source, 0, family, socket.SOCK_STREAM)[0][4])
        sock.connect(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", _IDLE),
            ("TCP_KEEPINTVL", _INTERVAL),
            ("TCP_KEEPCNT", _PROBES),
            ("TCP_USER_TIMEOUT", _UNACKNOWLEDGED),
        ):
            if hasattr(socket, name):  # macOS and Windows do not have all of them
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        cancel_token.raise_if_cancelled()
    except (OSError, CancelledError):
        handle.close()
        cancel_token.raise_if_cancelled()  # otherwise the error would be that of a socket that was shut down
        raise
    return handle


def _unreached(where: str, error: OSError, timeout: float) -> AgentError:
    saw = error.strerror or str(error)
    if isinstance(error, socket.timeout) or error.errno == errno.ETIMEDOUT:  # one class only from 3.10 on
        return AgentError("ssh-timed-out", f"{where} did not answer", saw=f"no answer within {timeout:g} s")
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        return AgentError("ssh-refused", f"{where} refuses connections", saw=saw)
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EINVAL):
        return AgentError("ssh-no-route", f"there is no way to {where}", saw=saw)
    return AgentError("ssh-failed", f"{where} could not be connected to", saw=saw)


class ProxyCommand:
    """The user's ProxyCommand, in a session of its own, with one socket as its input and output.

    paramiko.ProxyCommand was tried first. It never notices the command's end (it reads b"" in a loop until its
    time-out), lets standard error fill up, and blocks in a write without limit. A socket does none of that.
    """

    def __init__(self, command: str, shell: str, sock: socket.socket) -> None:
        self._child = subprocess.Popen(
            (shell, "-c", f"exec {command}"),  # as ssh does
            stdin=sock.fileno(),
            stdout=sock.fileno(),
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._stderr = bytearray()
        self._reader = threading.Thread(target=self._read, name="proxy command", daemon=True)
        self._reader.start()

    def last_error(self) -> str:
        """Return the last line of the command's standard error."""
        self._reader.join(_LEAVE)  # it prints its error and then ends
        lines = bytes(self._stderr).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def end(self, *, patient: bool) -> None:
        for number in (None, signal.SIGTERM, signal.SIGKILL) if patient else (signal.SIGKILL,):
            if number is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_LEAVE)
                break
        self._reader.join(_LEAVE)
        if self._child.stderr is not None and not self._reader.is_alive():
            self._child.stderr.close()

    def _read(self) -> None:
        stream = self._child.stderr
        if stream is None:
            return
        while data := os.read(stream.fileno(), _SAID):
            self._stderr += data
            del self._stderr[:-_SAID]


def start_proxy_command(command: str, *, shell: str, cancel_token: SocketCancelToken) -> SocketHandle:
    """Start the user's proxy command and return the socket that is its input and output."""
    cancel_token.raise_if_cancelled()
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            proxy = ProxyCommand(command, shell, theirs)
        except OSError as error:
            ours.close()
            raise AgentError(
                "ssh-failed", "the ProxyCommand cannot be started", saw=f"{shell}: {error.strerror}"
            ) from None
    return SocketHandle(ours, cancel_token, proxy)
