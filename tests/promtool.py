"""The judge of metrics files: `promtool` of Debian's package prometheus, without the server that comes with it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

KEPT = Path("/var/cache/hsm-agent-lab/promtool")


def find() -> str | None:
    """Return the program that is installed, or that the lab has unpacked."""
    return shutil.which("promtool") or (str(KEPT) if KEPT.is_file() else None)


def install() -> str | None:
    """Return the program, unpacked from Debian's package where it is missing; None where there is no apt."""
    found = find()
    if found is not None or shutil.which("apt-get") is None:
        return found
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT.parent) as folder:
        subprocess.run(
            ["apt-get", "-qq", "download", "prometheus"], cwd=folder, check=True, capture_output=True
        )
        (package,) = Path(folder).glob("prometheus_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(package), f"{folder}/x"], check=True)
        Path(folder, "x/usr/bin/promtool").replace(KEPT)
    return find()


def said_of(program: str, page: str) -> tuple[int, str]:
    """Return exit status and words of `promtool check metrics`; (0, "") is a page with nothing wrong."""
    done = subprocess.run(
        [program, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr
