"""The wheel for operators of a fleet: the agent as `pip` builds it, with the archive that is sent to hosts."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from files import zipped

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# what pip needs of a checkout; in a copy, since setuptools would also ship deleted files of an earlier build
_PARTS = ("agent", "templates", "pyproject.toml", "README.md")
# where `agent.fleet.agent_archive` reads it
_PLACE = "agent/fleet"


def wheel(root: Path, travelling: Path, date: datetime, out: Path) -> Path:
    """Write the wheel into a folder and return its path. The same tree and source give the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        built = _built(root, Path(folder))
        with zipfile.ZipFile(built) as plain:
            files = {name: plain.read(name) for name in plain.namelist() if name[-1] != "/"}
        name = built.name
    record = next(path for path in files if path.endswith(".dist-info/RECORD"))
    del files[record]
    files[f"{_PLACE}/{travelling.name}"] = travelling.read_bytes()
    files[record] = _record(files, record)
    made = out / name
    record_last = sorted(files.items(), key=lambda each: (each[0] == record, each[0]))
    made.write_bytes(zipped(record_last, date))
    return made


def _built(root: Path, folder: Path) -> Path:
    source = folder / "source"
    source.mkdir()
    for part in _PARTS:
        if (root / part).is_dir():
            shutil.copytree(
                root / part,
                source / part,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.tar.gz"),
            )
        else:
            shutil.copy(root / part, source / part)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(source)], check=True, timeout=300)
    return next(folder.glob("*.whl"))


def _record(files: Mapping[str, bytes], record: str) -> bytes:
    lines = []
    for path, data in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}\n")
    return "".join([*lines, f"{record},,\n"]).encode()
