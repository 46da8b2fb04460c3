"""One exchange with an API: a request and its answer, both in memory and bounded, by http.client.

`agent.aws` uses it for AWS and for a container's credentials. requests would cost 60 to 100 ms of processor time at
start, and an API needs neither redirects nor downloads in pieces.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import queue
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from agent.core.errors import AgentError
from agent.http import tls
from agent.http.client import http_date, reason_of
from agent.http.proxies import Proxy, UnusableProxyError, proxy_for
from agent.http.strict_response import StrictResponse
from agent.http.trust_store import NAMED, UnusableStoreError, trusted_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.http.connection_pool import ConnectionPool

_PIECE = 64 * 1024
# How often `check_stopped` is called while the server is silent, in seconds.
_TURN = 0.1
# the SDK's own variable for a file of certificates, before those of other programs
_BUNDLES = ("AWS_CA_BUNDLE", *NAMED)


@dataclass(frozen=True)
class ApiRequest:
    """A request. Its headers contain a signature or a token, so neither they nor the body are shown."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class ApiResponse:
    """The answer, whatever its status. The names of headers are in lower case; the body may contain a secret."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def date(self) -> float | None:
        """The server's clock in epoch seconds, None when it does not send it."""
        return http_date(self.headers.get("date", "").strip())


@dataclass(frozen=True)
class ExchangeLimits:
    """How long connecting and the whole exchange may take, in seconds, and how long an answer may be, in bytes."""

    connect: float
    total: float
    answer: int


class ExchangeError(Exception):
    """No usable answer. `hint` is empty where only the caller knows what helps."""

    def __init__(self, saw: str, *, hint: str = "", retryable: bool = True) -> None:
        super().__init__(saw)
        self.saw = saw
        self.hint = hint
        self.retryable = retryable


class AnswerTooLargeError(ExchangeError):
    """The answer is larger than the limit, and would be again."""


def exchange(
    request: ApiRequest,
    limits: ExchangeLimits,
    *,
    environ: Mapping[str, str],
    proxied: bool = True,
    check_stopped: Callable[[], None] = lambda: None,
    pool: ConnectionPool | None = None,
) -> ApiResponse:
    """Send a request and return its answer; `check_stopped` is called often and may raise.

    With a `pool` the connection of a GET is one that an earlier exchange left there, and is left there again.

    A thread waits for the server and is abandoned when the time is over: no time-out of a socket limits a name lookup,
    or headers that come one byte a second. Raises ExchangeError.
    """
    inbox: queue.Queue[ApiResponse | BaseException] = queue.Queue()
    attempt = _Attempt(request, limits, environ, pool if request.method == "GET" else None, proxied=proxied)

    def work() -> None:
        try:
            inbox.put(attempt.run())
        except BaseException as error:  # noqa: BLE001 -- passed to the waiting thread
            inbox.put(error)

    worker = threading.Thread(target=work, name="hsm-agent-api", daemon=True)
    ends = time.monotonic() + limits.total
    worker.start()
    try:
        while True:
            check_stopped()
            left = ends - time.monotonic()
            if left <= 0:
                raise ExchangeError(f"{attempt.name} was silent for {limits.total:g} s{attempt.by}")
            try:
                item = inbox.get(timeout=min(_TURN, left))
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item
    finally:
        attempt.abort()


class _Attempt:
    """The one connection of an exchange. All but `abort` runs in the thread that waits for the server."""

    def __init__(
        self,
        request: ApiRequest,
        limits: ExchangeLimits,
        environ: Mapping[str, str],
        pool: ConnectionPool | None,
        *,
        proxied: bool,
    ) -> None:
        self._request = request
        self._limits = limits
        self._environ = environ
        self._pool = pool
        self._parts = urlsplit(request.url)
        self._left = threading.Event()
        self._is_reusable = False
        self._connection: http.client.HTTPConnection | None = None
        self._proxy = self._choose_proxy() if proxied else None
        self.name = self._proxy.place if self._proxy else self._parts.hostname or "the server"

    @property
    def by(self) -> str:
        return f" (through the proxy {self._proxy.place})" if self._proxy else ""

    def abort(self) -> None:
        """End a wait for the server. Closing the socket alone would leave its reader waiting."""
        self._left.set()
        sock: Any = self._connection.sock if self._connection else None
        if sock is not None:
            with contextlib.suppress(OSError, AttributeError):
                sock.shutdown(socket.SHUT_RDWR)

    def run(self) -> ApiResponse:
        kept = self._pool.take(self._server) if self._pool else None
        if kept is not None:
            self._connection = kept
            # a server may close an idle connection at any time, so its failure says nothing
            with (
                contextlib.suppress(OSError, ValueError, http.client.HTTPException),
                contextlib.ExitStack() as stack,
            ):
                stack.callback(self._leave, kept)
                return self._transfer(kept)
        try:
            connection = self._connection = self._open()
            with contextlib.ExitStack() as stack:
                stack.callback(self._leave, connection)
                return self._transfer(connection)
        except (OSError, ValueError, http.client.HTTPException) as error:
            explained = self._explained(error)
            # up to Python 3.11 a proxy's refusal stays open as long as a frame of http.client is referred to
            error.__traceback__ = None
            raise explained from None

    @property
    def _server(self) -> str:
        return f"{self._parts.scheme}://{self._parts.netloc} {self._proxy.url if self._proxy else ''}"

    def _leave(self, connection: http.client.HTTPConnection) -> None:
        """Keep the connection where its answer was read to its end and the server keeps it too; else close it."""
        if self._pool is None or not self._is_reusable or self._left.is_set():
            connection.close()
            return
        self._connection = None  # `abort` ends what this exchange has, and it has none any more
        self._pool.give(self._server, connection)

    def _choose_proxy(self) -> Proxy | None:
        try:
            return proxy_for(self._request.url, self._environ)
        except UnusableProxyError as error:
            raise ExchangeError(str(error), retryable=False) from None
        except ValueError:
            raise ExchangeError("not a URL", retryable=False) from None

    def _open(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        peer = urlsplit(self._proxy.url) if self._proxy else self._parts
        host, port = peer.hostname or "", peer.port
        port = port or (443 if peer.scheme == "https" else 80)
        context = None
        if secure or peer.scheme == "https":
            context = self._pool.context(self._context) if self._pool else self._context()
        if self._proxy is None or not secure:
            if context is None:
                return http.client.HTTPConnection(host, port, timeout=self._limits.connect)
            return http.client.HTTPSConnection(host, port, timeout=self._limits.connect, context=context)
        through = _SecuredProxyConnection if peer.scheme == "https" else http.client.HTTPSConnection
        connection = through(host, port, timeout=self._limits.connect, context=context)
        connection.set_tunnel(self._parts.hostname or "", self._parts.port or 443, self._proxy_headers())
        return connection

    def _transfer(self, connection: http.client.HTTPConnection) -> ApiResponse:
        connection.response_class = StrictResponse
        try:
            if connection.sock is None:
                connection.connect()
        except socket.timeout:
            saw = f"{self.name} did not accept a connection within {self._limits.connect:g} s{self.by}"
            raise ExchangeError(saw) from None
        connection.sock.settimeout(self._limits.total)
        target = self._parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        headers = dict(self._request.headers)
        if self._proxy and self._parts.scheme == "http":
            target = self._request.url
            headers.update(self._proxy_headers())
        connection.request(self._request.method, target, body=self._request.body or None, headers=headers)
        with contextlib.closing(connection.getresponse()) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            body = self._read(response)
            self._is_reusable = not response.will_close
            return ApiResponse(response.status, headers, body)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        body = bytearray()
        while not self._left.is_set():
            piece = response.read(_PIECE)
            if not piece:
                break
            body += piece
            if len(body) > self._limits.answer:
                saw = f"{self.name} answers with more than {self._limits.answer} bytes{self.by}"
                raise AnswerTooLargeError(saw, retryable=False)
        if response.length:  # http.client accepts a body that ends too early
            raise http.client.IncompleteRead(b"", response.length)
        return bytes(body)

    def _proxy_headers(self) -> dict[str, str]:
        parts = urlsplit(self._proxy.url if self._proxy else "")
        if parts.username is None:
            return {}
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}

    def _context(self) -> ssl.SSLContext:
        try:
            tls.require()
            trusted = trusted_file(self._environ, _BUNDLES)
            if trusted and os.path.isdir(trusted):  # noqa: PTH112
                return ssl.create_default_context(capath=trusted)
            return ssl.create_default_context(cafile=trusted)
        except AgentError as error:
            raise ExchangeError(error.saw, hint=error.hint, retryable=False) from None
        except UnusableStoreError as error:
            raise ExchangeError(str(error), hint=error.hint, retryable=False) from None

    def _explained(self, error: Exception) -> ExchangeError:
        """Return the error with its cause, unchained: a library's own text may contain the URL with its secrets."""
        refused = re.match(r"Tunnel connection failed: ([0-9]{3})", str(error)) if self._proxy else None
        if refused is not None and self._proxy is not None:
            return _not_connected(int(refused[1]), self._parts.hostname or "the server", self._proxy)
        verification = getattr(error, "verify_message", None)
        if verification:
            hint = "if a proxy that opens TLS has a CA of its own, name its file in AWS_CA_BUNDLE"
            if getattr(error, "verify_code", 0) in (9, 10):  # X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED
                hint = "check `date -u` first: with a wrong clock every certificate looks expired or not yet valid"
            return ExchangeError(
                f"the certificate of {self.name}: {verification}{self.by}", hint=hint, retryable=False
            )
        words = reason_of(error, self.name, connect=self._limits.connect, silence=self._limits.total)
        return ExchangeError(words + self.by)


class _SecuredProxyConnection(http.client.HTTPSConnection):
    """A tunnel through a proxy that itself uses TLS: TLS in TLS, for which the ssl module has no socket."""

    def connect(self) -> None:
        try:
            from urllib3.util.ssltransport import SSLTransport  # noqa: PLC0415 -- only for such a proxy
        except ImportError:
            saw = "a proxy that is asked over TLS takes urllib3, which this Python lacks"
            raise ExchangeError(saw, retryable=False) from None
        private: Any = self
        self.sock = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = private._context.wrap_socket(self.sock, server_hostname=self.host)  # noqa: SLF001
        private._tunnel()  # noqa: SLF001 -- http.client has no other way to send CONNECT
        self.sock = SSLTransport(self.sock, private._context, private._tunnel_host)  # noqa: SLF001


def _not_connected(status: int, name: str, proxy: Proxy) -> ExchangeError:
    if status == 407:
        verb = "correct them" if proxy.knows_us else "put them"
        return ExchangeError(
            f"HTTP 407: the proxy {proxy.place} "
            + (
                "does not accept the user and the password"
                if proxy.knows_us
                else "wants a user and a password"
            ),
            hint=f"{verb} in {proxy.variable}: http://USER:PASSWORD@{proxy.place}, percent-encoded",
            retryable=False,
        )
    return ExchangeError(
        f"HTTP {status}: the proxy {proxy.place} does not connect to {name}",
        hint=f"have {proxy.place} allow CONNECT to {name}, or name {name} in no_proxy if it is reached without it",
        retryable=status >= 500 or status in (408, 425, 429),
    )
