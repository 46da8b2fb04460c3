"""First boot for real: Debian's cloud-init and systemd, our user-data unedited, and everything that is rough about it."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests import promtool
from tests.building import release_of_this_run
from tests.system.desk import TEXTFILES, TOKEN, Desk, spool
from tests.system.first_boot import user_data
from tests.system.installed import TIMER, VERIFY, ended, last_report, show

from .agent_install import CHECKOUT
from .kernel import LabError, until
from .scene import CA, STATE, Scene, cluster, servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab

UNIT = "hsm-agent-first-boot.service"
INSTANCE = "i-0abc123def4567890"
IMDS_PORT = 1338
AWS_PORT = 4566
# image, the form that its cloud-init is given, the package, the lock of its package manager
HOSTS = [
    ("ubuntu24.04", "shell", "*.deb", "/var/lib/dpkg/lock-frontend"),
    ("rhel9", "cloud-config", "*.rpm", "/var/lib/rpm/.rpm.lock"),
]

# Somebody else's package manager: at the first boot it hangs, at the second it ends when it has been noticed.
HOLDER = f"""
import fcntl, pathlib, sys, time
boots = pathlib.Path("/var/tmp/boots")
boots.write_text((boots.read_text() if boots.exists() else "") + "x")
said = pathlib.Path("{STATE}/first-boot.log")
if len(boots.read_text()) < 3:
    lock = open(sys.argv[1], "a")
    fcntl.lockf(lock, fcntl.LOCK_EX)
    while len(boots.read_text()) == 1 or not (said.exists() and "lock" in said.read_text()):
        time.sleep(0.05)
"""
HOLDING = """
[Unit]
Before=cloud-final.service hsm-agent-first-boot.service
[Service]
ExecStart=/usr/bin/python3 /root/holder.py {lock}
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release_of_this_run(tmp_path_factory).dist


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[Scene]:
    with cluster(lab, tmp_path) as made:
        yield made


@pytest.fixture
def desk(lab: Lab, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("desk")
    for port, name, *words in (
        (IMDS_PORT, "imds", INSTANCE, "web-role"),
        (AWS_PORT, "cloudformation", str(folder / "signals")),
    ):
        argv = ["python3", "-m", f"tests.fakes.{name}", lab.operator.ip, str(port), *words]
        lab.operator.start(argv, [port], {"PYTHONPATH": str(CHECKOUT)})
    return Desk(lab, folder)


def launched(make_host: MakeHost, image: str, data: bytes, desk: Desk, lock: str | None = None) -> LabHost:
    """Return a host that was never on, with its seed, what its image has, and perhaps somebody who takes the lock."""
    host = make_host(f"{image}-cloud+systemd", init="idle")
    host.put("/var/lib/cloud/seed/nocloud/user-data", data)
    host.put("/var/lib/cloud/seed/nocloud/meta-data", f"instance-id: {INSTANCE}\n".encode())
    host.put("/etc/hsm-agent/desk-ca.crt", desk.ca.read_bytes())
    host.put("/etc/hsm-agent/token", TOKEN.encode(), 0o600)
    host.must(["mkdir", "-p", TEXTFILES])
    host.put(
        f"/etc/systemd/system/{VERIFY}.d/textfiles.conf", f"[Service]\nReadWritePaths={TEXTFILES}\n".encode()
    )
    aws = (
        f"AWS_EC2_METADATA_SERVICE_ENDPOINT=http://{desk.lab.operator.ip}:{IMDS_PORT} "
        f"AWS_ENDPOINT_URL_CLOUDFORMATION=http://{desk.lab.operator.ip}:{AWS_PORT}"
    )
    host.put("/etc/systemd/system.conf.d/aws.conf", f"[Manager]\nDefaultEnvironment={aws}\n".encode())
    if lock:
        host.put("/root/holder.py", HOLDER.encode())
        host.put("/etc/systemd/system/holder.service", HOLDING.format(lock=lock).encode())
        host.must(["systemctl", "enable", "-q", "holder.service"])
    host.kill9()
    host.init = "systemd"
    return host


def cut_short(host: LabHost) -> None:
    """Switch it on, and off while it waits for the lock."""

    def boot() -> None:
        with suppress(LabError, ProcessLookupError, FileNotFoundError):
            host.boot()

    def waits() -> bool:
        with suppress(LabError, FileNotFoundError):
            return b"lock" in (host.root / f"{STATE[1:]}/first-boot.log").read_bytes()
        return False

    with ThreadPoolExecutor(1) as pool:
        booting = pool.submit(boot)
        until(waits, "first boot to wait for the lock", 60)
        os.kill(host.pid, signal.SIGKILL)  # `kill9` is not for a host that another thread looks at
        booting.result()
    host.kill9()


def printed(scene: Scene, desk: Desk, built: Path, image: str, form: str, pattern: str) -> bytes:
    """Print user-data that reports to the desk, to the stack and for node-exporter."""
    scene.package(image)
    told = ["--report-to", desk.url, "--report-to", f"prometheus:{TEXTFILES}"]
    told += ["--report-to", "cfn:web/Group?region=eu-central-1"]
    told += ["--report-ca", "/etc/hsm-agent/desk-ca.crt", "--report-token-file", "/etc/hsm-agent/token"]
    return user_data(scene, image, form, next(built.glob(pattern)), told)


@pytest.mark.parametrize(("image", "form", "pattern", "_lock"), HOSTS, ids=[each[0] for each in HOSTS])
def test_a_boot_without_trouble_is_done_when_cloud_init_is(
    make_host: MakeHost,
    scene: Scene,
    desk: Desk,
    built: Path,
    image: str,
    form: str,
    pattern: str,
    _lock: str,
) -> None:
    host = launched(make_host, image, printed(scene, desk, built, image, form, pattern), desk)
    desk.down(yes=False)
    host.boot()
    assert host.must(["cloud-init", "status"]).strip() == "status: done"
    assert right(host, scene) == {"command": "configure", "exit_status": 0, "instance": INSTANCE}
    assert [each["run_id"] for each in desk.taken()] == [last_report(host)["run_id"]]


@pytest.mark.parametrize(("image", "form", "pattern", "lock"), HOSTS, ids=[each[0] for each in HOSTS])
def test_a_host_comes_up_configured_with_nobody_looking(
    make_host: MakeHost, scene: Scene, desk: Desk, built: Path, image: str, form: str, pattern: str, lock: str
) -> None:
    host = launched(make_host, image, printed(scene, desk, built, image, form, pattern), desk, lock)

    cut_short(host)
    host.boot()  # cloud-init runs user-data once; this boot is completed by the unit
    said = host.must(["journalctl", "-b", "-u", UNIT, "--no-pager", "-o", "cat"])
    assert "lock" in said
    assert "this host is configured" in said
    assert right(host, scene) == {"command": "configure", "exit_status": 60, "instance": INSTANCE}, said
    assert (len(spool(host)), desk.taken()) == (1, [])
    signals = [json.loads(line) for line in (desk.folder / "signals").read_text().splitlines()]
    assert [(each["UniqueId"], each["Status"]) for each in signals] == [(INSTANCE, "SUCCESS")]
    assert host.must(["cloud-init", "status"]).strip() == "status: done"

    desk.down(yes=False)
    host.reboot()
    assert show(host, UNIT, "LoadState") == ("not-found",)
    assert ended(host, VERIFY) == ("success", "0")
    assert right(host, scene) == {"command": "verify", "exit_status": 0, "instance": INSTANCE}
    taken = desk.taken()
    assert [(each["command"], each["host"]["instance_id"]) for each in taken] == [
        ("configure", INSTANCE),
        ("verify", INSTANCE),
    ]
    assert {each["Authorization"] for each in desk.headers()} == {f"Bearer {TOKEN}"}
    program = promtool.install()
    if program is not None:
        assert promtool.said_of(program, host.get(f"{TEXTFILES}/hsm_agent.prom").decode()) == (0, "")


def right(host: LabHost, scene: Scene) -> dict[str, Any]:
    """Assert that the host is as it should be, in other eyes than ours, and return what its last report says."""
    for package in ("hsm-agent", "cloudhsm-cli"):
        assert host.testinfra.package(package).is_installed
    assert host.testinfra.file(CA).content == scene.made.ca.cert.read_bytes()
    assert servers(host) == list(scene.addresses)
    timer = host.testinfra.service(TIMER)
    assert (timer.is_enabled, timer.is_running) == (True, True)
    assert show(host, TIMER, "NextElapseUSecRealtime") != ("",)
    left = host.must(["find", "/etc/systemd/system", STATE, "/var/cache/hsm-agent", "-name", "*first-boot*"])
    assert left == ""
    assert host.must(["systemctl", "is-system-running"]).strip() == "running"
    report = last_report(host)
    named: Any = report["host"]
    return {
        "command": report["command"],
        "exit_status": report["exit_status"],
        "instance": named["instance_id"],
    }


@pytest.mark.parametrize("image", [each[0] for each in HOSTS])
def test_cloud_init_and_systemd_find_nothing_wrong(make_host: MakeHost, image: str) -> None:
    host = make_host(f"{image}-cloud", init="idle")
    for path in sorted((CHECKOUT / "tests" / "golden" / "user_data").glob("*.yaml")):
        host.put("/root/user-data", path.read_bytes())
        done = host.run(["cloud-init", "schema", "--config-file", "/root/user-data"])
        assert (done.returncode, done.stdout.startswith("Valid ")) == (0, True), done
        script = yaml.safe_load(path.read_text())["write_files"][0]["content"]
        unit = script[script.index("[Unit]\n") : script.index("\nEND\n", script.index("[Install]\n"))]
        host.put(f"/etc/systemd/system/{UNIT}", f"{unit}\n".encode())
        checked = host.run(["systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{UNIT}"])
        assert (checked.returncode, checked.stderr) == (0, ""), checked
    broken = {**yaml.safe_load(path.read_text()), "runcmd": 5}
    host.put("/root/user-data", f"#cloud-config\n{json.dumps(broken)}".encode())
    assert host.run(["cloud-init", "schema", "--config-file", "/root/user-data"]).returncode != 0


@pytest.mark.parametrize("image", [each[0] for each in HOSTS])
def test_cloud_init_keeps_what_another_part_has_before_ours(make_host: MakeHost, image: str) -> None:
    """Judged by cloud-init's own merger, as it reads the parts of a MIME multi-part one after the other."""
    host = make_host(f"{image}-cloud", init="idle")
    ours = (CHECKOUT / "tests" / "golden" / "user_data" / "deb.yaml").read_bytes()
    host.put("/root/ours", ours)
    host.put(
        "/root/theirs",
        b"runcmd: [[touch, /theirs]]\nwrite_files: [{path: /theirs, content: x}]\nbootcmd: [a]\n",
    )
    merge = """
import importlib.util, json, yaml
from cloudinit import mergers
both = {}
for name in ("/root/theirs", "/root/ours"):
    part = yaml.safe_load(open(name))
    how = mergers.dict_extract_mergers(part) or mergers.default_mergers()
    both = mergers.construct(how).merge(both, part)
print(json.dumps(both))
"""
    both = json.loads(host.must(["python3", "-c", merge]))
    own = yaml.safe_load(ours)
    assert both["runcmd"] == [["touch", "/theirs"], *own["runcmd"]]
    assert [each["path"] for each in both["write_files"]] == [
        "/theirs",
        *(each["path"] for each in own["write_files"]),
    ]
    assert both["bootcmd"] == ["a"]
