"""Connect to an HSM and close again: how far it came, in how many seconds, and whether TLS was answered."""

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

    from agent.core.codes import CodeName

# (socket, whether to wait for writing, seconds) -> whether it is ready
Ready = Callable[[socket.socket, bool, float], bool]
# Up to Python 3.12 time.monotonic counts in steps of 16 ms on Windows; on Linux both are one clock.
_seconds = time.perf_counter
# How often `stopped` is called while waiting, in seconds.
_INTERVAL = 0.1
# How many bytes the peer may send before its handshake is over; OpenSSL accepts certificates of 100 kB. A peer can
# send empty messages for ever.
_MOST_RECEIVED = 256 * 1024
# WSAEACCES, which Linux does not have: the filters of Windows refused. A firewall of Linux has no number of its own:
# outgoing packets that nftables drops time out, and rejected ones are refused or unreachable, like remote ones.
_FILTERED = 10013
# any port will do where nothing is sent
_DISCARD = 9
# The meaning of a failed connect; any other number (a route that prohibits, an unsupported family) is no route.
_CAUSES: dict[int, CodeName] = {
    _FILTERED: "hsm-firewalled",
    errno.ETIMEDOUT: "hsm-timed-out",
    errno.ECONNREFUSED: "hsm-refused",
    errno.ECONNRESET: "hsm-refused",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM), "no-resources"),
}


class Interrupted(Exception):  # noqa: N818 -- an event, not an error
    """The wait was ended because `stopped` returned true."""


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
    """Connect, start a TLS handshake if `tls`, and close.

    Connecting and the handshake have `timeout` seconds together. No name is resolved: a resolver has no time limit.
    Raises Interrupted when `stopped` becomes true. Three arguments differ between systems: `ready` waits for a
    socket, `under_way` is the number of a connection in progress, and `words` returns the text of an error number.
    """
    wait = _Wait(stopped, ready)

    def unreached(cause: CodeName, detail: str) -> ConnectResult:
        return ConnectResult(address, port, cause, detail, None, source=_source_towards(address))

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
    except OSError as error:  # for example, IPv6 is switched off
        return unreached(_CAUSES.get(error.errno or 0, "hsm-no-route"), _reason(error))
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
            return unreached(_CAUSES.get(error.errno or 0, "hsm-no-route"), _reason(error))
        seconds = _seconds() - start
        source = str(sock.getsockname()[0])
        cause, detail, spoken = (
            _probe_tls(sock, timeout, deadline, wait) if tls else (None, "connected", None)
        )
    return ConnectResult(address, port, cause, detail, seconds, spoken, source)


def _source_towards(address: str) -> str:
    """Return the address of this machine from which packets to another one go, empty where none do.

    To connect a datagram socket sends nothing. The stream socket is not asked: on Windows it has an address only once
    it is connected.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((address, _DISCARD))
            return str(sock.getsockname()[0])
    except (OSError, ValueError):
        return ""


class _Wait:
    """Waits for a socket until a deadline, and checks meanwhile whether to stop."""

    def __init__(self, stopped: Callable[[], bool], ready: Ready) -> None:
        self._stopped = stopped
        self._ready = ready

    def until(self, sock: socket.socket, writing: bool, deadline: float) -> None:
        while True:
            if self._stopped():
                raise Interrupted
            # the clock first: a peer that is always ready would never time out
            left = deadline - _seconds()
            if left <= 0:
                raise _NoAnswer
            if self._ready(sock, writing, min(_INTERVAL, left)):
                return


def _probe_tls(
    sock: socket.socket, timeout: float, deadline: float, wait: _Wait
) -> tuple[CodeName | None, str, bool | None]:
    """Return cause, detail and whether the peer speaks TLS."""
    try:
        context = tls_context()
    except OSError as error:
        return "openssl-unusable", f"connected; {error}", None
    spoken, detail = _handshake(sock, context, timeout, deadline, wait)
    return None if spoken else "hsm-no-tls", detail, spoken


def _handshake(
    sock: socket.socket, context: ssl.SSLContext, timeout: float, deadline: float, wait: _Wait
) -> tuple[bool, str]:
    """Return whether the peer speaks TLS, and a sentence about the handshake.

    The first bytes of the answer decide: a TLS record, even an alert that refuses the connection, proves TLS.
    """
    import ssl  # noqa: PLC0415 -- loaded with the context

    received = bytearray()
    try:
        return _exchange(sock, context, received, deadline, wait)
    except _NoAnswer:
        did = (
            "began a TLS handshake and did not finish it"
            if _is_record(received)
            else "connected, then was silent"
        )
        return False, f"{did} for {timeout:g} s"
    except ssl.SSLError as error:
        if _is_record(received):
            return True, f"TLS answered, and refused: {error.reason}"
        return False, "answered, but not with TLS"
    except OSError as error:
        return _is_record(received), "connected, then: " + _reason(error)


def _exchange(
    sock: socket.socket, context: ssl.SSLContext, received: bytearray, deadline: float, wait: _Wait
) -> tuple[bool, str]:
    import ssl  # noqa: PLC0415 -- loaded with the context

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            _send(sock, outgoing.read(), deadline, wait)
        else:
            return True, f"{tls.version()} {(tls.cipher() or ('',))[0]}"
        wait.until(sock, False, deadline)
        data = sock.recv(65536)
        if not data:
            return _is_record(received), "connected, then closed by the other side"
        received += data
        if len(received) > _MOST_RECEIVED:
            return False, f"said {len(received)} bytes without finishing a TLS handshake"
        incoming.write(data)


def _send(sock: socket.socket, data: bytes, deadline: float, wait: _Wait) -> None:
    """Send the handshake's next bytes; the peer may close its window."""
    while data:
        wait.until(sock, True, deadline)
        data = data[sock.send(data) :]


def _is_record(first: bytes | bytearray) -> bool:
    """Tell whether the bytes begin with an alert (21) or handshake (22) record of TLS 1.x."""
    return first[:1] in (b"\x15", b"\x16") and first[1:2] == b"\x03"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
