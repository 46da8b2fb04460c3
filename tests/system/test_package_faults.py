"""Faults of mirrors, package managers and disks: each by its code, nothing half done, and cured by the same command."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from agent.demo import mirror, packages
from agent.demo.package_contents import HOLD

from .kernel import tool, until
from .scene import _PATH, CA, ROWS, STATE, Ran, Scene, agent, cluster, hold, prepare, read, release, servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab

DEB, RPM = "ubuntu24.04", "amzn2023"
OLD_APT = "ubuntu22.04"
CLI, PKCS11 = "cloudhsm-cli", "cloudhsm-pkcs11"
VENDORS = (CLI, PKCS11, "cloudhsm-client", "cloudhsm-client-pkcs11", "cloudhsm-jce", "cloudhsm-dyn")
CACHE = "/var/cache/hsm-agent"
OLD, NEW = "5.17.2-1", "5.18.0-1"
HTTPS_PORT = 8443
# a lock is waited for over most of a run's time; what is left of this is enough for the other steps on a slow machine
FOR_EVER = "30s"
both = pytest.mark.parametrize("image", [DEB, RPM])
debs = pytest.mark.parametrize("image", [DEB, OLD_APT])
deb = pytest.mark.parametrize("image", [DEB])
rpm = pytest.mark.parametrize("image", [RPM])


@pytest.fixture(scope="module")
def good(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        for image in (DEB, OLD_APT, RPM):
            for package in (CLI, PKCS11):
                made.package(image, package)
        shutil.copytree(made.folder / "mirror", made.folder / "kept")
        made.folder.joinpath("sums.json").write_text(json.dumps(made.sums))
        yield made


@pytest.fixture
def scene(good: Scene) -> Scene:
    """The cluster with a mirror in which all is well."""
    mend(good)
    return good


def mend(scene: Scene) -> None:
    scene.mirror_faults()
    shutil.copytree(scene.folder / "kept", scene.folder / "mirror", dirs_exist_ok=True)
    scene.sums.clear()
    scene.sums.update(json.loads(scene.folder.joinpath("sums.json").read_text()))


def bare(image: str) -> str:
    return image.partition("+")[0]


@dataclass(frozen=True)
class Stage:
    """A host, the scene around it, and the command that is repeated until it completes."""

    scene: Scene
    host: LabHost
    image: str

    @property
    def is_deb(self) -> bool:
        return ROWS[bare(self.image)][2].endswith(".deb")

    def argv(self, *more: str) -> list[str]:
        return ["configure", *self.scene.options(self.image), *more]

    def configure(self, *more: str) -> Ran:
        return agent(self.host, *self.argv(*more))

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        return self.host.start(["hsm-agent", *self.argv(*more), "--output", "json", "--quiet"])

    def file(self, package: str = CLI, version: str = NEW) -> str:
        return package + ROWS[bare(self.image)][2].format(version=version)

    def installed(self) -> dict[str, str]:
        """Return package -> state and version, asked of the manager's own database."""
        query = (
            ["dpkg-query", "-W", "-f=${Package} ${db:Status-Abbrev}${Version}\n", *VENDORS]
            if self.is_deb
            else ["rpm", "-qa", "--qf", "%{NAME} ii %{VERSION}-%{RELEASE}\n", *VENDORS]
        )
        rows = [line.split(" ", 1) for line in self.host.run(query).stdout.splitlines()]
        return {name: said.partition(".amzn")[0] for name, said in rows if "n " not in said[:3]}

    def whole(self) -> bool:
        """Tell whether the manager itself finds nothing unfinished."""
        if self.is_deb:
            return (
                self.host.must(["dpkg", "--audit"]) == ""
                and self.host.run(["apt-get", "check"]).returncode == 0
            )
        return self.host.run(["dnf", "-q", "check"]).returncode == 0

    def cached(self) -> list[str]:
        return (
            list(self.host.testinfra.file(CACHE).listdir()) if self.host.testinfra.file(CACHE).exists else []
        )

    def untouched(self) -> None:
        assert self.installed() == {}
        assert self.whole()
        assert not self.host.testinfra.file("/opt/cloudhsm").exists

    def cured(self, *more: str, version: str = NEW) -> Ran:
        """The same command completes, and the one after it has nothing to do."""
        again = self.configure(*more)
        assert (again.exit_status, again.code) == (0, None), again
        assert self.installed()[CLI].split() == ["ii", version]
        assert self.whole()
        assert servers(self.host) == list(self.scene.addresses)
        assert self.cached() == []
        second = self.configure(*more)
        assert (second.exit_status, second.outcomes, second.report["changed"]) == (0, {"met"}, False), second
        return again


@pytest.fixture
def stage(scene: Scene, make_host: MakeHost, image: str) -> Stage:
    host = make_host(image, agent=True)
    prepare(host, scene)
    return Stage(scene, host, image)


def failed(
    ran: Ran, code: str, exit_status: int, *, step: str = "package:cli", saw: str = "", hint: str = ""
) -> None:
    assert (ran.code, ran.exit_status) == (code, exit_status), [
        each for each in ran.report["steps"] if each["code"]
    ]
    line = ran.step(step)
    assert (line["outcome"], line["code"]) == ("failed", code), line
    assert saw in line["saw"], line
    assert hint in line["hint"], line


# ---- mirrors


@pytest.mark.parametrize(
    ("image", "fault", "code", "exit_status", "saw", "hint"),
    [
        (DEB, "404", "package-not-found", 20, "HTTP 404", "mirror"),
        (RPM, "403", "package-not-found", 20, "HTTP 403", "pin a version"),
        (DEB, "wrong-bytes", "checksum-mismatch", 21, "sha256:", "do not install it"),
        (RPM, "html", "checksum-mismatch", 21, "sha256:", "do not install it"),
        (DEB, "redirect-loop", "download-failed", 20, "redirects", "curl -I http://10.77.0.1:8080/"),
    ],
)
def test_what_a_mirror_does_wrong_is_named_and_nothing_is_left(
    stage: Stage, fault: str, code: str, exit_status: int, saw: str, hint: str
) -> None:
    stage.scene.mirror_faults(_=fault)
    ran = stage.configure()
    failed(ran, code, exit_status, saw=saw, hint=hint)
    assert ran.step("package:cli")["url"].endswith(stage.file())
    assert stage.cached() == []
    stage.untouched()
    stage.scene.mirror_faults()
    stage.cured()


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (DEB, "500*1"),
        (RPM, "500*1"),
        (DEB, "truncate*1"),
        (RPM, "reset*1"),
        (DEB, "no-length"),
        (RPM, "no-range"),
    ],
)
def test_what_passes_is_tried_again(stage: Stage, fault: str) -> None:
    stage.scene.mirror_faults(_=fault)
    stage.cured()


@deb
def test_a_server_that_stays_broken_is_given_up(stage: Stage) -> None:
    stage.scene.mirror_faults(_="500")
    failed(stage.configure("--timeout", "2m"), "download-failed", 20, saw="HTTP 500", hint=stage.file())
    stage.untouched()
    stage.scene.mirror_faults()
    stage.cured()


@rpm
def test_a_mirror_that_stalls_costs_no_more_than_the_limit_and_what_came_is_resumed(stage: Stage) -> None:
    stage.scene.mirror_faults(_="stall")
    ran = stage.configure("--timeout", "15s")
    failed(ran, "timed-out", 75, saw=stage.file(), hint="--timeout")
    assert sorted(stage.cached()) == [f"{stage.file()}.part", f"{stage.file()}.part.from"]
    stage.untouched()
    stage.scene.mirror_faults()
    stage.cured()
    resumed = mirror.requests_seen(stage.scene.folder / "log")[-1]
    assert (resumed["status"], str(resumed["range"]).startswith("bytes=")) == (206, True)


@deb
def test_a_mirror_that_is_not_there(stage: Stage) -> None:
    refused = stage.configure("--package-source", "http://10.77.0.1:8099", "--timeout", "2m")
    failed(refused, "download-failed", 20, saw="refused", hint="curl -I http://10.77.0.1:8099/Noble/")
    unknown = stage.configure("--package-source", "http://mirror.example.invalid", "--timeout", "2m")
    failed(unknown, "download-failed", 20, saw="DNS: mirror.example.invalid cannot be resolved")
    stage.untouched()
    stage.cured()


@deb
def test_a_redirect_out_of_https_is_not_followed(stage: Stage, tmp_path: Path) -> None:
    scene, operator = stage.scene, stage.scene.lab.operator
    cert, key = tmp_path / "mirror.crt", tmp_path / "mirror.key"
    asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mirror", "-days", "2"]
    asked += ["-addext", f"subjectAltName=IP:{operator.ip}", "-out", str(cert), "-keyout", str(key)]
    tool(asked)
    switch = tmp_path / "switch.json"
    mirror.set_faults(switch, {"*": "redirect-to-http"})
    made = mirror.Mirror(scene.folder / "mirror", switch, operator.ip, HTTPS_PORT, cert, key)
    server = operator.start(["python3", "-m", "agent.demo.mirror", *made.arguments()], [HTTPS_PORT], _PATH)
    try:
        stage.host.put("/root/mirrorCA.crt", cert.read_bytes())
        trusting = {"SSL_CERT_FILE": "/root/mirrorCA.crt"}
        ran = agent(stage.host, *stage.argv("--package-source", made.url(HTTPS_PORT)), env=trusting)
        failed(ran, "download-failed", 20, saw=f"redirected from {made.url(HTTPS_PORT)}/Noble/")
        stage.untouched()
    finally:
        server.terminate()
        server.wait()
    stage.cured()


@pytest.mark.parametrize(("image", "prefix"), [(DEB, "file://"), (RPM, "")])
def test_a_folder_is_a_mirror_too(stage: Stage, prefix: str) -> None:
    folder, directory = "/srv/mirror", ROWS[bare(stage.image)][1]
    source = ("--package-source", prefix + folder)
    failed(stage.configure(*source), "package-not-found", 20, saw="no such file", hint="mirror")
    data = (stage.scene.folder / "mirror" / directory / stage.file()).read_bytes()
    stage.host.put(f"{folder}/{directory}/{stage.file()}", data[:-1])
    failed(stage.configure(*source), "checksum-mismatch", 21)
    stage.untouched()
    stage.host.put(f"{folder}/{directory}/{stage.file()}", data)
    stage.cured(*source)
    assert stage.host.testinfra.file(f"{folder}/{directory}/{stage.file()}").exists


# ---- checksums


@both
def test_a_version_without_a_checksum_is_refused_until_one_is_given(stage: Stage) -> None:
    scene = stage.scene
    scene.package(stage.image, version="5.17.1-1")
    digest = scene.sums.pop(stage.file(version="5.17.1-1"))
    pinned = ("--client-version", "5.17.1")
    refused = stage.configure(*pinned)
    file = stage.file(version="5.17.1-1")
    failed(refused, "checksum-unknown", 21, saw="none given", hint=f"--sha256 {file}=HASH")
    assert mirror.requests_seen(scene.folder / "log")[-1]["path"] != f"/{ROWS[bare(stage.image)][1]}/{file}"
    stage.untouched()
    cured = stage.cured(*pinned, "--sha256", f"{file}={digest}", version="5.17.1-1")
    assert cured.report["client"]["verified_by"] == "caller-sha256"


@both
def test_latest_comes_from_a_proven_place_and_is_said_to_be_unverified(stage: Stage) -> None:
    directory = ROWS[bare(stage.image)][1]
    latest = stage.file().replace("_5.18.0-1_", "_latest_").replace("-5.18.0-1.", "-latest.")
    data = (stage.scene.folder / "mirror" / directory / stage.file()).read_bytes()
    (stage.scene.folder / "mirror" / directory / latest).write_bytes(data)
    refused = stage.configure("--client-version", "latest")
    failed(refused, "checksum-unknown", 21, saw="http:, and no checksum", hint=f"--sha256 {latest}=HASH")
    stage.untouched()
    stage.host.put(f"/srv/mirror/{directory}/{latest}", data)
    ran = stage.cured("--client-version", "latest", "--package-source", "/srv/mirror")
    assert (ran.report["client"]["verified_by"], "client-unverified" in ran.told) == ("unverified", True)
    assert ran.step("package:cli")["sha256"] is None
    digest = stage.scene.sums[stage.file()]
    verified = stage.configure("--client-version", "latest", "--sha256", f"{latest}={digest}")
    assert verified.report["client"]["verified_by"] == "caller-sha256"
    assert "client-unverified" not in verified.told


# ---- locks

LOCKS = [
    (DEB, "/var/lib/dpkg/lock-frontend"),
    (DEB, "/var/lib/dpkg/lock"),
    (DEB, "/var/cache/apt/archives/lock"),
    (RPM, "/var/lib/rpm/.rpm.lock"),
]


def finish(process: subprocess.Popen[bytes]) -> Ran:
    out, err = process.communicate(timeout=60)
    return read(subprocess.CompletedProcess([], process.returncode, out.decode(), err.decode()))


@pytest.mark.parametrize(("image", "path"), LOCKS)
def test_a_lock_that_is_held_for_a_while_is_waited_for(stage: Stage, path: str) -> None:
    holder = hold(stage.host, path)
    going = stage.start()
    # the download is there: from now on it waits for the lock
    until(lambda: stage.cached() == [stage.file()], "the download", 20)
    assert not stage.host.testinfra.process.filter(comm="apt-get")
    assert going.poll() is None
    release(holder)
    ran = finish(going)
    assert (ran.exit_status, ran.outcome("package:cli")) == (0, "changed"), ran
    stage.cured()


@pytest.mark.parametrize(("image", "path"), LOCKS)
def test_a_lock_that_is_held_for_ever_names_its_holder(stage: Stage, path: str) -> None:
    holder = hold(stage.host, path)
    pid = stage.host.must(["pgrep", "-f", f"lockf.*{path}|{path}$"]).split()[-1]
    ran = stage.configure("--timeout", FOR_EVER)
    failed(ran, "package-locked", 22, saw=f"python3 (pid {pid}) holds {path}, still after", hint="--timeout")
    assert stage.cached() == [stage.file()]
    release(holder)
    stage.untouched()
    stage.cured()


def held_up(stage: Stage) -> subprocess.Popen[bytes]:
    """Have the installation under way wait in the package's own script; give what lets it go on when closed."""
    gate = stage.host.start(["sh", "-c", f"exec 9>{HOLD}; echo in; read _"])
    assert gate.stdout is not None
    assert gate.stdout.readline() == b"in\n"
    return gate


def make_slow(stage: Stage, version: str = NEW) -> None:
    stage.scene.package(stage.image, version=version, fault="slow-postinst")
    stage.host.must(["sh", "-c", f"mkdir -p {HOLD.rpartition('/')[0]}; rm -f {HOLD}; mkfifo {HOLD}"])


@both
def test_a_real_manager_at_work_is_waited_for(stage: Stage) -> None:
    """dnf against dnf and apt-get against apt-get: another administrator installs something slow."""
    make_slow(stage)
    other = stage.scene.folder / "mirror" / ROWS[bare(stage.image)][1] / stage.file()
    stage.host.put(f"/root/{stage.file()}", other.read_bytes())
    manager = "apt-get" if stage.is_deb else "dnf"
    theirs = stage.host.start([manager, "install", "-y", "-q", f"/root/{stage.file()}"])
    gate = held_up(stage)
    ran = stage.configure("--component", "pkcs11", "--timeout", FOR_EVER)
    step = "package:cli" if stage.is_deb else "package:pkcs11"  # rpm counts the other as there already
    failed(ran, "package-locked", 22, step=step, saw=f"{manager} (pid ")
    going = stage.start("--component", "pkcs11")
    if stage.is_deb:  # what the other manager has half installed is completed, and needs no file
        until(
            lambda: "hsm-agent configure" in stage.host.get("/run/hsm-agent.lock").decode(),
            "the next run",
            60,
        )
    else:
        until(lambda: stage.file(PKCS11) in stage.cached(), "the download", 60)
    stage.host.must(["rm", HOLD])
    release(gate)
    theirs.communicate(timeout=30)
    assert theirs.returncode == 0
    assert finish(going).exit_status == 0
    stage.cured("--component", "pkcs11")


# ---- what is killed in the middle


def kill_all(stage: Stage, going: subprocess.Popen[bytes], *, manager: bool) -> None:
    stage.host.signal(going, signal.SIGKILL)
    going.wait()
    if manager:
        stage.host.must(["sh", "-c", "pkill -9 apt-get; pkill -9 -x dnf; pkill -9 dpkg; true"])


@pytest.mark.parametrize("image", [DEB, OLD_APT, RPM])
@pytest.mark.parametrize("manager", [True, False], ids=["manager-killed-too", "manager-goes-on"])
def test_killed_during_the_installation(stage: Stage, manager: bool) -> None:
    make_slow(stage)
    going = stage.start()
    gate = held_up(stage)
    kill_all(stage, going, manager=manager)
    if manager:
        release(gate)
    else:
        again = stage.start()
        until(lambda: "hsm-agent configure" in stage.host.get("/run/hsm-agent.lock").decode(), "the next run")
    stage.host.must(["rm", HOLD])
    if manager:
        assert (
            stage.whole() is not stage.is_deb
        )  # rpm's database counts a package before its last script has run
    else:
        release(gate)
        ran = finish(again)
        assert ran.exit_status == 0, ran
    stage.cured()


@both
def test_killed_during_an_upgrade(stage: Stage) -> None:
    make_slow(stage)
    stage.scene.package(stage.image, version=OLD)
    assert stage.configure("--client-version", "5.17.2").exit_status == 0
    going = stage.start("--client-version", "5.18.0")
    gate = held_up(stage)
    kill_all(stage, going, manager=True)
    release(gate)
    stage.host.must(["rm", HOLD])
    if not stage.is_deb:
        assert len(stage.host.must(["rpm", "-q", CLI]).split()) == 2
        look = agent(stage.host, "plan", *stage.argv("--client-version", "5.18.0")[1:])
        assert "installed twice" in look.step("package:cli")["saw"]
    stage.cured("--client-version", "5.18.0")


HALVES = [
    (DEB, "install ok unpacked"),
    (OLD_APT, "install ok half-configured"),
    (DEB, "install ok half-installed"),
    (DEB, "install reinstreq half-installed"),
    (OLD_APT, "install reinstreq half-installed"),
    (OLD_APT, "install reinstreq unpacked"),
]


@pytest.mark.parametrize(("image", "state"), HALVES)
def test_a_package_that_is_half_there_is_completed(stage: Stage, state: str) -> None:
    stage.cured()
    change = f"/^Package: {CLI}$/,/^$/s/^Status: .*/Status: {state}/"
    stage.host.must(["sed", "-i", change, "/var/lib/dpkg/status"])
    drift = agent(stage.host, "verify")
    assert (drift.code, drift.exit_status) == ("drift", 3)
    assert state.split(" ", 1)[1].replace("ok ", "") in drift.step("package:cli")["saw"]
    assert stage.cured().outcome("package:cli") == "changed"


# ---- packages that are wrong


@debs
def test_a_script_that_fails_is_told_and_the_mended_package_takes_its_place(stage: Stage) -> None:
    stage.scene.package(stage.image, fault="broken-postinst")
    ran = stage.configure()
    failed(ran, "package-failed", 22, saw="post-installation script", hint=f"{CACHE}/{stage.file()}` by hand")
    assert stage.cached() == [stage.file()]
    assert stage.installed()[CLI].startswith("iF")
    mend(stage.scene)
    stage.cured()


@both
def test_a_package_that_refuses_leaves_nothing(stage: Stage) -> None:
    stage.scene.package(stage.image, fault="broken-preinst")
    ran = stage.configure()
    saw = "pre-installation script" if stage.is_deb else "Error in PREIN scriptlet"
    failed(ran, "package-failed", 22, saw=saw, hint=f"{CACHE}/{stage.file()}` by hand")
    assert CLI not in stage.installed()
    assert stage.whole()
    mend(stage.scene)
    stage.cured()


@both
def test_the_second_of_two_packages_fails(stage: Stage) -> None:
    stage.scene.package(stage.image, PKCS11, fault="broken-preinst")
    ran = stage.configure("--component", "pkcs11")
    failed(ran, "package-failed", 22, step="package:pkcs11")
    assert ran.outcome("package:cli") == "changed"
    assert ran.outcome("configure:pkcs11") == "skipped"
    assert list(stage.installed()) == [CLI]
    mend(stage.scene)
    stage.cured("--component", "pkcs11")
    assert stage.installed()[PKCS11] == f"ii {NEW}"


@both
def test_an_unmet_dependency_is_named_and_nothing_is_installed(stage: Stage) -> None:
    stage.scene.package(stage.image, fault="unmet-dependency")
    ran = stage.configure()
    failed(ran, "package-failed", 22, saw="libc6 (>= 99)" if stage.is_deb else "nothing provides glibc >= 99")
    if not stage.is_deb:
        assert "and with the repositories:" in ran.step("package:cli")["saw"]
    stage.untouched()
    mend(stage.scene)
    stage.cured()


@debs
def test_stale_package_lists_are_refreshed_once(stage: Stage, tmp_path: Path) -> None:
    """The package needs another that only a fresh list knows of."""
    (tmp_path / "tree" / "DEBIAN").mkdir(parents=True)
    control = "Package: libc6-extra\nVersion: 1\nArchitecture: all\nMaintainer: lab\nDescription: needed\n"
    (tmp_path / "tree" / "DEBIAN" / "control").write_text(control)
    stage.host.must(["mkdir", "-p", "/srv/repo", "/root/tree/DEBIAN"])
    stage.host.put("/root/tree/DEBIAN/control", control.encode())
    stage.host.must(["dpkg-deb", "-b", "/root/tree", "/srv/repo/libc6-extra_1_all.deb"])
    size = stage.host.must(["stat", "-c", "%s", "/srv/repo/libc6-extra_1_all.deb"]).strip()
    digest = stage.host.must(["sha256sum", "/srv/repo/libc6-extra_1_all.deb"]).split()[0]
    listed = f"{control}Filename: ./libc6-extra_1_all.deb\nSize: {size}\nSHA256: {digest}\n"
    stage.host.put("/srv/repo/Packages", listed.encode())
    stage.host.must(
        ["sh", "-c", "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/*"]
    )
    stage.host.put("/etc/apt/sources.list.d/lab.list", b"deb [trusted=yes] file:/srv/repo ./\n")
    needy(stage, "libc6-extra")
    ran = stage.cured()
    assert ran.outcome("package:cli") == "changed"
    assert stage.host.testinfra.package("libc6-extra").is_installed


def needy(stage: Stage, dependency: str) -> None:
    """Put into the mirror a package that also needs another one."""
    path = stage.scene.folder / "mirror" / ROWS[bare(stage.image)][1] / stage.file()
    stage.host.put("/root/needy.deb", path.read_bytes())
    stage.host.must(["dpkg-deb", "-R", "/root/needy.deb", "/root/needy"])
    stage.host.must(["sed", "-i", f"s/^Depends: /Depends: {dependency}, /", "/root/needy/DEBIAN/control"])
    stage.host.must(["dpkg-deb", "-b", "/root/needy", "/root/needy.deb"])
    path.write_bytes(stage.host.get("/root/needy.deb"))
    stage.scene.sums[stage.file()] = stage.host.must(["sha256sum", "/root/needy.deb"]).split()[0]


@debs
def test_another_package_that_is_broken_is_not_ours_to_fail_for(stage: Stage) -> None:
    control = "Package: theirs\nVersion: 1\nArchitecture: all\nMaintainer: lab\nDescription: broken\n"
    stage.host.put("/root/theirs/DEBIAN/control", control.encode())
    stage.host.put("/root/theirs/DEBIAN/postinst", b"#!/bin/sh\nexit 1\n", 0o755)
    stage.host.must(["dpkg-deb", "-b", "/root/theirs", "/root/theirs.deb"])
    assert stage.host.run(["dpkg", "-i", "/root/theirs.deb"]).returncode == 1
    ran = stage.configure()
    assert (ran.exit_status, ran.outcome("package:cli")) == (0, "changed"), ran
    assert stage.installed() == {CLI: f"ii {NEW}"}
    assert stage.configure().outcomes == {"met"}


@debs
def test_a_package_on_hold_is_whole_and_is_not_changed_against_it(stage: Stage) -> None:
    stage.scene.package(stage.image, version=OLD)
    stage.cured("--client-version", "5.17.2", version=OLD)
    stage.host.must(["apt-mark", "hold", CLI])
    assert stage.configure("--client-version", "5.17.2").outcomes == {"met"}
    ran = stage.configure("--client-version", "5.18.0")
    failed(ran, "package-failed", 22, saw="Held packages were changed")
    assert stage.installed() == {CLI: f"hi {OLD}"}
    assert servers(stage.host) == list(stage.scene.addresses)
    stage.host.must(["apt-mark", "unhold", CLI])
    stage.cured("--client-version", "5.18.0")


@both
def test_a_downgrade_is_refused_before_anything_is_touched(stage: Stage) -> None:
    stage.cured()
    stage.scene.package(stage.image, version=OLD)
    before = len(mirror.requests_seen(stage.scene.folder / "log"))
    ran = stage.configure("--client-version", "5.17.2")
    failed(ran, "package-downgrade", 22, saw=NEW, hint="hsm-agent remove")
    assert len(mirror.requests_seen(stage.scene.folder / "log")) == before
    assert stage.installed() == {CLI: f"ii {NEW}"}
    stage.cured()


@both
def test_a_package_taken_off_by_hand_is_drift_and_comes_back(stage: Stage) -> None:
    stage.cured()
    stage.host.must(["dpkg", "-r", CLI] if stage.is_deb else ["rpm", "-e", CLI])
    drift = agent(stage.host, "verify")
    assert (drift.code, drift.exit_status, drift.outcome("package:cli")) == ("drift", 3, "would-change")
    assert drift.step("package:cli")["saw"] == "absent"
    again = stage.cured()
    assert (again.outcome("package:cli"), again.outcome("configure:cli")) == ("changed", "changed")


@both
def test_a_damaged_package_database_is_told_and_not_touched(stage: Stage) -> None:
    database = "/var/lib/dpkg/status" if stage.is_deb else "/var/lib/rpm/rpmdb.sqlite"
    stage.host.must(["cp", "-a", database, "/root/database"])
    stage.host.must(["sh", "-c", f"echo garbage >{database}; rm -f {database}-shm {database}-wal"])
    ran = stage.configure()
    assert (ran.code, ran.exit_status) == ("package-failed", 22)
    stage.host.must(["cp", "-a", "/root/database", database])
    stage.untouched()
    stage.cured()


# ---- what is not the vendor's, and what worked before

NEIGHBOURS = (("cloudhsm-exporter", "1.0"), ("cloudhsm-cli-extra", "5.8.0"), ("cloudhsm-ksp", "3.4.4"))


def foreign(stage: Stage, name: str, version: str) -> None:
    """Make and install a package of the site's own; of an rpm another version may be there already."""
    if stage.is_deb:
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n"
        stage.host.put(f"/root/{name}/DEBIAN/control", control.encode())
        stage.host.put(f"/root/{name}/srv/{name}-{version}", b"theirs")
        stage.host.must(["dpkg-deb", "-b", f"/root/{name}", f"/root/{name}.deb"])
        stage.host.must(["dpkg", "-i", f"/root/{name}.deb"])
        return
    spec = (
        f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\n"
        f"%description\nx\n%install\nmkdir -p %{{buildroot}}/srv\necho theirs >%{{buildroot}}/srv/{name}-{version}\n"
        f"%files\n/srv/{name}-{version}\n"
    )
    stage.host.put("/root/p.spec", spec.encode())
    stage.host.must(["rpmbuild", "-bb", "--quiet", "--define", "_topdir /root/rpm", "/root/p.spec"])
    stage.host.must(["rpm", "-i", f"/root/rpm/RPMS/noarch/{name}-{version}-1.noarch.rpm"])


def theirs(stage: Stage) -> tuple[str, str, str]:
    """Return the site's packages, files and services as the host itself shows them."""
    names = "|".join(name for name, _ in NEIGHBOURS)
    query = (
        "dpkg-query -W -f '${Package} ${Version} ${Status}\\n'"
        if stage.is_deb
        else "rpm -qa --qf '%{NAME} %{VERSION}\\n'"
    )
    listed = stage.host.must(["sh", "-c", f"{query} | grep -E '^({names}) ' | sort"])
    files = stage.host.must(
        ["sh", "-c", "find /srv /opt/exporter /opt/cloudhsm/plugins -type f -exec sha256sum {} + | sort"]
    )
    unit = stage.host.must(
        ["cat", "/etc/systemd/system/cloudhsm-exporter.service", "/var/cache/hsm-agent/notes"]
    )
    return listed, files, unit


@both
def test_what_was_not_asked_about_stays(stage: Stage) -> None:
    """Over a first run, an upgrade, a rollback and a removal, with a site's own packages and files planted."""
    for name, version in NEIGHBOURS:
        foreign(stage, name, version)
    if not stage.is_deb:
        foreign(stage, NEIGHBOURS[0][0], "2.0")
    for path in (
        "/opt/exporter/cloudhsm-exporter",
        "/opt/cloudhsm/plugins/own.so",
        "/etc/systemd/system/cloudhsm-exporter.service",
        "/var/cache/hsm-agent/notes",
    ):
        stage.host.put(path, b"theirs")
    before = theirs(stage)
    stage.scene.package(stage.image, version=OLD)
    first = stage.configure("--client-version", "5.17.2")
    assert (first.exit_status, theirs(stage)) == (0, before), first
    assert [
        each for each in first.report["warnings"] if any(name in each["text"] for name, _ in NEIGHBOURS)
    ] == []
    upgraded = stage.configure("--client-version", "5.18.0")
    assert (upgraded.exit_status, theirs(stage)) == (0, before), upgraded
    facts = json.loads(stage.host.must(["hsm-agent", "facts", "--output", "json"]))
    assert list(facts["installed"]) == [CLI]
    assert agent(stage.host, "rollback").exit_status == 0
    assert theirs(stage) == before
    removed = agent(stage.host, "remove")
    assert (removed.exit_status, [each["id"] for each in removed.report["steps"]]) == (0, ["package:cli"]), (
        removed
    )
    assert theirs(stage) == before


def answering(stage: Stage) -> int:
    """Return how many HSMs answer the vendor's client, asked past the agent."""
    said = stage.host.run(["/opt/cloudhsm/bin/cloudhsm-cli", "cluster", "hsm-info"]).stdout
    return said.count("serial-number")


@debs
def test_an_upgrade_that_cannot_succeed_leaves_what_worked_however_often(stage: Stage) -> None:
    stage.scene.package(stage.image, version=OLD)
    stage.cured("--client-version", "5.17.2", version=OLD)
    works = answering(stage)
    assert works == 2
    stage.scene.package(stage.image, fault="broken-postinst")
    for _ in range(4):
        ran = stage.configure("--client-version", "5.18.0")
        assert (ran.code, ran.exit_status) == ("rolled-back", 51), ran
        assert "previous-works" in ran.told
        assert answering(stage) == works
    # nor does a run in which no version is named
    assert agent(stage.host, "verify").exit_status != 0
    assert stage.configure().exit_status == 51
    assert answering(stage) == works
    back = agent(stage.host, "rollback")
    assert (back.exit_status, answering(stage)) == (0, works), back
    mend(stage.scene)
    stage.cured("--client-version", "5.18.0")


@rpm
def test_a_script_that_rpm_lets_fail_is_told(stage: Stage) -> None:
    stage.scene.package(stage.image, fault="broken-postinst")
    ran = stage.configure()
    assert (ran.exit_status, ran.outcome("package:cli")) == (0, "changed"), ran
    (told,) = (each["text"] for each in ran.report["warnings"] if each["code"] == "package-script-failed")
    assert CLI in told
    assert answering(stage) == 2


@pytest.mark.parametrize(
    ("image", "state"),
    [
        (DEB, "install ok half-configured"),
        (OLD_APT, "install ok unpacked"),
        (DEB, "install ok half-installed"),
        (DEB, "install reinstreq half-installed"),
    ],
)
def test_what_is_not_whole_is_completed_at_its_version(stage: Stage, state: str) -> None:
    stage.scene.package(stage.image, version=OLD)
    stage.cured("--client-version", "5.17.2", version=OLD)
    change = f"/^Package: {CLI}$/,/^$/s/^Status: .*/Status: {state}/"
    stage.host.must(["sed", "-i", change, "/var/lib/dpkg/status"])
    ran = stage.configure()
    assert (ran.exit_status, ran.outcome("package:cli")) == (0, "changed"), ran
    assert stage.installed() == {CLI: f"ii {OLD}"}
    assert answering(stage) == 2
    stage.host.must(["sed", "-i", change, "/var/lib/dpkg/status"])
    removed = agent(stage.host, "remove")
    assert (removed.exit_status, stage.installed()) == (0, {}), removed


@rpm
def test_two_versions_of_ours_are_one_again_and_no_upgrade(stage: Stage) -> None:
    for version in ("5.17.1-1", OLD):
        stage.scene.package(stage.image, version=version)
    stage.cured("--client-version", "5.17.1", version="5.17.1-1")
    put_beside(stage, OLD)
    ran = stage.configure()
    assert (ran.exit_status, stage.installed()) == (0, {CLI: f"ii {OLD}"}), ran
    assert answering(stage) == 2
    put_beside(stage, "5.17.1-1")
    removed = agent(stage.host, "remove")
    assert (removed.exit_status, stage.installed()) == (0, {}), removed


def put_beside(stage: Stage, version: str) -> None:
    """Have the database know two versions, as a killed upgrade leaves it."""
    path = f"/root/{stage.file(version=version)}"
    directory = ROWS[bare(stage.image)][1]
    stage.host.put(
        path, (stage.scene.folder / "mirror" / directory / stage.file(version=version)).read_bytes()
    )
    stage.host.must(["rpm", "-i", "--force", "--justdb", path])


# ---- disks


@both
def test_no_room_for_the_download(stage: Stage) -> None:
    stage.scene.package(stage.image, padding_mb=3)
    stage.host.mount_small(CACHE, 512)
    failed(stage.configure(), "no-space", 11, saw=f"512 kB free at {CACHE}")
    stage.host.must(["mount", "-o", "remount,size=2048k", CACHE])
    failed(
        stage.configure(),
        "no-space",
        11,
        saw=f"{CACHE}/{stage.file()}.part: No space left",
        hint="free the space",
    )
    assert stage.cached() == []
    stage.untouched()
    stage.host.must(["mount", "-o", "remount,size=10240k", CACHE])
    stage.cured()


@both
def test_no_room_in_opt(stage: Stage) -> None:
    stage.scene.package(stage.image, padding_mb=6)
    stage.host.mount_small("/opt", 512)
    failed(stage.configure(), "no-space", 11, saw="512 kB free at /opt/cloudhsm")
    stage.host.must(["mount", "-o", "remount,size=4096k", "/opt"])
    saw = "'/opt/cloudhsm/lib/" if stage.is_deb else "more space needed on the /opt filesystem"
    failed(stage.configure(), "no-space", 11, saw=saw, hint="free the space")
    assert CLI not in stage.installed()
    assert stage.whole()
    assert stage.host.testinfra.file("/opt").listdir() == []
    stage.host.must(["mount", "-o", "remount,size=20480k", "/opt"])
    stage.cured()


@both
def test_no_room_for_the_package_database(stage: Stage) -> None:
    place = "/var/lib/dpkg" if stage.is_deb else "/var/lib/rpm"
    stage.host.must(["cp", "-a", place, "/root/database"])
    stage.host.mount_small(place, 40960)
    stage.host.must(["cp", "-a", "/root/database/.", place])
    fill = f"dd if=/dev/zero of={place}/fill bs=1k count=$(($(df -k --output=avail {place} | tail -1) - 20))"
    stage.host.must(["sh", "-c", fill])
    failed(stage.configure(), "no-space", 11, saw=f"free at {place}")
    stage.untouched()
    stage.host.must(["rm", f"{place}/fill"])
    stage.cured()


@pytest.mark.parametrize(("image", "place"), [(DEB, "/opt"), (RPM, "/opt"), (RPM, "/var/cache")])
def test_a_read_only_place_is_refused_before_anything_is_touched(stage: Stage, place: str) -> None:
    stage.host.must(["mkdir", "-p", place])
    stage.host.remount_ro(place)
    before = len(mirror.requests_seen(stage.scene.folder / "log"))
    failed(stage.configure(), "read-only", 11, saw="is read-only", hint="remount")
    assert len(mirror.requests_seen(stage.scene.folder / "log")) == before
    assert stage.installed() == {}
    stage.host.remount_rw(place)
    stage.cured()


@both
def test_a_file_system_without_inodes_is_full_on_either_kind(stage: Stage) -> None:
    """None at all is seen before; too few the manager finds, each in other words."""
    for inodes in (3, 6):
        stage.host.must(["mount", "-t", "tmpfs", "-o", f"size=20m,nr_inodes={inodes}", "few", "/opt"])
        ran = stage.configure()
        failed(ran, "no-space", 11, hint="df -i" if inodes == 3 else "free the space")
        assert "by hand" not in ran.step("package:cli")["hint"]
        assert CLI not in stage.installed()
        stage.host.must(["umount", "/opt"])
    stage.cured()


@both
def test_a_place_from_which_nothing_may_run_is_named_before_anything_is_touched(stage: Stage) -> None:
    stage.host.must(["mount", "--bind", "/opt", "/opt"])
    stage.host.must(["mount", "-o", "remount,bind,noexec", "/opt"])
    failed(stage.configure(), "no-exec", 11, saw="noexec", hint="remount,exec")
    stage.untouched()
    stage.host.must(["mount", "-o", "remount,bind,exec", "/opt"])
    stage.cured()
    stage.host.must(["mount", "-o", "remount,bind,noexec", "/opt"])
    ran = agent(stage.host, "verify")
    assert (ran.code, ran.exit_status) == ("no-exec", 11), ran
    stage.host.must(["mount", "-o", "remount,bind,exec", "/opt"])


# ---- what the site set up


@pytest.mark.parametrize(
    ("image", "setting", "hint"),
    [
        (RPM, "excludepkgs=cloudhsm*", "excludepkgs"),
        (RPM, "exclude=cloudhsm-cli", "excludepkgs"),
        (RPM, "localpkg_gpgcheck=1", "localpkg_gpgcheck"),
    ],
)
def test_what_dnf_is_set_up_to_refuse_is_named_by_its_setting(stage: Stage, setting: str, hint: str) -> None:
    stage.host.must(["sh", "-c", f"echo '{setting}' >>/etc/dnf/dnf.conf"])
    ran = stage.configure()
    failed(ran, "package-failed", 22, hint=hint)
    assert "by hand" not in ran.step("package:cli")["hint"]
    stage.untouched()
    stage.host.must(["sed", "-i", f"/^{setting.partition('=')[0]}=/d", "/etc/dnf/dnf.conf"])
    stage.cured()


@pytest.mark.parametrize(
    ("image", "setting"), [(RPM, "strict=0"), (RPM, "skip_broken=1"), (RPM, "strict=False\nskip_broken=True")]
)
def test_where_dnf_is_set_up_to_leave_out_what_lacks_something_it_is_named(
    stage: Stage, setting: str
) -> None:
    stage.host.must(["sh", "-c", f"echo '{setting}' >>/etc/dnf/dnf.conf"])
    stage.scene.package(stage.image, fault="unmet-dependency")
    ran = stage.configure()
    failed(ran, "package-failed", 22, saw="nothing provides glibc >= 99")
    assert "and with the repositories:" in ran.step("package:cli")["saw"]
    stage.untouched()
    mend(stage.scene)
    stage.cured()


@debs
def test_where_apt_is_set_up_to_take_along_what_nothing_needs_it_installs_and_that_stays(
    stage: Stage,
) -> None:
    control = "Package: theirs\nVersion: 1\nArchitecture: all\nMaintainer: lab\nDescription: x\n"
    stage.host.put("/root/theirs/DEBIAN/control", control.encode())
    stage.host.must(["dpkg-deb", "-b", "/root/theirs", "/root/theirs.deb"])
    stage.host.must(["dpkg", "-i", "/root/theirs.deb"])
    stage.host.must(["apt-mark", "auto", "theirs"])
    stage.host.put("/etc/apt/apt.conf.d/99site", b'APT::Get::AutomaticRemove "true";\n')
    stage.cured()
    assert stage.host.testinfra.package("theirs").is_installed


@rpm
def test_microdnf_alone_is_told_what_to_install(stage: Stage) -> None:
    stage.host.must(["sh", "-c", "mv /usr/bin/dnf /usr/bin/microdnf; rm -f /usr/bin/yum"])
    ran = stage.configure()
    assert (ran.code, ran.exit_status) == ("platform-unsupported", 10), ran
    assert "microdnf install" in ran.report["failure"]["hint"], ran


@deb
def test_a_row_of_other_packages_is_not_recommended_to_whoever_named_it(stage: Stage) -> None:
    ran = stage.configure("--platform", "el9")
    assert (ran.code, ran.exit_status) == ("platform-unsupported", 10), ran
    hint = ran.report["failure"]["hint"]
    assert ("el9" in hint, "u24.04" in hint) == (False, True), hint


@both
@pytest.mark.parametrize("version", [NEW, OLD])
def test_a_package_whose_files_are_gone_is_installed_again_at_its_version(stage: Stage, version: str) -> None:
    number = version.partition("-")[0]
    stage.scene.package(stage.image, version=version)
    stage.cured("--client-version", number, version=version)
    for path in ("/opt/cloudhsm/bin/cloudhsm-cli", "/opt/cloudhsm/bin"):
        stage.host.must(["rm", "-r", path])
        drift = agent(stage.host, "verify")
        assert (drift.exit_status != 0, drift.outcome("package:cli")) == (True, "would-change"), drift
        assert "/opt/cloudhsm/bin/" in drift.step("package:cli")["saw"]
        again = stage.configure()
        assert (again.exit_status, again.outcome("package:cli")) == (0, "changed"), again
        assert stage.installed()[CLI].split() == ["ii", version]
        assert answering(stage) == 2
    assert stage.configure().outcomes == {"met"}


@both
def test_a_package_whose_programs_cannot_run_is_installed_again(stage: Stage) -> None:
    stage.cured()
    tool = "/opt/cloudhsm/bin/configure-cli"
    spoilt = [f": >{tool}", f"chmod 0644 {tool}"]
    # rpm puts no file where a folder is, and says so
    spoilt += [f"rm {tool} && mkdir {tool}", f"rm /var/lib/dpkg/info/{CLI}.list"] if stage.is_deb else []
    for how in spoilt:
        stage.host.must(["sh", "-c", how])
        drift = agent(stage.host, "verify")
        assert (drift.exit_status, drift.outcome("package:cli")) == (3, "would-change"), (how, drift)
        again = stage.configure()
        assert (again.exit_status, again.outcome("package:cli")) == (0, "changed"), (how, again)
        assert answering(stage) == 2
        assert stage.host.testinfra.file(tool).mode == 0o755
    assert stage.configure().outcomes == {"met"}


# ---- SDK 3 is there

SDK3 = ("cloudhsm-client", "cloudhsm-client-pkcs11")


@pytest.fixture
def sdk3(stage: Stage) -> Stage:
    """A host that was set up with SDK 3 and its CA, by hand."""
    row, directory, _ = ROWS[bare(stage.image)]
    files = []
    for package in SDK3:
        ending = f"_3.4.4-1_{row}_amd64.deb" if stage.is_deb else f"-3.4.4-1.{row}.x86_64.rpm"
        packages.build(stage.scene.folder / "mirror", f"{directory}/{package}{ending}", package, "3.4.4-1")
        files.append(f"/root/{package}{ending}")
        stage.host.put(
            files[-1], (stage.scene.folder / "mirror" / directory / (package + ending)).read_bytes()
        )
    stage.host.must(["apt-get" if stage.is_deb else "dnf", "install", "-y", "-q", *files])
    stage.host.put(CA, stage.scene.made.ca.cert.read_bytes())
    assert tuple(stage.installed()) == SDK3
    return stage


@both
def test_sdk_3_is_not_replaced_unasked(sdk3: Stage) -> None:
    ran = sdk3.configure()
    assert (ran.code, ran.exit_status, ran.report["steps"]) == ("package-conflict", 22, [])
    assert "--sdk 5" in ran.report["failure"]["hint"] if "failure" in ran.report else True
    assert tuple(sdk3.installed()) == SDK3
    assert sdk3.cached() == []


@both
def test_sdk_3_stays_whole_when_the_mirror_lacks_what_follows(sdk3: Stage) -> None:
    sdk3.scene.mirror_faults(_pkcs11_="404")
    ran = sdk3.configure("--sdk", "5")
    failed(ran, "package-not-found", 20, step="package:sdk3", saw="HTTP 404")
    assert tuple(sdk3.installed()) == SDK3
    assert sdk3.whole()
    assert sdk3.host.testinfra.file("/opt/cloudhsm/bin/cloudhsm_client").exists
    sdk3.scene.mirror_faults()
    sdk3.cured("--sdk", "5")
    assert sdk3.installed()[PKCS11] == f"ii {NEW}"


@pytest.mark.parametrize("image", [DEB + "+systemd", RPM])
def test_sdk_3_is_replaced_in_the_vendors_order(sdk3: Stage) -> None:
    sdk3.cured("--sdk", "5")
    assert sdk3.installed() == {CLI: f"ii {NEW}", PKCS11: f"ii {NEW}"}
    if sdk3.is_deb:
        log = sdk3.host.get("/var/log/dpkg.log").decode()
        words = [line.split()[2:4] for line in log.splitlines()]
        removed = [package.partition(":")[0] for verb, package in words if verb == "remove"]
        assert not sdk3.host.testinfra.service("cloudhsm-client").is_running
    else:
        log = sdk3.host.get("/var/log/dnf.rpm.log").decode()
        removed = [
            line.split("Erase: ")[1].rpartition("-3.4.4")[0]
            for line in log.splitlines()
            if "SUBDEBUG Erase:" in line
        ]
    assert removed == ["cloudhsm-client-pkcs11", "cloudhsm-client"]
    assert sdk3.host.testinfra.file(CA).content == sdk3.scene.made.ca.cert.read_bytes()
    saved = [json.loads(sdk3.host.get(f"{STATE}/snapshots/{name}")) for name in snapshots(sdk3.host)]
    assert sdk3.scene.made.ca.cert.read_bytes() in [kept(each, CA) for each in saved]


def snapshots(host: LabHost) -> Sequence[str]:
    names: list[str] = host.testinfra.file(f"{STATE}/snapshots").listdir()
    return names


def kept(snapshot: Any, path: str) -> bytes:
    return b"".join(base64.b64decode(each["data"]) for each in snapshot["files"] if each["path"] == path)


@both
def test_what_sdk_3_had_is_not_forgotten_when_the_run_fails_in_between(sdk3: Stage) -> None:
    sdk3.scene.package(sdk3.image, fault="broken-preinst")
    failed(sdk3.configure("--sdk", "5"), "package-failed", 22)
    assert not set(SDK3) & set(sdk3.installed())
    mend(sdk3.scene)
    sdk3.cured("--sdk", "5")
    assert sdk3.installed() == {CLI: f"ii {NEW}", PKCS11: f"ii {NEW}"}


@deb
def test_apt_takes_nothing_else_off(stage: Stage) -> None:
    control = (
        f"Package: theirs\nVersion: 1\nArchitecture: all\nMaintainer: lab\nConflicts: {CLI}\nDescription: x\n"
    )
    stage.host.put("/root/theirs/DEBIAN/control", control.encode())
    stage.host.must(["dpkg-deb", "-b", "/root/theirs", "/root/theirs.deb"])
    stage.host.must(["dpkg", "-i", "/root/theirs.deb"])
    failed(stage.configure(), "package-failed", 22, hint="by hand")
    assert stage.host.testinfra.package("theirs").is_installed
    stage.untouched()
    stage.host.must(["dpkg", "-r", "theirs"])
    stage.cured()


@both
def test_sdk_3_is_not_taken_off_under_a_package_that_needs_it(sdk3: Stage) -> None:
    if sdk3.is_deb:
        control = "Package: theirs\nVersion: 1\nArchitecture: all\nMaintainer: x\nDepends: cloudhsm-client\nDescription: x\n"
        sdk3.host.put("/root/theirs/DEBIAN/control", control.encode())
        sdk3.host.must(["sh", "-c", "dpkg-deb -b /root/theirs /root/theirs.deb && dpkg -i /root/theirs.deb"])
    else:
        spec = "Name: theirs\nVersion: 1\nRelease: 1\nSummary: x\nLicense: x\nBuildArch: noarch\nAutoReqProv: no\n"
        sdk3.host.put(
            "/root/theirs.spec", f"{spec}Requires: cloudhsm-client\n%description\nx\n%files\n".encode()
        )
        build = "rpmbuild -bb --quiet --define '_topdir /root/rpm' /root/theirs.spec"
        sdk3.host.must(["sh", "-c", f"{build} && rpm -i /root/rpm/RPMS/noarch/theirs-1-1.noarch.rpm"])
    ran = sdk3.configure("--sdk", "5")
    failed(ran, "package-failed", 22, step="package:sdk3", saw="theirs", hint="by hand")
    assert sdk3.host.testinfra.package("theirs").is_installed
    assert sdk3.installed()["cloudhsm-client"] == "ii 3.4.4-1"
    assert sdk3.whole()
    sdk3.host.must(["dpkg", "-r", "theirs"] if sdk3.is_deb else ["rpm", "-e", "theirs"])
    sdk3.cured("--sdk", "5")
    assert sdk3.installed() == {CLI: f"ii {NEW}", PKCS11: f"ii {NEW}"}


# ---- a host at its limits


@both
def test_a_host_that_can_start_no_program_is_not_told_as_a_fault_of_the_manager(stage: Stage) -> None:
    stage.cured()
    stage.host.must(["mv", "/dev/null", "/dev/away"])
    ran = agent(stage.host, "verify")
    stage.host.must(["mv", "/dev/away", "/dev/null"])
    assert (ran.code, ran.exit_status) == ("no-resources", 11), ran
    assert "/dev/null" in ran.report["failure"]["saw"], ran
