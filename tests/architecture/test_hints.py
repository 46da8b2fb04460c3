"""Every `hsm-agent …` command that a hint, a code or a document names is one that the command line takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from agent.cli.root import command_tree
from agent.core.codes import CODES
from agent.render.fleet.humanize import from_here
from agent.render.manual import topics

ROOT = Path(__file__).parents[2]
FILES = [
    *(ROOT / "agent").rglob("*.py"),
    *(ROOT / "agent" / "docs").rglob("*.md"),
    *(ROOT / "templates").rglob("*.*"),
    ROOT / "README.md",
]
PLACEHOLDERS = {"COMMAND", "TOPIC", "…"}
_COMMAND = re.compile(r"(?:`|^|sudo |; )hsm-agent((?: [^\s`|;)>\"\\]+)+)", re.MULTILINE)


def unknown(words: list[str]) -> str | None:
    """Return the first word that the command line does not know, None where it knows all."""
    command: Any = typer.main.get_command(command_tree([]))
    if words[0] == "help" and words[1:]:
        known = {*topics(), *command.commands, *PLACEHOLDERS}
        return next((word for word in words[1:2] if word not in known and "{" not in word), None)
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
    "line",
    [
        "`hsm-agent instal`",
        "`hsm-agent fleet deploy`",
        "`hsm-agent plan --dry-run`",
        "`hsm-agent help instal`",
    ],
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


def test_the_page_of_commands_has_a_row_for_each() -> None:
    page = (ROOT / "agent" / "docs" / "commands.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| ", page.replace("\\|", " "), re.MULTILINE)
    of_host = {row.split()[0] for row in rows}
    of_fleet = {word for row in rows if row.startswith("fleet ") for word in row.split()}
    root: Any = typer.main.get_command(command_tree([]))
    assert set(root.commands) - of_host == set()
    assert set(root.commands["fleet"].commands) - of_fleet == set()


# of these a text of ours may come from a host: what is typed here, or shown to whom types, is not said there
_HERE = ("cli", "fleet", "demo", "user_data.py", "ssh", "notices.py", "manual.py")
_BOTH = {"cluster", "fleet", "explain", "help", "COMMAND", "iam-policy", "user-data"}


def test_what_a_host_advises_is_said_as_it_is_typed_from_here() -> None:
    """Where a roll-out came there is no `hsm-agent` to type, but what is said there is composed as if there were."""
    composed = {
        joined
        for path in (ROOT / "agent").rglob("*.py")
        if not set(path.relative_to(ROOT / "agent").parts) & set(_HERE)
        for joined in re.findall(r"`(?:sudo )?hsm-agent [^`\n]*`", path.read_text(encoding="utf-8"))
    }
    said = [from_here(text) for text in (*composed, *(code.fix for code in CODES.values()))]
    words = [(text, found) for text in said for found in re.findall(r"`(?:sudo )?hsm-agent ([\w-]+)", text)]
    assert len(composed) > 8
    wrong = [text for text, word in words if word not in _BOTH and not _is_there(text, word)]
    assert wrong == []
    assert [from_here(text) for text in said] == said
    assert [words for text in said for words in named(text) if unknown(words) is not None] == []


def _is_there(text: str, word: str) -> bool:
    """Whether the command is said to be one of the host, or is a name of something else."""
    return word == "rollback" and "on the host, where hsm-agent is installed" in text


def test_what_is_true_on_the_host_alone_is_not_said_here() -> None:
    there = (
        "run `hsm-agent configure`: without options it is that one again, with others they are what is wanted"
    )
    assert any(there in path.read_text(encoding="utf-8") for path in (ROOT / "agent").rglob("*.py"))
    assert from_here(there) == "run `hsm-agent fleet rollout` with the options that are wanted"
