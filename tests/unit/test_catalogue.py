"""The catalogue: what it holds, what it answers, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import agent.catalogue
from agent.catalogue import (
    Artefact,
    Catalogue,
    PlatformMatch,
    life_cycle,
    load,
    match_platform,
    newest,
    parse,
    parse_os_release,
    parse_version,
    resolve_artefact,
)
from agent.cloudhsm.components import NAMES
from agent.core.errors import AgentError
from agent.core.model import Notice

FOLDER = Path(agent.catalogue.__file__).parent
PLATFORMS = (FOLDER / "platforms.toml").read_text(encoding="utf-8")
CHECKSUMS = (FOLDER / "checksums.toml").read_text(encoding="utf-8")
CATALOGUE = load()

X86 = "x86_64"
ARM = "aarch64"


def fit(os: str, os_version: str, arch: str = X86, platform: str | None = None) -> PlatformMatch:
    return match_platform(CATALOGUE, os=os, os_version=os_version, arch=arch, platform=platform)


def of_row(name: str, arch: str) -> PlatformMatch:
    """Return a fit with no bounds but those of the row."""
    row = next(row for row in CATALOGUE.rows if row.name == name)
    return PlatformMatch(row, arch, row.title)


def said(error: AgentError) -> tuple[str, str, str, str, str]:
    return (error.code.name, error.sentence, error.saw, error.want, error.hint)


def path(found: PlatformMatch, component: str, version: str | None, sdk: int = 5) -> str:
    return resolve_artefact(CATALOGUE, found, found.arch, component, version, sdk=sdk).path


# what is published


def produced(version: str, sdk: int) -> dict[str, str | None]:
    """Return path -> checksum of every file that any row can be given at a version; no path may come up twice."""
    found: dict[str, str | None] = {}
    for row in CATALOGUE.rows:
        for arch in (X86, ARM):
            for component in NAMES:
                try:
                    one = resolve_artefact(
                        CATALOGUE, of_row(row.name, arch), arch, component, version, sdk=sdk
                    )
                except AgentError as refused:
                    if refused.code.name not in {"component-unsupported", "client-end-of-support"}:
                        raise
                    continue
                assert one.path not in found
                found[one.path] = one.sha256
    return found


def listed(version: str) -> dict[str, str]:
    return {name: digest for name, digest in CATALOGUE.checksums.items() if version in name}


def test_every_file_of_the_newest_release_has_its_checksum_and_its_row() -> None:
    assert produced("5.18.0", 5) == listed("5.18.0-1") != {}


def test_every_file_of_5_8_0_has_its_checksum_and_its_row() -> None:
    assert produced("5.8.0", 5) == listed("5.8.0-2") != {}


def test_every_file_of_sdk_3_but_the_lone_management_utility_has_its_row() -> None:
    lone = re.compile("mgmt-util|ManagementUtil")
    clients = {name: digest for name, digest in listed("3.4.4").items() if not lone.search(name)}

    assert len(clients) < len(listed("3.4.4"))
    assert produced("3.4.4", 3) == clients != {}


@pytest.mark.parametrize("version", ["5.17.2", "5.16.2"])
def test_releases_whose_checksums_were_copied_in_part(version: str) -> None:
    known = {name: digest for name, digest in produced(version, 5).items() if digest is not None}

    assert known == listed(version) != {}


def test_every_checksum_is_of_one_file() -> None:
    assert len(set(CATALOGUE.checksums.values())) == len(CATALOGUE.checksums)


def test_the_one_address_of_the_vendor() -> None:
    assert CATALOGUE.base_url == "https://s3.amazonaws.com/cloudhsmv2-software/CloudHsmClient"


def test_nothing_is_kept_between_loads_and_nothing_can_be_changed() -> None:
    again = load()

    assert again == CATALOGUE
    assert again is not CATALOGUE
    with pytest.raises(TypeError):
        again.checksums["x"] = "y"  # type: ignore[index]


# file names, with every trap of the vendor's grammar


@pytest.mark.parametrize(
    ("row", "arch", "component", "version", "sdk", "want"),
    [
        ("el7", X86, "cli", None, 5, "EL7/cloudhsm-cli-5.18.0-1.el7.x86_64.rpm"),
        ("el7", ARM, "dyn", None, 5, "EL7/cloudhsm-dyn-5.18.0-1.el7.aarch64.rpm"),
        ("amzn2023", ARM, "cli", "latest", 5, "Amzn2023/cloudhsm-cli-latest.amzn2023.aarch64.rpm"),
        ("el10", X86, "openssl-provider", None, 5, "EL10/cloudhsm-openssl-provider-5.18.0-1.el10.x86_64.rpm"),
        ("u24.04", X86, "cli", None, 5, "Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb"),
        ("u24.04", ARM, "jce", "latest", 5, "Noble/cloudhsm-jce_latest_u24.04_arm64.deb"),
        (
            "u24.04",
            ARM,
            "openssl-provider",
            None,
            5,
            "Noble/cloudhsm-openssl-provider_5.17.2-1_u24.04_arm64.deb",
        ),
        (
            "u26.04",
            ARM,
            "openssl-provider",
            None,
            5,
            "Resolute/cloudhsm-openssl-provider_5.18.0-1_u26.04_arm64.deb",
        ),
        ("u22.04", X86, "pkcs11", "5.12.0", 5, "Jammy/cloudhsm-pkcs11_5.12.0-1_u22.04_amd64.deb"),
        ("u20.04", X86, "cli", None, 5, "Focal/cloudhsm-cli_5.16.1-1_u20.04_amd64.deb"),
        ("u20.04", X86, "cli", "5.8.0", 5, "Focal/cloudhsm-cli_5.8.0-2_u20.04_amd64.deb"),
        ("u20.04", X86, "cli", "5.8.0-1", 5, "Focal/cloudhsm-cli_5.8.0-1_u20.04_amd64.deb"),
        ("windows", X86, "ksp", None, 5, "Windows/AWSCloudHSMKSP-5.18.0-1.msi"),
        ("windows", X86, "cli", "latest", 5, "Windows/AWSCloudHSMCLI-latest.msi"),
        ("el8", X86, "cli", "5.19.0", 5, "EL8/cloudhsm-cli-5.19.0-1.el8.x86_64.rpm"),
        ("el8", X86, "cli", "5.19.0-3", 5, "EL8/cloudhsm-cli-5.19.0-3.el8.x86_64.rpm"),
        ("el6", X86, "pkcs11", None, 3, "EL6/cloudhsm-client-pkcs11-3.4.4-1.el6.x86_64.rpm"),
        ("el7", X86, "cli", "latest", 3, "EL7/cloudhsm-client-latest.el7.x86_64.rpm"),
        ("u16.04", X86, "cli", None, 3, "Xenial/cloudhsm-client_3.4.4-1_amd64.deb"),
        ("u16.04", X86, "cli", "latest", 3, "Xenial/cloudhsm-client_latest_amd64.deb"),
        ("u18.04", X86, "jce", None, 3, "Bionic/cloudhsm-client-jce_3.4.4-1_u18.04_amd64.deb"),
        ("windows", X86, "cli", None, 3, "Windows/AWSCloudHSMClient-3.4.4.msi"),
        ("windows", X86, "cli", "3.4.4-1", 3, "Windows/AWSCloudHSMClient-3.4.4.msi"),
        ("windows", X86, "cli", "latest", 3, "Windows/AWSCloudHSMClient-latest.msi"),
    ],
)
def test_paths(*, row: str, arch: str, component: str, version: str | None, sdk: int, want: str) -> None:
    assert path(of_row(row, arch), component, version, sdk) == want


def test_a_pinned_file_with_all_that_is_known_of_it() -> None:
    assert resolve_artefact(CATALOGUE, fit("ubuntu", "24.04"), "amd64", "cli", "5.18.0") == Artefact(
        component="cli",
        package="cloudhsm-cli",
        version="5.18.0-1",
        file="cloudhsm-cli_5.18.0-1_u24.04_amd64.deb",
        path="Noble/cloudhsm-cli_5.18.0-1_u24.04_amd64.deb",
        sha256="28cba68e9721a1683f9a394704bd786b234cb44a8acc10dbe696aaee351a6f8d",
        end_of_support=False,
    )


def test_the_latest_file_has_no_checksum() -> None:
    assert resolve_artefact(CATALOGUE, fit("rhel", "9.4"), X86, "cli", "latest") == Artefact(
        component="cli",
        package="cloudhsm-cli",
        version="latest",
        file="cloudhsm-cli-latest.el9.x86_64.rpm",
        path="EL9/cloudhsm-cli-latest.el9.x86_64.rpm",
        sha256=None,
        end_of_support=False,
    )


def test_an_end_of_support_file_is_said_to_be_one() -> None:
    assert resolve_artefact(CATALOGUE, fit("windows", "17763"), X86, "cli", None, sdk=3) == Artefact(
        component="cli",
        package="AWSCloudHSMClient",
        version="3.4.4",
        file="AWSCloudHSMClient-3.4.4.msi",
        path="Windows/AWSCloudHSMClient-3.4.4.msi",
        sha256="2fe2d9039034b57d82324bd3ed3e867801acbf3ae48caaa63a9801ce6202e758",
        end_of_support=True,
    )


@pytest.mark.parametrize(
    ("version", "ended"),
    [("5.0.0", True), ("5.7.1", True), ("5.8.0-2", True), ("5.9.0", False), ("5.19.0", False)],
)
def test_support_ended_for_5_8_0_and_earlier(version: str, ended: bool) -> None:
    assert resolve_artefact(CATALOGUE, fit("amzn", "2"), X86, "pkcs11", version).end_of_support is ended


# which components, which version


@pytest.mark.parametrize(
    ("row", "arch", "component", "first", "before"),
    [
        ("amzn2023", X86, "cli", "5.11.0", "5.10.0"),
        ("amzn2023", ARM, "cli", "5.12.0", "5.11.0"),
        ("el7", ARM, "pkcs11", "5.7.0", "5.6.0"),
        ("el8", X86, "cli", "5.7.0", "5.6.0"),
        ("el8", ARM, "cli", "5.17.0", "5.16.2"),
        ("el9", X86, "openssl-provider", "5.17.0", "5.16.2"),
        ("el10", ARM, "cli", "5.16.2", "5.16.1"),
        ("u20.04", X86, "pkcs11", "5.6.0", "5.5.0"),
        ("u22.04", X86, "cli", "5.10.0", "5.9.0"),
        ("u22.04", X86, "dyn", "5.11.0", "5.10.0"),
        ("u22.04", ARM, "cli", "5.12.0", "5.11.0"),
        ("u24.04", ARM, "cli", "5.13.0", "5.12.0"),
        ("u26.04", X86, "cli", "5.18.0", "5.17.2"),
        ("windows", X86, "ksp", "5.14.0", "5.13.0"),
    ],
)
def test_first_versions(row: str, arch: str, component: str, first: str, before: str) -> None:
    assert resolve_artefact(CATALOGUE, of_row(row, arch), arch, component, first).version == f"{first}-1"
    with pytest.raises(AgentError) as refused:
        resolve_artefact(CATALOGUE, of_row(row, arch), arch, component, before)
    assert refused.value.code.name == "client-end-of-support"
    assert refused.value.saw.startswith(f"made: {first} ")


def test_windows_server_2025_begins_later_than_its_row() -> None:
    with pytest.raises(AgentError) as refused:
        resolve_artefact(CATALOGUE, fit("windows", "26100"), X86, "cli", "5.14.0")

    assert said(refused.value) == (
        "client-end-of-support",
        "AWSCloudHSMCLI 5.14.0 is not made for Windows Server 2025 x86_64",
        "made: 5.15.0 or newer",
        "5.14.0",
        "choose a version that is made for it (5.15.0 or newer); the newest known is 5.18.0-1",
    )


# refusals


@pytest.mark.parametrize(
    ("found", "component", "version", "sdk", "want"),
    [
        (
            of_row("el10", ARM),
            "dyn",
            None,
            5,
            (
                "component-unsupported",
                "AWS makes no dyn of SDK 5 for Red Hat Enterprise Linux 10 aarch64",
                "Red Hat Enterprise Linux 10 aarch64",
                "dyn",
                "these fit: cli, pkcs11, jce, openssl-provider",
            ),
        ),
        (
            of_row("el7", X86),
            "ksp",
            "latest",
            5,
            (
                "component-unsupported",
                "AWS makes no ksp of SDK 5 for Amazon Linux 2 x86_64",
                "Amazon Linux 2 x86_64",
                "ksp",
                "these fit: cli, pkcs11, jce, dyn",
            ),
        ),
        (
            fit("centos", "8"),
            "cli",
            None,
            5,
            (
                "component-unsupported",
                "AWS makes no cli of SDK 5 for CentOS 8 x86_64",
                "CentOS 8 x86_64",
                "cli",
                "these fit: pkcs11, jce, dyn",
            ),
        ),
        (
            of_row("u24.04", X86),
            "openssl-provider",
            "5.18.0",
            5,
            (
                "client-end-of-support",
                "cloudhsm-openssl-provider 5.18.0 is not made for Ubuntu 24.04 x86_64",
                "made: 5.17.0 to 5.17.2",
                "5.18.0",
                "choose a version that is made for it (5.17.0 to 5.17.2); the newest known is 5.17.2-1",
            ),
        ),
        (
            fit("centos", "7"),
            "cli",
            "5.13.0-1",
            5,
            (
                "client-end-of-support",
                "cloudhsm-cli 5.13.0-1 is not made for CentOS 7 x86_64",
                "made: 5.7.0 to 5.12.0",
                "5.13.0-1",
                "choose a version that is made for it (5.7.0 to 5.12.0); the newest known is 5.12.0-1",
            ),
        ),
        (
            fit("centos", "7"),
            "cli",
            "latest",
            5,
            (
                "client-end-of-support",
                "cloudhsm-cli latest is not made for CentOS 7 x86_64",
                "made: 5.7.0 to 5.12.0",
                "latest",
                "choose a version that is made for it (5.7.0 to 5.12.0); the newest known is 5.12.0-1",
            ),
        ),
        (
            fit("windows", "9600"),
            "cli",
            None,
            5,
            (
                "client-end-of-support",
                "AWS makes no client of SDK 5 for Windows Server 2012 R2 x86_64",
                "Windows Server 2012 R2 x86_64",
                "SDK 5",
                "`--sdk 3` has: cli",
            ),
        ),
        (
            fit("rhel", "9.4"),
            "cli",
            "3.4.4",
            3,
            (
                "client-end-of-support",
                "AWS makes no client of SDK 3 for Red Hat Enterprise Linux 9 x86_64",
                "Red Hat Enterprise Linux 9 x86_64",
                "SDK 3",
                "`--sdk 5` has: cli, pkcs11, jce, dyn, openssl-provider",
            ),
        ),
        (
            of_row("u20.04", ARM),
            "cli",
            None,
            5,
            (
                "client-end-of-support",
                "AWS makes no client of SDK 5 for Ubuntu 20.04 aarch64",
                "Ubuntu 20.04 aarch64",
                "SDK 5",
                "no client of any SDK fits this host",
            ),
        ),
        (
            of_row("el9", X86),
            "cli",
            "../5.18.0",
            5,
            (
                "config-invalid",
                "`../5.18.0` is not a client version",
                "../5.18.0",
                "X.Y.Z, X.Y.Z-N or latest",
                "the newest cli for this host is 5.18.0-1",
            ),
        ),
    ],
)
def test_files_that_are_refused(
    found: PlatformMatch, component: str, version: str | None, sdk: int, want: tuple[str, ...]
) -> None:
    with pytest.raises(AgentError) as refused:
        resolve_artefact(CATALOGUE, found, found.arch, component, version, sdk=sdk)

    assert said(refused.value) == want


LIVE = "one of amzn2023, el7, el8, el9, el10, u22.04, u24.04, u26.04, windows"
ALL = "amzn2023, el7, el8, el9, el10, u22.04, u24.04, u26.04, windows, el6, u16.04, u18.04, u20.04"


@pytest.mark.parametrize(
    ("host", "want"),
    [
        (
            {"os": "rocky", "os_version": "9.4", "arch": X86, "id_like": ("rhel", "centos", "fedora")},
            (
                "AWS publishes no CloudHSM client for rocky 9.4 on x86_64",
                "rocky 9.4 x86_64, like rhel centos fedora",
                LIVE,
                "nearest: `--platform el9` treats this host as such, unsupported by AWS and said so in every report",
            ),
        ),
        (
            {"os": "ubuntu", "os_version": "23.10", "arch": "arm64", "id_like": ("debian",)},
            (
                "AWS publishes no CloudHSM client for ubuntu 23.10 on aarch64",
                "ubuntu 23.10 aarch64, like debian",
                LIVE,
                (
                    "nearest: `--platform u22.04` or `--platform u24.04` treats this host as such, "
                    "unsupported by AWS and said so in every report"
                ),
            ),
        ),
        (
            {"os": "arch", "os_version": "", "arch": X86},
            (
                "AWS publishes no CloudHSM client for arch (no version) on x86_64",
                "arch (no version) x86_64",
                LIVE,
                "no row is near: use a listed system, or name a compatible row with `--platform ROW`",
            ),
        ),
        (
            {"os": "windows", "os_version": "19045", "arch": "AMD64"},
            (
                "AWS publishes no CloudHSM client for windows 19045 on x86_64",
                "windows 19045 x86_64",
                LIVE,
                (
                    "nearest: `--platform windows` treats this host as such, "
                    "unsupported by AWS and said so in every report"
                ),
            ),
        ),
        (
            {"os": "ubuntu", "os_version": "20.04", "arch": ARM},
            (
                "AWS makes no CloudHSM client for Ubuntu 20.04 on aarch64",
                "ubuntu 20.04 aarch64",
                X86,
                "use a newer operating system, or an instance with the other processor",
            ),
        ),
        (
            {"os": "ubuntu", "os_version": "24.04", "arch": "riscv64"},
            (
                "AWS makes no CloudHSM client for the processor riscv64",
                "riscv64",
                "x86_64 or aarch64",
                "no row can fit; use an x86_64 or aarch64 (Graviton) instance",
            ),
        ),
        (
            {"os": "rocky", "os_version": "9.4", "arch": X86, "platform": "rocky9"},
            (
                "the catalogue has no row `rocky9`",
                "rocky9",
                f"one of {ALL}",
                f"`--platform` takes one of {ALL}",
            ),
        ),
        (
            {"os": "ubuntu", "os_version": "24.04", "arch": X86, "platform": "windows"},
            (
                "this host cannot be treated as `windows`: AWS makes msi packages for x86_64 there",
                "ubuntu 24.04 x86_64",
                "a row for Linux on x86_64",
                "leave `--platform` out to see the rows that are near",
            ),
        ),
        (
            {"os": "debian", "os_version": "11", "arch": ARM, "platform": "u20.04"},
            (
                "this host cannot be treated as `u20.04`: AWS makes deb packages for x86_64 there",
                "debian 11 aarch64",
                "a row for Linux on aarch64",
                "leave `--platform` out to see the rows that are near",
            ),
        ),
    ],
)
def test_hosts_that_are_refused(host: dict[str, object], want: tuple[str, ...]) -> None:
    with pytest.raises(AgentError) as refused:
        match_platform(CATALOGUE, **host)  # type: ignore[arg-type]

    assert said(refused.value) == ("platform-unsupported", *want)


# hosts that fit


def test_a_listed_host() -> None:
    found = fit("amzn", "2023", "arm64")

    assert found == PlatformMatch(found.row, ARM, "Amazon Linux 2023")
    assert (found.row.name, found.row.directory, found.row.suffix, found.row.format) == (
        "amzn2023",
        "Amzn2023",
        "amzn2023",
        "rpm",
    )


@pytest.mark.parametrize("version", ["20348", "10.0.20348", "10.0.20348.2113"])
def test_windows_by_its_build(version: str) -> None:
    found = fit("windows", version, "AMD64")

    assert found == PlatformMatch(found.row, X86, "Windows Server 2022", first="5.14.0")
    assert found.row.name == "windows"


def test_an_old_minor_release_is_a_notice() -> None:
    found = fit("rhel", "9.1")

    text = "Red Hat Enterprise Linux 9: 9.1 is older than 9.2, the oldest minor release AWS names"
    assert found.row.name == "el9"
    assert found.notices == (Notice("os-minor-old", text),)


def test_a_forced_row_is_said_to_be_one() -> None:
    found = match_platform(
        CATALOGUE, os="rocky", os_version="9.1", arch=X86, id_like=("rhel", "centos"), platform="el9"
    )

    title = "rocky 9.1 as Red Hat Enterprise Linux 9"
    assert found == PlatformMatch(
        found.row,
        X86,
        title,
        forced=True,
        notices=(
            Notice(
                "platform-forced",
                "treated as el9 because `--platform` says so; AWS does not list rocky 9.1 on x86_64",
            ),
            Notice("os-minor-old", f"{title}: 9.1 is older than 9.2, the oldest minor release AWS names"),
        ),
    )
    assert found.row.name == "el9"


def test_naming_the_row_that_fits_anyway_changes_nothing() -> None:
    assert fit("ubuntu", "24.04", platform="u24.04") == fit("ubuntu", "24.04")
    assert fit("windows", "20348", platform="windows") == fit("windows", "20348")


def test_naming_the_row_lifts_the_last_version_of_a_host() -> None:
    found = fit("centos", "8", platform="el8")

    text = "treated as el8 because `--platform` says so; the last client AWS made for CentOS 8 is 5.4.2"
    assert fit("centos", "8").last == "5.4.2"
    assert found == PlatformMatch(
        found.row, X86, "CentOS 8", forced=True, notices=(Notice("platform-forced", text),)
    )
    assert path(found, "cli", None) == "EL8/cloudhsm-cli-5.18.0-1.el8.x86_64.rpm"


def test_a_listed_host_can_be_treated_as_another() -> None:
    found = fit("ubuntu", "22.04", platform="u24.04")

    text = "treated as u24.04 because `--platform` says so; AWS lists Ubuntu 22.04 as u22.04"
    assert (found.row.name, found.forced, found.notices) == (
        "u24.04",
        True,
        (Notice("platform-forced", text),),
    )


# life cycle


@pytest.mark.parametrize(
    ("host", "installed", "want"),
    [
        (("amzn", "2023"), {"cloudhsm-cli": "5.18.0-1.amzn2023"}, ()),
        (("amzn", "2023"), {"cloudhsm-cli": "5.19.0-1"}, ()),
        (("amzn", "2023"), {"cloudhsm-cli": "damaged"}, ()),
        (
            ("amzn", "2023"),
            {"cloudhsm-cli": "5.16.2-1", "cloudhsm-pkcs11": "5.16.2-1"},
            (
                (
                    "client-newer-available",
                    "cloudhsm-cli, cloudhsm-pkcs11: 5.16.2-1 is installed, 5.18.0 is the newest for Amazon Linux 2023",
                ),
            ),
        ),
        (
            ("amzn", "2"),
            {"cloudhsm-client": "3.4.4-1", "cloudhsm-mgmt-util": "3.4.4-1"},
            (
                (
                    "client-out-of-support",
                    (
                        "cloudhsm-client, cloudhsm-mgmt-util: 3.4.4-1 is out of support, "
                        "and the service may refuse its connections"
                    ),
                ),
            ),
        ),
        (
            ("ubuntu", "24.04"),
            {"cloudhsm-openssl-provider": "5.17.1-1"},
            (
                (
                    "client-newer-available",
                    "cloudhsm-openssl-provider: 5.17.1-1 is installed, 5.17.2 is the newest for Ubuntu 24.04",
                ),
                (
                    "component-out-of-support",
                    (
                        "cloudhsm-openssl-provider: made for Ubuntu 24.04 up to 5.17.2 only, "
                        "while other components go on to 5.18.0-1"
                    ),
                ),
            ),
        ),
        (
            ("ubuntu", "20.04"),
            {"cloudhsm-cli": "5.8.0-2"},
            (
                (
                    "client-out-of-support",
                    "cloudhsm-cli: 5.8.0-2 is out of support, and the service may refuse its connections",
                ),
                (
                    "client-newer-available",
                    "cloudhsm-cli: 5.8.0-2 is installed, 5.16.1 is the newest for Ubuntu 20.04",
                ),
                (
                    "os-out-of-support",
                    "the newest client for Ubuntu 20.04 is 5.16.1-1; 5.18.0 needs another operating system",
                ),
            ),
        ),
        (
            ("windows", "9200"),
            {},
            (
                (
                    "os-out-of-support",
                    "only SDK 3 was made for Windows Server 2012; SDK 5 needs another operating system",
                ),
            ),
        ),
    ],
)
def test_life_cycle(
    host: tuple[str, str], installed: dict[str, str], want: tuple[tuple[str, str], ...]
) -> None:
    assert life_cycle(CATALOGUE, fit(*host), installed) == tuple(Notice(*notice) for notice in want)


def test_a_new_release_makes_the_rows_that_end_out_of_support() -> None:
    release = replace_release(CATALOGUE, "5.19.0")
    found = fit("ubuntu", "24.04")

    assert newest(release, found, X86, "cli") == "5.19.0-1"
    assert life_cycle(release, found, {"cloudhsm-cli": "5.18.0-1"}) == (
        Notice(
            "client-newer-available",
            "cloudhsm-cli: 5.18.0-1 is installed, 5.19.0 is the newest for Ubuntu 24.04",
        ),
    )


def replace_release(catalogue: Catalogue, version: str) -> Catalogue:
    first, *rest = catalogue.releases
    return replace(catalogue, releases=(first._replace(version=version), *rest))


# versions


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("5.18.0-1", (5, 18, 0, 1)),
        ("5.18.0", (5, 18, 0)),
        ("5.18.0-1.el9", (5, 18, 0, 1)),
        (" 5.18.0-1\n", (5, 18, 0, 1)),
        ("3.4.4", (3, 4, 4)),
        ("1:5.18.0-1", (5, 18, 0, 1)),
        ("5.1:2.0", (5, -1, 0)),
        ("5.x.1", (5, -1, 1)),
        ("5.1\u00b2.1", (5, -1, 1)),
        ("5." + "9" * 5000, (5,)),
        ("5..0", (5, -1, 0)),
        ("latest", ()),
        ("", ()),
    ],
)
def test_parse_version(text: str, want: tuple[int, ...]) -> None:
    assert parse_version(text) == want


def test_versions_sort_by_number_and_junk_sorts_low() -> None:
    texts = ["5.9.0", "latest", "5.10.0", "5.x", "5.10.0-2", "3.4.4", "5.8.0-2", "5.10.0-1"]

    assert sorted(texts, key=parse_version) == [
        "latest",
        "3.4.4",
        "5.x",
        "5.8.0-2",
        "5.9.0",
        "5.10.0",
        "5.10.0-1",
        "5.10.0-2",
    ]


# os-release


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("ID=ubuntu", {"ID": "ubuntu"}),
        ('ID="ubuntu"\nVERSION_ID="24.04"\n', {"ID": "ubuntu", "VERSION_ID": "24.04"}),
        ("ID='ubuntu'", {"ID": "ubuntu"}),
        ('\ufeffID="amzn"\r\nVERSION_ID=2\r\n', {"ID": "amzn", "VERSION_ID": "2"}),
        ("ID=", {"ID": ""}),
        ('ID=""', {"ID": ""}),
        ("  ID=a  ", {"ID": "a"}),
        ("# ID=a\n#ID=b\n\n", {}),
        ("ID=a # the distribution", {"ID": "a"}),
        ('ID="a" # the distribution', {"ID": "a"}),
        ("HOME_URL=https://x/#top", {"HOME_URL": "https://x/#top"}),
        ("ID=a\nID=b", {"ID": "b"}),
        (r'NAME="a \"b\" \$c \`d\` \\ \n"', {"NAME": r'a "b" $c `d` \ \n'}),
        (r"NAME='a \"b\"'", {"NAME": r"a \"b\""}),
        (r"NAME=a\ b", {"NAME": "a b"}),
        ("NAME=\"a\"'b'c", {"NAME": "abc"}),
        ('NAME="it\'s"', {"NAME": "it's"}),
        ('NAME="$(reboot)"', {"NAME": "$(reboot)"}),
        ("NAME=a=b", {"NAME": "a=b"}),
        ('ID="open\nVERSION_ID=1', {"VERSION_ID": "1"}),
        ("ID=two words", {}),
        ("ID = spaced", {}),
        ("ID=a\\", {}),
        ("2ID=a\nno assignment\n=x", {}),
        ("", {}),
    ],
)
def test_parse_os_release(text: str, want: dict[str, str]) -> None:
    assert parse_os_release(text) == want


# the strict loader: one edit of the true files, and the complaint about it

DIGEST = "8dd827b51e471e08094c963b745cd6960d4d398b0ee26930981bafccaf4258a6"
HOST_1 = "os = 'amzn'\nversion = '2023'\n"
CLIENT_1 = "platform = 'amzn2023'\narch = ['x86_64']\n"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("[vendor]", "[seller]", "platforms.toml: unknown table `seller`"),
        ("base_url = ", "url = ", "platforms.toml [vendor]: unknown key `url`"),
        ("[[release]]", "[[releases]]", "platforms.toml: unknown table `releases`"),
        ("format = 'rpm'", "form = 'rpm'", "platforms.toml [[platform]] 1: unknown key `form`"),
        (
            "format = 'rpm'",
            "format = 'apk'",
            "platforms.toml [[platform]] 1: `format` is apk, not one of rpm, deb, msi",
        ),
        ("format = 'rpm'\n", "", "platforms.toml [[platform]] 1: `format` is missing"),
        ("name = 'el7'", "name = 'amzn2023'", "platforms.toml [[platform]] 2: amzn2023 is there twice"),
        ("title = 'Amazon Linux 2023'", "title = ''", "platforms.toml [[platform]] 1: `title` is empty"),
        (
            "min_minor = 3",
            "min_minor = true",
            "platforms.toml [[platform]] 2: `min_minor` is not of type int",
        ),
        ("min_minor = 3", "min_minor = '3'", "platforms.toml [[platform]] 2: `min_minor` is not of type int"),
        (HOST_1, "os = 'amzn'\nversion = '2'\n", "platforms.toml [[host]] 2: amzn 2 is there twice"),
        (HOST_1, HOST_1 + "last = '5.12'\n", "platforms.toml [[host]] 1: `last` is 5.12, not X.Y.Z"),
        (HOST_1, HOST_1 + "arch = []\n", "platforms.toml [[host]] 1: `arch` is not a list of words"),
        (
            HOST_1,
            HOST_1 + "arch = ['mips']\n",
            "platforms.toml [[host]] 1: `arch` is mips, not one of x86_64, aarch64",
        ),
        (
            HOST_1,
            HOST_1 + "first = '6.0.0'\nlast = '5.0.0'\n",
            "platforms.toml [[host]] 1: `first` is after `last`",
        ),
        (CLIENT_1, CLIENT_1 + "frist = '5.0.0'\n", "platforms.toml [[client]] 1: unknown key `frist`"),
        (
            CLIENT_1,
            CLIENT_1.replace("amzn2023", "el11"),
            "platforms.toml [[client]] 1: `platform` is el11, not one of " + ALL,
        ),
        (
            CLIENT_1,
            CLIENT_1.replace("x86_64", "amd64"),
            "platforms.toml [[client]] 1: `arch` is amd64, not one of x86_64, aarch64",
        ),
        (
            CLIENT_1,
            CLIENT_1.replace("'x86_64'", "'x86_64', 'x86_64'"),
            "platforms.toml [[client]] 1: `arch` has a word twice",
        ),
        (
            CLIENT_1,
            CLIENT_1.replace("x86_64", "aarch64"),
            "platforms.toml [[client]] 2: SDK 5 cli for amzn2023 aarch64 is there twice",
        ),
        (
            "component = ['ksp']",
            "component = ['dyn']",
            "platforms.toml [[client]] 23: `component` is dyn, not one of cli, pkcs11, jce, ksp",
        ),
        ("first = '5.11.0'", "first = '5.11'", "platforms.toml [[client]] 1: `first` is 5.11, not X.Y.Z"),
        ("last = '5.17.2'", "last = '5.16.2'", "platforms.toml [[client]] 19: `first` is after `last`"),
        ("version = '5.17.2'", "version = '5.18.0'", "platforms.toml [[release]] 2: 5.18.0 is there twice"),
        ("release = '1'", "release = 'one'", "platforms.toml [[release]] 1: `release` is one, not a number"),
        ("date = 2026-08-18", "date = 'August'", "platforms.toml [[release]] 1: `date` is not of type date"),
        (
            "date = 2026-08-18",
            "date = 2026-08-18T00:00:00",
            "platforms.toml [[release]] 1: `date` is not of type date",
        ),
        ("sdk = 5", "sdk = 4", "platforms.toml [[package]] 1: `sdk` is 4, not one of 3, 5"),
        ("package = 'cloudhsm-dyn'\n", "", "platforms.toml [[package]] 4: has neither `package` nor `msi`"),
        ("seen = 2026-11-23", "", "platforms.toml [vendor]: `seen` is missing"),
    ],
)
def test_a_wrong_platforms_file_is_refused(old: str, new: str, complaint: str) -> None:
    assert old in PLATFORMS
    with pytest.raises(ValueError, match=r"platforms\.toml") as refused:
        parse(PLATFORMS.replace(old, new, 1), CHECKSUMS)

    assert str(refused.value) == complaint


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            DIGEST,
            DIGEST[1:],
            "'Windows/AWSCloudHSMKSP-5.18.0-1.msi': is not a SHA-256 of 64 lower-case hex digits",
        ),
        (
            DIGEST,
            DIGEST.upper(),
            "'Windows/AWSCloudHSMKSP-5.18.0-1.msi': is not a SHA-256 of 64 lower-case hex digits",
        ),
        (
            f"'{DIGEST}'",
            "1",
            "'Windows/AWSCloudHSMKSP-5.18.0-1.msi': is not a SHA-256 of 64 lower-case hex digits",
        ),
        (
            "'Windows/AWSCloudHSMKSP-5.18.0-1.msi'",
            "'Windows/AWSCloudHSMKSP-5.17.0-1.msi'",
            "'Windows/AWSCloudHSMKSP-5.17.0-1.msi': is not a file of 5.18.0-1",
        ),
        (
            "'Windows/AWSCloudHSMKSP-5.18.0-1.msi'",
            "'Linux/AWSCloudHSMKSP-5.18.0-1.msi'",
            (
                "'Linux/AWSCloudHSMKSP-5.18.0-1.msi': `directory` is Linux, not one of Amzn2023, EL7, EL8, EL9, EL10, "
                "Jammy, Noble, Resolute, Windows, EL6, Xenial, Bionic, Focal"
            ),
        ),
    ],
)
def test_a_wrong_checksum_is_refused(old: str, new: str, complaint: str) -> None:
    assert old in CHECKSUMS
    with pytest.raises(ValueError, match=r"checksums\.toml") as refused:
        parse(PLATFORMS, CHECKSUMS.replace(old, new, 1))

    assert str(refused.value) == f"checksums.toml [release.'5.18.0-1'] {complaint}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "checksums.toml: has more or less than the tables [release.'X.Y.Z-N']"),
        ("release = 1", "checksums.toml: has more or less than the tables [release.'X.Y.Z-N']"),
        ("[release]\n[other]", "checksums.toml: has more or less than the tables [release.'X.Y.Z-N']"),
        ("[release]\n'5.18.0-1' = 1", "checksums.toml [release.'5.18.0-1']: is not a table"),
        (
            "[release.'5.18.0-1']\nseen = 2026-11-23\nsha256 = {}",
            "checksums.toml [release.'5.18.0-1']: `source` is missing",
        ),
        ("[release.'5.18.0-1']\nfiles = 1", "checksums.toml [release.'5.18.0-1']: unknown key `files`"),
    ],
)
def test_a_wrong_checksums_file_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"checksums\.toml") as refused:
        parse(PLATFORMS, text)

    assert str(refused.value) == complaint


def test_a_checksum_of_a_release_that_no_row_lists_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"checksums\.toml \[release\.'5\.99\.0-1'\]: `release` is 5\.99\.0-1, not one of"
    ):
        parse(PLATFORMS, "[release.'5.99.0-1']\nsource = 's'\nseen = 2026-11-23\nsha256 = {}")


@pytest.mark.parametrize("table", ["package", "release", "platform", "host", "client"])
def test_a_missing_table_is_refused(table: str) -> None:
    text = re.sub(rf"(?ms)^\[\[{table}\]\].*?(?=^\[\[|\Z)", "", PLATFORMS)
    with pytest.raises(ValueError, match=rf"^platforms\.toml: has no \[\[{table}\]\]$"):
        parse(text, CHECKSUMS)


@pytest.mark.parametrize(("platforms", "checksums"), [("=\n", CHECKSUMS), (PLATFORMS, "=\n")])
def test_text_that_is_no_toml_is_refused_with_its_file(platforms: str, checksums: str) -> None:
    file = "platforms.toml" if platforms == "=\n" else "checksums.toml"
    with pytest.raises(ValueError, match=rf"^{file}: .*line 1"):
        parse(platforms, checksums)
