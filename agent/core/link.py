"""How a connection to another machine can end before its time."""

from __future__ import annotations


class LinkLostError(Exception):
    """The connection broke; the other end may be at work still."""


class LineCutError(Exception):
    """The connection was cut from here, by a deadline or by the operator."""
