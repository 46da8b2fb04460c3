"""hsm-agent as a person types it on the Windows of these tests: in this process, or as a program of its own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.cli.root import main
from agent.core.timeouts import Timeouts
from agent.hosts.local import local_host
from agent.package_managers.msi import Msi
from tests.windows.cluster import FIRST, SECOND
from tests.windows.found import CLUSTER, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

VENDOR = Source("vendor")
PROGRAMS = Path(r"C:\Program Files\Amazon\CloudHSM")
DATA = Path(r"C:\ProgramData\Amazon\CloudHSM")
OWN = Path(r"C:\ProgramData\hsm-agent")
MOODS = Path(r"C:\ProgramData\cloudhsm-standin")
SETTINGS = DATA / "data" / "cloudhsm-cli.cfg"
CA = DATA / "customerCA.crt"
WAIT = 120.0


@dataclass(frozen=True)
class Ran:
    """What a call of hsm-agent came to."""

    status: int
    report: dict[str, Any]

    @property
    def steps(self) -> dict[str, str]:
        return {step["id"]: step["outcome"] for step in self.report["steps"]}

    def step(self, name: str) -> dict[str, Any]:
        return next(step for step in self.report["steps"] if step["id"] == name)


def hsm_agent(*words: str) -> Ran:
    """Run a command here: loading everything anew takes Wine three seconds each time."""
    out = io.TextIOWrapper(
        io.BytesIO(), encoding="utf-8", write_through=True
    )  # a stream of bytes, as a real one
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        status = main([*words, "--output", "json"])
    for handler in logging.getLogger("agent").handlers:
        handler.close()  # a file that is open cannot be removed
    out.seek(0)
    return Ran(status, json.loads(out.read()))


def program(*words: str) -> subprocess.Popen[str]:
    """Start a command as a program of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "agent", *words, "--output", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


def ended(going: subprocess.Popen[str]) -> Ran:
    """Wait for a program and read what it says."""
    said, _ = going.communicate(timeout=WAIT)
    return Ran(going.returncode, json.loads(said))


def words(*more: str, source: Source = VENDOR, ips: tuple[str, ...] = (FIRST, SECOND)) -> list[str]:
    """What an operator types; Wine says that it is a Windows 10, so the row is named."""
    sums = [f"--sha256={path.rpartition('/')[2]}={digest}" for path, digest in source.checksums().items()]
    return [
        "--platform=windows", *(f"--hsm-ip={each}" for each in ips), f"--ca-cert={CLUSTER.ca}",
        f"--package-source={source.folder}", *sums, *more,
    ]  # fmt: skip


def configure(*more: str, source: Source = VENDOR, ips: tuple[str, ...] = (FIRST, SECOND)) -> Ran:
    return hsm_agent("configure", *words(*more, source=source, ips=ips))


def misbehave(tool: str, word: str) -> None:
    MOODS.mkdir(exist_ok=True)
    (MOODS / tool).write_text(word, encoding="ascii")


def end_tools() -> None:
    """End what a killed agent left at work: a tool is let finish, and one that hangs never does."""
    subprocess.run(
        ["taskkill", "/f", "/im", "configure-cli.exe"], capture_output=True, check=False, timeout=WAIT
    )


def servers(path: Path = SETTINGS) -> list[str]:
    tree = json.loads(path.read_text(encoding="utf-8"))
    return [each["hostname"] for each in tree["clusters"][0]["cluster"]["servers"]]


def installed() -> dict[str, str]:
    return {each.package: each.version for each in Msi().installed(local_host())}


@pytest.fixture(autouse=True)
def a_virgin_host() -> Iterator[None]:
    """Nothing of the vendor's and of the agent's lies there before a test and behind it; nor is an option set."""
    told = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("HSM_AGENT_")}
    _clear()
    yield
    CLUSTER.mode("normal")
    end_tools()
    _clear()
    os.environ.update(told)


def _clear() -> None:
    host = local_host()
    Msi().remove(host, list(installed()), Timeouts())
    for folder in (DATA, PROGRAMS, OWN, MOODS):
        host.remove(str(folder))
