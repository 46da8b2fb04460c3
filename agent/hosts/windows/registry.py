"""Keys of the registry, complete or not at all: the part left out might be the one that matters."""

from __future__ import annotations

import sys
import winreg
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError
from agent.core.registry import RegistryKey

assert sys.platform == "win32"

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.core.registry import Value

_ROOT = "HKLM\\"
# Far more than a Windows has: 20,000 rules of a firewall are 10 MB.
_MOST_ENTRIES = 200_000
_MOST_CHARACTERS = 64 * 1024 * 1024
_NO_MORE, _BEING_REMOVED = 259, 1018
_RIGHTS = winreg.KEY_READ | winreg.KEY_WOW64_64KEY


def read(path: str) -> RegistryKey | None:
    """Do what HostView.registry promises."""
    if not path.upper().startswith(_ROOT):
        raise ValueError(f"{path!r} is not below {_ROOT}")
    try:
        with winreg.OpenKeyEx(winreg.HKEY_LOCAL_MACHINE, path[len(_ROOT) :], access=_RIGHTS) as key:
            names = _each(path, lambda index: winreg.EnumKey(key, index))
            return RegistryKey(_values(path, key), tuple(_text(name) for name in names))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.winerror == _BEING_REMOVED:
            return None
        saw = f"{error.strerror or error} (Windows error {error.winerror})"
        raise _unreadable(path, saw, "a key that can be read") from error


def _values(path: str, key: winreg.HKEYType) -> dict[str, Value]:
    found: dict[str, Value] = {}
    left = _MOST_CHARACTERS
    for name, data, kind in _each(path, lambda index: winreg.EnumValue(key, index)):
        value = _value(data, kind)
        if value is not None:
            found[_text(name)] = value
            left -= 0 if isinstance(value, int) else len("".join(value))
        if left < 0:
            raise _unreadable(path, "too much text", f"at most {_MOST_CHARACTERS} letters")
    return found


def _value(data: Any, kind: int) -> Value | None:
    """Return a text, a number or several texts; None for any other type."""
    if kind in (winreg.REG_SZ, winreg.REG_EXPAND_SZ):
        return _text(data or "")
    if kind == winreg.REG_MULTI_SZ:
        return tuple(_text(each) for each in data or ())
    return data or 0 if kind in (winreg.REG_DWORD, winreg.REG_QWORD) else None


def _each(path: str, take: Callable[[int], Any]) -> Iterator[Any]:
    """Yield the registry's entry at each index, to the end."""
    for index in range(_MOST_ENTRIES):
        try:
            found = take(index)
        except OSError as error:
            if error.winerror == _NO_MORE:
                return
            raise
        yield found
    raise _unreadable(path, "too long a list", f"at most {_MOST_ENTRIES} entries")


def _text(text: str) -> str:
    """Return a text without halves of surrogate pairs, which cannot be encoded, and without zero bytes."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "")


def _unreadable(path: str, saw: str, want: str) -> AgentError:
    return AgentError(
        "unreadable", f"the registry's key {path} cannot be read", saw=saw, want=want,
        hint=f'look at it as an administrator: `reg query "{path}" /reg:64`',
    )  # fmt: skip
