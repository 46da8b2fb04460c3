"""The pieces of reporting: which URIs there are, what is written where, and how much is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.desired import Desired, from_json, resolve, to_json
from agent.config.input_errors import InputErrors
from agent.config.readers import read_environment, read_flags
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.system import LINUX, windows
from agent.sinks import cloudformation, cloudwatch, file, spool
from agent.sinks.delivery import deliver
from agent.sinks.message import DeliveryContext, OutgoingReport, UndeliveredError
from agent.sinks.registry import check, send, shown
from tests.fakes.memory import Memory
from tests.fakes.report_trees import TREE

if TYPE_CHECKING:
    from collections.abc import Sequence


def letter(uri: str, **more: object) -> OutgoingReport:
    return OutgoingReport(uri, json.dumps({**TREE, **more}))


def means(memory: Memory) -> DeliveryContext:
    return DeliveryContext(memory, memory.monotonic() + 60)


@pytest.mark.parametrize(
    "uri",
    [
        "file:/var/log/report.json", "file:///var/log/report.json", "https://receiver.example/hsm?team=a",
        "https://[fd00::1]:8443/x", "http://127.0.0.1:8080/", "http://[::1]/", "http://localhost/x", "prometheus:/var/lib/x",
        "junit:/tmp/a b".replace(" ", "_"), "cloudwatch:/hosts/cloudhsm/web-1", "cloudwatch:g/s",
        "s3://reports", "s3://reports/fleet/", "s3://reports/fleet?region=eu-west-1", "ssm-inventory:",
    ],
)  # fmt: skip
def test_a_place_for_reports_is_accepted(uri: str) -> None:
    check(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "is no place for a report"),
        ("/var/log/report.json", "is no place for a report"),
        ("htps://receiver.example/", "did you mean https:?"),
        ("ssm-inventory:web-1", "is not ssm-inventory: alone"),
        ("ssm-inventry:", "did you mean ssm-inventory:?"),
        ("s3://b/reports/", "names no bucket"),
        ("s3:reports", "names no bucket"),
        ("s3://reports/a?regoin=eu-west-1", "region= is wanted"),
        ("s3://reports/a b", "space or a control character"),
        ("file:report.json", "file:/PATH is wanted"),
        ("file:/var/log/", "file:/PATH is wanted"),
        ("file://host/x", "file:/PATH is wanted"),
        ("junit:", "junit:/PATH is wanted"),
        ("prometheus:here", "prometheus:/DIR is wanted"),
        ("http://receiver.example/", "goes over https"),
        ("http://10.0.0.1/", "goes over https"),
        ("http://127.0.0.1.example/", "goes over https"),
        ("https:receiver.example", "names no host"),
        ("https://", "names no host"),
        ("https://[::1", "is not a URL"),
        ("https://receiver.example:port/", "is not a URL"),
        ("https://operator:pa55@receiver.example/?q=pa55", "--report-token-file"),
        ("https://pa55@receiver.example/", "--report-token-file"),
        ("https://receiver.example/ x", "space or a control character"),
        ("cloudwatch:group", "GROUP/STREAM"),
        ("cloudwatch:group/", "GROUP/STREAM"),
        ("cloudwatch:group/a:b", "GROUP/STREAM"),
        ("cfn:web/Group", "names no region, and none is guessed"),
        ("cfn:web/Group?region=", "names no region"),
        ("cfn:web?region=eu-west-1", "is not cfn:STACK/RESOURCE"),
        ("cfn:web/Group?regoin=eu-west-1", "is not cfn:STACK/RESOURCE"),
    ],
)
def test_what_is_no_place_is_told_with_what_would_be(uri: str, said: str) -> None:
    input_errors = InputErrors()
    assert read_flags({"report_to": [uri]}, input_errors) == {}
    assert said in input_errors.texts[0]
    assert "pa55" not in input_errors.texts[0]


def test_a_complaint_of_a_second_time_shows_no_secret() -> None:
    input_errors = InputErrors()
    read_flags({"report_to": ["https://r.example/?key=pa55"] * 2}, input_errors)
    assert input_errors.texts == ["--report-to: https://r.example/ is given more than once"]


def test_the_token_s_variable_is_known_and_read_by_no_option() -> None:
    input_errors = InputErrors()
    environment = {
        "HSM_AGENT_REPORT_TOKEN": "pa55",
        "HSM_AGENT_REPORT_TO": "file:/a,file:/b",
        "HSM_AGENT_REPORT_TOKENS": "x",
    }
    said = read_environment(environment, input_errors)
    assert said == {"report_to": ("file:/a", "file:/b")}
    assert [text.partition(";")[0] for text in input_errors.texts] == [
        "HSM_AGENT_REPORT_TOKENS: unknown variable"
    ]


def test_whom_to_tell_is_remembered() -> None:
    desired = Desired(report_to=("file:/a", "file:/b"), report_ca="/ca", report_token_file="/token")
    assert from_json(json.loads(json.dumps(to_json(desired)))) == desired
    assert resolve([{"report_to": ("file:/a",)}], InputErrors()).report_to == ("file:/a",)


def test_a_uri_is_shown_without_its_secrets() -> None:
    assert shown("https://a:b@receiver.example/x?key=pa55") == "https://receiver.example/x"
    assert shown("cfn:web/Group?region=eu-west-1") == "cfn:web/Group?region=eu-west-1"


def test_a_key_is_of_one_report_for_one_place_on_one_host() -> None:
    keys = [
        letter("https://a/").key,
        letter("https://b/").key,
        letter("https://a/", run_id="20261123T201501Z-1f3a").key,
        letter("https://a/", host={"name": "another"}).key,
    ]
    assert len(set(keys)) == 4
    assert letter("https://a/", outcome="failed").key == keys[0]
    assert keys[0].startswith("20261123T201500Z-1f3a-")


@pytest.mark.parametrize("uri", ["file:/reports/last.json", "file:///reports/last.json"])
def test_a_file_is_the_document(uri: str) -> None:
    memory = Memory()
    sent = letter(uri)
    send(sent, means(memory))
    assert memory.read("/reports/last.json") == sent.document.encode()
    stat = memory.stat("/reports/last.json")
    assert stat is not None
    assert stat.mode == 0o644


def test_metrics_go_into_a_folder_that_is_there() -> None:
    memory = Memory()
    with pytest.raises(UndeliveredError, match="there is no directory /metrics"):
        send(letter("prometheus:/metrics/"), means(memory))
    memory.place("/metrics", kind="directory")
    send(letter("prometheus:/metrics/"), means(memory))
    assert b"\nhsm_agent_run_timestamp_seconds 1795464909\n" in (
        memory.read("/metrics/hsm_agent.prom") or b""
    )


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:/var/x", "/var/x"),
        ("file:///var/x", "/var/x"),
        (r"file:C:\reports\x.json", r"C:\reports\x.json"),
        ("file:C:/reports/x.json", "C:/reports/x.json"),
        ("file:///C:/reports/x.json", "C:/reports/x.json"),
        (r"file:\\server\share\x.json", r"\\server\share\x.json"),
    ],
)
def test_a_file_of_either_system_is_named(uri: str, path: str) -> None:
    assert file.path_of(uri) == path


@pytest.mark.parametrize(
    "uri", ["file:x", "file:C:x", "file:C:/reports/", "file:", "file://x", r"file:\\server"]
)
def test_what_names_no_file_is_a_complaint(uri: str) -> None:
    with pytest.raises(ValueError, match="names no file"):
        file.check(uri)


def test_events_are_kept_on_linux_alone() -> None:
    with pytest.raises(UndeliveredError, match="on Linux alone") as caught:
        send(letter("cloudwatch:g/s"), means(Memory(system=windows())))
    assert caught.value.refused


def tee(argv: Sequence[str], memory: Memory) -> CommandResult:
    memory.place(argv[-1], (memory.read(argv[-1]) or b"") + memory.stdin, mode=0o640)
    return CommandResult(0, "", "")


def test_events_are_appended_once_each_and_a_long_file_makes_room() -> None:
    memory = Memory(programs={"tee": tee})
    first, second = (letter("cloudwatch:g/s", run_id=f"20261123T20150{number}Z-0000") for number in (1, 2))
    for each in (first, first, second, second):
        send(each, means(memory))
    lines = (memory.read(cloudwatch.FILE) or b"").decode().splitlines()
    assert [json.loads(line)["run_id"] for line in lines] == [
        "20261123T201501Z-0000",
        "20261123T201502Z-0000",
    ]
    memory.place(cloudwatch.FILE, b"x" * (cloudwatch.LONG + 1))
    send(first, means(memory))
    assert memory.read(cloudwatch.FILE) == cloudwatch.line(first).encode()
    assert memory.read(f"{cloudwatch.FILE}.1") == b"x" * (cloudwatch.LONG + 1)


def test_an_event_that_cannot_be_appended_is_undelivered() -> None:
    memory = Memory(
        {cloudwatch.FILE: b""},
        programs={"tee": CommandResult(1, "", "tee: emf.log: No space left on device\n")},
    )
    with pytest.raises(UndeliveredError, match="No space left"):
        send(letter("cloudwatch:g/s"), means(memory))


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, "ok.ip-10-0-1-12.20261123T201500Z-1f3a"),
        ({"code": "hsm-timed-out"}, "hsm-timed-out.ip-10-0-1-12.20261123T201500Z-1f3a"),
        ({"host": {"name": "a" * 80, "instance_id": None}}, f"ok.{'a' * 39}.20261123T201500Z-1f3a"),
        (
            {"host": {"name": "b\u00fccher.example", "instance_id": None}},
            "ok.b-cher-example.20261123T201500Z-1f3a",
        ),
        ({"host": {"name": "x", "instance_id": "i-0123456789abcdef0"}}, "i-0123456789abcdef0"),
    ],
    ids=str,
)
def test_a_signal_names_the_instance_or_else_code_host_and_run(more: dict[str, object], wanted: str) -> None:
    assert cloudformation.unique_id({**TREE, **more}) == wanted
    assert len(wanted) <= 64


def keep(memory: Memory, number: int, size: int = 0) -> int:
    return spool.keep(
        memory, "file:/r", json.dumps({"run_id": number, "host": {}, "x": "x" * size}), f"run{number}"
    )


def run_ids(memory: Memory) -> list[int]:
    return [json.loads(kept.document)["run_id"] for kept in spool.waiting(memory)[0]]


def test_what_is_kept_is_read_back_in_order_and_is_for_root_alone() -> None:
    memory = Memory()
    for number in (3, 1, 2):
        assert keep(memory, number) == 0
    assert run_ids(memory) == [3, 1, 2]
    assert {memory.entries[f"{LINUX.spool}/{name}"].mode for name in memory.list_dir(LINUX.spool)} == {0o600}
    spool.forget(memory, spool.waiting(memory)[0][1])
    keep(memory, 4)
    assert run_ids(memory) == [3, 2, 4]


def test_the_oldest_make_room() -> None:
    memory = Memory()
    dropped = [keep(memory, number) for number in range(spool.MOST + 5)]
    assert (sum(dropped), dropped[-6:]) == (5, [0, 1, 1, 1, 1, 1])
    assert run_ids(memory) == list(range(5, spool.MOST + 5))
    assert keep(memory, 999, spool.MOST_BYTES) == spool.MOST
    assert run_ids(memory) == [999]


@pytest.mark.parametrize(
    "data",
    [b"", b"[", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"schema_version": 9}',
     b'{"schema_version": 1, "uri": 5, "document": "{}"}', b'{"schema_version": 1, "uri": "file:/r", "document": "[]"}'],
)  # fmt: skip
def test_what_is_no_report_is_removed_and_counted(data: bytes) -> None:
    memory = Memory({f"{LINUX.spool}/00000007-x.json": data, f"{LINUX.spool}/.left-over": b"x"})
    keep(memory, 1)
    waiting = spool.waiting(memory)
    assert ([kept.name for kept in waiting.kept], waiting.damaged) == (["00000008-run1.json"], 1)
    assert memory.list_dir(LINUX.spool) == (".left-over", "00000008-run1.json")


def test_a_full_disk_is_told_and_costs_nothing_that_is_kept() -> None:
    memory = Memory()
    for number in range(spool.MOST):
        keep(memory, number)
    memory.full = True
    with pytest.raises(AgentError):
        keep(memory, 999)
    assert run_ids(memory) == list(range(spool.MOST))


@given(
    sizes=st.lists(st.integers(0, spool.MOST_BYTES), max_size=2 * spool.MOST),
    new=st.integers(0, 2 * spool.MOST_BYTES),
)
def test_only_as_many_go_as_must(sizes: list[int], new: int) -> None:
    def fits(left: Sequence[int]) -> bool:
        return len(left) + 1 <= spool.MOST and sum(left) + new <= spool.MOST_BYTES

    dropped = spool.excess(sizes, new)
    assert 0 <= dropped <= len(sizes)
    assert fits(sizes[dropped:]) or dropped == len(sizes)
    assert dropped == 0 or not fits(sizes[dropped - 1 :])


def test_means_show_no_secret() -> None:
    shown_means = repr(replace(means(Memory()), environ={"HSM_AGENT_REPORT_TOKEN": "pa55"}))
    assert "pa55" not in shown_means


@pytest.mark.parametrize("number", ["99999999", "9" * 18, "9" * 60, "00000100"])
def test_whatever_number_was_the_last_the_next_one_is_behind_it(number: str) -> None:
    memory = Memory()
    keep(memory, 1)
    first = memory.list_dir(LINUX.spool)[0]
    memory.place(f"{LINUX.spool}/{number}-x.json", memory.read(f"{LINUX.spool}/{first}") or b"")
    memory.remove(f"{LINUX.spool}/{first}")
    for each in (2, 3):
        keep(memory, each)
    assert run_ids(memory) == [1, 2, 3]
    assert len(memory.list_dir(LINUX.spool)) == 3


@pytest.mark.parametrize("change", [0x01, 0x20, 0x80])
def test_what_is_kept_is_whole_or_refused(change: int) -> None:
    """Any byte that a disk changed is found, wherever it is."""
    memory = Memory()
    keep(memory, 1, 20)
    name = memory.list_dir(LINUX.spool)[0]
    path = f"{LINUX.spool}/{name}"
    data = memory.read(path) or b""
    for place in range(len(data)):
        memory.place(path, data[:place] + bytes([data[place] ^ change]) + data[place + 1 :])
        assert spool.waiting(memory)[0] == (), data[place : place + 20]
    for spoilt in (data + b"\n", data[:-1], data[1:], data + data):
        memory.place(path, spoilt)
        assert spool.waiting(memory)[0] == ()
    memory.place(path, data)
    assert run_ids(memory) == [1]


def test_what_an_agent_of_before_kept_is_sent_and_what_a_newer_one_kept_stays() -> None:
    memory = Memory()
    old = json.dumps({"schema_version": 1, "uri": "file:/r", "document": json.dumps({**TREE, "run_id": 7})})
    newer = json.dumps({"schema_version": 3, "to": "file:/r", "gzip": "H4sI"}).encode()
    memory.place(f"{LINUX.spool}/00000001-old.json", old.encode())
    memory.place(f"{LINUX.spool}/00000002-new.json", newer)
    assert (run_ids(memory), spool.waiting(memory)[1]) == ([7], 0)
    assert memory.read(f"{LINUX.spool}/00000002-new.json") == newer


def test_a_report_for_a_place_that_only_another_agent_knows_stays_and_blocks_no_other() -> None:
    memory = Memory()
    document = json.dumps(TREE)
    for uri in ("ssm-parameter:/x", "file:/r.json", ""):
        spool.keep(memory, uri, document, "x")
    done = deliver(memory, Desired(), document, {}, hurried=False)
    assert [kept.uri for kept in spool.waiting(memory)[0]] == ["ssm-parameter:/x", ""]
    assert (memory.read("/r.json"), done.failed) == (document.encode(), False)
    assert "this agent knows no ssm-parameter:" in done.notices[0].text


class Forgetful(Memory):
    """A machine whose spool loses what is written to it, as a disk that is at its end does."""

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        super().write(path, data[: len(data) // 2] if "/spool/" in path else data, mode=mode, owner=owner)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_report_of_this_run_that_is_not_in_the_spool_is_sent_or_told(arrives: bool) -> None:
    memory = Forgetful()
    if arrives:
        memory.place("/told", kind="directory")
    done = deliver(memory, Desired(report_to=("prometheus:/told",)), json.dumps(TREE), {}, hurried=False)
    assert (memory.read("/told/hsm_agent.prom") is not None, done.failed) == (arrives, not arrives)
    assert arrives or "it was kept, and is not there any more" in done.notices[-1].text


def test_a_report_that_its_receiver_refuses_is_said_to_be_refused(ca_pem: bytes) -> None:
    memory = Memory(system=windows("C:", "C:\\ProgramData"))
    done = deliver(memory, Desired(report_to=("cloudwatch:g/s",)), json.dumps(TREE), {}, hurried=False)
    assert (done.failed, done.refused) == (True, True)
    assert "is not kept" in done.notices[0].text


@pytest.mark.parametrize(
    "uri", ["file:/srv/app/out/report.json", "junit:/srv/app/out/report.json", "prometheus:/srv/app"]
)
def test_a_link_of_another_user_on_the_way_is_not_followed(uri: str) -> None:
    memory = Memory({"/etc/app/out/report.json": b"root's", "/etc/app/hsm_agent.prom": b"root's"})
    before = dict(memory.entries)
    memory.place("/srv/app", kind="link", link="/etc/app", uid=4711)
    with pytest.raises(AgentError) as caught:
        send(letter(uri), means(memory))
    assert (caught.value.code.name, "a link of user 4711" in caught.value.saw) == ("write-failed", True)
    assert {path: memory.entries[path] for path in before} == before
    memory.place("/srv/app", kind="link", link="/etc/app")  # root's own choice
    send(letter(uri), means(memory))
    assert {path: memory.entries[path] for path in before} != before


@pytest.mark.parametrize("uri", ["file:/named", "junit:/named", "prometheus:/"])
@pytest.mark.parametrize("kind", ["link", "directory", "other"])
def test_what_is_there_and_is_no_file_is_neither_replaced_nor_followed(uri: str, kind: str) -> None:
    memory = Memory({"/etc/passwd": b"root"})
    path = "/hsm_agent.prom" if uri.startswith("prometheus") else "/named"
    memory.place(path, kind=kind, link="/etc/passwd")
    before = dict(memory.entries)
    with pytest.raises(AgentError) as refused:
        send(letter(uri), means(memory))
    assert (refused.value.code.name, path in refused.value.saw) == ("write-failed", True)
    assert memory.entries == before


@pytest.mark.parametrize(
    "uri", ["file:/dev/null", "junit:/dev/stdout", "file:/dev/fd/3", "file:/proc/self/fd/1"]
)
def test_a_stream_is_written_to(uri: str) -> None:
    memory = Memory()
    memory.place(uri.partition(":")[2], kind="link", link="/proc/self/fd/1")
    send(letter(uri), means(memory))
    assert memory.streams[uri.partition(":")[2]]
    assert memory.stat(uri.partition(":")[2]).kind == "link"  # type: ignore[union-attr]


def test_a_file_that_another_user_put_there_is_not_for_him_to_write() -> None:
    """Who plants an empty file with 0666 in /tmp could else write into the report of root."""
    memory = Memory()
    memory.place("/tmp/report.json", b"", mode=0o666, uid=4321)
    send(letter("file:/tmp/report.json"), means(memory))
    seen = memory.stat("/tmp/report.json")
    assert seen is not None
    assert (seen.uid, seen.mode) == (0, 0o644)


def test_a_file_that_is_there_keeps_its_mode() -> None:
    memory = Memory()
    memory.place("/secret.json", b"x", mode=0o600)
    send(letter("file:/secret.json"), means(memory))
    send(letter("file:/new.json"), means(memory))
    assert [memory.entries[path].mode for path in ("/secret.json", "/new.json")] == [0o600, 0o644]


@pytest.mark.parametrize("finished", ["", "nonsense", "999-11-23T20:15:09Z", "9999999-01-01T00:00:00Z"])
def test_a_time_that_is_none_costs_no_delivery(finished: str) -> None:
    memory = Memory()
    memory.place("/m", kind="directory")
    memory.programs["tee"] = tee
    for uri in ("prometheus:/m", "cloudwatch:g/s"):
        send(letter(uri, finished=finished, ca={"not_after": finished}), means(memory))
    assert b"hsm_agent_exit_status 0" in (memory.read("/m/hsm_agent.prom") or b"")
