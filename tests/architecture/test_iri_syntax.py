"""The judge of schemas judges IRIs, although its grammars are made late."""

from __future__ import annotations

import sys

import jsonschema  # type: ignore[import-untyped]
import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("text", "is_one"), [("https://ä.example/b", True), ("https://a b", False)])
def test_an_iri_is_judged(text: str, is_one: bool) -> None:
    assert jsonschema.FormatChecker().conforms(text, "iri") is is_one
    assert jsonschema.FormatChecker().conforms(text, "iri-reference") is is_one
    assert sys.modules["rfc3987_syntax"].__name__ == "rfc3987_syntax"
