"""Everything that is wrong with the input, so that all of it is reported at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.core.codes import CODES
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.core.codes import CodeName


# The longest text of one error, in characters.
_LONGEST = 500


class InputErrors:
    """Everything that is wrong with the input, collected so that it is reported at once."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts: list[str] = list(texts)

    def add(self, where: str, text: str) -> None:
        """Add what is wrong at a place. Of a text that repeats a very long value the middle is left out."""
        half = _LONGEST // 2
        self.texts.append(
            f"{where}: {text if len(text) <= _LONGEST else f'{text[:half]} ... {text[-half:]}'}"
        )

    def raise_any(self, code: CodeName = "config-invalid", what: str = "the input") -> None:
        """Raise AgentError `code` naming all complaints, when there is one."""
        if self.texts:
            raise self.error(code, what)

    def error(self, code: CodeName = "config-invalid", what: str = "the input") -> AgentError:
        """Return all complaints as one error."""
        count = len(self.texts)
        every = "every line of the complaint; they are all given at once"
        hint = None if count > 1 else CODES[code].fix.replace(every, "what is named")
        count_text = f"{count} things are" if count > 1 else "one thing is"
        return AgentError(code, f"{count_text} wrong with {what}", saw="\n".join(self.texts), hint=hint)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a complaint about an unknown name: the nearest known one, when there is one."""
    from difflib import get_close_matches  # noqa: PLC0415 -- only for a complaint

    near = get_close_matches(name, list(known), 1, 0.4)
    return f"; did you mean `{near[0]}`?" if near else ""
