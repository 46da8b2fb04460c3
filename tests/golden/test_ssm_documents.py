"""Documents of Systems Manager, whole, as files that were reviewed; `--update-golden` writes them anew."""

from __future__ import annotations

import pytest

from tests.golden.ssm_cases import CASES, FOLDER, Case


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_document_is_what_was_reviewed(case: Case, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--update-golden"):
        FOLDER.mkdir(exist_ok=True)
        case.path.write_text(case.text, encoding="ascii")
    assert case.path.read_text(encoding="ascii") == case.text


def test_nothing_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {case.path.name for case in CASES}
