"""Templates are found, filled, and refuse what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import TemplateNotFound, UndefinedError

from agent.render.templates import FOLDER, render

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x").mkdir()
    script = "{# not in the text #}\n#!/bin/sh\n{% if much %}\n  echo {{ word }}\n{% endif %}\n"
    (tmp_path / "x" / "script.sh").write_text(script)
    (tmp_path / "x" / "page.html").write_text("<b>{{ word }}</b>")
    return tmp_path


def test_what_is_opened_is_the_folder_at_the_top_of_the_checkout() -> None:
    assert FOLDER.resolve() == ROOT / "templates"
    render("units/hsm-agent-verify.timer")


def test_a_template_is_filled_and_its_own_lines_leave_no_trace(folder: Path) -> None:
    text = render("x/script.sh", folder=folder, much=True, word="<é>")
    assert text == "#!/bin/sh\n  echo <é>\n"
    assert render("x/script.sh", folder=folder, much=False) == "#!/bin/sh\n"


def test_values_are_escaped_in_a_page(folder: Path) -> None:
    assert render("x/page.html", folder=folder, word="<é>") == "<b>&lt;é&gt;</b>"


def test_what_is_missing_is_an_error(folder: Path) -> None:
    with pytest.raises(UndefinedError, match="word"):
        render("x/page.html", folder=folder)
    with pytest.raises(TemplateNotFound):
        render("../x/page.html", folder=folder / "x")
