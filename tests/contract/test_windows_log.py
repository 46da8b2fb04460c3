"""Our source in the Event Log: its key in a real registry, and calls of Windows that must be made: on Windows alone (tests/windows)."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent.hosts.local import local_host
from agent.hosts.windows.events import LONGEST, EventLog
from agent.log import open_log
from agent.windows.registry import read_key

assert sys.platform == "win32"

from agent.hosts.windows import event_source  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = rf"HKLM\{event_source.KEY}"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    logging.getLogger("agent").handlers.clear()
    subprocess.run(["reg", "delete", KEY, "/f", "/reg:64"], check=False, capture_output=True, timeout=60)


def test_the_source_is_registered_once_and_written_to() -> None:
    """Wine takes every event and keeps none: that they can be read is Windows' to prove."""
    for _ in range(2):
        open_log(local_host(), may_write=True)
        assert read_key(local_host(), KEY).values == {
            "EventMessageFile": r"%SystemRoot%\System32\EventCreate.exe",
            "TypesSupported": 7,
        }
    (handler,) = logging.getLogger("agent").handlers
    assert isinstance(handler, EventLog)
    event_source.open_source()(4, 1, "ü" * LONGEST)
    logging.getLogger("agent").error("%s", "failed")


def test_who_may_not_write_leaves_no_trace() -> None:
    open_log(local_host(), may_write=False)
    assert local_host().registry(KEY) is None
    (handler,) = logging.getLogger("agent").handlers
    assert isinstance(handler, logging.NullHandler)
