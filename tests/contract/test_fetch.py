"""Downloads against a real server on the loopback that does everything a mirror, a proxy or a network does wrong."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import socket
import ssl
import struct
import subprocess
import termios
import threading
import time
from typing import TYPE_CHECKING, Callable

import pytest

import agent
from agent.core.errors import AgentError
from agent.hosts import files
from agent.hosts.posix import Posix
from agent.http.download import DownloadContext, fetch, get
from tests.fakes.http_server import AnswersInTurn, QuietHandler, serving
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

DATA = b"".join(f"line {number}\n".encode() for number in range(20_000))
HASH = hashlib.sha256(DATA).hexdigest()
TAG = '"v1"'
LIMIT = 10_000_000


class Clock:
    """Real time, except that pauses are noted instead of waited for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return time.monotonic() + sum(self.pauses)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Exchange(QuietHandler):
    """One request, given to the answer whose turn it is."""

    server: Mirror

    def do_GET(self) -> None:
        self.server.answer_next(self, dict(self.headers))

    def reset(self) -> None:
        """Break the connection as a crashed server does, once the other side has what was sent."""
        while struct.unpack("i", fcntl.ioctl(self.connection, termios.TIOCOUTQ, b"\0" * 4))[0]:
            if self.server.over.wait(0.001):
                return
        super().reset()


Answer = Callable[[Exchange], object]


class Mirror(AnswersInTurn):
    """A mirror with one file."""

    @property
    def url(self) -> str:
        return f"{self.origin}/Noble/client.deb"


def mirror(*answers: Answer, context: ssl.SSLContext | None = None) -> AbstractContextManager[Mirror]:
    return serving(Mirror(answers, Exchange, context))


def whole(exchange: Exchange) -> None:
    """The file, or the rest of it, as S3 gives it."""
    start = exchange.headers.get("Range")
    if start and exchange.headers.get("If-Range") == TAG:
        first = int(start[len("bytes=") : -1])
        size = len(DATA)
        content_range = f"bytes {first}-{size - 1}/{size}"
        exchange.head(206, Content_Length=size - first, Content_Range=content_range, ETag=TAG)
        exchange.wfile.write(DATA[first:])
    else:
        exchange.head(Content_Length=len(DATA), ETag=TAG)
        exchange.wfile.write(DATA)


def only(status: int, **headers: object) -> Answer:
    return lambda exchange: exchange.head(status, Content_Length=0, **headers)


def half(exchange: Exchange, **headers: object) -> None:
    exchange.head(200, Content_Length=len(DATA), **headers)
    exchange.wfile.write(DATA[: len(DATA) // 2])


def half_then_reset(exchange: Exchange) -> None:
    half(exchange, ETag=TAG)
    exchange.reset()


def ranges(server: Mirror) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.requests]


class Download:
    """A folder to download into, and what a download may use."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "client.deb"
        self.clock = Clock()
        self.stop = threading.Event()
        self.progress: list[tuple[int, int | None]] = []

    def __call__(
        self,
        url: str,
        *,
        sha256: str | None = HASH,
        limit: int = LIMIT,
        timeout: float = 3600,
        environ: Mapping[str, str] | None = None,
    ) -> str:
        means = DownloadContext(
            self.clock, files, environ or {}, self.stop.is_set, lambda *how_far: self.progress.append(how_far)
        )
        return fetch(url, str(self.path), sha256=sha256, limit=limit, timeout=timeout, context=means)

    def fails(self, code: str, url: str, **how: object) -> str:
        """What is seen of a download that must fail, and that must leave nothing under the final name."""
        with pytest.raises(AgentError) as caught:
            self(url, **how)  # type: ignore[arg-type]
        error = caught.value
        assert error.code.name == code, f"{error.sentence}: {error.saw}"
        assert not self.path.exists()
        words = f"{error.sentence} {error.saw} {error.want} {error.hint}"
        assert "secret" not in words
        return error.saw

    @property
    def left(self) -> list[str]:
        return sorted(each.name for each in self.path.parent.iterdir())


@pytest.fixture
def download(tmp_path: Path) -> Download:
    return Download(tmp_path)


def certificate(folder: Path, days: int) -> tuple[ssl.SSLContext, dict[str, str]]:
    """A server with a certificate of its own, and an environment that trusts it."""
    key, request, cert, names = (folder / name for name in ("key.pem", "request.pem", "cert.pem", "names"))
    names.write_text("subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:TRUE\n")
    for command in (
        f"openssl req -newkey rsa:2048 -nodes -subj /CN=mirror -keyout {key} -out {request}",
        f"openssl x509 -req -in {request} -signkey {key} -days {days} -extfile {names} -out {cert}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, {"SSL_CERT_FILE": str(cert)}


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, dict[str, str]]:
    return certificate(tmp_path_factory.mktemp("https"), 2)


# --- when all is well


def test_a_file_takes_its_name_when_it_is_whole(download: Download) -> None:
    with mirror(whole) as server:
        assert download(server.url) == HASH
    assert download.path.read_bytes() == DATA
    assert (download.left, download.path.stat().st_mode & 0o777) == (["client.deb"], 0o644)
    assert download.progress[-1] == (len(DATA), len(DATA))
    (_, headers) = server.requests[0]
    assert (headers["User-Agent"], headers["Accept-Encoding"]) == (
        f"hsm-agent/{agent.__version__}",
        "identity",
    )


def test_a_file_that_is_there_already_is_not_asked_for(download: Download) -> None:
    download.path.write_bytes(DATA)
    with mirror(whole) as server:
        assert download(server.url, sha256=HASH.upper()) == HASH
    assert server.requests == []


def test_without_a_wanted_hash_the_hash_is_told(download: Download) -> None:
    download.path.write_bytes(b"old")
    with mirror(whole) as server:
        assert download(server.url, sha256=None) == HASH
    assert download.path.read_bytes() == DATA


def test_a_body_of_unknown_length_is_taken_to_its_end(download: Download) -> None:
    def chunked(exchange: Exchange) -> None:
        exchange.head(Transfer_Encoding="chunked")
        exchange.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(DATA), DATA))

    with mirror(chunked) as server:
        assert download(server.url) == HASH
    assert download.progress[-1] == (len(DATA), None)


# --- when it is not there, or the server is ill


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_there_is_told_at_once(download: Download, status: int) -> None:
    with mirror(only(status)) as server:
        assert download.fails("package-not-found", server.url) == f"HTTP {status}"
    assert (len(server.requests), download.clock.pauses) == (1, [])


@pytest.mark.parametrize("status", [400, 401, 407, 304])
def test_an_answer_that_will_stay_is_not_asked_for_again(download: Download, status: int) -> None:
    with mirror(only(status)) as server:
        assert download.fails("download-failed", server.url).startswith(f"HTTP {status}")
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_recovers_is_waited_for(download: Download, status: int) -> None:
    with mirror(only(status), only(status), whole) as server:
        assert download(server.url) == HASH
    assert len(server.requests) == 3
    assert [0 <= pause <= most for pause, most in zip(download.clock.pauses, (1, 2))] == [True, True]


def test_a_server_that_does_not_recover_is_given_up(download: Download) -> None:
    with mirror(only(502)) as server:
        assert download.fails("download-failed", server.url) == "HTTP 502; attempt 5 of 5"
    assert (len(server.requests), len(download.clock.pauses)) == (5, 4)


@pytest.mark.parametrize(("said", "waited"), [("7", 7.0), ("86400", 60.0), ("0", 0.0)])
def test_retry_after_is_honoured_within_reason(download: Download, said: str, waited: float) -> None:
    with mirror(only(503, Retry_After=said), whole) as server:
        download(server.url)
    assert download.clock.pauses == [waited]


def test_no_attempt_begins_after_the_time(download: Download) -> None:
    with mirror(only(503, Retry_After="50")) as server:
        saw = download.fails("download-failed", server.url, timeout=120)
    assert saw == "HTTP 503; attempt 3 of 5; no time for another within 120 s"
    assert download.clock.pauses == [50, 50]


# --- when the connection breaks


def test_a_broken_download_is_continued(download: Download) -> None:
    with mirror(half_then_reset, whole) as server:
        assert download(server.url) == HASH
    assert ranges(server) == [None, f"bytes={len(DATA) // 2}-"]
    assert server.requests[1][1]["If-Range"] == TAG
    assert (download.path.read_bytes(), download.left) == (DATA, ["client.deb"])


def test_a_killed_run_is_continued_by_the_next(download: Download) -> None:
    with mirror(half_then_reset) as server:
        saw = download.fails("download-failed", server.url + "?token=secret")
        assert saw == "Connection reset by peer; attempt 5 of 5"
        assert download.left == ["client.deb.part", "client.deb.part.from"]
        assert "secret" not in download.path.with_name("client.deb.part.from").read_text()
        server.answers = (whole,)
        assert download(server.url + "?token=secret") == HASH
    assert ranges(server)[-1] == f"bytes={len(DATA) // 2}-"


def test_a_body_that_ends_early_is_continued(download: Download) -> None:
    with mirror(lambda exchange: half(exchange, ETag=TAG), whole) as server:
        assert download(server.url) == HASH
    assert ranges(server) == [None, f"bytes={len(DATA) // 2}-"]


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"v1"'}], ids=["no validator", "a weak one"])
def test_what_may_be_other_bytes_is_not_continued(download: Download, headers: dict[str, str]) -> None:
    with mirror(lambda exchange: half(exchange, **headers), whole) as server:
        assert download(server.url) == HASH
    assert ranges(server) == [None, None]


def test_a_part_of_another_url_is_not_continued(download: Download) -> None:
    with mirror(half_then_reset) as server:
        download.fails("download-failed", server.url)
        server.answers = (whole,)
        assert download(server.url + "2") == HASH
    assert ranges(server)[-1] is None


def test_a_server_that_ignores_the_range_is_followed(download: Download) -> None:
    def from_the_start(exchange: Exchange) -> None:
        exchange.head(Content_Length=len(DATA))
        exchange.wfile.write(DATA)

    with mirror(half_then_reset, from_the_start) as server:
        assert download(server.url) == HASH
    assert download.path.read_bytes() == DATA


def test_another_range_than_asked_for_is_refused(download: Download) -> None:
    def wrong(exchange: Exchange) -> None:
        exchange.head(206, Content_Length=5, Content_Range=f"bytes 3-7/{len(DATA)}")
        exchange.wfile.write(DATA[3:8])

    with mirror(half_then_reset, wrong, whole) as server:
        assert download(server.url) == HASH
    assert [start is None for start in ranges(server)] == [True, False, True]


def test_a_part_beyond_the_end_is_begun_again(download: Download) -> None:
    with mirror(half_then_reset, only(416), whole) as server:
        assert download(server.url) == HASH
    assert ranges(server)[2] is None


def test_nobody_listening_is_told(download: Download) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://user:secret@127.0.0.1:{bound.getsockname()[1]}/x?secret#secret"
        assert download.fails("download-failed", url) == "Connection refused; attempt 5 of 5"


def test_a_name_that_cannot_be_resolved_is_told(download: Download) -> None:
    # an interface that does not exist: the resolver refuses without asking anybody
    saw = download.fails("download-failed", "http://[fe80::1%25hsm-agent-no]/x")
    assert saw.startswith("DNS: ")


# --- when it takes too long


def drip(exchange: Exchange) -> None:
    exchange.head(Content_Length=len(DATA))
    for _ in range(200):
        exchange.wfile.write(b"x")
        exchange.wfile.flush()
        if exchange.server.over.wait(0.02):
            return


def drip_header(exchange: Exchange) -> None:
    for _ in range(200):
        exchange.connection.sendall(b"H")
        if exchange.server.over.wait(0.02):
            return


def silence(exchange: Exchange) -> None:
    exchange.server.over.wait(10)


@pytest.mark.parametrize("answer", [drip, drip_header, silence])
def test_a_server_that_never_ends_is_left(download: Download, answer: Answer) -> None:
    start = time.monotonic()
    with mirror(answer) as server:
        saw = download.fails("download-failed", server.url, timeout=0.5)
    assert time.monotonic() - start < 3
    assert re.fullmatch(r"\d+ bytes in 0\.5 s", saw)


@pytest.mark.parametrize(
    ("answer", "saw"),
    [
        (silence, r"HTTP 503; attempt 1 of 5; the next had no answer within 0\.5 s"),
        (drip, r"[1-9]\d* bytes in 0\.5 s"),
    ],
)
def test_when_the_time_is_up_what_was_wrong_before_is_told_unless_it_went_on(
    download: Download, answer: Answer, saw: str
) -> None:
    with mirror(only(503, Retry_After="0"), answer) as server:
        assert re.fullmatch(saw, download.fails("download-failed", server.url, timeout=0.5))
    assert len(server.requests) == 2


def test_an_interrupt_ends_a_download(download: Download) -> None:
    def stop(exchange: Exchange) -> None:
        download.stop.set()
        exchange.server.over.wait(10)

    start = time.monotonic()
    with mirror(stop) as server:
        download.fails("interrupted", server.url)
    assert time.monotonic() - start < 3


# --- when the bytes are wrong


def test_wrong_bytes_are_refused_and_removed(download: Download) -> None:
    def page(exchange: Exchange) -> None:
        exchange.head(Content_Length=6, ETag=TAG)
        exchange.wfile.write(b"<html>")

    with mirror(page) as server:
        saw = download.fails("checksum-mismatch", server.url)
    assert saw == "sha256:" + hashlib.sha256(b"<html>").hexdigest()
    assert (len(server.requests), download.left) == (1, [])


def test_a_part_of_other_bytes_is_begun_again_once(download: Download) -> None:
    def other_half(exchange: Exchange) -> None:
        exchange.head(Content_Length=len(DATA), ETag=TAG)
        exchange.wfile.write(b"x" * 1000)
        exchange.reset()

    with mirror(other_half, whole) as server:
        assert download(server.url) == HASH
    assert [start is None for start in ranges(server)] == [True, False, True]


@pytest.mark.parametrize("length", [True, False], ids=["announced", "found out"])
def test_a_file_that_is_too_large_is_refused(download: Download, length: bool) -> None:
    def large(exchange: Exchange) -> None:
        exchange.head(200, **({"Content_Length": len(DATA)} if length else {"Connection": "close"}))
        exchange.wfile.write(DATA)

    with mirror(large) as server:
        assert download.fails("download-failed", server.url, limit=1000) == "more than 1000 bytes"
    assert (len(server.requests), download.left) == (1, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_full_disk_is_told(download: Download) -> None:
    folder = download.path.parent
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "hsm-agent-test", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount here; the lab does")
    try:
        with mirror(whole) as server:
            assert "No space left on device" in download.fails("no-space", server.url)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# --- redirects


def to(goal: str) -> Answer:
    return only(302, Location=goal)


def test_a_redirect_is_followed(download: Download) -> None:
    with mirror(to("/other?a=b"), whole) as server:
        assert download(server.url) == HASH
    assert [path for path, _ in server.requests] == ["/Noble/client.deb", "/other?a=b"]


def test_a_redirect_loop_ends(download: Download) -> None:
    with mirror(to("/Noble/client.deb?secret")) as server:
        saw = download.fails("download-failed", server.url)
    assert saw == f"more than 5 redirects, the last to {server.url}"
    assert len(server.requests) == 6


def test_a_redirect_out_of_https_is_refused(
    download: Download, https: tuple[ssl.SSLContext, dict[str, str]]
) -> None:
    context, trusting = https
    with mirror(whole) as plain, mirror(to(plain.url), context=context) as server:
        saw = download.fails("download-failed", server.url, environ=trusting)
    assert saw == f"redirected from {server.url} to {plain.url}"
    assert plain.requests == []


@pytest.mark.parametrize("goal", ["file:///etc/passwd", "http://[::1"])
def test_a_redirect_to_something_else_is_refused(download: Download, goal: str) -> None:
    with mirror(to(goal)) as server:
        assert "redirect" in download.fails("download-failed", server.url)
    assert (len(server.requests), download.clock.pauses) == (1, [])


# --- TLS and proxies


def test_https_is_believed_when_the_host_trusts_it(
    download: Download, https: tuple[ssl.SSLContext, dict[str, str]]
) -> None:
    context, trusting = https
    with mirror(whole, context=context) as server:
        assert download(server.url, environ=trusting) == HASH


def test_a_certificate_nobody_trusts_is_told_at_once(
    download: Download, https: tuple[ssl.SSLContext, dict[str, str]]
) -> None:
    with mirror(whole, context=https[0]) as server:
        saw = download.fails("download-failed", server.url)
    assert saw.startswith("the server's certificate: self")
    assert (server.requests, download.clock.pauses) == ([], [])


def test_an_expired_certificate_points_to_the_clock(download: Download, tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    context, trusting = certificate(tmp_path / "pki", -1)
    with mirror(whole, context=context) as server, pytest.raises(AgentError) as caught:
        download(server.url, environ=trusting)
    assert caught.value.saw == "the server's certificate: certificate has expired"
    assert "date -u" in caught.value.hint


def test_a_server_without_tls_is_told(download: Download) -> None:
    with mirror(whole) as server:
        saw = download.fails("download-failed", server.url.replace("http:", "https:"))
    assert saw.startswith("TLS: ")


def test_a_proxy_of_the_environment_is_used(download: Download) -> None:
    with mirror(whole) as proxy:
        environ = {"http_proxy": f"http://127.0.0.1:{proxy.server_port}"}
        assert download("http://mirror.invalid/x", environ=environ) == HASH
    assert proxy.requests[0][0] == "http://mirror.invalid/x"


def test_no_proxy_is_honoured(download: Download) -> None:
    with mirror(whole) as server, mirror(only(500)) as proxy:
        environ = {"http_proxy": f"http://127.0.0.1:{proxy.server_port}", "no_proxy": "127.0.0.1"}
        assert download(server.url, environ=environ) == HASH
    assert proxy.requests == []


def test_a_proxy_that_fails_is_named_without_its_password(download: Download) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{bound.getsockname()[1]}"
        environ = {"https_proxy": f"http://user:secret@{where}"}
        saw = download.fails("download-failed", "https://mirror.invalid/x", environ=environ)
    assert saw == f"Connection refused (through the proxy {where}); attempt 5 of 5"


# --- files of this host


def test_files_are_copied(download: Download, tmp_path: Path) -> None:
    source = tmp_path / "a b%20"
    source.write_bytes(DATA)
    for url in (str(source), f"file://{tmp_path}/a%20b%2520", f"file:{tmp_path}/a%20b%2520"):
        assert download(url) == HASH
        assert download.path.read_bytes() == DATA
        download.path.unlink()
    assert source.read_bytes() == DATA


def test_a_file_that_cannot_be_copied_is_told(download: Download, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    source = tmp_path / "source"
    source.write_bytes(b"other")
    assert download.fails("package-not-found", str(tmp_path / "absent")) == "no such file"
    assert download.fails("download-failed", str(tmp_path)) == "not a regular file"
    assert download.fails("download-failed", str(tmp_path / "fifo")) == "not a regular file"
    assert download.fails("download-failed", str(source), limit=4) == "more than 4 bytes"
    assert download.fails("checksum-mismatch", str(source)).startswith("sha256:")


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "s3://bucket/x", "http://", "http://[::1", "https://a b/"]
)
def test_what_is_no_url_we_know_is_told(download: Download, url: str) -> None:
    download.fails("download-failed", url)


# --- get, and the hosts


def test_get_brings_what_https_holds(https: tuple[ssl.SSLContext, dict[str, str]]) -> None:
    context, trusting = https
    means = DownloadContext(Clock(), files, trusting)
    with mirror(half_then_reset, whole, context=context) as server:
        assert get(server.url, limit=LIMIT, timeout=60, context=means) == DATA
        with pytest.raises(AgentError, match="could not be downloaded") as caught:
            get(server.url, limit=1000, timeout=60, context=means)
        assert caught.value.saw == "more than 1000 bytes"
    assert ranges(server) == [None] * 3


def test_get_takes_nothing_but_https(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1/ca", str(tmp_path), f"file://{tmp_path}"):
        for host in (Posix(), Memory()):
            with pytest.raises(AgentError) as caught:
                host.http_get(url, limit=10, timeout=5)
            assert (caught.value.code.name, caught.value.saw) == ("download-failed", "not an https URL")


def test_the_hosts_fetch_alike(tmp_path: Path) -> None:
    path = str(tmp_path / "folder" / "file")
    with mirror(whole, only(404)) as server:
        told: list[tuple[int, int | None]] = []
        posix = Posix(progress=lambda *how_far: told.append(how_far), environ={})
        missing = AgentError("package-not-found", "it is not there")
        memory = Memory(urls={server.url: DATA, server.url + "2": missing})
        for host in (posix, memory):
            assert host.download(server.url, path, sha256=HASH, limit=LIMIT, timeout=60) == HASH
            assert host.read(path) == DATA
            for url, code in ((server.url, "checksum-mismatch"), (server.url + "2", "package-not-found")):
                host.remove(path)
                if host is posix:
                    server.answers = (whole,) if code == "checksum-mismatch" else (only(404),)
                with pytest.raises(AgentError) as caught:
                    host.download(url, path, sha256="0" * 64, limit=LIMIT, timeout=60)
                assert (caught.value.code.name, host.read(path)) == (code, None)
    assert told[-1] == (len(DATA), len(DATA))
    assert memory.touches[0] == ("download", server.url, path)
