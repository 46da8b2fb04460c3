"""An input with a time limit for each read on every system: a thread does the blocking read."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 64 * 1024
# How many pieces may wait here: a sender of more is blocked, as by a full pipe.
_READY = 16
# How often `check_stopped` is called while all of an input is read, in seconds.
_TURN = 0.05


def read_all(fd: int, most: int, check_stopped: Callable[[], None]) -> bytes:
    """Return all input up to its end, at most `most` bytes; `check_stopped` is called regularly, and may raise."""
    incoming = TimedInput(fd, _TURN)
    data = bytearray()
    while len(data) < most:
        check_stopped()
        try:
            piece = incoming.read(most - len(data))
        except ConnectionError:  # nothing yet
            continue
        if not piece:
            break
        data += piece
    return bytes(data)


class TimedInput:
    """A file descriptor, such as that of standard input, read by a thread of its own until it ends.

    Windows has neither an alarm nor a wait for pipes. Polling was rejected: a turn of its clock takes 16 ms and a
    pipe holds 4 kB, so a package of 30 MB would take two minutes. The thread reads the descriptor and no buffered
    stream, because Python would wait for the lock of that when it ends.
    """

    def __init__(self, fd: int, timeout: float) -> None:
        self._timeout = timeout
        self._pieces: queue.Queue[bytes] = queue.Queue(_READY)
        self._rest = b""
        self._ended = False
        # a read that blocks cannot be ended: it ends with the process
        threading.Thread(target=self._listen, args=(fd,), name="incoming", daemon=True).start()

    def readline(self, most: int) -> bytes:
        """Return the next line, or a part of it at the end or after `most` bytes. Raises ConnectionError."""
        pieces = [self._rest]
        while b"\n" not in pieces[-1] and sum(map(len, pieces)) < most:
            piece = self._next()
            if not piece:
                break
            pieces.append(piece)
        data = b"".join(pieces)
        end = min(data.find(b"\n") + 1 or len(data), most)
        self._rest = data[end:]
        return data[:end]

    def read(self, most: int) -> bytes:
        """Return at most `most` bytes as soon as there are any, b"" at the end. Raises ConnectionError."""
        data = self._rest or self._next()
        self._rest = data[most:]
        return data[:most]

    def _next(self) -> bytes:
        """Return the next piece. Raises ConnectionError when none arrives within `timeout` seconds."""
        if self._ended:
            return b""
        try:
            piece = self._pieces.get(timeout=self._timeout)
        except queue.Empty:
            raise ConnectionError(f"nothing came over the link for {self._timeout:g} s") from None
        self._ended = not piece
        return piece

    def _listen(self, fd: int) -> None:
        piece = b"begin"
        while piece:
            try:
                piece = os.read(fd, _PIECE)
            except OSError:  # the other side is gone, which some pipes report as an error
                piece = b""
            self._pieces.put(piece)
