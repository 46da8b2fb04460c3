r"""Paths of Windows: made absolute, without the limit of 260 characters, and without the names that are devices."""

# (names are strings in the Host interface)

from __future__ import annotations

import ntpath
import re

_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')
# What Windows takes for a device wherever it stands, whatever follows a dot.
_DEVICE = re.compile(
    r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.IGNORECASE
)


def full(path: str, folder: str) -> str:
    r"""Return `path`, as seen from `folder`, in the form \\?\C:\... that the kernel takes as it is.

    So a path may have 32767 characters, and nothing in it is silently another: a stream of a file (`a:b`), a device
    (`NUL`), a name that loses its last dot. Raises ValueError for those.
    """
    plain = _plain(path)
    if plain.startswith("\\\\") and not re.match(r"\\\\[^\\]+\\[^\\]", plain):
        raise ValueError("not an absolute path: a server, but no share")  # Python 3.9 makes a folder of it
    drive, rest = ntpath.splitdrive(ntpath.normpath(ntpath.join(_plain(folder), plain)))
    if not rest.startswith("\\") or (len(drive) != 2 and not re.fullmatch(r"\\\\[^\\]+\\[^\\]+", drive)):
        raise ValueError("not an absolute path")
    for name in filter(None, rest.split("\\")):
        if _FORBIDDEN.search(name):
            raise ValueError(f"{name!r} holds a character that no name has on Windows")
        if name[-1] in " .":
            raise ValueError(f"{name!r} ends with a blank or a dot, which Windows drops")
        if _DEVICE.fullmatch(name):
            raise ValueError(f"{name!r} is a device on Windows")
    return f"\\\\?\\UNC{drive[1:]}{rest}" if drive.startswith("\\\\") else f"\\\\?\\{drive}{rest}"


def shown(path: str) -> str:
    r"""Return a path as people write it, without \\?\ in front."""
    return re.sub(r"^\\\\\?\\", "", re.sub(r"^\\\\\?\\UNC\\", r"\\\\", path))


def is_root(path: str) -> bool:
    """Tell whether nothing but a drive, or a share, is named."""
    return not ntpath.splitdrive(shown(path))[1].strip("\\/")


def _plain(path: str) -> str:
    windows = path.replace("/", "\\")
    if windows.startswith("\\\\.\\"):
        raise ValueError("a device, not a file")
    return shown(windows)
