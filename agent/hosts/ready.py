"""Loads what a run may still need, before it touches anything: the agent's own package may go while it runs."""

from __future__ import annotations

import importlib

# a failure's traceback, threads for probes, an instance's id, a name that is looked up
_RUN = (
    "traceback",
    "linecache",
    "urllib.parse",
    "concurrent.futures.thread",
    "agent.http.imds",
    "encodings.idna",
    "unicodedata",
)
# also what takes a folder off that a download left, and what looks into a jar that it brought
_WEB = (
    "shutil",
    "zipfile",
    "ssl",
    "requests",
    "idna",
    "email.utils",
    "agent.http.download",
    "agent.http.transport",
)


def load_for_run() -> None:
    """Load what any run may need that changes a host; not psutil, without which programs are looked at all the same."""
    for name in _RUN:
        importlib.import_module(name)


def load_for_web() -> None:
    """Load what a download needs, or a report that goes over the network."""
    for name in _WEB:
        importlib.import_module(name)
