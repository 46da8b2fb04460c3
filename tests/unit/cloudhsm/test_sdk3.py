"""SDK 3's daemon in the eyes of its step: how it stands, and whether it has read what is there now."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.cloudhsm.paths import LINUX, client_paths
from agent.cloudhsm.sdk3.daemon import daemon_on
from agent.cloudhsm.sdk3.service_managers import ServiceStatus
from agent.cloudhsm.sdk3.steps import (
    ConfigureSdk3,
    DaemonConnected,
    DaemonService,
    ManagementUtil,
    WorkingConfiguration,
)
from agent.cloudhsm.sdk3.undo import restore_daemon
from agent.core.errors import AgentError
from agent.core.host import CommandResult, ProcessInfo
from agent.core.model import Finding
from agent.core.registry import RegistryKey
from agent.core.system import windows
from agent.core.timeouts import Timeouts
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.registry import Value

LIMITS = Timeouts()
ETC = "/opt/cloudhsm/etc"
CLIENT, CMU, CA = f"{ETC}/cloudhsm_client.cfg", f"{ETC}/cloudhsm_mgmt_util.cfg", f"{ETC}/customerCA.crt"
CACHE = "/opt/cloudhsm/daemon/1/cluster.info"
NOW = dt.datetime(2026, 11, 23, 20, 15, tzinfo=dt.timezone.utc)
# the host is up for 1000 s, and the daemon began 100 s ago
BEGAN = NOW.timestamp() - 100
FIELDS = " ".join(["S", *["0"] * 18, "90000", *["0"] * 30])
UP = "ActiveState=active\nUnitFileState=enabled\nMainPID=812\n"


def machine(shown: str = UP, said: str = "", *, ca: float = -50.0, client: float = -50.0) -> Memory:
    """Return a host whose CA and client configuration were written so many seconds after the daemon began."""
    memory = Memory(
        {"/proc/uptime": b"1000.00 1900.00\n", "/proc/812/stat": f"812 (a) b (c) {FIELDS}\n".encode()},
        programs={"systemctl": CommandResult(0, shown, ""), "journalctl": CommandResult(0, said, "")},
        started=NOW,
    )
    for path, dated in ((CA, ca), (CLIENT, client)):
        memory.place(path, b"{}")
        memory.entries[path] = replace(memory.entries[path], mtime=BEGAN + dated)
    return memory


@pytest.mark.parametrize("letter", ["T", "t"])
def test_one_that_is_frozen_does_nothing_whatever_systemd_calls_it(letter: str) -> None:
    memory = machine()
    memory.place("/proc/812/stat", f"812 (a) b (c) {letter}{FIELDS[1:]}\n".encode())
    memory.place(CACHE, b"{}")
    assert looked(memory) == Finding(False, "stopped by a signal, enabled", "active, enabled")
    found = DaemonConnected(LINUX, LIMITS).check(memory)
    assert (found.met, found.code) == (False, "service-failed")
    DaemonService(LINUX, LIMITS).apply(memory)
    assert [touch[2] for touch in memory.touches if touch[0] == "run"] == ["enable", "stop", "start"]


@pytest.mark.parametrize("state", ["masked", "masked-runtime"])
@pytest.mark.parametrize("active", ["active", "inactive"])
def test_one_that_is_masked_is_refused_and_never_stopped(state: str, active: str) -> None:
    memory = machine(f"ActiveState={active}\nUnitFileState={state}\nMainPID=0\n")
    memory.place(LINUX.sdk3.daemon)
    if active == "inactive":
        memory.answers["systemctl", "is-active", "--quiet", LINUX.sdk3.service] = CommandResult(3, "", "")
    with pytest.raises(AgentError) as caught:
        looked(memory)
    assert (caught.value.code.name, caught.value.saw) == ("service-failed", f"{active}, {state}")
    lines = [restore_daemon(memory, LINUX, (CLIENT,), changed=changed, ran=True) for changed in (False, True)]
    assert [line and line.code for line in lines] == [None, "rollback-failed" if active == "active" else None]
    assert {touch[2] for touch in memory.touches} <= {"is-active"}


def looked(memory: Memory) -> Finding:
    return DaemonService(LINUX, LIMITS).check(memory)


@pytest.mark.parametrize(
    ("shown", "said", "finding"),
    [
        (UP, "", Finding(True, "active, enabled", "active, enabled")),
        (
            "ActiveState=active\nUnitFileState=disabled\nMainPID=812\n", "",
            Finding(False, "active, disabled", "active, enabled"),
        ),
        (
            "ActiveState=inactive\nUnitFileState=\nMainPID=0\n", "old words",
            Finding(False, "inactive, not installed", "active, enabled"),
        ),
        (
            "ActiveState=failed\nUnitFileState=enabled\nMainPID=0\n", "one\ntwo\n",
            Finding(False, "failed, enabled: one / two", "active, enabled"),
        ),
        (
            "ActiveState=failed\nUnitFileState=enabled\nMainPID=0\n", "-- No entries --\n",
            Finding(False, "failed, enabled", "active, enabled"),
        ),
    ],
)  # fmt: skip
def test_how_it_stands(shown: str, said: str, finding: Finding) -> None:
    assert looked(machine(shown, said)) == finding


def test_without_systemd_nothing_is_known() -> None:
    memory = machine()
    memory.programs["systemctl"] = CommandResult(127, "", "systemctl: No such file or directory\n")
    assert looked(memory) == Finding(False, "unknown, unknown", "active, enabled")


@pytest.mark.parametrize(
    ("ca", "client", "changed"),
    [
        (-50.0, -50.0, None),
        (0.0, -50.0, None),
        (0.1, -50.0, CA),
        (-50.0, 50.0, CLIENT),
        (60.0, 50.0, CLIENT),
        # a clock that was ahead: what is dated in the future tells nothing, and would be new for ever
        (500.0, -50.0, None),
    ],
)
def test_a_daemon_older_than_what_it_reads_is_not_right(
    ca: float, client: float, changed: str | None
) -> None:
    want = "active, enabled" + (", started after that" if changed else "")
    saw = "active, enabled" + (f", started before {changed} changed" if changed else "")
    assert looked(machine(ca=ca, client=client)) == Finding(changed is None, saw, want)


@pytest.mark.parametrize("path", [CA, CLIENT])
def test_a_daemon_older_than_what_it_reads_behind_a_link_is_not_right(path: str) -> None:
    memory = machine()
    memory.place("/srv/site/file", b"{}")
    memory.entries["/srv/site/file"] = replace(memory.entries["/srv/site/file"], mtime=BEGAN + 50)
    memory.place(path, kind="link", link="/srv/site/file")
    memory.entries[path] = replace(memory.entries[path], mtime=BEGAN - 50)
    assert (looked(memory).met, f"started before {path} changed" in looked(memory).saw) == (False, True)


def test_a_start_that_cannot_be_told_is_no_reason_to_start_it_again() -> None:
    memory = machine(ca=50.0)
    del memory.entries["/proc/812/stat"]
    assert looked(memory).met


@pytest.mark.parametrize(
    ("said", "saw"),
    [
        (
            "LIQUIDSECURITY: Daemon socket connection error: refused",
            "LIQUIDSECURITY: Daemon socket connection error: refused",
        ),
        ("one\nother words\n", "one / other words"),
        ("", "not connected"),
    ],
)
def test_a_daemon_that_wrote_nothing_down_is_not_connected(said: str, saw: str) -> None:
    memory = machine(said=said)
    found = DaemonConnected(LINUX, LIMITS).check(memory)
    assert (found.met, found.saw, found.code) == (False, saw, "service-failed")
    memory.place(CACHE, b"10.0.1.6\n")
    assert DaemonConnected(LINUX, LIMITS).check(memory) == Finding(True, "connected", "connected")


ONE, TWO, THREE = "1" * 32, "2" * 32, "3" * 32


def systemd(*runs: tuple[float, str, int, str]) -> Memory:
    """A host whose daemon goes from one state to the next: (when, invocation, restarts, active); words by invocation."""
    memory = machine()

    def now() -> tuple[float, str, int, str]:
        passed = (memory.now() - NOW).total_seconds()
        return [each for each in runs if each[0] <= passed][-1]

    def systemctl(_argv: Sequence[str], _memory: Memory) -> CommandResult:
        _, invocation, restarts, active = now()
        pid = 812 if active == "active" else 0
        text = f"ActiveState={active}\nUnitFileState=enabled\nMainPID={pid}\nExecMainPID=812\n"
        return CommandResult(0, f"{text}InvocationID={invocation}\nNRestarts={restarts}\n", "")

    def journalctl(argv: Sequence[str], _memory: Memory) -> CommandResult:
        return CommandResult(0, f"words of {argv[1].rpartition('=')[2][:1]}\n", "")

    memory.programs.update(systemctl=systemctl, journalctl=journalctl)
    return memory


def connects(memory: Memory, after: float) -> None:
    """Have the daemon write its cluster down so many seconds from now."""
    systemctl = memory.programs["systemctl"]
    assert callable(systemctl)

    def then(argv: tuple[str, ...], host: Memory) -> CommandResult:
        if (host.now() - NOW).total_seconds() >= after and host.stat(CACHE) is None:
            host.place(CACHE, b"10.0.1.6\n")
        done: CommandResult = systemctl(argv, host)
        return done

    memory.programs["systemctl"] = then


def test_a_daemon_that_connects_slowly_is_waited_for() -> None:
    for after in (0.0, 3.0, 15.0, 80.0):
        memory = systemd((0, ONE, 0, "active"))
        connects(memory, after)
        assert DaemonConnected(LINUX, LIMITS).check(memory).met
        assert after <= (memory.now() - NOW).total_seconds() <= after + 6
    never = systemd((0, ONE, 0, "active"))
    found = DaemonConnected(LINUX, LIMITS).check(never)
    assert (found.met, found.saw) == (False, "words of 1")
    assert LIMITS.client <= (never.now() - NOW).total_seconds() <= LIMITS.client + 1


@pytest.mark.parametrize(
    "runs",
    [
        ((0, ONE, 0, "active"), (1, TWO, 1, "active")),
        ((0, ONE, 0, "active"), (4, TWO, 1, "active"), (8, THREE, 2, "active")),
        ((0, ONE, 5, "activating"), (1, TWO, 6, "active"), (2, TWO, 6, "activating")),
        ((0, ONE, 7, "active"), (55, TWO, 8, "active")),
        ((0, ONE, 0, "active"), (2, ONE, 0, "failed")),
        ((0, ONE, 0, "inactive"),),
        ((0, ONE, 3, "failed"),),
    ],
)
def test_a_daemon_that_ends_is_not_proven_however_often_it_connects(
    runs: tuple[tuple[float, str, int, str], ...],
) -> None:
    memory = systemd(*runs)
    memory.place(CACHE, b"10.0.1.6\n")
    # it began just now, so that only what follows tells
    memory.place("/proc/812/stat", f"812 (a) b (c) {FIELDS.replace('90000', '100000')}\n".encode())
    found = DaemonConnected(LINUX, LIMITS).check(memory)
    assert (found.met, found.code) == (False, "service-failed")
    assert "words of" in found.saw


def test_one_that_ended_once_long_ago_is_proven() -> None:
    memory = systemd((0, TWO, 1, "active"))  # since 100 s
    memory.place(CACHE, b"10.0.1.6\n")
    assert DaemonConnected(LINUX, LIMITS).check(memory).met


@pytest.mark.parametrize(
    ("runs", "works", "most"),
    [
        # stopped by somebody: that says nothing about the configuration
        (((0, ONE, 0, "inactive"),), True, 0),
        (((0, ONE, 0, "failed"),), True, 0),
        (((0, ONE, 0, "active"),), True, 5),
        (((0, ONE, 0, "active"), (3, TWO, 1, "active")), False, 3),
        # before systemd 235 nothing counts restarts
        (((0, ONE, 0, "active"), (3, TWO, 0, "active")), False, 3),
        (((0, ONE, 0, "active"), (3, ONE, 0, "activating"), (4, TWO, 0, "active")), False, 4),
        (((0, ONE, 6, "activating"),), False, 0),
        (((0, ONE, 6, "active"),), False, 0),
    ],
)
def test_a_configuration_worked_when_a_daemon_that_runs_stays(
    runs: tuple[tuple[float, str, int, str], ...], works: bool, most: float
) -> None:
    memory = systemd(*runs)
    memory.place(LINUX.sdk3.utility, mode=0o755)
    memory.programs[LINUX.sdk3.utility] = CommandResult(0, "Connected to server '10.0.1.6'\n", "")
    # it began just now, so that only what follows tells
    memory.place("/proc/812/stat", f"812 (a) b (c) {FIELDS.replace('90000', '100000')}\n".encode())
    found = WorkingConfiguration(LINUX, LIMITS).check(memory)
    assert (found.met, found.code) == (works, None if works else "service-failed")
    assert (memory.now() - NOW).total_seconds() <= most + 1


def test_what_an_earlier_run_wrote_down_proves_nothing_of_this_one() -> None:
    memory = systemd((0, ONE, 0, "active"))
    memory.place(CACHE, b"10.0.1.6\n")
    memory.entries[CACHE] = replace(memory.entries[CACHE], mtime=BEGAN - 1)
    assert not DaemonConnected(LINUX, LIMITS).check(memory).met


@pytest.mark.parametrize(
    ("shown", "asked"),
    [
        (f"InvocationID={ONE}\nExecMainPID=5\n", (f"_SYSTEMD_INVOCATION_ID={ONE}",)),
        ("ExecMainPID=5\n", ("_SYSTEMD_UNIT=cloudhsm-client.service", "_PID=5")),
        ("InvocationID=\nExecMainPID=0\n", ("_SYSTEMD_UNIT=cloudhsm-client.service",)),
        ("InvocationID=x;reboot\nExecMainPID=-1\n", ("_SYSTEMD_UNIT=cloudhsm-client.service",)),
    ],
)
def test_its_words_are_those_of_the_same_run(shown: str, asked: tuple[str, ...]) -> None:
    memory = machine(shown)
    argv = ("journalctl", *asked, "--lines=3", "--output=cat", "--no-pager")
    del memory.programs["journalctl"]
    memory.answers[argv] = CommandResult(0, "words\n", "")
    assert daemon_on(LINUX).recent_log(memory, 1) == "words"


def configured(server: str, utility: Sequence[str], ca: str = CA) -> Memory:
    memory = machine()
    client = {"client": {"e2e_owner_crt_path": ca}, "server": {"hostname": server, "port": 2223}}
    memory.place(CLIENT, json.dumps(client).encode())
    memory.place(
        CMU,
        json.dumps(
            {"servers": [{"hostname": each, "port": 2225, "enable": "yes"} for each in utility]}
        ).encode(),
    )
    return memory


BOTH = ("10.0.1.6", "10.0.2.9")


@pytest.mark.parametrize(
    ("memory", "finding"),
    [
        (configured("10.0.2.9", ["10.0.1.6"]), (True, "10.0.2.9")),
        (configured("%%SERVER_ADDR%%", ["%%SERVER_ADDR%%"]), (False, "not configured")),
        (configured("10.0.9.9", BOTH), (False, "10.0.9.9")),
        # an address that merely begins like a wanted one
        (configured("10.0.1.6", ["10.0.1.60"]), (False, "10.0.1.6; management utility 10.0.1.60")),
        (configured("10.0.1.6", []), (False, "10.0.1.6; management utility not configured")),
        (configured("10.0.1.6", BOTH, "/etc/other.crt"), (False, "10.0.1.6; CA /etc/other.crt")),
    ],
)
def test_what_the_two_files_say(memory: Memory, finding: tuple[bool, str]) -> None:
    found = ConfigureSdk3(BOTH, LINUX, LIMITS).check(memory)
    assert (found.met, found.saw) == finding
    assert found.want.startswith("one of 10.0.1.6 10.0.2.9")


@pytest.mark.parametrize("connected", [BOTH, BOTH[:1], BOTH[1:]])
def test_a_utility_that_connects_to_a_part_of_its_servers_is_remarked_on(connected: tuple[str, ...]) -> None:
    memory = configured("10.0.1.6", BOTH)
    said = "".join(f"Connected to server '{ip}': hostname '{ip}', port 2225.\n" for ip in connected)
    memory.programs["/opt/cloudhsm/bin/cloudhsm_mgmt_util"] = CommandResult(0, said, "")
    found = ManagementUtil(LINUX, LIMITS).check(memory)
    assert (found.met, found.code) == (True, None if connected == BOTH else "hsm-degraded")
    assert found.saw == f"connected to {' '.join(connected)}"
    assert all(ip in (found.hint or "") for ip in BOTH if found.code and ip not in connected)


def test_damaged_or_absent_files_are_told() -> None:
    memory = configured("10.0.1.6", BOTH)
    memory.place(CMU, b'{"servers": [')
    assert (
        ConfigureSdk3(BOTH, LINUX, LIMITS).check(memory).saw == "10.0.1.6; management utility not configured"
    )
    memory.place(CLIENT, b"{")
    assert ConfigureSdk3(BOTH, LINUX, LIMITS).check(memory).saw.startswith("damaged: it is not JSON")
    del memory.entries[CLIENT]
    assert ConfigureSdk3(("10.0.1.6",), LINUX, LIMITS).check(memory) == Finding(
        False, "no configuration file", "10.0.1.6"
    )


def test_a_utility_file_that_cannot_be_read_is_refused_before_any_change() -> None:
    memory = configured("10.0.9.9", BOTH)
    memory.place(CMU, kind="directory")
    with pytest.raises(AgentError) as caught:
        ConfigureSdk3(BOTH, LINUX, LIMITS).check(memory)
    assert caught.value.code.name == "unreadable"


@pytest.mark.parametrize(
    ("path", "changes"),
    [
        (CLIENT, {"server": {"hostname": "10.0.1.6", "port": 1}}),
        (CLIENT, {"server": {"hostname": "10.0.1.6", "port": "2223"}}),
        (CLIENT, {"server": [{"hostname": "10.0.1.6", "port": 2223}]}),
        (CLIENT, {"client": None}),
        (CMU, {"servers": [{"hostname": "10.0.1.6", "port": 1, "enable": "yes"}]}),
        (CMU, {"servers": [{"hostname": "10.0.1.6", "port": 2225, "enable": True}]}),
        (CMU, {"servers": {"hostname": "10.0.1.6", "port": 2225, "enable": "yes"}}),
    ],
    ids=str,
)
def test_a_file_in_another_form_is_never_met(path: str, changes: dict[str, object]) -> None:
    memory = configured("10.0.1.6", BOTH)
    assert ConfigureSdk3(BOTH, LINUX, LIMITS).check(memory).met
    tree = json.loads(memory.read(path) or b"")
    memory.place(path, json.dumps({**tree, **changes}).encode())
    assert not ConfigureSdk3(BOTH, LINUX, LIMITS).check(memory).met


@pytest.mark.parametrize("path", [CLIENT, CMU, ETC, "/opt/cloudhsm/bin"])
def test_what_others_could_change_is_not_met(path: str) -> None:
    memory = configured("10.0.1.6", BOTH)
    memory.place("/opt/cloudhsm/bin/configure", b"#!", mode=0o755)
    entry = memory.entries[path]
    memory.entries[path] = replace(entry, mode=entry.mode | 0o002)
    found = ConfigureSdk3(BOTH, LINUX, LIMITS).check(memory)
    assert (found.met, path in found.saw) == (False, True)


def test_waiting_for_a_daemon_that_never_connects_is_bounded() -> None:
    memory = machine()
    daemon_on(LINUX).wait_until_settled(memory, None, 1)
    assert 10 <= memory.clock < 10.2


# --- Windows: the service control manager

SERVICE = "AWSCloudHSMClient"
WINDOWS = client_paths(windows())
QUERY = ("sc", "query", SERVICE)
REGISTERED = rf"HKLM\SYSTEM\CurrentControlSet\Services\{SERVICE}"


def sc(state: str) -> str:
    return (
        f"\nSERVICE_NAME: {SERVICE} \n        TYPE               : 10  WIN32_OWN_PROCESS  \n"
        f"        STATE              : {state} \n        WIN32_EXIT_CODE    : 0  (0x0)\n"
    )


def windows_host(state: str, start: Value | AgentError, status: int = 0) -> Memory:
    memory = Memory(answers={QUERY: CommandResult(status, sc(state) if state else "", "")}, system=windows())
    memory.keys[REGISTERED] = start if isinstance(start, AgentError) else RegistryKey({"Start": start})
    return memory


@pytest.mark.parametrize(
    ("state", "start", "status", "standing"),
    [
        ("4  RUNNING", 2, 0, ServiceStatus("active", "enabled", 812.0)),
        ("4  RUNNING", 3, 0, ServiceStatus("active", "disabled", 812.0)),
        ("4  RUNNING", 4, 0, ServiceStatus("active", "disabled", 812.0)),
        ("1  STOPPED", 2, 0, ServiceStatus("inactive", "enabled", None)),
        ("2  START_PENDING", 2, 0, ServiceStatus("activating", "enabled", None)),
        ("4  RUNNING", "2", 0, ServiceStatus("active", "unknown", 812.0)),
        (
            "4  RUNNING",
            AgentError("unreadable", "it cannot be read"),
            0,
            ServiceStatus("active", "unknown", 812.0),
        ),
        ("", "", 1060, ServiceStatus("inactive", "not installed", None)),
        ("", "", 5, ServiceStatus("unknown", "unknown", None)),
    ],
    ids=str,
)
def test_how_a_service_of_windows_stands(
    state: str, start: Value | AgentError, status: int, standing: ServiceStatus
) -> None:
    memory = windows_host(state, start, status)
    memory.running = (ProcessInfo(7, "cloudhsm_client.exe", -1, -1, 812.0, (WINDOWS.sdk3.daemon,)),)
    assert daemon_on(WINDOWS).status(memory, LIMITS.tool) == standing


def test_a_service_of_windows_is_started_and_stopped_by_its_own_words() -> None:
    memory = windows_host("4  RUNNING", 2)
    memory.programs.update(net=CommandResult(0, "", ""), sc=CommandResult(0, "", ""))
    daemon_on(WINDOWS).stop(memory, LIMITS.tool)
    daemon_on(WINDOWS).start(memory, LIMITS.tool)
    daemon_on(WINDOWS).enable(memory, LIMITS.tool)
    with daemon_on(WINDOWS).stopped_for_good(memory, LIMITS.tool):
        pass
    assert memory.touches == [
        ("run", "net", "stop", SERVICE),
        ("run", "net", "start", SERVICE),
        ("run", "sc", "config", SERVICE, "start=", "auto"),
        ("run", "net", "stop", SERVICE),
    ]
    assert daemon_on(WINDOWS).is_running(memory, LIMITS.tool)
    assert (
        daemon_on(WINDOWS).recent_log(memory, LIMITS.tool),
        daemon_on(WINDOWS).connected_since(memory),
    ) == ("", None)
