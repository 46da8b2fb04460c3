"""The line of each key and each member of a list in a TOML document."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Iterable

DEEPEST = 5  # `hosts.NAME.client.sha256."FILE"`; a deeper key has the line of its parent
Path = tuple[Union[str, int], ...]
_STRINGS = r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
_PIECE = re.compile(rf"(?:{_STRINGS})|\#[^\n]*|[\[\]{{}},=\n]|[^\s\[\]{{}},=\#\"']+", re.DOTALL)
_PART = re.compile(r'"((?:\\.|[^"\\])*)(?:"|$)|\'([^\']*)\'|([^\s."\']+)', re.DOTALL)


class TomlLines:
    """The lines in one document. It must be valid TOML: a parser has read it before."""

    def __init__(self, text: str) -> None:
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._places: dict[Path, int] = {}
        self._walk(text)

    def of(self, *path: str | int) -> int:
        """Return the line of a key, or of its nearest parent that has one."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._places:
                return self._places[path[:length]]
        return 1

    def _walk(self, text: str) -> None:
        table: Path = ()
        for statement in _statements(text):
            pieces = [found[0] for found in statement]
            start = statement[0].start()
            if pieces[0] == "[":
                table = self._note((), [piece for piece in pieces if piece not in ("[", "]")], start)
            elif "=" in pieces:
                sign = pieces.index("=")
                self._members(self._note(table, pieces[:sign], start), statement[sign + 1 :])

    def _members(self, path: Path, value: list[re.Match[str]]) -> None:
        """Record the lines of the members of a list, but not of those of tables and lists in it."""
        if not value or value[0][0] != "[":
            return
        member = depth = 0
        for found in value:
            depth += _depth(found[0])
            if depth == 1 and found[0] == ",":
                member += 1
            elif depth == 1 and found[0] not in ("[", "]", "}"):
                self._places.setdefault((*path, member), self._line(found.start()))

    def _note(self, table: Path, words: list[str], place: int) -> Path:
        path = table
        for found in islice(_PART.finditer("".join(words)), DEEPEST):
            path = (*path, found[1] if found[1] is not None else found[2] or found[3] or "")
            self._places.setdefault(path, self._line(place))
        return path

    def _line(self, place: int) -> int:
        return bisect_right(self._ends, place - 1) + 1


def _statements(text: str) -> Iterable[list[re.Match[str]]]:
    """Return headers and assignments, each in pieces; without line breaks and comments."""
    statement: list[re.Match[str]] = []
    depth = 0
    for found in _PIECE.finditer(text):
        depth += _depth(found[0])
        if found[0] == "\n":
            if depth == 0 and statement:
                yield statement
                statement = []
        elif not found[0].startswith("#"):
            statement.append(found)
    if statement:
        yield statement


def _depth(piece: str) -> int:
    return (piece in ("[", "{")) - (piece in ("]", "}"))
