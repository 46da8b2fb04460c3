"""Output of Windows programs: many write UTF-16, with or without a mark, between the bytes of other programs."""

from __future__ import annotations

import re

_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
# consecutive Latin characters in UTF-16, in the midst of what another program wrote
_RUN = re.compile(rb"((?:[\x01-\xff]\x00){4,})")
_PLAIN = re.compile(rb"[\t\r\n\x20-\x7e]{4}")


def text_of(data: bytes, otherwise: str) -> str:
    """Return a program's output as text: UTF-16 or UTF-8 if it is that, else by a code page. It contains no NUL."""
    if data[:2] in _MARKS:
        text = _utf16(data[2:], _MARKS[data[:2]])
    elif _is_utf16(data):
        text = _utf16(data, "utf-16-le")
    else:
        pieces = enumerate(_RUN.split(data))
        text = "".join(
            _utf16(piece, "utf-16-le") if odd % 2 else _bytewise(piece, otherwise) for odd, piece in pieces
        )
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _is_utf16(data: bytes) -> bool:
    """Tell whether it is UTF-16 without a mark, which Windows writes with the low byte first.

    Every second byte is zero if the script is Latin, and in every script at the ends of lines.
    """
    if _PLAIN.match(data):  # another program wrote first
        return False
    low, high = data[::2].count(0), data[1::2].count(0)
    return high > low and (high * 8 >= len(data) or "\n" in _utf16(data, "utf-16-le"))


def _utf16(data: bytes, coding: str) -> str:
    return data[: len(data) // 2 * 2].decode(coding, errors="replace")


def _bytewise(data: bytes, otherwise: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode(otherwise, errors="replace")
