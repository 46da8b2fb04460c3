"""Messages as they travel through AWS Systems Manager: compressed, in Base64, in one line that shows where it ends.

A command's parameter is one such text, and what a host prints another: of that AWS keeps 24,000 characters.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# In bytes, of what a text may unpack to: one of a few kilobytes could fill a memory.
MOST_BYTES = 4 * 1024 * 1024
_BEGIN, _END = "hsm-agent-report:", ":end"
_LINE = re.compile(rf"^{_BEGIN}([A-Za-z0-9+/=]*)({_END}$)?", re.MULTILINE)


class CutError(ValueError):
    """The line begins and does not end: what carried it has a limit."""


def pack(values: Mapping[str, Any]) -> str:
    """Return JSON values as a text of Base64 alone."""
    return base64.b64encode(zlib.compress(json.dumps(values).encode(), 9)).decode("ascii")


def unpack(text: str) -> bytes:
    """Return the JSON that was packed. Raises ValueError for what is no such text, or for too large a one."""
    try:
        packed = base64.b64decode(text, validate=True)
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed, MOST_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:
        raise ValueError(f"more than {MOST_BYTES} bytes" if unpacker.unconsumed_tail else "it has no end")
    return data


def line_of(values: Mapping[str, Any]) -> str:
    """Return the line by which a host answers."""
    return f"{_BEGIN}{pack(values)}{_END}\n"


def text_in(output: str) -> str | None:
    """Return what was packed in the last such line of an output, None without one. Raises CutError."""
    found = re.findall(_LINE, output.replace("\r\n", "\n"))
    if not found:
        return None
    packed, end = found[-1]
    if not end:
        raise CutError(f"{len(output)} characters without an end")
    return str(packed)
