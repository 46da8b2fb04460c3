"""The manual: pages of Markdown that ship with the agent, as they are, or fitted to the width of a terminal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from agent.render.text import NBSP, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# in a checkout, a wheel and a package alike
FOLDER = Path(__file__).parents[1] / "docs"
_INDEX = "README"
_COMMENT = re.compile(r"<!--(?:(?!<!--).)*?-->", re.DOTALL)
_CODE = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[([^\[\]]+)\]\(([^()]+)\)")
_CELL = re.compile(r"(?<!\\)\|")
_ITEM = re.compile(r"(- |\d+\. )")
_GAP = 2
# a narrower last column would be unreadable
_NARROWEST = 30


@dataclass(frozen=True)
class Block:
    """A piece of a page: `title`, `section`, `paragraph`, `item` (mark and text), `table` (its head first) or `code`.

    `rows` holds the cells of a table, the lines of code, and of the others one row.
    """

    kind: str
    rows: tuple[tuple[str, ...], ...]


def topics() -> tuple[str, ...]:
    """Return the names of the pages, sorted."""
    return tuple(sorted(_pages()))


def page(topic: str | None, *, width: int | None = None) -> str:
    """Return the page of a topic, None for the index. Raises KeyError.

    Without a width it is the Markdown itself. For a terminal paragraphs are wrapped, tables are laid out, and a link to
    another page names the command that prints it.
    """
    path = FOLDER / f"{_INDEX}.md" if topic is None else _pages()[topic]
    text = path.read_text(encoding="utf-8")
    return text if width is None else "\n".join(_fitted(text, width)).replace(NBSP, " ") + "\n"


def blocks(text: str) -> Iterator[Block]:
    """Yield the pieces of a page, for the part of Markdown that the manual uses; their texts still contain Markdown."""
    for number, part in enumerate(_CODE.split(_COMMENT.sub("", text))):
        if number % 2:
            yield Block("code", tuple((line,) for line in part.rstrip("\n").split("\n")))
            continue
        for piece in filter(None, re.split(r"\n{2,}", part.strip("\n"))):
            yield from _blocks(piece)


def linked(text: str, refer: Callable[[str], str]) -> str:
    """Return a text without its links: `refer` says how a reader reaches the page of that name.

    A text that is a link and nothing else becomes the link's own text.
    """

    def shown(link: re.Match[str]) -> str:
        if not link[2].endswith(".md"):
            return f"{link[1]} ({link[2]})"
        name = Path(link[2]).stem
        return refer(name) if link[1] == name else f"{link[1]} ({refer(name)})"

    alone = _LINK.fullmatch(text)
    return alone[1] if alone else _LINK.sub(shown, text)


def _pages() -> dict[str, Path]:
    found = (*FOLDER.glob("*.md"), *FOLDER.glob("reference/*.md"))
    return {path.stem: path for path in found if path.stem != _INDEX}


def _blocks(piece: str) -> Iterator[Block]:
    if piece.startswith("|"):
        head, _, *rows = [_cells(line) for line in piece.split("\n")]
        yield Block("table", (head, *rows))
    elif piece.startswith("#"):
        yield Block("title" if piece.startswith("# ") else "section", ((piece.lstrip("# "),),))
    else:
        for each in re.split(r"\n(?=- |\d+\. )", piece):
            bullet = _ITEM.match(each)
            mark = bullet[0] if bullet else ""
            words = " ".join(each[len(mark) :].split())
            yield Block("item", ((mark, words),)) if mark else Block("paragraph", ((words,),))


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in _CELL.split(line)[1:-1])


def _fitted(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a page; code is left as it is, so that it can be copied."""
    before = ""
    for block in blocks(text):
        if before and not before == block.kind == "item":
            yield ""
        before = block.kind
        rows = [tuple(map(_inline, row)) for row in block.rows]
        if block.kind == "code":
            yield from (f"    {line}".rstrip() for (line,) in block.rows)
        elif block.kind == "table":
            yield from _table(rows[0], rows[1:], width)
        elif block.kind == "section":
            yield from (rows[0][0], "-" * len(rows[0][0]))
        else:
            mark, words = rows[0] if block.kind == "item" else ("", *rows[0])
            yield from wrapped(mark, words.upper() if block.kind == "title" else words, width)


def _inline(text: str) -> str:
    # a command is not broken over two lines, so that it can be copied
    return linked(text, lambda name: f"`hsm-agent{NBSP}help{NBSP}{name}`").replace("**", "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield a table with its last column wrapped; where that is too narrow, a list of each row's cells."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    left = width - sum(widths[:-1]) - _GAP * (len(widths) - 1)
    if left < min(_NARROWEST, widths[-1]):
        yield from _lists(head, rows, width)
        return
    for row in (head, ["-" * each for each in (*widths[:-1], min(left, widths[-1]))], *rows):
        before = "".join(cell.ljust(wide + _GAP) for cell, wide in zip(row, widths[:-1]))
        first, *others = wrapped("", row[-1], left)
        yield (before + first).rstrip()
        yield from (" " * len(before) + line for line in others)


def _lists(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    for row in rows:
        yield from wrapped("", row[0] or "-", width, indent=2)
        for name, cell in zip(head[1:], row[1:]):
            if cell:
                yield from wrapped(f"  {name}: ", cell, width, indent=4)
