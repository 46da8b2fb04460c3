"""The Windows adapter, held to the contract of every host by the contract suite itself, inside Wine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.windows import cluster, packages, root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

SUITES = tuple(
    f"tests/contract/test_{name}.py"
    for name in (
        "host",
        "windows_host",
        "windows_msi",
        "windows_firewall",
        "windows_log",
        "windows_tasks",
        "windows_main_job",
        "windows_cluster_id",
        "far_end_alone",
        "windows_far_end",
    )
)
# what one Python has to run: what goes wrong says the same on either, and in the stand-ins nothing of ours runs
ALONE = {
    "3.11": "tests/contract/test_windows_standin.py",
    "3.13": "tests/contract/test_windows_faults.py",
}
# what a test inside may say when it does not run
REASONS = (
    "a thing of POSIX, or arranged with its programs",
    "only root of Linux can become another user or mount",
    "only root can become another user",
    "Wine says that it made a link, and makes none",
    "this machine has no IPv6",
)


@dataclass(frozen=True)
class Ran:
    """What a run of the suites inside Wine left: its exit status and words, and its result file."""

    done: subprocess.CompletedProcess[str]
    results: Path


def certify(folder: Path) -> None:
    """A key and a certificate in one file, and the certificate alone beside it: there is no openssl in Windows."""
    path = folder / "server.pem"
    argv = [
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=hsm",
        "-addext", "subjectAltName=IP:127.0.0.1",
    ]  # fmt: skip
    subprocess.run(
        [*argv, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True, timeout=60
    )
    path.write_bytes(path.read_bytes() + (folder / "server.pem.crt").read_bytes())
    path.chmod(0o644)


def run(python: root.Python, made: Path, folder: Path) -> Ran:
    """Run the suites beside a cluster of their own, with copies of what was made for all."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", r"--junitxml=Z:\scratch\report.xml"]
    words += [*SUITES, ALONE[python.version]]
    done = root.run(python, words, folder, seconds=1200, before=cluster.BESIDE)
    shutil.rmtree(folder / "pyc", ignore_errors=True)
    return Ran(done, folder / "report.xml")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """The suites on every Python, side by side: one worker has all tests of this file."""
    reason = root.reason_not_to_run()
    if reason:
        pytest.skip(reason)
    try:
        pythons = root.ensure()
    except root.LabError as error:
        pytest.skip(f"Wine cannot be had here: {error}")
    made = tmp_path_factory.mktemp("made")
    certify(made)
    cluster.prepare(made)
    packages.make(next(iter(pythons.values())), made)
    with ThreadPoolExecutor(max_workers=len(pythons)) as pool:
        going = {
            version: pool.submit(run, python, made, tmp_path_factory.mktemp(f"windows-{version}"))
            for version, python in pythons.items()
        }
        return {version: each.result() for version, each in going.items()}


@pytest.mark.parametrize("version", root.VERSIONS)
def test_windows_keeps_what_every_host_promises(ran: dict[str, Ran], version: str) -> None:
    done = ran[version].done
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    cases = ET.parse(ran[version].results).findall(".//testcase")
    told = [skipped.get("message", "") for case in cases for skipped in case.findall("skipped")]
    assert [reason for reason in told if not reason.startswith(REASONS)] == []
    assert len(cases) - len(told) >= 100


def test_the_checker_of_types_has_nothing_to_say_of_windows() -> None:
    """On Linux it does not look at what only Windows runs."""
    done = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--platform", "win32", "--follow-imports=silent",
            "--cache-dir=.mypy_cache/windows", "agent/hosts/windows", "agent/hosts/local.py",
            *map(str, root.CHECKOUT.glob("tests/contract/test_windows_*.py")),
            "tests/windows/found.py", "tests/windows/job.py", "tests/windows/suite_of_build.py",
        ],
        cwd=root.CHECKOUT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
