"""What worked before works after, and what was not asked about stays: whatever state the packages are in."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import commands
from agent.cloudhsm.paths import LINUX
from agent.cloudhsm.sdk3.steps import ManagementUtil
from agent.config.desired import Desired, with_options
from agent.config.options import CaSource
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.timeouts import Timeouts
from agent.render.progress import NullProgress
from agent.report import RunInfo
from agent.steps.client import HsmInfo
from tests.examples import examples
from tests.fakes.vendor import MIRROR, STATES, Vendor, catalogue

if TYPE_CHECKING:
    from agent.core.host import Stat
    from agent.core.model import Probe, Report
    from tests.fakes.memory import Argv, Memory

STARTED = dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc)
OLD = "5.17.2-1"
THEIRS = {"cloudhsm-exporter": "1.0", "cloudhsm-cli-extra": "5.8.0", "cloudhsm-ksp": "3.4.4"}


def run(number: int, command: str) -> RunInfo:
    return RunInfo(f"202611{number:02}T000000Z-0000", command, STARTED, catalogue=catalogue())


def wanted(vendor: Vendor, pem: bytes) -> Desired:
    return Desired(
        hsm_ip=vendor.addresses,
        ca_cert=CaSource.of(pem.decode()),
        package_source=MIRROR,
        sha256=vendor.checksums(),
    )


def answers(vendor: Vendor, memory: Memory) -> int:
    """Return how many HSMs answer the client, asked past the agent."""
    done = memory.programs[LINUX.cli]
    assert callable(done)
    said = json.loads(done((LINUX.cli, "cluster", "hsm-info"), memory).out)
    return len(said["data"]["hsms"]) if said["error_code"] == 0 else 0


def working(vendor: Vendor, pem: bytes) -> Memory:
    """A host whose client of an older version works, and whose package is in the state that `vendor.half` says."""
    memory = vendor.machine(dt.datetime.now(dt.timezone.utc))
    assert (
        commands.configure(memory, wanted(vendor, pem), run(1, "configure"), NullProgress()).exit_status == 0
    )
    vendor.installed.pop("cloudhsm-cli")
    (vendor.installed if vendor.half == "i" else vendor.broken)["cloudhsm-cli"] = OLD
    return memory


@pytest.mark.slow
@given(
    state=st.sampled_from([*STATES]),
    mood=st.sampled_from(["fail", "half", "lie", ""]),
    asked=st.lists(st.sampled_from([None, "5.18.0"]), min_size=1, max_size=2),
    first=st.sampled_from([None, "5.18.0"]),
)
@examples(25)
def test_what_worked_works_after_any_number_of_runs_that_fail(
    ca_pem: bytes, state: str, mood: str, asked: list[str | None], first: str | None
) -> None:
    vendor = Vendor(half=state, installed=dict(THEIRS))
    memory = working(vendor, ca_pem)
    before = answers(vendor, memory)
    assert before == len(vendor.addresses)
    vendor.moods["installer"] = mood
    for number, version in enumerate([first, *asked], start=2):
        desired = replace(wanted(vendor, ca_pem), client_version=version)
        report = commands.configure(memory, desired, run(number, "configure"), NullProgress())
        assert answers(vendor, memory) == before, report
        there = {**vendor.installed, **vendor.broken}
        if not any([first, *asked][: number - 1]):
            assert there["cloudhsm-cli"] == OLD, report  # not upgraded unasked
        assert {name: there.get(name) for name in THEIRS} == THEIRS
        assert not [notice for notice in report.notices if any(name in notice.text for name in THEIRS)]
    vendor.moods.clear()
    desired = replace(wanted(vendor, ca_pem), client_version="5.18.0")
    assert commands.configure(memory, desired, run(20, "configure"), NullProgress()).exit_status == 0
    assert vendor.installed == {"cloudhsm-cli": "5.18.0-1", **THEIRS}


@pytest.mark.parametrize("state", STATES)
def test_a_removal_takes_the_vendors_alone_whatever_their_state(state: str, ca_pem: bytes) -> None:
    vendor = Vendor(half=state, installed=dict(THEIRS))
    memory = working(vendor, ca_pem)
    report: Report = commands.remove(memory, run(2, "remove"), NullProgress(), None)
    assert (report.exit_status, vendor.installed, vendor.broken) == (0, THEIRS, {}), report
    assert [line.id for line in report.steps] == ["package:cli"]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/opt/cloudhsm/lib/libcloudhsm_pkcs11.so", {"mode": 0o666}),
        ("/opt/cloudhsm/lib/libcloudhsm_pkcs11.so", {"uid": 1000}),
        ("/opt/cloudhsm/lib", {"mode": 0o777}),
    ],
    ids=str,
)
def test_a_library_that_others_could_change_is_not_given_to_its_loader(
    path: str, fields: dict[str, Any], ca_pem: bytes
) -> None:
    """A library can name another (DT_AUDIT), which ldd runs: as root, at each daily verify."""
    vendor = Vendor()
    memory = vendor.machine(dt.datetime.now(dt.timezone.utc))
    desired = replace(wanted(vendor, ca_pem), component=("pkcs11",))
    assert commands.configure(memory, desired, run(1, "configure"), NullProgress()).exit_status == 0
    asked: list[Argv] = []

    def ldd(argv: Argv, _machine: Memory) -> CommandResult:
        asked.append(argv)
        return CommandResult(0, "\tstatically linked\n", "")

    memory.programs["ldd"] = ldd
    memory.entries[path] = replace(memory.entries[path], **fields)
    report = commands.verify(memory, desired, run(2, "verify"), NullProgress())
    assert (asked, report.exit_status, report.code) == ([], 50, "permissions-unsafe")


def test_a_program_that_is_exchanged_in_an_open_folder_meanwhile_is_not_run(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = vendor.machine(dt.datetime.now(dt.timezone.utc))
    assert (
        commands.configure(memory, wanted(vendor, ca_pem), run(1, "configure"), NullProgress()).exit_status
        == 0
    )
    memory.entries["/opt/cloudhsm/bin"] = replace(memory.entries["/opt/cloudhsm/bin"], mode=0o777)
    tool, client = LINUX.tool("cli"), memory.programs[LINUX.cli]

    def exchanging(argv: Argv, machine: Memory) -> CommandResult:
        machine.place(tool, b"#!/bin/evil", mode=0o755, uid=1000)
        assert callable(client)
        return client(argv, machine)

    memory.programs[LINUX.cli] = exchanging
    memory.touches.clear()
    desired = with_options(wanted(vendor, ca_pem), {"log_level": "debug"})
    report = commands.configure(memory, desired, run(2, "configure"), NullProgress())
    assert [touch for touch in memory.touches if touch[:2] == ("run", tool)] == []
    assert (memory.entries[tool].uid, report.exit_status) == (1000, 50), report


@pytest.mark.parametrize("fields", [{"uid": 1000}, {"mode": 0o777}], ids=str)
@pytest.mark.parametrize("program", [LINUX.cli, LINUX.sdk3.utility])
def test_a_client_that_is_exchanged_since_its_check_is_not_run(program: str, fields: dict[str, Any]) -> None:
    memory = Vendor().machine(dt.datetime.now(dt.timezone.utc))
    asked: list[Argv] = []

    def client(argv: Argv, _machine: Memory) -> CommandResult:
        asked.append(argv)
        return CommandResult(0, "", "")

    memory.programs[program] = client
    memory.place(program, b"#!", **{"mode": 0o755, **fields})
    limits = Timeouts()
    probes: dict[str, Probe] = {
        LINUX.cli: HsmInfo(LINUX, 2, accept_single_hsm=False, limits=limits),
        LINUX.sdk3.utility: ManagementUtil(LINUX, limits),
    }
    with pytest.raises(AgentError) as caught:
        probes[program].check(memory)
    assert (caught.value.code.name, asked) == ("permissions-unsafe", [])


def test_after_a_remove_nothing_is_due_any_more(ca_pem: bytes) -> None:
    vendor = Vendor()
    memory = vendor.machine(dt.datetime.now(dt.timezone.utc))
    # SDK 3 was taken off for SDK 5, which did not come; then somebody gave up
    memory.place(f"{LINUX.system.cache}/cloudhsm-pkcs11.due")
    assert commands.remove(memory, run(1, "remove"), NullProgress(), None).exit_status == 0
    commands.configure(memory, wanted(vendor, ca_pem), run(2, "configure"), NullProgress())
    assert list(vendor.installed) == ["cloudhsm-cli"]


@pytest.mark.parametrize(
    "folder", [{"uid": 1000}, {"mode": 0o1777}, {"mode": 0o775, "gid": 1000}, {}], ids=str
)
@pytest.mark.parametrize("file", [{"uid": 1000}, {"mode": 0o666}, {}], ids=str)
def test_what_is_installed_could_be_exchanged_by_nobody(
    folder: dict[str, Any], file: dict[str, Any], ca_pem: bytes
) -> None:
    """Its bytes are right: then, but not any more, when the package manager opens it by its name."""
    vendor = Vendor()
    memory = vendor.machine(dt.datetime.now(dt.timezone.utc))
    name = vendor.file("cli").rpartition("/")[2]
    path = f"{LINUX.system.cache}/{name}"
    memory.place(path, name.encode(), **file)
    memory.place(LINUX.system.cache, kind="directory", **{"mode": 0o711, **folder})
    install = memory.programs["apt-get"]
    seen: list[Stat | None] = []

    def apt_get(argv: Argv, machine: Memory) -> CommandResult:
        seen.extend((machine.stat(LINUX.system.cache), machine.stat(path)))
        assert callable(install)
        return install(argv, machine)

    memory.programs["apt-get"] = apt_get
    report = commands.configure(memory, wanted(vendor, ca_pem), run(1, "configure"), NullProgress())
    assert report.exit_status == 0
    assert [(each.uid, each.mode & 0o022) for each in seen if each is not None] == [(0, 0), (0, 0)]
