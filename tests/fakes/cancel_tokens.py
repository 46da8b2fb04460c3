"""A cancel token that a test holds."""

from __future__ import annotations

import threading

from agent.core.transport import CancelledError


class Cord:
    """A cancel token of the tests: what waits on it wakes when it is cut."""

    def __init__(self) -> None:
        self.is_cut = threading.Event()
        self.asked: float | None = None

    def cancel(self) -> None:
        self.is_cut.set()

    def wait(self, seconds: float) -> None:
        self.asked = seconds
        if self.is_cut.wait(seconds):
            raise CancelledError
