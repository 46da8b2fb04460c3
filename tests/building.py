"""Packages of this checkout, or of a copy of it, built as a release is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build(source: Path, out: Path, *more: str, **env: str) -> Path:
    argv = [sys.executable, str(source / "packaging" / "build.py"), "--out", str(out), *more]
    argv += ["--wheels", str(ROOT / "build" / "wheels")]
    subprocess.run(argv, check=True, timeout=1200, env={**os.environ, **env}, stdout=subprocess.DEVNULL)
    return out


def copied(source: Path, to: Path) -> Path:
    for name in ("agent", "packaging", "templates"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source / name, to / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(source / name, to / name)
    return to
