"""A roll-out that installs the agent's own package on real hosts of both families, and one that takes it off."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.building import release_of_this_run

from .fleet import Operator
from .installed import TIMER
from .kernel import until
from .scene import ROWS, STATE, cluster, hold, proven, release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab
    from .scene import Scene

IMAGES = ["ubuntu24.04+systemd", "amzn2023+systemd"]
LOCKS = {"deb": "/var/lib/dpkg/lock-frontend", "rpm": "/var/lib/rpm/.rpm.lock"}
SPEC = """Name: hsm-agent
Version: {version}
Release: 1
Summary: another version
License: test
BuildArch: noarch
%description
another version
%install
mkdir -p %{{buildroot}}/usr/share/hsm-agent-test
echo {version} >%{{buildroot}}/usr/share/hsm-agent-test/version
%files
/usr/share/hsm-agent-test
"""


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        for image in ROWS:
            made.package(image)
        yield made


@pytest.fixture
def operator(scene: Scene, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    scene.mode("normal")
    return Operator(scene, tmp_path / "home", release_of_this_run(tmp_path_factory).archive)


@pytest.fixture(params=IMAGES)
def one(operator: Operator, make_host: MakeHost, request: pytest.FixtureRequest) -> LabHost:
    host = make_host(request.param)
    operator.meet(host)
    operator.inventory()
    return host


def is_there(host: LabHost) -> bool:
    """Judge by other means than the agent whether it is installed, found by its name, and looks each day."""
    timer = host.testinfra.service(TIMER)
    shown = host.run(["sh", "-c", "hsm-agent --version"])
    return bool(
        host.testinfra.package("hsm-agent").is_installed
        and shown.stdout == f"hsm-agent {__version__}\n"
        and timer.is_enabled
        and timer.is_running
    )


def another_version(host: LabHost, folder: Path, version: str) -> None:
    """Install a package of that name, and nothing in it."""
    if host.image.family == "deb":
        (folder / "DEBIAN").mkdir(parents=True)
        control = f"Package: hsm-agent\nVersion: {version}\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: other\n"
        (folder / "DEBIAN" / "control").write_text(control)
        subprocess.run(
            ["dpkg-deb", "-Zxz", "-b", str(folder), str(folder / "x.deb")], check=True, capture_output=True
        )
        host.put("/root/x.deb", (folder / "x.deb").read_bytes())
        host.must(["dpkg", "-i", "/root/x.deb"])
        return
    host.put("/root/x.spec", SPEC.format(version=version).encode())
    host.must(["rpmbuild", "-bb", "--quiet", "--define", "_topdir /root/x", "/root/x.spec"])
    host.must(["sh", "-c", "rpm -U --oldpackage /root/x/RPMS/noarch/*.rpm"])


def test_the_agent_stays_is_kept_and_goes_when_it_is_told_to(
    operator: Operator, scene: Scene, one: LabHost, tmp_path: Path
) -> None:
    without = operator.run("rollout", *operator.everything())
    assert "agent:  not installed: 1 host; `--install` installs it" in without.stdout.replace(
        "\u00a0", " "
    ), without
    assert not one.testinfra.package("hsm-agent").is_installed

    another_version(one, tmp_path / "older", "0.0.9")
    planned = operator.fleet("plan", *operator.everything(), "--install")
    assert planned.outcomes == {one.name: "drifted"}, planned
    first = operator.rollout("--install")
    assert (first.outcomes, first.changed) == ({one.name: "ok"}, {one.name: True}), first
    assert is_there(one)
    assert proven(one, scene)
    assert first.host(one.name)["report"]["host"]["agent"] == {"version": __version__, "daily_verify": True}
    assert one.run(["ls", "/var/cache/hsm-agent"]).stdout == ""

    second = operator.rollout("--install")
    assert (second.outcomes, second.changed) == ({one.name: "ok"}, {one.name: False}), second
    one.must(["systemctl", "disable", "-q", "--now", TIMER])
    assert operator.rollout("--install").changed == {one.name: True}
    assert is_there(one)
    # a roll-out that is not asked leaves it alone, and says that it is there
    shown = operator.run("rollout", *operator.everything()).stdout.replace("\u00a0", " ")
    assert f"agent:  {__version__}, daily verify on: 1 host" in shown
    assert is_there(one)

    inventory = ["--inventory", str(operator.home / "fleet.toml"), "--all"]
    planned = operator.fleet("remove", *inventory, "--with-agent", "--plan")
    assert planned.outcomes == {one.name: "drifted"}
    assert is_there(one)
    removed = operator.fleet("remove", *inventory, "--with-agent")
    assert (removed.exit_status, removed.changed) == (0, {one.name: True}), removed
    assert not one.testinfra.package("hsm-agent").is_installed
    assert not one.testinfra.package("cloudhsm-cli").is_installed
    assert one.run(["systemctl", "is-active", TIMER]).stdout.strip() == "inactive"
    assert one.run(["sh", "-c", "command -v hsm-agent"]).stdout == ""
    assert operator.fleet("remove", *inventory, "--with-agent").changed == {one.name: False}


def test_a_newer_agent_stays_and_that_is_said(operator: Operator, one: LabHost, tmp_path: Path) -> None:
    another_version(one, tmp_path / "newer", "9.0.0")
    one.put(f"/etc/systemd/system/{TIMER}", b"[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n")
    one.put("/etc/systemd/system/hsm-agent-verify.service", b"[Service]\nExecStart=/bin/true\n")
    ran = operator.rollout("--install")
    assert ran.outcomes == {one.name: "ok"}, ran
    steps = {step["id"]: step for step in ran.host(one.name)["report"]["steps"]}
    assert "which is newer and stays" in steps["agent"]["saw"]
    assert one.testinfra.package("hsm-agent").version.startswith("9.0.0")
    assert one.testinfra.service(TIMER).is_running


def test_a_lock_a_full_disk_and_a_kill_are_named_and_got_over(operator: Operator, one: LabHost) -> None:
    holder = hold(one, LOCKS[one.image.family])
    ran = operator.rollout("--install", "--timeout", "10s")
    release(holder)
    assert ran.codes == {one.name: "package-locked"}, ran

    one.mount_small("/usr/lib/hsm-agent", 200)
    ran = operator.rollout("--install")
    assert ran.codes == {one.name: "no-space"}, ran
    assert not one.testinfra.package("cloudhsm-cli").is_installed
    one.must(["umount", "/usr/lib/hsm-agent"])

    controller = operator.start("--install")
    begun = (
        "until [ -e /usr/lib/hsm-agent/agent ] || ls /usr/lib/hsm-agent/agent*; do :; done >/dev/null 2>&1"
    )
    one.must(["timeout", "60", "sh", "-c", begun])
    one.run(["sh", "-c", "pkill -KILL apt-get; pkill -KILL dpkg; pkill -KILL dnf; pkill -KILL -f hsm-agent$"])
    operator.ended(controller)
    until(lambda: one.run(["pgrep", "-x", "dpkg|rpm|dnf"]).returncode == 1, "the manager's end", 30)
    ran = operator.rollout("--install")
    assert ran.outcomes == {one.name: "ok"}, ran
    assert is_there(one)
    assert one.testinfra.file(STATE).exists
