r"""Paths of Windows: made absolute, without the limit of 260 characters, and without the names of devices."""

# (names are strings in the Host interface)

from __future__ import annotations

import ntpath
import re

from agent.core.paths import require_windows_name


def full(path: str, folder: str) -> str:
    r"""Return `path`, relative to `folder`, in the form \\?\C:\... that the kernel takes unchanged.

    So a path may have 32767 characters, and none silently names something else: a stream of a file (`a:b`), a device
    (`NUL`), a name that loses its last dot. Raises ValueError for those.
    """
    plain = _plain(path)
    if plain.startswith("\\\\") and not re.match(r"\\\\[^\\]+\\[^\\]", plain):
        raise ValueError("not an absolute path: a server, but no share")  # Python 3.9 makes a folder of it
    drive, rest = ntpath.splitdrive(ntpath.normpath(ntpath.join(_plain(folder), plain)))
    if not rest.startswith("\\") or (len(drive) != 2 and not re.fullmatch(r"\\\\[^\\]+\\[^\\]+", drive)):
        raise ValueError("not an absolute path")
    for name in filter(None, rest.split("\\")):
        require_windows_name(name)
    return f"\\\\?\\UNC{drive[1:]}{rest}" if drive.startswith("\\\\") else f"\\\\?\\{drive}{rest}"


def shown(path: str) -> str:
    r"""Return a path as people write it, without \\?\ in front."""
    return re.sub(r"^\\\\\?\\", "", re.sub(r"^\\\\\?\\UNC\\", r"\\\\", path))


def is_root(path: str) -> bool:
    """Tell whether the path is a drive or a share and nothing more."""
    return not ntpath.splitdrive(shown(path))[1].strip("\\/")


def _plain(path: str) -> str:
    windows = path.replace("/", "\\")
    if windows.startswith("\\\\.\\"):
        raise ValueError("a device, not a file")
    return shown(windows)
