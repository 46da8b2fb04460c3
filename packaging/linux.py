"""The self-contained build for Linux: interpreter, libraries, agent and the program `hsm-agent` in one folder.

For hosts without Python 3.9 or newer: RHEL 8 (glibc 2.28) and Amazon Linux 2 (2.26) by default.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bytecode import here
from cpython import LIBRARY, cpython
from files import File, Files, digest, packed
from installed import installed, pages
from libraries import CURRENT, libraries
from rights import LICENCE, rights
from rpm import UNITS, rpm
from sbom import sbom
from selfcontained import ARCHIVE, selfcontained, standard
from tree import LAUNCHER, tree

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from libraries import Library
    from notes import Note

_START = """\
#!/bin/sh
# Start hsm-agent with the interpreter beside this file; nothing is written there.
here=$(dirname "$(readlink -f "$0")")
exec "$here/python/bin/python3" -I -B "$here/start.py" "$@"
"""


def linux(root: Path, wheels: Path, notes: Sequence[Note], out: Path) -> list[Path]:
    """Write for each processor the tarball, the rpm and the bill of materials into a folder; return their paths."""
    note = notes[0]
    parts = libraries(wheels, CURRENT)
    compiled = cpython(wheels.with_name("sources"))
    # bytecode is the same for every processor, and this machine's interpreter is the first
    native = next(iter(compiled.values()))[0]
    plain = tree(root, parts)
    documents = pages(plain, note.date)
    made = []
    for processor, (python, *linked) in compiled.items():
        files = folder(plain, python, native)
        name = f"hsm-agent-{note.version}-{processor}-linux"
        bill = out / f"{name}.cdx.json"
        bill.write_bytes(sbom(note.version, digest(files), note.date, [*parts, python, *linked]))
        package = installed(root, files, documents, UNITS)
        terms = rights(note, parts)  # those of the interpreter lie beside it
        made += [
            packed(name, files, note.date, out),
            rpm(package, notes, terms, LICENCE, out, processor),
            bill,
        ]
    return made


def folder(tree: Files, python: Library, native: Library) -> Files:
    """Return the files: the tree with its bytecode, `python/` with the interpreter, and the launcher."""
    files, archive = selfcontained(tree, standard(python, LIBRARY), partial(here, native.files))
    return {
        **files,
        **{f"python/{path}": file for path, file in python.files.items() if not path.endswith(".py")},
        f"python/lib/{ARCHIVE}": archive,
        "hsm-agent": File(_START.encode(), 0o755),
        "start.py": File(LAUNCHER.encode()),
    }
