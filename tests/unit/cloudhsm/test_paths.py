"""Where the vendor's things lie on each system; on Windows a configuration file is searched for."""

from __future__ import annotations

import pytest

from agent.cloudhsm.components import NAMES
from agent.cloudhsm.paths import LINUX, ClientPaths, client_paths
from agent.core import system
from tests.fakes.memory import Memory

WINDOWS = system.windows(r"D:\Program Files", r"D:\ProgramData")
HERE = client_paths(WINDOWS)
DATA = r"D:\ProgramData\Amazon\CloudHSM"
PROGRAMS = r"D:\Program Files\Amazon\CloudHSM"


def host(*paths: str) -> Memory:
    memory = Memory(system=WINDOWS)
    for number, path in enumerate(paths):
        memory.clock = float(number)
        memory.place(path, b"{}")
    return memory


def test_the_paths_of_each_system() -> None:
    assert (LINUX.tool("cli"), LINUX.log("cli")) == (
        "/opt/cloudhsm/bin/configure-cli",
        "/opt/cloudhsm/run/cloudhsm-cli.log",
    )
    assert (HERE.cli, HERE.tool("ksp"), HERE.ca, HERE.log("ksp")) == (
        rf"{PROGRAMS}\bin\cloudhsm-cli.exe",
        rf"{PROGRAMS}\bin\configure-ksp.exe",
        rf"{DATA}\customerCA.crt",
        rf"{PROGRAMS}\cloudhsm-ksp.log",
    )


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([], rf"{DATA}\data\cloudhsm-cli.cfg"),
        ([rf"{DATA}\cloudhsm-cli.cfg"], rf"{DATA}\cloudhsm-cli.cfg"),
        ([rf"{PROGRAMS}\etc\cloudhsm-cli.cfg"], rf"{PROGRAMS}\etc\cloudhsm-cli.cfg"),
        ([rf"{DATA}\a\b\cloudhsm-cli.cfg"], rf"{DATA}\a\b\cloudhsm-cli.cfg"),
        ([rf"{DATA}\a\b\c\cloudhsm-cli.cfg"], rf"{DATA}\data\cloudhsm-cli.cfg"),
        ([rf"{DATA}\data\cloudhsm-cli.cfg", rf"{DATA}\cloudhsm-cli.cfg"], rf"{DATA}\cloudhsm-cli.cfg"),
        ([rf"{DATA}\cloudhsm-cli.cfg", rf"{DATA}\data\cloudhsm-cli.cfg"], rf"{DATA}\data\cloudhsm-cli.cfg"),
        ([rf"{DATA}\old-cloudhsm-cli.cfg"], rf"{DATA}\data\cloudhsm-cli.cfg"),
    ],
    ids=["none", "root", "programs", "deep", "too deep", "newest", "newest too", "another name"],
)
def test_a_configuration_file_is_found_wherever_the_package_put_it(there: list[str], found: str) -> None:
    assert HERE.settings("cli", host(*there)) == found


def test_all_files_are_found_once() -> None:
    paths = [rf"{DATA}\data\cloudhsm-cli.cfg", rf"{DATA}\cloudhsm-ksp.cfg", rf"{DATA}\customerCA.crt"]
    assert HERE.all_settings(host(*paths)) == tuple(paths[:2])
    assert [HERE.component(path) for path in paths] == ["cli", "ksp", None]


@pytest.mark.parametrize(
    "name",
    ["cloudhsm-cli-backup.cfg", "cloudhsm-cli.cfg.rpmsave", "cloudhsm-.cfg", "cloudhsm-exporter.cfg", "site.cfg",
     "cloudhsm-mgmt-util.cfg", "xcloudhsm-cli.cfg", "cloudhsm_client.cfg.old"],
)  # fmt: skip
@pytest.mark.parametrize("here", [LINUX, HERE], ids=["linux", "windows"])
def test_a_file_that_is_no_components_is_nobodys(here: ClientPaths, name: str) -> None:
    memory = Memory(system=here.system)
    for home in here.homes:
        memory.place(here.system.join(home, name), b"{}")
        memory.place(here.system.join(home, "backup", name), b"{}")
    assert here.all_settings(memory) == ()
    assert here.component(here.system.join(here.homes[0], name)) is None
    for component in NAMES:
        memory.place(here.settings(component, memory), b"{}")
    for path in here.sdk3.configs:
        memory.place(path, b"{}")
    found = here.all_settings(memory)
    assert [here.component(path) for path in found] == [*NAMES, None, None]


def test_a_copy_in_a_folder_below_does_not_count_where_there_is_the_real_one() -> None:
    real = rf"{DATA}\data\cloudhsm-cli.cfg"
    memory = host(real, rf"{DATA}\data\backup\cloudhsm-cli.cfg")  # the copy is newer
    assert HERE.settings("cli", memory) == real
    assert HERE.all_settings(memory) == (real,)


def test_a_link_leads_nowhere() -> None:
    memory = host(rf"{DATA}\data\cloudhsm-cli.cfg")
    memory.place(rf"{DATA}\loop", kind="link", link="..")
    assert HERE.all_settings(memory) == (rf"{DATA}\data\cloudhsm-cli.cfg",)


@pytest.mark.parametrize(
    ("component", "name", "is_it"),
    [
        ("pkcs11", "libcloudhsm_pkcs11.so", True),
        ("pkcs11", "libcloudhsm_pkcs11.so.5.18", True),
        ("pkcs11", "libcloudhsm_pkcs11-5.18.0.so", True),
        ("dyn", "libcloudhsm_openssl_engine.so", True),
        ("openssl-provider", "licloudhsm_openssl_provider.so", True),
        ("openssl-provider", "libcloudhsm_openssl_provider.so", True),
        ("openssl-provider", "openssl_provider.so.1", True),
        ("jce", "libcloudhsm_jce.so", True),
        ("pkcs11", "libcorp_cloudhsm_pkcs11_shim.so", False),
        ("pkcs11", "libcloudhsm_pkcs11_spy.so", False),
        ("pkcs11", "p11-cloudhsm_pkcs11.so", False),
        ("pkcs11", "libcloudhsm_pkcs11.so.bak", False),
        ("pkcs11", "libcloudhsm_openssl_engine.so", False),
        ("openssl-provider", "libcorp_openssl_provider.so", False),
        ("cli", "libcloudhsm_pkcs11.so", False),
    ],
)
def test_a_library_is_told_by_its_whole_name(component: str, name: str, is_it: bool) -> None:
    assert LINUX.is_library(component, name) is is_it
    memory = Memory({f"/opt/cloudhsm/lib/{name}": b""})
    assert (f"/opt/cloudhsm/lib/{name}" in LINUX.programs(component, memory)) is is_it


def test_where_the_vendor_tells_no_names_a_part_of_one_will_do() -> None:
    assert HERE.is_library("ksp", "cloudhsm-ksp-5.dll")
