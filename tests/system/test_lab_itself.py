"""The lab proves itself: what the other tests take for a real host, fault or clean end, is one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import images
from .agent_install import CHECKOUT
from .kernel import LabError, control_groups, until
from .lab import Lab
from .network import Faults, HsmSeat

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import MakeHost, MakeHsm
    from .host import LabHost

EVERY_IMAGE = pytest.mark.parametrize("image", images.NAMES)

CONNECT = """
import socket, sys, time
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])) as link:
        link.sendall(b"hello")
        print(link.recv(16).decode() or "closed")
except TimeoutError:
    print("timed out")
except OSError as error:
    print(error.errno if error.errno else error)
"""
ECHO = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(self.request.recv(16))
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
Server((sys.argv[1], 2223), Echo).serve_forever()
"""


def connect(host: LabHost, ip: str, port: int = 2223, seconds: float = 0.5) -> str:
    return host.must(["python3", "-c", CONNECT, ip, str(port), str(seconds)]).strip()


@pytest.fixture
def echo(make_hsm: MakeHsm) -> HsmSeat:
    seat = make_hsm()
    seat.serve(["python", "-c", ECHO, seat.ip], ports=[2223])
    return seat


def trivial_deb(folder: Path) -> bytes:
    control = folder / "tree/DEBIAN/control"
    control.parent.mkdir(parents=True)
    control.write_text(
        "Package: trivial\nVersion: 1.2-1\nArchitecture: all\nMaintainer: lab <lab@example.invalid>\n"
        "Description: proves that packages can be installed\n",
    )
    (folder / "tree/opt").mkdir()
    (folder / "tree/opt/trivial").write_text("here\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", folder / "tree", folder / "t.deb"], check=True)
    return (folder / "t.deb").read_bytes()


def trivial_rpm(folder: Path) -> bytes:
    spec = folder / "t.spec"
    spec.write_text(
        "Name: trivial\nVersion: 1.2\nRelease: 1\nSummary: proves that packages can be installed\nLicense: test\n"
        "BuildArch: noarch\n%description\nlab\n%install\nmkdir -p %{buildroot}/opt\necho here >%{buildroot}/opt/trivial\n"
        "%files\n/opt/trivial\n",
    )
    rpmbuild = [
        "rpmbuild",
        "-bb",
        "--quiet",
        "--define",
        f"_topdir {folder}",
        "--define",
        f"_dbpath {folder}/db",
    ]
    subprocess.run([*rpmbuild, spec], check=True, capture_output=True)
    return next(folder.glob("RPMS/noarch/*.rpm")).read_bytes()


# ---- images


@EVERY_IMAGE
def test_a_host_boots_within_a_second_and_says_what_it_is(host: LabHost) -> None:
    assert host.seconds_to_boot < 1
    system = host.testinfra.system_info
    assert (system.distribution, system.release) == (host.image.os_id, host.image.os_version)
    version = host.must(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    assert version.strip() == host.image.python
    assert host.testinfra.socket("tcp://0.0.0.0:22").is_listening


@EVERY_IMAGE
def test_its_package_manager_installs_and_removes(host: LabHost, tmp_path: Path) -> None:
    if host.image.family == "deb":
        host.put("/tmp/t.deb", trivial_deb(tmp_path))
        host.must(["apt-get", "install", "-y", "/tmp/t.deb"])
        remove = ["apt-get", "remove", "-y", "trivial"]
    else:
        host.put("/tmp/t.rpm", trivial_rpm(tmp_path))
        host.must(["dnf", "install", "-y", "/tmp/t.rpm"])
        assert host.run(["rpm", "-V", "trivial"]).returncode == 0
        assert not host.testinfra.exists("dpkg")
        remove = ["yum", "remove", "-y", "trivial"]
    assert host.testinfra.package("trivial").version.startswith("1.2")
    assert host.testinfra.file("/opt/trivial").content_string == "here\n"
    host.must(remove)
    assert not host.testinfra.package("trivial").is_installed


@EVERY_IMAGE
def test_the_agent_and_its_libraries_can_be_imported(agent_host: LabHost) -> None:
    code = (
        "import sys; sys.path.insert(0, '/usr/lib/hsm-agent'); import typer, rich, requests, psutil, agent; "
    )
    code += "print(agent.__file__)"
    assert agent_host.must(["python3", "-I", "-c", code]).strip() == "/usr/lib/hsm-agent/agent/__init__.py"
    assert agent_host.testinfra.file("/usr/bin/hsm-agent").mode == 0o755


def test_an_unknown_image_is_refused_with_the_known_ones(lab: Lab) -> None:
    with pytest.raises(LabError, match=r"ubuntu22\.04"):
        lab.host("rhel99")


def test_a_layer_gets_its_name_only_when_it_is_complete(lab: Lab) -> None:
    failing = images.Layer("failing", f"echo half >/half\n[ -e /none ] # {lab.tag}", images.BOOKWORM)
    with pytest.raises(LabError):
        images.build(failing)
    assert not failing.path.exists()
    complete = images.Layer("failing", f"echo whole >/whole # {lab.tag}", images.BOOKWORM)
    assert complete.path != failing.path
    images.build(complete)
    assert [file.name for file in complete.path.iterdir()] == ["whole"]
    for folder in images.CACHE.glob("layers/failing-*"):
        shutil.rmtree(folder)


# ---- hosts


@pytest.mark.parametrize("image", ["bullseye+systemd", "rhel8+systemd", "ubuntu24.04+systemd"])
def test_a_systemd_host_runs_units_and_reboots(host: LabHost) -> None:
    assert host.must(["systemctl", "is-system-running"]).strip() == "running"
    assert host.testinfra.process.get(pid=1).comm == "systemd"
    unit = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"
    host.put("/etc/systemd/system/dozing.service", unit.encode())
    host.must(["systemctl", "enable", "--now", "dozing.service"])
    boot_id = host.pid
    host.reboot()
    assert host.pid != boot_id
    assert host.testinfra.service("dozing").is_running
    assert host.testinfra.service("dozing").is_enabled


def test_a_power_cut_ends_every_process_and_keeps_the_disk(host: LabHost) -> None:
    host.put("/etc/kept", b"kept", 0o600)
    host.put("/run/lost", b"lost")
    background = host.start(["sleep", "1000"])
    until(lambda: host.testinfra.process.filter(comm="sleep") != [], "sleep")
    host.kill9()
    assert not host.up
    assert background.poll() is not None
    host.boot()
    assert host.get("/etc/kept") == b"kept"
    assert host.testinfra.file("/etc/kept").mode == 0o600
    assert not host.testinfra.file("/run/lost").exists
    assert host.testinfra.process.filter(comm="sleep") == []


@pytest.mark.parametrize("init", ["sshd", "idle"])
def test_pid_1_reaps_orphans(make_host: MakeHost, init: str) -> None:
    host = make_host("ubuntu22.04", init=init)
    host.must(["sh", "-c", "(sleep 0.05 &)"])
    until(lambda: "sleep 0.05" not in host.must(["ps", "-eo", "stat,args"]), "the orphan to end")
    until(lambda: "Z" not in host.must(["ps", "-eo", "stat="]), "the orphan to be reaped")


def test_run_takes_input_environment_and_user(host: LabHost) -> None:
    done = host.run(["sh", "-c", "cat; echo $COLOUR $HOME; id -un; exit 7"], b"in ", env={"COLOUR": "red"})
    assert (done.returncode, done.stdout, done.stderr) == (7, "in red /root\nroot\n", "")
    assert host.run(["sudo", "-n", "id", "-u"], user="ec2-user").stdout == "0\n"
    assert host.run(["id", "-un"], user="ec2-user").stdout == "ec2-user\n"


def test_a_run_that_takes_too_long_leaves_nothing_behind(host: LabHost) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        host.run(["sleep", "1000"], timeout=0.2)
    until(lambda: host.testinfra.process.filter(comm="sleep") == [], "sleep to be gone")


def test_a_background_program_gets_the_signal_meant_for_it(host: LabHost) -> None:
    code = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
    process = host.start(["sh", "-c", code])
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    host.signal(process, signal.SIGTERM)
    assert process.stdout.readline() == b"got it\n"
    assert process.wait(timeout=5) == 3
    killed = host.start(["sleep", "1000"])
    host.signal(killed, signal.SIGKILL)
    assert killed.wait(timeout=5) == -signal.SIGKILL


def test_a_full_disk_and_a_read_only_one_say_so(host: LabHost) -> None:
    host.mount_small("/opt/small", 64)
    full = host.run(["dd", "if=/dev/zero", "of=/opt/small/file", "bs=1k", "count=100"])
    assert os.strerror(errno.ENOSPC) in full.stderr
    host.must(["mkdir", "/opt/fixed"])
    for folder in ("/opt/fixed", "/opt/small", "/"):
        host.remount_ro(folder)
        refused = host.run(["touch", f"{folder}/new"])
        assert os.strerror(errno.EROFS) in refused.stderr, folder
    for folder in ("/", "/opt/fixed"):
        host.remount_rw(folder)
        host.must(["touch", f"{folder}/new"])


def test_two_hosts_do_not_share_a_disk(make_host: MakeHost) -> None:
    one, other = make_host("rhel9"), make_host("rhel9")
    one.must(["sh", "-c", "echo changed >/etc/os-release; rm /usr/bin/openssl"])
    assert other.testinfra.system_info.distribution == "rhel"
    assert other.testinfra.exists("openssl")


# ---- network


def test_two_hosts_reach_each_other_and_sshd_takes_the_lab_key(lab: Lab, make_host: MakeHost) -> None:
    one, other = make_host("bullseye"), make_host("amzn2023")
    one.put("/root/key", lab.ssh_key.read_bytes(), 0o600)
    ssh = ["ssh", "-i", "/root/key", "-o", "StrictHostKeyChecking=no", f"ec2-user@{other.ip}"]
    assert one.must([*ssh, "hostname; sudo id -u"]) == f"{other.name}\n0\n"
    operator = lab.operator.run(["python3", "-c", CONNECT, one.ip, "22", "2"])
    assert operator.stdout.startswith("SSH-2.0")


def test_a_stand_in_answers_over_both_address_families(host: LabHost, make_hsm: MakeHsm) -> None:
    seat = make_hsm()
    seat.serve([sys.executable, "-m", "http.server", "2223", "--bind", "::"], ports=[2223])
    for address in (seat.ip, f"[{seat.ipv6}]"):
        get = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=2).status)"
        assert host.must(["python3", "-c", get, f"http://{address}:2223/"]).strip() == "200"


def test_there_is_no_way_out(host: LabHost) -> None:
    # Addresses for documentation; the last is the machine's own, if it has it at all.
    for outside in ("203.0.113.1", "192.0.2.2"):
        assert connect(host, outside, 80, 0.3) in {
            "timed out",
            str(errno.EHOSTUNREACH),
            str(errno.ENETUNREACH),
        }
    links = host.must(["ip", "-brief", "link"]).split("\n")
    assert [link.split("@")[0].split()[0] for link in links if link] == ["lo", "eth0"]


def test_names_are_not_found_at_once(host: LabHost) -> None:
    started = time.monotonic()
    assert host.run(["getent", "hosts", "example.com"]).returncode == 2
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Faults.drop, "timed out"),
        (Faults.reset, str(errno.ECONNREFUSED)),
        (Faults.unreachable, str(errno.EHOSTUNREACH)),
        (Faults.drop_after_connect, "timed out"),
    ],
)
def test_faults_at_the_hsm(host: LabHost, echo: HsmSeat, fault: Callable[..., None], seen: str) -> None:
    assert connect(host, echo.ip) == "hello"
    fault(echo.faults, source=host.ip)
    assert connect(host, echo.ip) == seen
    echo.faults.clear()
    assert connect(host, echo.ip) == "hello"


def test_after_drop_after_connect_the_connection_itself_is_made(host: LabHost, echo: HsmSeat) -> None:
    echo.faults.drop_after_connect()
    code = "import socket, sys; socket.create_connection((sys.argv[1], 2223), 1); print('made')"
    assert host.must(["python3", "-c", code, echo.ip]).strip() == "made"


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Faults.no_route, errno.EHOSTUNREACH),
        (Faults.black_hole, errno.EINVAL),
        (Faults.prohibit, errno.EACCES),
    ],
)
def test_faults_of_the_hosts_own_routes(
    host: LabHost,
    echo: HsmSeat,
    fault: Callable[..., None],
    seen: int,
) -> None:
    fault(host.seat.faults, echo.ip)
    assert connect(host, echo.ip) == str(seen)
    host.seat.faults.clear()
    assert connect(host, echo.ip) == "hello"


def test_packets_are_lost_by_chance(host: LabHost, echo: HsmSeat) -> None:
    echo.faults.lose(50)
    seen = [host.run(["python3", "-c", CONNECT, echo.ip, "2223", "0.05"]).stdout.strip() for _ in range(40)]
    assert set(seen) == {"hello", "timed out"}


def test_a_fault_for_one_port_or_one_client_leaves_the_others(make_host: MakeHost, echo: HsmSeat) -> None:
    one, other = make_host("ubuntu22.04"), make_host("ubuntu22.04")
    echo.faults.drop(ports=[2224])
    assert connect(one, echo.ip) == "hello"
    echo.faults.reset(source=one.ip)
    assert connect(one, echo.ip) == str(errno.ECONNREFUSED)
    assert connect(other, echo.ip) == "hello"


def test_an_unplugged_a_frozen_and_a_stopped_stand_in(host: LabHost, echo: HsmSeat) -> None:
    echo.faults.unplug()
    assert connect(host, echo.ip) == "timed out"
    echo.faults.clear()
    echo.freeze()
    assert connect(host, echo.ip) == "timed out"
    echo.thaw()
    assert connect(host, echo.ip) == "hello"
    echo.stop()
    assert connect(host, echo.ip) == str(errno.ECONNREFUSED)


def test_a_stand_in_that_dies_at_once_is_told_with_its_words(make_hsm: MakeHsm) -> None:
    with pytest.raises(LabError, match="no thanks"):
        make_hsm().serve(["python", "-c", "raise SystemExit('no thanks')"])


def test_an_address_can_be_used_again_at_once(lab: Lab, host: LabHost) -> None:
    for _ in range(3):
        seat = lab.hsm("10.77.0.10")
        seat.serve(["python", "-c", ECHO, seat.ip], ports=[2223])
        assert connect(host, seat.ip) == "hello"
        lab.end(seat)


# ---- the end


def test_a_lab_that_is_closed_leaves_nothing() -> None:
    reason = images.reason_not_to_run()
    if reason:
        pytest.skip(reason)
    lab = Lab()
    host = lab.host("rhel8+systemd")
    seat = lab.hsm()
    seat.serve(["python", "-c", ECHO, seat.ip], ports=[2223])
    host.start(["sleep", "1000"])
    spaces = lab.namespaces
    assert any(space.members() for space in spaces)
    assert lab.close() == []
    assert not lab.folder.exists()


ABANDONED = """
import json, os, signal
from tests.system.lab import Lab
lab = Lab()
hosts = [lab.host("rhel8+systemd"), lab.host("bullseye")]
seat = lab.hsm()
seat.serve(["python", "-m", "http.server", "2223", "--bind", seat.ip], ports=[2223])
print(json.dumps([pid for space in lab.namespaces for pid in space.members()]), lab.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_is_killed_leaves_no_process_either(lab: Lab) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ABANDONED],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids, _, folder = done.stdout.strip().rpartition(" ")
    processes = [Path(f"/proc/{pid}") for pid in pids.strip("[]").split(", ")]
    assert len(processes) > 5
    until(lambda: not any(process.exists() for process in processes), "the kernel to end them")
    assert Path(folder).is_dir()
    with Lab():  # the next run takes away the files and empty control groups that no process could
        assert not Path(folder).exists()
        assert not list(control_groups().glob(f"{Path(folder).name.partition('-')[0]}-*"))


def test_a_host_begins_with_what_another_wrote(make_host: MakeHost, tmp_path: Path) -> None:
    first = make_host()
    first.put("/srv/kept", b"words")
    first.must(["rm", "/etc/debian_version"])
    again, other = make_host(disk_copy=first.copy_disk(tmp_path)), make_host()
    assert again.get("/srv/kept") == b"words"
    assert not again.testinfra.file("/etc/debian_version").exists
    again.must(["chattr", "+i", "/srv/kept"])
    again.must(["chattr", "-i", "/srv/kept"])
    same, own = ("/etc/machine-id",), ("/etc/hostname", "/etc/ssh/ssh_host_ed25519_key.pub")
    assert [again.get(path) == first.get(path) for path in (*same, *own)] == [True, False, False]
    assert other.get("/etc/machine-id") != first.get("/etc/machine-id")
    assert not other.testinfra.file("/srv/kept").exists
