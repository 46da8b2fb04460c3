"""A run that is killed, interrupted or fails: each file is the old or the new one, and what comes next completes.

A run is held at a moment, without a clock, by what it waits for: a FIFO where a stand-in tool looks for its misbehaviour, a
package's script that reads one, or a mirror that does not answer.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from agent.demo import mirror, package_contents

from .kernel import until
from .scene import CA, ETC, STATE, Ran, Scene, agent, cluster, misbehave, prepare, servers, settings

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab

IMAGE = "ubuntu22.04"
FILES = (CA, f"{ETC}/cloudhsm-cli.cfg", f"{ETC}/cloudhsm-pkcs11.cfg")
RECORDS = (f"{STATE}/desired.json", f"{STATE}/report.json")


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        made.package(IMAGE, "cloudhsm-cli", fault="slow-postinst")
        made.package(IMAGE, "cloudhsm-pkcs11", fault="slow-postinst")
        yield made


@pytest.fixture
def bare(scene: Scene, make_host: MakeHost) -> LabHost:
    made = make_host(IMAGE, agent=True)
    prepare(made, scene)
    return made


@pytest.fixture(scope="module")
def working(scene: Scene, make_shared_host: MakeHost, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk of a host that works: one first run serves all tests that begin after it."""
    made = make_shared_host(IMAGE, agent=True)
    prepare(made, scene)
    assert agent(made, "configure", *wanted(scene)).exit_status == 0
    return made.copy_disk(tmp_path_factory.mktemp("working"))


@pytest.fixture
def host(make_host: MakeHost, working: Path) -> LabHost:
    """A host that works."""
    return make_host(IMAGE, agent=True, disk_copy=working)


def wanted(scene: Scene) -> list[str]:
    return [*scene.options(IMAGE), "--component", "pkcs11"]


def changed(scene: Scene) -> list[str]:
    """Another run, which touches the CA and both configurations, and works too."""
    scene.mode("other-ca")
    return [*wanted(scene), "--ca-cert", "/root/otherCA.crt", "--replace-ca", "--log-level", "warn"]


@pytest.fixture(autouse=True)
def in_order(scene: Scene) -> Iterator[None]:
    yield
    scene.mode("normal")
    scene.mirror_faults()


def completes(host: LabHost, options: list[str]) -> None:
    again = agent(host, "configure", *options)
    assert (again.exit_status, again.code) == (0, None), again
    last = agent(host, "configure", *options)
    assert (last.exit_status, last.outcomes, last.report["changed"]) == (0, {"met"}, False), last
    assert host.run(["find", ETC, STATE, "-name", ".*hsm-agent-*"]).stdout == ""


def started(host: LabHost, *argv: str) -> subprocess.Popen[bytes]:
    return host.start(["hsm-agent", *argv, "--output", "json", "--quiet"])


def finished(run: subprocess.Popen[bytes]) -> Ran:
    out, err = run.communicate(timeout=60)
    assert out, err
    return Ran(run.returncode, json.loads(out), err.decode())


class Held:
    """A FIFO of a host that a program waits to read, which is how we know where a run is; `let_go` says what it reads."""

    def __init__(self, host: LabHost, path: str) -> None:
        self.host = host
        self.path = path
        host.must(["mkdir", "-p", path.rsplit("/", 1)[0]])
        host.must(["mkfifo", path])
        self._file = -1

    def wait(self) -> None:
        """Return when somebody waits at it."""

        def opened() -> bool:
            try:
                self._file = os.open(f"{self.host.root}{self.path}", os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody reads yet
                return False
            return True

        until(opened, f"a reader of {self.path}", 30)

    def let_go(self, word: str = "") -> None:
        """Let the reader go on, with a word of misbehaviour; the FIFO is gone for whoever comes next."""
        self.host.must(["rm", "-f", self.path])
        os.write(self._file, word.encode() or b"\n")
        os.close(self._file)


def held_tool(host: LabHost, tool: str) -> Held:
    return Held(host, f"/etc/cloudhsm-standin/{tool}")


def held_package(host: LabHost) -> Held:
    return Held(host, package_contents.HOLD)


def downloading(scene: Scene, host: LabHost) -> None:
    """Return when the mirror has been asked and does not answer."""
    log = scene.folder / "log"
    until(lambda: any(each["fault"] == "mute" for each in mirror.requests_seen(log)), "a download", 30)


def files(host: LabHost) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for path in FILES:
        with contextlib.suppress(FileNotFoundError):
            found[path] = host.get(path)
    return found


def rights(host: LabHost) -> str:
    return host.must(["stat", "-c", "%n %U:%G %a", *FILES])


def records_are_whole(host: LabHost) -> None:
    for path in RECORDS:
        if host.testinfra.file(path).exists:
            assert json.loads(host.get(path))["schema_version"] == 1


# ---- kill -9


MOMENTS = ("download", "package", "configure-cli", "configure-pkcs11", "cloudhsm-cli")


def started_up_to(scene: Scene, host: LabHost, moment: str) -> tuple[subprocess.Popen[bytes], Held | None]:
    """Return a first run that is at that moment, and what holds it there: None where the mirror does."""
    if moment == "download":
        (scene.folder / "log").unlink(missing_ok=True)
        scene.mirror_faults(_="mute")
        run = started(host, "configure", *wanted(scene))
        downloading(scene, host)
        return run, None
    held = held_package(host) if moment == "package" else held_tool(host, moment)
    run = started(host, "configure", *wanted(scene))
    held.wait()
    return run, held


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_first_run_that_is_killed_is_completed_by_the_next(
    scene: Scene, bare: LabHost, moment: str
) -> None:
    run, held = started_up_to(scene, bare, moment)
    bare.signal(run, signal.SIGKILL)
    run.communicate(timeout=30)
    assert not any(b"%%" in (each or b"") and b"10.77" in (each or b"") for each in files(bare).values())
    records_are_whole(bare)
    if held is not None:
        held.let_go()  # what the agent had started goes on without it, as apt does
    scene.mirror_faults()
    completes(bare, wanted(scene))


def test_a_power_cut_while_a_package_is_set_up_is_completed_by_the_next_run(
    scene: Scene, bare: LabHost
) -> None:
    held = held_package(bare)
    started(bare, "configure", *wanted(scene))
    held.wait()
    bare.kill9()
    bare.boot()
    assert "ii" not in bare.must(["dpkg-query", "-W", "-f=${db:Status-Abbrev}", "cloudhsm-cli"])
    completes(bare, wanted(scene))


@pytest.mark.parametrize("moment", ["before", "configure-cli", "configure-pkcs11", "proof"])
def test_a_reconfiguration_that_is_killed_leaves_old_or_new_files(
    scene: Scene, host: LabHost, moment: str
) -> None:
    old = files(host)
    # `before`: it asks whether the old configuration works; `proof`: it asks whether the new one does
    held = held_tool(host, "cloudhsm-cli" if moment in ("before", "proof") else moment)
    options = changed(scene) if moment == "proof" else [*wanted(scene), "--log-level", "warn"]
    run = started(host, "configure", *options)
    held.wait()
    if moment == "proof":
        after = held_again(held)
        after.wait()
        held = after
    host.signal(run, signal.SIGKILL)
    run.communicate(timeout=30)
    killed = files(host)
    records_are_whole(host)
    held.let_go()
    if moment == "before":
        assert killed == old
    completes(host, options)
    new = files(host)
    assert all(killed[path] in (old[path], new[path]) for path in FILES)
    assert new != old
    # and the way back is still there
    assert agent(host, "rollback", first_snapshot(host, -1)).exit_status == 0


def held_again(held: Held) -> Held:
    """Let one call of a tool through, and hold the next at the same place."""
    held.host.must(["mv", held.path, f"{held.path}.old"])
    again = Held(held.host, held.path)
    os.write(held._file, b"\n")  # noqa: SLF001
    os.close(held._file)  # noqa: SLF001
    held.host.must(["rm", f"{held.path}.old"])
    return again


def first_snapshot(host: LabHost, which: int) -> str:
    return host.must(["ls", f"{STATE}/snapshots"]).split()[which].removesuffix(".json")


def test_what_a_tool_that_dies_with_the_run_leaves_half_is_put_back_from_what_was_kept(
    scene: Scene, host: LabHost
) -> None:
    """The vendor's tool writes in place. Cut in the middle, it does not read its own file any more."""
    old = files(host)
    held = held_tool(host, "configure-pkcs11")
    run = started(host, "configure", *wanted(scene), "--log-level", "warn")
    held.wait()
    host.signal(run, signal.SIGKILL)
    run.communicate(timeout=30)
    held.let_go("half")
    until(lambda: not host.run(["pgrep", "-f", "configure-pkcs11"]).stdout, "the tool's end")
    with pytest.raises(ValueError, match="Expecting"):
        settings(host, "pkcs11")
    ran = agent(host, "configure", *wanted(scene))
    assert (ran.exit_status, ran.outcome("configure:pkcs11")) == (0, "changed"), ran
    assert "settings-restored" in ran.told
    assert settings(host, "pkcs11") == json.loads(old[FILES[2]] or b"")
    completes(host, wanted(scene))


# ---- SIGINT and SIGTERM


# the two signals share their handler, so one of them at most moments is enough
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("download", signal.SIGTERM),
        ("package", signal.SIGTERM),
        ("package", signal.SIGINT),
        ("configure-cli", signal.SIGTERM),
        ("configure-pkcs11", signal.SIGINT),
        ("cloudhsm-cli", signal.SIGINT),
    ],
)
def test_a_first_run_that_is_interrupted_reports_and_is_completed(
    scene: Scene, bare: LabHost, moment: str, number: signal.Signals
) -> None:
    run, held = started_up_to(scene, bare, moment)
    bare.signal(run, number)
    if held is not None and moment != "cloudhsm-cli":
        assert run.poll() is None  # what changes the host is waited for
        held.let_go()
    ran = finished(run)
    assert (ran.exit_status, ran.code) == (130, "interrupted"), ran
    assert "completes what is left" in ran.report["failure"]["hint"]
    assert ran.report["changed"] == (moment != "download")
    assert json.loads(bare.get(RECORDS[1])) == ran.report
    if moment == "package":
        assert "ii" in bare.must(["dpkg-query", "-W", "-f=${db:Status-Abbrev}", "cloudhsm-cli"])
        assert not bare.testinfra.file(CA).exists
    if moment == "configure-cli":
        assert servers(bare) == list(scene.addresses)
        assert servers(bare, "pkcs11") == ["%%HSM_IP_ADDRESS%%"]  # nothing new was begun
    bare.must(["rm", "-rf", "/etc/cloudhsm-standin"])
    scene.mirror_faults()
    completes(bare, wanted(scene))


@pytest.mark.parametrize("moment", ["configure-pkcs11", "proof"])
def test_an_interrupt_puts_back_what_worked(scene: Scene, host: LabHost, moment: str) -> None:
    old, owners = files(host), rights(host)
    held = held_tool(host, "cloudhsm-cli" if moment == "proof" else moment)
    options = [*wanted(scene), "--log-level", "warn"]
    run = started(host, "configure", *options)
    held.wait()
    if moment == "proof":
        held = held_again(held)
        held.wait()
    host.signal(run, signal.SIGTERM)
    if moment != "proof":
        held.let_go()
    ran = finished(run)
    assert (ran.exit_status, ran.code, ran.report["outcome"]) == (130, "interrupted", "rolled-back"), ran
    assert {each["id"] for each in ran.report["steps"] if each["outcome"] == "undone"} >= {"configure:cli"}
    assert (files(host), rights(host)) == (old, owners)
    assert json.loads(host.get(RECORDS[1])) == ran.report
    host.must(["rm", "-rf", "/etc/cloudhsm-standin"])
    completes(host, options)


# ---- one at a time


def test_a_second_run_is_refused_by_name_and_a_dead_one_never_blocks(scene: Scene, host: LabHost) -> None:
    held = held_tool(host, "configure-cli")
    run = started(host, "configure", *wanted(scene), "--log-level", "warn")
    held.wait()
    before = host.get(RECORDS[1])
    pid = host.must(["pgrep", "-f", "hsm-agent configure"]).split()[0]
    for argv in (["configure", *wanted(scene)], ["rollback"], ["remove"]):
        ran = agent(host, *argv)
        assert (ran.exit_status, ran.code) == (11, "run-locked"), ran
        assert "hsm-agent configure, run 2" in ran.report["failure"]["saw"]
        assert f"(pid {pid})" in ran.report["failure"]["saw"]
    assert host.get(RECORDS[1]) == before
    assert agent(host, "verify").code in (None, "drift")  # looking is always allowed
    host.signal(run, signal.SIGKILL)
    run.communicate(timeout=30)
    held.let_go()
    completes(host, [*wanted(scene), "--log-level", "warn"])


# ---- undo


def test_a_failed_run_puts_everything_back_to_the_byte(scene: Scene, host: LabHost) -> None:
    host.must(["useradd", "--system", "hsmuser"])
    host.must(["chown", "hsmuser:hsmuser", CA])
    host.must(["chgrp", "hsmuser", FILES[2]])
    host.must(["chmod", "0640", FILES[2]])
    old, owners = files(host), rights(host)
    misbehave(host, "configure-pkcs11", "fail")
    ran = agent(host, "configure", *changed(scene))
    # with the HSMs of the other cluster the old configuration did not work: what is right is kept
    assert (ran.exit_status, ran.code) == (50, "configure-failed"), ran
    assert agent(host, "rollback").exit_status == 0
    assert (files(host), rights(host)) == (old, owners)
    scene.mode("normal")
    ran = agent(
        host,
        "configure",
        *wanted(scene),
        "--ca-cert",
        "/root/otherCA.crt",
        "--replace-ca",
        "--log-level",
        "warn",
    )
    assert (ran.exit_status, ran.code, ran.report["cause"]) == (51, "rolled-back", "configure-failed"), ran
    assert (files(host), rights(host)) == (old, owners)
    assert "previous-works" in ran.told
    misbehave(host, "configure-pkcs11", None)
    assert agent(host, "verify", *wanted(scene)).outcomes == {"met"}


def test_an_undo_that_fails_says_so_and_rollback_mends_it(scene: Scene, host: LabHost) -> None:
    old = files(host)
    held = held_tool(host, "configure-pkcs11")
    run = started(host, "configure", *wanted(scene), "--log-level", "warn")
    held.wait()
    host.remount_ro(ETC)
    held.let_go("fail")
    ran = finished(run)
    assert (ran.exit_status, ran.code, ran.report["cause"]) == (52, "rollback-failed", "read-only"), ran
    assert "hsm-agent rollback" in ran.report["failure"]["hint"] or "remount" in ran.report["failure"]["hint"]
    refused = agent(host, "rollback")
    assert (refused.exit_status, refused.code) == (52, "rollback-failed"), refused
    assert "Read-only" in refused.report["failure"]["saw"]
    host.remount_rw(ETC)
    assert agent(host, "rollback").exit_status == 0
    assert files(host) == old
    completes(host, wanted(scene))


def test_rollback_goes_back_to_before_a_run_by_name_and_twice_is_once(scene: Scene, host: LabHost) -> None:
    nothing = agent(host, "rollback", "20010101T000000Z-0000")
    assert (nothing.exit_status, nothing.code) == (2, "nothing-recorded"), nothing
    assert first_snapshot(host, 0) in nothing.report["failure"]["saw"]
    states = [files(host)]
    for level in ("warn", "debug"):
        assert agent(host, "configure", *wanted(scene), "--log-level", level).exit_status == 0
        states.append(files(host))
    runs = [each.removesuffix(".json") for each in host.must(["ls", f"{STATE}/snapshots"]).split()]
    for _ in range(2):
        back = agent(host, "rollback")
        assert (back.exit_status, files(host)) == (0, states[1])
    named = agent(host, "rollback", runs[1])
    assert (named.exit_status, files(host)) == (0, states[0])
    assert {each["outcome"] for each in named.report["steps"]} == {"undone"}
    completes(host, wanted(scene))


def test_rollback_where_nothing_is_recorded(bare: LabHost) -> None:
    ran = agent(bare, "rollback")
    assert (ran.exit_status, ran.code) == (2, "nothing-recorded"), ran
    for command in (["verify"], ["configure"]):
        again = agent(bare, *command)
        assert (again.exit_status, again.code) == (2, "nothing-recorded"), again
        assert "hsm-agent configure --hsm-ip" in again.report["failure"]["hint"]


# ---- the agent's own files


BAD = {
    "empty": b"",
    "cut": b'{"schema_version": 1, "desired": {',
    "binary": bytes(range(256)) * 16,
    "another version": b'{"schema_version": 99}',
    "hollow": b'{"schema_version": 1}',
    "list": b"[1, 2]",
    "deep": b"[" * 100_000,
    "wrong types": b'{"schema_version": 1, "ca_pem": "x", "desired": {"hsm_ip": "10.0.0.1", "timeout": []}, "steps": 1,'
    b' "exit_status": "no", "files": 7, "rollback": null}',
}


@pytest.mark.parametrize("name", BAD)
def test_a_spoilt_record_is_told_and_replaced_by_the_next_run(scene: Scene, host: LabHost, name: str) -> None:
    for path in RECORDS:
        host.put(path, BAD[name])
    host.must(["sh", "-ec", f"for each in {STATE}/snapshots/*; do cat >$each; done"], BAD[name])
    verified = agent(host, "verify")
    assert (verified.exit_status, verified.code) == (2, "nothing-recorded"), verified
    host.put(RECORDS[1], BAD[name])
    status = host.run(["hsm-agent", "status"])
    assert (status.returncode, "nothing-recorded" in status.stderr) == (2, True), status
    back = agent(host, "rollback")
    assert (back.exit_status, back.report["changed"]) == (0, False), back
    assert back.told == {"rollback-unneeded", "snapshot-damaged"}
    host.put(f"{STATE}/proven.json", BAD[name])
    run_id = first_snapshot(host, 0)
    host.must(["sh", "-ec", f"rm {STATE}/snapshots/*; cat >{STATE}/snapshots/{run_id}.json"], BAD[name])
    for argv in (["rollback"], ["rollback", run_id]):
        back = agent(host, *argv)
        assert (back.exit_status, back.code) == (52, "snapshot-damaged"), back
    completes(host, wanted(scene))
    assert agent(host, "verify").outcomes == {"met"}
    assert host.run(["hsm-agent", "status"]).returncode == 0


def test_a_record_that_is_no_file(scene: Scene, host: LabHost) -> None:
    for path in RECORDS:
        host.must(["rm", path])
        host.must(["mkfifo", path])
    assert agent(host, "verify").code in ("unreadable", "nothing-recorded")
    host.must(["mkfifo", f"{STATE}/snapshots/20990101T000000Z-ffff.json"])
    assert agent(host, "rollback").exit_status == 0
    host.must(["rm", f"{STATE}/snapshots/20990101T000000Z-ffff.json"])
    # what is no file was made by somebody, and is theirs to take away
    refused = agent(host, "configure", *wanted(scene))
    assert (refused.exit_status, refused.code, refused.report["changed"]) == (11, "write-failed", False), (
        refused
    )
    assert RECORDS[0] in refused.report["failure"]["hint"]
    host.must(["rm", *RECORDS])
    completes(host, wanted(scene))


def test_without_room_for_the_record_nothing_is_touched(scene: Scene, host: LabHost) -> None:
    old = files(host)
    host.mount_small(STATE, 8)
    host.run(["sh", "-c", f"cat /dev/zero >{STATE}/full"])
    ran = agent(host, "configure", *wanted(scene), "--log-level", "warn")
    assert (ran.exit_status, ran.code) == (11, "no-space"), ran
    assert (files(host), "report-not-kept" in ran.told) == (old, True)
    host.must(["umount", STATE])
    host.remount_ro(STATE)
    ran = agent(host, "configure", *wanted(scene), "--log-level", "warn")
    assert (ran.exit_status, ran.code) == (11, "read-only"), ran
    assert "remount" in ran.report["failure"]["hint"]
    assert (files(host), "report-not-kept" in ran.told) == (old, True)
    met = agent(host, "configure", *wanted(scene))  # with nothing to do there is nothing to keep
    assert (met.exit_status, met.outcomes) == (0, {"met"})
    assert {"report-not-kept", "record-not-kept"} <= met.told
    host.remount_rw(STATE)
    completes(host, wanted(scene))


# ---- who calls, and how


def test_what_a_user_without_root_may_do(scene: Scene, host: LabHost) -> None:
    def as_nobody(*argv: str) -> tuple[int, Any]:
        done = host.run(["hsm-agent", *argv, "--output", "json", "--quiet"], user="nobody")
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    exit_status, report = as_nobody("configure", *wanted(scene))
    assert (exit_status, report["code"]) == (11, "not-root")
    host.must(["chmod", "755", "/root"])
    exit_status, report = as_nobody("verify", *wanted(scene))
    assert (exit_status, {each["outcome"] for each in report["steps"]}) == (0, {"met"}), report["failure"]
    exit_status, report = as_nobody("verify")
    assert (exit_status, report["code"]) == (11, "not-root"), report
    assert "sudo" in report["failure"]["hint"]
    done = host.run(["hsm-agent", "status"], user="nobody")
    assert (done.returncode, "last run: configure" in done.stdout) == (0, True), done


@pytest.mark.parametrize(
    "stream", ["| head -c 0; exit ${PIPESTATUS[0]}", ">&-", ">/dev/full", "2>&- >/dev/null"]
)
def test_a_reader_that_is_gone_does_not_change_how_a_run_ends(
    scene: Scene, host: LabHost, stream: str
) -> None:
    for seat in scene.hsms:
        seat.faults.reset()
    line = " ".join(["hsm-agent", "configure", *wanted(scene), "--log-level", "warn"])
    done = host.run(["bash", "-c", f"{line} {stream}"])
    for seat in scene.hsms:
        seat.faults.clear()
    assert done.returncode in ((40, 11) if "full" in stream else (40,)), done
    assert "Traceback" not in done.stderr
    assert json.loads(host.get(RECORDS[1]))["exit_status"] == 40


def test_every_way_to_say_what_is_wanted_says_the_same(scene: Scene, host: LabHost) -> None:
    tree = {
        "hsm": {"ip": list(scene.addresses), "ca_cert": "/root/customerCA.crt"},
        "client": {"components": ["pkcs11"], "source": scene.url, "sha256": scene.sums},
    }
    said = agent(host, "configure", "--config", "-", stdin=json.dumps(tree).encode())
    assert (said.exit_status, said.outcomes) == (0, {"met"}), said
    env = {
        "HSM_AGENT_HSM_IP": ",".join(scene.addresses),
        "HSM_AGENT_CA_CERT": "/root/customerCA.crt",
        "HSM_AGENT_COMPONENT": "pkcs11",
        "HSM_AGENT_PACKAGE_SOURCE": scene.url,
        "HSM_AGENT_LOG_LEVEL": "warn",
    }
    assert agent(host, "plan", env=env).step("configure:cli")["want"].endswith("log level warn")
    flag = agent(host, "plan", "--log-level", "debug", env=env)
    assert flag.step("configure:cli")["want"].endswith("log level debug")
    ips = ", ".join(f'"{each}"' for each in scene.addresses)
    host.put("/etc/hsm-agent/config.toml", f'[hsm]\nip = [{ips}]\n[client]\nlog_level = "trace"\n'.encode())
    host.put("/etc/hsm-agent/conf.d/20-later.toml", b'[client]\nlog_level = "error"\n')
    host.put("/etc/hsm-agent/conf.d/10-sooner.toml", b'[client]\nlog_level = "debug"\n')
    assert agent(host, "plan").step("configure:cli")["want"].endswith("log level error")
    host.put("/etc/hsm-agent/conf.d/30-wrong.toml", b'[client]\nlog_levle = "error"\n[hsm]\nip = ["a.b"]\n')
    wrong = agent(host, "configure", env={"HSM_AGENT_LOGLEVEL": "x"})
    assert (wrong.exit_status, wrong.code) == (2, "config-invalid")
    saw = wrong.report["failure"]["saw"]
    assert "30-wrong.toml:2: unknown key `client.log_levle`; did you mean `client.log_level`?" in saw
    assert "30-wrong.toml:4: hsm.ip: 'a.b' is not an IP address" in saw
    assert "HSM_AGENT_LOGLEVEL: unknown variable; did you mean `HSM_AGENT_LOG_LEVEL`?" in saw
    assert settings(host)["logging"]["log_level"] == "info"


# ---- links, rights, and what is not said


@pytest.mark.parametrize("link", ["/srv/site/file", "../../../srv/site/file", "hop"])
@pytest.mark.parametrize("path", [CA, f"{ETC}/cloudhsm-pkcs11.cfg"])
def test_a_link_of_the_site_stays_one(scene: Scene, host: LabHost, path: str, link: str) -> None:
    host.must(["mkdir", "/srv/site"])
    host.must(["mv", path, "/srv/site/file"])
    host.must(["ln", "-s", link, path])
    if link == "hop":
        host.must(["ln", "-s", "/srv/site/file", f"{ETC}/hop"])
    assert agent(host, "verify").outcomes == {"met"}
    old, owners = files(host), rights(host)
    misbehave(host, "configure-pkcs11", "fail-with-effect")
    options = [*wanted(scene), "--ca-cert", "/root/otherCA.crt", "--replace-ca", "--log-level", "warn"]
    ran = agent(host, "configure", *options)
    assert (ran.exit_status, ran.code) == (51, "rolled-back"), ran
    assert (files(host), rights(host)) == (old, owners)
    assert host.must(["readlink", path]).strip() == link
    assert host.must(["stat", "-c", "%F %a", "/srv/site/file"]).strip() == "regular file 644"
    misbehave(host, "configure-pkcs11", None)
    completes(host, [*wanted(scene), "--log-level", "warn"])
    host.must(["sh", "-ec", f"rm {path}; echo in its place >{path}"])
    assert agent(host, "rollback").exit_status == 0
    assert host.must(["readlink", path]).strip() == link
    assert agent(host, "verify", *wanted(scene)).exit_status in (0, 3)


@pytest.mark.parametrize(
    ("opened", "found"),
    [
        (f"chmod 666 {ETC}/cloudhsm-cli.cfg", (3, "drift")),
        (f"chown nobody {ETC}/cloudhsm-pkcs11.cfg", (3, "drift")),
        ("chmod 777 /opt/cloudhsm/bin", (3, "drift")),
        ("chown nobody /opt/cloudhsm/bin", (3, "drift")),
        (f"chgrp nogroup {ETC} && chmod 775 {ETC}", (3, "drift")),
        # a library that others could have exchanged is not loaded, so that it is not proven
        ("chmod 1777 /opt/cloudhsm", (50, "permissions-unsafe")),
        ("chmod 777 /opt/cloudhsm/lib", (50, "permissions-unsafe")),
        (f"chmod 666 {CA}", (3, "drift")),
    ],
)
def test_what_others_could_change_is_seen_and_closed(
    scene: Scene, host: LabHost, opened: str, found: tuple[int, str]
) -> None:
    before = rights(host) + host.must(
        ["stat", "-c", "%n %U %a", "/opt/cloudhsm", "/opt/cloudhsm/bin", "/opt/cloudhsm/lib"]
    )
    host.must(["sh", "-ec", opened])
    looked = agent(host, "verify")
    assert (looked.exit_status, looked.code) == found, looked
    assert agent(host, "configure", *wanted(scene)).exit_status == 0
    after = rights(host) + host.must(
        ["stat", "-c", "%n %U %a", "/opt/cloudhsm", "/opt/cloudhsm/bin", "/opt/cloudhsm/lib"]
    )
    assert after.replace(":nogroup", ":root").replace(" 1755", " 755") == before
    completes(host, wanted(scene))


def test_a_program_that_others_could_change_is_named_and_not_run(scene: Scene, host: LabHost) -> None:
    host.must(["chmod", "777", "/opt/cloudhsm/bin/configure-cli"])
    ran = agent(host, "configure", *wanted(scene), "--log-level", "warn")
    assert (ran.exit_status, ran.code) == (50, "permissions-unsafe"), ran
    assert "/opt/cloudhsm/bin/configure-cli" in ran.report["failure"]["hint"]
    assert settings(host)["logging"]["log_level"] == "info"


def test_25_failing_runs_leave_the_last_state_that_worked(scene: Scene, host: LabHost) -> None:
    good = files(host)
    path = f"{ETC}/cloudhsm-cli.cfg"
    misbehave(host, "configure-cli", "fail")
    for number in range(25):
        host.put(path, b"{" * (number + 1))
        ran = agent(host, "configure", *wanted(scene), "--log-level", "debug")
        assert ran.exit_status != 0, ran
    host.put(path, b"{")
    assert agent(host, "rollback").exit_status == 0
    assert files(host) == good


def test_other_files_beside_the_clients_are_nobodys_business(scene: Scene, host: LabHost) -> None:
    copy = f"{ETC}/cloudhsm-cli-backup.cfg"
    host.must(["cp", f"{ETC}/cloudhsm-cli.cfg", copy])
    assert agent(host, "configure", *wanted(scene), "--log-level", "warn").exit_status == 0
    host.put(copy, b"mine")
    assert agent(host, "rollback").exit_status == 0
    assert host.get(copy) == b"mine"
    found = json.loads(host.must(["hsm-agent", "facts", "--output", "json"]))
    assert set(found["configured"]) == {"cli", "pkcs11"}


FIXED = {
    CA: "certificate",
    f"{ETC}/cloudhsm-cli.cfg": "configure:cli",
    ETC: "certificate",
}


@pytest.mark.parametrize("path", FIXED)
@pytest.mark.parametrize("attribute", ["i", "a"])
def test_an_attribute_that_forbids_to_write_is_named(
    scene: Scene, host: LabHost, path: str, attribute: str
) -> None:
    old = files(host)
    options = changed(scene)
    host.must(["chattr", f"+{attribute}", path])
    ran = agent(host, "configure", *options)
    host.must(["chattr", f"-{attribute}", path])
    if (path, attribute) == (ETC, "a"):  # there a file can be made, and none renamed
        assert ran.exit_status != 0
        return
    assert ran.step(FIXED[path])["code"] == "write-failed", ran
    assert path in ran.step(FIXED[path])["saw"]
    assert f"chattr -ia {path}" in ran.step(FIXED[path])["hint"]
    if path != f"{ETC}/cloudhsm-cli.cfg":
        assert files(host) == old


def test_an_immutable_folder_of_programs_is_named_before_a_package_is_touched(
    scene: Scene, host: LabHost
) -> None:
    host.must(["chattr", "+i", "/opt/cloudhsm/bin"])
    ran = agent(host, "configure", *wanted(scene), "--component", "jce")
    host.must(["chattr", "-i", "/opt/cloudhsm/bin"])
    assert (ran.exit_status, ran.code) == (11, "write-failed"), ran
    assert "chattr -ia /opt/cloudhsm/bin" in ran.report["failure"]["hint"]


# ---- what is kept, on a real disk


def warned(ran: Ran) -> set[str]:
    return {each["code"] for each in ran.report["warnings"]}


def test_a_hard_link_is_cut_whole_and_named(scene: Scene, host: LabHost) -> None:
    path = f"{ETC}/cloudhsm-cli.cfg"
    host.must(["ln", path, "/root/other-name"])
    old = files(host)
    misbehave(host, "configure-pkcs11", "fail")
    ran = agent(host, "configure", *wanted(scene), "--log-level", "warn")
    misbehave(host, "configure-pkcs11", None)
    assert (ran.exit_status, files(host)) == (51, old)
    assert "hard-link-cut" in warned(ran)
    json.loads(host.get("/root/other-name"))
    assert "hard-link-cut" not in warned(agent(host, "configure", *wanted(scene), "--log-level", "warn"))


@pytest.mark.parametrize(
    "opened", [f"chown -R nobody {STATE}", f"chmod 777 {STATE}", f"chown nobody {STATE}/desired.json"]
)
def test_what_others_could_have_recorded_is_not_believed(scene: Scene, host: LabHost, opened: str) -> None:
    host.must(["sh", "-ec", opened])
    for command in ("verify", "configure"):
        ran = agent(host, command)
        assert (ran.exit_status, ran.code) == (2, "nothing-recorded"), ran
    ran = agent(host, "configure", *wanted(scene))
    assert (ran.exit_status, "state-closed" in warned(ran)) == (0, not opened.endswith("json"))
    assert host.must(["stat", "-c", "%U %A", STATE]).split()[0] == "root"
    completes(host, wanted(scene))
    assert agent(host, "verify").exit_status == 0


def test_a_report_that_cannot_be_removed_keeps_no_other_and_is_sent_once(scene: Scene, host: LabHost) -> None:
    options = [*wanted(scene), "--report-to", "prometheus:/srv/told"]
    for _ in range(2):
        assert agent(host, "configure", *options).exit_status == 60
    first = host.must(["sh", "-ec", f"ls {STATE}/spool | head -n 1"]).strip()
    host.must(["chattr", "+i", f"{STATE}/spool/{first}"])
    host.must(["mkdir", "/srv/told"])
    for _ in range(2):
        ran = agent(host, "configure", *options)
        assert (ran.exit_status, warned(ran)) == (0, {"report-stuck"})
        assert first in ran.report["warnings"][0]["text"]
        assert "not sent again" in ran.report["warnings"][0]["text"]
    assert host.must(["ls", f"{STATE}/spool"]).split() == [first]
    host.must(["chattr", "-i", f"{STATE}/spool/{first}"])
    ran = agent(host, "configure", *options)
    assert (ran.exit_status, warned(ran), host.must(["ls", f"{STATE}/spool"])) == (0, set(), "")


def test_what_the_version_before_kept_is_taken_by_its_name(scene: Scene, host: LabHost) -> None:
    old = files(host)
    run = "20260101T000000Z-0001"
    kept = [
        {"path": path, "mode": 0o644, "owner": [0, 0], "data": base64.b64encode(data or b"").decode()}
        for path, data in old.items()
    ]
    tree = {"schema_version": 1, "run_id": run, "rollback": False, "files": kept}
    host.must(["sh", "-ec", f"rm -rf {STATE}/snapshots {STATE}/proven.json"])
    host.put(f"{STATE}/snapshots/{run}.json", json.dumps(tree).encode(), mode=0o600)
    host.put(f"{ETC}/cloudhsm-cli.cfg", b"{")
    ran = agent(host, "rollback")
    assert (ran.exit_status, ran.code) == (2, "nothing-recorded")
    assert f"rollback {run}" in ran.report["failure"]["hint"]
    ran = agent(host, "rollback", run)
    assert (ran.exit_status, files(host)) == (0, old)
    assert "snapshot-unsealed" in warned(ran)
