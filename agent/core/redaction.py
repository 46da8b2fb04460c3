"""Text of logs and files without what may be a secret: what is hidden is said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"

# The words are bounded: a log may be one line of a million characters, and no pattern may cost its square.
_NAME = (
    r"(?:pass(?:word|wd|phrase|code)|secret|token|credential|authorization|signature|cookie"
    r"|api[_-]?key|access[_-]?key|private[_-]?key|(?<![a-z])pin(?![a-z]))"
)
_PRIVATE = r"[A-Z ]{0,40}PRIVATE[ _]KEY"
_RULES = (
    # a key whose beginning or end was cut off counts to the end, or from the beginning
    (re.compile(rf"-----BEGIN {_PRIVATE}.*?(?:-----END {_PRIVATE}-{{0,5}}|\Z)", re.DOTALL), HIDDEN),
    (re.compile(rf"\A(?:(?!-----BEGIN).)*?-----END {_PRIVATE}-{{0,5}}", re.DOTALL), HIDDEN),
    # a user, a password and a query of a URL: signatures and tokens stand there
    (re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/@\"'<>]{1,2000}@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    (
        re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://[^\s?\"'<>]{1,2000}\?)[^\s\"'<>]+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(bearer|basic|negotiate)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # the rest of the line, where a name says what it is: a value may have blanks, quotes and commas
    (
        re.compile(rf"({_NAME}[\w.-]{{0,40}}[\"']?\s{{0,5}}[:=]\s{{0,5}})\S[^\n]*", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(rf"(--?(?:\w{{1,20}}-){{0,4}}{_NAME}[\w-]{{0,40}}[ \t]{{1,5}})\S+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    # access keys of AWS, and what has the form of their secrets (40 characters that are no hexadecimal digest)
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b"), HIDDEN),
    (
        re.compile(r"(?<![A-Za-z0-9/+=])(?![0-9a-f]{40})[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"),
        HIDDEN,
    ),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"), HIDDEN),
)


def redact(text: str) -> str:
    """Return a text without private keys, and without what stands where a secret usually stands.

    It hides too much rather than too little: the rest of a line behind a name such as `token`, and every query of a
    URL. A secret that nothing marks as one cannot be found.
    """
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text


_SECRET_KEY = re.compile(rf"{_NAME}", re.IGNORECASE)


def redact_tree(value: Any) -> Any:
    """Return what a JSON document holds with every text redacted, and with no text whose key says that it is secret."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if isinstance(each, str) and each and _SECRET_KEY.search(key) else redact_tree(each)
            for key, each in value.items()
        }
    return [redact_tree(each) for each in value] if isinstance(value, (list, tuple)) else value
