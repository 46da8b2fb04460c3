"""SDK 3 on a host with a real systemd: its daemon in the vendor's order, its undo, and the way to SDK 5."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from .kernel import until
from .scene import CA, ETC, Ran, Scene, agent, cluster, misbehave, prepare, servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab

IMAGE = "rhel8+systemd"
UNIT = "cloudhsm-client"
VERSION = "3.4.4-1"
CLIENT, CMU = f"{ETC}/cloudhsm_client.cfg", f"{ETC}/cloudhsm_mgmt_util.cfg"
RUN = "/opt/cloudhsm/run"
CACHE = "/opt/cloudhsm/daemon/1/cluster.info"


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        for package in ("cloudhsm-client", "cloudhsm-client-pkcs11", "cloudhsm-mgmt-util"):
            made.package(IMAGE, package, VERSION)
        for package in ("cloudhsm-cli", "cloudhsm-pkcs11"):
            made.package(IMAGE, package)
        yield made


@pytest.fixture
def host(scene: Scene, make_host: MakeHost) -> Iterator[LabHost]:
    made = make_host(IMAGE, agent=True)
    prepare(made, scene)
    yield made
    scene.mode("normal")


def options(scene: Scene, *which: int, sdk: str | None = "3") -> list[str]:
    """Return what a run needs that knows only some of the HSMs; all of them when none is named."""
    argv = scene.options(IMAGE)
    for number, address in enumerate(scene.addresses):
        if which and number not in which:
            at = argv.index(address)
            del argv[at - 1 : at + 1]
    version = ["--client-version", "3.4.4"] if sdk == "3" else []
    return [*argv, *(("--sdk", sdk) if sdk else ()), *version]


def run(host: LabHost, scene: Scene, *more: str, which: tuple[int, ...] = ()) -> Ran:
    return agent(host, "configure", *options(scene, *which), *more)


def worked(host: LabHost, scene: Scene, *more: str, which: tuple[int, ...] = (0,)) -> None:
    """Bring a host to SDK 3, with the first HSM alone unless others are named."""
    done = run(host, scene, *more, which=which)
    assert (done.exit_status, done.report["outcome"]) == (0, "ok"), done


def show(host: LabHost, *names: str) -> list[str]:
    """Ask systemd itself."""
    return [host.must(["systemctl", "show", "--value", f"--property={name}", UNIT]).strip() for name in names]


def pid(host: LabHost) -> str:
    found = show(host, "MainPID")[0]
    assert found != "0"
    return found


def address(host: LabHost) -> str:
    found: str = json.loads(host.get(CLIENT))["server"]["hostname"]
    return found


def utility(host: LabHost) -> list[str]:
    return [each["hostname"] for each in json.loads(host.get(CMU))["servers"]]


def owner(host: LabHost, path: str) -> str:
    return host.must(["stat", "-c", "%U:%G %a", path]).strip()


def connects(host: LabHost) -> str:
    """Let SDK 3's own utility speak, as an operator would."""
    return host.must(["/opt/cloudhsm/bin/cloudhsm_mgmt_util", CMU], b"quit\n")


def words(host: LabHost) -> str:
    """Return what the daemon that runs now has said."""
    invocation = show(host, "InvocationID")[0]
    return host.must(["journalctl", "-o", "cat", "--no-pager", f"_SYSTEMD_INVOCATION_ID={invocation}"])


def changed(ran: Ran) -> list[str]:
    return [each["id"] for each in ran.report["steps"] if each["outcome"] == "changed"]


def running(host: LabHost) -> bool:
    return bool(host.testinfra.service(UNIT).is_running)


def test_from_bare_to_proven_and_nothing_to_do(scene: Scene, host: LabHost) -> None:
    planned = agent(host, "plan", *options(scene), "--component", "pkcs11")
    assert (planned.exit_status, planned.code) == (3, "drift"), planned
    assert not host.testinfra.file("/opt/cloudhsm").exists

    first = run(host, scene, "--component", "pkcs11")
    assert (first.exit_status, first.report["outcome"]) == (0, "ok"), first
    steps = ["package:cli", "package:pkcs11", "certificate", "configure:cli", "service"]
    assert changed(first) == steps
    assert [each["id"] for each in planned.report["steps"] if each["outcome"] == "would-change"] == steps
    assert "sdk3-end-of-support" in first.told
    assert "client-out-of-support" in first.told  # what is told is true of what the run left
    assert {(each["ip"], each["port"]) for each in first.report["hsms"]} == {
        (ip, port) for ip in scene.addresses for port in (2223, 2225)
    }

    for package in ("cloudhsm-client", "cloudhsm-client-pkcs11"):
        assert host.must(["rpm", "-q", package]).startswith(f"{package}-3.4.4-1.el8")
    service = host.testinfra.service(UNIT)
    assert (service.is_running, service.is_enabled) == (True, True)
    assert "libevmulti_init: Ready !" in words(host)
    assert (address(host), utility(host)) == (scene.addresses[0], [scene.addresses[0]])
    assert host.testinfra.file(CACHE).user == "hsmuser"
    assert "Connected to server" in connects(host)
    ca = host.testinfra.file(CA)
    assert (ca.user, ca.mode, ca.content) == ("root", 0o644, scene.made.ca.cert.read_bytes())

    daemon = pid(host)
    second = run(host, scene, "--component", "pkcs11")
    assert (second.exit_status, second.outcomes, second.report["changed"]) == (0, {"met"}, False), second
    assert "client-out-of-support" in second.told
    # it is SDK 3's own folder here, and its own user's
    assert "log-folder-owner" not in second.told
    assert agent(host, "verify").outcomes == {"met"}
    assert pid(host) == daemon

    host.reboot()
    assert (running(host), agent(host, "verify").outcomes) == (True, {"met"})


def test_another_hsm_restarts_the_daemon_without_its_old_cluster(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    host.must(["sh", "-c", f"echo 192.0.2.77 >>{CACHE}"])
    before = pid(host)
    moved = run(host, scene, which=(1,))
    assert (moved.exit_status, changed(moved)) == (0, ["configure:cli"]), moved
    assert (address(host), utility(host)) == (scene.addresses[1], [scene.addresses[1]])
    assert pid(host) != before
    assert "192.0.2.77" not in host.get(CACHE).decode()
    assert (running(host), "Ready !" in words(host)) == (True, True)


def test_the_daemon_is_given_an_address_that_answers(scene: Scene, host: LabHost) -> None:
    seat = scene.hsms[0]
    try:
        seat.faults.reset()
        done = run(host, scene)
        assert (done.exit_status, done.code) == (41, "hsm-degraded"), done
        assert address(host) == scene.addresses[1]
        assert "Ready !" in words(host)
    finally:
        seat.faults.clear()


def starts_with(host: LabHost, *lines: str) -> None:
    """Have systemd start the daemon in another way."""
    folder = f"/etc/systemd/system/{UNIT}.service.d"
    host.must(["mkdir", "-p", folder])
    host.put(f"{folder}/lab.conf", "\n".join(["[Service]", "ExecStart=", *lines, ""]).encode())
    host.must(["systemctl", "daemon-reload"])


DAEMON = f"/opt/cloudhsm/bin/cloudhsm_client {CLIENT}"


@pytest.mark.parametrize("seconds", [1, 3])
def test_a_daemon_that_crashes_in_a_loop_is_never_proven(scene: Scene, host: LabHost, seconds: int) -> None:
    loop = f"ExecStart=/bin/sh -c 'timeout {seconds} {DAEMON}; echo it fell over; exit 1'"
    starts_with(host, loop, "Restart=always", "RestartSec=200ms", "[Unit]", "StartLimitIntervalSec=0")
    for _ in range(3):
        failed = run(host, scene)
        assert (failed.exit_status, failed.code) == (50, "service-failed"), failed
    assert (
        "restarts repeatedly" in failed.step("client:daemon")["saw"]
        or failed.step("service")["outcome"] == "failed"
    )


def test_a_daemon_that_takes_its_time_is_waited_for(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    starts_with(host, f"ExecStart=/bin/sh -c 'sleep 15; exec {DAEMON}'")
    moved = run(host, scene, which=(1,))
    assert (moved.exit_status, moved.report["outcome"]) == (0, "ok"), moved
    assert address(host) == scene.addresses[1]


def test_what_is_told_of_a_daemon_that_fails_is_its_own(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    starts_with(host, "ExecStart=/bin/sh -c 'echo words of the new one; exit 1'")
    failed = run(host, scene, which=(1,))
    assert failed.exit_status != 0
    told = json.dumps(failed.report)
    assert "libevmulti_init" not in told
    assert "words of the new one" in told


def test_a_daemon_masked_by_hand_stays_masked_and_is_no_failed_undo(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    host.must(["systemctl", "stop", UNIT])
    host.must(["sh", "-c", f"rm -f /etc/systemd/system/{UNIT}.service && systemctl mask {UNIT}"])
    failed = run(host, scene, which=(1,))
    assert failed.exit_status in (50, 51), failed
    assert "rollback-failed" not in json.dumps(failed.report)
    assert show(host, "UnitFileState") == ["masked"]
    assert not running(host)
    assert address(host) == scene.addresses[0]


@pytest.mark.parametrize("verb", ["stop", "disable"])
def test_a_daemon_stopped_or_disabled_by_hand_is_drift_and_is_cured(
    scene: Scene, host: LabHost, verb: str
) -> None:
    worked(host, scene)
    host.must(["systemctl", verb, UNIT])
    seen = agent(host, "verify")
    assert (seen.exit_status, seen.outcome("service")) == (3, "would-change"), seen
    assert seen.step("service")["saw"] == {"stop": "inactive, enabled", "disable": "active, disabled"}[verb]
    before = show(host, "MainPID")
    cured = agent(host, "configure")
    assert (cured.exit_status, changed(cured)) == (0, ["service"]), cured
    service = host.testinfra.service(UNIT)
    assert (service.is_running, service.is_enabled) == (True, True)
    # what runs is not restarted just to be enabled
    assert (show(host, "MainPID") == before) is (verb == "disable")


def test_a_daemon_that_is_frozen_is_drift_and_is_cured(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    before = pid(host)
    host.must(["kill", "-STOP", before])
    seen = agent(host, "verify")
    assert (seen.exit_status, seen.step("service")["saw"]) == (3, "stopped by a signal, enabled"), seen
    cured = agent(host, "configure")
    assert (cured.exit_status, changed(cured)) == (0, ["service"]), cured
    assert pid(host) != before
    assert agent(host, "verify").exit_status == 0


def test_a_daemon_that_does_not_start_tells_its_own_reason(scene: Scene, host: LabHost) -> None:
    misbehave(host, "cloudhsm_client", "fail")
    done = run(host, scene)
    assert (done.exit_status, done.code) == (50, "service-failed"), done
    assert "cloudhsm_client: internal error" in done.step("service")["saw"]
    assert done.outcome("client:hsm-info") == "skipped"
    misbehave(host, "cloudhsm_client", None)
    cured = run(host, scene)
    assert (cured.exit_status, changed(cured), running(host)) == (0, ["service"], True), cured


def test_a_daemon_that_never_connects_is_not_taken_for_a_working_one(scene: Scene, host: LabHost) -> None:
    misbehave(host, "cloudhsm_client", "hang")
    done = run(host, scene)
    assert (done.exit_status, done.code, running(host)) == (50, "service-failed", True), done
    assert (done.outcome("client:hsm-info"), done.outcome("client:daemon")) == ("met", "failed")


def test_another_ca_restarts_the_daemon(scene: Scene, host: LabHost) -> None:
    host.put("/root/customerCA.crt", scene.made.other_ca.cert.read_bytes())
    wrong = run(host, scene)
    assert (wrong.exit_status, wrong.code) == (42, "client-failed"), wrong
    before = pid(host)
    host.put("/root/customerCA.crt", scene.made.ca.cert.read_bytes())
    right = run(host, scene, "--replace-ca")
    assert (right.exit_status, changed(right)) == (0, ["certificate", "service"]), right
    assert pid(host) != before
    assert "Ready !" in words(host)

    # whoever changed it, and whenever: the daemon has not read this one
    before = pid(host)
    host.put(CA, scene.made.ca.cert.read_bytes())
    seen = agent(host, "verify")
    assert (seen.exit_status, seen.outcome("certificate"), seen.outcome("service")) == (
        3,
        "met",
        "would-change",
    )
    assert f"started before {CA} changed" in seen.step("service")["saw"]
    assert (changed(agent(host, "configure")), pid(host) == before) == (["service"], False)
    assert agent(host, "verify").outcomes == {"met"}


@pytest.mark.parametrize(
    ("word", "code"),
    [("lie", "configure-not-applied"), ("wrong", "configure-not-applied"), ("half", "configure-failed")],
)
def test_a_configure_tool_that_fails_is_undone_with_the_daemon(
    scene: Scene, host: LabHost, word: str, code: str
) -> None:
    worked(host, scene)
    before = {path: (host.get(path), owner(host, path)) for path in (CLIENT, CMU, CA)}
    assert before[CLIENT][1].startswith("hsmuser:hsmuser")
    misbehave(host, "configure", word)
    done = run(host, scene, which=(1,))
    if word in ("lie", "half"):
        # nothing was changed, or what was left half was put back at once
        assert (done.exit_status, done.code) == (50, code), done
    else:
        assert (done.exit_status, done.code, done.report["cause"]) == (51, "rolled-back", code), done
        assert {each["id"] for each in done.report["steps"] if each["outcome"] == "undone"} == {
            "configure:cli",
            "service",
        }
        assert "previous-works" in done.told
        assert done.report["changed"] is False
    assert {path: (host.get(path), owner(host, path)) for path in before} == before
    assert (running(host), "Ready !" in words(host)) == (True, True)
    assert "Connected to server" in connects(host)


@pytest.mark.parametrize("word", ["fail-with-effect", "noisy"])
def test_a_configure_tool_is_believed_by_its_files(scene: Scene, host: LabHost, word: str) -> None:
    worked(host, scene)
    misbehave(host, "configure", word)
    done = run(host, scene, which=(1,))
    assert (done.exit_status, address(host), utility(host)) == (
        0,
        scene.addresses[1],
        [scene.addresses[1]],
    ), done


def test_a_run_that_ends_while_the_daemon_is_down_leaves_it_up(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    misbehave(host, "configure", "hang")
    done = run(host, scene, "--timeout", "20s", which=(1,))
    # the tool is ended, and named, before the run's own limit; it changed nothing, so there is nothing to undo
    assert (done.exit_status, done.code) == (50, "configure-failed"), done
    assert (address(host), running(host)) == (scene.addresses[0], True)


def test_killed_between_stop_and_start_the_next_run_completes(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    misbehave(host, "configure", "hang")
    process = host.start(["hsm-agent", "configure", *options(scene, 1), "--quiet"])
    until(lambda: called(host, "/opt/cloudhsm/bin/configure"), "the configure tool", 30)
    host.signal(process, signal.SIGKILL)
    process.wait(timeout=30)
    assert (running(host), address(host)) == (False, scene.addresses[0])
    misbehave(host, "configure", None)
    done = run(host, scene, which=(1,))
    assert (done.exit_status, address(host), running(host)) == (0, scene.addresses[1], True), done
    assert run(host, scene, which=(1,)).outcomes == {"met"}


def test_interrupted_while_the_daemon_starts_it_is_put_back(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    scene.mode("silent", 1)
    process = host.start(["hsm-agent", "configure", *options(scene, 1), "--output", "json", "--quiet"])
    until(lambda: address(host) == scene.addresses[1] and running(host), "the daemon of the new address", 30)
    host.signal(process, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    report = json.loads(out)
    assert (process.returncode, report["code"], report["cause"]) == (130, "interrupted", "interrupted"), (
        report
    )
    assert (address(host), running(host)) == (scene.addresses[0], True)
    until(lambda: "Ready !" in words(host), "the daemon of the old address")


def called(host: LabHost, program: str) -> bool:
    return host.run(["pgrep", "-f", f"{program} "]).returncode == 0


def test_rollback_starts_the_daemon_with_what_it_puts_back(scene: Scene, host: LabHost) -> None:
    worked(host, scene)
    assert run(host, scene, which=(1,)).exit_status == 0
    before = pid(host)
    back = agent(host, "rollback")
    assert (back.exit_status, back.outcome("service")) == (0, "undone"), back
    assert (address(host), utility(host)) == (scene.addresses[0], [scene.addresses[0]])
    assert (pid(host) != before, "Ready !" in words(host)) == (True, True)


def test_sdk_3_is_not_put_beside_sdk_5(scene: Scene, host: LabHost) -> None:
    assert agent(host, "configure", *options(scene, sdk=None)).exit_status == 0
    done = run(host, scene)
    assert (done.exit_status, done.code) == (22, "package-conflict"), done
    assert "hsm-agent remove" in done.report["failure"]["hint"]
    assert host.run(["rpm", "-q", "cloudhsm-client"]).returncode != 0


def test_sdk_5_replaces_sdk_3_when_it_is_said(scene: Scene, host: LabHost) -> None:
    worked(host, scene, "--component", "pkcs11", which=())
    host.must(["install", "-o", "hsmuser", "-g", "hsmuser", "/dev/null", f"{RUN}/cloudhsm_client.log"])
    daemon = pid(host)

    refused = agent(host, "configure", *options(scene, sdk=None))
    assert (refused.exit_status, refused.code) == (22, "package-conflict"), refused
    assert (pid(host), "--sdk 5" in refused.report["failure"]["hint"]) == (daemon, True)

    done = agent(host, "configure", *options(scene, sdk="5"))
    assert (done.exit_status, done.report["outcome"]) == (0, "ok"), done
    assert changed(done) == [
        "package:sdk3",
        "package:cli",
        "package:pkcs11",
        "configure:cli",
        "configure:pkcs11",
    ]
    # the trust anchor is the one that was there
    assert done.outcome("certificate") == "met"
    assert host.get(CA) == scene.made.ca.cert.read_bytes()
    assert host.must(["rpm", "-qa", "cloudhsm-*", "--qf", "%{NAME} "]).split() == [
        "cloudhsm-cli",
        "cloudhsm-pkcs11",
    ]
    assert show(host, "LoadState", "MainPID") == ["not-found", "0"]
    assert not host.testinfra.file(f"/proc/{daemon}").exists
    assert host.must(["/opt/cloudhsm/bin/cloudhsm-cli", "cluster", "hsm-info"]).count("serial-number") == 2
    assert [servers(host, each) for each in ("cli", "pkcs11")] == [list(scene.addresses)] * 2
    assert "client-leftovers" in done.told
    # rpm gives the folder to root when the new package holds it too; dpkg would leave it to the old user
    assert ("log-folder-owner" in done.told) is owner(host, RUN).startswith("hsmuser")
    host.must(["chown", "hsmuser:hsmuser", RUN])
    again = agent(host, "configure", *options(scene, sdk=None))
    assert (again.outcomes, "log-folder-owner" in again.told) == ({"met"}, True)
    assert not host.testinfra.file(f"/etc/systemd/system/multi-user.target.wants/{UNIT}.service").exists


def test_the_utility_on_its_own_is_sdk_3_as_well(scene: Scene, host: LabHost) -> None:
    file = next(each for each in scene.sums if "mgmt-util" in each)
    host.put(f"/root/{file}", (scene.folder / "mirror" / "EL8" / file).read_bytes())
    host.must(["dnf", "-y", "-q", "--disablerepo=*", "install", f"/root/{file}"])
    refused = agent(host, "configure", *options(scene, sdk=None))
    assert (refused.exit_status, refused.code) == (22, "package-conflict"), refused
    done = agent(host, "configure", *options(scene, sdk="5"))
    assert (done.exit_status, changed(done)[0]) == (0, "package:sdk3"), done


def test_remove_takes_the_daemon_off(scene: Scene, host: LabHost) -> None:
    worked(host, scene, "--component", "pkcs11")
    daemon = pid(host)
    done = agent(host, "remove")
    assert (done.exit_status, done.outcomes) == (0, {"changed"}), done
    assert host.run(["rpm", "-qa", "cloudhsm-*"]).stdout == ""
    assert show(host, "LoadState", "MainPID") == ["not-found", "0"]
    assert not host.testinfra.file(f"/proc/{daemon}").exists
    assert host.testinfra.file(CA).exists


def test_without_systemd_sdk_3_is_refused(scene: Scene, make_host: MakeHost) -> None:
    host = make_host("rhel8", agent=True)
    prepare(host, scene)
    done = run(host, scene)
    assert (done.exit_status, done.code) == (10, "platform-unsupported"), done
    assert not host.testinfra.file("/opt/cloudhsm").exists
