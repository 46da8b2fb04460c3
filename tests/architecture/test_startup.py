"""Start-up is a feature: what a command does not use it does not load. Held by what is loaded, not by time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# the costly ones, with the milliseconds each adds to a start
COSTLY = {
    "requests": 99,
    "urllib3": 70,
    "http.client": 30,
    "rich": 45,
    "jinja2": 63,
    "paramiko": 148,
    "psutil": 25,
    "asyncio": 50,
    "multiprocessing": 10,
    "email": 10,
    "importlib.metadata": 40,
    "agent.demo": 45,
    "agent.aws.client": 20,
    "agent.aws.session": 10,
    "botocore": 150,
    "xml.etree.ElementTree": 10,
}

_TELL = "\nimport sys, json; sys.stderr.write('\\n' + json.dumps(sorted(sys.modules)))"

_COMMAND = "import sys\nfrom agent.cli.root import main\nmain(sys.argv[1:])" + _TELL

# What the host in memory needs to fill a package is not what a run needs: it is forgotten, so that a run which wants
# any of it loads it again and is seen to.
_DOUBLE = """
before = set(sys.modules)
from agent.demo import package_contents
needed = set(sys.modules) - before
from tests.fakes.vendor import MIRROR, Vendor
for name in needed:
    del sys.modules[name]
"""

_SECOND_RUN = (
    """
import datetime, os, sys
from agent import commands
from agent.cli import host, root
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.render.progress import NullProgress
from agent.report import RunInfo
"""
    + _DOUBLE
    + """
now = datetime.datetime.now(datetime.timezone.utc)
vendor = Vendor()
memory = vendor.machine(now)
wanted = Desired(
    hsm_ip=vendor.addresses,
    ca_cert=CaSource.of(sys.argv[1]),
    component=tuple(sys.argv[2:]),
    package_source=MIRROR,
    sha256=vendor.checksums(),
    report_to=tuple(filter(None, [os.environ.get("REPORT_TO")])),
)
for number in (1, 2):
    report = commands.configure(memory, wanted, RunInfo(f"2026112{number}T000000Z-0000", "configure", now), NullProgress())
    assert (report.exit_status, report.changed) == (0, number == 1), report
"""
    + _TELL
)


_FAR_END = (
    """
import datetime, io, sys
from agent.config.options import CaSource
from agent.remote import bootstrap, protocol, server
from agent.config.desired import Desired, to_json
"""
    + _DOUBLE
    + """
now = datetime.datetime.now(datetime.timezone.utc)
vendor = Vendor()
memory = vendor.machine(now)
wanted = Desired(
    hsm_ip=vendor.addresses,
    ca_cert=CaSource.of("inline:" + sys.argv[1]),
    package_source=MIRROR,
    sha256=vendor.checksums(),
)
for number in (1, 2):
    asked = {
        "command": "configure", "desired": to_json(wanted), "request": f"run/host/{number}", "again": False,
        "seconds": 600.0, "tree": {"sha256": "f00", "keep": True},
    }
    stream = protocol.RecordStream(io.BytesIO(), io.BytesIO())
    report = server.report_for(memory, protocol.HostRequest.from_json(asked), server.RemoteListener(stream))
    assert (report["exit_status"], report["changed"]) == (0, number == 1), report
"""
    + _TELL
)


def loaded(code: str, *argv: str, **environment: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "argv",
    [
        ["facts"],
        ["fleet", "rollout", "--help"],
        ["explain"],
        ["explain", "hsm-refused"],
        ["configure", "--help"],
        ["cluster", "--help"],
    ],
    ids=" ".join,
)
def test_a_command_loads_nothing_costly(argv: list[str]) -> None:
    assert loaded(_COMMAND, *argv) & set(COSTLY) == set()


@pytest.mark.parametrize("components", [[], ["pkcs11"]], ids=["cli", "cli and pkcs11"])
def test_a_run_with_nothing_to_do_loads_nothing_costly(components: list[str], ca_pem: bytes) -> None:
    modules = loaded(_SECOND_RUN, ca_pem.decode(), *components)
    # on a real host psutil comes in where a library is installed, since only then programs are looked for
    assert modules & set(COSTLY) == set()
    # and what downloads comes in with the first download
    assert modules & {"agent.http.download", "agent.http.client"} == set()
    # and what reports, where there is somebody to tell
    assert not any(name.startswith("agent.sinks") for name in modules)


def test_a_run_that_asks_aws_nothing_loads_none_of_it(ca_pem: bytes) -> None:
    """The handle by which a run would ask is all there is of it: it has 50 lines, and no import."""
    for code, ca in ((_SECOND_RUN, ca_pem.decode()), (_FAR_END, ca_pem.decode())):
        modules = loaded(code, ca)
        assert {name for name in modules if name.startswith("agent.aws.")} <= {"agent.aws.access"}


def test_the_far_end_of_a_roll_out_loads_nothing_costly(ca_pem: bytes) -> None:
    """Every host of a fleet pays for it at every pass: no command line, and nothing that only a touch or a fault uses."""
    modules = loaded(_FAR_END, ca_pem.decode())
    assert "agent.remote.server" in modules
    assert modules & set(COSTLY) == set()
    assert modules & {"typer", "click", "shutil", "tempfile", "lzma", "tarfile", "difflib"} == set()
    assert modules & {"agent.http.download", "agent.http.client"} == set()
    assert not any(name.startswith(("agent.cli", "agent.fleet", "agent.sinks")) for name in modules)


def test_the_far_end_that_is_started_alone_has_no_command_line() -> None:
    code = "import sys\nsys.argv[1:] = ['far-end']\nfrom agent.__main__ import main\nmain()" + _TELL
    modules = loaded(code)
    assert "agent.remote.server" in modules
    assert modules & {*COSTLY, "typer", "click"} == set()
    assert not any(name.startswith(("agent.cli", "agent.fleet")) for name in modules)


def test_a_run_that_writes_its_report_to_a_file_loads_nothing_costly(ca_pem: bytes) -> None:
    modules = loaded(_SECOND_RUN, ca_pem.decode(), REPORT_TO="file:/report.json")
    assert "agent.sinks.delivery" in modules
    assert modules & set(COSTLY) == set()


def test_psutil_comes_in_with_the_look_that_needs_it() -> None:
    look = "from agent.hosts.posix import Posix\nmachine = Posix()\n"
    assert "psutil" not in loaded(look + _TELL)
    assert "psutil" in loaded(look + "machine.processes_mapping('/opt/cloudhsm/')" + _TELL)


def test_programs_are_found_where_psutil_cannot_be_loaded() -> None:
    """Its compiled part cannot be mapped from where nothing may be executed, and `fleet plan` lies in /run."""
    look = "import os, sys\nfrom agent.hosts.posix import Posix\nsys.modules['psutil'] = None\n"
    loaded(look + "assert os.getpid() in {each.pid for each in Posix().processes_mapping('/')}" + _TELL)


def test_the_version_needs_no_command() -> None:
    assert {name for name in loaded(_COMMAND, "--version") if name.startswith("agent.cli.")} == {
        "agent.cli.root"
    }


def test_the_question_about_a_cluster_needs_nothing_of_a_run() -> None:
    modules = loaded(_COMMAND, "cluster", "--help")
    assert modules & {"agent.cli.host", "agent.commands", "agent.engine", "agent.planner"} == set()
    assert "agent.cli.cluster" in modules


def test_only_the_demo_loads_the_stand_ins() -> None:
    assert "agent.demo.play" in loaded(_COMMAND, "demo", "--help")
    assert "agent.demo" not in loaded(_COMMAND, "verify", "--help")
