"""The journal: what was written is what is read, whatever interrupted the writer."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import AgentError
from agent.core.fleet_model import ArchiveDigests, HostResult, HostState, Target
from agent.fleet import journal
from agent.fleet.model import RunSpec, RunState

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = (Target("web-1", "10.0.4.7", groups=("web",), where="hosts:1"), Target("web-2", "web-2", port=2222))
ORDERS = RunSpec("rollout", "hosts", TARGETS, {"web-1": {"hsm_ip": ["10.0.1.6"]}, "web-2": {}}, parallel=7)
REPORT = {"warnings": [{"code": "a", "text": "b"}], "steps": [{"id": "x"}], "host": {"name": "h"}}
OK = HostResult(
    "web-1", "10.0.4.7", 22, 1, HostState.OK, changed=True, exit_status=0, seconds=3.25, report=REPORT
)
FAILED = HostResult(
    "web-2", "web-2", 2222, 1, HostState.UNREACHABLE, code="ssh-refused", exit_status=70, saw="s", hint="h"
)


def write(folder: Path) -> None:
    with journal.opened(folder) as book:
        book.begin(RunState("20261125T000000Z-0000", "2026-11-25T00:00:00Z", ORDERS, ArchiveDigests("f00")))
        book.began("web-1", 1)
        book.began("web-2", 1)
        book.ended(OK)
        book.sync()


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    with journal.opened(tmp_path) as book:
        book.ended(FAILED)
        ended = RunState("", "", ORDERS, ArchiveDigests(), waves=[["web-1", "web-2"]])
        ended.finish("2026-11-25T00:01:00Z", "interrupted", "by a test", ended.waves)
        book.finish(ended)
    assert journal.read(tmp_path) == RunState(
        "20261125T000000Z-0000", "2026-11-25T00:00:00Z", ORDERS, ArchiveDigests("f00"),
        ends={"web-1": journal.summarised(OK), "web-2": FAILED}, attempts={"web-1": 1, "web-2": 1},
        waves=[["web-1", "web-2"]], finished="2026-11-25T00:01:00Z", code="interrupted", why="by a test",
    )  # fmt: skip
    assert list(journal.reports(tmp_path)) == [OK, FAILED]


def test_a_host_without_an_end_may_still_be_at_work(tmp_path: Path) -> None:
    write(tmp_path)
    assert journal.read(tmp_path).open == {"web-2"}


def test_what_a_host_says_is_kept_even_when_it_is_no_text(tmp_path: Path) -> None:
    """JSON may hold half of a pair (\\ud800), and what programs print comes as bytes that are no UTF-8."""
    end = replace(OK, saw="\ud800 \udcff", report={**REPORT, "host": {"name": "\udcff"}})
    with journal.opened(tmp_path) as book:
        book.begin(RunState("run", "now", ORDERS, ArchiveDigests("f00")))
        book.ended(end)
    assert journal.read(tmp_path).ends["web-1"].saw == end.saw
    assert list(journal.reports(tmp_path)) == [end]


def test_a_host_that_was_given_up_may_still_be_at_work(tmp_path: Path) -> None:
    write(tmp_path)
    with journal.opened(tmp_path) as book:
        book.ended(replace(FAILED, code="host-deadline"))
        book.sync()
        assert journal.read(tmp_path).left == {"web-2"}
        book.began("web-2", 1)
        book.ended(FAILED)
    assert journal.read(tmp_path).left == set()


def test_what_was_changed_when_it_was_gone_on_with_stands(tmp_path: Path) -> None:
    write(tmp_path)
    changed = replace(ORDERS, parallel=3, desired={"web-1": {"hsm_ip": ["10.0.9.9"]}, "web-2": {}})
    with journal.opened(tmp_path) as book:
        book.resume("2026-11-25T01:00:00Z", changed, ArchiveDigests("f01"))
    run = journal.read(tmp_path)
    assert (run.spec, run.sent) == (changed, ArchiveDigests("f01"))


def test_an_end_says_nothing_of_what_is_wanted_since(tmp_path: Path) -> None:
    write(tmp_path)
    with journal.opened(tmp_path) as book:
        book.ended(FAILED)
        book.resume("later", replace(ORDERS, parallel=3), ArchiveDigests("f00"))
        book.sync()
        assert journal.read(tmp_path).state("web-1") is HostState.OK
        changed = replace(ORDERS, desired={"web-1": {"hsm_ip": ["10.0.9.9"]}, "web-2": {}})
        book.resume("later still", changed, ArchiveDigests("f00"))
    run = journal.read(tmp_path)
    assert (run.state("web-1"), run.state("web-2")) == (HostState.NOT_REACHED, HostState.UNREACHABLE)


def test_a_host_that_was_begun_again_has_no_end_until_that_ends(tmp_path: Path) -> None:
    write(tmp_path)
    with journal.opened(tmp_path) as book:
        book.began("web-1", 2)
        book.sync()
        assert journal.read(tmp_path).state("web-1") is HostState.AT_WORK
        book.ended(OK)
    assert journal.read(tmp_path).state("web-1") is HostState.OK


def test_the_last_word_on_a_host_counts(tmp_path: Path) -> None:
    write(tmp_path)
    with journal.opened(tmp_path) as book:
        book.began("web-1", 2)
        book.ended(replace(OK, state=HostState.FAILED, report=None))
    run = journal.read(tmp_path)
    assert (run.ends["web-1"].state, run.attempts["web-1"]) == (HostState.FAILED, 2)
    assert [end.state for end in journal.reports(tmp_path)] == [HostState.FAILED]


def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, bytes]:
    """Return the folder of a run, its journal, and the bytes of that."""
    folder = tmp_path_factory.mktemp("run")
    write(folder)
    file = folder / "journal.jsonl"
    return folder, file, file.read_bytes()


@given(st.data())
def test_a_journal_that_is_cut_anywhere_tells_what_was_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder, file, whole = written(tmp_path_factory)
    first = whole.index(b"\n") + 1
    at = data.draw(st.integers(first, len(whole)))
    file.write_bytes(whole[:at])
    kept = whole[:at].count(b"\n")
    assert len(list(journal.records(folder))) == kept
    with journal.opened(
        folder
    ) as book:  # the torn line is gone, and what follows stands on a line of its own
        book.began("web-1", 9)
    assert len(list(journal.records(folder))) == kept + 1
    assert journal.read(folder).attempts["web-1"] == 9


@given(st.data())
def test_what_a_power_cut_left_in_part_is_passed_over(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The kernel writes pages in any order: what was not synced may be zeros, with whole lines after it."""
    folder, file, whole = written(tmp_path_factory)
    synced = whole.index(b"\n") + 1
    begin = data.draw(st.integers(synced, len(whole)))
    end = data.draw(st.integers(begin, len(whole)))
    file.write_bytes(whole[:begin] + bytes(end - begin) + whole[end:])
    with journal.opened(folder) as book:
        book.began("web-1", 9)
    run = journal.read(folder)
    assert (run.spec, run.attempts["web-1"]) == (ORDERS, 9)
    assert set(run.ends) <= {"web-1"}
    assert [end.name for end in journal.reports(folder)] == list(run.ends)


@pytest.mark.parametrize("change", [{"colour": "red"}, {"targets": [{"name": "x"}]}, {"targets": 5}])
def test_a_journal_of_an_older_version_is_told(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path)
    file = tmp_path / "journal.jsonl"
    first, rest = file.read_text().split("\n", 1)
    record = json.loads(first)
    record["orders"].update(change)
    file.write_text(json.dumps(record) + "\n" + rest)
    with pytest.raises(AgentError) as refused:
        journal.read(tmp_path)
    assert refused.value.code.name == "nothing-recorded"


def test_a_disk_that_fills_is_told(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        with journal.opened(tmp_path) as book:
            book.begin(RunState("run", "now", ORDERS, ArchiveDigests("f00")))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
            book.ended(replace(OK, saw="x" * 2000))

    try:
        with pytest.raises(AgentError) as refused:
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert refused.value.code.name == "write-failed"
    assert journal.read(tmp_path).ends == {}  # torn, and told so
    with journal.opened(tmp_path) as book:
        book.ended(OK)
    assert set(journal.read(tmp_path).ends) == {"web-1"}


def test_two_controllers_on_one_run_refuse_each_other(tmp_path: Path) -> None:
    with journal.opened(tmp_path), pytest.raises(AgentError) as refused, journal.opened(tmp_path):
        pass
    assert refused.value.code.name == "run-locked"


@pytest.mark.parametrize(
    "text",
    ["", "{}\n", "nonsense\n", '{"v": 2, "kind": "run"}\n', '{"v": 1, "kind": "began", "host": "x"}\n'],
)
def test_what_is_no_journal_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal.jsonl").write_text(text)
    with pytest.raises(AgentError) as refused:
        journal.read(tmp_path)
    assert refused.value.code.name == "nothing-recorded"


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as refused:
        journal.read(tmp_path / "none")
    assert refused.value.code.name == "nothing-recorded"
    assert journal.runs(tmp_path / "none") == ()


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError) as refused, journal.opened(tmp_path / "file" / "run"):
        pass
    assert refused.value.code.name == "write-failed"


def test_a_journal_is_its_owners_alone(tmp_path: Path) -> None:
    write(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "run" / "journal.jsonl").stat().st_mode & 0o777 == 0o600


def test_runs_are_where_the_desktop_wants_state() -> None:
    assert str(journal.runs_dir({"XDG_STATE_HOME": "/x", "HOME": "/home/op"})) == "/x/hsm-agent/runs"
    assert (
        str(journal.runs_dir({"XDG_STATE_HOME": "x", "HOME": "/home/op"}))
        == "/home/op/.local/state/hsm-agent/runs"
    )
    assert str(journal.runs_dir({"HOME": "/home/op"})) == "/home/op/.local/state/hsm-agent/runs"


def test_the_newest_roll_out_says_where_a_hosts_packages_come_from(tmp_path: Path) -> None:
    def run(number: int, command: str, *resumed: dict[str, Any], **desired: Any) -> None:
        orders = replace(ORDERS, command=command, desired=desired)
        with journal.opened(tmp_path / f"2026112{number}T000000Z-0000") as book:
            book.begin(RunState("run", "now", orders, ArchiveDigests("f00")))
            for each in resumed:
                book.resume("later", replace(orders, desired=each), ArchiveDigests("f00"))

    asked = {"hsm_ip": ["10.0.1.6"]}
    run(1, "rollout", {"web-1": {**asked, "package_source": "/new"}}, **{"web-1": asked, "web-2": asked})
    run(2, "rollout", **{"web-2": {**asked, "package_source": "/a"}, "web-3": {}})
    run(3, "verify", **{"web-2": {**asked, "package_source": "/other"}})
    (tmp_path / "20261124T000000Z-0000").mkdir()
    (tmp_path / "20261124T000000Z-0000" / "journal.jsonl").write_text('{"v": 1, "kind": "run"}\n')
    found = journal.configured(tmp_path)
    assert {name: each["package_source"] for name, each in found.items()} == {"web-2": "/a", "web-1": "/new"}


@pytest.mark.slow
@pytest.mark.parametrize("change", [0x01, 0x20, 0x80])
def test_a_journal_of_which_a_byte_changed_tells_nothing_else(tmp_path: Path, change: int) -> None:
    write(tmp_path)
    last = replace(ORDERS, desired={"web-1": {"hsm_ip": ["10.0.9.9"]}, "web-2": {}})
    with journal.opened(tmp_path) as book:
        book.resume("later", last, ArchiveDigests("f00"))
        book.began("web-1", 2)
        book.ended(OK)
    whole, ends = journal.read(tmp_path), list(journal.reports(tmp_path))
    file = tmp_path / "journal.jsonl"
    content = file.read_bytes()
    begin = content.index(b'"resumed"') - 40
    for at in (*range(0, begin, 7), *range(begin, len(content))):
        file.write_bytes(content[:at] + bytes([content[at] ^ change]) + content[at + 1 :])
        try:
            run, told = journal.read(tmp_path), list(journal.reports(tmp_path))
        except AgentError as error:
            assert error.code.name == "nothing-recorded"  # noqa: PT017 -- or nothing else than before
            continue
        assert (run.spec, run.sent) == (whole.spec, whole.sent), content[at : at + 20]
        assert all(run.ends[name] == whole.ends[name] for name in run.ends)
        assert all(end in ends for end in told)


def test_a_journal_without_checksums_is_read(tmp_path: Path) -> None:
    write(tmp_path)
    whole = journal.read(tmp_path)
    file = tmp_path / "journal.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(line.pop("crc32") for line in lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert journal.read(tmp_path) == whole
