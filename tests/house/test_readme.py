"""The README says what the program does: its options, exit statuses, platforms, screen and example are the program's own."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from agent.config.desired import InputErrors, read_text, resolve
from agent.config.options import OPTIONS
from agent.core.errors import CODES, EXIT_STATUSES
from agent.core.notices import WARNINGS
from agent.render.json_report import schema

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "packaging"))

from reference import REFERENCE, pages  # noqa: E402 -- a program, not a package

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


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
    text = block("toml").replace("9F2C...", "9F" * 32)
    input_errors = InputErrors()
    desired = resolve((read_text(text.encode(), "README.md", input_errors),), input_errors)
    assert (desired.hsm_ip, desired.component) == (("10.0.1.6", "10.0.2.9"), ("cli", "pkcs11"))


def test_the_example_of_a_report_has_only_keys_of_the_schema() -> None:
    report = schema()["$defs"]["report"]["properties"]
    assert set(json.loads(block("json"))) <= set(report)


def test_the_test_command_is_the_one_that_every_submission_must_pass() -> None:
    commands = [line for line in block("sh").splitlines() if line]
    assert commands == ["sh packaging/bootstrap demo", "sh packaging/bootstrap test"]
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == commands[-1]


def test_the_screen_is_one_that_a_run_shows() -> None:
    golden = (ROOT / "tests" / "golden" / "screens" / "degraded.41.txt").read_text(encoding="utf-8")
    shown = block("").replace("ip-10-0-1-12", "memory").replace("timed out after 5 s", "hsm-timed-out")
    assert shown == golden


def test_the_screen_of_a_fleet_is_one_that_a_run_shows() -> None:
    golden = (ROOT / "tests" / "golden" / "fleet" / "fleet_some_failed.70.txt").read_text(encoding="utf-8")
    found = re.search(r"^### What you see$.*?^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert found[1].replace("timed out after 5 s", "hsm-timed-out") == golden
