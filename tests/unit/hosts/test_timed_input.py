"""An input that is waited for: lines and pieces as they come, however they are cut, and no wait without end."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable

import pytest

from agent.hosts.timed_input import TimedInput

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = 60.0


@contextmanager
def told(*pieces: bytes, patience: float = LONG, stays: bool = False) -> Iterator[TimedInput]:
    """An input to which somebody writes these pieces, and then closes it unless he stays."""
    reader, writer = os.pipe()

    def write() -> None:
        for piece in pieces:
            os.write(writer, piece)
        if not stays:
            os.close(writer)

    teller = threading.Thread(target=write)
    teller.start()
    incoming = TimedInput(reader, patience)
    yield incoming
    teller.join(LONG)
    if stays:
        os.close(writer)


def whole(read: Callable[[int], bytes], most: int) -> list[bytes]:
    return list(iter(lambda: read(most), b""))


def test_lines_are_lines_however_they_come() -> None:
    with told(b"on", b"e\ntwo\nth", b"ree") as incoming:
        assert whole(incoming.readline, 100) == [b"one\n", b"two\n", b"three"]


def test_a_line_without_end_is_cut() -> None:
    with told(b"x" * 250) as incoming:
        assert whole(incoming.readline, 100) == [b"x" * 100, b"x" * 100, b"x" * 50]


def test_what_stands_behind_a_line_is_read_next() -> None:
    with told(b'{"size": 5}\n12345{"next": 1}\n') as incoming:
        assert incoming.readline(100) == b'{"size": 5}\n'
        assert (incoming.read(3), incoming.read(2)) == (b"123", b"45")
        assert (incoming.readline(100), incoming.read(9)) == (b'{"next": 1}\n', b"")


def test_8_mb_come_whole_to_a_slow_reader() -> None:
    data = os.urandom(1000) * 8000
    with told(data) as incoming:
        assert b"".join(whole(incoming.read, 1000)) == data


@pytest.mark.parametrize("comes", [(), (b"half a line",)], ids=["silent", "in the middle"])
def test_who_stays_and_says_nothing_is_not_waited_for(comes: tuple[bytes, ...]) -> None:
    silence = pytest.raises(ConnectionError, match=r"nothing came over the link for 0.2 s")
    with told(*comes, patience=0.2, stays=True) as incoming, silence:
        incoming.readline(100)


def test_an_input_that_cannot_be_read_has_ended() -> None:
    reader, writer = os.pipe()
    assert TimedInput(writer, LONG).read(9) == b""
    os.close(reader)
    os.close(writer)
