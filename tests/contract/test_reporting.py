"""Reports against a real receiver on the loopback that does everything a receiver, a proxy or a network does wrong."""

from __future__ import annotations

import datetime as dt
import json
import os
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import commands
from agent.config.desired import Desired, to_json
from agent.core.system import LINUX
from agent.render.progress import NullProgress
from agent.report import RunInfo
from agent.sinks import https
from agent.sinks.delivery import Delivered, deliver
from agent.sinks.message import DeliveryContext, OutgoingReport, UndeliveredError
from agent.sinks.registry import send
from agent.state import records
from tests import promtool
from tests.examples import examples
from tests.fakes.memory import Memory
from tests.fakes.receiver import (
    Answer,
    Exchange,
    Receiver,
    accept,
    accept_and_break,
    only,
    receiver,
    silent,
)
from tests.fakes.vendor import Vendor

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN = "20261123T20150{}Z-1f3a"
TOKEN = "s3cr3t-t0ken"


class Machine(Memory):
    """Files and pauses in memory, and real time beside it."""

    def __init__(self) -> None:
        super().__init__(started=dt.datetime(2026, 11, 23, 20, 15, tzinfo=dt.timezone.utc))
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return time.monotonic() + self.clock

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if seconds:
            self.pauses.append(seconds)


def document(number: int = 1) -> str:
    return json.dumps({"run_id": RUN.format(number), "host": {"name": "ip-10-0-1-12"}, "exit_status": 0})


def post(
    server: Receiver,
    machine: Machine | None = None,
    *,
    seconds: float = 60,
    environ: Mapping[str, str] | None = None,
    **more: object,
) -> None:
    machine = machine or Machine()
    means = DeliveryContext(machine, machine.monotonic() + seconds, environ or {})
    send(OutgoingReport(server.url, document()), replace(means, **more))  # type: ignore[arg-type]


def deliver_to(machine: Machine, url: str, number: int, **more: object) -> Delivered:
    desired = Desired(report_to=(url,), **more)  # type: ignore[arg-type]
    return deliver(machine, desired, document(number), {}, hurried=False)


def spooled(machine: Machine) -> int:
    return len(machine.list_dir(LINUX.spool))


def test_a_report_is_posted_as_it_is_with_a_key_of_its_own() -> None:
    with receiver(accept) as server:
        post(server)
        ((path, headers),) = server.requests
    assert path == "/reports?secret=hidden"
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"].startswith(RUN.format(1))
    assert "Authorization" not in headers
    assert list(server.taken.values()) == [json.loads(document())]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 409])
def test_2xx_and_a_report_that_is_there_already_are_delivered(status: int) -> None:
    with receiver(only(status)) as server:
        post(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "status",
    [400, 401, 402, 403, 404, 405, 410, 413, 415, 418, 421, 422, 423, 431, 451, 460, 101, 304, 301, 307],
)
def test_what_another_attempt_cannot_help_is_tried_once(status: int) -> None:
    with (
        receiver(only(status, Location="/elsewhere"), accept) as server,
        pytest.raises(UndeliveredError) as caught,
    ):
        post(server)
    assert len(server.requests) == 1
    assert f"HTTP {status}" in caught.value.saw
    # the report itself is refused, rather than we, the address or the hour
    assert caught.value.refused == (status in (400, 413, 415, 422))


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again_with_the_same_key(status: int) -> None:
    machine = Machine()
    with receiver(only(status), only(status), accept) as server:
        post(server, machine)
    keys = {headers["Idempotency-Key"] for _, headers in server.requests}
    assert (len(server.requests), len(keys), len(machine.pauses)) == (3, 1, 2)
    assert all(0 <= pause <= https.BACKOFF.first * 2**number for number, pause in enumerate(machine.pauses))


def test_it_gives_up_after_some_attempts() -> None:
    with receiver(only(503)) as server, pytest.raises(UndeliveredError, match="HTTP 503; attempt 4 of 4"):
        post(server)
    assert len(server.requests) == https.ATTEMPTS


@pytest.mark.parametrize(("asked", "waited"), [(7, 7.0), (3600, https.RETRY_AFTER), (0, None)])
def test_retry_after_is_honoured_up_to_a_bound(asked: int, waited: float | None) -> None:
    machine = Machine()
    with receiver(only(429, Retry_After=asked), accept) as server:
        post(server, machine)
    assert machine.pauses == ([waited] if waited else [])


def test_there_is_no_attempt_for_which_there_is_no_time() -> None:
    machine = Machine()
    with (
        receiver(only(503, Retry_After=15)) as server,
        pytest.raises(UndeliveredError, match="attempt 1 of 4"),
    ):
        post(server, machine, seconds=10)
    assert machine.pauses == []


def test_a_receiver_that_says_nothing_takes_no_more_than_the_time_there_is() -> None:
    with receiver(silent) as server, pytest.raises(UndeliveredError, match="the time for deliveries ran out"):
        post(server, seconds=0.3)


def test_a_report_whose_answer_was_lost_is_there_once() -> None:
    with receiver(accept_and_break, accept) as server:
        post(server)
    assert (len(server.requests), len(server.taken)) == (2, 1)


def test_an_interrupt_ends_the_attempts_and_an_interrupted_run_still_has_one() -> None:
    machine = Machine()
    machine.stopped = True
    with receiver(silent) as server, pytest.raises(UndeliveredError, match="interrupted"):
        post(server, machine)
    with receiver(accept) as server:
        post(server, machine, hurried=True)
    assert len(server.taken) == 1
    with receiver(only(503)) as server, pytest.raises(UndeliveredError, match="attempt 1"):
        post(server, machine, hurried=True)


@pytest.mark.parametrize("where", ["file", "environment", "both"])
def test_the_token_comes_from_its_file_or_the_environment(where: str) -> None:
    machine = Machine()
    machine.place("/etc/hsm-agent/token", f"{TOKEN}\n".encode(), mode=0o600)
    token_file = None if where == "environment" else "/etc/hsm-agent/token"
    environ = {} if where == "file" else {https.TOKEN: TOKEN if where == "environment" else "another"}
    with receiver(accept) as server:
        post(server, machine, environ=environ, token_file=token_file)
    assert server.requests[0][1]["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "content", [None, b"", b" \n", b"two\nlines", b"\xff\xfe", b"a b", b"a\r\nX-Evil: 1"]
)
def test_a_token_that_is_none_is_not_sent(content: bytes | None) -> None:
    machine = Machine()
    if content is not None:
        machine.place("/token", content)
    with receiver(accept) as server, pytest.raises(UndeliveredError, match="/token") as caught:
        post(server, machine, token_file="/token")
    assert (server.requests, caught.value.refused) == ([], False)
    assert "Evil" not in caught.value.saw


@pytest.mark.parametrize("answer", [only(401), only(413), Exchange.reset])
def test_no_secret_is_in_what_is_told_or_logged(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.place("/token", TOKEN.encode())
    with receiver(answer) as server:
        done = deliver_to(machine, server.url, 1, report_token_file="/token")
    assert done.failed
    for text in (str(done), caplog.text):
        assert TOKEN not in text
        assert "hidden" not in text
    assert not any(
        TOKEN.encode() in entry.data for path, entry in machine.entries.items() if path != "/token"
    )


def test_a_defect_of_a_delivery_costs_no_run_its_report() -> None:
    machine = Machine()
    done = deliver(
        machine, Desired(report_to=("cfn:nonsense", "file:/r.json")), document(), {}, hurried=False
    )
    assert [notice.code for notice in done.notices] == ["report-refused"]
    assert machine.read("/r.json") == document().encode()


@pytest.mark.parametrize("trusted", ["its CA", "another CA", "no CA file", "the host's store"])
def test_tls_is_verified_by_the_ca_that_is_named(trusted: str, tmp_path: Path, ca_pem: bytes) -> None:
    cert, key = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    other = tmp_path / "other.pem"
    other.write_bytes(ca_pem)
    named = {
        "its CA": cert,
        "another CA": other,
        "no CA file": tmp_path / "absent",
        "the host's store": None,
    }[trusted]
    machine = Machine()
    for path in (cert, other):
        machine.place(str(path), path.read_bytes())
    with receiver(accept, context=context) as server:
        if trusted == "its CA":
            post(server, machine, ca=str(named))
            assert len(server.taken) == 1
            return
        with pytest.raises(UndeliveredError) as caught:
            post(server, machine, ca=named and str(named))
    assert (len(server.taken), caught.value.refused) == (0, False)
    assert ("is not there" if trusted == "no CA file" else "the server's certificate") in caught.value.saw


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "crt", folder / "key"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=receiver",
            "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "keyUsage=critical,keyCertSign,digitalSignature", "-keyout", str(key), "-out", str(cert),
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return cert, key


def test_down_and_then_back_every_report_arrives_once_and_in_order() -> None:
    machine = Machine()
    with receiver(only(503)) as server:
        url = server.url
        for number in (1, 2, 3):
            done = deliver_to(machine, url, number)
            assert (done.failed, done.notices[0].code) == (True, "report-undelivered")
            assert "it is kept for the next run" in done.notices[0].text
        assert (spooled(machine), server.taken) == (3, {})
        # the ones behind the first were not even tried
        assert len({headers["Idempotency-Key"] for _, headers in server.requests}) == 1
        server.answers = (accept_and_break, accept)
        server.requests.clear()
        done = deliver_to(machine, url, 4)
        assert (done.failed, done.notices) == (False, ())
        assert server.run_ids == [RUN.format(number) for number in (1, 2, 3, 4)]
    assert spooled(machine) == 0


def test_a_run_with_nobody_to_tell_delivers_what_waits() -> None:
    machine = Machine()
    with receiver(only(500)) as server:
        deliver_to(machine, server.url, 1)
        server.answers = (accept,)
        done = deliver(machine, Desired(), document(2), {}, hurried=False)
        assert (done, server.run_ids, spooled(machine)) == (Delivered((), False), [RUN.format(1)], 0)


def test_a_report_that_is_refused_for_good_blocks_no_other() -> None:
    machine = Machine()
    with receiver(only(503)) as server:
        deliver_to(machine, server.url, 1)
        server.answers = (*server.answers * 4, only(413), accept)
        done = deliver_to(machine, server.url, 2)
        assert [notice.code for notice in done.notices] == ["report-refused"]
        assert RUN.format(1) in done.notices[0].text
        assert (done.failed, server.run_ids, spooled(machine)) == (False, [RUN.format(2)], 0)


def test_one_receiver_that_is_down_does_not_keep_the_report_from_another() -> None:
    machine = Machine()
    with receiver(only(401)) as broken, receiver(accept) as whole:
        desired = Desired(report_to=(broken.url, whole.url, "file:/report.json"))
        done = deliver(machine, desired, document(), {}, hurried=False)
        assert (len(done.notices), done.failed, len(whole.taken), spooled(machine)) == (1, True, 1, 1)
    assert machine.read("/report.json") == document().encode()


def test_while_another_run_delivers_this_one_leaves_what_waits_alone() -> None:
    machine = Machine()
    with receiver(only(401)) as server:
        deliver_to(machine, server.url, 1)
        with machine.lock("/run/hsm-agent-spool.lock", "another"):
            server.answers = (accept,)
            assert deliver_to(machine, server.url, 2) == Delivered((), False)
            server.answers = (only(401),)
            assert deliver_to(machine, server.url, 3).failed
    assert (server.run_ids, spooled(machine)) == ([RUN.format(2)], 2)


@pytest.mark.parametrize("what", ["full", "read_only", "root"])
def test_without_a_spool_a_report_is_sent_all_the_same(what: str) -> None:
    machine = Machine()
    setattr(machine, what, what != "root")
    with receiver(accept, only(401)) as server:
        assert deliver_to(machine, server.url, 1) == Delivered((), False)
        done = deliver_to(machine, server.url, 2)
        assert done.failed
        assert ("that needs root" if what == "root" else "could not be kept either") in done.notices[0].text
    assert (spooled(machine), server.run_ids) == (0, [RUN.format(1)])


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[1] / "golden" / "reports").glob("*.prom")),
    ids=lambda path: path.stem,
)
def test_promtool_has_nothing_to_say(path: Path) -> None:
    program = promtool.install()
    if program is None:
        pytest.skip("no promtool, and no root or no apt to unpack it with")
    assert promtool.said_of(program, path.read_text(encoding="utf-8")) == (0, "")


# --- who is shown which token


@examples(25)
@given(data=st.data())
def test_a_token_is_seen_by_the_receivers_it_was_named_with_alone(data: st.DataObject) -> None:
    """Whatever waits and for whom, whoever is up: run after run with tokens and receivers of its own."""
    machine = Machine()
    with receiver(accept) as one, receiver(accept) as two, receiver(accept) as three:
        servers = (one, two, three)
        named: dict[str, set[str | None]] = {server.url: set() for server in servers}
        for number in range(1, 5):
            to = data.draw(st.lists(st.sampled_from(servers), unique=True, max_size=3), label="to")
            kind = data.draw(st.sampled_from(["file", "environment", "none"]), label="token")
            for server in servers:
                up = data.draw(st.booleans(), label="up")
                server.answers = (accept,) if up else (only(401),)
            token = f"token-{number}"
            machine.place(f"/{token}", token.encode())
            desired = Desired(
                report_to=tuple(server.url for server in to),
                report_token_file=f"/{token}" if kind == "file" else None,
            )
            environ = {https.TOKEN: token} if kind == "environment" else {}
            for server in to:
                named[server.url].add(None if kind == "none" else f"Bearer {token}")
            deliver(machine, desired, document(number), environ, hurried=False)
            for server in servers:
                seen = {headers.get("Authorization") for _, headers in server.requests}
                assert seen - {None} <= named[server.url]


def test_a_report_that_waited_goes_with_the_token_that_it_was_kept_with() -> None:
    machine = Machine()
    machine.place("/old", b"old-token")
    machine.place("/new", b"new-token")
    with receiver(only(503)) as first, receiver(accept) as second:
        deliver_to(machine, first.url, 1, report_token_file="/old")
        machine.place("/old", b"old-token-renewed")
        first.answers = (accept,)
        first.requests.clear()
        desired = Desired(report_to=(second.url,), report_token_file="/new")
        deliver(machine, desired, document(2), {https.TOKEN: "of-the-environment"}, hurried=False)
    assert [headers.get("Authorization") for _, headers in first.requests] == ["Bearer old-token-renewed"]
    assert [headers.get("Authorization") for _, headers in second.requests] == ["Bearer new-token"]
    assert spooled(machine) == 0


def test_what_an_older_version_kept_is_sent_without_any_token() -> None:
    machine = Machine()
    machine.place("/new", b"new-token")
    with receiver(accept) as first, receiver(accept) as second:
        tree = {"schema_version": 1, "uri": first.url, "document": document(1)}
        machine.place(f"{LINUX.spool}/00000001-x.json", json.dumps(tree).encode())
        desired = Desired(report_to=(second.url,), report_token_file="/new")
        deliver(machine, desired, document(2), {https.TOKEN: "of-the-environment"}, hurried=False)
    assert [headers.get("Authorization") for _, headers in first.requests] == [None]
    assert first.run_ids == [RUN.format(1)]


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "all_proxy"])
def test_a_receiver_on_this_machine_is_never_asked_through_a_proxy(variable: str) -> None:
    machine = Machine()
    machine.place("/token", TOKEN.encode())
    with receiver(accept) as server, receiver(accept) as proxy:
        environ = {variable: proxy.url.partition("/reports")[0]}
        post(server, machine, token_file="/token", environ=environ)
    assert (len(server.taken), proxy.requests) == (1, [])


@pytest.mark.parametrize(
    "uri", ["http://mirror.invalid/x", "http://u:secret@127.0.0.1/x", "https://u:secret@h/x"]
)
def test_what_was_kept_for_a_place_that_is_refused_now_is_not_sent(uri: str) -> None:
    machine = Machine()
    machine.place("/token", TOKEN.encode())
    tree = {"schema_version": 1, "uri": uri, "document": document(1), "token_file": "/token", "ca": None}
    machine.place(f"{LINUX.spool}/00000001-x.json", json.dumps(tree).encode())
    with receiver(accept) as proxy:
        environ = dict.fromkeys(("http_proxy", "https_proxy"), proxy.url.partition("/reports")[0])
        done = deliver(machine, Desired(), document(2), environ, hurried=False)
    assert proxy.requests == []
    assert [notice.code for notice in done.notices] == ["report-refused"]
    assert "secret" not in str(done)


def test_a_token_that_is_recorded_is_not_for_a_receiver_that_is_named_later() -> None:
    now = dt.datetime(2026, 11, 23, 20, 15, tzinfo=dt.timezone.utc)
    machine = Vendor().machine(now)
    machine.place("/token", TOKEN.encode())
    with receiver(accept) as first, receiver(accept) as second:
        recorded = Desired(hsm_ip=("10.0.1.6",), report_to=(first.url,), report_token_file="/token")
        records.write_last(machine, records.LastConfigure(to_json(recorded), ""))
        for number, to in enumerate(((second.url,), (first.url, second.url), (first.url,), ())):
            run = RunInfo(RUN.format(number), "verify", now)
            commands.verify(machine, Desired(report_to=to), run, NullProgress())
    assert [headers.get("Authorization") for _, headers in second.requests] == [None, None]
    seen = [headers.get("Authorization") for _, headers in first.requests]
    assert seen == [None, f"Bearer {TOKEN}", f"Bearer {TOKEN}"]


@pytest.mark.parametrize("what", ["a text", "a folder", "nothing", "in DER", "a FIFO", "a device"])
def test_a_ca_file_that_is_none_is_named_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if what == "a folder":
        path.mkdir()
    elif what == "a FIFO":
        os.mkfifo(path)
    elif what == "a device":
        path.symlink_to("/dev/zero")
    elif what != "nothing":
        path.write_bytes(b"hello\n" if what == "a text" else b"\x30\x82\x01\x00")
    desired = Desired(report_to=("https://127.0.0.1:1/",), report_ca=str(path))
    machine = Machine()
    if path.exists():
        machine.place(
            str(path),
            *([path.read_bytes()] if path.is_file() else []),
            kind="file" if path.is_file() else "directory" if path.is_dir() else "other",
        )
    done = deliver(machine, desired, document(), {}, hurried=False)
    assert str(path) in done.notices[0].text
    assert "attempt" not in done.notices[0].text


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_fifo_that_the_environment_names_as_the_store_is_named_at_once(
    variable: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    desired = Desired(report_to=("https://127.0.0.1:1/",))
    done = deliver(Machine(), desired, document(), {variable: str(tmp_path / "fifo")}, hurried=False)
    assert f"{tmp_path}/fifo, which {variable} names: it is no regular file" in done.notices[0].text
