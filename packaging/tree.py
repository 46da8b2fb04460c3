"""The tree: the agent and its libraries in one folder, run where it lies by any Python from 3.9 on; and its far end."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from files import File, Files

if TYPE_CHECKING:
    from pathlib import Path

    from libraries import Library

UNITS = "agent/templates/units/"
# What only a person at a command line needs. The far end of a roll-out is without: it goes to every host, and each file
# of it is unpacked there.
_TYPED = (
    "agent/__main__.py",
    "agent/user_data.py",
    "agent/cli/",
    "agent/fleet/",
    "agent/hosts/ssh/",
    "agent/lab/",
    "agent/render/fleet/",
    "agent/render/progress.py",
    "agent/render/templates.py",
    "agent/templates/",
)
_TYPED_LIBRARIES = ("annotated-doc", "click", "jinja2", "markupsafe", "rich", "shellingham", "typer")
LAUNCHER = '''\
#!/usr/bin/python3 -I
"""Start hsm-agent from the folder in which this file lies."""

import os
import sys

if sys.version_info < (3, 9):
    sys.exit("hsm-agent needs Python 3.9 or newer, and %s is %d.%d" % ((sys.executable,) + sys.version_info[:2]))
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from agent.__main__ import main

main()
'''


def version(root: Path) -> str:
    """Return the agent's version, a literal in its source."""
    text = (root / "agent" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', text, re.MULTILINE)
    if found is None:
        sys.exit("agent/__init__.py has no __version__ of the form 1.2.3")
    return found[1]


def tree(root: Path, libraries: list[Library]) -> Files:
    """Return the files of the tree: `hsm-agent` starts it."""
    files: Files = {"hsm-agent": File(LAUNCHER.encode(), 0o755), **_sources(root)}
    for library in libraries:
        files.update(library.files)
    return files


def far_end(root: Path, libraries: list[Library]) -> Files:
    """Return the files that a roll-out sends: `agent.landing` starts it."""
    files = {path: file for path, file in _sources(root).items() if not path.startswith(_TYPED)}
    for library in libraries:
        if library.name not in _TYPED_LIBRARIES:
            files.update(library.files)
    return files


def _sources(root: Path) -> Files:
    files: Files = {}
    sources = {each.relative_to(root).as_posix(): each for each in (root / "agent").rglob("*")}
    # agent/templates is a link to these, which some Pythons follow and others do not; units go where systemd looks
    templates = {
        f"agent/{each.relative_to(root).as_posix()}": each for each in (root / "templates").rglob("*")
    }
    for path, source in sorted({**sources, **templates}.items()):
        is_ours = "__pycache__" not in source.parts and source.suffix != ".md" and not path.startswith(UNITS)
        if is_ours and source.is_file():
            data = source.read_bytes()
            mode = 0o755 if path.startswith("agent/lab/") and data.startswith(b"#!") else 0o644
            files[path] = File(data, mode)
    return files
