"""The layout of the tests: where each lies, what it may import, and what it may start."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
AGENT = TESTS.parent / "agent"
FILES = sorted(TESTS.rglob("*.py"))
UNIT = sorted((TESTS / "unit").rglob("test_*.py"))
# modules that start processes, and functions of `os` that do; a `pty` without a process is only two ends of a line
STARTERS = {"subprocess", "multiprocessing"}
STARTING = {"fork", "forkpty", "popen", "posix_spawn", "posix_spawnp", "spawnv", "spawnve", "system"}


def imported(path: Path) -> set[str]:
    """Return the dotted names of all that a file imports, members of modules included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {module, *(f"{module}.{each.name}" for each in node.names)}
    return names


def from_tests(path: Path) -> set[str]:
    """Return what a file imports from test files."""
    inside = (name for name in imported(path) if name.startswith(("tests.", ".")))
    return {name for name in inside if any(part.startswith("test_") for part in name.split("."))}


def starts(path: Path) -> set[str]:
    """Return by what a file can start a process."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return (imported(path) & STARTERS) | (
        called & ({f"os.{name}" for name in STARTING} | {"pty.fork", "pty.spawn"})
    )


def test_no_test_file_imports_from_another() -> None:
    assert {path.relative_to(TESTS).as_posix(): names for path in FILES if (names := from_tests(path))} == {}


def test_no_unit_test_starts_a_process() -> None:
    assert {path.relative_to(TESTS).as_posix(): names for path in UNIT if (names := starts(path))} == {}


def test_each_unit_test_lies_where_its_module_does() -> None:
    places = [path.relative_to(TESTS / "unit").with_name(path.stem[len("test_") :]) for path in UNIT]
    strange = [
        place for place in places if not (AGENT / place).is_dir() and not (AGENT / f"{place}.py").is_file()
    ]
    assert strange == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (
            "from tests.unit.test_engine import Files",
            {"tests.unit.test_engine", "tests.unit.test_engine.Files"},
        ),
        ("from tests.golden import test_screens as one", {"tests.golden.test_screens"}),
        ("from .test_desk import Desk", {".test_desk", ".test_desk.Desk"}),
        ("from tests.fakes.memory import Memory", set()),
    ],
)
def test_an_import_from_a_test_file_is_found(tmp_path: Path, source: str, names: set[str]) -> None:
    (tmp_path / "file.py").write_text(source)
    assert from_tests(tmp_path / "file.py") == names


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from subprocess import run", {"subprocess"}),
        ("import os\nos.system('true')", {"os.system"}),
        ("import os\nos.getpid()", set()),
    ],
)
def test_a_start_of_a_process_is_found(tmp_path: Path, source: str, names: set[str]) -> None:
    (tmp_path / "file.py").write_text(source)
    assert starts(tmp_path / "file.py") == names
