"""Leaves out what can only run on Windows; tests/wine runs that inside Wine."""

from __future__ import annotations

import sys
from pathlib import Path

_WINDOWS = [path.name for path in Path(__file__).parent.glob("test_windows_*.py")]
collect_ignore = [] if sys.platform == "win32" else _WINDOWS
