"""The runs whose screens and reports are kept."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from agent import commands
from agent.cloudhsm.cluster import read_cluster
from agent.config.desired import Desired, resolve, with_options
from agent.config.input_errors import InputErrors
from agent.config.options import CaSource
from agent.config.readers import read_environment, read_flags, read_text
from agent.core.errors import AgentError
from agent.core.host import ProcessInfo
from agent.render.progress import NullProgress
from agent.report import RunInfo
from agent.run import report_invalid_input
from tests.fakes import cluster_answers as aws
from tests.fakes.vendor import ETC, MIRROR, Vendor, WindowsVendor, catalogue

if TYPE_CHECKING:
    from agent.core.codes import CodeName
    from agent.core.model import Report
    from tests.fakes.memory import Memory


FOLDER = Path(__file__).parent / "screens"
NOW = dt.datetime(2026, 12, 1, 20, 15, tzinfo=dt.timezone.utc)


class Scene:
    """One host, its vendor, and the runs on it, numbered."""

    def __init__(self, *components: str, world: type[Vendor] = Vendor, **vendor: object) -> None:
        self.vendor = world(**vendor)  # type: ignore[arg-type]
        self.memory: Memory = self.vendor.machine(NOW)
        self.desired = Desired(
            hsm_ip=self.vendor.addresses,
            ca_cert=CaSource.of((FOLDER / "customerCA.crt").read_text(encoding="ascii")),
            component=components,
            package_source=MIRROR,
            sha256=self.vendor.checksums(),
        )
        self.number = 0

    def down(self, cause: CodeName, *addresses: str) -> Scene:
        for address in addresses:
            self.memory.ports[address, 2223] = cause
            self.vendor.down.add(address)
        return self

    def run(self, command: str) -> RunInfo:
        self.number += 1
        return RunInfo(
            f"20261201T20150{self.number}Z-0000", command, self.memory.now(), catalogue=catalogue()
        )

    def configure(self, **more: object) -> Report:
        wanted = with_options(self.desired, more)
        return commands.configure(self.memory, wanted, self.run("configure"), NullProgress())

    def verify(self, **more: object) -> Report:
        return commands.verify(self.memory, Desired(**more), self.run("verify"), NullProgress())  # type: ignore[arg-type]

    def plan(self, **more: object) -> Report:
        wanted = with_options(self.desired, more)
        return commands.verify(self.memory, wanted, self.run("plan"), NullProgress())


def first_run() -> Report:
    return Scene("pkcs11").configure()


def second_run() -> Report:
    scene = Scene("pkcs11")
    scene.configure()
    return scene.configure()


def of_a_cluster(state: str = "ACTIVE", *, again: bool = False) -> Report:
    """Configure by the id of a cluster; `again`: one of its HSMs had another address before."""
    first, second, before = "10.0.1.6", "10.0.2.9", "10.0.9.9"
    scene = Scene(addresses=(first, second, before))
    if again:
        scene.configure(hsm_ip=(first, before))
    # a root is issued by itself, so that it can stand for the certificate of the cluster
    certificate = (FOLDER / "customerCA.crt").read_text(encoding="ascii")
    hsms = [aws.hsm(1, EniIp=first), aws.hsm(2, EniIp=second), aws.hsm(3, "CREATE_IN_PROGRESS", EniIp=None)]
    tree = aws.cluster(state, *hsms, Certificates={"ClusterCertificate": certificate})
    run = replace(scene.run("configure"), cluster=read_cluster(tree, "eu-central-1"))
    wanted = with_options(scene.desired, {"hsm_ip": (), "cluster_id": aws.CLUSTER_ID})
    return commands.configure(scene.memory, wanted, run, NullProgress())


def by_cluster_id() -> Report:
    return of_a_cluster()


def cluster_of_other_addresses() -> Report:
    return of_a_cluster(again=True)


def cluster_not_initialised() -> Report:
    return of_a_cluster("UNINITIALIZED")


def plan_on_a_virgin_host() -> Report:
    return Scene("pkcs11").plan(package_source=None)


def plan_with_nothing_to_do() -> Report:
    scene = Scene()
    scene.configure()
    return scene.plan()


def plan_of_one_more_option() -> Report:
    scene = Scene()
    scene.configure()
    return scene.plan(log_level="debug")


def degraded() -> Report:
    return Scene().down("hsm-timed-out", "10.0.1.6").configure()


def all_timed_out() -> Report:
    return Scene().down("hsm-timed-out", "10.0.1.6", "10.0.2.9").configure()


def each_for_another_reason() -> Report:
    return Scene().down("hsm-timed-out", "10.0.1.6").down("hsm-refused", "10.0.2.9").configure()


def rolled_back() -> Report:
    scene = Scene("pkcs11", addresses=("10.0.1.6", "10.0.2.9", "10.0.3.3"))
    scene.configure(hsm_ip=("10.0.1.6", "10.0.2.9"))
    scene.vendor.moods["configure-pkcs11"] = "lie"
    return scene.configure()


def another_cluster_s_ca() -> Report:
    scene = Scene()
    scene.configure()
    return scene.configure(ca_cert=CaSource.of((FOLDER / "otherCA.crt").read_text(encoding="ascii")))


def drift() -> Report:
    scene = Scene()
    scene.configure()
    fresh = (scene.memory.read(f"{ETC}/cloudhsm-cli.cfg") or b"").replace(b"10.0.1.6", b"10.0.3.3")
    scene.memory.place(f"{ETC}/cloudhsm-cli.cfg", fresh)
    return scene.verify()


def not_activated() -> Report:
    return Scene(activated=False).configure()


def the_client_hangs() -> Report:
    return Scene(moods={"cloudhsm-cli": "hang"}).configure()


def what_the_client_says_is_shown_safely() -> Report:
    return Scene(client_says="boom \x1b[2J\x07 " + "and then some more of it " * 8).configure()


def package_manager_fails() -> Report:
    return Scene(moods={"installer": "fail"}).configure()


def windows_first_run() -> Report:
    return Scene("pkcs11", "ksp", world=WindowsVendor).configure()


def windows_wants_a_restart() -> Report:
    return Scene(world=WindowsVendor, moods={"installer": "reboot"}).configure()


def windows_package_manager_fails() -> Report:
    return Scene(world=WindowsVendor, moods={"installer": "fail"}).configure()


def package_conflict() -> Report:
    return Scene(installed={"cloudhsm-client": "3.4.4-1"}).configure()


def single_hsm_refused() -> Report:
    return Scene(addresses=("10.0.1.6",)).configure()


def single_hsm_accepted() -> Report:
    return Scene(addresses=("10.0.1.6",)).configure(accept_single_hsm=True)


def restart_needed() -> Report:
    scene = Scene("pkcs11")
    mapped = ("/opt/cloudhsm/lib/libcloudhsm_pkcs11.so",)
    scene.memory.running = (ProcessInfo(812, "nginx", 0, 0, NOW.timestamp() - 3600, mapped),)
    return scene.configure()


def treated_as_another() -> Report:
    scene = Scene()
    scene.memory.place("/etc/os-release", b'ID=linuxmint\nVERSION_ID="22"\nPRETTY_NAME="Linux Mint 22"\n')
    return scene.configure(platform="u24.04")


def not_in_the_catalogue() -> Report:
    scene = Scene()
    scene.memory.place("/etc/os-release", b'ID=arch\nPRETTY_NAME="Arch Linux"\nBUILD_ID=rolling\n')
    return scene.configure()


def not_root() -> Report:
    scene = Scene()
    scene.memory.root = False
    return scene.configure()


def no_record() -> Report:
    return Scene().verify()


def complaints() -> Report:
    scene = Scene()
    found = InputErrors()
    flags = {"hsm_ip": ["10.0.1", "hsm.example", "10.0.1.6:2223"], "ca_cert": "http://example/ca", "sdk": "4"}
    document = b'[hsm]\nip = ["10.0.1.6"]\nca_fingerprnt = "00"\n[client]\nversion = "five"\n'
    said = (
        read_flags(flags, found),
        read_environment({"HSM_AGENT_HSM_IPS": "10.0.1.6"}, found),
        read_text(document, "/etc/hsm-agent/config.toml", found),
    )
    with pytest.raises(AgentError) as raised:
        resolve(said, found)
    return report_invalid_input(scene.memory, scene.run("configure"), raised.value, Desired())


def rollback() -> Report:
    scene = Scene()
    scene.configure()
    scene.configure(accept_single_hsm=True)
    return commands.rollback(scene.memory, None, scene.run("rollback"), NullProgress())


def rollback_with_nothing_to_go_back_to() -> Report:
    scene = Scene()
    return commands.rollback(scene.memory, None, scene.run("rollback"), NullProgress())


def remove() -> Report:
    scene = Scene("pkcs11")
    scene.configure()
    return commands.remove(scene.memory, scene.run("remove"), NullProgress(), None)


def remove_from_a_bare_host() -> Report:
    scene = Scene()
    return commands.remove(scene.memory, scene.run("remove"), NullProgress(), None)


def report_undelivered() -> Report:
    return Scene().configure(report_to=("prometheus:/var/lib/node-exporter",))


# a report is a frozen value, and each of these is made once in a process
REPORTS: tuple[Callable[[], Report], ...] = tuple(map(cache, (
    first_run, second_run, by_cluster_id, cluster_of_other_addresses, cluster_not_initialised, plan_on_a_virgin_host, plan_with_nothing_to_do, plan_of_one_more_option, degraded,
    all_timed_out, each_for_another_reason, rolled_back, another_cluster_s_ca, drift, not_activated, the_client_hangs,
    what_the_client_says_is_shown_safely, package_manager_fails, windows_first_run, windows_wants_a_restart,
    windows_package_manager_fails, package_conflict, single_hsm_refused,
    single_hsm_accepted, restart_needed, treated_as_another, not_in_the_catalogue, not_root, no_record, complaints,
    rollback, rollback_with_nothing_to_go_back_to, remove, remove_from_a_bare_host, report_undelivered,
)))  # fmt: skip


def hold(name: str, exit_status: int, text: str, config: pytest.Config, folder: Path = FOLDER) -> None:
    """Compare with the file of that name, or write it when asked to."""
    path = folder / f"{name}.{exit_status}.txt"
    if config.getoption("--update-golden"):
        for old in folder.glob(f"{name}.*.txt"):
            old.unlink()
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"exit {exit_status} is new; what it shows:\n{text}"
    assert text == path.read_text(encoding="utf-8")
