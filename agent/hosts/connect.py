"""A connection to an HSM, tried and closed: how far it came, in how many seconds, and whether TLS was answered."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, Callable

from agent.core.host import ConnectResult
from agent.http.tls import tls_context

if TYPE_CHECKING:
    import ssl

    from agent.core.errors import CodeName

# (socket, whether it is to be written, seconds) -> whether it can be
Ready = Callable[[socket.socket, bool, float], bool]
# Up to Python 3.12 time.monotonic counts in steps of 16 ms on Windows; on Linux both are one clock.
_seconds = time.perf_counter
# How often `stopped` is asked while waiting, in seconds.
_TURN = 0.1
# How much the other side may say before its handshake is over; OpenSSL takes certificates of 100 kB. It may go on for
# ever with messages that say nothing.
_MOST_SAID = 256 * 1024
# WSAEACCES, which is no number of Linux: the filters of Windows refused. A firewall of Linux has no number of its own:
# what nftables drops on its way out times out, and what it rejects is refused or unreachable, as from anywhere else.
_FILTERED = 10013
# What a failed connect means; all else (a route that prohibits, no such family) is no route.
_CAUSES: dict[int, CodeName] = {
    _FILTERED: "hsm-firewalled",
    errno.ETIMEDOUT: "hsm-timed-out",
    errno.ECONNREFUSED: "hsm-refused",
    errno.ECONNRESET: "hsm-refused",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM), "no-resources"),
}


class Interrupted(Exception):  # noqa: N818 -- an event, not an error
    """The wait was ended because `stopped` said so."""


class _NoAnswer(Exception):  # noqa: N818 -- a finding
    """The time ran out."""


def ready(sock: socket.socket, writing: bool, seconds: float) -> bool:
    """Wait at most `seconds` until a socket can be written, or read."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT if writing else select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def reach(
    address: str,
    port: int,
    timeout: float,
    tls: bool = True,
    stopped: Callable[[], bool] = lambda: False,
    *,
    ready: Ready = ready,
    under_way: int = errno.EINPROGRESS,
    words: Callable[[int], str] = os.strerror,
) -> ConnectResult:
    """Connect, ask for a TLS handshake where `tls` says so, and close.

    Connecting and the handshake have `timeout` seconds together. No name is looked up: a resolver knows no limit.
    Raises Interrupted when `stopped` becomes true. What differs between systems: `ready` waits for a
    socket, `under_way` is what a connection that is being made says, and `words` is what an error number means.
    """
    wait = _Wait(stopped, ready)

    def unreached(cause: CodeName, detail: str) -> ConnectResult:
        return ConnectResult(address, port, cause, detail, None)

    try:
        family, kind, _, _, target = socket.getaddrinfo(
            address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )[0]
    except (OSError, ValueError) as error:
        spent = _CAUSES.get(getattr(error, "errno", None) or 0)
        return unreached(spent or "hsm-no-route", str(error) if spent else "not an IP address")
    start = _seconds()
    deadline = start + timeout
    try:
        sock = socket.socket(family, kind)
    except OSError as error:  # IPv6 is switched off, for one
        return unreached(_CAUSES.get(error.errno or 0, "hsm-no-route"), _said(error))
    with sock:
        try:
            sock.setblocking(False)
            outcome = sock.connect_ex(target)
            if outcome == under_way:
                wait.until(sock, True, deadline)
                outcome = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if outcome:
                return unreached(_CAUSES.get(outcome, "hsm-no-route"), words(outcome))
        except _NoAnswer:
            return unreached("hsm-timed-out", f"timed out after {timeout:g} s")
        except OSError as error:
            return unreached(_CAUSES.get(error.errno or 0, "hsm-no-route"), _said(error))
        seconds = _seconds() - start
        cause, detail, spoken = _speak(sock, timeout, deadline, wait) if tls else (None, "connected", None)
    return ConnectResult(address, port, cause, detail, seconds, spoken)


class _Wait:
    """Waits for a socket until a deadline, and asks meanwhile whether to stop."""

    def __init__(self, stopped: Callable[[], bool], ready: Ready) -> None:
        self._stopped = stopped
        self._ready = ready

    def until(self, sock: socket.socket, writing: bool, deadline: float) -> None:
        while True:
            if self._stopped():
                raise Interrupted
            # the clock first: a side that is always ready would never be timed out
            left = deadline - _seconds()
            if left <= 0:
                raise _NoAnswer
            if self._ready(sock, writing, min(_TURN, left)):
                return


def _speak(
    sock: socket.socket, timeout: float, deadline: float, wait: _Wait
) -> tuple[CodeName | None, str, bool | None]:
    """Return cause, detail and whether TLS was spoken."""
    try:
        context = tls_context()
    except OSError as error:
        return "openssl-unusable", f"connected; {error}", None
    spoken, detail = _handshake(sock, context, timeout, deadline, wait)
    return None if spoken else "hsm-no-tls", detail, spoken


def _handshake(
    sock: socket.socket, context: ssl.SSLContext, timeout: float, deadline: float, wait: _Wait
) -> tuple[bool, str]:
    """Tell whether TLS was spoken, and in words what was.

    The first bytes of the answer decide: a TLS record, even an alert that refuses us, proves TLS.
    """
    import ssl  # noqa: PLC0415 -- loaded with the context

    heard = bytearray()
    try:
        return _shake(sock, context, heard, deadline, wait)
    except _NoAnswer:
        did = (
            "began a TLS handshake and did not finish it"
            if _is_record(heard)
            else "connected, then was silent"
        )
        return False, f"{did} for {timeout:g} s"
    except ssl.SSLError as error:
        if _is_record(heard):
            return True, f"TLS answered, and refused: {error.reason}"
        return False, "answered, but not with TLS"
    except OSError as error:
        return _is_record(heard), "connected, then: " + _said(error)


def _shake(
    sock: socket.socket, context: ssl.SSLContext, heard: bytearray, deadline: float, wait: _Wait
) -> tuple[bool, str]:
    import ssl  # noqa: PLC0415 -- loaded with the context

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talk = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            talk.do_handshake()
        except ssl.SSLWantReadError:
            _send(sock, outgoing.read(), deadline, wait)
        else:
            return True, f"{talk.version()} {(talk.cipher() or ('',))[0]}"
        wait.until(sock, False, deadline)
        data = sock.recv(65536)
        if not data:
            return _is_record(heard), "connected, then closed by the other side"
        heard += data
        if len(heard) > _MOST_SAID:
            return False, f"said {len(heard)} bytes without finishing a TLS handshake"
        incoming.write(data)


def _send(sock: socket.socket, data: bytes, deadline: float, wait: _Wait) -> None:
    """Send what a handshake has to say; the other side may close its window."""
    while data:
        wait.until(sock, True, deadline)
        data = data[sock.send(data) :]


def _is_record(first: bytes | bytearray) -> bool:
    """Tell an alert (21) or handshake (22) record of TLS 1.x from anything else."""
    return first[:1] in (b"\x15", b"\x16") and first[1:2] == b"\x03"


def _said(error: OSError) -> str:
    return error.strerror or str(error)
