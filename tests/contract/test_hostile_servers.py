"""What a server, a proxy or a redirect may answer, whatever it is: never a defect of ours, and bounded in time and memory.

Bytes over a raw socket, since a server of a library refuses to send most of this.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from agent.core.errors import AgentError
from agent.hosts import files
from agent.http.download import DownloadContext, fetch
from agent.sinks import message, registry
from tests.examples import examples
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = b"a package"
HASH = hashlib.sha256(DATA).hexdigest()
DIGITS = b"9" * 5000
DOCUMENT = json.dumps({"run_id": "20261123T201500Z-1f3a", "host": {"name": "h"}, "exit_status": 0})


class Raw:
    """A server that reads a head and answers with bytes, in turn, the last again and again; then it hangs up."""

    def __init__(self, answers: tuple[bytes, ...], *, endless: bytes = b"") -> None:
        self.answers = list(answers)
        self.endless = endless
        self.heads: list[bytes] = []
        self.sent = 0
        self.over = False
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            with suppress(OSError):
                connection, _ = self.listening.accept()
                if self.over:
                    connection.close()
                    return
                with connection:
                    self.exchange(connection)

    def exchange(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65536)
            if not piece:
                return
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while length and len(body) < int(length[1]):
            body += connection.recv(65536)
        self.heads.append(head)
        connection.sendall(self.answers[min(len(self.heads), len(self.answers)) - 1])
        while self.endless and not self.over:
            connection.sendall(self.endless)
            self.sent += len(self.endless)

    def end(self) -> None:
        self.over = True
        with suppress(OSError):
            socket.create_connection(self.listening.getsockname(), timeout=1).close()
        self.thread.join(10)
        self.listening.close()


@contextmanager
def raw(*answers: bytes, endless: bytes = b"") -> Iterator[Raw]:
    server = Raw(answers, endless=endless)
    try:
        yield server
    finally:
        server.end()


class Clock:
    """Real time; pauses are skipped."""

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, _seconds: float) -> None:
        pass


def download(
    url: str, path: Path, *, environ: dict[str, str] | None = None, timeout: float = 20
) -> AgentError | None:
    """Return how a download failed, None when the file is there. Whatever else is raised would be `internal`."""
    means = DownloadContext(Clock(), files, environ or {})
    try:
        fetch(url, str(path), sha256=HASH, limit=100_000, timeout=timeout, context=means)
    except AgentError as error:
        return error
    return None


def post(url: str, *, seconds: float = 20) -> message.UndeliveredError | None:
    machine = Memory()
    means = message.DeliveryContext(machine, machine.monotonic() + seconds)
    try:
        registry.send(message.OutgoingReport(url, DOCUMENT), means)
    except message.UndeliveredError as error:
        return error
    return None


def whole(*headers: bytes) -> bytes:
    lines = (b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(DATA), *headers, b"", DATA)
    return b"\r\n".join(lines)


BITS = st.sampled_from(
    [
        b"0", b"-1", b"1e9", b"nan", b"inf", b"", b" ", DIGITS, b"-" + DIGITS, b"9, 9", b"9, 10", b"0x9", b"9.0",
        b"\xb2", b"\xff\xfe", b"\x1b[31m", b"a\r\n b", b"a\r\n\tb", b'"v1"', b'W/"v1"', b'"a\r\n b"', b'"\x00"',
        b"bytes 0-8/9", b"bytes 4-8/*", b"bytes " + DIGITS + b"-1/2", b"bytes */9", b"chunked", b"gzip", b"chunked, chunked",
        b"Wed, 21 Oct 2026 07:28:00 GMT", b"Wed, 99 Xxx 9999 99:99:99 GMT", b"/x", b"//[", b"http://[::1", b"file:///etc/passwd",
        b"http://a:b@/", b"http://\xc3\xa9\xff/", b"/" + b"a" * 70_000, b"ftp://u:secret@h/x", b"close", b"keep-alive", b"a=b; path=\x00",
    ]
) | st.binary(max_size=20)  # fmt: skip
NAMES = st.sampled_from(
    [
        b"Content-Length", b"Content-Range", b"Retry-After", b"ETag", b"Last-Modified", b"Location", b"Transfer-Encoding",
        b"Date", b"Connection", b"Set-Cookie", b"Content-Type", b"Content-Encoding", b"Proxy-Authenticate", b"X: Y", b"",
    ]
)  # fmt: skip
STATUSES = st.integers(100, 999).map(lambda number: b"%03d" % number) | st.sampled_from(
    [
        b"200",
        b"206",
        b"416",
        b"302",
        b"307",
        b"304",
        b"503",
        b"429",
        b"401",
        b"407",
        b"103",
        b"100",
        b"101",
        b"0",
        b"-1",
        b"20000",
        b"abc",
        b"",
    ]
)
LINES = st.builds(
    lambda version, status, words: version + b" " + status + words,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"ICY", b""]),
    STATUSES,
    st.sampled_from([b" OK", b"", b" \xff", b" " + b"x" * 70_000]),
)
ANSWERS = st.builds(
    lambda line, headers, body: b"\r\n".join([line, *(b"%s: %s" % each for each in headers), b"", body]),
    LINES,
    st.lists(st.tuples(NAMES, BITS), max_size=6) | st.just([(b"X", b"y")] * 150),
    st.sampled_from(
        [b"", DATA, DATA[:4], b"9\r\na package\r\n0\r\n\r\n", b"-5\r\nabc", b"zz\r\n", DIGITS + b"\r\n"]
    ),
) | st.binary(max_size=60)


@examples(60, suppress=[HealthCheck.function_scoped_fixture])
@given(answers=st.lists(ANSWERS, min_size=1, max_size=3))
@example(answers=[whole(b'ETag: "a\r\n b"')[:-4], whole()])
@example(answers=[b"HTTP/1.1 206 OK\r\nContent-Range: bytes " + DIGITS + b"-1/2\r\n\r\n"])
@example(answers=[b"HTTP/1.1 200 OK\r\nContent-Length: " + DIGITS + b"\r\n\r\n"])
@example(answers=[b"HTTP/1.1 503 No\r\nRetry-After: " + DIGITS + b"\r\n\r\n"])
def test_no_answer_is_a_defect_of_ours(answers: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    start = time.monotonic()
    with raw(*answers) as server:
        error = download(f"http://{server.place}/file", path)
        told = post(f"http://{server.place}/reports")
    assert time.monotonic() - start < 40
    assert error is None or error.code.exit_status in (20, 21)
    for words in (
        f"{error.sentence} {error.saw} {error.want} {error.hint}" if error else "",
        told.saw if told else "",
    ):
        assert "secret" not in words
        assert words.replace("\n", " ").isprintable()
        assert len(words) < 4000
    # and whatever was kept of it does not stand in the way of the next
    with raw(whole()) as server:
        failed = download(f"http://{server.place}/file", path)
    assert failed is None, failed.saw


ENDLESS = [
    (b"HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n", b"x" * 65536),
    (b"HTTP/1.1 503 No\r\n\r\n", b"x" * 65536),
    (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b"x" * 65535 + b"\r\n"),
    (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    (b"", b"x" * 65536),
]


@pytest.mark.parametrize(("begin", "endless"), ENDLESS, ids=lambda each: repr(each[:30]))
def test_what_never_ends_is_neither_awaited_nor_kept(begin: bytes, endless: bytes, tmp_path: Path) -> None:
    start = time.monotonic()
    with raw(begin, endless=endless) as server:
        error = download(f"http://{server.place}/file", tmp_path / "file", timeout=1)
        assert error is not None
        assert error.code.name == "download-failed"
        post(f"http://{server.place}/reports", seconds=1)
    assert time.monotonic() - start < 15
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000
    # what the buffers of a connection hold, some times: nobody has read what is not wanted
    assert server.sent < 64 * 1024 * 1024


def test_interim_answers_are_passed_over(tmp_path: Path) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    with raw(early + whole()) as server:
        assert download(f"http://{server.place}/file", tmp_path / "file") is None
        assert post(f"http://{server.place}/reports") is None
    assert (tmp_path / "file").read_bytes() == DATA


# --- proxies


@pytest.mark.parametrize(
    ("status", "saw", "hint"),
    [
        (407, "the proxy wants a user and a password", "put them into https_proxy"),
        (403, "the proxy does not connect to mirror.invalid", "allow CONNECT to mirror.invalid"),
        (405, "the proxy does not connect to mirror.invalid", "allow CONNECT to mirror.invalid"),
        (502, "the proxy does not connect to mirror.invalid (through the proxy {}); attempt 5 of 5", ""),
        (503, "the proxy does not connect to mirror.invalid (through the proxy {}); attempt 5 of 5", ""),
    ],
)
def test_what_a_proxy_answers_to_connect_is_told_with_its_address(
    status: int, saw: str, hint: str, tmp_path: Path
) -> None:
    refusal = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
    with raw(refusal) as proxy:
        environ = {"https_proxy": f"http://{proxy.place}"}
        error = download("https://mirror.invalid/x?secret", tmp_path / "file", environ=environ)
        assert error is not None
        assert error.saw.startswith(f"HTTP {status}: " + saw.format(proxy.place))
        assert f"(through the proxy {proxy.place})" in error.saw
        assert hint in error.hint
        assert {head.split()[0] for head in proxy.heads} == {b"CONNECT"}
        named = {"https_proxy": f"http://user:secret@{proxy.place}"}
        again = download("https://mirror.invalid/x", tmp_path / "file", environ=named)
        assert again is not None
        assert "secret" not in again.saw + again.hint
        assert ("does not accept the user" in again.saw) == (status == 407)


@pytest.mark.parametrize(
    ("answer", "saw"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "what {} answers is not HTTP"),
        (b"", "{} closed the connection without an answer"),
        (
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
            "{} answers with a line that is longer than HTTP allows",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9, 10\r\n\r\n",
            "{} answers with headers that contradict each other",
        ),
        # a server that died, or a proxy that lost it: what was meant to follow is not known
        (b"HTTP/1.1 200 OK\r\n", "the connection ended in the middle of what {} answers"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "the connection ended in the middle of what {} answers"),
        (b"HTTP/1.1 202 OK\r\nDate: x\r\n", "the connection ended in the middle of what {} answers"),
        (
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 150 + b"\r\n",
            "{} answers with more headers than HTTP libraries take",
        ),
    ],
)
def test_what_is_no_answer_is_told_in_words(answer: bytes, saw: str, tmp_path: Path) -> None:
    with raw(answer) as server:
        error = download(f"http://{server.place}/x", tmp_path / "file")
        assert error is not None
        assert error.saw == saw.format("127.0.0.1") + "; attempt 5 of 5"
        with raw(
            b"HTTP/1.1 302 Found\r\nLocation: http://%s/y?secret\r\n\r\n" % server.place.encode()
        ) as first:
            moved = download(f"http://{first.place}/x", tmp_path / "file")
    assert moved is not None
    assert (
        moved.saw == f"{saw.format('127.0.0.1')}, after a redirect to http://{server.place}/y; attempt 5 of 5"
    )


@pytest.mark.parametrize("status", [b"404", b"503", b"418"])
def test_after_a_redirect_the_server_that_answered_is_named(status: bytes, tmp_path: Path) -> None:
    with (
        raw(b"HTTP/1.1 %s No\r\n\r\n" % status) as second,
        raw(
            b"HTTP/1.1 307 Moved\r\nLocation: http://u:secret@%s/y?secret\r\n\r\n" % second.place.encode()
        ) as first,
    ):
        error = download(f"http://{first.place}/x", tmp_path / "file")
    assert error is not None
    assert error.saw.startswith(f"HTTP {status.decode()}, after a redirect to http://{second.place}/y")
    assert "secret" not in f"{error.sentence}{error.saw}{error.want}{error.hint}"


@pytest.mark.parametrize(
    ("value", "saw"),
    [
        (
            "socks5://u:secret@127.0.0.1:1080",
            "https_proxy names a proxy of the kind socks5, which is not supported",
        ),
        ("socks5h://127.0.0.1:1080", "https_proxy names a proxy of the kind socks5h, which is not supported"),
        ("ftp://127.0.0.1", "https_proxy names a proxy of the kind ftp, which is not supported"),
        ("http://", "https_proxy names no proxy that can be used"),
        ("http://a:secret@:99", "https_proxy names no proxy that can be used"),
        ("http://127.0.0.1:99999", "https_proxy names no proxy that can be used"),
        ("http://[::1", "https_proxy names no proxy that can be used"),
        ("not a proxy", "https_proxy names no proxy that can be used"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_by_its_variable(value: str, saw: str, tmp_path: Path) -> None:
    error = download("https://mirror.invalid/x", tmp_path / "file", environ={"https_proxy": value})
    assert error is not None
    assert error.saw.startswith(saw)
    assert "secret" not in error.saw + error.hint


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("value", ["socks5://u:secret@127.0.0.1:1080", "http://"])
def test_a_proxy_is_told_by_its_variable_however_that_is_spelled(
    variable: str, value: str, tmp_path: Path
) -> None:
    error = download("https://mirror.invalid/x", tmp_path / "file", environ={variable: value})
    assert error is not None
    assert error.saw.startswith(f"{variable} names ")
    assert error.want == "http://HOST:PORT"


@pytest.mark.parametrize("value", ["proxy.invalid:3128", "http://u:secret@proxy.invalid:3128"])
def test_a_name_that_was_taken_for_the_proxy_is_shown(value: str, tmp_path: Path) -> None:
    with raw(b"") as _:
        error = download("https://mirror.invalid/x", tmp_path / "file", environ={"https_proxy": value})
    assert error is not None
    assert error.saw.startswith(
        "DNS: proxy.invalid:3128 cannot be resolved (through the proxy proxy.invalid:3128)"
    )


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, b"", b"no certificate\n", b"-----BEGIN CERTIFICATE-----\nMIIE\n"])
def test_certificates_of_the_environment_that_are_none_are_named(
    variable: str, content: bytes | None, tmp_path: Path
) -> None:
    named = tmp_path / "named.pem"
    if content is not None:
        named.write_bytes(content)
    with raw(whole()) as server:
        error = download(f"https://{server.place}/x", tmp_path / "file", environ={variable: str(named)})
        assert error is not None
        assert error.saw.startswith(f"{named}, which {variable} names")
        assert variable in error.hint
        assert server.heads == []


# --- what a server asks for


NOW = b"Mon, 23 Nov 2026 20:15:00 GMT"


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        (b"Mon, 23 Nov 2026 20:15:07 GMT", 7.0),
        (b"Mon, 23 Nov 2026 20:14:00 GMT", 0.0),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", 60.0),
        (b"12", 12.0),
        (b"0012", 12.0),
        (b"9" * 5000, 60.0),
        (b"-7", None),
        (b"1.5", None),
        (b"7, 8", None),
        (b"Mon, 99 Nov 2026 20:15:07 GMT", None),
        (b"Mon, 23 Nov 2026 20:15:07 +0100", None),
        (b"soon", None),
    ],
)
@pytest.mark.parametrize("status", [b"503", b"429"])
def test_retry_after_is_seconds_or_a_date_by_the_servers_own_clock(
    said: bytes, waited: float | None, status: bytes, tmp_path: Path
) -> None:
    pauses: list[float] = []

    class Noting(Clock):
        def sleep(self, seconds: float) -> None:
            pauses.append(seconds)

    again = b"HTTP/1.1 %s No\r\nDate: %s\r\nRetry-After: %s\r\n\r\n" % (status, NOW, said)
    with raw(again, whole()) as server:
        means = DownloadContext(Noting(), files, {})
        fetch(
            f"http://{server.place}/x",
            str(tmp_path / "file"),
            sha256=HASH,
            limit=99,
            timeout=999,
            context=means,
        )
    (pause,) = pauses
    assert pause == waited if waited is not None else 0 <= pause <= 1


@pytest.mark.parametrize("content", ["folder", None, b"a text\n", b""])
def test_a_ca_of_receivers_that_is_none_is_named_at_once(content: bytes | str | None, tmp_path: Path) -> None:
    machine = Memory()
    path = tmp_path / "desk-ca.pem"
    if content is None:
        path = tmp_path / "absent.pem"
    elif isinstance(content, str):
        path.mkdir()
    else:
        path.write_bytes(content)
    machine.place(str(path), b"x")
    with raw(b"HTTP/1.1 200 OK\r\n\r\n") as server:
        means = message.DeliveryContext(machine, machine.monotonic() + 20, ca=str(path))
        with pytest.raises(message.UndeliveredError, match=path.name) as caught:
            registry.send(message.OutgoingReport(f"https://{server.place}/x", DOCUMENT), means)
        assert server.heads == []
    assert "attempt" not in caught.value.saw
    assert "--report-ca" in caught.value.saw
