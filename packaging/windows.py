"""The self-contained build for Windows: interpreter, libraries, agent and hsm-agent.exe in one folder."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bundled import of_windows
from bytecode import TOOLS as WINE
from bytecode import in_wine
from files import File, Files, digest, zipped
from interpreter import LIBRARY, NAME, interpreter
from launcher import TOOLS as MINGW
from launcher import launcher
from libraries import CURRENT, WINDOWS, libraries
from msi import TOOLS as MSITOOLS
from msi import msi
from sbom import sbom
from selfcontained import ARCHIVE, selfcontained, standard
from tree import tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from libraries import Library
    from notes import Note

ARCH = "x86_64"
# A file python313._pth beside python313.dll turns off Python's search, the registry and the user's folders: only these
# paths count.
_PATH = f"{ARCHIVE}\n.\n..\n"
_PACKAGES = "wine wine64 gcc-mingw-w64-x86-64 wixl msitools"


def windows(root: Path, wheels: Path, notes: Sequence[Note], out: Path) -> list[Path]:
    """Write the zip, the MSI and the bill of materials into a folder; return their paths."""
    note = notes[0]
    missing = [each for each in (*WINE, *MINGW, *MSITOOLS) if shutil.which(each) is None]
    if missing:
        sys.exit(f"the build for Windows wants {', '.join(missing)}; on Debian: apt-get install {_PACKAGES}")
    python = interpreter(wheels)
    # a library's wheel for Windows replaces the one for Linux
    parts = {
        each.name: each for lock in (libraries(wheels, CURRENT), libraries(wheels, WINDOWS)) for each in lock
    }
    files = folder(tree(root, list(parts.values())), note.version, python)
    found = digest(files)
    name = f"hsm-agent-{note.version}-{ARCH}-windows-{found[:12]}"
    archive = out / f"{name}.zip"
    content = [(f"{name}/{path}", file.data) for path, file in sorted(files.items())]
    archive.write_bytes(zipped(content, note.date))
    bill = out / f"hsm-agent-{note.version}-{ARCH}-windows.cdx.json"
    bill.write_bytes(
        sbom(note.version, found, note.date, [*parts.values(), python, *of_windows(python.files)])
    )
    return [archive, msi(files, note, out / f"hsm-agent-{note.version}-{ARCH}.msi"), bill]


def folder(tree: Files, version: str, python: Library) -> Files:
    """Return the files: the tree with its bytecode, `python/` with the interpreter, and the launcher."""
    files, archive = selfcontained(tree, standard(python, LIBRARY), partial(in_wine, python.files))
    for path, file in python.files.items():
        if not path.startswith(LIBRARY):
            files[f"python/{PurePosixPath(path).name}"] = file
    files[f"python/{ARCHIVE}"] = archive
    files[f"python/{NAME}._pth"] = File(_PATH.encode())
    files["hsm-agent.exe"] = File(launcher(version, NAME))
    # Windows has no modes, and they must not change the digest of the content
    return {path: File(file.data) for path, file in files.items()}
