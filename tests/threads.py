"""A call in a thread of its own: whether it ends, how soon after a cut, and what it leaves behind."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from agent.core.errors import AgentError
from agent.ssh.connection import CancelledError, ConnectionLostError, SocketCancelToken
from tests.system.kernel import until

if TYPE_CHECKING:
    from collections.abc import Iterator

# Within this many seconds everything ends that is cut.
BOUND = 1.5

_CLONE_NEWNET = 0x40000000


class InThread(threading.Thread):
    """Does `act` in a thread, in the network namespace with that file when one is given: sockets stay where they began."""

    def __init__(self, act: Callable[[], object], namespace: int | None = None) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._namespace = namespace
        self.raised: BaseException | None = None
        self.returned: object = None
        self.start()

    def run(self) -> None:
        if self._namespace is not None:
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.setns(self._namespace, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            self.returned = self._act()
        except (AgentError, CancelledError, ConnectionLostError, AssertionError) as error:
            self.raised = error

    def ended(self, seconds: float = 20) -> BaseException | None:
        """Wait for its end, and return what it raised."""
        self.join(seconds)
        assert not self.is_alive(), f"it still waits after {seconds} s"
        return self.raised


def assert_cut(cancel_token: SocketCancelToken, waiting: InThread) -> None:
    """Cut, and see that what waits ends within the bound."""
    start = time.monotonic()
    cancel_token.cancel()
    error = waiting.ended(BOUND)
    assert isinstance(error, CancelledError), repr(error)
    assert time.monotonic() - start < BOUND


@contextmanager
def nothing_left() -> Iterator[None]:
    """No thread and no socket stays behind, however a connection ended."""
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    until(lambda: set(threading.enumerate()) <= threads, "the threads to end", 3)
    assert _sockets() <= sockets


def _sockets() -> set[str]:
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        try:
            name = str(each.readlink())
        except FileNotFoundError:  # the one that lists
            continue
        if name.startswith("socket:"):
            found.add(name)
    return found
