"""One HTTP request: ended by the caller's clock whatever the server does, its failures in plain words."""

from __future__ import annotations

import contextlib
import queue
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import urljoin, urlsplit

import agent
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.urls import redact_url
from agent.http import tls
from agent.http.proxies import Proxy, UnusableProxyError, proxy_for
from agent.http.trust_store import UnusableStoreError, trusted_file

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator, Iterator, Mapping

REDIRECTS = 5
# How long a server may take to accept a connection, and how long it may then be silent, in seconds.
CONNECT = 10.0
SILENCE = 30.0
_PIECE = 64 * 1024
# How often `check_stopped` is called while the server is silent.
_TURN = 0.1
MOVED = (301, 302, 303, 307, 308)

# The exception in the chain that tells the cause; the first that fits.
_REASONS = (
    ({"gaierror", "NameResolutionError"}, "DNS: {name} cannot be resolved"),
    ({"ConnectTimeout", "ConnectTimeoutError"}, "{name} did not accept a connection within {connect:g} s"),
    ({"ReadTimeout", "ReadTimeoutError", "TimeoutError", "timeout"}, "{name} was silent for {silence:g} s"),
    ({"RemoteDisconnected"}, "{name} closed the connection without an answer"),
    ({"LineTooLong"}, "{name} answers with a line that is longer than HTTP allows"),
    ({"BadStatusLine", "UnknownProtocol"}, "what {name} answers is not HTTP"),
    ({"ContradictionError"}, "{name} answers with headers that contradict each other"),
    ({"TruncatedError"}, "the connection ended in the middle of what {name} answers"),
    ({"HTTPException"}, "{name} answers with more headers than HTTP libraries take"),
    ({"IncompleteRead", "InvalidChunkLength"}, "the connection ended before the file did"),
)


class RetryableError(Exception):
    """This request failed and another may succeed, best `after` seconds later (None: the caller's choice)."""

    def __init__(self, saw: str, *, after: float | None = None) -> None:
        super().__init__(saw)
        self.after = after


@dataclass(frozen=True)
class ResponseHead:
    """The head of an answer. `by` names who sent it, if that is not the server in the URL."""

    status: int
    headers: Mapping[str, str]
    by: str = ""

    @property
    def said(self) -> str:
        return f"HTTP {self.status}{self.by}"

    def number(self, name: str) -> int | None:
        """Return the number in a header; None for no number, or one that is too large for any count."""
        text = self.headers.get(name, "").strip()
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None

    def retry_after(self, most: float) -> float | None:
        """Return how many seconds the server asks to wait, at most `most`; None when it does not.

        A date is compared with the server's own clock, from its `Date` header: the clock of this host may be wrong.
        """
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]+", text):
            return min(float(text), most) if len(text) < 10 else most
        then, now = (http_date(each) for each in (text, self.headers.get("Date", "").strip()))
        return None if then is None or now is None else min(max(then - now, 0.0), most)


def http_date(text: str) -> float | None:
    """Return the epoch seconds of the one form of a date that HTTP writes (RFC 9110, section 5.6.7)."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 -- only for a server that sends one

    if re.fullmatch(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT", text):
        with contextlib.suppress(ValueError, TypeError):
            return parsedate_to_datetime(text).timestamp()
    return None


_Item = Union[ResponseHead, bytes, BaseException, None]


def stream_response(
    url: str,
    headers: Mapping[str, str],
    *,
    environ: Mapping[str, str],
    check_stopped: Callable[[], None],
    body: bytes | None = None,
) -> Generator[ResponseHead | bytes, None, None]:
    """Yield the head, then for 200 and 206 the body in pieces; `check_stopped` is called often and may raise.

    With a `body` the request is a POST; then a redirect is an ordinary answer, and the body of a refusal is yielded
    too.

    No time-out of requests limits a name lookup, or headers that come one byte a second. So a thread does the
    waiting, and is abandoned when `check_stopped` raises. Raises RetryableError, or AgentError `download-failed` where
    another attempt cannot help.
    """
    if url.startswith("https:"):
        tls.require()
    inbox: queue.Queue[_Item] = queue.Queue(maxsize=8)
    left = threading.Event()

    def deliver(item: _Item) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                inbox.put(item, timeout=_TURN)
                return

    def work() -> None:
        try:
            _run_request(url, headers, environ, body, deliver, left)
            deliver(None)
        except BaseException as error:  # noqa: BLE001 -- passed to the waiting thread
            deliver(error)

    worker = threading.Thread(target=work, name="hsm-agent-download", daemon=True)
    worker.start()
    try:
        while True:
            check_stopped()
            try:
                item = inbox.get(timeout=_TURN)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        left.set()
        worker.join(_TURN)


def failed(
    url: str, saw: str, *, want: str = "", hint: str | None = None, kind: type[AgentError] = AgentError
) -> AgentError:
    hint = hint or CODES["download-failed"].fix.replace("URL", redact_url(url))
    return kind(
        "download-failed", f"{redact_url(url)} could not be downloaded", saw=saw, want=want, hint=hint
    )


@dataclass(frozen=True)
class _Request:
    """One request of a chain of redirects: `first` is the caller's URL, `url` is the present one."""

    first: str
    url: str
    proxy: Proxy | None = None

    @property
    def by(self) -> str:
        """The server of this request, as the end of a sentence; empty for the server of the first URL."""
        through = f" (through the proxy {self.proxy.place})" if self.proxy else ""
        return through + (f", after a redirect to {redact_url(self.url)}" if self.url != self.first else "")

    def failed(self, saw: str, *, want: str = "", hint: str | None = None) -> AgentError:
        return failed(self.first, saw + self.by, want=want, hint=hint)


def _run_request(
    url: str,
    headers: Mapping[str, str],
    environ: Mapping[str, str],
    body: bytes | None,
    deliver: Callable[[ResponseHead | bytes], None],
    left: threading.Event,
) -> None:
    """Send the request and follow redirects. Runs in its own thread and uses nothing but the network."""
    hop = _Request(url, url)
    for _ in range(REDIRECTS + 1):
        hop = _Request(url, hop.url, _proxy(hop, environ))
        with _explained(hop), contextlib.closing(_sent(hop, headers, environ, body)) as response:
            target = response.headers.get("Location") if response.status_code in MOVED else None
            if not target or body is not None:
                deliver(ResponseHead(response.status_code, response.headers, hop.by))
                if body is not None or response.status_code in (200, 206):
                    _read_body(response, deliver, left)
                return
        hop = _Request(url, _redirected(hop, target))
    raise failed(url, f"more than {REDIRECTS} redirects, the last to {redact_url(hop.url)}")


def _proxy(hop: _Request, environ: Mapping[str, str]) -> Proxy | None:
    try:
        return proxy_for(hop.url, environ)
    except UnusableProxyError as error:
        raise hop.failed(str(error), want="http://HOST:PORT") from None
    except ValueError:
        raise hop.failed("not a URL") from None


def _sent(hop: _Request, headers: Mapping[str, str], environ: Mapping[str, str], body: bytes | None) -> Any:
    """Send one request and return the answer, its body unread. A requests session would read the body of redirects."""
    import requests  # noqa: PLC0415 -- 99 ms that only a download pays

    from agent.http.transport import HttpTransport  # noqa: PLC0415 -- as above

    all_headers = {
        "User-Agent": f"hsm-agent/{agent.__version__}",
        "Accept-Encoding": "identity",
        **headers,
    }
    method = "GET" if body is None else "POST"
    try:
        request = requests.Request(method, hop.url, data=body, headers=all_headers).prepare()
    except ValueError:  # its text may contain the whole URL
        raise hop.failed("not a URL") from None
    file, context = _trusted(hop, environ) if urlsplit(hop.url).scheme == "https" else (None, None)
    # a new one each time: a redirect must not use a connection that the server has just closed
    return HttpTransport(context).send(
        request,
        stream=True,
        timeout=(CONNECT, SILENCE),
        verify=file or True,
        proxies={urlsplit(hop.url).scheme: hop.proxy.url} if hop.proxy else None,
    )


def _trusted(hop: _Request, environ: Mapping[str, str]) -> tuple[str | None, ssl.SSLContext | None]:
    """Return the file of trusted certificates, or where there is none, a context with the host's own."""
    import ssl  # noqa: PLC0415 -- loaded by requests, if it is needed at all

    try:
        file = trusted_file(environ)
    except UnusableStoreError as error:
        raise hop.failed(str(error), want="a file with certificates in PEM", hint=error.hint) from None
    return file, None if file else ssl.create_default_context()


def _redirected(hop: _Request, target: str) -> str:
    """Return the target of a redirect; from https only https is allowed."""
    try:
        # http.client decodes each byte of a header as one character
        there = urljoin(hop.url, target.encode("latin-1", "replace").decode("utf-8", "replace"))
        scheme = urlsplit(there).scheme
    except ValueError:
        raise hop.failed("redirected to what is not a URL") from None
    if scheme == "https" or (scheme == "http" and urlsplit(hop.url).scheme == "http"):
        return there
    raise failed(
        hop.first, f"redirected from {redact_url(hop.url)} to {redact_url(there)}", want="a redirect to https"
    )


def _read_body(response: Any, deliver: Callable[[bytes], None], left: threading.Event) -> None:
    """Yield each piece as it comes. `read` waits for a full one; `read1` is missing before urllib3 2."""
    raw = response.raw
    raw.decode_content = False
    read = getattr(raw, "read1", None) or raw.read
    while not left.is_set():
        data = read(_PIECE)
        if not data:
            return
        deliver(data)


@contextlib.contextmanager
def _explained(hop: _Request) -> Iterator[None]:
    """Raise the error for a failed request, with the cause and whether another attempt may help.

    A library's own text contains whole URLs with their secrets, so only kinds and the system's texts are quoted, and it
    is not the cause of what is raised. The libraries raise ValueError for an invalid answer.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # those of requests are OSErrors
        raise _reason(error, hop) from None
    except Exception as error:
        home = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
        if not home & {"urllib3", "http"}:
            raise
        raise _reason(error, hop) from None


def _reason(error: Exception, hop: _Request) -> Exception:
    import ssl  # noqa: PLC0415 -- loaded by requests, if it is needed at all

    chain = list(_causes(error))
    kinds = {type(each).__name__ for each in chain}
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return _distrusted(each, hop)
        refused = re.match(r"Tunnel connection failed: ([0-9]{3})", str(each)) if hop.proxy else None
        if refused is not None and hop.proxy is not None:
            return _not_let_through(int(refused[1]), hop, hop.proxy)
    at_proxy = hop.proxy is not None and "ProxyError" in kinds
    name = hop.proxy.place if hop.proxy and at_proxy else urlsplit(hop.url).hostname or "the server"
    return RetryableError(reason_of(error, name) + hop.by)


def reason_of(error: BaseException, name: str, *, connect: float = CONNECT, silence: float = SILENCE) -> str:
    """Return in plain words why `name` did not answer; the limits are those of the request, in seconds."""
    chain = list(_causes(error))
    kinds = {type(each).__name__ for each in chain}
    for signs, sentence in _REASONS:
        if kinds & signs:
            return sentence.format(name=name, connect=connect, silence=silence)
    return _innermost(chain, name)


def _innermost(chain: list[BaseException], name: str) -> str:
    for each in reversed(chain):
        if type(each).__module__ == "ssl":
            return f"TLS: {getattr(each, 'reason', None) or 'the connection ended before it was secured'}"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return f"what {name} answers cannot be read ({type(chain[-1]).__name__})"


def _not_let_through(status: int, hop: _Request, proxy: Proxy) -> Exception:
    """Describe a proxy's answer to the request to connect to the server."""
    name = urlsplit(hop.url).hostname or "the server"
    if status == 407 and proxy.knows_us:
        return hop.failed(
            "HTTP 407: the proxy does not accept the user and the password",
            want="HTTP 200 from the proxy",
            hint=f"correct them in {proxy.variable}: http://USER:PASSWORD@{proxy.place}, percent-encoded",
        )
    if status == 407:
        return hop.failed(
            "HTTP 407: the proxy wants a user and a password",
            want="HTTP 200 from the proxy",
            hint=f"put them into {proxy.variable}: http://USER:PASSWORD@{proxy.place}, percent-encoded",
        )
    saw = f"HTTP {status}: the proxy does not connect to {name}"
    if status >= 500 or status in (408, 425, 429):
        return RetryableError(saw + hop.by)
    return hop.failed(
        saw,
        want="HTTP 200 from the proxy",
        hint=f"have {proxy.place} allow CONNECT to {name}, or name {name} in no_proxy if it is reached without it",
    )


def _distrusted(error: ssl.SSLCertVerificationError, hop: _Request) -> AgentError:
    # 9 and 10 are X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED
    hint = (
        "check `date -u` first: with a wrong clock every certificate looks expired or not yet valid"
        if error.verify_code in (9, 10)
        else "if the mirror, or a proxy that opens TLS, has a CA of its own, name its file in SSL_CERT_FILE"
    )
    return hop.failed(
        f"the server's certificate: {error.verify_message}",
        want="a certificate this host trusts",
        hint=hint,
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes down to the innermost; requests and urllib3 hide causes in four places."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            hidden = (*each.args, getattr(each, "reason", None), each.__cause__, each.__context__)
            waiting += [inner for inner in hidden if isinstance(inner, BaseException)]
