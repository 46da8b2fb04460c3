"""The binary form of SSH's keys: fields with their lengths in front, of which a key has exactly as many as its type."""

from __future__ import annotations

# How many fields a key of a type has behind its type.
KEY_FIELDS = {
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "ssh-ed25519": 1,
}


class FieldReader:
    """Reads one field after the other. Raises ValueError where they do not fit."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    @property
    def is_done(self) -> bool:
        return self.at == len(self._data)

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def field(self) -> bytes:
        return self._take(self.number(4))

    def text(self) -> str:
        return self.field().decode("utf-8", "replace")

    def _take(self, size: int) -> bytes:
        if size > len(self._data) - self.at:
            raise ValueError("it is cut")
        self.at += size
        return self._data[self.at - size : self.at]


def is_whole(kind: str, blob: bytes) -> bool:
    """Return whether bytes are a key of this type from its beginning to its end."""
    reader = FieldReader(blob)
    try:
        if kind not in KEY_FIELDS or reader.text() != kind:
            return False
        fields = [reader.field() for _ in range(KEY_FIELDS[kind])]
    except ValueError:
        return False
    return reader.is_done and all(fields)
