"""A roll-out over real hosts, by real OpenSSH servers: from bare to proven, again, stopped, resumed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.building import release_of_this_run

from .fleet import Operator
from .kernel import until
from .scene import ROWS, STATE, cluster, hold, proven, release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab
    from .scene import Scene

IMAGES = ["ubuntu22.04", "ubuntu24.04", "bullseye", "amzn2023", "rhel9"]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of this checkout that travels."""
    return release_of_this_run(tmp_path_factory).archive


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with cluster(lab, tmp_path_factory.mktemp("scene")) as made:
        for image in ROWS:
            made.package(image)
        yield made


@pytest.fixture
def operator(scene: Scene, tree: Path, tmp_path: Path) -> Operator:
    scene.mode("normal")
    return Operator(scene, tmp_path / "home", tree)


def test_a_mixed_fleet_from_bare_to_proven(operator: Operator, scene: Scene, make_host: MakeHost) -> None:
    hosts = [make_host(image) for image in IMAGES]
    operator.meet(*hosts)
    operator.inventory()
    planned = operator.fleet("plan", "--inventory", str(operator.home / "fleet.toml"), *operator.options())
    assert (planned.exit_status, set(planned.outcomes.values())) == (3, {"drifted"}), planned
    assert not any(host.testinfra.file(STATE).exists for host in hosts)

    first = operator.rollout()
    assert (first.exit_status, set(first.outcomes.values())) == (0, {"ok"}), first
    assert all(first.changed.values())
    assert [wave["hosts"] for wave in first.report["waves"]] == [1, 4]
    assert all(proven(host, scene) for host in hosts)

    second = operator.rollout()
    assert (second.exit_status, set(second.changed.values())) == (0, {False}), second


@pytest.fixture
def one(operator: Operator, make_host: MakeHost, request: pytest.FixtureRequest) -> LabHost:
    """A fleet of one host, of Ubuntu or what the test asks for."""
    host = make_host(getattr(request, "param", "ubuntu22.04"))
    operator.meet(host)
    operator.inventory()
    return host


def test_the_tree_and_packages_travel_once(operator: Operator, scene: Scene, one: LabHost) -> None:
    assert operator.rollout().exit_status == 0
    trees = one.run(["ls", f"{STATE}/trees"]).stdout.split()
    assert len(trees) == 1
    stamp = one.must(["stat", "-c", "%Y %i", f"{STATE}/trees/{trees[0]}"])
    assert operator.rollout().exit_status == 0
    assert one.must(["stat", "-c", "%Y %i", f"{STATE}/trees/{trees[0]}"]) == stamp
    assert one.run(["ls", "/var/cache/hsm-agent"]).stdout == ""
    kept = list((operator.home / ".cache/hsm-agent/packages").rglob("*.deb"))
    assert len(kept) == 1


def test_what_was_pushed_is_pushed_again(operator: Operator, scene: Scene, make_host: MakeHost) -> None:
    """The host's record says nothing of the operator's folder, of which the host can make nothing."""
    one = make_host("ubuntu22.04", agent=True)
    operator.meet(one)
    operator.inventory()
    assert operator.rollout().exit_status == 0
    record = one.get(f"{STATE}/desired.json").decode()
    assert str(scene.folder) not in record
    assert "pushed" in record
    one.must(["dpkg", "--purge", "cloudhsm-cli"])
    ran = one.run(["hsm-agent", "configure"])
    assert (ran.returncode, "`hsm-agent fleet rollout`" in ran.stdout + ran.stderr) == (20, True), ran
    inventory = str(operator.home / "fleet.toml")
    assert operator.fleet("verify", "--inventory", inventory).outcomes == {one.name: "drifted"}
    again = operator.fleet("rollout", "--inventory", inventory, "--only", "drifted")
    assert again.outcomes == {one.name: "ok"}, again
    assert proven(one, scene)


def test_it_works_where_files_cannot_be_copied_or_started(
    operator: Operator, scene: Scene, one: LabHost
) -> None:
    """No sftp, nothing executable on /tmp, /var/tmp and /run, a talkative login shell, a strict umask, MaxSessions 1."""
    one.must(["sed", "-i", "/^Subsystem/d", "/etc/ssh/sshd_config"])
    one.must(["sh", "-c", "printf 'MaxSessions 1\\nMaxStartups 1\\nPrintMotd yes\\n' >>/etc/ssh/sshd_config"])
    one.put("/etc/motd", b"Welcome\n")
    one.put(
        "/home/ec2-user/.bashrc",
        b'umask 077\necho "hello \\036{}"\nprintf "\\036%s\\n" "{\\"event\\": \\"failed\\"}"\necho noise >&2\n',
    )
    one.put("/root/.bashrc", b"umask 077\n")
    for place in ("/tmp", "/var/tmp"):
        one.must(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", place])
    one.must(["mount", "-o", "remount,noexec", "/run"])
    one.must(["pkill", "-HUP", "-o", "sshd"])
    ran = operator.rollout()
    assert ran.outcomes == {one.name: "ok"}, ran
    assert proven(one, scene)
    assert one.testinfra.file(f"{STATE}/report.json").mode == 0o644


def test_root_needs_no_sudo(operator: Operator, scene: Scene, one: LabHost) -> None:
    operator.inventory(more='user = "root"')
    one.must(["mv", "/usr/bin/sudo", "/usr/bin/sudo.away"])
    assert operator.rollout().outcomes == {one.name: "ok"}
    assert proven(one, scene)


def test_sudo_that_asks_is_told_and_nothing_hangs(operator: Operator, one: LabHost) -> None:
    one.put("/etc/sudoers.d/90-ec2-user", b"ec2-user ALL=(ALL) ALL\n", 0o440)
    ran = operator.rollout()
    assert (ran.exit_status, ran.outcomes, ran.codes) == (
        71,
        {one.name: "failed"},
        {one.name: "sudo-refused"},
    )
    assert "sudo: a password is required" in ran.host(one.name)["saw"]


def test_a_host_without_python_is_told(operator: Operator, one: LabHost) -> None:
    one.must(["sh", "-c", "mkdir /away && mv /usr/bin/python3* /away"])
    ran = operator.rollout()
    assert ran.codes == {one.name: "python-missing"}
    assert ran.host(one.name)["saw"] == "no python3 at all"


def test_a_python_that_is_too_old_is_passed_over(operator: Operator, one: LabHost) -> None:
    old = b"#!/bin/sh\necho 3.6.8 >&2\nexit 1\n"
    one.put("/usr/local/bin/python3", old, 0o755)
    assert operator.rollout().outcomes == {one.name: "ok"}  # by python3.11
    one.must(["sh", "-c", "mkdir /away && mv /usr/bin/python3* /away"])
    ran = operator.rollout()
    assert (ran.codes, ran.host(one.name)["saw"]) == (
        {one.name: "python-missing"},
        "/usr/local/bin/python3: Python 3.6.8",
    )


SHIM = b"""#!/bin/sh
echo "pyenv: python3: command not found" >&2
exit 127
"""
UNLINKED = b"""#!/bin/sh
echo "$0: error while loading shared libraries: libpython3.12.so.1.0: cannot open shared object file" >&2
exit 127
"""


def test_a_python_that_does_not_start_is_passed_over(operator: Operator, one: LabHost) -> None:
    """A shim, an interpreter without its library, one without TLS, one that dies: whichever comes first in PATH."""
    no_tls = b"#!/bin/sh\nexec /usr/bin/python3 -c \"raise ImportError('No module named _ssl')\"\n"
    names = {
        "python3": SHIM,
        "python3.14": UNLINKED,
        "python3.13": no_tls,
        "python3.12": b"#!/bin/sh\nkill -SEGV $$\n",
        "python3.11": b"#!/bin/sh\nexit 0\n",
    }
    for name, program in names.items():
        one.put(f"/usr/local/bin/{name}", program, 0o755)
    one.put("/home/ec2-user/.bashrc", b"PATH=$HOME/bin:$PATH\n")
    one.must(["mkdir", "-p", "/home/ec2-user/bin"])
    one.put("/home/ec2-user/bin/python3", SHIM, 0o755)
    assert operator.rollout().outcomes == {one.name: "ok"}
    one.must(["sh", "-c", "mkdir /away && mv /usr/bin/python3* /away"])
    ran = operator.rollout()
    assert ran.codes == {one.name: "python-missing"}
    saw = ran.host(one.name)["saw"]
    assert "/usr/local/bin/python3: pyenv: python3: command not found" in saw
    assert "python3.14: error while loading shared libraries" in saw
    assert "/usr/local/bin/python3.12: " in saw
    assert "/usr/local/bin/python3.11: exit 0" in saw
    assert "Traceback" not in saw


def test_a_python_whose_openssl_makes_no_tls_is_passed_over(operator: Operator, one: LabHost) -> None:
    """An openssl.cnf that names the FIPS provider, where there is none, as hardening guides have it."""
    text = "openssl_conf = a\n[a]\nproviders = b\n[b]\nfips = c\nbase = c\n[c]\nactivate = 1\n"
    one.put("/etc/half-fips.cnf", text.encode())
    wrapper = b'#!/bin/sh\nOPENSSL_CONF=/etc/half-fips.cnf exec /away/python3 "$@"\n'
    one.put("/usr/local/bin/python3", wrapper, 0o755)
    one.must(["sh", "-c", "mkdir /away && cp -a /usr/bin/python3* /away"])
    assert operator.rollout().outcomes == {one.name: "ok"}
    one.must(["sh", "-c", "rm /usr/bin/python3*"])
    ran = operator.rollout()
    assert ran.codes == {one.name: "python-missing"}
    saw = ran.host(one.name)["saw"]
    assert saw.startswith("/usr/local/bin/python3: ssl.SSLError"), saw


def test_who_answers_instead_of_a_shell_is_told_in_his_words(operator: Operator, one: LabHost) -> None:
    """EC2's line for root, at once and not after its sleep; and shells that start nothing."""
    operator.inventory(more='user = "root"')
    key = one.get("/root/.ssh/authorized_keys").decode().strip()
    words = 'Please login as the user \\\\"ec2-user\\\\" rather than the user \\\\"root\\\\".'
    line = f"command=\"echo '{words}';echo;sleep 10;exit 142\" {key}\n".replace("\\\\", "\\")
    one.put("/root/.ssh/authorized_keys", line.encode(), 0o600)
    ran = operator.rollout()
    assert ran.codes == {one.name: "login-refused"}, ran
    host = ran.host(one.name)
    assert 'Please login as the user "ec2-user"' in host["saw"]
    assert "ec2-user" in host["hint"]
    assert host["seconds"] < 10


def test_a_login_shell_that_starts_nothing_is_told_in_its_words(operator: Operator, one: LabHost) -> None:
    one.must(["usermod", "-s", "/usr/sbin/nologin", "ec2-user"])
    ran = operator.rollout()
    assert (ran.codes, "not available" in ran.host(one.name)["saw"]) == ({one.name: "far-end-failed"}, True)
    one.must(["usermod", "-s", "/bin/bash", "ec2-user"])
    one.must(
        [
            "sh",
            "-c",
            "printf 'Match User ec2-user\\n  ChrootDirectory /home/ec2-user\\n' >>/etc/ssh/sshd_config",
        ]
    )
    one.must(["pkill", "-HUP", "-o", "sshd"])
    ran = operator.rollout()
    assert (ran.codes, ran.outcomes) == ({one.name: "ssh-failed"}, {one.name: "unreachable"})
    assert ran.host(one.name)["seconds"] < 60


def test_sudo_is_judged_by_what_started(operator: Operator, scene: Scene, one: LabHost) -> None:
    one.must(
        [
            "sh",
            "-c",
            "echo nowhere >/etc/hostname; hostname nowhere; sed -i /$(hostname)/d /etc/hosts || true",
        ]
    )
    ran = operator.rollout()
    assert ran.outcomes == {one.name: "ok"}, ran
    one.put(
        "/etc/sudoers.d/90-ec2-user",
        b"Defaults:ec2-user requiretty\nec2-user ALL=(ALL) NOPASSWD: ALL\n",
        0o440,
    )
    ran = operator.rollout()
    assert (ran.codes, "requiretty" in ran.host(one.name)["hint"]) == ({one.name: "sudo-refused"}, True), ran
    one.put("/etc/sudoers.d/90-ec2-user", b"# nobody\n", 0o440)
    ran = operator.rollout()
    assert (ran.codes, "NOPASSWD" in ran.host(one.name)["hint"]) == ({one.name: "sudo-refused"}, True), ran
    one.must(["mv", "/usr/bin/sudo", "/usr/bin/sudo.away"])
    ran = operator.rollout()
    assert (ran.codes, "install sudo" in ran.host(one.name)["hint"]) == ({one.name: "sudo-refused"}, True), (
        ran
    )


def test_a_shell_that_reads_what_is_sent_to_the_agent_is_named(operator: Operator, one: LabHost) -> None:
    one.put("/home/ec2-user/.bashrc", b"read answer\n")
    ran = operator.rollout()
    assert ran.codes == {one.name: "far-end-failed"}
    assert ".bashrc" in ran.host(one.name)["hint"]
    assert "Traceback" not in ran.host(one.name)["saw"]


def test_a_kept_tree_that_was_damaged_is_sent_again(operator: Operator, scene: Scene, one: LabHost) -> None:
    assert operator.rollout().exit_status == 0
    for damage in (
        "rm $t/agent/remote/server.py",
        "truncate -s 100 $t/agent/app.py",
        "truncate -s 20 $t/agent/__pycache__/app.*",
    ):
        one.must(["sh", "-c", f"t=$(echo {STATE}/trees/*); {damage}"])
        ran = operator.rollout()
        assert ran.outcomes == {one.name: "ok"}, (damage, ran)
    assert len(one.run(["ls", f"{STATE}/trees"]).stdout.split()) == 1


def test_plan_finds_a_place_from_which_libraries_can_be_loaded(operator: Operator, one: LabHost) -> None:
    one.must(["mount", "-o", "remount,noexec", "/run"])
    ran = operator.fleet("plan", *operator.everything())
    assert ran.outcomes == {one.name: "drifted"}, ran


def test_a_full_disk_is_named_and_leaves_nothing(operator: Operator, one: LabHost) -> None:
    one.must(["mkdir", "-p", STATE])
    one.mount_small(STATE, 1)
    ran = operator.rollout()
    assert ran.codes == {one.name: "no-space"}
    assert f"{STATE}/trees/" in ran.host(one.name)["saw"]
    assert one.run(["sh", "-c", f"ls -A {STATE}/trees"]).stdout == ""


def test_a_package_that_cannot_be_had_is_told_at_every_host(operator: Operator, one: LabHost) -> None:
    ran = operator.rollout(
        "--component", "jce", "--sha256", f"cloudhsm-jce_5.18.0-1_u22.04_amd64.deb={'0' * 64}"
    )
    assert ran.codes == {one.name: "package-not-found"}


def test_other_bytes_than_published_are_refused_here(operator: Operator, scene: Scene, one: LabHost) -> None:
    file = scene.package("ubuntu22.04", "cloudhsm-dyn")
    wrong = {**scene.sums, file: "0" * 64}
    scene.sums, right = wrong, scene.sums
    try:
        ran = operator.rollout("--component", "dyn")
    finally:
        scene.sums = right
    assert ran.codes == {one.name: "checksum-mismatch"}
    assert not list((operator.home / ".cache/hsm-agent/packages").rglob("cloudhsm-dyn*"))


def test_an_hsm_that_is_blocked_stops_after_the_canary(
    operator: Operator, scene: Scene, make_host: MakeHost
) -> None:
    hosts = [make_host("ubuntu22.04") for _ in range(4)]
    operator.meet(*hosts)
    operator.inventory()
    scene.hsms[0].faults.drop(source=hosts[0].ip)
    try:
        ran = operator.rollout()
        assert (ran.exit_status, ran.report["code"]) == (71, "failure-limit")
        assert list(ran.outcomes.values()) == ["degraded", "not-reached", "not-reached", "not-reached"]
        assert not any(host.testinfra.package("cloudhsm-cli").is_installed for host in hosts[1:])
    finally:
        scene.hsms[0].faults.clear()
    resumed = operator.rollout("--resume", ran.report["run_id"])
    assert (resumed.exit_status, set(resumed.outcomes.values())) == (0, {"ok"})
    assert all(proven(host, scene) for host in hosts)


def test_hosts_that_are_not_reached_have_their_cause(
    operator: Operator, scene: Scene, make_host: MakeHost
) -> None:
    dropped, rejected, frozen, changed, unknown, fine = hosts = [make_host("ubuntu22.04") for _ in range(6)]
    operator.meet(*hosts)
    operator.inventory()
    dropped.seat.faults.drop(ports=[22])
    rejected.seat.faults.reset(ports=[22])
    frozen.must(["sh", "-c", "kill -STOP $(cat /run/sshd.pid)"])
    changed.must(
        [
            "sh",
            "-c",
            "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key",
        ]
    )
    known = operator.known_hosts.read_text().splitlines()
    operator.known_hosts.write_text("\n".join(line for line in known if f"{unknown.ip} " not in line) + "\n")
    changed.must(["pkill", "-HUP", "-o", "sshd"])
    ran = operator.rollout("--max-failed", "5", "--waves", "100%", "--deadline", "30s")
    assert ran.codes == {
        dropped.name: "ssh-timed-out",
        rejected.name: "ssh-refused",
        frozen.name: "ssh-timed-out",
        changed.name: "host-key-changed",
        unknown.name: "host-key-unknown",
        fine.name: None,
    }
    assert (ran.exit_status, ran.report["code"], ran.report["totals"]["unreachable"]) == (
        70,
        "hosts-failed",
        5,
    )
    assert proven(fine, scene)
    trusted = operator.rollout("--resume", ran.report["run_id"], "--trust-new-hosts", "--max-failed", "4")
    assert (trusted.outcomes[unknown.name], trusted.codes[changed.name]) == ("ok", "host-key-changed")
    assert trusted.host(unknown.name)["trusted"].startswith("SHA256:")
    assert operator.knows(unknown)


APT = "/var/lib/dpkg/lock-frontend"


def at_work(host: LabHost) -> None:
    """Wait until a run on a host waits for the package manager's lock, which the test holds."""
    until(lambda: host.run(["ls", "/var/cache/hsm-agent"]).stdout.endswith(".deb\n"), "the package", 30)


@pytest.mark.parametrize("image", ["ubuntu24.04+systemd"])
def test_a_host_that_restarts_in_the_middle_is_completed(
    operator: Operator, scene: Scene, host: LabHost
) -> None:
    operator.meet(host)
    operator.inventory()
    hold(host, APT)
    controller = operator.start()
    at_work(host)
    host.reboot()
    ran = operator.ended(controller)
    assert (ran.exit_status, ran.outcomes) == (0, {host.name: "ok"}), ran
    assert proven(host, scene)


def test_a_link_that_breaks_is_mended_and_the_report_read(
    operator: Operator, scene: Scene, one: LabHost
) -> None:
    holder = hold(one, APT)
    controller = operator.start()
    at_work(one)
    one.must(["pkill", "-KILL", "-f", "^sshd: ec2-user"])
    until(lambda: one.run(["pgrep", "-f", "^sshd: ec2-user"]).returncode == 0, "a second connection", 30)
    release(holder)
    ran = operator.ended(controller)
    assert (ran.exit_status, ran.outcomes, ran.changed) == (0, {one.name: "ok"}, {one.name: True}), ran
    assert one.run(["ls", f"{STATE}/snapshots"]).stdout.count(".json") == 1  # it was one run
    assert proven(one, scene)


def test_a_controller_that_is_killed_loses_nothing(
    operator: Operator, scene: Scene, make_host: MakeHost
) -> None:
    hosts = [make_host(image) for image in (*IMAGES, *IMAGES)]
    operator.meet(*hosts)
    operator.inventory()
    slow = hosts[1]
    holder = hold(slow, APT)
    controller = operator.start("--waves", "1,50%,100%")
    at_work(slow)
    until(lambda: len(operator.ends()) == 4, "the others of its wave", 60)
    controller.kill()
    controller.communicate(timeout=30)
    release(holder)

    seen = operator.fleet("status")
    assert (seen.exit_status, seen.report["code"]) == (130, "interrupted")
    assert seen.report["failure"]["saw"].endswith("its controller was ended")
    assert list(seen.outcomes.values()) == ["ok", "at-work", *["ok"] * 3, *["not-reached"] * 5]
    resumed = operator.rollout("--resume", seen.report["run_id"])
    assert (resumed.exit_status, set(resumed.outcomes.values())) == (0, {"ok"})
    assert sum(wave["hosts"] for wave in resumed.report["waves"]) == 6
    assert resumed.changed[slow.name]  # its run finished alone, and that is the report that was read
    assert slow.run(["ls", f"{STATE}/snapshots"]).stdout.count(".json") == 1
    assert all(proven(host, scene) for host in hosts)
    assert operator.fleet("status", seen.report["run_id"]).exit_status == 0


def test_a_host_that_was_given_up_at_work_is_waited_for_by_the_next_controller(
    operator: Operator, scene: Scene, one: LabHost
) -> None:
    """Its lock stays with its run: a resume must neither fail at that lock nor take the old run's failure as its own."""
    holder = hold(one, APT)
    controller = operator.start("--deadline", "12s")
    at_work(one)
    one.must(["pkill", "-STOP", "-f", "python3.*hsm-agent"])
    ran = operator.ended(controller)
    assert ran.codes == {one.name: "host-deadline"}
    stopped = one.must(["pgrep", "-f", "python3.*hsm-agent"]).split()
    resumed = operator.start("--resume", ran.report["run_id"], "--deadline", "90s")
    far_ends = ["pgrep", "-f", "python3.*hsm-agent"]
    until(lambda: len(one.run(far_ends).stdout.split()) > len(stopped), "a second far end", 30)
    release(holder)
    one.must(["kill", "-CONT", *stopped])
    done = operator.ended(resumed)
    assert (done.exit_status, done.outcomes) == (0, {one.name: "ok"}), done
    assert proven(one, scene)


def test_two_controllers_on_one_run_refuse_each_other(operator: Operator, one: LabHost) -> None:
    holder = hold(one, APT)
    first = operator.start()
    at_work(one)
    second = operator.run("rollout", "--resume", operator.last_run().name)
    assert second.returncode == 11
    assert "run-locked" in second.stderr
    assert operator.fleet("status").report["failure"]["saw"].endswith("it is running")
    release(holder)
    assert operator.ended(first).exit_status == 0


def test_an_interrupt_lets_hosts_finish(operator: Operator, scene: Scene, make_host: MakeHost) -> None:
    hosts = [make_host("ubuntu22.04") for _ in range(3)]
    operator.meet(*hosts)
    operator.inventory()
    holder = hold(hosts[0], APT)
    controller = operator.start()
    at_work(hosts[0])
    controller.send_signal(signal.SIGINT)
    release(holder)
    ran = operator.ended(controller)
    assert (ran.exit_status, list(ran.outcomes.values())) == (130, ["ok", "not-reached", "not-reached"]), ran
    assert proven(hosts[0], scene)


def test_two_hops_lead_to_a_host_behind_them(operator: Operator, scene: Scene, make_host: MakeHost) -> None:
    outer, inner, target = hosts = [make_host("ubuntu22.04") for _ in range(3)]
    operator.meet(*hosts)
    target.seat.faults.drop(ports=[22], source=scene.lab.operator.ip)
    inner.seat.faults.drop(ports=[22], source=scene.lab.operator.ip)
    operator.ssh_config(
        "Host outer", f"  HostName {outer.ip}", "Host inner", f"  HostName {inner.ip}", "  ProxyJump outer",
        f"Host {target.ip}", "  ProxyJump inner",
    )  # fmt: skip
    operator.inventory([target.name])
    assert operator.rollout().outcomes == {target.name: "ok"}
    assert proven(target, scene)


def test_removal_goes_wave_by_wave_too(operator: Operator, scene: Scene, make_host: MakeHost) -> None:
    hosts = [make_host(image) for image in ("ubuntu22.04", "amzn2023")]
    operator.meet(*hosts)
    path = operator.inventory()
    assert operator.rollout().exit_status == 0
    looked = operator.fleet("verify", "--inventory", str(path))
    assert (looked.exit_status, set(looked.outcomes.values())) == (0, {"ok"})
    hosts[1].must(["sh", "-c", "sed -i s/10.77/10.78/ /opt/cloudhsm/etc/cloudhsm-cli.cfg"])
    looked = operator.fleet("verify", "--inventory", str(path))
    assert (looked.exit_status, list(looked.outcomes.values())) == (3, ["ok", "drifted"])
    mended = operator.fleet("rollout", "--inventory", str(path), "--only", "drifted")
    assert (mended.exit_status, mended.outcomes) == (0, {hosts[1].name: "ok"})
    planned = operator.fleet("remove", "--inventory", str(path), "--plan")
    assert (planned.exit_status, set(planned.outcomes.values())) == (3, {"drifted"})
    assert all(host.testinfra.package("cloudhsm-cli").is_installed for host in hosts)
    assert operator.run("remove", "--inventory", str(path)).returncode == 2
    assert all(host.testinfra.package("cloudhsm-cli").is_installed for host in hosts)
    gone = operator.fleet("remove", "--inventory", str(path), "--all")
    assert (gone.exit_status, set(gone.changed.values())) == (0, {True})
    assert not any(host.testinfra.package("cloudhsm-cli").is_installed for host in hosts)
