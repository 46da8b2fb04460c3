"""An input whose reads are bounded in time on every system: a thread waits for what comes, so that nobody else need."""

from __future__ import annotations

import os
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 64 * 1024
# How many pieces may lie ready: whoever sends more waits, as at a full pipe.
_READY = 16
# How often whoever reads all of an input is asked whether to go on, in seconds.
_TURN = 0.05


def read_all(fd: int, most: int, mind: Callable[[], None]) -> bytes:
    """Return what comes until the end, at most so many bytes; `mind` is called now and then, and may raise."""
    incoming = TimedInput(fd, _TURN)
    whole = bytearray()
    while len(whole) < most:
        mind()
        try:
            piece = incoming.read(most - len(whole))
        except ConnectionError:  # nothing yet
            continue
        if not piece:
            break
        whole += piece
    return bytes(whole)


class TimedInput:
    """A file descriptor, such as that of standard input, read by a thread of its own until it ends.

    Windows has neither an alarm nor a wait for pipes. To look again and again whether something lies there would do,
    but a turn of its clock takes 16 ms and a pipe holds 4 kB: a package of 30 MB would take two minutes. The thread
    reads the descriptor and no buffered stream, of which Python would wait for the lock when it ends.
    """

    def __init__(self, fd: int, patience: float) -> None:
        self._patience = patience
        self._pieces: queue.Queue[bytes] = queue.Queue(_READY)
        self._held = b""
        self._ended = False
        # nobody ends a read that waits: the process does
        threading.Thread(target=self._listen, args=(fd,), name="incoming", daemon=True).start()

    def readline(self, most: int) -> bytes:
        """Return the next line, or what there is of it at its end or after `most` bytes. Raises ConnectionError."""
        pieces = [self._held]
        while b"\n" not in pieces[-1] and sum(map(len, pieces)) < most:
            piece = self._next()
            if not piece:
                break
            pieces.append(piece)
        whole = b"".join(pieces)
        end = min(whole.find(b"\n") + 1 or len(whole), most)
        self._held = whole[end:]
        return whole[:end]

    def read(self, most: int) -> bytes:
        """Return at most so many bytes as soon as there are any, b"" at the end. Raises ConnectionError."""
        whole = self._held or self._next()
        self._held = whole[most:]
        return whole[:most]

    def _next(self) -> bytes:
        """Return what comes next. Raises ConnectionError when nothing does within the time."""
        if self._ended:
            return b""
        try:
            piece = self._pieces.get(timeout=self._patience)
        except queue.Empty:
            raise ConnectionError(f"nothing came over the link for {self._patience:g} s") from None
        self._ended = not piece
        return piece

    def _listen(self, fd: int) -> None:
        piece = b"begin"
        while piece:
            try:
                piece = os.read(fd, _PIECE)
            except OSError:  # the other side is gone, which some pipes call an error
                piece = b""
            self._pieces.put(piece)
