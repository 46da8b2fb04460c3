"""User-data, whole: each form, each way that the agent comes, as files that were reviewed.

`--update-golden` writes them anew. contract/test_user_data_runs.py runs them and has other programs judge them.
"""

from __future__ import annotations

import pytest

from tests.golden.first_boots import CASES, FOLDER, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.name)
def test_user_data_is_what_was_reviewed(case: Case, pytestconfig: pytest.Config) -> None:
    text = case.text()
    if pytestconfig.getoption("--update-golden"):
        FOLDER.mkdir(exist_ok=True)
        case.path.write_text(text, encoding="ascii")
    assert case.path.read_text(encoding="ascii") == text


def test_nothing_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {case.path.name for case in CASES}
