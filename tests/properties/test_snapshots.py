"""What is kept to go back to: whose it is, who wrote it, and whether it is whole, decide whether it is put back."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import commands
from agent.cloudhsm.ca import find_certificates
from agent.cloudhsm.paths import client_paths
from agent.config.desired import with_options
from agent.core.errors import AgentError
from agent.core.system import LINUX
from agent.hosts.local import local_host
from agent.render.progress import NullProgress
from agent.state import snapshots
from agent.state.sealed import seal
from tests.examples import examples
from tests.fakes.memory import Memory
from tests.fakes.vendor import CA, ETC, Vendor
from tests.properties.receivers import Fixed
from tests.properties.recorded import as_instance, as_machine, both, run_of
from tests.properties.worlds import configure, desired_of, machine_of

if TYPE_CHECKING:
    from pathlib import Path

    from agent.core.model import Report
    from tests.properties.recorded import World

CFG = f"{ETC}/cloudhsm-cli.cfg"
RUN = "20261121T000000Z-0000"
OLDER = "20261001T000000Z-0001"


def as_before(run_id: str, memory: Memory, *paths: str, mode: int = 0o644, rollback: bool = False) -> bytes:
    """The bytes of a snapshot as version 1 wrote them."""
    files = [
        {
            "path": path,
            "mode": mode,
            "owner": [0, 0],
            "data": base64.b64encode(memory.read(path) or b"").decode(),
        }
        for path in paths
    ]
    tree = {"schema_version": 1, "run_id": run_id, "rollback": rollback, "files": files}
    return json.dumps(tree).encode()


def rollback(memory: Memory, run_id: str | None = None, number: int = 8) -> Report:
    return commands.rollback(memory, run_id, run_of("rollback", number), NullProgress())


def codes(report: Report) -> list[str]:
    return [notice.code for notice in report.notices]


def an_upgraded_host(ca_pem: bytes, world: World = Vendor, **fields: Any) -> tuple[Vendor, Memory, bytes]:
    """A host that the version before configured: its snapshots alone are there, and something has changed since."""
    vendor = world()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem))
    here = client_paths(memory.system)
    cfg = here.settings("cli", memory)
    for each in [path for path in memory.entries if "snapshots" in path or path.endswith("proven.json")]:
        memory.entries.pop(each)
    data = memory.read(cfg) or b""
    written = as_before(OLDER, memory, here.ca, cfg, **fields)
    memory.place(memory.system.join(memory.system.snapshots, f"{OLDER}.json"), written)
    memory.place(cfg, data.replace(b"10.0.1.6", b"10.9.9.9"))
    return vendor, memory, data


@both
def test_one_of_an_older_version_is_told_as_such_and_not_taken_by_default(
    world: World, ca_pem: bytes
) -> None:
    _, memory, _ = an_upgraded_host(ca_pem, world)
    ours = client_paths(memory.system)
    before = [memory.read(path) for path in (ours.ca, ours.settings("cli", memory))]
    report = rollback(memory)
    assert (report.exit_status, report.code, report.changed) == (2, "nothing-recorded", False)
    assert report.failure is not None
    assert "older hsm-agent" in report.failure.sentence
    assert f"rollback {OLDER}" in (report.failure.hint or "")
    assert [memory.read(path) for path in (ours.ca, ours.settings("cli", memory))] == before


@both
def test_one_of_an_older_version_is_taken_by_its_name_and_that_is_said(world: World, ca_pem: bytes) -> None:
    _, memory, data = an_upgraded_host(ca_pem, world)
    report = rollback(memory, OLDER)
    assert report.exit_status == 0
    assert memory.read(client_paths(memory.system).settings("cli", memory)) == data
    assert {"snapshot-unsealed", "rollback-unproven"} <= set(codes(report))
    # and what it took the place of can be had again, by its name
    assert rollback(memory, run_of("rollback").run_id, 9).exit_status == 0
    assert b"10.9.9.9" in (memory.read(client_paths(memory.system).settings("cli", memory)) or b"")


def test_where_there_is_one_with_a_checksum_that_is_taken_by_default(ca_pem: bytes) -> None:
    vendor, memory, _ = an_upgraded_host(ca_pem)
    assert configure(memory, desired_of(vendor, ca_pem), 2).exit_status == 0
    proven = memory.read(CFG)
    memory.place(CFG, (proven or b"").replace(b"10.0.2.9", b"10.9.9.8"))
    report = rollback(memory)
    assert (report.exit_status, memory.read(CFG)) == (0, proven)
    assert "snapshot-unsealed" not in codes(report)


def test_a_file_of_an_older_one_does_not_become_open_and_a_link_stays_one(ca_pem: bytes) -> None:
    """Version 1 kept the mode of a link, 0777, for the file that it leads to."""
    for linked in (False, True):
        _, memory, data = an_upgraded_host(ca_pem, mode=0o777)
        if linked:
            memory.place("/srv/cli.cfg", memory.read(CFG) or b"", mode=0o640)
            memory.place(CFG, kind="link", link="/srv/cli.cfg", mode=0o777)
        assert rollback(memory, OLDER).exit_status == 0
        assert memory.read(CFG) == data
        assert memory.readlink(CFG) == ("/srv/cli.cfg" if linked else None)
        entry = memory.entries["/srv/cli.cfg" if linked else CFG]
        assert entry.mode == (0o640 if linked else 0o644)


@pytest.mark.parametrize("at", range(40, 1000, 97))
def test_a_damaged_ca_of_an_older_one_takes_no_good_ones_place(at: int, ca_pem: bytes) -> None:
    _, memory, _ = an_upgraded_host(ca_pem)
    path = f"{LINUX.snapshots}/{OLDER}.json"
    tree = json.loads(memory.read(path) or b"")
    lines = ca_pem.decode().splitlines()
    body = "".join(lines[1:-1])
    at %= len(body) - 4
    spoilt = body[:at] + "".join("B" if each != "B" else "C" for each in body[at : at + 4]) + body[at + 4 :]
    text = "\n".join([lines[0], *(spoilt[i : i + 64] for i in range(0, len(spoilt), 64)), lines[-1], ""])
    tree["files"][0]["data"] = base64.b64encode(text.encode()).decode()
    memory.place(path, json.dumps(tree).encode())
    report = rollback(memory, OLDER)
    assert (report.exit_status, report.code) == (52, "snapshot-damaged")
    assert memory.read(CA) == ca_pem


# what is not a snapshot as version 1 wrote it
FORMER: list[dict[str, Any]] = [
    {"files": None}, {"files": 5}, {"files": [5]}, {"files": [{}]}, {"run_id": 5}, {"run_id": "other"}, {"more": 1},
    {"schema_version": 0}, {"schema_version": True}, {"schema_version": -1}, {"schema_version": "1"}, {"sha256": "0" * 64},
]  # fmt: skip
FORMER_FILE: list[dict[str, Any]] = [
    {"path": "/etc/shadow"}, {"path": 5}, {"path": None}, {"mode": "0644"}, {"mode": 10**40}, {"mode": -5}, {"mode": True},
    {"owner": [0]}, {"owner": [0, 0, 0]}, {"owner": "00"}, {"owner": [10**40, 0]}, {"owner": None}, {"data": "%%"},
    {"data": None}, {"data": 5}, {"data": "\u00e9"}, {"link": "/etc/shadow"},
]  # fmt: skip


@pytest.mark.parametrize("changed", [*FORMER, *FORMER_FILE], ids=str)
def test_what_no_version_wrote_is_damaged(changed: dict[str, Any], ca_pem: bytes) -> None:
    _, memory, _ = an_upgraded_host(ca_pem)
    path = f"{LINUX.snapshots}/{OLDER}.json"
    tree = json.loads(memory.read(path) or b"")
    where = tree["files"][1] if changed in FORMER_FILE else tree
    where.update(changed)
    memory.place(path, json.dumps(tree).encode())
    for run_id in (OLDER, None):
        report = rollback(memory, run_id)
        assert (report.code, report.exit_status) == ("snapshot-damaged", 52)
    assert memory.read("/etc/shadow") is None


@examples(150)
@given(at=st.integers(0, 10_000), byte=st.integers(1, 255))
def test_whatever_byte_of_an_older_one_changed_it_is_refused_or_the_client_can_read_it(
    at: int, byte: int, ca_pem: bytes
) -> None:
    _, memory, _ = an_upgraded_host(ca_pem)
    path = f"{LINUX.snapshots}/{OLDER}.json"
    data = memory.read(path) or b""
    at %= len(data)
    memory.place(path, data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :])
    report = rollback(memory, OLDER)
    assert report.code in (None, "snapshot-damaged", "nothing-recorded")
    assert report.code is not None or "snapshot-unsealed" in codes(report)
    found = find_certificates(memory.read(CA) or b"")
    assert (found.fingerprints, found.plain) == (find_certificates(ca_pem).fingerprints, True)
    json.loads(memory.read(CFG) or b"")


@pytest.mark.parametrize(
    "data",
    [
        seal({"schema_version": 3, "run_id": RUN, "words": "of tomorrow"}),
        b'{"schema_version": 3, "zip": "H4sI"}',
    ],
)
def test_one_of_a_newer_version_is_told_as_such(data: bytes, ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    memory.place(f"{LINUX.snapshots}/{RUN}.json", data)
    for run_id in (RUN, None):
        report = rollback(memory, run_id)
        assert (report.exit_status, report.code) == (2, "nothing-recorded")
        assert report.failure is not None
        assert ("newer" in report.failure.sentence, report.failure.saw) == (True, "version 3")
    assert memory.read(f"{LINUX.snapshots}/{RUN}.json") == data


# ---- whose it is


def a_copied_host(world: World, ca_pem: bytes) -> tuple[Vendor, Memory]:
    """A copy of a host on which two runs changed something, with a configuration of its own."""
    vendor = world()
    memory = machine_of(vendor)
    if world is Vendor:
        as_machine(memory, "1")
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    configure(memory, with_options(good, {"log_level": "debug"}), 2)
    configure(memory, with_options(good, {"log_level": "warn"}), 3)
    as_machine(memory, "7")
    return vendor, memory


@both
def test_what_another_host_kept_is_not_put_back(world: World, ca_pem: bytes) -> None:
    _, memory = a_copied_host(world, ca_pem)
    cfg = client_paths(memory.system).settings("cli", memory)
    memory.place(cfg, (memory.read(cfg) or b"").replace(b"10.0.1.6", b"10.0.1.7"))
    own = memory.read(cfg)
    names = snapshots.known(memory)
    assert len(names) > 1
    for run_id in (None, *names):
        report = rollback(memory, run_id)
        assert (report.exit_status, report.code, memory.read(cfg)) == (2, "nothing-recorded", own), run_id
        assert report.failure is not None
        assert "another host" in report.failure.sentence
        assert "host.identity" in report.failure.saw
    failure = rollback(memory, names[-1]).failure
    assert failure is not None
    assert "--hsm-ip 10.0.1.6 --hsm-ip 10.0.2.9" in (failure.hint or "")


def test_a_copy_keeps_and_goes_back_to_its_own(ca_pem: bytes) -> None:
    vendor, memory = a_copied_host(Vendor, ca_pem)
    good = desired_of(vendor, ca_pem, log_level="info")
    assert configure(memory, good, 4).exit_status == 0
    own = memory.read(CFG)
    memory.place(CFG, (own or b"").replace(b"10.0.1.6", b"10.0.1.7"))
    report = rollback(memory)
    assert (report.exit_status, memory.read(CFG)) == (0, own)
    assert "snapshot-passed-over" in codes(report)


def test_what_another_host_proved_proves_nothing_here(ca_pem: bytes) -> None:
    _, memory = a_copied_host(Vendor, ca_pem)
    taken = snapshots.save(memory, RUN)
    assert not taken.worked
    snapshots.prove(memory, RUN)
    assert snapshots.save(memory, RUN).worked


def test_a_copy_of_an_instance_is_another(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    as_instance(memory, "i-0123456789abcdef0")
    configure(memory, desired_of(vendor, ca_pem))
    as_instance(memory, "i-0fedcba9876543210")
    assert rollback(memory).code == "nothing-recorded"


@examples(200)
@given(at=st.integers(0, 10_000), byte=st.integers(1, 255))
def test_whatever_byte_of_another_hosts_changed_it_is_never_put_back(
    at: int, byte: int, ca_pem: bytes
) -> None:
    memory = Memory({CA: ca_pem, CFG: b'{"clusters": []}'})
    as_machine(memory, "1")
    snapshots.save(memory, RUN, worked=True)
    as_machine(memory, "7")
    path = f"{LINUX.snapshots}/{RUN}.json"
    data = memory.read(path) or b""
    at %= len(data)
    memory.place(path, data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :])
    with pytest.raises(AgentError) as caught:
        snapshots.load(memory, RUN)
    assert caught.value.code.name in ("snapshot-damaged", "nothing-recorded")


def test_without_the_key_that_says_whose_it_is_the_checksum_is_another(ca_pem: bytes) -> None:
    memory = Memory({CA: ca_pem})
    as_machine(memory, "1")
    snapshots.save(memory, RUN, worked=True)
    path = f"{LINUX.snapshots}/{RUN}.json"
    tree = json.loads(memory.read(path) or b"")
    assert "identity" in tree
    del tree["identity"]
    memory.place(path, json.dumps(tree).encode())
    with pytest.raises(AgentError) as caught:
        snapshots.load(memory, RUN)
    assert caught.value.code.name == "snapshot-damaged"


@pytest.mark.parametrize("at", [5, 50, 500, -5])
def test_what_worked_last_and_is_damaged_is_named(at: int, ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem))
    path = f"{LINUX.state}/proven.json"
    data = memory.read(path) or b""
    memory.place(path, data[:at] + b"\x00" + data[at + 1 :])
    memory.place(CFG, b"{")
    report = rollback(memory)
    texts = [notice.text for notice in report.notices if notice.code == "snapshot-damaged"]
    assert ["proven.json" in text for text in texts] == [True]


# ---- other names of a file


def under_two_names(memory: Memory, *paths: str) -> None:
    for path in paths:
        memory.entries[path] = replace(memory.entries[path], names=2)


@pytest.mark.parametrize("paths", [(CA,), (CFG,), (CA, CFG)], ids=str)
def test_a_hard_link_that_is_cut_is_named(paths: tuple[str, ...], ca_pem: bytes, other_ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    under_two_names(memory, *paths)
    assert configure(memory, good, 2).notices == ()  # nothing was replaced
    memory.place(CA, other_ca_pem, names=2 if CA in paths else 1)
    memory.place(CFG, b"{", names=2 if CFG in paths else 1)
    report = rollback(memory)
    assert report.exit_status == 0
    texts = [notice.text for notice in report.notices if notice.code == "hard-link-cut"]
    assert [text.split()[0] for text in texts] == list(paths)
    assert memory.read(CA) == ca_pem


def test_an_undo_that_cuts_a_hard_link_says_so_behind_a_link_too(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    memory.place("/srv/ca.crt", ca_pem, names=3)
    memory.place(CA, kind="link", link="/srv/ca.crt", mode=0o777)
    memory.place(CFG, memory.read(CFG) or b"", names=2)
    for address in ("10.9.9.8", "10.9.9.9"):
        memory.ports[address, 2223] = "hsm-refused"
    report = configure(memory, replace(good, hsm_ip=("10.9.9.8", "10.9.9.9")), 2)
    assert report.exit_status == 51
    assert [each.text.split()[0] for each in report.notices if each.code == "hard-link-cut"] == [CFG]
    assert memory.readlink(CA) == "/srv/ca.crt"


def test_the_machines_own_adapter_counts_names(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x")
    os.link(file, tmp_path / "b")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    host = local_host()
    assert [getattr(host.stat(str(tmp_path / name)), "names", None) for name in ("a", "b", "folder")] == [
        2,
        2,
        1,
    ]


# ---- what a rollback went to before


@pytest.mark.parametrize("then", ["works", "is damaged"])
def test_what_was_gone_back_to_and_never_worked_takes_no_proven_ones_place(then: str) -> None:
    memory = Memory({CFG: b"[0]"})  # what was there before the agent, and was never seen to work
    snapshots.save(memory, "20261121T000000Z-0000")
    memory.place(CFG, b"[1]")
    snapshots.prove(memory, "20261121T000000Z-0000")
    snapshots.save(memory, "20261122T000000Z-0000", reason="rollback", to="20261121T000000Z-0000")
    memory.place(CFG, b"[0]")
    assert snapshots.load(memory, None).files[0].data == b"[0]"  # going back twice is going back once
    memory.place(CFG, b"[2]")
    snapshots.save(memory, "20261123T000000Z-0000")
    memory.place(CFG, b"[1]")
    snapshots.prove(memory, "20261123T000000Z-0000")
    if then == "is damaged":
        memory.place(CFG, b"[1")
    assert snapshots.load(memory, None).files[0].data == b"[1]"


def test_what_was_gone_back_to_takes_no_place_of_what_came_back_by_itself() -> None:
    memory = Memory({CFG: b"[0]"})
    snapshots.save(memory, "20261121T000000Z-0000")
    memory.place(CFG, b"[1]")
    snapshots.prove(memory, "20261121T000000Z-0000")
    snapshots.save(memory, "20261122T000000Z-0000", reason="rollback", to="20261121T000000Z-0000")
    memory.place(CFG, b"[1]")  # put back by hand, or by a run that failed after that
    snapshots.save(memory, "20261123T000000Z-0000")
    assert snapshots.load(memory, None).files[0].data == b"[1]"


@pytest.mark.parametrize("is_proven_since", [False, True])
def test_what_was_removed_and_never_worked_is_gone_back_to_until_something_is_proven(
    is_proven_since: bool,
) -> None:
    memory = Memory({CFG: b"[0]"})
    snapshots.save(memory, "20261121T000000Z-0000", reason="remove")
    memory.place(CFG, b"[1]")
    if is_proven_since:
        snapshots.prove(memory, "20261122T000000Z-0000")
    assert snapshots.load(memory, None).files[0].data == (b"[1]" if is_proven_since else b"[0]")


# ---- a clock that jumps


@examples(60)
@given(
    years=st.permutations(range(1970, 1970 + 12)), worked=st.lists(st.booleans(), min_size=12, max_size=12)
)
def test_the_last_that_worked_is_the_last_that_was_kept_whatever_the_clock_said(
    years: list[int], worked: list[bool]
) -> None:
    memory = Memory()
    for number, year in enumerate(years):
        memory.place(CFG, b"{}" + b" " * number)
        snapshots.save(memory, f"{year}0101T000000Z-0000", worked=worked[number])
    memory.place(CFG, b"[]")
    last = max((number for number in range(12) if worked[number]), default=11)
    assert snapshots.load(memory, None).files[0].data == b"{}" + b" " * last


@pytest.mark.parametrize("worked", [False, True])
def test_a_run_of_a_year_to_come_costs_no_later_one_its_place(*, worked: bool) -> None:
    memory = Memory()
    runs = ["20700101T000000Z-0000", *(f"20261123T0000{number:02}Z-0000" for number in range(50))]
    for number, run_id in enumerate(runs):
        memory.place(CFG, b"{}" + b" " * number)
        snapshots.save(memory, run_id, worked=worked)
    assert set(snapshots.known(memory)) == set(runs[-20:])


def test_what_was_proved_before_the_clock_was_set_back_is_not_the_last(ca_pem: bytes) -> None:
    memory = Memory({CFG: b"{}"})
    snapshots.prove(memory, "20700101T000000Z-0000")
    for number, run_id in enumerate(("20261123T000000Z-0000", "20261124T000000Z-0000")):
        memory.place(CFG, b"[]" + b" " * number)
        snapshots.save(memory, run_id, worked=True)
    memory.place(CFG, b"[1]")
    assert snapshots.load(memory, None).run_id == "20261124T000000Z-0000"


def test_those_without_a_number_are_older_than_all_that_have_one() -> None:
    memory = Memory({CFG: b"{}"})
    snapshots.save(memory, "20270101T000000Z-0000", worked=True)
    path = f"{LINUX.snapshots}/20270101T000000Z-0000.json"
    tree = json.loads(memory.read(path) or b"")
    for key in ("sha256", "number", "identity"):
        del tree[key]
    memory.place(path, seal(tree))
    memory.place(CFG, b"[]")
    snapshots.save(memory, "20261123T000000Z-0000", worked=True)
    memory.place(CFG, b"[1]")
    assert snapshots.load(memory, None).run_id == "20261123T000000Z-0000"
    assert snapshots.load(memory, "20270101T000000Z-0000").sealed


# ---- what cannot be removed


def a_fixed(memory: Memory, *paths: str) -> Fixed:
    fixed = Fixed()
    fixed.__dict__.update(memory.__dict__)
    fixed.fixed = paths
    return fixed


@pytest.mark.parametrize("equal", [False, True])
def test_a_snapshot_that_cannot_be_removed_refuses_no_run(ca_pem: bytes, *, equal: bool) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    good = desired_of(vendor, ca_pem)
    configure(memory, good)
    fixed = a_fixed(memory)
    for number in range(2, 6):
        if equal:
            fixed.place(CFG, b"{")
        level = "debug" if number % 2 and not equal else "warn"
        assert configure(fixed, with_options(good, {"log_level": level}), number).exit_status == 0
        fixed.fixed = tuple(f"{LINUX.snapshots}/{name}" for name in fixed.list_dir(LINUX.snapshots))
    assert len(fixed.fixed) == 5
    assert rollback(fixed).exit_status == 0


def test_those_that_cannot_be_removed_do_not_let_the_others_pile_up() -> None:
    memory = Fixed()
    for number in range(70):
        memory.place(CFG, b"{}" + b" " * number)
        snapshots.save(memory, f"20261123T0000{number:02}Z-0000", worked=True)
        if number == 5:
            memory.fixed = tuple(f"{LINUX.snapshots}/{name}" for name in memory.list_dir(LINUX.snapshots))
    assert len(snapshots.known(memory)) <= 20 + 6
    assert snapshots.load(memory, None).run_id.startswith("20261123T000068")


def test_a_remove_that_cannot_tidy_up_is_a_remove(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = machine_of(vendor)
    configure(memory, desired_of(vendor, ca_pem))
    memory.place(f"{LINUX.cache}/cloudhsm-cli_5.17.2-1_u22.04_amd64.deb", b"x")
    fixed = a_fixed(memory, LINUX.cache)
    report = commands.remove(fixed, run_of("remove"), NullProgress(), None)
    assert (report.exit_status, "kept" in codes(report)) == (0, True)
