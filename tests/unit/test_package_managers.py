"""What the package databases say, and what is done about it: read from their real words, on a machine in memory."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cloudhsm import paths
from agent.cloudhsm.components import LINUX_PACKAGES
from agent.cloudhsm.sdk3.daemon import daemon_on
from agent.commands import timeouts_for
from agent.config.desired import Desired
from agent.core.errors import AgentError
from agent.core.host import CommandResult, Host, LockHolder
from agent.core.system import LINUX
from agent.core.timeouts import Timeouts
from agent.hosts.deadline import DeadlineHost
from agent.package_managers import Condition, Deb, Installed, PackageManager, Rpm
from agent.state.pending import clear_cache, pending_packages
from agent.steps.package import Download, Package, PackagesAbsent, require_authentic_source
from tests.fakes.memory import Argv, Memory, Program

CACHE = LINUX.cache
FILE = f"{CACHE}/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb"
RPM_FILE = f"{CACHE}/cloudhsm-cli-5.18.0-1.el9.x86_64.rpm"
FRONTEND = "/var/lib/dpkg/lock-frontend"
NOT_LOCKED = CommandResult(100, "", "E: Sub-process /usr/bin/dpkg returned an error code (1)\n")
REFUSED = CommandResult(100, "", f"E: Could not get lock {FRONTEND}. It is held by process 812 (apt-get)\n")


def database(said: str, status: int = 0, err: str = "") -> Program:
    """Answer for dpkg's or rpm's database: these rows, and for each package a folder as its only file."""

    def query(argv: Argv, _memory: Memory) -> CommandResult:
        return CommandResult(0, "/.\n", "") if argv[1] in ("-L", "-ql") else CommandResult(status, said, err)

    return query


def deb_says(*rows: tuple[str, str, str, str]) -> tuple[Installed, ...]:
    said = "".join("\t".join(row) + "\n" for row in rows)
    return Deb().installed(Memory(programs={"dpkg-query": database(said)}))


WHOLE, UNFINISHED, BROKEN = Condition.COMPLETE, Condition.UNFINISHED, Condition.BROKEN


@pytest.mark.parametrize(
    ("short", "status", "condition", "remark"),
    [
        ("ii ", "install ok installed", WHOLE, None),
        ("hi ", "hold ok installed", WHOLE, None),
        ("ri ", "deinstall ok installed", WHOLE, None),
        ("iW ", "install ok triggers-awaited", WHOLE, "triggers-awaited"),
        ("it ", "install ok triggers-pending", UNFINISHED, "triggers-pending"),
        ("iU ", "install ok unpacked", UNFINISHED, "unpacked"),
        ("hU ", "hold ok unpacked", UNFINISHED, "unpacked"),
        ("iF ", "install ok half-configured", UNFINISHED, "half-configured"),
        ("iH ", "install ok half-installed", BROKEN, "half-installed"),
        ("iHR", "install reinstreq half-installed", BROKEN, "reinstreq half-installed"),
        ("iUR", "install reinstreq unpacked", BROKEN, "reinstreq unpacked"),
        ("iiR", "install reinstreq installed", BROKEN, "reinstreq installed"),
    ],
)
def test_each_state_of_dpkg_is_read(
    short: str, status: str, condition: Condition, remark: str | None
) -> None:
    found = deb_says(("cloudhsm-cli", "5.18.0-1", short, status))
    assert found == (Installed("cloudhsm-cli", "5.18.0-1", condition, remark),)


NEIGHBOURS = [
    "cloudhsm-exporter",
    "cloudhsm-cli-extra",
    "cloudhsm-ksp",
    "cloudhsm",
    "cloudhsm-client-tools",
    "xcloudhsm-cli",
]


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_name_that_only_looks_like_the_vendors_is_not_listed(name: str) -> None:
    assert (
        deb_says((name, "1", "ii ", "install ok installed"), (name, "1", "iF ", "install ok half-configured"))
        == ()
    )
    assert rpm_says(f"{name}\t1-1\n{name}\t2-1\n") == ()


@given(st.from_regex(r"(cloudhsm-|AWSCloudHSM)[a-z0-9.+-]{0,20}", fullmatch=True))
def test_only_the_closed_list_is_the_vendors(name: str) -> None:
    listed = [each.package for each in deb_says((name, "1", "ii ", "install ok installed"))]
    assert listed == ([name] if name in LINUX_PACKAGES else [])
    assert [each.package for each in rpm_says(f"{name}\t1-1\n")] == listed


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_the_older_of_two_versions_of_somebody_elses_package_stays(name: str) -> None:
    memory = Memory(
        programs={"rpm": database(f"{name}\t1-1\n{name}\t2-1\n"), "yum": CommandResult(0, "", "")}
    )
    Rpm().install(memory, (RPM_FILE,), Timeouts())
    assert [touch[1] for touch in memory.touches] == ["yum"]


def test_what_a_script_said_that_rpm_let_pass_is_returned() -> None:
    said = "warning: %post(cloudhsm-cli-5.18.0-1.el9.x86_64) scriptlet failed, exit status 1\n\nError in POSTIN scriptlet in rpm package cloudhsm-cli\n"
    memory = Memory(programs={"rpm": CommandResult(0, "", ""), "yum": CommandResult(0, "", said)})
    told = Rpm().install(memory, (RPM_FILE,), Timeouts())
    assert [(each.code, "scriptlet" in each.text) for each in told] == [("package-script-failed", True)] * 2
    memory.programs["yum"] = CommandResult(0, "Running scriptlet: cloudhsm-cli\n", "")
    assert Rpm().install(memory, (RPM_FILE,), Timeouts()) == ()


@pytest.mark.parametrize(
    ("version", "short", "status"),
    [
        ("", "un ", "unknown ok not-installed"),
        ("", "in ", "install ok not-installed"),
        ("5.18.0-1", "rc ", "deinstall ok config-files"),
        ("5.18.0-1", "pc ", "purge ok config-files"),
    ],
)
def test_what_dpkg_only_remembers_is_not_there(version: str, short: str, status: str) -> None:
    assert deb_says(("cloudhsm-cli", version, short, status)) == ()


def test_packages_of_dpkg_come_sorted_and_garbage_is_no_package() -> None:
    said = "noise\ncloudhsm-pkcs11\t5\tii \tinstall ok installed\n\t\t\t\ncloudhsm-cli\t4\tii \tinstall ok installed\n\xff"
    found = Deb().installed(Memory(programs={"dpkg-query": CommandResult(0, said, "warning")}))
    assert [each.package for each in found] == ["cloudhsm-cli", "cloudhsm-pkcs11"]


def rpm_says(said: str) -> tuple[Installed, ...]:
    return Rpm().installed(Memory(programs={"rpm": database(said)}))


def test_rpm_is_read() -> None:
    assert rpm_says("") == ()
    assert rpm_says("noise\ncloudhsm-pkcs11\t5.18.0-1.el9\ncloudhsm-cli\t5.18.0-1.el9\n") == (
        Installed("cloudhsm-cli", "5.18.0-1.el9"),
        Installed("cloudhsm-pkcs11", "5.18.0-1.el9"),
    )


def test_the_same_rpm_for_two_processors_is_one() -> None:
    assert rpm_says("cloudhsm-cli\t5.18.0-1.el9\n" * 2) == (Installed("cloudhsm-cli", "5.18.0-1.el9"),)


def test_two_versions_of_one_rpm_are_an_upgrade_that_was_killed() -> None:
    said = "cloudhsm-cli\t5.18.0-1.el9\ncloudhsm-cli\t5.9.0-1.el9\n"
    twice = Installed("cloudhsm-cli", "5.18.0-1.el9", UNFINISHED, "installed twice, also 5.9.0-1.el9")
    assert rpm_says(said) == (twice,)

    def rpm(argv: Argv, memory: Memory) -> CommandResult:
        nonlocal said
        if argv[1] == "-e":
            said = "cloudhsm-cli\t5.18.0-1.el9\n"
        return CommandResult(0, said, "")

    memory = Memory(programs={"rpm": rpm, "yum": CommandResult(0, "", "")})
    Rpm().install(memory, (RPM_FILE,), Timeouts())
    assert memory.touches[0] == ("run", "rpm", "-e", "cloudhsm-cli-5.9.0-1.el9")
    assert rpm_says(said) == (Installed("cloudhsm-cli", "5.18.0-1.el9"),)


@pytest.mark.parametrize(
    ("manager", "program", "status", "hint"),
    [
        (Deb(), "dpkg-query", 2, "dpkg --audit"),
        (Rpm(), "rpm", 1, "rpm --rebuilddb"),
        (Rpm(), "rpm", None, "rpm"),
    ],
)
def test_a_damaged_database_is_not_an_empty_one(
    manager: PackageManager, program: str, status: int | None, hint: str
) -> None:
    with pytest.raises(AgentError) as caught:
        manager.installed(
            Memory(programs={program: CommandResult(status, "", "error: cannot open Packages\n")})
        )
    assert (caught.value.code.name, caught.value.saw) == ("package-failed", "error: cannot open Packages")
    assert hint in caught.value.hint


# ---- the wait for the lock


def apt(*answers: CommandResult) -> Memory:
    """A machine whose apt-get answers so, the last for ever."""
    left = list(answers)

    def run(_argv: Argv, _memory: Memory) -> CommandResult:
        return left.pop(0) if len(left) > 1 else left[0]

    return Memory(programs={"apt-get": run, "dpkg-query": CommandResult(1, "", "")})


def fails(
    host: Host, limits: Timeouts, manager: PackageManager | None = None, file: str = FILE
) -> AgentError:
    with pytest.raises(AgentError) as caught:
        (manager or Deb()).install(host, (file,), limits)
    return caught.value


def runs(memory: Memory) -> int:
    return sum(touch[1] in ("apt-get", "dnf", "yum") for touch in memory.touches if touch[0] == "run")


def test_a_free_lock_is_not_waited_for() -> None:
    memory = apt(CommandResult(0, "", ""))
    Deb().install(memory, (FILE,), Timeouts())
    assert (runs(memory), memory.clock) == (1, 0)


def test_nothing_is_started_while_the_lock_is_held() -> None:
    memory = apt(CommandResult(0, "", ""))
    memory.locks[FRONTEND] = lambda memory: LockHolder(812, "unattended-upgr") if memory.clock < 7 else None
    Deb().install(memory, (FILE,), Timeouts())
    assert (runs(memory), memory.clock) == (1, 7)


def test_a_race_that_is_lost_is_run_again() -> None:
    memory = apt(REFUSED, REFUSED, CommandResult(0, "", ""))
    Deb().install(memory, (FILE,), Timeouts())
    assert (runs(memory), memory.clock) == (3, 1)


@pytest.mark.parametrize("seconds", [0.1, 5, 300])
def test_a_lock_held_for_ever_names_its_holder(seconds: float) -> None:
    memory = apt(CommandResult(0, "", ""))
    memory.locks["/var/cache/apt/archives/lock"] = LockHolder(812, "apt-get")
    error = fails(memory, Timeouts(lock=seconds))
    assert error.code.name == "package-locked"
    assert error.saw.startswith("apt-get (pid 812) holds /var/cache/apt/archives/lock, still after ")
    assert runs(memory) == 0
    assert seconds <= memory.clock <= seconds + 0.5


def test_a_lock_that_only_the_manager_sees_is_told_in_its_words() -> None:
    error = fails(apt(REFUSED), Timeouts(lock=2))
    assert error.code.name == "package-locked"
    assert "It is held by process 812 (apt-get)" in error.saw


def test_a_failure_that_is_none_of_the_locks_is_not_repeated() -> None:
    memory = apt(NOT_LOCKED)
    error = fails(memory, Timeouts())
    assert (error.code.name, runs(memory)) == ("package-failed", 1)
    assert f"{FILE}` by hand" in error.hint


def test_a_holder_that_came_while_it_failed_is_waited_for_within_bounds() -> None:
    memory = apt(NOT_LOCKED)
    memory.locks[FRONTEND] = lambda memory: LockHolder(9, "dpkg") if len(memory.touches) % 2 else None
    assert fails(memory, Timeouts(lock=3)).code.name == "package-locked"
    assert (runs(memory), memory.clock) == (1, 3)


def test_the_lock_is_to_blame_also_when_the_whole_run_is_over() -> None:
    memory = apt(CommandResult(0, "", ""))
    memory.locks[FRONTEND] = LockHolder(812, "apt-get")
    error = fails(DeadlineHost(memory, 4), Timeouts(lock=300))
    assert (error.code.name, error.saw) == (
        "package-locked",
        f"apt-get (pid 812) holds {FRONTEND}, still after 4 s",
    )


def test_the_lock_is_not_to_blame_for_a_manager_that_is_slow() -> None:
    def slow(_argv: Argv, memory: Memory) -> CommandResult:
        memory.clock += 100
        return CommandResult(0, "", "")

    memory = Memory(programs={"apt-get": slow, "dpkg-query": CommandResult(1, "", "")})
    memory.locks[FRONTEND] = lambda memory: LockHolder(812, "apt-get") if memory.clock < 2 else None
    assert fails(DeadlineHost(memory, 10), Timeouts()).code.name == "timed-out"
    memory.clock = 0
    error = fails(memory, Timeouts(package=50))
    assert (error.code.name, error.saw[:13]) == ("package-failed", "still running")


def test_an_interrupt_ends_the_wait() -> None:
    memory = apt(CommandResult(0, "", ""))
    memory.locks[FRONTEND] = LockHolder(812, "apt-get")
    memory.stopped = True
    assert fails(memory, Timeouts()).code.name == "interrupted"


@pytest.mark.parametrize("seconds", [1.0, 5.0, 60.0, 1800.0])
def test_the_wait_for_a_lock_leaves_time_to_say_so(seconds: float) -> None:
    limits = timeouts_for(Desired(timeout=seconds))
    assert (limits.run, limits.lock, limits.package) == (seconds, 0.8 * seconds, seconds)
    assert limits.client <= min(Timeouts().client, seconds / 2)
    assert timeouts_for(Desired()) == Timeouts()


# ---- what apt and dnf are asked


def test_a_lack_is_looked_for_once_in_fresh_lists() -> None:
    lacking = CommandResult(
        100, "The following packages have unmet dependencies:\n a : Depends: b\n", "E: broken\n"
    )
    memory = apt(lacking, CommandResult(100, "", "W: no network\n"), lacking)
    error = fails(memory, Timeouts())
    assert [touch[2] for touch in memory.touches] == ["install", "update", "install"]
    assert "a : Depends: b" in error.saw


def test_dnf_asks_the_repositories_only_for_what_is_lacking() -> None:
    lacking = CommandResult(
        1, "", "Error: \n Problem: conflicting requests\n  - nothing provides glibc >= 99\n"
    )
    unreachable = CommandResult(1, "", "Error: Failed to download metadata for repo 'amazonlinux'\n")
    answers = [lacking, unreachable]
    memory = Memory(
        {"/usr/bin/dnf": b""},
        programs={"rpm": CommandResult(0, "", ""), "dnf": lambda _argv, _memory: answers.pop(0)},
    )
    error = fails(memory, Timeouts(), Rpm(), RPM_FILE)
    assert "nothing provides glibc >= 99" in error.saw
    assert "and with the repositories:\nError: Failed to download" in error.saw
    answers[:] = [CommandResult(1, "", "Error: Transaction failed\n")]
    memory.touches.clear()
    assert fails(memory, Timeouts(), Rpm(), RPM_FILE).saw == "Error: Transaction failed"
    assert runs(memory) == 1


@pytest.mark.parametrize(
    "said",
    [
        "cannot copy extracted data for './opt/x' to '/opt/x.dpkg-new': failed to write (No space left on device)",
        "   At least 3MB more space needed on the /opt filesystem.",
    ],
)
def test_a_full_disk_is_named_as_one(said: str) -> None:
    error = fails(apt(CommandResult(100, "", f"dpkg: error\n {said}\n")), Timeouts())
    assert error.code.name == "no-space"
    assert said.strip() in error.saw
    assert "free the space" in error.hint


def test_a_package_that_is_not_whole_is_unpacked_anew() -> None:
    row = "cloudhsm-cli\t5.18.0-1\tiF \tinstall ok half-configured\n"
    memory = Memory(
        programs={
            "dpkg-query": database(row),
            "dpkg": CommandResult(0, "", ""),
            "apt-get": CommandResult(0, "", ""),
        }
    )
    Deb().install(memory, (FILE,), Timeouts())
    assert [touch[1:3] for touch in memory.touches] == [
        ("dpkg", "--configure"),
        ("dpkg", "--install"),
        ("apt-get", "install"),
    ]
    memory.touches.clear()
    Deb().install(memory, (FILE.replace("-cli", "-pkcs11"),), Timeouts())
    assert [touch[1:3] for touch in memory.touches] == [("dpkg", "--configure"), ("apt-get", "install")]


# ---- the step


def step(sha256: str | None = "0" * 64, version: str = "5.18.0-1") -> Package:
    download = Download("https://mirror/x.deb", "cloudhsm-cli_5.18.0-1_u24.04_amd64.deb", sha256)
    return Package("cli", "cloudhsm-cli", version, "5.18.0-1", download, Deb(), Timeouts(), paths.LINUX)


def machine(row: str = "", *, apt_get: CommandResult = NOT_LOCKED) -> Memory:
    return Memory(
        {"/x": b""},
        programs={
            "dpkg-query": database(row, 0 if row else 1),
            "apt-get": apt_get,
            "dpkg": CommandResult(1, "", ""),
        },
        urls={"https://mirror/x.deb": b"bytes"},
    )


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (CommandResult(None, "", ""), "its time ran out"),
        (CommandResult(1, "", "Error: Transaction failed\n"), "Transaction failed"),
        (CommandResult(1, "", "Error in POSTIN scriptlet in rpm package cloudhsm-cli\n"), "POSTIN scriptlet"),
    ],
)
def test_how_a_manager_ended_that_left_the_package_there_all_the_same_is_told(
    end: CommandResult, words: str
) -> None:
    """rpm counts a package as installed whose script was cut short, and so does whoever asks its database alone."""
    there: list[str] = []

    def rpm(argv: Argv, memory: Memory) -> CommandResult:
        return database("".join(there))(argv, memory)

    def yum(_argv: Argv, _memory: Memory) -> CommandResult:
        there.append("cloudhsm-cli\t5.18.0-1.el9\n")
        return end

    memory = machine()
    memory.programs.update({"rpm": rpm, "yum": yum})
    (told,) = replace(step(None, "latest"), manager=Rpm()).apply(memory)
    assert (told.code, words in told.text) == ("package-script-failed", True), told


def test_a_package_on_hold_at_the_right_version_is_met() -> None:
    assert step().check(machine("cloudhsm-cli\t5.18.0-1\thi \thold ok installed\n")).met


def test_a_half_installed_package_that_is_newer_is_not_downgraded_either() -> None:
    view = machine("cloudhsm-cli\t5.19.0-1\tiU \tinstall ok unpacked\n")
    with pytest.raises(AgentError) as caught:
        step().check(view)
    assert caught.value.code.name == "package-downgrade"


def test_what_has_a_checksum_is_not_called_unverified() -> None:
    view = machine("cloudhsm-cli\t5.18.0-1\tii \tinstall ok installed\n")
    assert step(version="latest").check(view).notices == ()
    assert [each.code for each in step(None, "latest").check(view).notices] == ["client-unverified"]


def test_the_database_decides_and_not_the_managers_exit() -> None:
    whole = "cloudhsm-cli\t5.18.0-1\tii \tinstall ok installed\n"
    assert step(None, "latest").apply(machine(whole)) == ()
    for row in ("", whole.replace("ii ", "iF "), whole.replace("5.18", "5.17")):
        memory = machine(row)
        with pytest.raises(AgentError) as caught:
            step(None, "latest").apply(memory)
        assert caught.value.code.name == "package-failed"
        assert memory.list_dir(CACHE) == (FILE.rpartition("/")[2],)


def test_what_takes_the_place_of_sdk_3_is_due_until_it_is_there() -> None:
    rows = "cloudhsm-client\t3.4.4-1\tii \tinstall ok installed\n"
    memory = machine(rows, apt_get=NOT_LOCKED)
    gone = PackagesAbsent(
        "sdk3", ("cloudhsm-client",), Deb(), Timeouts(), replacements=("cloudhsm-cli", "cloudhsm-pkcs11")
    )
    with pytest.raises(AgentError):
        gone.apply(memory)
    assert pending_packages(memory) == ("cloudhsm-cli", "cloudhsm-pkcs11")
    clear_cache(memory)
    assert pending_packages(memory) == ()


SDK3_ROWS = "".join(
    f"{package}\t3.4.4-1\tii \tinstall ok installed\n"
    for package in ("cloudhsm-client", "cloudhsm-client-pkcs11")
)
DAEMON_RUNS = CommandResult(0, "ActiveState=active\nUnitFileState=enabled\nMainPID=0\n", "")


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        # a package of the site's needs it: nothing is touched
        (("--simulate", "cloudhsm-client"), []),
        # its own script fails: the daemon is as it was
        (
            ("--remove", "cloudhsm-client"),
            ["disable --now", "enable", "start"],
        ),
        ((), ["disable --now"]),
    ],
    ids=["needed", "script fails", "goes"],
)
def test_a_client_of_sdk_3_that_stays_keeps_its_daemon_running(
    refused: tuple[str, ...], left: list[str]
) -> None:
    def dpkg(argv: Argv, _memory: Memory) -> CommandResult:
        fails = argv[1:2] == refused[:1] and refused[1] in argv
        return CommandResult(1, "", "dpkg: error\n") if fails else CommandResult(0, "", "")

    memory = machine(SDK3_ROWS, apt_get=NOT_LOCKED)
    memory.programs["dpkg"] = dpkg
    memory.programs["systemctl"] = DAEMON_RUNS
    names = ("cloudhsm-client", "cloudhsm-client-pkcs11")
    gone = PackagesAbsent("sdk3", names, Deb(), Timeouts(), daemon_on(paths.LINUX))
    with pytest.raises(AgentError) if refused else nullcontext():
        gone.apply(memory)
    done = [" ".join(touch[2:-1]) for touch in memory.touches if touch[1] == "systemctl"]
    assert done == left
    removed = [touch for touch in memory.touches if touch[1:3] == ("dpkg", "--remove")]
    assert bool(removed) is bool(left)


def test_only_what_runs_leave_is_tidied() -> None:
    own = [
        "cloudhsm-cli_5.18.0-1_u24.04_amd64.deb",
        "cloudhsm-openssl-provider-5.18.0-1.el9.x86_64.rpm.part",
        "cloudhsm-cli-latest.el9.x86_64.rpm.part.from",
        "AWSCloudHSMCLI-5.18.0-1.msi.log",
        "cloudhsm-jce.due",
    ]
    theirs = ["notes.txt", "cloudhsm-exporter_1_all.deb", "cloudhsm-cli-extra.due", "cloudhsm-cli"]
    memory = Memory({f"{CACHE}/{name}": b"" for name in (*own, *theirs)})
    clear_cache(memory)
    assert sorted(memory.list_dir(CACHE)) == sorted(theirs)


UNFINISHED_ROW = "cloudhsm-cli\t5.18.0-1\tiF \tinstall ok half-configured\n"


def test_what_is_unfinished_is_completed_without_its_file() -> None:
    memory = machine(UNFINISHED_ROW)

    def dpkg(argv: Argv, memory: Memory) -> CommandResult:
        memory.programs["dpkg-query"] = database(UNFINISHED_ROW.replace("iF ", "ii "))
        return CommandResult(0, "", "")

    memory.programs["dpkg"] = dpkg
    unknown = step(None)  # of whose bytes nothing is known, and none are needed
    assert unknown.check(memory).met is False
    unknown.apply(memory)
    assert unknown.check(memory).met
    assert memory.touches == [("run", "dpkg", "--configure", "--force-confold", "cloudhsm-cli")]


def test_what_cannot_be_completed_and_has_no_file_is_told_in_the_managers_words() -> None:
    memory = machine(UNFINISHED_ROW)
    memory.programs["dpkg"] = CommandResult(
        1, "", "dpkg: error processing package cloudhsm-cli (--configure):\n its script failed\n"
    )
    kept = replace(step(), download=None)
    with pytest.raises(AgentError) as caught:
        kept.apply(memory)
    assert (caught.value.code.name, "its script failed" in caught.value.saw) == ("package-failed", True)


@pytest.mark.parametrize(
    "url",
    [
        "https://mirror/x.deb",
        "s3://bucket/x.deb",
        "HTTPS://mirror/x.deb",
        "/srv/x.deb",
        "file:///srv/x.deb",
        "srv/x.deb",
        r"C:\x\y.msi",
        "C:/x/y.msi",
    ],
)
def test_what_has_no_checksum_comes_from_a_proven_place(url: str) -> None:
    require_authentic_source(url)


@pytest.mark.parametrize("url", ["http://mirror/x.deb", "HTTP://127.0.0.1/x.deb", "ftp://mirror/x.deb"])
def test_or_it_is_refused_before_anything_is_touched(url: str) -> None:
    memory = machine("")
    download = Download(url, "cloudhsm-cli_latest_u24.04_amd64.deb", None)
    with pytest.raises(AgentError) as caught:
        replace(step(None, "latest"), download=download).check(memory)
    assert (caught.value.code.name, caught.value.code.exit_status) == ("checksum-unknown", 21)
    assert "--sha256 cloudhsm-cli_latest_u24.04_amd64.deb=HASH" not in caught.value.saw
    replace(step("0" * 64, "latest"), download=replace(download, sha256="0" * 64)).check(memory)


BIN = "/opt/cloudhsm/bin/cloudhsm-cli"
LISTED = f"/.\n/opt\n/opt/cloudhsm/bin\n{BIN}\n/opt/cloudhsm/lib/x.so\n/opt/cloudhsm/etc/cloudhsm-cli.cfg\n/opt/cloudhsm/run\n"


def dpkg_with_files(argv: Argv, _memory: Memory) -> CommandResult:
    row = "cloudhsm-cli\t5.18.0-1\tii \tinstall ok installed\n"
    return CommandResult(0, LISTED if argv[1] == "-L" else row, "")


@pytest.mark.parametrize(
    ("gone", "remark"),
    [
        ([], None),
        ([BIN], f"{BIN} missing"),
        ([BIN, "/opt/cloudhsm/lib/x.so"], f"{BIN} and 1 more missing"),
        # of configuration and logs another step says what is lacking
        (["/opt/cloudhsm/etc/cloudhsm-cli.cfg", "/opt/cloudhsm/run"], None),
    ],
)
def test_a_package_whose_programs_are_gone_is_broken(gone: list[str], remark: str | None) -> None:
    memory = Memory(programs={"dpkg-query": dpkg_with_files})
    for path in LISTED.split():
        if path.count("/") > 3 and path not in gone:
            memory.place(path, b"#!", mode=0o755)
    condition = BROKEN if remark else WHOLE
    assert Deb().installed(memory) == (Installed("cloudhsm-cli", "5.18.0-1", condition, remark),)


def test_dnf_is_told_to_install_again_what_it_counts_as_there() -> None:
    def rpm(argv: Argv, _memory: Memory) -> CommandResult:
        return CommandResult(0, f"{BIN}\n" if argv[1] == "-ql" else "cloudhsm-cli\t5.18.0-1.el9\n", "")

    memory = Memory({"/usr/bin/dnf": b""}, programs={"rpm": rpm, "dnf": CommandResult(0, "", "")})
    Rpm().install(memory, (RPM_FILE,), Timeouts())
    assert [touch[1:3] for touch in memory.touches] == [("dnf", "reinstall"), ("dnf", "install")]
    memory.touches.clear()
    Rpm().install(memory, (RPM_FILE.replace("5.18.0", "5.19.0"),), Timeouts())
    assert [touch[1:3] for touch in memory.touches] == [("dnf", "install")]


@pytest.mark.parametrize(
    ("manager", "file", "said", "code", "hint"),
    [
        (Rpm(), RPM_FILE, "Error: Unable to find a match\n", "package-failed", "excludepkgs"),
        (
            Rpm(),
            RPM_FILE,
            "Package x.rpm is not signed\nError: GPG check FAILED\n",
            "package-failed",
            "localpkg_gpgcheck",
        ),
        (
            Rpm(),
            RPM_FILE,
            "installing package x needs 2 more inodes on the /opt filesystem\n",
            "no-space",
            "free the space",
        ),
        (
            Rpm(),
            RPM_FILE,
            "installing package x needs 12MB on the / filesystem\n",
            "no-space",
            "free the space",
        ),
        (Deb(), FILE, "E: Held packages were changed and -y was used\n", "package-failed", "apt-mark unhold"),
        (
            Deb(),
            FILE,
            "dpkg: error: unable to fork: fork failed: Resource temporarily unavailable\n",
            "no-resources",
            "ulimit",
        ),
        (Deb(), FILE, "dpkg: error: x: Too many open files\n", "no-resources", "ulimit"),
    ],
)
def test_a_known_cause_has_a_hint_that_does_not_repeat_what_fails(
    manager: PackageManager, file: str, said: str, code: str, hint: str
) -> None:
    failing = CommandResult(1, "", said)
    memory = Memory(
        programs={
            "rpm": CommandResult(0, "", ""),
            "dpkg-query": CommandResult(1, "", ""),
            "yum": failing,
            "apt-get": failing,
        }
    )
    error = fails(memory, Timeouts(), manager, file)
    assert (error.code.name, hint in error.hint, "by hand" in error.hint) == (code, True, False), error


@pytest.mark.parametrize("manager", [Deb(), Rpm()])
def test_a_database_that_cannot_be_asked_for_want_of_processes_is_not_damaged(
    manager: PackageManager,
) -> None:
    exhausted = CommandResult(2, "", "dpkg-query: error: failed to open: Too many open files\n")
    with pytest.raises(AgentError) as caught:
        manager.installed(Memory(programs={"dpkg-query": exhausted, "rpm": exhausted}))
    assert caught.value.code.name == "no-resources"


def test_a_failure_of_the_lock_is_told_though_no_time_is_left_to_ask_the_database() -> None:
    memory = machine("")
    memory.locks[FRONTEND] = LockHolder(812, "apt-get")
    with pytest.raises(AgentError) as caught:
        step(None, "latest").apply(DeadlineHost(memory, 3))
    assert caught.value.code.name == "package-locked"


TOOL = "/opt/cloudhsm/bin/configure-cli"
SPOILT: dict[str, dict[str, Any]] = {
    "empty": {"data": b""},
    "not executable": {"mode": 0o644},
    "not a file": {"kind": "directory"},
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("path", [TOOL, BIN, "/opt/cloudhsm/lib/x.so"])
def test_a_package_whose_programs_cannot_be_used_is_broken(path: str, how: str) -> None:
    def query(argv: Argv, _memory: Memory) -> CommandResult:
        row = "cloudhsm-cli\t5.18.0-1\tii \tinstall ok installed\n"
        return CommandResult(0, f"{LISTED}{TOOL}\n/opt/cloudhsm/bin/notes\n" if argv[1] == "-L" else row, "")

    memory = Memory(programs={"dpkg-query": query})
    for each in (*LISTED.split(), TOOL):
        if each.startswith(("/opt/cloudhsm/bin/", "/opt/cloudhsm/lib/")):
            memory.place(each, b"#!", mode=0o644 if each.endswith(".so") else 0o755)
    memory.place("/opt/cloudhsm/bin/notes", mode=0o644)  # what a package ships, it may ship so
    assert Deb().installed(memory) == (Installed("cloudhsm-cli", "5.18.0-1"),)
    memory.place(path, **{"data": b"#!", "mode": 0o755, **SPOILT[how]})
    is_library_to_load = path.endswith(".so") and how == "not executable"
    (found,) = Deb().installed(memory)
    assert (found.condition, found.remark) == (
        (WHOLE, None) if is_library_to_load else (BROKEN, f"{path} {how}")
    )


@pytest.mark.parametrize("said", ["", "Package 'cloudhsm-cli' does not contain any files (!)\n"])
def test_a_package_whose_list_of_files_is_lost_is_broken(said: str) -> None:
    def query(argv: Argv, _memory: Memory) -> CommandResult:
        return CommandResult(
            0, said if argv[1] == "-L" else "cloudhsm-cli\t5.18.0-1\tii \tinstall ok installed\n", ""
        )

    (found,) = Deb().installed(Memory(programs={"dpkg-query": query}))
    assert (found.condition, found.remark) == (BROKEN, "the list of its files is lost")


@pytest.mark.parametrize("manager", [Deb(), Rpm()], ids=["deb", "rpm"])
def test_files_that_the_database_does_not_tell_are_not_taken_for_whole(manager: Deb | Rpm) -> None:
    def query(argv: Argv, _memory: Memory) -> CommandResult:
        if argv[1] in ("-L", "-ql"):
            return CommandResult(None, "", "")
        row = "5.18.0-1" if argv[0] == "rpm" else "5.18.0-1\tii \tinstall ok installed"
        return CommandResult(0, f"cloudhsm-cli\t{row}\n", "")

    with pytest.raises(AgentError) as caught:
        manager.installed(Memory(programs={"dpkg-query": query, "rpm": query}))
    assert caught.value.code.name == "package-failed"
