"""Leaves out what can only run on Windows; tests/windows runs that inside Wine."""

from __future__ import annotations

import sys

collect_ignore_glob = [] if sys.platform == "win32" else ["test_windows_*.py"]
