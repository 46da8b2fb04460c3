"""What a host remembers: read with distrust, put back as it was."""

from __future__ import annotations

import json

import pytest

from agent.cloudhsm import layout
from agent.core.errors import AgentError
from agent.core.system import LINUX
from agent.core.words import Outcome
from agent.state import snapshot, store
from tests.doubles.memory import Memory
from tests.doubles.vendor import CA, ETC

CFG = f"{ETC}/cloudhsm-cli.cfg"


def host_with(**files: bytes) -> Memory:
    memory = Memory()
    for path, data in files.items():
        memory.place(path, data, uid=990, gid=991, mode=0o640)
    return memory


def test_a_snapshot_puts_back_bytes_mode_and_owner() -> None:
    memory = host_with(**{CA: b"old CA", CFG: b"{}"})
    snapshot.save(memory, "20261123T000000Z-0001")
    memory.write(CA, b"new CA", mode=0o644)
    lines = snapshot.load(memory, None).restore(memory)
    assert [(line.id, line.outcome) for line in lines] == [("certificate", Outcome.UNDONE)]
    stat = memory.stat(CA)
    assert stat is not None
    assert (memory.read(CA), stat.mode, stat.uid, stat.gid) == (b"old CA", 0o640, 990, 991)


def test_putting_back_what_is_there_does_nothing() -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}"})
    snapshot.save(memory, "20261123T000000Z-0001")
    memory.touches.clear()
    assert snapshot.load(memory, None).restore(memory) == ()
    assert memory.touches == []


def test_a_ca_that_was_not_there_is_removed_and_a_configuration_stays() -> None:
    memory = Memory()
    snapshot.save(memory, "20261123T000000Z-0001")
    memory.place(CA, b"CA")
    memory.place(CFG, b"{}")
    lines = snapshot.load(memory, None).restore(memory)
    assert [(line.id, line.want) for line in lines] == [("certificate", "absent")]
    assert (memory.read(CA), memory.read(CFG)) == (None, b"{}")


@pytest.mark.parametrize("switch", ["full", "read_only"])
def test_what_cannot_be_put_back_is_told_file_by_file(switch: str) -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}"})
    snapshot.save(memory, "20261123T000000Z-0001")
    memory.place(CA, b"other")
    memory.place(CFG, b"[]")
    setattr(memory, switch, True)
    lines = snapshot.load(memory, None).restore(memory)
    assert [(line.outcome, line.code) for line in lines] == [(Outcome.FAILED, "rollback-failed")] * 2


def test_the_oldest_snapshots_make_room() -> None:
    memory = host_with(**{CA: b"CA"})
    for number in range(25):
        snapshot.save(memory, f"20261123T0000{number:02}Z-0000")
    assert snapshot.known(memory) == tuple(f"20261123T0000{number:02}Z-0000" for number in range(5, 25))


def test_going_back_by_default_goes_past_what_a_rollback_kept() -> None:
    memory = host_with(**{CA: b"first"})
    snapshot.save(memory, "20261123T000001Z-0000")
    memory.place(CA, b"second")
    snapshot.save(memory, "20261123T000002Z-0000", rollback=True)
    assert snapshot.load(memory, None).run_id == "20261123T000001Z-0000"
    assert snapshot.load(memory, "20261123T000002Z-0000").run_id == "20261123T000002Z-0000"


@pytest.mark.parametrize("run_id", [None, "20261123T000001Z-9999", "../desired", ""])
def test_a_run_without_a_snapshot_is_named(run_id: str | None) -> None:
    memory = host_with(**{CA: b"CA"})
    if run_id is not None:
        snapshot.save(memory, "20261123T000001Z-0000")
    with pytest.raises(AgentError) as caught:
        snapshot.load(memory, run_id if run_id != "" else "none")
    assert caught.value.code.name == "nothing-recorded"


@pytest.mark.parametrize("data", [b"", b"[", b"[]", b"{}", b'{"schema_version": 9}', b"\xff", b"[" * 100_000])
def test_a_record_that_is_no_record_is_none(data: bytes) -> None:
    memory = Memory(
        {LINUX.desired: data, LINUX.report: data, f"{LINUX.snapshots}/20261123T000001Z-0000.json": data}
    )
    for read in (store.read_last, store.read_report, lambda view: snapshot.load(view, None)):
        with pytest.raises(AgentError) as caught:
            read(memory)
        assert caught.value.code.name == "nothing-recorded"


def test_a_snapshot_of_this_version_with_odd_files_is_no_snapshot() -> None:
    tree = {"schema_version": 1, "rollback": False, "files": [{"path": 5}]}
    memory = Memory({f"{LINUX.snapshots}/20261123T000001Z-0000.json": json.dumps(tree).encode()})
    with pytest.raises(AgentError) as caught:
        snapshot.load(memory, None)
    assert caught.value.code.name == "nothing-recorded"


def test_what_was_asked_for_is_read_back() -> None:
    memory = Memory()
    last = store.Last({"hsm_ip": ["10.0.0.1"]}, "PEM")
    store.write_last(memory, last)
    assert store.read_last(memory) == last
    stat = memory.stat(LINUX.desired)
    assert stat is not None
    assert stat.mode == 0o600


def test_a_file_belongs_to_a_step() -> None:
    assert snapshot.line_id(layout.LINUX, CA) == "certificate"
    assert snapshot.line_id(layout.LINUX, CFG) == "configure:cli"
    assert (
        snapshot.line_id(layout.LINUX, f"{ETC}/cloudhsm-openssl-provider.cfg") == "configure:openssl-provider"
    )
    assert snapshot.line_id(layout.LINUX, f"{ETC}/cloudhsm_client.cfg") == "configure:cli"


@pytest.mark.parametrize("name", ["cloudhsm-cli-backup.cfg", "cloudhsm-exporter.cfg", "site.cfg"])
def test_what_is_no_components_file_is_never_kept_or_put_back(name: str) -> None:
    memory = host_with(**{CA: b"CA", CFG: b"{}", f"{ETC}/{name}": b"mine"})
    snapshot.save(memory, "20261123T000000Z-0001")
    memory.place(f"{ETC}/{name}", b"changed since")
    assert snapshot.load(memory, None).restore(memory) == ()
    assert memory.read(f"{ETC}/{name}") == b"changed since"


def test_a_private_key_is_never_copied_into_a_snapshot() -> None:
    memory = host_with(**{CA: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", CFG: b"{}"})
    with pytest.raises(AgentError) as caught:
        snapshot.save(memory, "20261123T000000Z-0001")
    assert (caught.value.code.name, memory.touches) == ("ca-is-private-key", [])
