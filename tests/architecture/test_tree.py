"""The architecture, the style and the documents are held by tests, so that they cannot rot."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from agent.core.codes import CODES, EXIT_STATUSES, CodeName

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "agent").rglob("*.py"))
FORBIDDEN_NAMES = {
    "util",
    "utils",
    "helpers",
    "common",
    "misc",
    "base",
    "manager",
    "handler",
    "types",
    "constants",
}


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.skipif(sys.version_info < (3, 10), reason="the checkers need Python 3.10; the agent needs 3.9")
@pytest.mark.parametrize(
    "checker",
    [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",), ("importlinter.cli",)],
    ids=" ".join,
)
def test_the_checkers_have_nothing_to_say(checker: tuple[str, ...]) -> None:
    if checker == ("importlinter.cli",):
        argv = ("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
        done = subprocess.run(
            [sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
        )
    else:
        done = run(*checker)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_says_in_one_sentence_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if "standin" not in path.parts and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(path) for path in MODULES if path.stem in FORBIDDEN_NAMES] == []


def test_the_map_says_of_every_room_what_its_docstring_says() -> None:
    drawn = (ROOT / "agent" / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)(?:/|\.py)` \| [HOB] \| (.+?) \|$", drawn, re.MULTILINE))
    tops = (
        path for path in (ROOT / "agent").glob("*") if path.suffix == ".py" or (path / "__init__.py").exists()
    )
    files = (path if path.is_file() else path / "__init__.py" for path in tops)
    said = {
        (path.parent if path.name == "__init__.py" else path).stem: _sentence(path)
        for path in files
        if path != ROOT / "agent" / "__init__.py"
    }
    assert rows == said


def _sentence(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n", maxsplit=1)[0]


def test_no_class_has_the_name_of_another() -> None:
    found: dict[str, list[str]] = {}
    for path in MODULES:
        for node in (
            ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if "standin" not in path.parts else ()
        ):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name.lstrip("_"), []).append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_no_name_is_a_metaphor_of_our_own() -> None:
    """Words that stood for a field's terms once: a transport, a connection, a channel, a cancel token, a sink, an archive."""
    gone = {
        "door",
        "gate",
        "lifeline",
        "letter",
        "baggage",
        "errand",
        "depot",
        "parcel",
        "story",
        "seat",
        "conduct",
        "heard",
        "heir",
        "heirs",
        "mighty",
        "mood",
        "told",
        "touched",
        "touching",
    }
    met = set()
    for path in MODULES:
        names = {path.stem} | ({*_names(path)} if "standin" not in path.parts else set())
        met |= {(str(path.relative_to(ROOT)), name) for name in names if gone & set(name.lower().split("_"))}
    assert (
        met
        - {  # letters of the alphabet
            ("agent/cloudhsm/ca.py", "letter"),
            ("agent/cloudhsm/cli_output.py", "letter"),
            ("agent/fleet/inventory/ranges.py", "first_letter"),
            ("agent/fleet/inventory/ranges.py", "last_letter"),
        }
        == set()
    )


def _names(path: Path) -> Iterator[str]:
    """Yield the names of classes, functions, parameters, variables and attributes that a module makes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            yield re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name)
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


# of an English that a tired operator reads twice; "look at" as an instruction is plain
_PRIVATE = re.compile(
    r"\b(anew|looked at|told|at work|touched|nobody|in vain|gone on|goes on|taken off|takes? (it|them) off|(?<!-)folders?)\b"
)


def _sentences(path: Path) -> Iterator[str]:
    """Yield the texts of more than one word in a module, but no docstrings: what a user may read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) not in docstrings and isinstance(node, ast.Constant) and isinstance(node.value, str):
            # a fragment beside a value in an f-string counts; a word alone may be a key
            yield node.value if " " in node.value else ""


def test_no_text_for_users_is_in_an_english_of_our_own() -> None:
    texts = [
        (str(path.relative_to(ROOT)), text)
        for path in MODULES
        if "standin" not in path.parts and path.stem != "pki"  # a configuration of openssl, with a {folder}
        for text in _sentences(path)
    ]
    pages = [*(ROOT / "agent" / "docs").rglob("*.md"), ROOT / "README.md"]
    texts += [(str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")) for page in pages]
    found = [(place, met[0]) for place, text in texts for met in _PRIVATE.finditer(text)]
    assert found == []


def test_every_code_belongs_to_a_class_of_failure() -> None:
    assert {code.exit_status for code in CODES.values()} <= set(EXIT_STATUSES)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in CODES)


def test_every_code_is_provoked_by_some_test() -> None:
    texts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name in CODES if f'"{name}"' not in texts] == []


def test_the_type_of_codes_has_the_names_of_the_table() -> None:
    # mypy holds every code in the program to the type, and each row's name too
    assert get_args(CodeName) == tuple(CODES)


@pytest.mark.parametrize("argv", [["--version"], ["--help"]])
def test_what_is_not_needed_is_not_loaded(argv: list[str]) -> None:
    code = (
        "import sys; from agent.cli.root import main; main(sys.argv[1:]);"
        "print(sorted({'requests', 'psutil', 'paramiko', 'jinja2'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_version_loads_nothing_but_the_command_line() -> None:
    code = (
        "import sys; from agent.cli.root import main; main(['--version']);"
        "print(sorted(name for name in sys.modules if name.startswith('agent.')), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    core, render = (
        ["agent.core", "agent.core.codes", "agent.core.errors", "agent.core.plain"],
        ["agent.render", "agent.render.output"],
    )
    assert done.stderr.splitlines()[-1] == str(["agent.cli", "agent.cli.root", *core, *render])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return next(folder.glob("hsm_agent-*.whl"))


def test_the_wheel_installs_and_runs_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--system-site-packages", str(tmp_path / "v")], check=True, timeout=120
    )
    python = tmp_path / "v" / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True, timeout=300
    )
    code = "import agent.catalogue as c, agent; print(len(c.load().rows), agent.__file__)"
    done = subprocess.run(
        [str(python), "-c", code], cwd="/", capture_output=True, text=True, timeout=60, check=True
    )
    count, place = done.stdout.split()
    assert int(count) >= 9
    assert place.startswith(str(tmp_path))


def test_pipx_installs_the_wheel_with_all_that_a_command_needs(wheel: Path, tmp_path: Path) -> None:
    places = {f"PIPX_{name}": str(tmp_path / name.lower()) for name in ("HOME", "BIN_DIR", "MAN_DIR")}
    done = subprocess.run(
        [sys.executable, "-m", "pipx", "install", str(wheel)],
        capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **places},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    program = tmp_path / "bin_dir" / "hsm-agent"
    for form in (
        "shell",
        "cloud-config",
    ):  # what is filled from a template, and nothing of this checkout beside it
        argv = [str(program), "user-data", "--hsm-ip", "10.0.1.6", "--format", form]
        told = subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=60, check=False)
        assert (told.returncode, "10.0.1.6" in told.stdout) == (0, True), told.stderr
