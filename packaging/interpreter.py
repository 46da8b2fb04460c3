"""CPython for Windows as built by the Python Software Foundation: fetched by hash, without what is not needed."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email.message import Message
from pathlib import Path, PurePosixPath

from files import File, Files
from libraries import SERIES, Library, by_hash, locked
from selfcontained import NOT_NEEDED

PINS = Path(__file__).with_name("interpreters.txt")
NAME = "python313"  # of its DLL, and of the files that the DLL reads beside it
LIBRARY = "Lib/"
_KEPT = re.compile(
    r"(python|python3|python313|vcruntime140|vcruntime140_1)\.(exe|dll)$|LICENSE\.txt$"
    r"|DLLs/(?!_tkinter|tcl86t|tk86t|zlib1|_sqlite3|sqlite3|winsound|_test).*\.(pyd|dll)$"
)


def interpreter(wheels: Path) -> Library:
    """Return it with its files as built: python.exe, DLLs/, Lib/; without what is never shipped."""
    wanted, (sha256,) = next(
        each for each in locked(PINS).items() if each[0].split("==")[1].startswith(SERIES)
    )
    if sha256 not in by_hash(wheels, "*.tar.gz"):
        _download(wheels, wanted, sha256)
    found = by_hash(wheels, "*.tar.gz").get(sha256)
    if found is None:
        sys.exit(f"the index has no file with the hash of {PINS.name} for {wanted}")
    with tarfile.open(found) as sdist:
        data = _member(sdist, "*/data.zip")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        metadata = _metadata(archive)
        # the sdist has the version of its packer
        version = metadata["Version"]
        return Library("python", version, metadata, (sha256,), _kept(archive), "generic", "python:python")


def _download(wheels: Path, wanted: str, sha256: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        requirement = Path(folder, "wanted.txt")
        requirement.write_text(f"{wanted} --hash=sha256:{sha256}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += [
            "--no-binary=:all:",
            "--require-hashes",
            "--dest",
            str(wheels),
            "--requirement",
            str(requirement),
        ]
        subprocess.run(pip, check=False)


def _member(sdist: tarfile.TarFile, pattern: str) -> bytes:
    member = next(each for each in sdist.getmembers() if PurePosixPath(each.name).match(pattern))
    file = sdist.extractfile(member)
    if file is None:
        sys.exit(f"{member.name} is no file")
    return file.read()


def _metadata(archive: zipfile.ZipFile) -> Message:
    """Return its metadata: the sdist has only that of its packer."""
    (header,) = (name for name in archive.namelist() if name.endswith("/include/patchlevel.h"))
    found = re.search(rb'#define PY_VERSION\s+"(.+)"', archive.read(header))
    metadata = Message()
    if found is None:
        sys.exit(f"{header} names no version")
    metadata["Version"] = found[1].decode()
    metadata["Summary"] = f"CPython {found[1].decode()} for Windows, as built by its makers"
    metadata["License-Expression"] = "PSF-2.0"
    return metadata


def _kept(archive: zipfile.ZipFile) -> Files:
    files: Files = {}
    for name in archive.namelist():
        path = name.partition("/")[2]
        module = path.removeprefix(LIBRARY) if path.startswith(LIBRARY) and path.endswith(".py") else None
        if _KEPT.match(path) or (module and not NOT_NEEDED.match(module)):
            files[path] = File(archive.read(name))
    return files
