"""What a run may need is loaded before it touches anything: the agent's own package may be exchanged under it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.http.imds import ENDPOINT
from tests.fakes.aws import answers, says
from tests.fakes.imds import imds
from tests.fakes.receiver import only, receiver

if TYPE_CHECKING:
    from importlib.metadata import PackagePath

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    "requests",
    "urllib3",
    "idna",
    "certifi",
    "charset-normalizer",
    "psutil",
    "typing_extensions",
    "tomli",
)

# A run against a host in memory, in a process of its own whose agent and libraries are gone from the first touch of a
# configure tool on. Reports go to files of that host and to a receiver on this machine's loopback.
_RUN = """
import datetime, http.server, json, shutil, sys, threading
from dataclasses import replace
from pathlib import Path
from agent import commands
from agent.core.host import CommandResult
from agent.config.desired import Desired
from agent.config.options import CaSource
from agent.render.progress import NullProgress
from agent.render.json_report import to_document
from agent.report import RunInfo
from agent.sinks import spool
from tests.fakes.vendor import MIRROR, Vendor

mode, tree, ca_pem = sys.argv[1], Path(sys.argv[2]), sys.stdin.read()
got = []

class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        got.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(500 if mode == "refused" else 204)
        self.end_headers()
    def log_message(self, *words): pass

server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
now = datetime.datetime.now(datetime.timezone.utc)
vendor = Vendor(addresses=("10.0.1.6", "10.0.2.9"))
memory = vendor.machine(now)
memory.place("/out/.keep")
memory.ports["10.0.9.9", 2223] = "hsm-refused"
wanted = Desired(
    hsm_ip=vendor.addresses, ca_cert=CaSource.of(ca_pem), component=("pkcs11",), package_source=MIRROR, sha256=vendor.checksums(),
    report_to=("file:/out/report.json", "junit:/out/report.xml", "prometheus:/out",
               f"http://127.0.0.1:{server.server_port}/in"),
)

def run(name):
    return RunInfo(name, "configure", now)

if mode in ("undone", "stopped"):
    quiet = replace(wanted, report_to=())
    assert commands.configure(memory, quiet, run("20261121T000000Z-0000"), NullProgress()).exit_status == 0
tool = vendor.layout.tool("cli")
real = memory.programs[tool]

def vanish(argv, host):
    done = real(argv, host)
    shutil.rmtree(tree)
    if mode == "stopped":
        host.stopped = True
    return done

memory.programs[tool] = vanish
if mode == "undone":
    wanted = replace(wanted, hsm_ip=("10.0.1.6", "10.0.9.9"))
if mode == "stopped":
    wanted = replace(wanted, accept_single_hsm=True)
report = commands.configure(memory, wanted, run("20261122T000000Z-0000"), NullProgress())
assert not tree.exists()
kept = [memory.read(f"/out/{name}") for name in ("report.json", "report.xml", "hsm_agent.prom")]
print(json.dumps({"code": report.code, "exit_status": report.exit_status, "received": len(got),
                  "files": [bool(each) for each in kept], "notices": [each.code for each in report.notices],
                  "saw": report.failure.saw if report.failure else None}))
"""


def copied(tree: Path) -> None:
    """Put the agent and the libraries of a host in a folder of their own, as a package does."""
    shutil.copytree(ROOT / "agent", tree / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    for name in LIBRARIES:
        try:
            found: list[PackagePath] = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for file in found:
            if ".." in file.parts or "__pycache__" in file.parts:
                continue
            goal = tree / file
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), goal)
    shutil.copytree(ROOT / "tests" / "fakes", tree / "tests" / "fakes")
    shutil.copy(ROOT / "tests" / "__init__.py", tree / "tests" / "__init__.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "code", "status"),
    [
        ("success", None, 0),
        ("refused", "report-undelivered", 60),
        ("undone", "rolled-back", 51),
        ("stopped", "interrupted", 130),
    ],
)
def test_a_run_whose_agent_is_removed_under_it_ends_as_it_would_have(
    tmp_path: Path, ca_pem: bytes, mode: str, code: str | None, status: int
) -> None:
    tree = tmp_path / "lib"
    copied(tree)
    done = subprocess.run(
        [sys.executable, "-S", "-c", _RUN, mode, str(tree)],
        input=ca_pem.decode(), capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["code"], said["exit_status"]) == (code, status), done.stdout
    assert said["files"] == [True, True, True]
    assert said["received"] >= 1


# Stands in a program where all is loaded that a run loads first: what is loaded from here on is noted.
_GONE = """
class Gone:
    late = []
    def find_spec(self, name, path=None, target=None):
        self.late.append(name)
        return None

gone = Gone()
sys.meta_path.insert(0, gone)
"""
# Everything that the machine's own adapter loads late, asked for after what a run loads first: by then nothing may be
# loaded from the disk any more.
_LATE = """
import http.server, json, sys, threading
from pathlib import Path
from agent.core.errors import AgentError
from agent.hosts import ready
from agent.hosts.local import local_host

folder = Path(sys.argv[1])

class Mirror(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302); self.send_header("Location", "/file"); self.end_headers(); return
        if self.path != "/file":
            self.send_error(404); return
        self.send_response(200); self.send_header("Content-Length", "5"); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *words): pass

server = http.server.HTTPServer(("127.0.0.1", 0), Mirror)
threading.Thread(target=server.serve_forever, daemon=True).start()
base = f"http://127.0.0.1:{server.server_port}"
machine = local_host()
ready.load_for_run()
ready.load_for_web()

#GONE

def tried(function, *words, **more):
    try:
        return function(*words, **more)
    except AgentError as error:
        return error.code.name

fetch = lambda url: tried(machine.download, url, str(folder / "file"), sha256=None, limit=100, timeout=3)
said = [
    fetch(base + "/moved"), fetch(base + "/nothing"), fetch("http://127.0.0.1:1/file"), fetch("https://127.0.0.1:1/x"),
    fetch("file://" + str(folder / "none")), tried(machine.http_get, "https://localhost:1/", limit=9, timeout=3),
]
(folder / "deep").mkdir()
(folder / "deep" / "file").touch()
machine.remove(str(folder / "deep"))
machine.query(("uname", "-m"), timeout=5)
machine.connect("127.0.0.1", server.server_port, timeout=1)
# a name that is not there is asked for again and again by libraries that can do without it
print(json.dumps({"said": said, "late": [each for each in gone.late if each in sys.modules]}))
"""


@pytest.mark.slow
def test_nothing_is_loaded_after_what_is_loaded_first(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LATE.replace("#GONE", _GONE), str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["late"] == [], said
    assert "package-not-found" in said["said"]


# The same for a signal to CloudFormation, which asks AWS; the servers are of another process, since what they load counts.
_SIGNALLED = """
import json, sys
import agent.sinks.delivery
from agent.hosts import ready
from agent.hosts.local import local_host
from agent.sinks.message import DeliveryContext, OutgoingReport, UndeliveredError
from agent.sinks.registry import load, send

machine = local_host()
ready.load_for_run()
load(["cfn:web/Group?region=eu-central-1"])

#GONE
document = json.dumps({"run_id": "r", "host": {"name": "h", "instance_id": None}, "exit_status": 0, "code": None})
said = []
for endpoint in (sys.argv[1], sys.argv[1], "https://127.0.0.1:1"):
    environ = {"AWS_ENDPOINT_URL": endpoint, "AWS_CONTAINER_CREDENTIALS_FULL_URI": sys.argv[2]}
    means = DeliveryContext(machine, machine.monotonic() + 20, environ)
    try:
        send(OutgoingReport("cfn:web/Group?region=eu-central-1", document), means)
        said.append("sent")
    except UndeliveredError as error:
        said.append(error.saw)
print(json.dumps({"said": said, "late": [each for each in gone.late if each in sys.modules]}))
"""


_EXPLAINED = """
import json, sys
from agent.aws.access import AwsAccess
from agent.core.model import Plan, StepOutcome, StepResult
from agent.diagnosis import Diagnosis
from agent.engine import EngineResult
from agent.hosts import ready
from agent.hosts.local import local_host
from agent.render.progress import NullProgress
from agent.steps.reach import Reach

machine = local_host()
ready.load_for_run()
ready.load_for_diagnosis()

#GONE
environ = json.loads(sys.argv[1])
probe = Reach("10.0.1.6", 2223, 5.0)
failed = StepResult(probe.id, StepOutcome.FAILED, "timed out", "connected", "hsm-timed-out", "?")
known = Diagnosis(machine, AwsAccess(machine, environ), environ, "cluster-2abcdefghij")
result = known.explain(EngineResult((failed,)), Plan((), (probe,)), NullProgress())
said = [[each.code for each in result.steps], [each.text for each in result.notices]]
print(json.dumps({"said": said, "late": [each for each in gone.late if each in sys.modules]}))
"""


@pytest.mark.slow
def test_nothing_is_loaded_to_find_a_cause_after_what_is_loaded_first() -> None:
    nothing = says(
        "<DescribeNetworkInterfacesResponse><networkInterfaceSet/></DescribeNetworkInterfacesResponse>"
    )
    own = {"interface-id": "eni-1", "vpc-id": "vpc-1", "subnet-id": "subnet-1", "local-ipv4s": "10.0.0.5",
           "security-group-ids": "sg-1", "security-groups": "web"}  # fmt: skip
    with receiver(nothing) as aws, imds(role="web") as metadata:
        metadata.texts["placement/region"] = "eu-central-1"
        metadata.texts["network/interfaces/macs/"] = "02:00:00:00:00:01/"
        for name, text in own.items():
            metadata.texts[f"network/interfaces/macs/02:00:00:00:00:01/{name}"] = text
        environ = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws.server_port}", ENDPOINT: metadata.url}
        done = subprocess.run(
            [sys.executable, "-c", _EXPLAINED.replace("#GONE", _GONE), json.dumps(environ)],
            capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["late"] == [], found
    codes, notices = found["said"]
    assert codes == ["group-not-attached"] * 2
    assert any("no interface with the address 10.0.1.6" in each for each in notices)


@pytest.mark.slow
def test_nothing_is_loaded_for_a_signal_after_what_is_loaded_first() -> None:
    keys = {"AccessKeyId": "A", "SecretAccessKey": "S", "Token": "T", "Expiration": "2099-01-01T00:00:00Z"}
    late = says("<Error><Code>ValidationError</Code><Message>&quot;late&quot;</Message></Error>", 403)
    taken = says("<SignalResourceResponse><ResponseMetadata/></SignalResourceResponse>")
    with receiver(late, only(503), taken) as aws, receiver(answers(keys)) as platform:
        urls = [f"http://127.0.0.1:{each.server_port}" for each in (aws, platform)]
        done = subprocess.run(
            [sys.executable, "-c", _SIGNALLED.replace("#GONE", _GONE), *urls],
            capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["late"] == [], said
    assert ('"late"' in said["said"][0], said["said"][1]) == (True, "sent")
    assert "refused" in said["said"][2]
