"""The self-contained build for Windows: interpreter, libraries and agent in a folder, started by its hsm-agent.exe."""

from __future__ import annotations

import shutil
import sys
import zipfile
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bytecode import TOOLS as WINE
from bytecode import bytecode
from files import File, Files, digest, zipped
from interpreter import NAME, TAG, interpreter
from launcher import TOOLS as MINGW
from launcher import launcher
from libraries import WINDOWS, libraries
from msi import TOOLS as MSITOOLS
from msi import msi
from sbom import sbom
from tree import tree

if TYPE_CHECKING:
    from pathlib import Path

    from libraries import Library
    from notes import Note

ARCH = "x86_64"
# A path beside python313.dll turns Python's own search off, with the registry and the user's folders: these are all.
_PATH = f"{NAME}.zip\n.\n..\n"
_ALWAYS = datetime(
    1980, 1, 1, tzinfo=timezone.utc
)  # so that the same library is the same file in every release
_PACKAGES = "wine wine64 gcc-mingw-w64-x86-64 wixl msitools"


def windows(root: Path, wheels: Path, note: Note, out: Path) -> list[Path]:
    """Write the zip, the MSI and the bill of materials into a folder; return their paths."""
    missing = [each for each in (*WINE, *MINGW, *MSITOOLS) if shutil.which(each) is None]
    if missing:
        sys.exit(f"the build for Windows wants {', '.join(missing)}; on Debian: apt-get install {_PACKAGES}")
    python = interpreter(wheels)
    # a library's wheel for Windows takes the place of the one for Linux
    parts = {each.name: each for lock in (libraries(wheels), libraries(wheels, WINDOWS)) for each in lock}
    files = folder(tree(root, list(parts.values())), note.version, python)
    found = digest(files)
    name = f"hsm-agent-{note.version}-{ARCH}-windows-{found[:12]}"
    archive = out / f"{name}.zip"
    content = [(f"{name}/{path}", file.data) for path, file in sorted(files.items())]
    archive.write_bytes(zipped(content, note.date))
    bill = out / f"hsm-agent-{note.version}-{ARCH}-windows.cdx.json"
    bill.write_bytes(sbom(note.version, found, note.date, [*parts.values(), python]))
    return [archive, msi(files, note, out / f"hsm-agent-{note.version}-{ARCH}.msi"), bill]


def folder(tree: Files, version: str, python: Library) -> Files:
    """Return the files: the tree with its bytecode, `python/` with the interpreter, and what starts it."""
    ours = {path: file for path, file in tree.items() if path != "hsm-agent"}
    # templates are filled, not run, and some of them are for older Pythons
    modules = {path for path in ours if path.endswith(".py") and not path.startswith("agent/templates/")}
    standard = {
        f"{NAME}.zip/{path.partition('/')[2]}": file.data
        for path, file in python.files.items()
        if path.startswith("Lib/") and path.endswith(".py")
    }
    compiled = bytecode(python.files, {**standard, **{path: ours[path].data for path in modules}})
    files = {path: File(file.data) for path, file in ours.items()}
    files.update({_beside(path): File(compiled[path]) for path in modules})
    files.update(
        {
            f"python/{PurePosixPath(path).name}": file
            for path, file in python.files.items()
            if not path.startswith("Lib/")
        }
    )
    # as in Python's own embeddable package: one file to open and to install instead of five hundred
    library = [(f"{path.partition('/')[2]}c", compiled[path]) for path in sorted(standard)]
    files[f"python/{NAME}.zip"] = File(zipped(library, _ALWAYS, zipfile.ZIP_STORED))
    files[f"python/{NAME}._pth"] = File(_PATH.encode())
    files["hsm-agent.exe"] = File(launcher(version, NAME))
    return files


def _beside(path: str) -> str:
    source = PurePosixPath(path)
    return str(source.parent / "__pycache__" / f"{source.stem}.{TAG}.pyc")
