"""Our own packages, tree and units on real hosts: installed offline, run, upgraded, removed, purged."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.building import build, copied, release_of_this_run
from tests.system.installed import TIMER, VERIFY, ended, install, is_deb, last_report, show

from .agent_install import CHECKOUT
from .scene import CA, STATE, Scene, agent, cluster, prepare, servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab

IMAGES = ["ubuntu24.04+systemd", "amzn2023+systemd"]
APPLY = "hsm-agent-apply.service"
APPLY_TIMER = "hsm-agent-apply.timer"
CONFIGURATION = "/etc/hsm-agent/config.toml"
CLI_SETTINGS = "/opt/cloudhsm/etc/cloudhsm-cli.cfg"
EXPOSURE = 2.1


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of this checkout."""
    return release_of_this_run(tmp_path_factory).dist


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of the same source, one version later."""
    source = tmp_path_factory.mktemp("newer")
    copied(CHECKOUT, source)
    version = source / "agent" / "__init__.py"
    version.write_text(re.sub(r'(__version__ = )".*"', r'\1"9.0.0"', version.read_text()))
    changelog = source / "packaging" / "changelog"
    entry = changelog.read_text()
    changelog.write_text(re.sub(r"\(.*?\)", "(9.0.0)", entry, count=1) + "\n" + entry)
    return build(source, tmp_path_factory.mktemp("dist-newer"))


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        for image in IMAGES:
            for package in ("cloudhsm-cli", "cloudhsm-pkcs11"):
                made.package(image, package)
        yield made
        made.mode("normal")


@pytest.fixture(params=IMAGES)
def host(request: pytest.FixtureRequest, scene: Scene, make_host: MakeHost) -> LabHost:
    scene.mode("normal")
    made = make_host(request.param)
    prepare(made, scene)
    return made


def remove(host: LabHost) -> None:
    host.must(
        ["apt-get", "remove", "-y", "-q", "hsm-agent"]
        if is_deb(host)
        else ["dnf", "remove", "-y", "-q", "hsm-agent"]
    )


def configured(host: LabHost, scene: Scene) -> None:
    ran = agent(host, "configure", *scene.options(host.image.name), "--component", "pkcs11")
    assert (ran.exit_status, ran.report["outcome"]) == (0, "ok"), ran


def test_a_host_that_was_never_configured_is_skipped_and_not_failed(host: LabHost, built: Path) -> None:
    install(host, built)
    timer = host.testinfra.service(TIMER)
    assert (timer.is_enabled, timer.is_running) == (True, True)
    assert TIMER in host.must(["systemctl", "list-timers", "--no-legend", TIMER])
    for unit in (VERIFY, APPLY):
        host.must(["systemctl", "start", unit])
        assert show(host, unit, "ConditionResult", "ActiveState", "Result") == ("no", "inactive", "success")
    assert (
        host.testinfra.service(APPLY).is_enabled is False
        or "static" in host.run(["systemctl", "is-enabled", APPLY]).stdout
    )
    assert not host.testinfra.file(STATE).exists
    assert host.must(["systemctl", "is-system-running"]).strip() == "running"


def test_from_the_package_to_drift_found_and_removed(host: LabHost, scene: Scene, built: Path) -> None:
    install(host, built)
    configured(host, scene)
    assert host.testinfra.file(CA).content == scene.made.ca.cert.read_bytes()
    assert servers(host) == list(scene.addresses)

    # a program of somebody else that still has the library of before: its maps are read in the sandbox too
    library = host.must(["sh", "-c", "ls /opt/cloudhsm/lib/*pkcs11*.so"]).split()[0]
    loads = f"import ctypes, sys; ctypes.CDLL({library!r}); print('loaded', flush=True); sys.stdin.read()"
    program = host.start(["python3", "-c", loads], user="nobody")
    assert program.stdout is not None
    assert program.stdout.readline() == b"loaded\n"
    host.must(["touch", "-d", "+1 hour", "/opt/cloudhsm/etc/cloudhsm-pkcs11.cfg"])

    assert ended(host, VERIFY) == ("success", "0")
    seen = last_report(host)
    assert (seen["command"], seen["outcome"], seen["exit_status"]) == ("verify", "ok", 0)
    outside = agent(host, "verify").report
    same = ("client", "ca", "warnings", "restart_needed", "outcome")
    assert {name: seen[name] for name in same} == {name: outside[name] for name in same}
    assert seen["restart_needed"] != []
    assert host.testinfra.file(f"{STATE}/report.json").mode == 0o644
    lines = host.must(["journalctl", "-u", VERIFY, "-t", "hsm-agent", "--no-pager"])
    assert "verify ok exit=0" in lines

    # an HSM that breaks: the unit fails with the status that a person would have seen
    scene.mode("silent", 0)
    assert ended(host, VERIFY) == ("exit-code", "41")
    assert last_report(host)["code"] == "hsm-degraded"
    assert VERIFY in host.must(["systemctl", "--failed", "--no-legend"])
    scene.mode("normal")

    # drift: found by the one, removed by the other, which nothing starts by itself
    host.put(CLI_SETTINGS, host.get(CLI_SETTINGS).replace(scene.addresses[1].encode(), b"10.77.0.99"))
    assert ended(host, VERIFY) == ("exit-code", "3")
    assert servers(host) != list(scene.addresses)
    assert ended(host, APPLY) == ("success", "0")
    assert servers(host) == list(scene.addresses)
    assert ended(host, VERIFY) == ("success", "0")


def test_the_timer_starts_the_look(host: LabHost, scene: Scene, built: Path) -> None:
    install(host, built)
    configured(host, scene)
    before = last_report(host)["run_id"]
    sooner = b"[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nRandomizedDelaySec=0\nAccuracySec=100ms\n"
    host.put(f"/etc/systemd/system/{TIMER}.d/sooner.conf", sooner)
    host.must(["systemctl", "daemon-reload"])
    host.must(["systemctl", "restart", TIMER])
    host.must(["timeout", "30", "sh", "-c", f"while grep -q {before} {STATE}/report.json; do :; done"])
    assert last_report(host)["command"] == "verify"
    host.must(["systemctl", "stop", TIMER])


def test_drift_is_repaired_on_a_timer_once_that_is_enabled(host: LabHost, scene: Scene, built: Path) -> None:
    install(host, built)
    configured(host, scene)
    timer = host.testinfra.service(APPLY_TIMER)
    assert (timer.is_enabled, timer.is_running) == (False, False)
    host.put(CLI_SETTINGS, host.get(CLI_SETTINGS).replace(scene.addresses[1].encode(), b"10.77.0.99"))
    sooner = b"[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nRandomizedDelaySec=0\nAccuracySec=100ms\n"
    host.put(f"/etc/systemd/system/{APPLY_TIMER}.d/sooner.conf", sooner)
    host.must(["systemctl", "daemon-reload"])
    host.must(["systemctl", "enable", "-q", "--now", APPLY_TIMER])
    repaired = (
        f"while grep -q 10.77.0.99 {CLI_SETTINGS} || ! grep -q configure {STATE}/report.json; do :; done"
    )
    host.must(["timeout", "60", "sh", "-c", repaired])
    host.must(["systemctl", "stop", APPLY_TIMER])
    assert servers(host) == list(scene.addresses)


def test_the_sandbox_is_as_tight_as_the_manual_says(host: LabHost, built: Path) -> None:
    install(host, built)
    checked = host.run(["systemd-analyze", "verify", "--man=no", VERIFY, TIMER, APPLY, APPLY_TIMER])
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    told = host.must(["systemd-analyze", "security", "--no-pager", VERIFY])
    found = re.search(r"Overall exposure level.*?: (\d+\.\d+)", told)
    assert found is not None, told
    assert float(found[1]) <= EXPOSURE, told
    page = (CHECKOUT / "agent" / "docs" / "drift.md").read_text(encoding="utf-8")
    assert f"`systemd-analyze security` {EXPOSURE}" in " ".join(page.split())


def test_a_look_is_small_and_leaves_nothing_running(host: LabHost, scene: Scene, built: Path) -> None:
    install(host, built)
    configured(host, scene)
    measure = (
        "import resource, subprocess; subprocess.run(['hsm-agent', 'verify', '--quiet'], stdout=-3);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    assert int(host.must(["python3", "-c", measure])) < 50_000  # its seconds are measured in tests/bench
    assert host.run(["pgrep", "-f", "hsm-agent"]).stdout == ""


def test_a_unit_that_is_started_twice_runs_once(scene: Scene, make_host: MakeHost, built: Path) -> None:
    host = make_host(IMAGES[0])
    prepare(host, scene)
    scene.mode("normal")
    install(host, built)
    configured(host, scene)
    scene.mode("silent")  # each run now waits for an HSM that says nothing
    for unit in (VERIFY, APPLY):
        host.must(["systemctl", "start", "--no-block", unit])
        (first,) = show(host, unit, "InvocationID")
        host.must(["systemctl", "start", "--no-block", unit])
        assert show(host, unit, "ActiveState", "InvocationID") == ("activating", first)
    # by hand beside the unit: refused at once, and the unit goes on
    host.must(["timeout", "30", "sh", "-c", "until grep -q pid /run/hsm-agent.lock; do :; done"])
    beside = agent(host, "configure")
    assert (beside.exit_status, beside.code) == (11, "run-locked")
    assert "hsm-agent configure, run" in beside.report["failure"]["saw"]
    for unit in (VERIFY, APPLY):
        host.run(["systemctl", "start", unit], timeout=120)
        assert show(host, unit, "ExecMainStatus") == ("40",)
    scene.mode("normal")
    assert ended(host, VERIFY) == ("success", "0")


def test_an_upgrade_keeps_configuration_state_and_the_timer_as_they_are(
    host: LabHost, scene: Scene, built: Path, newer: Path
) -> None:
    install(host, built)
    configured(host, scene)
    edited = host.get(CONFIGURATION) + b"\n# ours\n"
    host.put(CONFIGURATION, edited)
    asked = host.get(f"{STATE}/desired.json")
    assert "0.1.0" in host.must(["hsm-agent", "--version"])

    # a look is at work while its files are exchanged: it waits for an HSM that says nothing
    scene.mode("silent")
    host.must(["systemctl", "start", "--no-block", VERIFY])
    assert show(host, VERIFY, "ActiveState") == ("activating",)
    install(host, newer)
    host.run(["systemctl", "start", VERIFY], timeout=120)  # joins the one that runs, or is one more
    assert show(host, VERIFY, "ExecMainStatus") == ("40",), host.must(["journalctl", "-u", VERIFY])
    scene.mode("normal")

    assert "9.0.0" in host.must(["hsm-agent", "--version"])
    assert host.get(CONFIGURATION) == edited
    assert host.get(f"{STATE}/desired.json") == asked
    timer = host.testinfra.service(TIMER)
    assert (timer.is_enabled, timer.is_running) == (True, True)
    assert ended(host, VERIFY) == ("success", "0")


def test_a_timer_that_was_disabled_stays_disabled(host: LabHost, built: Path, newer: Path) -> None:
    install(host, built)
    host.must(["systemctl", "disable", "-q", "--now", TIMER])
    install(host, newer)
    timer = host.testinfra.service(TIMER)
    assert timer.is_enabled is False
    assert timer.is_running is False


def test_removal_keeps_state_and_what_was_edited_and_it_comes_back(
    host: LabHost, scene: Scene, built: Path
) -> None:
    install(host, built)
    configured(host, scene)
    edited = host.get(CONFIGURATION) + b"\n# ours\n"
    host.put(CONFIGURATION, edited)
    before = everything(host)
    agent(host, "verify")
    remove(host)
    for gone in ("/usr/bin/hsm-agent", "/usr/lib/hsm-agent"):
        assert not host.testinfra.file(gone).exists
    assert host.run(["systemctl", "is-active", TIMER]).stdout.strip() == "inactive"
    assert host.testinfra.file(f"{STATE}/desired.json").exists
    kept = CONFIGURATION if is_deb(host) else f"{CONFIGURATION}.rpmsave"
    assert host.get(kept) == edited
    assert host.testinfra.file(CA).exists
    assert host.must(["/opt/cloudhsm/bin/cloudhsm-cli", "cluster", "hsm-info"]).count("serial-number") == 2
    assert host.must(["systemctl", "is-system-running"]).strip() == "running"

    install(host, built)
    assert agent(host, "verify").exit_status == 0
    assert host.testinfra.service(TIMER).is_running
    assert before - everything(host) == set()


def test_purge_takes_everything_of_ours_and_nothing_of_the_vendors(
    scene: Scene, make_host: MakeHost, built: Path
) -> None:
    host = make_host(IMAGES[0])
    prepare(host, scene)
    scene.mode("normal")
    before = everything(host)
    install(host, built)
    configured(host, scene)
    assert ended(host, VERIFY) == ("success", "0")
    host.must(["apt-get", "purge", "-y", "-q", "hsm-agent"])
    left = {path for path in everything(host) - before if "hsm-agent" in path}
    assert left == {"/root/hsm-agent_0.1.0_all.deb"}
    assert host.testinfra.file(CA).exists
    assert host.testinfra.package("cloudhsm-cli").is_installed


def everything(host: LabHost) -> set[str]:
    return set(host.must(["find", "/", "-xdev", "-path", "/proc", "-prune", "-o", "-print"]).splitlines())


@pytest.mark.parametrize(
    ("image", "status"), [("bullseye", 10), ("ubuntu22.04", 0), ("ubuntu24.04", 0), ("rhel9", 0)]
)
def test_one_tree_runs_on_every_python(make_host: MakeHost, built: Path, image: str, status: int) -> None:
    host = make_host(image)
    archive = next(built.glob("hsm-agent-[0-9]*.tar.gz"))
    host.must(["tar", "-xz", "-C", "/opt"], archive.read_bytes())
    tree = f"/opt/{archive.name.removesuffix('.tar.gz')}"
    shown = host.run([f"{tree}/hsm-agent", "--version"], user="nobody")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "hsm-agent 0.1.0\n", "")
    facts = host.run([f"{tree}/hsm-agent", "facts", "--output", "json"], user="nobody")
    assert (facts.returncode, json.loads(facts.stdout)["refusal"] is None) == (status, status == 0), facts
    asked = ["user-data", "--hsm-ip", "10.0.1.6", "--format", "cloud-config"]
    printed = host.run([f"{tree}/hsm-agent", *asked], user="nobody")
    assert (printed.returncode, printed.stdout.startswith("#cloud-config\n")) == (0, True), printed.stderr
    # what only some runs load: downloads, the look at programs, a terminal's progress, and TOML on old Pythons
    loads = (
        "import sys; sys.path.insert(0, sys.argv[1]); import requests, psutil, agent.config.readers;"
        "from agent.render.progress import SpinnerProgress; progress = SpinnerProgress(sys.stderr);"
        "progress.began('reach', changing=False); progress.downloaded(1, 2); progress.close();"
        "found = [each.__file__ for each in (requests, psutil, psutil._psplatform.cext)];"
        "print(psutil.Process().name(), all(each.startswith(sys.argv[1]) for each in found))"
    )
    done = host.run(["python3", "-I", "-c", loads, tree])
    assert (done.returncode, done.stdout) == (0, "python3 True\n"), done.stderr


def test_the_package_installs_on_the_oldest_debian(make_host: MakeHost, built: Path) -> None:
    host = make_host("bullseye")
    install(host, built)
    assert host.must(["hsm-agent", "--version"]) == "hsm-agent 0.1.0\n"
    differing = host.run(["dpkg", "--verify", "hsm-agent"]).stdout.splitlines()
    # the lab's disks go without manual pages and documents
    assert [
        line for line in differing if "/usr/share/man/" not in line and "/usr/share/doc/" not in line
    ] == []
    remove(host)
    assert not host.testinfra.file("/usr/lib/hsm-agent").exists


def test_the_demo_runs_from_the_package(make_host: MakeHost, built: Path) -> None:
    host = make_host("ubuntu24.04")
    install(host, built)
    done = host.run(["hsm-agent", "demo"], timeout=180)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_lintian_and_rpmlint_have_nothing_to_say(lab: Lab, built: Path) -> None:
    lintian = ["lintian", "--allow-root", "--fail-on", "error,warning", str(next(built.glob("*.deb")))]
    filters = str(CHECKOUT / "packaging" / "redhat" / "rpmlint.toml")
    rpmlint = ["rpmlint", "--config", filters, str(next(built.glob("*.rpm")))]
    for argv in (lintian, rpmlint):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "0 errors, 0 warnings" in done.stdout
