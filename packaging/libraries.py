"""The libraries that are shipped with the agent: the wheels that a lock names by hash, and the files used of them."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from files import File, Files

if TYPE_CHECKING:
    from email.message import Message

SERIES = "3.13"  # of CPython in the builds with an interpreter
MACHINES = ("x86_64", "aarch64")
# the installer's records, tests, and markupsafe's compiled half, which fits one version of Python only
_LEFT_OUT = re.compile(
    r"\.dist-info/(RECORD|WHEEL|INSTALLER|entry_points\.txt|top_level\.txt)$|/tests/|^markupsafe/_speedups\."
)


@dataclass(frozen=True)
class Lock:
    """A file of `name==version --hash=...`: its Python, and its platforms by pip's names."""

    path: Path
    python: str
    platforms: tuple[str, ...]


_LINUX = tuple(f"manylinux2014_{machine}" for machine in MACHINES)
# Packages and the tree run on the host's own Python. 3.9 is the oldest supported one, and what runs there runs on newer
# ones; but several libraries have dropped it, and their fixes need a newer Python.
LOCK = Lock(Path(__file__).with_name("libraries.txt"), "3.9", _LINUX)
# The builds with an interpreter take the newest libraries for it.
CURRENT = Lock(Path(__file__).with_name("libraries-current.txt"), SERIES, _LINUX)
WINDOWS = Lock(Path(__file__).with_name("libraries-windows.txt"), SERIES, ("win_amd64",))


@dataclass(frozen=True)
class Library:
    """One library as it is shipped."""

    name: str
    version: str
    metadata: Message
    wheels: tuple[str, ...]  # SHA-256 of each, or of the sources that it is compiled from
    files: Files
    registry: str = "pypi"  # as in package URLs
    cpe: str = ""  # vendor:product as in vulnerability databases; those of PyPI are found by package URL


def locked(path: Path) -> dict[str, tuple[str, ...]]:
    """Return the hashes for each `name==version` of a lock."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    return {line.split(" ", 1)[0]: tuple(re.findall(r"--hash=sha256:(\w{64})", line)) for line in lines}


def libraries(wheels: Path, lock: Lock = LOCK) -> list[Library]:
    """Return every library of a lock from the wheels in a folder; download what the folder lacks."""
    wanted = locked(lock.path)
    found = by_hash(wheels, "*.whl")
    if any(each not in found for hashes in wanted.values() for each in hashes):
        download(wheels, lock)
        found = by_hash(wheels, "*.whl")
    missing = [name for name, hashes in wanted.items() if any(each not in found for each in hashes)]
    if missing:
        sys.exit(f"the index has no file with the hash of {lock.path.name} for {', '.join(missing)}")
    return [_library(name, hashes, [found[each] for each in hashes]) for name, hashes in wanted.items()]


def by_hash(folder: Path, pattern: str) -> dict[str, Path]:
    """Return the files of a folder by their SHA-256."""
    return {hashlib.sha256(each.read_bytes()).hexdigest(): each for each in sorted(folder.glob(pattern))}


def download(wheels: Path, lock: Lock) -> None:
    """Let pip download the wheels of a lock into a folder. The caller checks that all are there."""
    # the hashes decide, so that an index can neither add nor replace a file; the caller reports what is missing
    for platform in lock.platforms:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary=:all:", "--require-hashes", "--implementation", "cp"]
        pip += ["--python-version", lock.python, "--platform", platform]
        subprocess.run([*pip, "--dest", str(wheels), "--requirement", str(lock.path)], check=False)


def _library(wanted: str, hashes: tuple[str, ...], wheels: list[Path]) -> Library:
    name, _, version = wanted.partition("==")
    contents = [_content(each) for each in wheels]
    files = contents[0] if len(wheels) == 1 else _for_both(wanted, contents)
    text = next(file.data for path, file in files.items() if path.endswith(".dist-info/METADATA"))
    metadata = HeaderParser().parsestr(text.decode("utf-8"))
    return Library(name, version, metadata, hashes, files)


def _content(wheel: Path) -> Files:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name[-1] != "/" and not _LEFT_OUT.search(name)]
        return {name: File(archive.read(name)) for name in names}


def _for_both(wanted: str, contents: list[Files]) -> Files:
    """Join the wheels for both processors: one Python part, and a folder of compiled modules for each machine."""
    joined: Files = {}
    for machine, files in zip(MACHINES, contents):
        for path, file in files.items():
            here = PurePosixPath(path)
            if here.suffix == ".so":
                joined[str(here.parent / machine / here.name)] = file
            elif joined.setdefault(path, file) != file:
                sys.exit(f"{wanted}: {path} differs between {' and '.join(MACHINES)}")
    for folder in {PurePosixPath(path).parts[0] for path in joined if path.endswith(".so")}:
        path = f"{folder}/__init__.py"
        joined[path] = File(_finding_its_machine(joined[path].data))
    return joined


def _finding_its_machine(source: bytes) -> bytes:
    """Return a package's __init__ with one more statement, which adds this machine's folder to its path."""
    lines = source.decode("utf-8").splitlines(keepends=True)
    body = ast.parse(source).body
    first = [each for each in body[:1] if isinstance(each, ast.Expr)]  # its docstring
    futures = [each for each in body if isinstance(each, ast.ImportFrom) and each.module == "__future__"]
    after = max((each.end_lineno or 0 for each in (*first, *futures)), default=0)
    line = '__path__.append(__path__[0] + "/" + __import__("os").uname().machine)  # added by hsm-agent\n'
    return "".join([*lines[:after], line, *lines[after:]]).encode()
