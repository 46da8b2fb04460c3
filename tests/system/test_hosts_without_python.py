"""A roll-out to hosts without a Python of 3.9: the build with an interpreter goes there, and leaves what it should.

The interpreter in the build is the image's own here, moved: to compile one takes minutes. `packaging/README.md` says
what was seen with the compiled one.
"""

from __future__ import annotations

import io
import signal
import tarfile
from typing import TYPE_CHECKING

import pytest

from agent import __version__
from tests.building import release_of_this_run

from . import images
from .fleet import Operator
from .kernel import until
from .scene import ROWS, STATE, cluster, proven

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab
    from .scene import Scene

IMAGES = ["rhel8", "amzn2023"]
AWAY = "/usr/libexec/lab/python3"
TOP = f"hsm-agent-{__version__}-x86_64-linux-0123456789ab"
# RHEL 8's own, and what a version manager leaves: one that waits for its network
OLD = f'#!/bin/sh\ncase "$*" in *hsm-agent) echo 3.6.8 >&2; exit 1;; esac\nexec {AWAY} "$@"\n'.encode()
HANGING = b"#!/bin/sh\nexec sleep 1000\n"


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        for image in ROWS:
            made.package(image)
        yield made


@pytest.fixture(scope="module")
def build(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build for Linux: with the agent's module that names its version, and Debian 12's Python as `python/`."""
    root = images.BOOKWORM.path / "usr"
    path = tmp_path_factory.mktemp("linux") / f"{TOP}.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        version = f'__version__ = "{__version__}"\n'.encode()
        info = tarfile.TarInfo(f"{TOP}/agent/__init__.py")
        info.size = len(version)
        tar.addfile(info, io.BytesIO(version))
        tar.add(root / "bin" / "python3.11", f"{TOP}/python/bin/python3")
        for file in sorted((root / "lib" / "python3.11").rglob("*")):
            if file.is_file() and not file.is_symlink() and "__pycache__" not in file.parts:
                tar.add(file, f"{TOP}/python/lib/python3.11/{file.relative_to(root / 'lib' / 'python3.11')}")
    return path


@pytest.fixture
def operator(scene: Scene, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    scene.mode("normal")
    return Operator(scene, tmp_path / "home", release_of_this_run(tmp_path_factory, "--tree").archive)


def without_python(host: LabHost, python3: bytes = b"") -> LabHost:
    """Move a host's Python to where nobody looks for one; dnf and the vendor's stand-ins still find it."""
    host.must(["sh", "-c", f"mkdir -p {AWAY} && mv /usr/bin/python3* {AWAY}"])
    host.must(
        ["sh", "-c", f"mv {AWAY} {AWAY}.d && mv {AWAY}.d/python3.11 {AWAY} && ln -s {AWAY} /lab-python"]
    )
    host.must(
        [
            "sh",
            "-c",
            r"grep -lIE '^#! ?/usr/bin/python3' /usr/bin/* | xargs -r sed -i '1s,/usr/bin/python3,/lab-python,'",
        ]
    )
    if python3:
        host.put("/usr/bin/python3", python3, 0o755)
    return host


@pytest.fixture
def bare(operator: Operator, make_host: MakeHost) -> LabHost:
    host = without_python(make_host("rhel8"), OLD)
    operator.meet(host)
    operator.inventory()
    return host


def trees(host: LabHost) -> list[str]:
    return host.run(["ls", "-A", f"{STATE}/trees"]).stdout.split()


def test_hosts_without_python_are_brought_to_proven_and_left_alone_then(
    operator: Operator, scene: Scene, build: Path, make_host: MakeHost
) -> None:
    hosts = [without_python(make_host(IMAGES[0]), OLD), without_python(make_host(IMAGES[1]), OLD)]
    hosts.append(without_python(make_host("rhel8"), OLD))
    for host in hosts:
        host.put("/usr/local/bin/python3", HANGING, 0o755)
    hosts.append(make_host("ubuntu24.04"))
    operator.meet(*hosts)
    operator.inventory()

    refused = operator.rollout("--max-failed", "100%")
    assert list(refused.codes.values()) == ["python-missing", "python-missing", "python-missing", None], (
        refused
    )
    words = refused.host(hosts[0].name)
    assert f"--linux-tree hsm-agent-{__version__}-x86_64-linux-HASH.tar.gz" in words["hint"]
    assert "/usr/local/bin/python3: it did not start in 10 s" in words["saw"]
    assert "/usr/bin/python3: Python 3.6.8" in words["saw"]

    planned = operator.fleet("plan", *operator.everything(), "--linux-tree", str(build))
    assert list(planned.outcomes.values()) == ["drifted", "drifted", "drifted", "ok"], planned
    assert [trees(host) for host in hosts[:3]] == [[], [], []]
    assert (
        hosts[0].run(["sh", "-c", "ls -d /run/hsm-agent-* /var/tmp/hsm-agent-* /tmp/hsm-agent-*"]).stdout
        == ""
    )

    first = operator.rollout("--linux-tree", str(build))
    assert (first.exit_status, set(first.outcomes.values())) == (0, {"ok"}), first
    assert all(proven(host, scene) for host in hosts)
    assert [len(trees(host)) for host in hosts] == [2, 2, 2, 1]
    assert first.report["linux_trees"].keys() == {"x86_64"}
    before = hosts[0].must(["find", f"{STATE}/trees", "-newermt", "-1 day", "-printf", "%p %T@\n"])
    second = operator.rollout("--linux-tree", str(build))
    assert (second.exit_status, set(second.changed.values())) == (0, {False}), second
    assert hosts[0].must(["find", f"{STATE}/trees", "-newermt", "-1 day", "-printf", "%p %T@\n"]) == before


def test_an_interpreter_that_was_damaged_is_sent_again(
    operator: Operator, build: Path, bare: LabHost
) -> None:
    given = ("--linux-tree", str(build))
    assert operator.rollout(*given).exit_status == 0
    bare.must(["sh", "-c", f"truncate -s 100 {STATE}/trees/*/python/lib/python3.11/json/decoder.py"])
    assert operator.rollout(*given).outcomes == {bare.name: "ok"}
    bare.must(["sh", "-c", f"rm -r {STATE}/trees/*/python/bin"])
    assert operator.rollout(*given).outcomes == {bare.name: "ok"}


def test_a_disk_that_is_full_is_named_and_nothing_stays(
    operator: Operator, build: Path, bare: LabHost
) -> None:
    bare.must(["mkdir", "-p", "-m", "711", STATE])
    bare.mount_small(STATE, 6_000)
    ran = operator.rollout("--linux-tree", str(build))
    assert ran.codes == {bare.name: "no-space"}, ran
    assert "No space left on device" in ran.host(bare.name)["saw"]
    assert trees(bare) == []


def test_a_directory_that_others_can_write_to_is_not_run_from(
    operator: Operator, scene: Scene, build: Path, bare: LabHost
) -> None:
    bare.must(["mkdir", "-p", "-m", "777", f"{STATE}/trees/planted"])
    bare.must(["chmod", "777", STATE, f"{STATE}/trees"])
    ran = operator.rollout("--linux-tree", str(build))
    assert ran.outcomes == {bare.name: "ok"}, ran
    assert "planted" not in trees(bare)
    assert bare.testinfra.file(STATE).mode & 0o022 == 0
    assert bare.testinfra.file(f"{STATE}/trees").mode == 0o700


def test_a_run_that_is_cut_while_the_interpreter_travels_begins_again(
    operator: Operator, scene: Scene, build: Path, bare: LabHost
) -> None:
    bare.seat.run(
        [
            "tc",
            "qdisc",
            "add",
            "dev",
            "eth0",
            "root",
            "tbf",
            "rate",
            "20mbit",
            "burst",
            "16kb",
            "latency",
            "400ms",
        ]
    )
    controller = operator.start("--linux-tree", str(build))
    until(lambda: any(name.startswith(".new-") for name in trees(bare)), "a draft", 30)
    controller.send_signal(signal.SIGKILL)
    controller.communicate(timeout=30)
    ran = operator.rollout("--resume", operator.last_run().name, "--linux-tree", str(build))
    assert ran.outcomes == {bare.name: "ok"}, ran
    assert proven(bare, scene)
    until(lambda: not any(name.startswith(".new-") for name in trees(bare)), "no draft any more", 90)


def test_what_unpacks_it_must_be_there(operator: Operator, build: Path, bare: LabHost) -> None:
    bare.must(["mv", "/usr/bin/tar", "/usr/bin/tar.away"])
    ran = operator.rollout("--linux-tree", str(build))
    assert (ran.codes, "no tar" in ran.host(bare.name)["saw"]) == ({bare.name: "python-missing"}, True), ran
