"""Every code that a report's warnings can carry is explained, and nothing else is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from agent.core.codes import CODES
from agent.core.notices import WARNINGS

AGENT = Path(__file__).parents[3] / "agent"
MAKERS = ("Notice", "add_notice", "Risk", "_risk", "_of_code")
CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")


def shown() -> set[str]:
    """The codes that the sources give to a warning; those of life_cycle stand in tuples there."""
    found = set()
    for path in AGENT.rglob("*.py"):
        if "standin" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(getattr(node, "func", None), "id", None) or getattr(
                getattr(node, "func", None), "attr", None
            )
            if isinstance(node, ast.Call) and name in MAKERS and node.args:
                first = ast.walk(node.args[0])
            elif (
                isinstance(node, ast.Yield)
                and path.name == "lifecycle.py"
                and isinstance(node.value, ast.Tuple)
            ):
                first = ast.walk(node.value.elts[0])
            else:
                continue
            texts = [
                each.value for each in first if isinstance(each, ast.Constant) and isinstance(each.value, str)
            ]
            found |= {text for text in texts if CODE.fullmatch(text)}
    return found


@pytest.mark.slow
def test_every_warning_is_explained_and_none_that_there_is_not() -> None:
    assert len(shown()) > 30
    assert shown() - set(CODES) == set(WARNINGS) - set(CODES)
    assert set(WARNINGS) & set(CODES) == set()
    assert [each.name for each in WARNINGS.values() if not each.meaning or not each.fix] == []
