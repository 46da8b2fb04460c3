"""python packaging/relock.py - choose the libraries anew, the newest that Python 3.9 can have: writes libraries.txt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from libraries import LOCK, MACHINES, PYTHON

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

# `pip --python-version` chooses wheels for another Python, yet judges `; python_version < "3.11"` by its own; so it is
# told what to judge by.
_PIP = """
import sys
from pip._vendor.packaging import markers

own = markers.default_environment()
python = sys.argv.pop(1)
markers.default_environment = lambda: {**own, "python_version": python, "python_full_version": python + ".0"}

from pip._internal.cli.main import main

raise SystemExit(main())
"""


def resolve(platform: str, wanted: list[str], *options: str) -> list[dict[str, Any]] | None:
    """Return what pip would install, None when it finds nothing. One index alone is asked."""
    hidden = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        pip = [sys.executable, "-c", _PIP, PYTHON, "install", "--quiet", "--dry-run", "--ignore-installed"]
        pip += ["--report", str(report), "--target", folder, "--only-binary=:all:", "--implementation", "cp"]
        pip += ["--python-version", PYTHON, "--platform", platform, *options, *wanted]
        if subprocess.run(pip, env={**env, "PIP_CONFIG_FILE": os.devnull}, check=False).returncode:
            return None
        found: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
        return found


def sha256(found: dict[str, Any]) -> str:
    return str(found["download_info"]["archive_info"]["hashes"]["sha256"])


def line(found: dict[str, Any]) -> str:
    """Return the line of libraries.txt for one library: its pure wheel, or one for each processor."""
    name, version = found["metadata"]["name"].lower(), found["metadata"]["version"]
    wanted = f"{name}=={version}"
    if found["download_info"]["url"].endswith("-none-any.whl"):
        return f"{wanted} --hash=sha256:{sha256(found)}"
    chosen = [resolve("any", [wanted], "--no-deps")]
    if not chosen[0]:
        chosen = [resolve(f"manylinux2014_{machine}", [wanted], "--no-deps") for machine in MACHINES]
    return " ".join([wanted, *(f"--hash=sha256:{sha256(each[0])}" for each in chosen if each)])


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = resolve(f"manylinux2014_{MACHINES[0]}", project["dependencies"])
    if found is None:
        sys.exit("pip found no set of libraries")
    kept = [each for each in found if each["metadata"]["name"].lower() not in LEFT_OUT]
    LOCK.write_text(HEADER + "".join(f"{each}\n" for each in sorted(map(line, kept))), encoding="utf-8")


if __name__ == "__main__":
    main()
