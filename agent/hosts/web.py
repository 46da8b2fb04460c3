"""One HTTP request: ended by the caller's clock whatever the server does, its failures in plain words."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import SplitResult, urljoin, urlsplit

import agent
from agent.core.errors import CODES, AgentError
from agent.hosts import tls
from agent.hosts.stores import trust_as_the_host_does

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Generator, Iterator, Mapping

REDIRECTS = 5
# How long a server may take to accept a connection, and how long it may then be silent, in seconds.
CONNECT = 10.0
SILENCE = 30.0
_PIECE = 64 * 1024
# How often `mind` is called while the server is silent.
_TURN = 0.1
_MOVED = (301, 302, 303, 307, 308)

# Which exception somewhere below tells what happened; the first that fits.
_REASONS = (
    ({"gaierror", "NameResolutionError"}, "DNS: {name} cannot be resolved"),
    ({"ConnectTimeout", "ConnectTimeoutError"}, "{name} did not accept a connection within {connect:g} s"),
    ({"ReadTimeout", "ReadTimeoutError", "TimeoutError", "timeout"}, "{name} was silent for {silence:g} s"),
    ({"IncompleteRead"}, "the connection ended before the file did"),
)


class Again(Exception):  # noqa: N818 -- a reason, not an error
    """This request failed and another may not, best `after` seconds later (None: the caller's choice)."""

    def __init__(self, saw: str, *, after: float | None = None) -> None:
        super().__init__(saw)
        self.after = after


@dataclass(frozen=True)
class Head:
    """What a server said before the body."""

    status: int
    headers: Mapping[str, str]

    def number(self, name: str) -> int | None:
        text = self.headers.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else None


_Item = Union[Head, bytes, BaseException, None]


def answers(
    url: str,
    headers: Mapping[str, str],
    *,
    environ: Mapping[str, str],
    mind: Callable[[], None],
    body: bytes | None = None,
) -> Generator[Head | bytes, None, None]:
    """Yield the head, then for 200 and 206 the body in pieces; `mind` is called often and may raise.

    With a `body` to send it is a POST; then a redirect is an answer as any other, and so is the body of a refusal.

    No time-out of requests bounds a name lookup, or headers that come a byte a second. So a thread does the
    waiting, and is left behind when `mind` raises. Raises Again, or AgentError `download-failed` where trying
    again cannot help.
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
            _ask(url, headers, environ, body, deliver, left)
            deliver(None)
        except BaseException as error:  # noqa: BLE001 -- handed to the thread that waits
            deliver(error)

    worker = threading.Thread(target=work, name="hsm-agent-download", daemon=True)
    worker.start()
    try:
        while True:
            mind()
            try:
                item = inbox.get(timeout=_TURN)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise _explained(item, url, environ)  # not "from": its text may hold a password
            yield item
    finally:
        left.set()
        worker.join(_TURN)


def failed(
    url: str, saw: str, *, want: str = "", hint: str | None = None, kind: type[AgentError] = AgentError
) -> AgentError:
    hint = hint or CODES["download-failed"].fix.replace("URL", shown(url))
    return kind("download-failed", f"{shown(url)} could not be downloaded", saw=saw, want=want, hint=hint)


def shown(url: str) -> str:
    """Return a URL as it may be shown and logged: without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the URL"
    return SplitResult(parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "").geturl()


def _ask(
    url: str,
    headers: Mapping[str, str],
    environ: Mapping[str, str],
    body: bytes | None,
    deliver: Callable[[Head | bytes], None],
    left: threading.Event,
) -> None:
    """Talk to the server, redirects included. Runs in its own thread and touches nothing but the network."""
    import requests  # noqa: PLC0415 -- 99 ms that only a download pays

    all_headers = {
        "User-Agent": f"hsm-agent/{agent.__version__}",
        "Accept-Encoding": "identity",
        **headers,
    }
    start = url
    for _ in range(REDIRECTS + 1):
        # a session for each, as a redirect must not meet a connection that the server has just given up
        with requests.Session() as session:
            session.trust_env = False  # no ~/.netrc: its secrets are not ours to send
            trust_as_the_host_does(session, environ)
            response = session.request(
                "GET" if body is None else "POST",
                url,
                data=body,
                headers=all_headers,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT, SILENCE),
                proxies=_proxies(url, environ),
            )
            with response:
                goal = response.headers.get("Location") if response.status_code in _MOVED else None
                if goal is None or body is not None:
                    deliver(Head(response.status_code, response.headers))
                    if body is not None or response.status_code in (200, 206):
                        _read_body(response, deliver, left)
                    return
        url = _redirected(url, goal)
    raise failed(start, f"more than {REDIRECTS} redirects, the last to {shown(url)}")


def _redirected(url: str, goal: str) -> str:
    """Return where a redirect leads; out of https it leads nowhere."""
    goal = urljoin(url, goal)
    scheme = urlsplit(goal).scheme
    if scheme == "https" or (scheme == "http" and urlsplit(url).scheme == "http"):
        return goal
    raise failed(url, f"redirected from {shown(url)} to {shown(goal)}", want="a redirect to https")


def _read_body(response: Any, deliver: Callable[[bytes], None], left: threading.Event) -> None:
    """Pass each piece on as it comes. `read` waits for a whole one; `read1` is missing before urllib3 2."""
    raw = response.raw
    raw.decode_content = False
    read = getattr(raw, "read1", None) or raw.read
    while not left.is_set():
        data = read(_PIECE)
        if not data:
            return
        deliver(data)


def _proxies(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    from requests.utils import should_bypass_proxies  # noqa: PLC0415 -- with requests itself

    def setting(name: str) -> str:
        return environ.get(name) or environ.get(name.upper(), "")

    scheme = urlsplit(url).scheme
    # As for curl: HTTP_PROXY in capitals is what a CGI script's caller controls, so it does not count.
    proxy = (environ.get("http_proxy", "") if scheme == "http" else setting("https_proxy")) or setting(
        "all_proxy"
    )
    if not proxy or should_bypass_proxies(url, no_proxy=setting("no_proxy")):
        return {}
    return {scheme: proxy}


def _explained(error: BaseException, url: str, environ: Mapping[str, str]) -> Exception:
    """Say what went wrong, and whether another request may help; a defect of ours is raised as it is.

    A library's own text holds whole URLs with their secrets, so only kinds and the system's words are quoted.
    """
    import ssl  # noqa: PLC0415 -- loaded by requests, if it is needed at all

    if isinstance(error, AgentError):
        return error
    chain = list(_causes(error))
    kinds = {type(each).__name__ for each in chain}
    home = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    if isinstance(error, ValueError):  # requests' own for a bad URL, and urllib's where a redirect has one
        return failed(url, "not a URL, or a redirect or a proxy that is none")
    if not isinstance(error, OSError) and not home & {"requests", "urllib3", "http"}:
        raise error
    proxy = next(iter(_proxies(url, environ).values()), "").rpartition("@")[2].rpartition("//")[2]
    via = f" (through the proxy {proxy})" if proxy else ""
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return _distrusted(each, url, via)
    name = "the proxy" if "ProxyError" in kinds else urlsplit(url).hostname or "the server"
    for signs, sentence in _REASONS:
        if kinds & signs:
            return Again(sentence.format(name=name, connect=CONNECT, silence=SILENCE) + via)
    return Again(_innermost(chain) + via)


def _innermost(chain: list[BaseException]) -> str:
    for each in reversed(chain):
        if type(each).__module__ == "ssl":
            return f"TLS: {getattr(each, 'reason', None) or type(each).__name__}"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return type(chain[-1]).__name__


def _distrusted(error: ssl.SSLCertVerificationError, url: str, via: str) -> AgentError:
    # 9 and 10 are X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED
    hint = (
        "check `date -u` first: with a wrong clock every certificate looks expired or not yet valid"
        if error.verify_code in (9, 10)
        else "if the mirror, or a proxy that opens TLS, has a CA of its own, name its file in SSL_CERT_FILE"
    )
    return failed(
        url,
        f"the server's certificate: {error.verify_message}{via}",
        want="a certificate this host trusts",
        hint=hint,
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk from an error to its innermost cause; requests and urllib3 hide causes in four places."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            hidden = (*each.args, getattr(each, "reason", None), each.__cause__, each.__context__)
            waiting += [inner for inner in hidden if isinstance(inner, BaseException)]
