"""The manual: pages of Markdown that ship with the agent, as they are, or fitted to the width of a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from agent.render.text import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# in a checkout, a wheel and a package alike
FOLDER = Path(__file__).parents[1] / "docs"
_INDEX = "README"
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
_CELL = re.compile(r"(?<!\\)\|")
_ITEM = re.compile(r"(- |\d+\. )")
_GAP = 2
# a last column narrower than this is not read but spelled
_NARROWEST = 30


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
    return text if width is None else "\n".join(_fitted(text, width)) + "\n"


def _pages() -> dict[str, Path]:
    found = (*FOLDER.glob("*.md"), *FOLDER.glob("reference/*.md"))
    return {path.stem: path for path in found if path.stem != _INDEX}


def _fitted(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a page; what stands in a block of code is left as it is, so that it can be copied."""
    text = re.sub(r"\n*<!--.*?-->", "", text, flags=re.DOTALL).strip()
    for number, part in enumerate(re.split(r"^(```.*?^```)$", text, flags=re.MULTILINE | re.DOTALL)):
        if number % 2:
            yield from (f"    {line}".rstrip() for line in part.split("\n")[1:-1])
            continue
        for block in re.split(r"(\n{2,})", part):
            if block.strip():
                yield from _block(block.strip("\n").split("\n"), width)
            else:
                yield from [""] * (block.count("\n") > 1)


def _block(lines: Sequence[str], width: int) -> Iterator[str]:
    """Yield a heading, a table, a list or a paragraph."""
    if lines[0].startswith("#"):
        title = _inline(lines[0].lstrip("# "))
        yield title.upper() if lines[0].startswith("# ") else title
    elif lines[0].startswith("|"):
        head, _, *rows = [_cells(line) for line in lines]
        yield from _table(head, rows, width)
    else:
        for item in re.split(r"\n(?=- |\d+\. )", "\n".join(lines)):
            bullet = _ITEM.match(item)
            mark = bullet[0] if bullet else ""
            words = " ".join(item[len(mark) :].split())
            yield from wrapped(mark, _inline(words), width)


def _inline(text: str) -> str:
    """Return the text of a paragraph, an item or a cell; a cell that is a link and nothing else becomes its text."""

    def shown(link: re.Match[str]) -> str:
        if not link[2].endswith(".md"):
            return f"{link[1]} ({link[2]})"
        command = f"`hsm-agent help {Path(link[2]).stem}`"
        return command if link[1] == Path(link[2]).stem else f"{link[1]} ({command})"

    alone = _LINK.fullmatch(text)
    return alone[1] if alone else _LINK.sub(shown, text).replace("**", "")


def _cells(line: str) -> list[str]:
    return [_inline(cell.strip().replace("\\|", "|")) for cell in _CELL.split(line)[1:-1]]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield a table with its last column wrapped; where that is too narrow, each row as a block of its own."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    left = width - sum(widths[:-1]) - _GAP * (len(widths) - 1)
    if left < min(_NARROWEST, widths[-1]):
        yield from _blocks(head, rows, width)
        return
    for row in (head, ["-" * each for each in (*widths[:-1], min(left, widths[-1]))], *rows):
        before = "".join(cell.ljust(wide + _GAP) for cell, wide in zip(row, widths[:-1]))
        first, *others = wrapped("", row[-1], left)
        yield (before + first).rstrip()
        yield from (" " * len(before) + line for line in others)


def _blocks(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    for row in rows:
        yield from wrapped("", row[0] or "-", width, indent=2)
        for name, cell in zip(head[1:], row[1:]):
            if cell:
                yield from wrapped(f"  {name}: ", cell, width, indent=4)
