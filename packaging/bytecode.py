"""Bytecode for Windows, made by the very interpreter that will read it, inside Wine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from files import File, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOOLS = ("wine", "wineserver")

# One process and one order: which strings are shared, and so the bytes, depends on what was compiled before. The hash
# of the source is in it and never looked at, so that neither times nor checkouts matter.
_COMPILE = """
import pathlib, py_compile

top = pathlib.Path("sources")
for path in sorted(top.rglob("*.py"), key=lambda each: each.as_posix()):
    py_compile.compile(
        str(path), f"{path}c", path.relative_to(top).as_posix(), doraise=True, quiet=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""


def bytecode(interpreter: Mapping[str, File], sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the bytecode of each `*.py`; a path is what a traceback will show. Ends the build when there is none."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {f"python/{path}": file for path, file in interpreter.items()}
        files.update({f"sources/{path}": File(data) for path, data in sources.items()})
        files["compile.py"] = File(_COMPILE.encode())
        lay_out(files, folder, 0)
        with _prefix(folder / "prefix") as environment:
            # Wine's own services start with this and live on for seconds: they shall not hold the pipe of what comes
            # next, which has to be a pipe, since in Wine 8 Python cannot write to a file
            _run(["wine", "cmd", "/c", "exit"], folder, environment)
            argv = ["wine", str(folder / "python" / "python.exe"), "-B", "-W", "ignore", "compile.py"]
            done = _run(argv, folder, environment, subprocess.PIPE)
        if done.returncode:
            sys.exit(f"Windows Python could not compile the sources: {done.stdout}")
        return {path: (folder / "sources" / f"{path}c").read_bytes() for path in sources}


@contextmanager
def _prefix(own: Path) -> Iterator[dict[str, str]]:
    """Give the environment of a Wine prefix: the caller's, or one that is made and ended for this."""
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("HOME", "PATH", "WINEPREFIX")},
        "WINEDEBUG": "-all",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
    }
    if "WINEPREFIX" in environment:
        yield environment
        return
    environment["WINEPREFIX"] = str(own)
    _run(["wine", "wineboot", "-i"], own.parent, environment)
    # Wine 8 is a Windows 7 unless it is told, which CPython 3.13 refuses
    _run(["wine", "winecfg", "-v", "win10"], own.parent, environment)
    try:
        yield environment
    finally:
        _run(["wineserver", "-w"], own.parent, environment)


def _run(
    argv: list[str], folder: Path, environment: dict[str, str], output: int = subprocess.DEVNULL
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, cwd=folder, env=environment, check=False, timeout=300, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
    )  # fmt: skip
