"""Packages of this checkout, or of a copy of it, built as a release is; those of the checkout once in a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

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


@dataclass(frozen=True)
class Release:
    """What all workers of a run share: the checkout at one moment, and what was built of that."""

    source: Path
    dist: Path

    @property
    def archive(self) -> Path:
        """The archive that travels to a host."""
        (found,) = self.dist.glob("hsm-agent-far-end-*")
        return found


def release_of_this_run(factory: pytest.TempPathFactory, *more: str) -> Release:
    """Build the checkout, or return what another worker has built of it; `more` goes to build.py."""
    folder = _folder_of_all_workers(factory) / "-".join(["release", *(each.strip("-") for each in more)])
    folder.mkdir(exist_ok=True)
    made = Release(folder / "source", folder / "dist")
    with _one_worker_at_a_time(folder):
        if not made.dist.exists():
            for draft in folder.glob("*"):  # of a build that failed
                shutil.rmtree(draft)
            build(copied(ROOT, made.source), folder / "draft", *more).rename(made.dist)
    return made


def _folder_of_all_workers(factory: pytest.TempPathFactory) -> Path:
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextmanager
def _one_worker_at_a_time(folder: Path) -> Iterator[None]:
    import fcntl  # what starts inside Wine imports this module, and has none

    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
