r"""The agent's source in the Event Log: a registry key that names the file with its texts, and a handle to write with.

The text of an event is looked up in a table of a program. The table of `eventcreate`, which every Windows has, holds
the numbers 1 to 1000, and each text is `%1`; eventcreate registers its own sources in the same way.
"""

from __future__ import annotations

import ctypes
import sys
import winreg
from ctypes import wintypes
from typing import TYPE_CHECKING

assert sys.platform == "win32"

if TYPE_CHECKING:
    from agent.hosts.windows.events import Write

NAME = "hsm-agent"
KEY = rf"SYSTEM\CurrentControlSet\Services\EventLog\Application\{NAME}"
_TABLE = r"%SystemRoot%\System32\EventCreate.exe"
_ALL_KINDS = 7


def open_source() -> Write:
    """Register the source if it is absent, which takes an administrator, and return the function that writes to it.

    Raises OSError. The handle is closed by the end of the program: it writes its last event just before.
    """
    rights = winreg.KEY_READ | winreg.KEY_WRITE | winreg.KEY_WOW64_64KEY
    with winreg.CreateKeyEx(winreg.HKEY_LOCAL_MACHINE, KEY, access=rights) as key:
        winreg.SetValueEx(key, "EventMessageFile", 0, winreg.REG_EXPAND_SZ, _TABLE)
        winreg.SetValueEx(key, "TypesSupported", 0, winreg.REG_DWORD, _ALL_KINDS)
    advapi32 = ctypes.WinDLL("advapi32", use_last_error=True)
    register, report = advapi32.RegisterEventSourceW, advapi32.ReportEventW
    register.argtypes, register.restype = [wintypes.LPCWSTR, wintypes.LPCWSTR], wintypes.HANDLE
    report.argtypes = [
        wintypes.HANDLE, wintypes.WORD, wintypes.WORD, wintypes.DWORD, wintypes.LPVOID, wintypes.WORD, wintypes.DWORD,
        ctypes.POINTER(wintypes.LPCWSTR), wintypes.LPVOID,
    ]  # fmt: skip
    handle = register(None, NAME)
    if not handle:
        raise ctypes.WinError(ctypes.get_last_error())

    def write(kind: int, number: int, words: str) -> None:
        texts = (wintypes.LPCWSTR * 1)(words)
        if not report(handle, kind, 0, number, None, 1, 0, texts, None):
            raise ctypes.WinError(ctypes.get_last_error())

    return write
