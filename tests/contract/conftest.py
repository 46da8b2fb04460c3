"""Leaves out what can only run on Windows; tests/wine runs that inside Wine."""

from __future__ import annotations

import sys

_WINDOWS = ["test_windows_host.py", "test_windows_msi.py", "test_windows_standin.py"]
collect_ignore = [] if sys.platform == "win32" else _WINDOWS
