"""SHA-256 fingerprints, as they are written and as they are made."""

from __future__ import annotations

import hashlib
import re

_FINGERPRINT = re.compile(r"(?:sha-?(1|256|512)(?: fingerprint)? ?[:=])?([0-9a-f:\s-]*)", re.IGNORECASE)


def parse_fingerprint(text: str) -> str:
    """Return the 64 hex digits of a fingerprint as a person or `openssl` writes it; else ValueError."""
    found = _FINGERPRINT.fullmatch(text.strip())
    if found is None:
        if re.fullmatch(r"(?:sha256:)?[A-Za-z0-9+/]{43}=?", text.strip(), re.IGNORECASE):
            raise ValueError(
                "a fingerprint in base64, as ssh prints it, is not taken: give 64 hexadecimal digits"
            )
        raise ValueError("a SHA-256 fingerprint has 64 hexadecimal digits, with or without colons")
    algorithm, written = found.groups()
    digits = re.sub(r"[^0-9a-f]", "", written.lower())
    if len(digits) == 40 or algorithm == "1":
        raise ValueError(
            "this is a SHA-1 fingerprint; give the SHA-256: `openssl x509 -noout -fingerprint -sha256`"
        )
    if len(digits) != 64:
        raise ValueError(f"a SHA-256 fingerprint has 64 hexadecimal digits, this has {len(digits)}")
    return digits


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
