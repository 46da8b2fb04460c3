"""Bytecode, made by the same interpreter that reads it: another patch release writes other bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from files import File, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOOLS = ("wine", "wineserver")
_ALWAYS = {"LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}

# One process and one order: which strings are shared, and so the bytes, depends on what was compiled before. The header
# has the hash of the source (PEP 552), unchecked, so that neither times nor checkouts matter. One file in and one out:
# in Wine, opening a file takes twice as long as compiling it.
_COMPILE = """
import importlib.util, marshal, zipfile

header = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little")
with zipfile.ZipFile("sources.zip") as sources, zipfile.ZipFile("compiled.zip", "w") as compiled:
    for path in sources.namelist():
        source = sources.read(path)
        code = marshal.dumps(compile(source, path, "exec", dont_inherit=True))
        compiled.writestr(path, header + importlib.util.source_hash(source) + code)
"""


def in_wine(interpreter: Mapping[str, File], sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the bytecode of each `*.py`, made by a CPython for Windows; tracebacks show the path."""
    with tempfile.TemporaryDirectory() as name:
        folder = _laid_out(interpreter, sources, Path(name))
        with _prefix(folder / "prefix") as environment:
            # Wine's own services start with this and live for seconds: they must not hold the pipe of what comes
            # next, which has to be a pipe, since in Wine 8 Python cannot write to a file
            _run(["wine", "cmd", "/c", "exit"], folder, environment)
            return _compiled(["wine", str(folder / "python" / "python.exe")], folder, environment)


def here(interpreter: Mapping[str, File], sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the same, made by a CPython for this system."""
    with tempfile.TemporaryDirectory() as name:
        folder = _laid_out(interpreter, sources, Path(name))
        return _compiled([str(folder / "python" / "bin" / "python3")], folder, _ALWAYS)


def _laid_out(interpreter: Mapping[str, File], sources: Mapping[str, bytes], folder: Path) -> Path:
    lay_out({f"python/{path}": file for path, file in interpreter.items()}, folder, 0)
    (folder / "compile.py").write_text(_COMPILE, encoding="ascii")
    with zipfile.ZipFile(folder / "sources.zip", "w") as packed:
        for path, data in sorted(sources.items()):
            packed.writestr(path, data)
    return folder


def _compiled(python: list[str], folder: Path, environment: dict[str, str]) -> dict[str, bytes]:
    done = _run([*python, "-B", "-W", "ignore", "compile.py"], folder, environment, subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{' '.join(python)} could not compile the sources: {done.stdout}")
    with zipfile.ZipFile(folder / "compiled.zip") as packed:
        return {path: packed.read(path) for path in packed.namelist()}


@contextmanager
def _prefix(own: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a Wine prefix: the caller's, or a temporary one."""
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("HOME", "PATH", "WINEPREFIX")},
        "WINEDEBUG": "-all",
        **_ALWAYS,
    }
    if "WINEPREFIX" in environment:
        yield environment
        return
    environment["WINEPREFIX"] = str(own)
    _run(["wine", "wineboot", "-i"], own.parent, environment)
    # Wine 8 is a Windows 7 by default, which CPython 3.13 refuses
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
