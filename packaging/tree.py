"""The tree: agent and libraries in one folder, which any Python from 3.9 on runs in place; and the far end's part."""

from __future__ import annotations

import ast
import re
import sys
from typing import TYPE_CHECKING

from files import File, Files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from libraries import Library

UNITS = "agent/templates/units/"
# The entry points of the far end. Exactly what these import, at import time or later, is sent: it goes to every host,
# and each file is unpacked there.
_FAR_END = ("agent.remote.bootstrap", "agent.remote.server")
# The manual, the only documents that hosts need. Pages for contributors are below it, in dev/.
_MANUAL = re.compile(r"agent/docs/(reference/)?[\w-]+\.md")
_TYPED_LIBRARIES = ("annotated-doc", "click", "jinja2", "markupsafe", "rich", "shellingham", "typer")
LAUNCHER = '''\
#!/usr/bin/python3 -I
"""Start hsm-agent from the folder of this file."""

import os
import sys

if sys.version_info < (3, 9):
    sys.exit("hsm-agent needs Python 3.9 or newer, and %s is %d.%d" % ((sys.executable,) + sys.version_info[:2]))
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from agent.__main__ import main

main()
'''


def version(root: Path) -> str:
    """Return the agent's version, a literal in its source."""
    text = (root / "agent" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', text, re.MULTILINE)
    if found is None:
        sys.exit("agent/__init__.py has no __version__ of the form 1.2.3")
    return found[1]


def tree(root: Path, libraries: list[Library]) -> Files:
    """Return the files of the tree: `hsm-agent` starts it."""
    files: Files = {"hsm-agent": File(LAUNCHER.encode(), 0o755), **_sources(root)}
    for library in libraries:
        files.update(library.files)
    return files


def far_end(root: Path, libraries: list[Library]) -> Files:
    """Return the files that a roll-out sends: `agent.remote.bootstrap` starts it."""
    sources = _sources(root)
    modules = _imported({path: file.data for path, file in sources.items() if path.endswith(".py")})
    rooms = {path.rsplit("/", 1)[0] for path in modules}
    files = {
        path: file
        for path, file in sources.items()
        if path in modules or (not path.endswith(".py") and path.rsplit("/", 1)[0] in rooms)
    }
    for library in libraries:
        if library.name not in _TYPED_LIBRARIES:
            files.update(library.files)
    return files


def _imported(sources: dict[str, bytes]) -> set[str]:
    """Return the sources that the far end imports, directly or not, with their packages."""
    found: set[str] = set()
    waiting = list(_FAR_END)
    while waiting:
        name = waiting.pop()
        path = name.replace(".", "/")
        path = f"{path}.py" if f"{path}.py" in sources else f"{path}/__init__.py"
        if path not in sources or path in found:
            continue
        found.add(path)
        waiting += [name.rpartition(".")[0], *_imports(sources[path])]
    return found


def _imports(source: bytes) -> Iterator[str]:
    """Yield what a module imports at run time; of a name, its module and the module that it may be itself."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        else:
            waiting += ast.iter_child_nodes(node)


def _sources(root: Path) -> Files:
    files: Files = {}
    sources = {each.relative_to(root).as_posix(): each for each in (root / "agent").rglob("*")}
    # agent/templates is a link to these, which only some Pythons follow; units are installed where systemd reads them
    templates = {
        f"agent/{each.relative_to(root).as_posix()}": each for each in (root / "templates").rglob("*")
    }
    for path, source in sorted({**sources, **templates}.items()):
        # py.typed is for type checkers of programs that import the wheel: not for hosts
        is_read = source.name != "py.typed" and (
            source.suffix != ".md" or _MANUAL.fullmatch(path) is not None
        )
        is_ours = "__pycache__" not in source.parts and is_read and not path.startswith(UNITS)
        if is_ours and source.is_file():
            data = source.read_bytes()
            mode = 0o755 if path.startswith("agent/demo/") and data.startswith(b"#!") else 0o644
            files[path] = File(data, mode)
    return files
