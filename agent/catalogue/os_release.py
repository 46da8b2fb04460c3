"""The text of an os-release file -> its fields, read as a shell would but never run."""

from __future__ import annotations

import re

_ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)=(.*)")
# one piece of a shell word: 'literal', "with escapes", an escaped character, or plain text
_PIECE = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^ \t'"\\]+)""")
_ESCAPE = re.compile(r"""\\([\\"$`])""")


def parse_os_release(text: str) -> dict[str, str]:
    """Return the fields of os-release(5); a key that appears twice has its last value.

    A line that is no assignment, such as one with an open quote, is skipped: if a field is missing
    because of it, the host is unknown and refused later.
    """
    fields: dict[str, str] = {}
    for line in text.lstrip("\ufeff").split("\n"):
        found = _ASSIGNMENT.fullmatch(line.rstrip("\r"))
        value = None if found is None else _word(found[2])
        if found is not None and value is not None:
            fields[found[1]] = value
    return fields


def _word(text: str) -> str | None:
    """Return the shell word that `text` is, None when a quote stays open or more than a comment follows."""
    word, at = "", 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            break
        literal, quoted, escaped, plain = piece.groups()
        if quoted is not None:
            word += _ESCAPE.sub(r"\1", quoted)
        else:
            word += next(part for part in (literal, escaped, plain) if part is not None)
        at = piece.end()
    rest = text[at:].lstrip(" \t")
    return word if not rest or rest.startswith("#") else None
