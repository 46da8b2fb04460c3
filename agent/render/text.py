"""The parts of every screen: wrapping, labels, colour, and no control characters."""

from __future__ import annotations

import re
import textwrap

from agent.core.plain import printable

_COLOURS = {
    "met": "32", "ok": "32", "changed": "36", "would-change": "33", "degraded": "33", "drift": "33", "undone": "33",
    "rolled-back": "31", "failed": "31", "skipped": "2", "unreachable": "31", "drifted": "33", "not-reached": "2",
    "at-work": "36",
}  # fmt: skip
_FINGERPRINT = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
# the narrowest column in which a step's text is still pleasant to read
_COLUMN = 28
_INDENT = 6
# a space at which no line ends
NBSP = "\N{NO-BREAK SPACE}"


def labelled(label: str, text: str, width: int | None = None) -> list[str]:
    """Return a labelled text. Hints are never wrapped: they contain commands that people copy."""
    made = []
    for number, line in enumerate(text.splitlines() or [""]):
        before = " " * len(label) if number else label
        made += wrapped(before, line, width, indent=len(label))
    return made


def wrapped(before: str, text: str, width: int | None, indent: int | None = None) -> list[str]:
    """Return a text behind `before`, wrapped under its own beginning; words are not broken.

    When there is no room for that, `before` has a line of its own. Every line of a screen is made here, so that no text
    of a host, an inventory or a file can move the cursor.
    """
    before, text = printable(before), _harmless(text.strip("\n").replace("\n", " / "))
    deeper = len(before) if indent is None else indent
    if width is None or len(before) + len(text) <= width:
        return [before + text.replace(NBSP, " ")]
    alone = []
    if width - deeper < _COLUMN:
        alone, before, deeper = [before] if before.strip() else [], "", _INDENT
        before = " " * _INDENT if alone else ""
    made = textwrap.wrap(
        text, max(width, _INDENT + 1), initial_indent=before, subsequent_indent=" " * deeper,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [*alone, *(line.replace(NBSP, " ") for line in made)]


def short(text: str) -> str:
    """Shorten a long text: fingerprints to the part that people compare, several lines to one."""
    shown = " / ".join(printable(line) for line in text.splitlines())
    return _FINGERPRINT.sub(r"\1…", shown)


def coloured(text: str, outcome: str, *, colour: bool) -> str:
    shown = printable(text)
    return f"\033[{_COLOURS.get(outcome, '0')}m{shown}\033[0m" if colour else shown


def _harmless(text: str) -> str:
    return NBSP.join(map(printable, text.split(NBSP)))
