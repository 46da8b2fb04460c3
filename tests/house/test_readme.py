"""The README says what the program does: its options, exit statuses, platforms, screen and example are the program's own."""

from __future__ import annotations

import json
import re
from pathlib import Path

from agent.catalogue import components, load, match_platform, newest
from agent.config.desired import InputErrors, read_text, resolve
from agent.config.options import OPTIONS
from agent.core.errors import EXIT_STATUSES, AgentError
from agent.render.json_report import schema

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(first: str) -> list[list[str]]:
    """Return the cells of the table whose header begins with that cell."""
    table = re.search(rf"^\| {first} \|.*\n\|[ |-]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table[1].splitlines()]


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_table_of_options_is_the_one_of_the_program() -> None:
    wanted = []
    for option in OPTIONS:
        shown = option.switch if option.flag else f"{option.switch} {option.metavar}"
        cells = [f"`{shown}`" + (" (repeatable)" if option.many else ""), f"`{option.variable}`"]
        wanted.append([*cells, f"`{option.key}`" if option.key else "", option.help])
    assert [[cell.replace("\\|", "|") for cell in row] for row in rows("option")] == wanted


def test_the_table_of_exit_statuses_is_the_one_of_the_program() -> None:
    found = re.findall(r"^\| (\d+) \| ([^|`]+) \|$", README, re.MULTILINE)
    assert {int(status): meaning for status, meaning in found} == EXIT_STATUSES


def test_the_table_of_platforms_is_the_catalogue() -> None:
    catalogue = load()

    def made(name: str, form: str, arch: str) -> str:
        os = "windows" if form == "msi" else ""
        try:
            fit = match_platform(catalogue, os=os, os_version="", arch=arch, id_like=(), platform=name)
        except AgentError:
            return "none"
        found = components(catalogue, fit, arch)
        versions = sorted({newest(catalogue, fit, arch, each).split("-")[0] for each in found})
        return f"{', '.join(found)}: {', '.join(versions)}" if found else "none"

    wanted = [
        [
            f"`{row.name}`",
            row.title,
            made(row.name, row.format, "x86_64"),
            made(row.name, row.format, "aarch64"),
        ]
        for row in catalogue.rows
    ]
    assert rows("row") == [row for row in wanted if row[2:] != ["none", "none"]]


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
