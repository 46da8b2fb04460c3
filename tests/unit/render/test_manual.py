"""The pages of the manual: whole on a terminal of any width, themselves for a program, and found by their names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.cli.root import main
from agent.render.manual import FOLDER, page, topics

INDEX = FOLDER / "README.md"


def words(text: str) -> list[str]:
    """Return the words of a page, whatever laid it out: without marks, rules, links and the heads of tables."""
    text = re.sub(r"<!--.*?-->|^```\w*$|^\|.*\n(?=\| ---)", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`hsm-agent help ([\w-]+)`|\]\([^)]+\)", r" \1 ", text)
    return re.findall(r"[\w'-]*\w", text.replace("\\|", "|").lower())


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("topic", topics())
def test_a_page_fits_a_terminal_and_loses_no_word(topic: str, width: int) -> None:
    shown = page(topic, width=width)
    code = {
        line.strip()
        for block in re.findall(r"^```.*?^```", page(topic), re.MULTILINE | re.DOTALL)
        for line in block.split("\n")
    }
    wide = [line for line in shown.split("\n") if len(line) > width and line.strip() not in code]
    assert [line for line in wide if len(line.split()) > 2] == []
    assert set(words(page(topic))) <= set(words(shown))
    assert "**" not in shown
    assert "](" not in shown


def test_a_program_gets_the_file_itself() -> None:
    assert page("fleet") == (FOLDER / "fleet.md").read_text(encoding="utf-8")
    assert page("codes") == (FOLDER / "reference" / "codes.md").read_text(encoding="utf-8")
    assert page(None) == INDEX.read_text(encoding="utf-8")


def test_a_table_that_does_not_fit_becomes_blocks() -> None:
    wide, narrow = page("options", width=200), page("options", width=60)
    assert re.search(r"^`--sdk 5\|3` +`HSM_AGENT_SDK` +`client\.sdk` +5 \(default\)", wide, re.MULTILINE)
    assert (
        "`--sdk 5|3`\n  variable: `HSM_AGENT_SDK`\n  key in the file: `client.sdk`\n  meaning: 5 (default)"
        in narrow
    )


def test_a_link_becomes_the_command_that_prints_it() -> None:
    assert "mirror (`hsm-agent help configuration`)" in page("troubleshooting", width=120)
    assert "see `hsm-agent help fleet`\n" in page("commands", width=120)
    assert re.search(r"^fleet +many hosts", page(None, width=80), re.MULTILINE)


def test_a_block_of_code_is_left_as_it_is() -> None:
    assert "    sudo systemctl start hsm-agent-verify.service           # now\n" in page("drift", width=60)


def test_help_prints_the_index_a_page_or_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    assert capsys.readouterr() == (INDEX.read_text(encoding="utf-8"), "")
    assert main(["help", "fleet"]) == 0
    assert capsys.readouterr().out.startswith("# Fleet\n")
    assert main(["help", "fleet", "rollout"]) == 0
    asked = capsys.readouterr().out
    assert main(["fleet", "rollout", "--help"]) == 0
    assert asked == capsys.readouterr().out
    assert asked.startswith("Usage: hsm-agent fleet rollout ")


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("flet", "did you mean fleet, files?"),
        ("verfy", "did you mean verify?"),
        ("fleet rolout", "did you mean rollout?"),
        ("fleet/../../../etc/passwd", "`hsm-agent help` lists the topics"),
        ("README", "`hsm-agent help` lists the topics"),
        ("plan more", "`hsm-agent help` lists the topics"),
    ],
)
def test_an_unknown_topic_is_a_usage_error(given: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", *given.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: there is no topic or command `{given}` (exit 2, usage)\n")
    assert said.err.endswith(f"hint: {hint}\n")


def test_every_page_begins_with_its_title_and_a_sentence() -> None:
    for topic in topics():
        title, blank, first = page(topic).split("\n")[:3]
        assert (title[:2], blank) == ("# ", "")
        assert re.fullmatch(r"[A-Z].*[.,\w]", first)


def test_the_pages_lie_where_packages_put_them() -> None:
    assert Path("agent/docs").parts == FOLDER.parts[-2:]
