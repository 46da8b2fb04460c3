"""Download one file: resumed, retried, bounded in time and size, and named only when its hash agrees."""

# ruff: noqa: PTH120
# (names are strings in the Host interface)

from __future__ import annotations

import contextlib
import errno
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Optional, Protocol
from urllib.parse import urlsplit

from agent.core.backoff import Backoff
from agent.core.errors import AgentError, DownloadTimeoutError
from agent.core.urls import PUSHED, redact_url
from agent.http.buffers import MemoryBuffer, PartialFile, hash_of, is_validator
from agent.http.client import ResponseHead, RetryableError, failed, stream_response

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from agent.core.host import Progress
    from agent.http.buffers import DownloadBuffer, FileSystem

_ATTEMPTS = 5
_BACKOFF = Backoff(first=1.0, cap=20.0)
# A server's Retry-After is obeyed up to so many seconds.
_RETRY_AFTER = 60.0
_PIECE = 64 * 1024

_GONE = (403, 404, 410)  # the answers of S3 and similar servers for a missing file
_TRANSIENT = (408, 425, 429)


class Clock(Protocol):
    """The clock of a host."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class ProvidedFile:
    """A file from a provider: its size in bytes, its SHA-256 at the source, and its bytes as they come."""

    size: int
    sha256: str
    pieces: Generator[bytes, None, None]


# Called with a URL and the SHA-256 that it must have, if known. Raises AgentError when the file is unavailable
# there, or stops coming.
FileProvider = Callable[[str, Optional[str]], ProvidedFile]


@dataclass(frozen=True)
class FilePart:
    """A part of a file: its bytes, the size of the whole file, and the validator of exactly this file."""

    data: bytes
    total: int
    validator: str


class SourceChangedError(Exception):
    """The part that was asked for is not there any more: the file is another."""


# Called with an offset and a validator, or an empty one, returns what the file has from there on. Raises AgentError and
# SourceChangedError.
PartReader = Callable[[int, str], FilePart]
# Called with a URL, what ends a wait by raising, and the seconds of a download, returns a reader.
PartSource = Callable[[str, Callable[[], None], float], PartReader]


@dataclass(frozen=True)
class DownloadContext:
    """What a download may use: a clock, a disk, the environment, a progress callback, and a test whether to stop.

    With a `sender` nothing is read from the network: every file comes from there. `objects` reads what s3: names.
    """

    clock: Clock
    disk: FileSystem
    environ: Mapping[str, str]
    stopped: Callable[[], bool] = lambda: False
    progress: Progress = lambda _have, _total: None
    sender: FileProvider | None = None
    objects: PartSource | None = None


@dataclass(frozen=True)
class _FetchJob:
    """One download: source, destination, and the limits of size and time."""

    url: str
    sink: DownloadBuffer
    limit: int
    timeout: float
    deadline: float
    context: DownloadContext

    def check_stopped(self) -> None:
        """Raise when the time is up or the run was interrupted."""
        if self.context.stopped():
            raise AgentError(
                "interrupted", "the run was interrupted", saw=f"downloading {redact_url(self.url)}"
            )
        if self.context.clock.monotonic() >= self.deadline:
            saw = f"{self.sink.have} bytes in {self.timeout:g} s"
            raise failed(self.url, saw, want="the complete file in that time", kind=DownloadTimeoutError)

    def add(self, data: bytes, total: int | None) -> None:
        self.check_size(self.sink.have + len(data))
        self.sink.add(data)
        self.context.progress(self.sink.have, total)

    def check_size(self, size: int | None) -> None:
        if size is not None and size > self.limit:
            self.sink.forget()
            raise failed(self.url, f"more than {self.limit} bytes", want=f"at most {self.limit} bytes")


def fetch(
    url: str, path: str, *, sha256: str | None, limit: int, timeout: float, context: DownloadContext
) -> str:
    """Do what Host.download promises.

    Redirects are followed, but never from https to http. Of the environment the proxies and the trusted CA
    file (SSL_CERT_FILE, REQUESTS_CA_BUNDLE) count; a ~/.netrc does not.
    """
    want = sha256.lower() if sha256 else None
    part = PartialFile(url, path, context.disk)
    job = _FetchJob(url, part, limit, timeout, context.clock.monotonic() + timeout, context)
    try:
        if want is not None and hash_of(context.disk, path) == want:
            return want
        context.disk.make_folders(os.path.dirname(path))
        if context.sender is not None:
            sent = context.sender(url, want)
            want = want or sent.sha256
            _take(job, sent)
        else:
            _bring(job)
        got = hash_of(context.disk, part.name)
        if want is not None and got != want and part.resumed:
            part.forget()  # its beginning may belong to a different file
            _bring(job)
            got = hash_of(context.disk, part.name)
        if want is not None and got != want:
            part.forget()
            raise AgentError(
                "checksum-mismatch",
                f"{redact_url(url)} is not the file that is wanted",
                saw=f"sha256:{got}",
                want=f"sha256:{want}",
            )
        part.take_name()
    except OSError as error:
        refusal = context.disk.write_error(error, part.name)
        if refusal.code.name == "no-space":
            with contextlib.suppress(AgentError):
                part.forget()  # a disk that the agent filled must not stay full
        raise refusal from error
    return got


def get(url: str, *, limit: int, timeout: float, context: DownloadContext) -> bytes:
    """Do what HostView.http_get promises; any scheme but https is refused."""
    if _scheme(url) != "https":
        raise failed(url, "not an https URL", want="https://")
    heap = MemoryBuffer()
    _download(_FetchJob(url, heap, limit, timeout, context.clock.monotonic() + timeout, context))
    return bytes(heap.data)


def _bring(job: _FetchJob) -> None:
    local = _local_path(job.url, job.context.disk)
    if local is not None:
        _copy(job, local)
    elif job.context.objects is not None and _scheme(job.url) == "s3":
        _read_parts(job, job.context.objects(job.url, job.check_stopped, job.timeout))
    else:
        _download(job)


def _take(job: _FetchJob, sent: ProvidedFile) -> None:
    """Fill the sink from the provider."""
    with contextlib.closing(sent.pieces) as pieces:
        job.check_size(sent.size)
        job.sink.begin(0, "")
        try:
            for data in pieces:
                job.check_stopped()
                job.add(data, sent.size)
        finally:
            job.sink.end()


def _read_parts(job: _FetchJob, read: PartReader) -> None:
    """Fill the sink part by part; from the beginning once more where the file turns out to be another."""
    try:
        _append_parts(job, read)
    except SourceChangedError:
        job.sink.forget()
        try:
            _append_parts(job, read)
        except SourceChangedError as error:
            raise failed(job.url, str(error), want="a file that stays the same while it is read") from None


def _append_parts(job: _FetchJob, read: PartReader) -> None:
    start, validator = job.sink.resumable()
    part = read(start, validator)
    job.check_size(part.total)
    job.sink.begin(start, part.validator)
    try:
        while True:
            job.check_stopped()
            job.add(part.data, part.total)
            if job.sink.have >= part.total:
                return
            part = read(job.sink.have, part.validator)
    finally:
        job.sink.end()


def _local_path(url: str, disk: FileSystem) -> str | None:
    """Return the path that `file:` or a bare path names, None for anything else; `C:` is a drive and no scheme."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", url) is None:
        return url
    if not url.lower().startswith("file:"):
        return None
    rest = url[len("file:") :]
    return disk.local_path("/" + rest[2:].partition("/")[2] if rest.startswith("//") else rest)


def _scheme(url: str) -> str:
    with contextlib.suppress(ValueError):
        return urlsplit(url).scheme
    return ""


def _copy(job: _FetchJob, source: str) -> None:
    """Copy a local file, without ever blocking on a FIFO or a device."""
    try:
        fd = job.context.disk.open_to_read(source)
    except (FileNotFoundError, NotADirectoryError):
        raise AgentError(
            "package-not-found", f"{source} is not there", saw="no such file", want=source
        ) from None
    except OSError as error:
        want = "a regular file" if error.errno == errno.EINVAL else ""
        raise failed(job.url, error.strerror or str(error), want=want) from error
    with os.fdopen(fd, "rb") as file:
        total = os.fstat(fd).st_size
        job.check_size(total)
        job.sink.begin(0, "")
        try:
            for data in iter(lambda: file.read(_PIECE), b""):
                job.check_stopped()
                job.add(data, total)
        finally:
            job.sink.end()


def _download(job: _FetchJob) -> None:
    """Fill the sink from a server, with further attempts where they can help."""
    if job.url.startswith(f"{PUSHED}/"):
        raise AgentError(
            "download-failed", "the package comes with a roll-out, and no roll-out sends it now", saw=job.url,
            want="a roll-out, or a package source that this host can reach",
            hint="`hsm-agent fleet rollout` from where this host was configured sends it; or name a mirror or a "
            "directory here: `hsm-agent configure --package-source URL|DIR`",
        )  # fmt: skip
    if _scheme(job.url) not in ("http", "https"):
        raise failed(job.url, "a kind of URL the agent does not know", want="https, http, s3, file or a path")
    saw = ""
    for attempt in range(1, _ATTEMPTS + 1):
        before = job.sink.have
        try:
            again = _attempt(job)
        except DownloadTimeoutError as error:
            if not saw or job.sink.have != before:
                raise
            # the error of the previous attempt is the cause, and not that no time is left to see it again
            raise failed(job.url, f"{saw}; the next had no answer within {job.timeout:g} s") from error
        if again is None:
            return
        saw = f"{again}; attempt {attempt} of {_ATTEMPTS}"
        wait = _BACKOFF.pause(attempt) if again.after is None else again.after
        if attempt == _ATTEMPTS:
            raise failed(job.url, saw)
        if job.context.clock.monotonic() + wait >= job.deadline:
            raise failed(job.url, f"{saw}; no time for another within {job.timeout:g} s")
        job.context.clock.sleep(wait)


def _attempt(job: _FetchJob) -> RetryableError | None:
    """Send one request and add the answer; return why another is needed, None when the file is complete."""
    have, validator = job.sink.resumable()
    headers = {"Range": f"bytes={have}-", "If-Range": validator} if have else {}
    try:
        with contextlib.closing(
            stream_response(job.url, headers, environ=job.context.environ, check_stopped=job.check_stopped)
        ) as coming:
            total: int | None = None
            for item in coming:
                if isinstance(item, ResponseHead):
                    start, total = _judge(job, item, have)
                    job.check_size(total)
                    job.sink.begin(start, _validator(item))
                else:
                    job.add(item, total)
    except RetryableError as again:
        return again
    finally:
        job.sink.end()
    if total is not None and job.sink.have != total:
        return RetryableError(f"the connection ended after {job.sink.have} of {total} bytes")
    return None


def _judge(job: _FetchJob, head: ResponseHead, have: int) -> tuple[int, int | None]:
    """Return where in the file the body starts and how long the file is, or why the body is unusable."""
    if head.status == 200:
        return 0, head.number("Content-Length")
    if have and head.status in (206, 416):
        match = re.fullmatch(
            r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", head.headers.get("Content-Range", "")
        )
        if head.status == 206 and match and int(match[1]) == have:
            return have, None if match[2] == "*" else int(match[2])
        job.sink.forget()
        raise RetryableError(f"{head.said}, which does not continue the part that is here", after=0)
    if head.status in _GONE:
        raise AgentError(
            "package-not-found",
            f"{redact_url(job.url)} is not there",
            saw=head.said,
            want=redact_url(job.url),
        )
    if head.status >= 500 or head.status in _TRANSIENT:
        raise RetryableError(head.said, after=head.retry_after(_RETRY_AFTER))
    if head.status == 407:
        raise failed(job.url, f"{head.said}: the proxy wants a user and a password", want="HTTP 200")
    raise failed(job.url, head.said, want="HTTP 200")


def _validator(head: ResponseHead) -> str:
    """Return the validator of these exact bytes; a weak ETag does not count (RFC 9110, section 13.1.5)."""
    tag = head.headers.get("ETag", "")
    return tag if is_validator(tag) else head.headers.get("Last-Modified", "")
