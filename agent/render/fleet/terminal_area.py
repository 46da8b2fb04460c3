"""A few lines at the bottom of a terminal that are redrawn in place, also when its size changes."""

from __future__ import annotations

import os
import unicodedata
from typing import TYPE_CHECKING

from agent.render.progress import TolerantStream
from agent.render.text import coloured

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    # a line, and the outcome that gives its colour
    Lines = Sequence[tuple[str, str]]

_FALLBACK = os.terminal_size((80, 24))


class TerminalArea:
    """Lines that replace those drawn before.

    rich's Live counts the rows that it drew. When a terminal becomes narrower they take more rows, and parts of lines
    remain. Here the drawn lines are measured by the current width of the terminal.
    """

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._stream = TolerantStream(stream)
        self._colour = colour
        self._drawn: tuple[int, ...] = ()

    def size(self) -> os.terminal_size:
        """Return the current columns and lines; 80 and 24 where they are unknown."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return _FALLBACK
        return size if size.columns > 0 and size.lines > 0 else _FALLBACK

    def draw(self, lines: Lines) -> None:
        """Replace what was drawn, in one write, so that nothing flickers."""
        columns, rows = self.size()
        # the last column stays empty: after a write there, terminals differ in where the cursor is
        cut = [(fitting(text, columns - 1), outcome) for text, outcome in lines[: max(rows - 1, 1)]]
        shown = [
            coloured(text, outcome, colour=self._colour and outcome != "") + "\033[K" for text, outcome in cut
        ]
        self._stream.write(self._back(columns) + "\r\n".join(shown) + "\033[J")
        self._stream.flush()
        self._drawn = tuple(cells(text) for text, _ in cut)

    def clear(self) -> None:
        self._stream.write(self._back(self.size().columns) + "\033[J")
        self._stream.flush()
        self._drawn = ()

    def _back(self, columns: int) -> str:
        """Return the codes that move the cursor to the start of the drawing; a wide line takes several rows."""
        rows = sum(max(1, -(-cell // columns)) for cell in self._drawn)
        up = f"\033[{rows - 1}A" if rows > 1 else ""
        wrapped = any(cell > columns for cell in self._drawn)
        return f"\r{up}" + ("\033[J" if wrapped else "")


def cells(text: str) -> int:
    """Return how many columns a text takes."""
    return sum(_wide(char) for char in text)


def fitting(text: str, columns: int) -> str:
    """Return a text of at most so many columns; a truncated one ends in two dots."""
    if cells(text) <= columns:
        return text
    room, kept = columns - 2, ""
    for char in text:
        room -= _wide(char)
        if room < 0:
            break
        kept += char
    return (kept.rstrip() + "..")[: max(columns, 0)]


def _wide(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
