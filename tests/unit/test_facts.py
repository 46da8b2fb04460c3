"""What a machine is, seen through its files and its package database."""

from __future__ import annotations

import datetime as dt

import pytest

from agent.catalogue import load
from agent.core.host import CommandResult
from agent.core.registry import RegistryKey
from agent.facts import Configured, Facts, gather
from agent.package_managers import Condition, Installed
from agent.render.facts_json import facts_document
from tests.fakes.memory import Memory
from tests.fakes.vendor import ETC, VERSION, Vendor, WindowsVendor

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.timezone.utc)


def test_a_bare_host() -> None:
    assert gather(Vendor().machine(NOW)) == Facts(
        name="memory", os="ubuntu", os_version="24.04", id_like=("debian",), title="Ubuntu 24.04.1 LTS",
        arch="x86_64", format="deb", init="other",
    )  # fmt: skip


def test_a_host_with_a_client() -> None:
    memory = Vendor(installed={"cloudhsm-cli": "5.18.0-1", "cloudhsm-pkcs11": "5.17.2-1"}).machine(NOW)
    memory.place("/run/systemd/system", kind="directory")
    memory.place(f"{ETC}/customerCA.crt", b"CA")
    facts = gather(memory)
    assert facts.installed == (
        Installed("cloudhsm-cli", "5.18.0-1"),
        Installed("cloudhsm-pkcs11", "5.17.2-1"),
    )
    assert facts.configured == (
        Configured("cli", (), f"{ETC}/customerCA.crt"), Configured("pkcs11", (), f"{ETC}/customerCA.crt"),
    )  # fmt: skip
    assert (facts.init, facts.has_ca, facts.components(5), facts.components(3)) == (
        "systemd",
        True,
        ("cli", "pkcs11"),
        (),
    )
    assert (facts.package(5, "cli"), facts.package(5, "jce"), facts.package(3, "cli")) == (
        Installed("cloudhsm-cli", "5.18.0-1"),
        None,
        None,
    )


def test_a_package_that_is_not_whole_is_one_all_the_same() -> None:
    facts = gather(Vendor(broken={"cloudhsm-cli": "5.17.2-1"}).machine(NOW))
    there = Installed("cloudhsm-cli", "5.17.2-1", Condition.UNFINISHED, "unpacked")
    assert (facts.components(5), facts.package(5, "cli")) == (("cli",), there)


NEIGHBOURS = {
    "cloudhsm-exporter": "1.0",
    "cloudhsm-cli-extra": "5.18.0-1",
    "cloudhsm-ksp": "2",
    "cloudhsm": "1",
}


def test_packages_that_only_look_like_the_vendors_are_no_facts() -> None:
    facts = gather(Vendor(installed={"cloudhsm-cli": "5.18.0-1", **NEIGHBOURS}).machine(NOW))
    assert facts.installed == (Installed("cloudhsm-cli", "5.18.0-1"),)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]"])
def test_a_configuration_that_cannot_be_read_is_no_fact(data: bytes) -> None:
    memory = Vendor(installed={"cloudhsm-cli": "5.18.0-1"}).machine(NOW)
    memory.place(f"{ETC}/cloudhsm-cli.cfg", data)
    memory.place(f"{ETC}/cloudhsm-pkcs11.cfg", kind="directory")
    assert gather(memory).configured == ()


def test_a_machine_without_a_name_or_a_package_manager_is_a_value() -> None:
    memory = Memory(answers={("uname", "-m"): CommandResult(127, "", "no such program")})
    assert gather(memory) == Facts("memory", "linux", "", (), "an unknown system", "unknown", "", "other")


def test_the_vendors_os_release_is_read_where_etc_has_none() -> None:
    memory = Memory(
        {"/usr/lib/os-release": b"ID=alpine\n"}, answers={("uname", "-m"): CommandResult(0, "x86_64\n", "")}
    )
    assert gather(memory).os == "alpine"


def test_what_is_printed_of_a_host_can_be_printed() -> None:
    vendor = Vendor()
    memory = vendor.machine(NOW)
    memory._name = "ho\x1b[2Jst\udcff"  # noqa: SLF001 -- what the kernel has need not be text
    memory.place("/etc/os-release", b'ID=ubuntu\nVERSION_ID="24.04"\nPRETTY_NAME="\x1b[2J"\n')
    tree = facts_document(gather(memory), load(), None)
    assert (tree["host"]["name"], tree["host"]["title"]) == ("ho?[2Jst?", "?[2J")


def test_a_windows_server() -> None:
    vendor = WindowsVendor(installed={"AWSCloudHSMCLI": "5.18.0"})
    facts = gather(vendor.machine(NOW))
    assert facts == Facts(
        name="memory", os="windows", os_version="20348", id_like=(), title="Windows Server 2022", arch="x86_64",
        format="msi", init="scm", installed=(Installed("AWSCloudHSMCLI", "5.18.0"),),
        configured=(Configured("cli", (), vendor.layout.ca),), system=vendor.system,
    )  # fmt: skip
    assert (facts.components(5), facts.package(5, "cli")) == (("cli",), Installed("AWSCloudHSMCLI", "5.18.0"))


@pytest.mark.parametrize(
    ("said", "version", "title"),
    [
        ({"CurrentBuild": "17763", "InstallationType": "Client", "ProductName": "Windows 10"}, "17763-client", "Windows 10"),
        ({"CurrentBuild": "17763", "InstallationType": "Server Core"}, "17763", "an unknown Windows"),
        ({}, "", "an unknown Windows"),
    ],
    ids=["a Windows for clients", "core", "nothing"],
)  # fmt: skip
def test_a_windows_that_is_no_server_is_none(said: dict[str, str], version: str, title: str) -> None:
    memory = WindowsVendor().machine(NOW)
    memory.keys[VERSION] = RegistryKey(said)
    facts = gather(memory)
    assert (facts.os, facts.os_version, facts.title) == ("windows", version, title)
