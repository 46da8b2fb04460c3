"""How a connection to another machine can end before its time."""

from __future__ import annotations


class ConnectionLostError(Exception):
    """The connection broke: what runs over there goes on, and a new connection may find its result."""


class CancelledError(Exception):
    """The cancel token was cut: whoever watches this connection gave it up."""

    def __init__(self) -> None:
        super().__init__("the connection was cut by its watchdog")
