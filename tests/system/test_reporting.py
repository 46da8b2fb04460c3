"""Reports of a real host: to a receiver with TLS that is down at first, and to files that other programs judge."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests import promtool
from tests.system.desk import TEXTFILES, TOKEN, Desk, spool

from .scene import STATE, Scene, agent, cluster, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import MakeHost
    from .host import LabHost
    from .lab import Lab

IMAGE = "ubuntu24.04"


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[Scene]:
    with cluster(lab, tmp_path) as made:
        made.package(IMAGE)
        yield made


@pytest.fixture
def desk(lab: Lab, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(lab, tmp_path_factory.mktemp("desk"))


@pytest.fixture
def host(scene: Scene, desk: Desk, make_host: MakeHost) -> LabHost:
    made = make_host(IMAGE, agent=True)
    prepare(made, scene)
    made.put("/etc/hsm-agent/desk-ca.crt", desk.ca.read_bytes())
    made.put("/etc/hsm-agent/token", f"{TOKEN}\n".encode(), 0o600)
    made.must(["mkdir", "-p", TEXTFILES])
    return made


def test_down_for_the_first_reports_and_back_for_the_next(scene: Scene, desk: Desk, host: LabHost) -> None:
    to = [
        desk.url,
        f"prometheus:{TEXTFILES}",
        "junit:/root/junit.xml",
        "file:/root/report.json",
        "cloudwatch:/hosts/hsm/h1",
    ]
    told = [word for uri in to for word in ("--report-to", uri)]
    told += ["--report-ca", "/etc/hsm-agent/desk-ca.crt", "--report-token-file", "/etc/hsm-agent/token"]

    first = agent(host, "configure", *scene.options(IMAGE), *told)
    assert (first.exit_status, first.code, first.report["outcome"]) == (60, "report-undelivered", "ok"), first
    assert "HTTP 503" in first.report["warnings"][-1]["text"]
    assert "team=hsm" not in str(first)
    assert len(spool(host)) == 1
    status = host.run(["hsm-agent", "status"], user="nobody")
    assert (status.returncode, "report-undelivered" in status.stdout) == (60, True)

    host.must(["rm", "/root/customerCA.crt"])  # what it was told it remembers
    second = agent(host, "verify")
    assert (second.exit_status, len(spool(host)), desk.taken()) == (60, 2, [])

    desk.down(yes=False)
    third = agent(host, "verify")
    assert (third.exit_status, third.outcomes, third.told & {"report-undelivered"}) == (0, {"met"}, set()), (
        third
    )
    assert spool(host) == []
    taken = desk.taken()
    assert [(each["run_id"], each["command"]) for each in taken] == [
        (ran.report["run_id"], command)
        for ran, command in ((first, "configure"), (second, "verify"), (third, "verify"))
    ]
    assert [each["exit_status"] for each in taken] == [0, 0, 0]
    assert {each["Authorization"] for each in desk.headers()} == {f"Bearer {TOKEN}"}

    for path in (f"{TEXTFILES}/hsm_agent.prom", "/root/junit.xml", "/root/report.json"):
        seen = host.testinfra.file(path)
        assert (seen.user, seen.mode) == ("root", 0o644)
    assert json.loads(host.get("/root/report.json")) == third.report
    assert ET.fromstring(host.get("/root/junit.xml")).get("failures") == "0"
    events = [json.loads(line) for line in host.get("/var/log/hsm-agent/emf.log").splitlines()]
    assert [each["run_id"] for each in events] == [each["run_id"] for each in taken]

    for place in (STATE, "/var/log", "/run"):
        assert host.run(["grep", "-rqs", TOKEN, place]).returncode == 1
    listed = host.run(["ls", f"{STATE}/spool"], user="nobody")
    assert listed.returncode != 0


def test_promtool_finds_nothing_wrong_with_the_metrics_of_good_and_bad_runs(
    scene: Scene, host: LabHost
) -> None:
    program = promtool.install()
    if program is None:
        pytest.skip("no promtool, and no apt to bring it from Debian's package prometheus")
    to = ["--report-to", f"prometheus:{TEXTFILES}"]
    bad = agent(host, "configure", "--hsm-ip", "nowhere", *to)
    pages = [host.get(f"{TEXTFILES}/hsm_agent.prom").decode()]
    good = agent(host, "configure", *scene.options(IMAGE), *to)
    pages.append(host.get(f"{TEXTFILES}/hsm_agent.prom").decode())
    assert (bad.exit_status, good.exit_status) == (2, 0)
    assert [promtool.said_of(program, page) for page in pages] == [(0, ""), (0, "")]
    assert ["hsm_agent_exit_status 2" in pages[0], "hsm_agent_exit_status 0" in pages[1]] == [True, True]
    assert all(f'hsm_agent_hsm_reached{{ip="{ip}",port="2223"}} 1' in pages[1] for ip in scene.addresses)


def test_a_receiver_that_cannot_be_trusted_is_told_nothing(scene: Scene, desk: Desk, host: LabHost) -> None:
    desk.down(yes=False)
    options = [*scene.options(IMAGE), "--report-to", desk.url, "--report-token-file", "/etc/hsm-agent/token"]
    ran = agent(host, "configure", *options)  # the host's own store does not know this CA
    assert (ran.exit_status, desk.taken()) == (60, [])
    assert "the server's certificate" in ran.report["warnings"][-1]["text"]
    assert not (desk.folder / "requests").exists()
    cured = agent(host, "verify", "--report-ca", "/etc/hsm-agent/desk-ca.crt")
    assert (cured.exit_status, [each["command"] for each in desk.taken()]) == (0, ["configure", "verify"])


def test_a_script_waits_for_the_run_that_is_at_work(make_host: MakeHost) -> None:
    host = make_host(IMAGE, agent=True)
    host.put(f"{STATE}/report.json", b'{"schema_version": 1, "run_id": "before"}')
    run = (
        "import sys; sys.path.insert(0, '/usr/lib/hsm-agent'); from agent.core.system import LINUX;"
        "from agent.hosts.posix import Posix; from agent.state.records import write_report\n"
        "with Posix().lock(LINUX.lock, 'hsm-agent configure, run after'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
        "    write_report(Posix(), sys.argv[2])"
    )
    report = json.dumps({"schema_version": 1, "run_id": "after", "exit_status": 41})
    at_work = host.start(["python3", "-c", run, "hsm-agent", report])
    assert at_work.stdout is not None
    assert at_work.stdin is not None
    assert at_work.stdout.readline() == b"held\n"
    vain = host.run(["hsm-agent", "status", "--wait", "1s"], user="nobody")
    assert (vain.returncode, "hsm-agent configure, run after" in vain.stderr) == (75, True), vain
    waits = host.start(["hsm-agent", "status", "--wait", "30s", "--output", "json"], user="nobody")
    at_work.stdin.close()
    out, err = waits.communicate(timeout=30)
    assert (waits.returncode, json.loads(out)["run_id"]) == (41, "after"), err


# What every other process on the host is called with and given, until it is told to stop.
WATCHER = """
import os, pathlib, sys, time
def now(folder):
    try:
        return (folder / "cmdline").read_bytes()
    except OSError:
        return b""
seen, ends = set(), time.monotonic() + 300
print("watching", flush=True)
while not os.path.exists("/root/stop") and time.monotonic() < ends:
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words, given = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        # what a person typed and exported is there for as long as that command runs, and is not ours to hide
        if words and b"hsm-agent" not in words and words == now(folder) and folder.name != str(os.getpid()):
            seen.add(words + b" with " + given)
    time.sleep(0.005)
sys.stdout.buffer.write(b"\\n".join(seen))
"""


@pytest.mark.parametrize("end", ["well", "a mirror that refuses", "a receiver that is down"])
def test_no_secret_is_anywhere_but_where_it_is_for(scene: Scene, desk: Desk, host: LabHost, end: str) -> None:
    """Searched: what is printed, what everybody may read, the log, and what other processes are called with."""
    mirror, query, exported = "mirror-s3cret", "query-s3cret", "exported-s3cret"
    desk.down(yes=end == "a receiver that is down")
    if end == "a mirror that refuses":
        scene.mirror_faults(_="403")
    options = scene.options(IMAGE)
    options[options.index("--package-source") + 1] += f"?sig={mirror}"
    options += ["--report-to", f"{desk.url}&key={query}", "--report-ca", "/etc/hsm-agent/desk-ca.crt"]
    options += ["--report-token-file", "/etc/hsm-agent/token"]
    watcher = host.start(["python3", "-c", WATCHER])
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == b"watching\n"
    printed = ""
    for command in ("plan", "configure", "verify", "status"):
        words = options if command in ("plan", "configure") else []
        for form in ("text", "json"):
            argv = [
                "env",
                f"HSM_AGENT_REPORT_TOKEN={exported}",
                "hsm-agent",
                command,
                *words,
                "--output",
                form,
            ]
            done = host.run(argv, timeout=180)
            printed += done.stdout + done.stderr
    host.put("/root/stop", b"")
    others, _ = watcher.communicate(timeout=60)
    assert b"apt-get" in others or b"dpkg" in others
    if end == "well":
        assert {each["Authorization"] for each in desk.headers()} == {f"Bearer {TOKEN}"}
    journal = host.run(["journalctl", "--no-pager"]).stdout
    readable = host.must(
        ["find", "/etc", "/var", "/run", "/tmp", "/opt", "-xdev", "-type", "f", "-perm", "-o=r"]
    ).split("\n")
    for secret in (mirror, query, exported, TOKEN):
        assert secret not in printed
        assert secret not in journal
        assert [each for each in others.split(b"\n") if secret.encode() in each] == []
        assert host.run(["grep", "-lsF", secret, *filter(None, readable)]).stdout == ""
    assert mirror in host.get(f"{STATE}/desired.json").decode()  # where it must be, it would be found
