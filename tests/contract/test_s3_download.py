"""Packages from S3: in parts, resumed and tried again, bounded, and named only when the hash agrees; against moto."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from agent.aws.access import AwsAccess
from agent.aws.objects import PART, ObjectReader
from agent.core.errors import AgentError, DownloadTimeoutError
from agent.hosts import files
from agent.hosts.posix import Posix
from agent.http.download import DownloadContext, fetch
from tests.fakes.aws import KEYS, SECRET, TOKEN, RealTime, says
from tests.fakes.moto_server import REGION, client, server_with_bucket, user_who_may
from tests.fakes.receiver import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.http.download import PartReader
    from tests.fakes.aws_server import AwsServer

DATA = bytes(range(256)) * (2 * PART // 256) + b"the last part"
HASH = hashlib.sha256(DATA).hexdigest()
KEY = "mirror/EL9/cloudhsm-cli-5.18.0-1.el9.x86_64.rpm"
URL = f"s3://packages/{KEY}"
LIMIT = 100 * 1024 * 1024
_BROKEN = says("<Error><Code>InternalError</Code></Error>", 500)


@pytest.fixture(scope="module")
def running() -> Iterator[AwsServer]:
    with server_with_bucket("packages") as server:
        yield server


@pytest.fixture
def server(running: AwsServer) -> AwsServer:
    running.misbehave()
    client(running.url, "s3").put_object(Bucket="packages", Key=KEY, Body=DATA)
    running.calls.clear()
    return running


class Download:
    """A download into a folder of its own; what it says when it fails holds no secret."""

    def __init__(self, server: AwsServer, folder: Path) -> None:
        self.environ = {**KEYS, "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url}
        self.path = folder / "cli.rpm"
        self.seen: list[tuple[int, int | None]] = []
        self.between: Callable[[], None] = lambda: None

    def objects(self, url: str, check_stopped: Callable[[], None], seconds: float) -> PartReader:
        return ObjectReader(AwsAccess(RealTime(), self.environ), url, check_stopped, seconds).read

    def progress(self, have: int, total: int | None) -> None:
        self.seen.append((have, total))
        self.between()

    def run(self, url: str = URL, sha256: str | None = HASH, limit: int = LIMIT, timeout: float = 60) -> str:
        context = DownloadContext(RealTime(), files, {}, progress=self.progress, objects=self.objects)
        return fetch(url, str(self.path), sha256=sha256, limit=limit, timeout=timeout, context=context)

    def fails(self, url: str = URL, sha256: str | None = HASH, limit: int = LIMIT) -> AgentError:
        with pytest.raises(AgentError) as caught:
            self.run(url, sha256, limit)
        error = caught.value
        text = f"{error} {error.sentence} {error.saw} {error.want} {error.hint}"
        assert SECRET not in text
        assert TOKEN not in text
        assert not self.path.exists()
        return error


@pytest.fixture
def download(server: AwsServer, tmp_path: Path) -> Download:
    return Download(server, tmp_path)


def left(download: Download) -> list[str]:
    return sorted(each.name for each in download.path.parent.iterdir())


def ranges(server: AwsServer) -> int:
    return server.permissions().count("s3:GetObject")


def test_a_file_comes_in_parts_and_has_its_hash(server: AwsServer, download: Download) -> None:
    assert download.run() == HASH
    assert download.path.read_bytes() == DATA
    assert left(download) == ["cli.rpm"]
    assert download.seen == [(PART, len(DATA)), (2 * PART, len(DATA)), (len(DATA), len(DATA))]
    assert ranges(server) == 3
    assert download.run() == HASH
    assert ranges(server) == 3


def test_a_host_downloads_it_by_itself(server: AwsServer, tmp_path: Path) -> None:
    host = Posix(environ={**KEYS, "AWS_ENDPOINT_URL": server.url})
    path = str(tmp_path / "cli.rpm")
    assert host.download(f"{URL}?region={REGION}", path, sha256=HASH, limit=LIMIT, timeout=60) == HASH


def test_an_operator_downloads_it_with_other_credentials_than_the_machine_has(
    server: AwsServer, download: Download
) -> None:
    machine = Posix(environ={"AWS_EC2_METADATA_DISABLED": "true"}, objects=download.objects)
    assert machine.download(URL, str(download.path), sha256=HASH, limit=LIMIT, timeout=60) == HASH


def test_a_part_that_fails_is_asked_for_again_and_no_other(server: AwsServer, download: Download) -> None:
    server.misbehave(None, _BROKEN, None)
    assert download.run() == HASH
    assert ranges(server) == 4


def test_a_download_that_was_interrupted_is_resumed(server: AwsServer, download: Download) -> None:
    def stop() -> None:
        raise AgentError("interrupted", "the run was interrupted")

    download.between = stop
    assert download.fails().code.name == "interrupted"
    assert left(download) == ["cli.rpm.part", "cli.rpm.part.from"]
    download.between = lambda: None
    download.seen.clear()
    assert download.run() == HASH
    assert download.seen[0] == (2 * PART, len(DATA))
    assert left(download) == ["cli.rpm"]


def test_an_object_that_changes_meanwhile_is_read_from_its_beginning(
    server: AwsServer, download: Download
) -> None:
    other = DATA[::-1]

    def change() -> None:
        download.between = lambda: None
        client(server.url, "s3").put_object(Bucket="packages", Key=KEY, Body=other)

    download.between = change
    want = hashlib.sha256(other).hexdigest()
    assert download.run(sha256=want) == want
    assert [have for have, _ in download.seen] == [PART, PART, 2 * PART, len(DATA)]


def test_an_object_that_changes_all_the_time_is_given_up(server: AwsServer, download: Download) -> None:
    server.misbehave(None, says("<Error><Code>PreconditionFailed</Code></Error>", 412), None,
                     says("<Error><Code>PreconditionFailed</Code></Error>", 412))  # fmt: skip
    error = download.fails()
    assert error.code.name == "download-failed"
    assert "stays the same" in error.want


def test_other_bytes_are_refused_and_not_kept(download: Download) -> None:
    error = download.fails(sha256="0" * 64)
    assert (error.code.name, error.saw) == ("checksum-mismatch", f"sha256:{HASH}")
    assert left(download) == []


@pytest.mark.parametrize("url", ["s3://packages/mirror/none.rpm", "s3://no-such-bucket-at-all/x.rpm"])
def test_what_is_not_there_is_a_package_that_is_not_found(download: Download, url: str) -> None:
    error = download.fails(url)
    assert (error.code.name, error.sentence) == ("package-not-found", f"{url} is not there")


def test_more_than_the_limit_is_refused_before_it_comes(server: AwsServer, download: Download) -> None:
    error = download.fails(limit=len(DATA) - 1)
    assert (error.code.name, error.saw) == ("download-failed", f"more than {len(DATA) - 1} bytes")
    assert ranges(server) == 1


def test_an_empty_object_is_no_package(server: AwsServer, download: Download) -> None:
    server.misbehave(says("<Error><Code>InvalidRange</Code><Message>not satisfiable</Message></Error>", 416))
    error = download.fails("s3://packages/empty.rpm")
    assert (error.code.name, error.saw) == ("download-failed", "InvalidRange: not satisfiable")


def test_a_denial_stays_one_with_the_action(server: AwsServer, download: Download) -> None:
    download.environ.update(user_who_may(server.url, "s3:ListBucket"))
    with server.enforcing():
        error = download.fails()
    assert (error.code.name, error.code.exit_status) == ("aws-denied", 12)
    assert "s3:GetObject" in error.sentence


def test_what_fails_for_good_says_how_often_it_was_tried(server: AwsServer, download: Download) -> None:
    server.misbehave(None, _BROKEN)
    error = download.fails()
    assert error.code.name == "aws-unreachable"
    assert "5 tries" in error.saw


def test_a_bucket_of_another_region_is_found_once(server: AwsServer, download: Download) -> None:
    elsewhere = "<Error><Code>PermanentRedirect</Code></Error>"
    server.misbehave(says(elsewhere, 301, x_amz_bucket_region="us-west-2"), None)
    assert download.run() == HASH
    assert [call.region for call in server.calls if call.service == "s3"] == [REGION, *["us-west-2"] * 3]


def test_a_download_ends_when_its_time_is_over(server: AwsServer, download: Download) -> None:
    server.misbehave(None, silent)
    with pytest.raises(DownloadTimeoutError) as caught:
        download.run(timeout=1)
    assert caught.value.saw == f"{PART} bytes in 1 s"
