"""What a key of the Windows registry holds, as `HostView.registry` returns it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = Union[str, int, "tuple[str, ...]"]


@dataclass(frozen=True)
class RegistryKey:
    """The content of one key: its values by their names, and the names of its subkeys.

    Texts are as written, with `%SystemRoot%` in them; several texts are a tuple. Values of other types than
    texts and numbers are left out. The names of values ignore case.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    subkeys: tuple[str, ...] = ()

    def text(self, name: str) -> str:
        """Return a text, empty when there is none of that name."""
        found = self._named(name)
        return found if isinstance(found, str) else ""

    def number(self, name: str) -> int | None:
        """Return a number, None when there is none of that name."""
        found = self._named(name)
        return found if isinstance(found, int) else None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return several texts, none when there are none of that name."""
        found = self._named(name)
        return found if isinstance(found, tuple) else ()

    def _named(self, name: str) -> Value | None:
        return next((value for each, value in self.values.items() if each.lower() == name.lower()), None)
