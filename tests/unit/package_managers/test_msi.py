"""Windows Installer: what its list, its exit statuses and its logs mean. The real thing, as far as Wine is, runs in tests/windows."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from agent.cloudhsm.components import COMPONENTS
from agent.core.errors import AgentError
from agent.core.host import CommandResult
from agent.core.registry import RegistryKey
from agent.core.system import windows
from agent.core.timeouts import Timeouts
from agent.package_managers import Condition, Installed
from agent.package_managers.msi import Msi, reason
from agent.windows.authenticode_query import ARGV as AUTHENTICODE
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.core.registry import Value

WINDOWS = [each.windows for each in COMPONENTS if each.windows]
UNINSTALL = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall"
SESSION_MANAGER = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager"
CODE = "{2E6A36C6-8D6E-4F5E-9B53-9E0D9C8D5A01}"
FILE = "/cache/AWSCloudHSMCLI-5.18.0-1.msi"
ARGV = ("msiexec", "/i", FILE, "/qn", "/norestart", "/l*v", f"{FILE}.log")


def key(name: str, **values: str) -> tuple[str, RegistryKey]:
    return name, RegistryKey({**values, "EstimatedSize": 31})


def machine(*programs: tuple[str, RegistryKey]) -> Memory:
    memory = Memory(system=windows())
    memory.keys = {rf"{UNINSTALL}\{name}": found for name, found in programs}
    memory.keys[UNINSTALL] = RegistryKey(subkeys=tuple(name for name, _ in programs))
    memory.keys[SESSION_MANAGER] = RegistryKey({"BootExecute": ("autocheck autochk *",)})
    return memory


def fails(memory: Memory, act: Callable[[], object]) -> AgentError:
    with pytest.raises(AgentError) as caught:
        act()
    return caught.value


def installing(status: int | None, log: bytes = b"") -> Memory:
    def msiexec(_argv: tuple[str, ...], memory: Memory) -> CommandResult:
        memory.place(f"{FILE}.log", log)
        memory.clock += 1000 if status is None else 1
        return CommandResult(status, "", "")

    memory = machine()
    memory.programs["msiexec"] = msiexec
    return memory


# --- the list


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("AWS CloudHSM CLI", "AWSCloudHSMCLI"),
        ("AWS CloudHSM Command Line Interface", "AWSCloudHSMCLI"),
        ("AWS CloudHSM PKCS #11 Library", "AWSCloudHSMPKCS11"),
        ("AWS CloudHSM JCE Provider", "AWSCloudHSMJCE"),
        ("AWS CloudHSM Key Storage Provider", "AWSCloudHSMKSP"),
        ("AWS CloudHSM KSP", "AWSCloudHSMKSP"),
        ("AWS CloudHSM Management Utility", "AWSCloudHSMManagementUtil"),
        ("AWS CloudHSM Client", "AWSCloudHSMClient"),
        ("AWSCloudHSMPKCS11", "AWSCloudHSMPKCS11"),
        ("AWS CloudHSM CLI (64-bit)", "AWSCloudHSMCLI"),
        ("CloudHSM JCE Provider for Windows 5.18.0", "AWSCloudHSMJCE"),
    ],
)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"Publisher": "Amazon Web Services, Inc."},
        {"Publisher": "Amazon.com, Inc. or its affiliates", "InstallLocation": "D:\\tools\\"},
        {"Publisher": "AWS"},
        {"InstallLocation": "C:\\Program Files\\Amazon\\CloudHSM\\"},
        {"InstallLocation": '"C:\\Program Files\\Amazon\\CloudHSM\\"'},
        {"InstallLocation": "c:/program files/amazon/cloudhsm"},
        {"InstallLocation": "C:\\Program Files\\Amazon\\CloudHSM\\bin\\..\\lib"},
    ],
    ids=" ".join,
)
def test_a_program_of_the_vendor_is_known_by_its_name(name: str, package: str, more: dict[str, str]) -> None:
    memory = machine(key(CODE, DisplayName=name, DisplayVersion="5.18.0", **more))
    assert Msi().installed(memory) == (Installed(package, "5.18.0"),)


@pytest.mark.parametrize("publisher", ["Amazon Web Services", "Amazon.com, Inc."])
def test_a_name_that_nobody_foresaw_is_read_by_its_words_where_the_vendor_says_that_it_is_his(
    publisher: str,
) -> None:
    name = "AWS CloudHSM Client SDK 5 - PKCS #11 Module"
    memory = machine(key(CODE, DisplayName=name, DisplayVersion="5.18.0", Publisher=publisher))
    assert Msi().installed(memory) == (Installed("AWSCloudHSMPKCS11", "5.18.0"),)


FOREIGN = [
    {"DisplayName": "CloudHSM Client Backup"},
    {"DisplayName": "Contoso Monitoring for CloudHSM Client"},
    {"DisplayName": "AWS CloudHSM CLI Exporter"},
    {"DisplayName": "CloudHSM Audit Log Exporter for Java", "Publisher": "Amazon Web Services, Inc."},
    {"DisplayName": "AWS CloudHSM Client Backup", "Publisher": "Amazon.com, Inc. or its affiliates"},
    {"DisplayName": "CloudHSM CLI Cookbook", "Publisher": "AWS"},
    {"DisplayName": "AWS CloudHSM CLI", "Publisher": "Contoso"},
    {"DisplayName": "AWS CloudHSM Client", "Publisher": "Amazonia Software GmbH"},
    {"DisplayName": "AWS CloudHSM Client", "Publisher": "Partner of Amazon Web Services"},
    {"DisplayName": "AWS CloudHSM CLI", "InstallLocation": "C:\\Program Files\\Contoso"},
    {
        "DisplayName": "AWS CloudHSM CLI",
        "InstallLocation": "C:\\Program Files\\Amazon\\CloudHSM\\..\\Contoso",
    },
    {"DisplayName": "AWS CloudHSM CLI", "InstallLocation": "C:/Program Files/Amazon/CloudHSM/../../Contoso/"},
    {"DisplayName": "AWS CloudHSM CLI", "InstallLocation": '"D:\\CloudHSM"'},
    {"DisplayName": "AWS CloudHSM CLI", "InstallLocation": "C:\\Program Files\\Amazon\\CloudHSM Tools"},
    {"DisplayName": "CloudHSM something new", "Publisher": "Amazon Web Services"},
    {"DisplayName": "AWS Command Line Interface v2", "Publisher": "Amazon Web Services"},
]


@pytest.mark.parametrize("values", FOREIGN, ids=lambda values: " by ".join(values.values()))
def test_a_program_of_somebody_else_is_neither_listed_nor_removed(values: dict[str, str]) -> None:
    own = key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0")
    memory = machine(key(CODE.replace("01}", "02}"), DisplayVersion="3.1.0", **values), own)
    memory.programs["msiexec"] = CommandResult(0, "", "")
    assert Msi().installed(memory) == (Installed("AWSCloudHSMCLI", "5.18.0"),)
    everything = [*WINDOWS, values["DisplayName"]]
    Msi().remove(memory, everything, Timeouts())
    assert [touch[3] for touch in memory.touches if touch[0] == "run"] == [CODE]


def test_a_program_without_a_version_is_not_whole() -> None:
    memory = machine(key(CODE, DisplayName="AWS CloudHSM CLI"))
    assert Msi().installed(memory) == (
        Installed("AWSCloudHSMCLI", "", Condition.BROKEN, "no version is recorded"),
    )


def test_other_programs_and_what_the_installer_did_not_put_there_are_left_out() -> None:
    memory = machine(
        key(
            "{AAAAAAAA-8D6E-4F5E-9B53-9E0D9C8D5A01}",
            DisplayName="AWS Command Line Interface v2",
            DisplayVersion="2.1",
        ),
        key("CloudHSM helper", DisplayName="CloudHSM helper of ours", DisplayVersion="1"),
        key("{BBBBBBBB-8D6E-4F5E-9B53-9E0D9C8D5A01}"),
    )
    assert Msi().installed(memory) == ()
    assert Msi().installed(machine()) == ()
    assert Msi().installed(Memory(system=windows())) == ()


def test_a_program_that_is_installed_twice_is_broken() -> None:
    memory = machine(
        key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.9.0"),
        key(CODE.replace("01}", "02}"), DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0"),
    )
    assert Msi().installed(memory) == (
        Installed("AWSCloudHSMCLI", "5.18.0", Condition.BROKEN, "installed 2 times, as 5.9.0, 5.18.0"),
    )


@pytest.mark.parametrize("denied", [UNINSTALL, rf"{UNINSTALL}\{CODE}"])
def test_a_list_that_cannot_be_read_is_no_list(denied: str) -> None:
    memory = machine(key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0"))
    memory.keys[denied] = AgentError("unreadable", f"{denied} cannot be read", saw="Access is denied.")
    for act in (lambda: Msi().installed(memory), lambda: Msi().remove(memory, WINDOWS, Timeouts())):
        error = fails(memory, act)
        assert (error.code.name, denied in error.sentence) == ("unreadable", True)
    assert [touch for touch in memory.touches if touch[0] == "run"] == []


def test_however_many_programs_there_are_ours_is_found() -> None:
    others = [
        key(
            f"{{{number:08X}-8D6E-4F5E-9B53-9E0D9C8D5A01}}",
            DisplayName="x" * 200,
            DisplayVersion="1",
            Publisher="y",
        )
        for number in range(5_000)
    ]
    own = key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0")
    assert Msi().installed(machine(*others, own)) == (Installed("AWSCloudHSMCLI", "5.18.0"),)


def test_a_program_that_is_gone_before_it_was_read_is_left_out() -> None:
    memory = machine(key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0"))
    del memory.keys[rf"{UNINSTALL}\{CODE}"]
    assert Msi().installed(memory) == ()


# --- installing


def test_each_package_is_installed_quietly_with_a_log() -> None:
    memory = installing(0)
    Msi().install(memory, [FILE], Timeouts())
    assert memory.touches == [("run", *ARGV)]


@pytest.mark.parametrize("status", [3010, 1641])
def test_a_reboot_that_is_left_is_told_when_all_are_in(status: int) -> None:
    memory = installing(status)
    error = fails(memory, lambda: Msi().install(memory, [FILE, FILE], Timeouts()))
    assert (error.code.name, error.code.exit_status) == ("reboot-required", 23)
    assert memory.touches == [("run", *ARGV)] * 2


def test_another_installation_is_waited_for() -> None:
    statuses = [1618, 1618, 0]
    memory = machine()
    memory.programs["msiexec"] = lambda _argv, _memory: CommandResult(statuses.pop(0), "", "")
    Msi().install(memory, [FILE], Timeouts())
    assert (statuses, memory.monotonic()) == ([], 1.0)


def test_another_installation_is_not_waited_for_without_end() -> None:
    memory = machine()
    memory.programs["msiexec"] = CommandResult(1618, "", "")
    error = fails(memory, lambda: Msi().install(memory, [FILE], Timeouts(lock=30)))
    assert error.code.name == "package-locked"
    assert 30 <= memory.monotonic() < 32


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (112, "no-space", "the disk is full"),
        (1601, "package-failed", "service"),
        (1602, "package-failed", "cancelled"),
        (1603, "package-failed", "fatal"),
        (1605, "package-failed", "not installed"),
        (1619, "package-failed", "could not be opened"),
        (1620, "package-failed", "no Windows Installer package"),
        (1625, "package-failed", "policy"),
        (1633, "package-failed", "processor"),
        (1638, "package-failed", "another version"),
        (1699, "package-failed", "msiexec exited 1699"),
    ],
)
def test_an_exit_status_is_told_in_words(status: int, code: str, words: str) -> None:
    memory = installing(status)
    error = fails(memory, lambda: Msi().install(memory, [FILE], Timeouts()))
    assert (error.code.name, words in error.sentence, str(status) in error.sentence) == (code, True, True)
    assert error.hint


def test_an_installation_that_does_not_end_is_told() -> None:
    memory = installing(None)
    error = fails(memory, lambda: Msi().install(memory, [FILE], Timeouts(package=600)))
    assert (error.code.name, error.sentence) == ("package-failed", "msiexec did not end in time")


# --- the log

LOG = """=== Verbose logging started: 25/11/2026  3:40:00  Build type: SHIP UNICODE 5.00.10011.00 ===
MSI (s) (A4:B0) [03:40:00:123]: Doing action: LaunchConditions
Action start 3:40:00: LaunchConditions.
MSI (s) (A4:B0) [03:40:00:150]: Product: AWS CloudHSM CLI -- A newer version is already installed.
A newer version is already installed.
Action ended 3:40:00: LaunchConditions. Return value 3.
Action ended 3:40:00: INSTALL. Return value 3.
MSI (s) (A4:B0) [03:40:00:170]: Product: AWS CloudHSM CLI -- Installation failed.
MSI (s) (A4:B0) [03:40:00:171]: Windows Installer installed the product. Installation success or error status: 1603.
=== Verbose logging stopped: 25/11/2026  3:40:00 ===
""".replace("\n", "\r\n")


@pytest.mark.parametrize(
    "log",
    [b"\xff\xfe" + LOG.encode("utf-16-le"), LOG.encode("cp1252"), LOG.encode("utf-16-le")],
    ids=["as Windows writes it", "as Wine writes it", "its end alone"],
)
def test_a_fatal_error_is_told_with_the_words_of_the_log(log: bytes) -> None:
    memory = installing(1603, log)
    error = fails(memory, lambda: Msi().install(memory, [FILE], Timeouts()))
    assert error.saw == "A newer version is already installed."
    assert f"{FILE}.log" in error.hint


def test_the_end_of_a_long_log_is_enough() -> None:
    noise = "MSI (s): Note: 1: 1402\r\n" * 200_000
    memory = installing(1603, b"\xff\xfe" + (noise + LOG).encode("utf-16-le"))
    error = fails(memory, lambda: Msi().install(memory, [FILE], Timeouts()))
    assert error.saw == "A newer version is already installed."


@pytest.mark.parametrize(
    ("log", "want"),
    [
        ("MSI (s): Product: X -- Error 1920. Service 'S' failed to start.", "Error 1920. Service 'S' failed to start."),
        ("Error 1303. The installer has insufficient privileges", "Error 1303. The installer has insufficient privileges"),
        ("Action ended 1:00: InstallFiles. Return value 3.\nAction ended 1:00: INSTALL. Return value 3.",
         "Action ended 1:00: InstallFiles. Return value 3."),
        ("Product: X -- Installation operation failed.", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_reason_is_what_a_person_would_look_for(log: str, want: str) -> None:
    assert reason(log) == want


def test_a_full_disk_is_a_full_disk() -> None:
    memory = installing(
        1603, b"Product: X -- Error 1601. Out of disk space. Volume: 'C:'; required space: 9 KB"
    )
    assert fails(memory, lambda: Msi().install(memory, [FILE], Timeouts())).code.name == "no-space"


# --- removing


def test_a_package_is_removed_by_its_product_code() -> None:
    memory = machine(
        key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0"),
        key(CODE.replace("01}", "02}"), DisplayName="AWS CloudHSM JCE", DisplayVersion="5.18.0"),
    )
    memory.programs["msiexec"] = CommandResult(0, "", "")
    Msi().remove(memory, ["AWSCloudHSMCLI"], Timeouts())
    log = rf"C:\ProgramData\hsm-agent\log\remove-{CODE[1:-1]}.log"
    assert [touch for touch in memory.touches if touch[0] == "run"] == [
        ("run", "msiexec", "/x", CODE, "/qn", "/norestart", "/l*v", log)
    ]


@pytest.mark.parametrize("status", [1605, 1614])
def test_what_is_gone_already_is_removed(status: int) -> None:
    memory = machine(key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0"))
    memory.programs["msiexec"] = CommandResult(status, "", "")
    Msi().remove(memory, ["AWSCloudHSMCLI", "AWSCloudHSMKSP"], Timeouts())
    assert sum(touch[0] == "run" for touch in memory.touches) == 1


def test_a_removal_that_fails_is_told() -> None:
    memory = machine(key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0"))
    memory.programs["msiexec"] = CommandResult(1603, "", "")
    assert (
        fails(memory, lambda: Msi().remove(memory, ["AWSCloudHSMCLI"], Timeouts())).code.name
        == "package-failed"
    )


# --- what a restart has still to do

BIN = r"C:\Program Files\Amazon\CloudHSM\bin"


@pytest.mark.parametrize(
    ("moves", "pending_reboot_file"),
    [
        ((r"\??\C:\Windows\Temp\x", ""), None),
        (
            (r"\??\C:\Config.Msi\1.rbf", "", rf"\??\{BIN}\TBD1.tmp", r"!\??\C:\x.dll"),
            rf"{BIN}\TBD1.tmp",
        ),
        ((rf"\??\{BIN.lower()}\x.dll", ""), rf"{BIN.lower()}\x.dll"),
        (("", ""), None),
        ((), None),
        (rf"\??\{BIN}\x.dll", None),  # of another kind than Windows writes
    ],
)
def test_a_file_that_the_next_start_replaces_is_seen(moves: Value, pending_reboot_file: str | None) -> None:
    memory = machine(key(CODE, DisplayName="AWS CloudHSM CLI", DisplayVersion="5.18.0"))
    memory.keys[SESSION_MANAGER] = RegistryKey({"PendingFileRenameOperations": moves})
    assert Msi().installed(memory) == (
        Installed("AWSCloudHSMCLI", "5.18.0", pending_reboot_file=pending_reboot_file),
    )


# --- the signature of a file


def signed(status: str, by: str) -> CommandResult:
    coded = base64.b64encode(by.encode()).decode()
    return CommandResult(0, json.dumps({"status": status, "by": coded}) + "\r\n", "")


@pytest.mark.parametrize(
    ("said", "notices"),
    [
        (signed("Valid", "CN=Amazon Web Services, Inc., C=US"), []),
        (signed("Valid", "CN=Jürgen"), [("signature-unusual", "is Valid, by CN=Jürgen")]),
        (signed("NotSigned", ""), [("signature-unusual", "is NotSigned; its SHA-256")]),
        (CommandResult(0, "", ""), [("signature-unchecked", "no answer")]),
        (CommandResult(1, "", "Access is denied.\n"), [("signature-unchecked", "Access is denied.")]),
        (
            CommandResult(127, "", "powershell: there is no such program\n"),
            [("signature-unchecked", "no such program")],
        ),
        (CommandResult(0, '{"status":"Valid"}', ""), [("signature-unchecked", "Valid")]),
    ],
    ids=str,
)
def test_a_signature_is_told_where_it_is_remarkable(
    said: CommandResult, notices: list[tuple[str, str]]
) -> None:
    memory = machine()
    memory.answers[AUTHENTICODE] = said
    found = Msi().check_signature(memory, FILE)
    assert [each.code for each in found] == [code for code, _ in notices]
    assert all(text in each.text for each, (_, text) in zip(found, notices))
    assert memory.stdin == f"{FILE}\n".encode()


def test_a_file_that_was_changed_after_it_was_signed_is_refused() -> None:
    memory = machine()
    memory.answers[AUTHENTICODE] = signed("HashMismatch", "CN=Amazon Web Services, Inc.")
    error = fails(memory, lambda: Msi().check_signature(memory, FILE))
    assert (error.code.name, error.code.exit_status) == ("checksum-mismatch", 21)
