"""What the Windows adapter works out before it asks the kernel: paths, access control lists, which programs only look."""

from __future__ import annotations

import pytest

from agent.core.system import windows
from agent.hosts import allowlist
from agent.hosts.windows import acl, paths

HERE = r"C:\Program Files\here"


@pytest.mark.parametrize(
    ("path", "want"),
    [
        (r"C:\ProgramData\Amazon\CloudHSM", r"\\?\C:\ProgramData\Amazon\CloudHSM"),
        ("C:/a b/ü.cfg", r"\\?\C:\a b\ü.cfg"),
        (r"\\?\C:\a", r"\\?\C:\a"),
        (r"a\..\b", r"\\?\C:\Program Files\here\b"),
        (r"C:\a\..\..\..\b", r"\\?\C:\b"),
        (r"\b", r"\\?\C:\b"),
        ("C:b", r"\\?\C:\Program Files\here\b"),
        (r"\\server\share\a", r"\\?\UNC\server\share\a"),
        (r"\\?\UNC\server\share\a", r"\\?\UNC\server\share\a"),
        ("console.txt", r"\\?\C:\Program Files\here\console.txt"),
        (".hidden", r"\\?\C:\Program Files\here\.hidden"),
        ("C:\\" + "x" * 400, "\\\\?\\C:\\" + "x" * 400),
    ],
)
def test_a_path_becomes_what_the_kernel_takes_as_it_is(path: str, want: str) -> None:
    assert paths.full(path, HERE) == want
    assert paths.full(want, HERE) == want


@pytest.mark.parametrize(
    "path",
    [
        "NUL", "nul.txt", "a/CON/b", "COM1", "com²", "LPT9.log", "CONOUT$", r"\\.\PhysicalDrive0", "a:b",
        r"C:\a:stream", "a?", "a*", "a|b", "a<b", 'a"b', "a\0b", "a\nb", "a.", "a ", r"C:\a. \b", r"D:a", r"\\server",
    ],
)  # fmt: skip
def test_a_path_that_means_something_else_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"device|character|space|absolute"):
        paths.full(path, HERE)


def test_a_path_is_shown_as_people_write_it() -> None:
    assert paths.shown(r"\\?\C:\a b") == r"C:\a b"
    assert paths.shown(r"\\?\UNC\server\share\a") == r"\\server\share\a"


def test_a_drive_and_a_share_are_roots() -> None:
    roots = [r"\\?\C:" + "\\", r"\\?\C:", r"\\?\UNC\server\share", "\\\\server\\share\\"]
    assert [paths.is_root(path) for path in roots] == [True] * 4
    assert not paths.is_root(r"\\?\C:\a")


@pytest.mark.parametrize(
    ("mode", "want"),
    [
        (0o600, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)"),
        (0o644, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)(A;;FR;;;WD)"),
        (0o755, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)(A;;FR;;;WD)"),
        (0o666, "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)(A;;FRFW;;;WD)"),
    ],
)
def test_a_mode_of_a_file_becomes_a_list_and_is_read_back(mode: int, want: str) -> None:
    assert acl.descriptor(mode) == want
    assert acl.mode(want) == acl.comparable(mode)


def test_a_folder_gives_what_it_has_to_what_comes_into_it() -> None:
    made = acl.descriptor(0o711, folder=True)
    assert made == "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)"
    assert acl.mode(made, folder=True) == 0o711


@pytest.mark.parametrize("mode", [0o640, 0o660, 0o400, 0o444, 0o622, 0o4755, 0o1777, 0o4600])
def test_a_mode_without_a_counterpart_is_refused(mode: int) -> None:
    with pytest.raises(ValueError, match="has no counterpart"):
        acl.descriptor(mode)


@pytest.mark.parametrize(
    ("text", "folder", "want"),
    [
        # as Windows itself makes them: a system file, C:\ProgramData, a file in a user's own folder
        (
            (
                "O:S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
                "D:PAI(A;;0x1200a9;;;SY)(A;;0x1200a9;;;BA)(A;;0x1200a9;;;BU)(A;;FA;;;S-1-5-80-956008885-3418522649-"
                "1831038044-1853292631-2271478464)(A;;0x1200a9;;;AC)"
            ),
            False,
            0o644,
        ),
        (
            "O:SYD:AI(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICIIO;GA;;;CO)(A;OICI;0x1200a9;;;BU)(A;CI;DCLCRPCR;;;BU)",
            True,
            0o777,
        ),
        ("O:S-1-5-21-1-2-3-1001D:AI(A;ID;FA;;;SY)(A;ID;FA;;;S-1-5-21-1-2-3-1001)", False, 0o600),
        # another user's own: he may give himself what he has not
        ("O:S-1-5-21-1-2-3-1002D:P(A;;FA;;;SY)", False, 0o666),
        ("O:S-1-5-21-1-2-3-1002D:P(A;;FA;;;SY)", True, 0o777),
        ("O:LAD:P(A;;FA;;;SY)", False, 0o600),
        ("O:BAD:(A;;FA;;;BA)(A;;0x1301bf;;;AU)", False, 0o666),
        ("O:BAD:(A;;FA;;;BA)(A;;WDWO;;;BU)", False, 0o622),
        ("O:BAD:(A;;GR;;;S-1-5-21-1-2-3-1002)", False, 0o644),
        ("O:BAD:(A;;0x80000000;;;WD)", False, 0o644),
        ("O:BAD:(D;;FA;;;WD)(A;;FA;;;BA)", False, 0o600),
        ("O:BAD:(A;OICIIO;FA;;;WD)(A;;FA;;;BA)", False, 0o600),
        ('O:BAD:(XA;;FR;;;WD;(@User.Title=="x"))', False, 0o644),
        ("O:BAD:(A;;ZZ;;;WD)", False, 0o666),  # an unknown right may be any
        ("O:BAD:", False, 0o600),
        ("O:BA", False, 0o666),  # a file system without lists
        ("O:BAD:NO_ACCESS_CONTROL", False, 0o666),
    ],
)
def test_a_list_is_told_as_a_mode_that_is_never_more_closed(text: str, folder: bool, want: int) -> None:
    assert oct(acl.mode(text, folder=folder, me="S-1-5-21-1-2-3-1001")) == oct(want)


BEST = "O:BAD:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)"


@pytest.mark.parametrize(
    ("text", "who"),
    [
        (BEST, None),
        ("O:SYD:AI(A;OICI;FA;;;SY)(A;OICIIO;GA;;;CO)(A;OICI;0x1200a9;;;BU)(D;;FA;;;WD)", None),
        ("O:S-1-5-21-1-2-3-1001D:P(A;;FA;;;S-1-5-21-1-2-3-1001)", None),
        # as a folder that is made by hand in %ProgramData% has it
        ("O:BAD:AI(A;OICIID;FA;;;SY)(A;OICIIOID;GA;;;CO)(A;OICIID;0x1200a9;;;BU)(A;CIID;DCLCRPCR;;;BU)", "BU"),
        (BEST.replace("O:BA", "O:S-1-5-21-1-2-3-1002"), "S-1-5-21-1-2-3-1002"),
        (f"{BEST}(A;OICIIO;FA;;;WD)", "WD"), (f"{BEST}(A;;SD;;;BU)", "BU"), (f"{BEST}(A;;0x100;;;AU)", "AU"),
        (f"{BEST}(A;;0x10;;;AU)", "AU"), (f"{BEST}(A;;GA;;;WD)", "WD"), (f"{BEST}(A;;0x40000000;;;WD)", "WD"),
        (f"{BEST}(A;;DT;;;WD)", "WD"), (f"{BEST}(A;;WO;;;WD)", "WD"), (f"{BEST}(A;ID;FW;;;WD)", "WD"),
        ("O:BA", "everybody"), ("O:BAD:NO_ACCESS_CONTROL", "everybody"), ("D:P(A;;FA;;;SY)", "nobody"),
    ],
)  # fmt: skip
def test_who_else_can_exchange_what_lies_in_a_folder(text: str, who: str | None) -> None:
    assert acl.untrusted_writer(text, "S-1-5-21-1-2-3-1001") == who


def test_a_mark_read_only_takes_writing_away() -> None:
    assert acl.mode("O:BAD:(A;;FA;;;WD)", writable=False) == 0o444


_CLI = r"C:\Program Files\Amazon\CloudHSM\bin\cloudhsm-cli.exe"
_UNINSTALL = r"HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Uninstall"


@pytest.mark.parametrize(
    "argv",
    [
        ("sc", "query", "AWSCloudHSMClient"),
        ("tasklist", "/fi", "PID eq 812", "/fo", "csv", "/nh"),
        (_CLI, "user", "list"),
        (_CLI, "cluster", "hsm-info"),
    ],
    ids=" ".join,
)
def test_what_only_looks_may_be_asked(argv: tuple[str, ...]) -> None:
    assert allowlist.is_allowed(argv, allowlist.of(windows()))
    assert not allowlist.is_allowed(argv)


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("reg", "query", _UNINSTALL, "/s", "/reg:64"),
        ("reg", "add", _UNINSTALL, "/s"),
        ("reg", "query", r"\\other\HKLM\x", "/s"),
        ("reg.exe", "query", _UNINSTALL, "/s"),
        (r"C:\Temp\reg", "query", _UNINSTALL, "/s"),
        ("sc", "stop", "AWSCloudHSMClient"),
        ("sc", r"\\other", "query"),
        ("netsh", "advfirewall", "firewall", "add", "rule", "name=x"),
        ("schtasks", "/delete", "/tn", "x"),
        ("msiexec", "/i", "x.msi"),
        ("dpkg-query", "-W"),
        ("openssl", "x509", "-in", "x", "-out", "y"),
        ("tasklist", "/s", "other"),
        (_CLI, "user", "create"),
        (r"C:\Temp\cloudhsm-cli.exe", "--version"),
    ],
    ids=" ".join,
)
def test_what_touches_or_comes_from_elsewhere_may_not(argv: tuple[str, ...]) -> None:
    assert not allowlist.is_allowed(argv, allowlist.of(windows()))
