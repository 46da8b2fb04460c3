"""The documents say what the program does: tables, screens and examples in them are the program's own, and links lead on."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from agent.config.desired import resolve
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS
from agent.config.readers import read_text
from agent.core.codes import CODES, EXIT_STATUSES
from agent.core.notices import WARNINGS
from agent.render.json_report import schema
from agent.render.manual import FOLDER, topics
from agent.sinks.registry import SINKS

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "packaging"))

from reference import REFERENCE, pages  # noqa: E402 -- a program, not a package
from rights import TERMS  # noqa: E402

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(text: str, language: str) -> str:
    """Return the first block of code in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def manual(name: str) -> str:
    return (ROOT / "agent" / "docs" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(pages()))
def test_the_reference_is_what_the_tables_say(name: str) -> None:
    """After a change to a table: `python packaging/reference.py`."""
    assert (REFERENCE / name).read_text(encoding="utf-8") == pages()[name]


def test_the_reference_names_every_option_status_code_and_warning() -> None:
    options, codes = pages()["options.md"], pages()["codes.md"]
    assert [each.switch for each in OPTIONS if f"| `{each.switch}" not in options] == []
    assert [each for each in CODES if f"| `{each}` |" not in codes] == []
    assert [each for each in EXIT_STATUSES if f"| {each} |" not in codes] == []
    assert [each for each in WARNINGS if f"| `{each}` |" not in codes] == []


def test_the_example_of_a_configuration_file_is_read_without_a_complaint() -> None:
    text = block(manual("configuration"), "toml").replace("9F2C...", "9F" * 32)
    input_errors = InputErrors()
    desired = resolve((read_text(text.encode(), "configuration.md", input_errors),), input_errors)
    assert (desired.hsm_ip, desired.component) == (("10.0.1.6", "10.0.2.9"), ("cli", "pkcs11"))


def test_the_example_of_a_report_has_only_keys_of_the_schema() -> None:
    report = schema()["$defs"]["report"]["properties"]
    assert set(json.loads(block(manual("reports"), "json"))) <= set(report)


def test_every_report_sink_is_in_the_manual() -> None:
    assert [name for name in SINKS if f"`{name}:" not in manual("reports")] == []


def test_the_test_command_is_the_one_that_every_submission_must_pass() -> None:
    commands = [line for line in block(README, "sh").splitlines() if line]
    assert commands == ["sh packaging/bootstrap demo", "sh packaging/bootstrap test"]
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == commands[-1]


def test_the_readme_is_read_in_three_minutes() -> None:
    assert len(README.encode()) <= 8192
    assert "**State**" in "\n".join(README.splitlines()[:10])


def test_the_screens_are_ones_that_a_run_shows() -> None:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    first, second, _ = (text for language, text in blocks if not language)
    assert first.replace("ip-10-0-1-12", "memory") == golden("screens/first_run.0.txt")
    assert second == "".join(golden("screens/degraded.41.txt").splitlines(keepends=True)[-2:])


def test_the_screen_of_a_fleet_is_one_that_a_run_shows() -> None:
    shown = block(manual("fleet").partition("## What you see")[2], "")
    assert shown.replace("timed out after 5 s", "hsm-timed-out") == golden("fleet/fleet_some_failed.70.txt")


def golden(name: str) -> str:
    return (ROOT / "tests" / "golden" / name).read_text(encoding="utf-8")


def test_the_licence_is_told_in_the_same_words_everywhere() -> None:
    terms = re.search(r"^Licence: (.+)$", README, re.MULTILINE)
    assert terms is not None
    assert terms[1] == TERMS
    assert f'license = {{ text = "{TERMS}" }}' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_index_of_the_manual_names_every_page() -> None:
    found = re.findall(r"^\| \[([\w-]+)\]\(([\w/-]+)\.md\) \|", manual("README"), re.MULTILINE)
    assert sorted(name for name, _ in found) == list(topics())
    assert [name for name, path in found if Path(path).stem != name] == []


DOCUMENTS = [
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "build", "dist", "vendor_pages", ".pytest_cache"} & set(path.relative_to(ROOT).parts)
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_document(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    goals = [each for each in re.findall(r"\]\(([^)\s]+)\)", text) if not each.startswith("https://")]
    there = [(path.parent / goal.partition("#")[0]).resolve() for goal in goals if goal[0] != "#"]
    assert [str(each) for each in there if not each.exists()] == []
    if path.is_relative_to(FOLDER) and "dev" not in path.relative_to(FOLDER).parts:
        assert [str(each) for each in there if not each.is_relative_to(FOLDER)] == []  # what ships is whole


def test_every_stand_in_that_is_described_is_there() -> None:
    rows = re.findall(
        r"^\| (.+?) \|", (ROOT / "tests" / "FAKES.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    paths = [each for row in rows for each in re.findall(r"`([\w./-]+/[\w.-]*)`", row)]
    assert len(paths) > 15
    assert [each for each in paths if not any((top / each).exists() for top in (ROOT, ROOT / "tests"))] == []


@pytest.mark.parametrize("path", sorted((FOLDER / "dev").glob("*.md")), ids=lambda path: path.stem)
def test_a_page_for_contributors_names_files_and_rows_that_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?:agent|tests|packaging)/[\w./-]+\w", text)) - {"agent/sinks/NAME.py"}
    named.discard("packaging/changelog.d/report-NAME.txt")
    named = {each for each in named if not each.endswith("/NAME")}
    assert [each for each in named if not (ROOT / each).exists()] == []
    sources = "".join(
        each.read_text(encoding="utf-8")
        for folder in (".", "cloudhsm", "sinks", "core", "catalogue", "config")
        for each in (ROOT / "agent" / folder).iterdir()
        if each.is_file()
    )
    examples = re.findall(r"^```(?:python|toml)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in examples for line in block.split("\n")]
    assert [line for line in lines if line not in sources] == []
    tables = re.findall(r"`(_?[A-Z]+(?:_[A-Z]+)*|_[a-z_]+)`", text)
    assert [name for name in tables if name not in sources and name not in ("NAME", "FILE")] == []
