"""The judge of metrics files: `promtool` of Debian's package prometheus, without the server that comes with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.system import images

KEPT = Path("/var/cache/hsm-agent-lab/promtool")


def install() -> str | None:
    """Return the program, unpacked from Debian's package where it is missing; None where there is no apt or no root."""
    found = _find()
    if found is not None or shutil.which("apt-get") is None or os.geteuid() != 0:
        return found
    with images.only_one_builder():  # another worker of this run may be at it
        if _find() is None:
            _unpack()
    return _find()


def _find() -> str | None:
    return shutil.which("promtool") or (str(KEPT) if KEPT.is_file() else None)


def _unpack() -> None:
    # to install it would leave a server that starts with the machine
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as folder:
        for argv in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "download", "prometheus"]):
            subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=300)
        (package,) = Path(folder).glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), f"{folder}/x"], check=True, timeout=300)
        Path(folder, "x/usr/bin/promtool").replace(KEPT)


def said_of(program: str, page: str) -> tuple[int, str]:
    """Return exit status and words of `promtool check metrics`; (0, "") is a page with nothing wrong."""
    done = subprocess.run(
        [program, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr
