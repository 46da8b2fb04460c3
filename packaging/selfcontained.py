"""The common part of the self-contained builds: interpreter, libraries and agent in one folder."""

from __future__ import annotations

import re
import zipfile
from datetime import datetime, timezone
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Callable

from files import File, Files, zipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from libraries import Library

ARCHIVE = "python313.zip"  # CPython reads its standard library from here before it tries a folder
# Left out of the standard library, by path: tools for developers, windows, and installers of libraries. No shipped
# module imports them.
NOT_NEEDED = re.compile(
    r"(test|tkinter|idlelib|turtledemo|turtle\.py|lib2to3|ensurepip|venv|site-packages|unittest|doctest\.py|pydoc.*|_pyrepl"
    r"|curses|dbm|sqlite3|config-.*|_sysconfigdata.*)(/|$)|.*__pycache__/"
)
_TAG = "cpython-313"
# so that an unchanged library is the same file in every release
_ALWAYS = datetime(1980, 1, 1, tzinfo=timezone.utc)


def selfcontained(
    tree: Files,
    standard: Mapping[str, bytes],
    compiled_by: Callable[[Mapping[str, bytes]], dict[str, bytes]],
) -> tuple[Files, File]:
    """Return the tree without its launcher and with its bytecode, and the standard library's bytecode as an archive."""
    ours = {path: file for path, file in tree.items() if path != "hsm-agent"}
    # templates are rendered, not run, and some are for older Pythons
    modules = {path for path in ours if path.endswith(".py") and not path.startswith("agent/templates/")}
    there = {f"{ARCHIVE}/{path}": data for path, data in standard.items()}
    compiled = compiled_by({**there, **{path: ours[path].data for path in modules}})
    # as in Python's embeddable package: one file to open and to install instead of five hundred
    library = [(f"{path.partition('/')[2]}c", compiled[path]) for path in sorted(there)]
    beside = {_beside(path): File(compiled[path]) for path in modules}
    return {**ours, **beside}, File(zipped(library, _ALWAYS, zipfile.ZIP_STORED))


def standard(python: Library, below: str) -> dict[str, bytes]:
    """Return the sources of the standard library below a folder of an interpreter, by their paths in it."""
    return {
        path.removeprefix(below): file.data
        for path, file in python.files.items()
        if path.startswith(below) and path.endswith(".py")
    }


def _beside(path: str) -> str:
    source = PurePosixPath(path)
    return str(source.parent / "__pycache__" / f"{source.stem}.{_TAG}.pyc")
