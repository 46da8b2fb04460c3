"""Windows Installer itself, with stand-in packages that tests/wine makes: what is in the registry afterwards counts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.core.errors import AgentError
from agent.core.limits import Limits
from agent.hosts.here import this_machine
from agent.packages import Installed
from agent.packages.msi import Msi, log_text, products

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = r"Z:\scratch\packages"
BIN = Path(r"C:\Program Files\Amazon\CloudHSM\bin")
CLI, PKCS11 = "AWSCloudHSMCLI", "AWSCloudHSMPKCS11"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    Msi().remove(this_machine(), [each.package for each in Msi().installed(this_machine())], Limits())
    assert Msi().installed(this_machine()) == ()


def install(*names: str) -> None:
    Msi().install(this_machine(), [rf"{PACKAGES}\{name}" for name in names], Limits())


def refusal(name: str) -> AgentError:
    with pytest.raises(AgentError) as caught:
        install(name)
    return caught.value


def test_packages_are_installed_found_and_removed() -> None:
    assert Msi().installed(this_machine()) == ()
    install("cli-5.18.0.msi", "pkcs11-5.18.0.msi")
    assert Msi().installed(this_machine()) == (Installed(CLI, "5.18.0"), Installed(PKCS11, "5.18.0"))
    assert sorted(path.name for path in BIN.iterdir()) == ["cli.exe", "pkcs11.exe"]
    assert [product.name for product in products(this_machine())] == [
        "AWS CloudHSM CLI",
        "AWS CloudHSM PKCS #11 Library",
    ]
    Msi().remove(this_machine(), [CLI], Limits())
    assert Msi().installed(this_machine()) == (Installed(PKCS11, "5.18.0"),)
    assert [path.name for path in BIN.iterdir()] == ["pkcs11.exe"]
    Msi().remove(this_machine(), [CLI], Limits())


def test_what_is_there_is_upgraded_and_installed_anew() -> None:
    install("cli-5.17.1.msi")
    install("cli-5.18.0.msi")
    install("cli-5.18.0.msi")
    assert Msi().installed(this_machine()) == (Installed(CLI, "5.18.0"),)


def test_a_downgrade_is_refused_and_changes_nothing() -> None:
    """Why, the log of Windows would tell; that of Wine does not repeat the package's words."""
    install("cli-5.18.0.msi")
    error = refusal("cli-5.17.1.msi")
    assert (error.code.name, "1603" in error.sentence) == ("package-failed", True)
    assert Msi().installed(this_machine()) == (Installed(CLI, "5.18.0"),)


def test_a_package_that_refuses_this_computer_is_told() -> None:
    error = refusal("ksp-5.18.0.msi")
    assert (error.code.name, "1603" in error.sentence) == ("package-failed", True)
    assert "Logging started" in log_text(this_machine().read(rf"{PACKAGES}\ksp-5.18.0.msi.log") or b"")


@pytest.mark.parametrize("name", ["damaged.msi", "absent.msi"])
def test_what_is_no_package_is_refused(name: str) -> None:
    assert refusal(name).code.name == "package-failed"
