"""What a host remembers: read with distrust, put back as it was."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloudhsm import paths
from agent.core.errors import AgentError
from agent.core.model import StepOutcome
from agent.core.system import LINUX
from agent.state import records, snapshots
from agent.state.saved_files import line_id
from agent.state.sealed import seal
from agent.state.snapshot_format import ROLLBACK
from agent.steps.restore import restore
from tests.examples import examples
from tests.fakes.damage import DAMAGES, damaged
from tests.fakes.memory import Memory
from tests.fakes.vendor import CA, ETC

CFG = f"{ETC}/cloudhsm-cli.cfg"
RUN = "20261123T000000Z-0001"


def host_with(**files: bytes) -> Memory:
    memory = Memory()
    for path, data in files.items():
        memory.place(path, data, uid=990, gid=991, mode=0o640)
    return memory


def test_a_snapshot_puts_back_bytes_mode_and_owner() -> None:
    memory = host_with(**{CA: b"old CA", CFG: b"{}"})
    snapshots.save(memory, RUN, worked=True)
    memory.write(CA, b"new CA", mode=0o644)
    lines = restore(memory, snapshots.load(memory, None))
    assert [(line.id, line.outcome) for line in lines] == [("certificate", StepOutcome.UNDONE)]
    stat = memory.stat(CA)
    assert stat is not None
    assert (memory.read(CA), stat.mode, stat.uid, stat.gid) == (b"old CA", 0o640, 990, 991)


def test_putting_back_what_is_there_does_nothing() -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}"})
    snapshots.save(memory, RUN, worked=True)
    memory.touches.clear()
    assert restore(memory, snapshots.load(memory, None)) == ()
    assert memory.touches == []


def test_a_ca_that_was_not_there_is_removed_and_a_configuration_stays() -> None:
    memory = Memory()
    snapshots.save(memory, RUN, worked=True)
    memory.place(CA, b"CA")
    memory.place(CFG, b"{}")
    lines = restore(memory, snapshots.load(memory, None))
    assert [(line.id, line.want) for line in lines] == [("certificate", "absent")]
    assert (memory.read(CA), memory.read(CFG)) == (None, b"{}")


@pytest.mark.parametrize("switch", ["full", "read_only"])
def test_what_cannot_be_put_back_is_told_file_by_file(switch: str) -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}"})
    snapshots.save(memory, RUN, worked=True)
    memory.place(CA, b"other")
    memory.place(CFG, b"[]")
    setattr(memory, switch, True)
    lines = restore(memory, snapshots.load(memory, None))
    assert [(line.outcome, line.code) for line in lines] == [(StepOutcome.FAILED, "rollback-failed")] * 2


def run_ids(count: int) -> tuple[str, ...]:
    return tuple(f"20261123T0000{number:02}Z-0000" for number in range(count))


def test_the_oldest_snapshots_make_room_each_among_its_kind() -> None:
    memory = host_with(**{CA: b"CA"})
    for number, run_id in enumerate(run_ids(60)):
        memory.place(CFG, b"{}" + b" " * number)
        snapshots.save(memory, run_id, worked=number < 25)
    assert snapshots.known(memory) == (*run_ids(25)[5:], *run_ids(60)[40:])


def test_equal_ones_are_kept_once_and_every_run_finds_its_own() -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}"})
    for run_id in run_ids(5):
        snapshots.save(memory, run_id, worked=True)
    assert snapshots.known(memory) == run_ids(5)[4:]
    memory.place(CFG, b"[]")
    snapshots.save(memory, "20261124T000000Z-0000", worked=True)
    for run_id in run_ids(5):
        found = snapshots.load(memory, run_id)
        assert [kept.data for kept in found.files] == [b"CA", b"{}"]


def test_going_back_by_default_goes_past_what_a_rollback_kept() -> None:
    memory = host_with(**{CA: b"first"})
    snapshots.save(memory, "20261123T000001Z-0000", worked=True)
    memory.place(CA, b"second")
    snapshots.save(memory, "20261123T000002Z-0000", reason=ROLLBACK, to="20261123T000001Z-0000")
    assert snapshots.load(memory, None).run_id == "20261123T000001Z-0000"
    assert snapshots.load(memory, "20261123T000002Z-0000").run_id == "20261123T000002Z-0000"


@pytest.mark.parametrize("run_id", [None, "20261123T000001Z-9999", "../desired", ""])
def test_a_run_without_a_snapshot_is_named(run_id: str | None) -> None:
    memory = host_with(**{CA: b"CA"})
    if run_id is not None:
        snapshots.save(memory, "20261123T000001Z-0000", worked=True)
    with pytest.raises(AgentError) as caught:
        snapshots.load(memory, run_id if run_id != "" else "none")
    assert caught.value.code.name == "nothing-recorded"


NONSENSE = [b"", b"[", b"[]", b"{}", b'{"schema_version": 9}', b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("data", NONSENSE)
def test_a_record_that_is_no_record_is_none(data: bytes) -> None:
    memory = Memory({LINUX.desired: data, LINUX.report: data})
    for read in (records.read_last, records.read_report):
        with pytest.raises(AgentError) as caught:
            read(memory)
        assert caught.value.code.name == "nothing-recorded"


@pytest.mark.parametrize("run_id", [None, RUN])
@pytest.mark.parametrize(
    "data", [*NONSENSE, seal({}), seal({"schema_version": 2, "run_id": RUN, "files": [{"path": 5}]})]
)
def test_a_snapshot_that_is_none_is_refused(data: bytes, run_id: str | None) -> None:
    memory = Memory({f"{LINUX.snapshots}/{RUN}.json": data})
    with pytest.raises(AgentError) as caught:
        snapshots.load(memory, run_id)
    assert caught.value.code.name == "snapshot-damaged"


def test_a_damaged_one_is_passed_over_and_named() -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}"})
    first, second = run_ids(2)
    snapshots.save(memory, first, worked=True)
    memory.place(f"{LINUX.snapshots}/{second}.json", b"{")
    memory.place(CFG, b"[]")
    found = snapshots.load(memory, None)
    assert found.run_id == first
    notice = snapshots.remarks(memory, found)[-1]
    assert (notice.code, second in notice.text) == ("snapshot-damaged", True)


def test_one_that_took_anothers_name_is_refused() -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}"})
    first, second = run_ids(2)
    snapshots.save(memory, first, worked=True)
    memory.place(f"{LINUX.snapshots}/{second}.json", memory.read(f"{LINUX.snapshots}/{first}.json") or b"")
    with pytest.raises(AgentError) as caught:
        snapshots.load(memory, second)
    assert (caught.value.code.name, caught.value.saw) == ("snapshot-damaged", f"it is of run {first}")


def test_one_that_holds_what_is_not_the_clients_is_refused() -> None:
    strange = {"path": "/etc/shadow", "mode": 420, "owner": [0, 0], "link": None, "data": ""}
    tree = {"schema_version": 2, "run_id": RUN, "reason": "configure", "worked": True, "to": None, "also": []}
    memory = Memory({f"{LINUX.snapshots}/{RUN}.json": seal({**tree, "files": [strange]})})
    with pytest.raises(AgentError) as caught:
        snapshots.load(memory, RUN)
    assert "/etc/shadow" in caught.value.saw


@examples(400)
@given(
    at=st.integers(0, 5000),
    kind=st.sampled_from(DAMAGES),
    byte=st.integers(1, 255),
)
def test_a_snapshot_of_which_a_byte_changed_is_refused_or_says_the_same(
    at: int, kind: str, byte: int
) -> None:
    memory = host_with(**{CA: b"the CA", CFG: b'{"clusters": []}'})
    whole = snapshots.save(memory, RUN, worked=True)
    path = f"{LINUX.snapshots}/{RUN}.json"
    data = memory.read(path) or b""
    memory.place(path, damaged(data, kind, at, byte))
    try:
        found = snapshots.load(memory, RUN)
    except AgentError as error:
        assert error.code.name == "snapshot-damaged"  # noqa: PT017 -- or it says the same
    else:
        assert found == whole


def test_what_was_asked_for_is_read_back() -> None:
    memory = Memory()
    last = records.LastConfigure({"hsm_ip": ["10.0.0.1"]}, "PEM")
    records.write_last(memory, last)
    assert records.read_last(memory) == last
    stat = memory.stat(LINUX.desired)
    assert stat is not None
    assert stat.mode == 0o600


def test_a_file_belongs_to_a_step() -> None:
    assert line_id(paths.LINUX, CA) == "certificate"
    assert line_id(paths.LINUX, CFG) == "configure:cli"
    assert line_id(paths.LINUX, f"{ETC}/cloudhsm-openssl-provider.cfg") == "configure:openssl-provider"
    assert line_id(paths.LINUX, f"{ETC}/cloudhsm_client.cfg") == "configure:cli"


@pytest.mark.parametrize("name", ["cloudhsm-cli-backup.cfg", "cloudhsm-exporter.cfg", "site.cfg"])
def test_what_is_no_components_file_is_never_kept_or_put_back(name: str) -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}", f"{ETC}/{name}": b"mine"})
    snapshots.save(memory, RUN, worked=True)
    memory.place(f"{ETC}/{name}", b"changed since")
    assert restore(memory, snapshots.load(memory, None)) == ()
    assert memory.read(f"{ETC}/{name}") == b"changed since"


def test_a_private_key_is_never_copied_into_a_snapshot() -> None:
    memory = host_with(**{CA: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", CFG: b"{}"})
    with pytest.raises(AgentError) as caught:
        snapshots.save(memory, RUN, worked=True)
    assert (caught.value.code.name, memory.touches) == ("ca-is-private-key", [])


@pytest.mark.parametrize("name", ["state", "snapshots", "file"])
def test_what_an_access_list_lets_others_write_is_not_believed(name: str) -> None:
    memory = Memory({CA: b"CA"})
    snapshots.save(memory, RUN, worked=True)
    path = {"state": LINUX.state, "snapshots": LINUX.snapshots, "file": f"{LINUX.snapshots}/{RUN}.json"}[name]
    kept = memory.entries[path]
    memory.entries[path] = replace(kept, writers=(("user", 0), ("group", 0)))
    assert snapshots.load(memory, RUN).files[0].data == b"CA"
    memory.entries[path] = replace(kept, writers=(("user", 0), ("group", 1000)))
    with pytest.raises(AgentError, match="not put back") as caught:
        snapshots.load(memory, RUN)
    assert "group 1000 may write to" in caught.value.saw
