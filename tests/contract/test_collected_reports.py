"""`fleet status --from s3://`, against moto: what hosts left there is read, and every way in which it cannot be."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agent.aws.access import AwsAccess
from agent.core.errors import AgentError
from agent.fleet.collected import status as collected
from agent.fleet.collected.sources import BucketSource
from agent.fleet.collected.spool import ReportSpool
from agent.hosts.posix import Posix
from agent.render.json_report import schema
from tests.fakes.aws import KEYS, says
from tests.fakes.moto_server import REGION, aws_server, client, user_who_may
from tests.fakes.visits import REPORT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.aws_server import AwsServer

PREFIX = "fleet ü+%/a&b"


@pytest.fixture(scope="module")
def running() -> Iterator[AwsServer]:
    with aws_server() as server:
        s3 = client(server.url, "s3")
        s3.create_bucket(Bucket="reports", CreateBucketConfiguration={"LocationConstraint": REGION})
        for number in range(40):
            put(s3, f"{PREFIX}/web-{number}.json", report(f"web-{number}"))
        put(s3, f"{PREFIX}/", b"")
        put(s3, f"{PREFIX}/history/2026-11-23/web-1.json", b"no")
        put(s3, f"{PREFIX}x/web-99.json", b"no")
        yield server


@pytest.fixture
def server(running: AwsServer) -> AwsServer:
    running.misbehave()
    running.calls.clear()
    return running


def put(s3: Any, key: str, body: bytes) -> None:
    s3.put_object(Bucket="reports", Key=key, Body=body)


def report(name: str) -> bytes:
    made = copy.deepcopy(REPORT)
    made["host"].update(name=name, identity=None)
    return json.dumps({**made, "finished": "2099-01-01T00:00:00Z"}).encode()


def environ(server: AwsServer, **more: str) -> dict[str, str]:
    return {**KEYS, "AWS_REGION": REGION, "AWS_ENDPOINT_URL": server.url, **more}


def look(server: AwsServer, uri: str = f"s3://reports/{PREFIX}/", **more: str) -> dict[str, Any]:
    view = Posix()
    with ReportSpool() as spool:
        source = BucketSource(AwsAccess(view, environ(server, **more)), uri)
        request = collected.StatusRequest("20261130T120000Z-0000")
        return dict(collected.status(source, request, schema(), spool, view.now().timestamp()).tree)


def refused(server: AwsServer, uri: str = f"s3://reports/{PREFIX}/", **more: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        look(server, uri, **more)
    return caught.value


def test_each_host_is_read_once_and_what_lies_deeper_is_not(server: AwsServer) -> None:
    tree = look(server)
    assert sorted(each["name"] for each in tree["hosts"]) == sorted(f"web-{number}" for number in range(40))
    assert (tree["outcome"], tree["from"]) == ("ok", f"s3://reports/{PREFIX}/")
    assert len(server.calls) == 41
    assert set(server.permissions()) == {"s3:ListBucket", "s3:GetObject"}


def test_a_policy_for_listing_and_reading_is_enough_and_neither_alone(server: AwsServer) -> None:
    may = user_who_may(server.url, "s3:ListBucket", "s3:GetObject")
    with server.enforcing():
        assert look(server, **may)["outcome"] == "ok"
    for one, other in (("s3:ListBucket", "s3:GetObject"), ("s3:GetObject", "s3:ListBucket")):
        may = user_who_may(server.url, one)
        with server.enforcing():
            error = refused(server, **may)
        assert (error.code.name, other in error.sentence) == ("aws-denied", True)


def test_a_listing_of_several_pages_is_read_to_its_end(server: AwsServer) -> None:
    def page(keys: list[str], token: str) -> str:
        rows = "".join(
            f"<Contents><Key>{key}</Key><Size>9</Size><LastModified>2026-11-30T11:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        more = f"<IsTruncated>{str(bool(token)).lower()}</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        return f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{rows}{more}</ListBucketResult>'

    gone = says("<Error><Code>NoSuchKey</Code></Error>", 404)
    server.misbehave(says(page([], "t+/=")), says(page(["one.json"], "")), gone)
    error = refused(server, "s3://reports")
    assert error.code.name == "nothing-recorded"  # deleted between the listing and the reading
    assert [call.permission for call in server.calls] == ["s3:ListBucket", "s3:ListBucket", "s3:GetObject"]


def test_throttling_in_the_middle_is_waited_for(server: AwsServer) -> None:
    slow = says("<Error><Code>SlowDown</Code><Message>Reduce</Message></Error>", 503)
    server.misbehave(None, slow, slow, slow, None)
    assert look(server)["totals"]["ok"] == 40


def test_a_half_object_costs_its_host_alone(server: AwsServer) -> None:
    put(client(server.url, "s3"), "half/web-1.json", report("web-1")[:500])
    put(client(server.url, "s3"), "half/web-2.json", report("web-2"))
    tree = look(server, "s3://reports/half")
    assert {each["name"]: each["outcome"] for each in tree["hosts"]} == {"web-1": "failed", "web-2": "ok"}


@pytest.mark.parametrize(
    ("uri", "code"), [("s3://reports/nobody/", "nothing-recorded"), ("s3://nowhere-at-all/", "aws-refused")]
)
def test_a_place_that_holds_nothing_is_told(server: AwsServer, uri: str, code: str) -> None:
    assert refused(server, uri).code.name == code


def test_the_command_shows_it_and_writes_its_files(server: AwsServer, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("web-1\nweb-2\nweb-77\n")
    files = {option: tmp_path / option[2:] for option in ("--html", "--junit")}
    argv = [
        "fleet",
        "status",
        "--from",
        f"s3://reports/{PREFIX}/",
        "-i",
        str(tmp_path / "hosts"),
        "-o",
        "json",
    ]
    done = typed(server, tmp_path, *argv, *(str(word) for pair in files.items() for word in pair))
    tree = json.loads(done.stdout)
    assert (done.returncode, tree["totals"]["ok"], tree["totals"]["silent"]) == (70, 40, 1), done.stderr
    assert "the inventory does not have web-0" in tree["warnings"][-1]["text"]
    assert all("web-77" in path.read_text() for path in files.values())
    limited = typed(server, tmp_path, *argv, "--limit", "web-1")
    assert (limited.returncode, len(json.loads(limited.stdout)["hosts"])) == (0, 1)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--from", "https://x/"), "neither s3://BUCKET/PREFIX/ nor a directory"),
        (("--from", "s3://"), "names no bucket"),
        (("last", "--from", "s3://reports/"), "leave RUN out"),
        (("--silent-after", "1h"), "it belongs to --from"),
        (("--from", ".", "--silent-after", "soon"), "'soon' is not an age"),
        (("--from", ".", "--limit", "x"), "name that with --inventory"),
    ],
)
def test_what_is_wrong_with_the_command_is_told(
    server: AwsServer, tmp_path: Path, argv: tuple[str, ...], words: str
) -> None:
    done = typed(server, tmp_path, "fleet", "status", *argv)
    assert (done.returncode, done.stdout, words in done.stderr) == (2, "", True), done.stderr


def typed(server: AwsServer, home: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *argv],
        env={**os.environ, **environ(server), "HOME": str(home), "XDG_STATE_HOME": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
