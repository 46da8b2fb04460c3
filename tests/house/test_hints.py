"""Every `hsm-agent …` command that a hint, a code or a document names is one that the command line takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from agent.cli.root import command_tree

ROOT = Path(__file__).parents[2]
FILES = [*(ROOT / "agent").rglob("*.py"), *(ROOT / "templates").rglob("*.*"), ROOT / "README.md"]
PLACEHOLDERS = {"COMMAND", "…"}
_COMMAND = re.compile(r"(?:`|^|sudo |; )hsm-agent((?: [^\s`|;)>\"\\]+)+)", re.MULTILINE)


def unknown(words: list[str]) -> str | None:
    """Return the first word that the command line does not know, None where it knows all."""
    command: Any = typer.main.get_command(command_tree([]))
    for word in words:
        if word.startswith("-"):
            known = {"--help", *(spelled for each in command.params for spelled in each.opts)}
            if word.partition("=")[0] not in known:
                return word
        elif hasattr(command, "commands") and "{" not in word and word not in PLACEHOLDERS:
            if word not in command.commands:
                return word
            command = command.commands[word]
        elif hasattr(command, "commands"):
            return None
    return None


def named(text: str) -> list[list[str]]:
    joined = re.sub(r'"\s*\n\s*f?"', "", text.replace("\\\n", " "))
    return [found[1].split() for found in _COMMAND.finditer(joined)]


@pytest.mark.parametrize(
    "line", ["`hsm-agent instal`", "`hsm-agent fleet deploy`", "`hsm-agent plan --dry-run`"]
)
def test_a_command_that_is_none_is_found(line: str) -> None:
    (words,) = named(line)
    assert unknown(words) == words[-1]


def test_commands_that_are_named_exist() -> None:
    commands = [
        (path.relative_to(ROOT), words) for path in FILES for words in named(path.read_text(encoding="utf-8"))
    ]
    assert len(commands) > 50
    wrong = [(str(path), words, unknown(words)) for path, words in commands]
    assert [each for each in wrong if each[2] is not None] == []
