"""The one script that PowerShell is given: plain text, which a grammar of PowerShell reads."""

from __future__ import annotations

import base64

import pytest

from agent.windows.authenticode_query import ARGV


def test_the_question_holds_no_value_and_is_read_by_a_grammar_of_powershell() -> None:
    grammar = pytest.importorskip("tree_sitter_powershell", reason="has no wheel for this Python")
    from tree_sitter import Language, Parser

    script = base64.b64decode(ARGV[-1]).decode("utf-16-le").encode("ascii")
    parser = Parser(Language(grammar.language()))
    assert not parser.parse(script).root_node.has_error
    assert parser.parse(script.replace(b"}", b"", 1)).root_node.has_error  # it would have told
