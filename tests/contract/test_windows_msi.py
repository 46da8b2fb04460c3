"""Windows Installer itself, with stand-in packages that tests/windows makes: what is in the registry afterwards counts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.core.errors import AgentError
from agent.core.timeouts import Timeouts
from agent.core.utf16 import text_of
from agent.hosts.local import local_host
from agent.package_managers import Installed
from agent.package_managers.msi import Msi, products
from tests.windows.found import Source

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator

VENDOR = Source("vendor")
BIN = Path(r"C:\Program Files\Amazon\CloudHSM\bin")
HOME = Path(r"C:\ProgramData\Amazon\CloudHSM")
CLI, PKCS11 = "AWSCloudHSMCLI", "AWSCloudHSMPKCS11"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    shutil.rmtree(HOME, ignore_errors=True)  # a removal leaves it
    yield
    Msi().remove(local_host(), [each.package for each in Msi().installed(local_host())], Timeouts())
    assert Msi().installed(local_host()) == ()


def install(*paths: str) -> None:
    Msi().install(local_host(), paths, Timeouts())


def refusal(path: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        install(path)
    return caught.value


def test_packages_are_installed_found_and_removed() -> None:
    assert Msi().installed(local_host()) == ()
    install(VENDOR.msi("CLI"), VENDOR.msi("PKCS11"))
    assert Msi().installed(local_host()) == (Installed(CLI, "5.18.0"), Installed(PKCS11, "5.18.0"))
    assert {path.stem for path in BIN.glob("*.exe")} == {"cloudhsm-cli", "configure-cli", "configure-pkcs11"}
    assert [product.name for _, product in products(local_host())] == [
        "AWS CloudHSM CLI",
        "AWS CloudHSM PKCS #11 Library",
    ]
    Msi().remove(local_host(), [CLI], Timeouts())
    assert Msi().installed(local_host()) == (Installed(PKCS11, "5.18.0"),)
    assert [path.stem for path in BIN.glob("*.exe")] == ["configure-pkcs11"]
    Msi().remove(local_host(), [CLI], Timeouts())


def test_what_is_there_is_upgraded_and_installed_anew() -> None:
    install(VENDOR.msi("CLI", "5.17.1"))
    install(VENDOR.msi("CLI"))
    install(VENDOR.msi("CLI"))
    assert Msi().installed(local_host()) == (Installed(CLI, "5.18.0"),)


def test_a_downgrade_is_refused_and_changes_nothing() -> None:
    """Why, the log of Windows would tell; that of Wine does not repeat the package's words."""
    install(VENDOR.msi("CLI"))
    error = refusal(VENDOR.msi("CLI", "5.17.1"))
    assert (error.code.name, "1603" in error.sentence) == ("package-failed", True)
    assert Msi().installed(local_host()) == (Installed(CLI, "5.18.0"),)


def test_a_package_that_refuses_this_computer_is_told() -> None:
    path = Source("refuses").msi("CLI")
    error = refusal(path)
    assert (error.code.name, "1603" in error.sentence) == ("package-failed", True)
    assert "Logging started" in text_of(local_host().read(f"{path}.log") or b"", "cp1252")


def test_a_package_that_wants_a_restart_is_in_and_told() -> None:
    assert refusal(Source("reboot").msi("CLI")).code.name == "reboot-required"
    assert Msi().installed(local_host()) == (Installed(CLI, "5.18.0"),)


def test_what_is_installed_says_itself_what_it_is() -> None:
    install(Source("another-product").msi("CLI"))
    assert Msi().installed(local_host()) == (Installed(PKCS11, "5.18.0"),)


def test_a_configuration_is_kept_through_upgrade_and_removal_unless_the_package_forgets() -> None:
    settings = HOME / "data/cloudhsm-cli.cfg"
    install(VENDOR.msi("CLI", "5.17.1"))
    fresh = settings.read_bytes()
    assert b"%%HSM_IP_ADDRESS%%" in fresh
    settings.write_bytes(b"written at run time")
    install(VENDOR.msi("CLI", "5.17.2"))
    Msi().remove(local_host(), [CLI], Timeouts())
    assert not BIN.exists()
    install(VENDOR.msi("CLI", "5.17.2"))
    assert settings.read_bytes() == b"written at run time"
    install(Source("forgets").msi("CLI"))
    assert settings.read_bytes() == fresh


def test_a_package_may_have_the_configuration_elsewhere() -> None:
    install(Source("other-place").msi("CLI"))
    assert (
        subprocess.run([str(BIN / "configure-cli.exe"), "-a", "10.0.1.6"], check=False, timeout=60).returncode
        == 0
    )
    assert b"10.0.1.6" in (HOME / "cloudhsm-cli.cfg").read_bytes()
    assert not list(HOME.glob("data/*"))


def test_a_version_of_four_numbers_is_taken_as_it_is() -> None:
    install(Source("four-numbers").msi("CLI"))
    assert Msi().installed(local_host()) == (Installed(CLI, "5.18.0.0"),)


@pytest.mark.parametrize(
    "source",
    ["vendor", "reboot", "refuses", "other-place", "forgets", "another-product", "four-numbers", "damaged"],
)
def test_every_source_has_the_checksums_of_its_packages(source: str) -> None:
    folder, sums = Source(source).folder, Source(source).checksums()
    assert "Windows/AWSCloudHSMCLI-5.18.0-1.msi" in sums
    assert sorted(sums) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.msi"))


@pytest.mark.parametrize("path", [Source("damaged").msi("CLI"), VENDOR.msi("CLI", "5.18.9")])
def test_what_is_no_package_is_refused(path: str) -> None:
    assert refusal(path).code.name == "package-failed"
