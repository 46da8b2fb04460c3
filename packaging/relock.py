"""python packaging/relock.py - choose the libraries anew, the newest that Python 3.9 can have: writes both locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from libraries import LOCK, PYTHON, WINDOWS, Lock

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
# rich asks for them, for Markdown and coloured source text, of which the agent shows none: 5 MB
LEFT_OUT = {"pygments", "markdown-it-py", "mdurl"}
HEADER = """\
# What travels with the agent: wheels by hash, chosen by relock.py. One set for Python 3.9 and newer; what has compiled
# parts twice, for each processor: psutil, and markupsafe, whose pure half is taken. Without pygments and
# markdown-it-py: nothing that is used of rich needs them.
"""
HEADER_OF_WINDOWS = """\
# What of libraries.txt is another wheel on Windows, and what only Windows needs: click writes by colorama.
"""
# its compiled half stays out, and the other is the same everywhere
PURE_HALF = {"markupsafe"}

# `pip --python-version --platform` chooses wheels for another Python and system, yet judges `; python_version < "3.11"`
# by its own; so it is told what to judge by.
_PIP = """
import json
import sys
from pip._vendor.packaging import markers

told = {**markers.default_environment(), **json.loads(sys.argv.pop(1))}
markers.default_environment = lambda: told

from pip._internal.cli.main import main

raise SystemExit(main())
"""


_MARKERS = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
_MARKERS_OF_WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"}


def resolve(platform: str, wanted: list[str], *options: str) -> list[dict[str, Any]] | None:
    """Return what pip would install, None when it finds nothing. One index alone is asked."""
    hidden = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    markers = {**_MARKERS, **(_MARKERS_OF_WINDOWS if platform in WINDOWS.platforms else {})}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        pip = [sys.executable, "-c", _PIP, json.dumps(markers), "install", "--quiet", "--dry-run"]
        pip += [
            "--ignore-installed",
            "--report",
            str(report),
            "--target",
            folder,
            "--only-binary=:all:",
            "--implementation",
            "cp",
        ]
        pip += ["--python-version", PYTHON, "--platform", platform, *options, *wanted]
        if subprocess.run(pip, env={**env, "PIP_CONFIG_FILE": os.devnull}, check=False).returncode:
            return None
        found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
        return found


def sha256(found: dict[str, Any]) -> str:
    return str(found["download_info"]["archive_info"]["hashes"]["sha256"])


def pin(found: dict[str, Any]) -> str:
    return f"{found['metadata']['name'].lower()}=={found['metadata']['version']}"


def line(found: dict[str, Any], lock: Lock) -> str:
    """Return the line of a lock for one library: its pure wheel, or one for each platform."""
    wanted = pin(found)
    if found["download_info"]["url"].endswith("-none-any.whl"):
        return f"{wanted} --hash=sha256:{sha256(found)}"
    wheels = [resolve("any", [wanted], "--no-deps")]
    if not wheels[0]:
        wheels = [resolve(platform, [wanted], "--no-deps") for platform in lock.platforms]
    return " ".join([wanted, *(f"--hash=sha256:{sha256(each[0])}" for each in wheels if each)])


def chosen(lock: Lock, wanted: list[str]) -> list[dict[str, Any]]:
    """Return what a lock is to hold, as pip found it."""
    found = resolve(lock.platforms[0], wanted)
    if found is None:
        sys.exit(f"pip found no set of libraries for {lock.platforms[0]}")
    return [each for each in found if each["metadata"]["name"].lower() not in LEFT_OUT]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = chosen(LOCK, project["dependencies"])
    lines = {line(each, LOCK) for each in found}
    # the same versions on Windows
    there = chosen(WINDOWS, [*map(pin, found), *project["dependencies"]])
    other = {
        line(each, WINDOWS) for each in there if each["metadata"]["name"].lower() not in PURE_HALF
    } - lines
    for lock, header, content in ((LOCK, HEADER, lines), (WINDOWS, HEADER_OF_WINDOWS, other)):
        lock.path.write_text(header + "".join(f"{each}\n" for each in sorted(content)), encoding="utf-8")


if __name__ == "__main__":
    main()
