"""What can become of a file's bytes: one that is another, one too few, one too many, or an end in the middle."""

from __future__ import annotations

DAMAGES = ("flip", "delete", "insert", "cut")


def damaged(data: bytes, kind: str, at: int, byte: int) -> bytes:
    """Return the bytes with one change of a kind. `at` may be beyond the end, and counts from the start again."""
    at %= len(data)
    return {
        "flip": data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :],
        "delete": data[:at] + data[at + 1 :],
        "insert": data[:at] + bytes([byte]) + data[at:],
        "cut": data[:at],
    }[kind]
