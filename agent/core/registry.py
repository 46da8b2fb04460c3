"""The registry of Windows in the words of `reg query`: its 64-bit part, which is where everything of ours is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.core.host import HostView

_TIMEOUT = 30.0


def values(view: HostView, key: str) -> Mapping[str, str]:
    r"""Return the values of one key, name -> text; numbers as `0x1`, several texts with `\0` between them.

    Empty when there is no such key. Raises AgentError `unreadable` when there are too many to be told: what is left
    out may be what counts.
    """
    done = view.ask(("reg", "query", key, "/reg:64"), timeout=_TIMEOUT)
    if is_cut(done.out):
        raise AgentError("unreadable", f"{key} cannot be read", saw="too long a list", want="a whole list")
    wanted = key.rpartition("\\")[2].lower()
    return next((found for name, found in keys(done.out) if name.lower() == wanted), {})


def is_cut(said: str) -> bool:
    """Tell whether the middle of what a program said was left out, as a host does with more than 1 MB."""
    return "bytes left out]" in said


def keys(said: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Walk through what `reg query /s` says: a line for each key, and indented under it one for each value.

    Of a key the last part of its name is told. Texts and numbers are read, other kinds of values left out.
    """
    key, values = "", dict[str, str]()
    for line in said.splitlines():
        value = re.fullmatch(r"    (.+?)    REG_(?:(?:EXPAND_|MULTI_)?SZ|DWORD)(?:    (.*))?", line)
        if line.startswith("HKEY_"):
            if key:
                yield key, values
            key, values = line.rpartition("\\")[2].strip(), {}
        elif value:
            values[value[1]] = (value[2] or "").strip()
    if key:
        yield key, values
