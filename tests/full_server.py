"""A server that is there and answers nobody: its queue is full."""

from __future__ import annotations

import select
import socket
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def full_server() -> Iterator[int]:
    """A queue so full that the kernel does not answer any more, as behind a security group."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting: list[socket.socket] = []
        try:
            while len(waiting) < 20:
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listener.getsockname())
                if not select.select([], waiting[-1:], [], 0.2)[1]:
                    break
            yield listener.getsockname()[1]
        finally:
            for each in waiting:
                each.close()
