"""Text and pages of the manual in roff, for `man`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agent.render.manual import Block


def roff(text: str) -> str:
    """Return plain text in roff."""
    return _line(_escaped(text))


def page_name(topic: str) -> str:
    return f"hsm-agent-{topic}"


def topic_page(topic: str, blocks: Iterable[Block], version: str, date: str) -> str:
    """Return the manual page of a topic, for section 7."""
    _, summary, *rest = blocks
    name = page_name(topic)
    brief = summary.rows[0][0].rstrip(".")
    lines = [
        '.\\" made from agent/docs',
        f'.TH {roff(name.upper())} 7 "{date}" "hsm-agent {version}" "hsm-agent manual"',
        *(".SH NAME", f"{roff(name)} \\- {_inline(brief[0].lower() + brief[1:])}"),
        *([".SH DESCRIPTION"] if rest and rest[0].kind != "section" else []),
        *(line for block in rest for line in _lines(block)),
        *(".SH SEE ALSO", ".BR hsm\\-agent (1)"),
    ]
    return "\n".join(lines) + "\n"


def _lines(block: Block) -> Iterator[str]:
    if block.kind == "section":
        yield f".SH {_inline(block.rows[0][0]).upper()}"
    elif block.kind == "paragraph":
        yield from (".PP", _inline(block.rows[0][0]))
    elif block.kind == "item":
        mark, text = block.rows[0]
        yield from (".IP \\(bu 2" if mark == "- " else f".IP {mark.strip()} 4", _inline(text))
    elif block.kind == "code":
        yield from (".PP", ".RS 4", ".nf", *(roff(line) for (line,) in block.rows), ".fi", ".RE")
    else:
        yield from _table(*block.rows)


def _table(head: Sequence[str], *rows: Sequence[str]) -> Iterator[str]:
    """Yield each row as a paragraph below its first cell, since tables in roff do not wrap."""
    for row in rows:
        yield from (".TP", _inline(row[0]) or "\\-")
        cells = [(name, cell) for name, cell in zip(head[1:], row[1:]) if cell]
        for number, (name, cell) in enumerate(cells):
            yield from ([".br"] if number else [])
            yield _inline(cell if len(head) == 2 else f"{name}: {cell}")
        if not cells:
            yield "\\&"


def _inline(text: str) -> str:
    """Return text with links as references, and code and strong text in bold."""
    from agent.render.manual import linked  # noqa: PLC0415 -- of the tree, whose path the caller sets

    text = linked(text, lambda name: f"**{page_name(name)}**(7)")
    parts = re.split(r"`([^`]+)`|\*\*(.+?)\*\*", text)
    made = [_escaped(parts[0])]
    for code, strong, plain in zip(parts[1::3], parts[2::3], parts[3::3]):
        inner = code if code is not None else strong.replace("`", "")
        made.append(f"\\fB{_escaped(inner)}\\fR{_escaped(plain)}")
    return _line("".join(made))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


def _line(text: str) -> str:
    """Return a line escaped so that a leading full stop or apostrophe is not a roff request."""
    return "\\&" + text if text[:1] in (".", "'") else text
