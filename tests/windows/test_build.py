"""The build for Windows: made on Debian without a network, the same bytes twice, and used as a host uses it, in Wine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.building import ROOT, copied
from tests.windows import root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system

OLDER, NEWER = "0.1.0", "0.1.1"
PYTHON = "3.13"
FETCH = """
import sys
from pathlib import Path
from interpreter import interpreter
from libraries import CURRENT, WINDOWS, libraries
wheels = Path(sys.argv[1])
wheels.mkdir(parents=True, exist_ok=True)
libraries(wheels, CURRENT), libraries(wheels, WINDOWS), interpreter(wheels)
"""


@dataclass(frozen=True)
class Built:
    """The folders with what was built, by version, the older once more, and how a host liked it."""

    once: dict[str, Path]
    again: Path
    used: subprocess.CompletedProcess[str]
    results: Path


def source(to: Path, version: str) -> Path:
    """Copy this checkout and make it one of that version."""
    copied(ROOT, to)
    for path, pattern in (
        ("agent/__init__.py", r'(?<=^__version__ = ")[^"]+'),
        ("packaging/changelog", r"(?<=^hsm-agent \()[^)]+"),
    ):
        text = (to / path).read_text(encoding="utf-8")
        (to / path).write_text(re.sub(pattern, version, text, count=1, flags=re.MULTILINE), encoding="utf-8")
    return to


def build(python: root.Python, scratch: Path, version: str, *env: str) -> Path:
    argv = ["env", *env, "python3", "-B", "/scratch/source/packaging/build.py", "--windows"]
    argv += ["--out", f"/scratch/{version}", "--wheels", "/src/build/wheels"]
    done = root.enter(python, argv, scratch, seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return scratch / version


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two versions side by side; then the older again, while a host uses both: one worker has all tests of this file."""
    reason = root.reason_not_to_run()
    if reason:
        pytest.skip(reason)
    try:
        python = root.ensure()[PYTHON]
    except root.LabError as error:
        pytest.skip(f"Wine cannot be had here: {error}")
    argv = [sys.executable, "-c", FETCH, str(ROOT / "build" / "wheels")]
    subprocess.run(argv, check=True, cwd=ROOT / "packaging", timeout=300)
    scratch = {name: tmp_path_factory.mktemp(name) for name in (OLDER, NEWER, "again")}
    source(scratch[OLDER] / "source", OLDER)
    source(scratch[NEWER] / "source", NEWER)
    elsewhere = copied(scratch[OLDER] / "source", scratch["again"] / "source")
    for path in elsewhere.rglob("*"):  # as another person's checkout is
        os.utime(path, (1, 1))
    with ThreadPoolExecutor(max_workers=2) as pool:
        going = {each: pool.submit(build, python, scratch[each], each) for each in (OLDER, NEWER)}
        once = {version: each.result() for version, each in going.items()}
        later = pool.submit(build, python, scratch["again"], OLDER, "TZ=Pacific/Auckland", "LANG=de_DE.UTF-8")
        host = tmp_path_factory.mktemp("host")
        for version, folder in once.items():
            folder.rename(host / version)
            once[version] = host / version
        words = [
            "-m", "pytest", "-q", "-p", "no:cacheprovider", r"--junitxml=Z:\scratch\report.xml",
            "tests/windows/suite_of_build.py",
        ]  # fmt: skip
        used = root.run(python, words, host, seconds=300)
        return Built(once, later.result(), used, host / "report.xml")


def test_a_host_uses_it(built: Built) -> None:
    assert built.used.returncode == 0, (built.used.stdout + built.used.stderr)[-8000:]
    cases = ET.parse(built.results).findall(".//testcase")
    assert len(cases) >= 15
    assert [case for case in cases if case.find("skipped") is not None] == []


def test_the_same_source_gives_the_same_bytes(built: Built) -> None:
    assert {each.name: each.read_bytes() for each in built.again.iterdir()} == {
        each.name: each.read_bytes() for each in built.once[OLDER].iterdir()
    }


def test_checksums_and_bill_are_those_of_the_files(built: Built) -> None:
    folder = built.once[OLDER]
    lines = (folder / "SHA256SUMS.windows").read_text().splitlines()
    named = {line.split("  ")[1]: line.split("  ")[0] for line in lines}
    made = {each.name: each.read_bytes() for each in folder.iterdir() if each.name != "SHA256SUMS.windows"}
    assert named == {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
    (bill,) = (data.decode() for name, data in made.items() if name.endswith(".cdx.json"))
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(bill) is None
    parts = {each["name"] for each in json.loads(bill)["components"]}
    assert {"python", "openssl", "expat", "colorama", "psutil", "certifi"} <= parts
