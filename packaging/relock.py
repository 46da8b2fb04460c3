"""python packaging/relock.py - choose the newest libraries for each Python, and write the three locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from libraries import CURRENT, LOCK, WINDOWS, Lock

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
# rich requires them for Markdown and coloured source code, which the agent does not show: 5 MB
LEFT_OUT = {"pygments", "markdown-it-py", "mdurl"}
_HEADERS = {
    LOCK: """\
# The libraries of the tree and of the packages, which the host's own Python runs: wheels by hash, chosen by relock.py,
# the newest that Python 3.9 can have. What has compiled parts stands twice, for each processor: psutil, and markupsafe,
# whose pure half is taken. Without pygments and markdown-it-py: nothing that is used of rich needs them.
""",
    CURRENT: """\
# The libraries of the builds that bring their interpreter: as libraries.txt, the newest that this interpreter can have.
""",
    WINDOWS: """\
# What of libraries-current.txt is another wheel on Windows, and what only Windows needs: click writes by colorama.
""",
}
# only its pure half is shipped, which is the same everywhere
PURE_HALF = {"markupsafe"}

# `pip --python-version --platform` chooses wheels for another Python and system, but evaluates the marker
# `; python_version < "3.11"` for its own. So this program replaces the values that markers see.
_PIP = """
import json
import sys
from pip._vendor.packaging import markers

values = {**markers.default_environment(), **json.loads(sys.argv.pop(1))}
markers.default_environment = lambda: values

from pip._internal.cli.main import main

raise SystemExit(main())
"""


_MARKERS_OF_WINDOWS = {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"}


def resolve(python: str, platform: str, wanted: list[str], *options: str) -> list[dict[str, Any]] | None:
    """Return what pip would install, or None if it finds nothing. It uses only the index of this machine."""
    markers = {"python_version": python, "python_full_version": f"{python}.0"}
    markers.update(_MARKERS_OF_WINDOWS if platform in WINDOWS.platforms else {})
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
        pip += ["--python-version", python, "--platform", platform, *options, *wanted]
        if subprocess.run(pip, env=_one_index(), check=False).returncode:
            return None
        found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
        return found


def _one_index() -> dict[str, str]:
    """Return an environment in which pip uses only the index that this machine is configured for.

    A folder of wheels has no `requires-python`: from one, pip took libraries for a newer Python.
    """
    hidden = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    for name in ("index-url", "cert"):
        asked = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        if found:
            environment.setdefault(f"PIP_{name.replace('-', '_').upper()}", found)
    return {**environment, "PIP_CONFIG_FILE": os.devnull}


def sha256(found: dict[str, Any]) -> str:
    return str(found["download_info"]["archive_info"]["hashes"]["sha256"])


def pin(found: dict[str, Any]) -> str:
    return f"{found['metadata']['name'].lower()}=={found['metadata']['version']}"


def line(found: dict[str, Any], lock: Lock) -> str:
    """Return the line of a lock for one library: its pure wheel, or one for each platform."""
    wanted = pin(found)
    if found["download_info"]["url"].endswith("-none-any.whl"):
        return f"{wanted} --hash=sha256:{sha256(found)}"
    wheels = [resolve(lock.python, "any", [wanted], "--no-deps")]
    if not wheels[0]:
        wheels = [resolve(lock.python, platform, [wanted], "--no-deps") for platform in lock.platforms]
    return " ".join([wanted, *(f"--hash=sha256:{sha256(each[0])}" for each in wheels if each)])


def chosen(lock: Lock, wanted: list[str]) -> list[dict[str, Any]]:
    """Return the text of a lock, from what pip found."""
    found = resolve(lock.python, lock.platforms[0], wanted)
    if found is None:
        sys.exit(f"pip found no set of libraries for {lock.platforms[0]}")
    return [each for each in found if each["metadata"]["name"].lower() not in LEFT_OUT]


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"]
    current = chosen(CURRENT, wanted)
    lines = {
        lock: {line(each, lock) for each in found}
        for lock, found in ((LOCK, chosen(LOCK, wanted)), (CURRENT, current))
    }
    # the same versions on Windows
    there = chosen(WINDOWS, [*map(pin, current), *wanted])
    different = [each for each in there if each["metadata"]["name"].lower() not in PURE_HALF]
    lines[WINDOWS] = {line(each, WINDOWS) for each in different} - lines[CURRENT]
    for lock, content in lines.items():
        text = _HEADERS[lock] + "".join(f"{each}\n" for each in sorted(content))
        lock.path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
