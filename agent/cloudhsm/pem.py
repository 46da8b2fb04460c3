"""PEM text as people have it: the certificates in it, or what it is instead."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

# beyond this nothing is parsed; a CA with its text dump is a hundredth of it
MOST_INPUT = 1024 * 1024
MOST_BYTES = 16 * 1024
WANT = "a PEM certificate of a CA"
# \n, \r, \t and \/ written out, once or several times over (JSON in JSON), and JSON's \u000a or \u002b
_ESCAPED = re.compile(r"\\{1,4}(?:u00([0-7][0-9A-Fa-f])|([nrt/]))")
# The spaces of a label may be gone, or be newlines: a `sed` that repairs flattened secrets makes them so.
_MARK = re.compile(r"-{1,5}\s{0,2}(BEGIN|END)([A-Z0-9\s]{1,40})-{1,5}")
# PEM labels in capitals anywhere, in any case after BEGIN, and what `openssl pkey -text` and PuTTY write;
# not "X509v3 Private Key Usage Period", nor a comment that says where the private key is kept
_SECRET = re.compile(
    r"PRIVATE\W{0,8}KEY|(?i:-\s{0,2}BEGIN[\w\s]{0,30}PRIVATE\W{0,8}KEY)|Private-Key:|PuTTY-User-Key-File"
)
# a block that may be a certificate, with OpenSSL's trust settings too, and whatever its last line looks like
_CERTIFICATE = re.compile(r"-BEGIN\s{0,2}(?:TRUSTED\s?|X509\s?)?CERTIFICATE-{1,5}([^-]*)")
_BEGINS = (b"-----BEGIN CERTIFICATE-----", b"-----BEGIN X509 CERTIFICATE-----")
_MOST_COLUMNS = 76
_CERTIFICATE_LABELS = ("CERTIFICATE", "X509CERTIFICATE")
_OTHER_LABELS = {
    "TRUSTEDCERTIFICATE": (
        "a certificate with OpenSSL's trust settings",
        "leave them out: `openssl x509 -in FILE -out customerCA.crt`",
    ),
    "CERTIFICATEREQUEST": ("a certificate request", None),
    "NEWCERTIFICATEREQUEST": ("a certificate request", None),
    "PUBLICKEY": ("a public key", None),
    "RSAPUBLICKEY": ("a public key", None),
    "PKCS7": ("PKCS#7", "convert it: `openssl pkcs7 -print_certs -in FILE -out customerCA.crt`"),
    "CMS": ("PKCS#7", "convert it: `openssl pkcs7 -print_certs -in FILE -out customerCA.crt`"),
}
# What DER data is, by the first bytes inside its outer SEQUENCE (a certificate has a SEQUENCE there).
_BINARY = (
    (
        b"\x02\x01\x03",
        "PKCS#12",
        "convert it: `openssl pkcs12 -in FILE -cacerts -nokeys -out customerCA.crt`",
    ),
    (
        b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07",
        "PKCS#7",
        "convert it: `openssl pkcs7 -inform der -print_certs -in FILE -out customerCA.crt`",
    ),
    (
        b"",
        "binary (DER)",
        "convert it to PEM: `openssl x509 -inform der -in FILE -out customerCA.crt`",
    ),
)
_KEYS = (b"\x02\x01\x00", b"\x02\x01\x01")  # PKCS#1 and PKCS#8; SEC 1
_ENCRYPTED_KEYS = (
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x05",
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c",
)  # PBES2; PKCS#12's


def certificates(data: bytes) -> list[bytes]:
    """Return the DER of every certificate in PEM text of any form, without duplicates."""
    if len(data) > MOST_INPUT:
        raise AgentError(
            "ca-unreadable",
            "the CA source is far too large to be a certificate; it was not read",
            saw=f"{len(data)} bytes",
            want=f"at most {MOST_BYTES} bytes",
        )
    if not data.strip(b"\0 \t\r\n\v\f\xef\xbb\xbf\xff\xfe"):
        raise AgentError("ca-unreadable", "the CA source is empty", saw="nothing", want=WANT)
    text = _text(data)
    if _SECRET.search(text):
        raise _secret()
    blocks = _blocks(text)
    if not blocks:
        raise _unlike(data, text)
    ders: dict[bytes, None] = {}
    for label, body in blocks:
        if label not in _CERTIFICATE_LABELS:
            saw, hint = _OTHER_LABELS.get(label, ("another kind of PEM block", None))
            raise refused(saw, hint=hint)
        ders[_decoded(body)] = None
    return list(ders)


def write_pem(ders: Sequence[bytes]) -> bytes:
    lines = []
    for der in ders:
        body = base64.b64encode(der)
        lines += [b"-----BEGIN CERTIFICATE-----"]
        lines += [body[start : start + 64] for start in range(0, len(body), 64)]
        lines += [b"-----END CERTIFICATE-----"]
    return b"\n".join([*lines, b""])


def contains_private_key(data: bytes) -> bool:
    """Tell whether a private key is in a text, in any form that is understood here."""
    return _SECRET.search(_text(data)) is not None


def readable(data: bytes) -> tuple[list[bytes], bool]:
    """Return what looks like a certificate in a file, also if damaged, and whether that is everything in it.

    Raises AgentError `ca-is-private-key`.
    """
    is_complete = True
    try:
        bodies = certificates(data)
    except AgentError as error:
        if error.code.name == "ca-is-private-key":
            raise
        is_complete, bodies = False, _salvaged(_text(data[:MOST_INPUT]))
    # OpenSSL's trust settings may follow a certificate; a truncated one is left out
    found = [der[: _size(der)] for der in bodies if _size(der) <= len(der)]
    return list(dict.fromkeys(found)), is_complete and found == bodies


def _salvaged(text: str) -> list[bytes]:
    return [der for each in _CERTIFICATE.finditer(text) if (der := _base64(each[1])) is not None]


def plain_certificates(data: bytes) -> set[bytes] | None:
    """Return the certificates that a client reads from a file, None where it may stumble over one.

    OpenSSL passes over what is no block. In a block each line is base64; ends of lines and spaces behind them do not
    count. It takes more than is taken here, and what it takes beyond that is written again in that form.
    """
    found = set()
    body: list[bytes] | None = None
    for line in data.replace(b"\r\n", b"\n").split(b"\n"):
        words = line.rstrip(b" \t")
        if body is None:
            if words in _BEGINS:
                body, end = [], words.replace(b"BEGIN", b"END")
            elif words.startswith(b"-----BEGIN "):
                return None
        elif words == end:
            try:
                found.add(base64.b64decode(b"".join(body), validate=True))
            except ValueError:
                return None
            body = None
        elif not words or len(words) > _MOST_COLUMNS or b"-" in words:
            return None
        else:
            body.append(words)
    return found if body is None else None


def _size(der: bytes) -> int:
    """Return how long the value is with which these bytes begin: longer than they are, where that is none."""
    if der[:1] != b"\x30" or len(der) < 2:
        return len(der) + 1
    count = der[1] & 0x7F if der[1] & 0x80 else 0
    return 2 + count + (int.from_bytes(der[2 : 2 + count], "big") if count else der[1])


def _text(data: bytes) -> str:
    """Return the ASCII in UTF-8 or UTF-16, with or without a byte-order mark, and escapes resolved.

    PEM is ASCII, and UTF-16 of it is the same bytes with NULs between; anything else only stands beside it.
    """
    text = data.replace(b"\0", b"").decode("ascii", "replace").replace("\ufffd", " ")
    return _ESCAPED.sub(
        lambda found: chr(int(found[1], 16)) if found[1] else "/" if found[2] == "/" else "\n", text
    )


def _blocks(text: str) -> list[tuple[str, str]]:
    marks = [(found, "".join(found[2].split())) for found in _MARK.finditer(text)]
    blocks = []
    for (begin, label), (end, label_again) in zip(marks[::2], marks[1::2]):
        if (begin[1], end[1], label) != ("BEGIN", "END", label_again):
            raise damaged("BEGIN and END lines that do not match")
        blocks.append((label, text[begin.end() : end.start()]))
    if len(marks) % 2:
        raise damaged(f"{'no END' if marks[-1][0][1] == 'BEGIN' else 'no BEGIN'} line: the text was cut")
    return blocks


def _decoded(body: str) -> bytes:
    der = _base64(body)
    if der is None:
        raise damaged("characters that are no base64, or some are missing")
    return der


def _base64(body: str) -> bytes | None:
    """Return what a block holds, None when that is no base64. Raises AgentError `ca-is-private-key`."""
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except ValueError:
        return None
    if _is_key(der):
        raise _secret()
    return der


def _inner(data: bytes) -> bytes | None:
    """Return the first bytes inside the outer SEQUENCE, None for data that does not begin as DER does."""
    if len(data) < 4 or data[0] != 0x30 or (data[1] < 0x80 and data[1] != len(data) - 2):
        return None
    start = 2 + (data[1] & 0x7F if data[1] & 0x80 else 0)
    return data[start : start + 24]


def _is_key(data: bytes) -> bool:
    inner = _inner(data)
    return inner is not None and (inner.startswith(_KEYS) or any(mark in inner for mark in _ENCRYPTED_KEYS))


def _unlike(data: bytes, text: str) -> AgentError:
    """Name what has no PEM block in it."""
    if _is_key(data):
        return _secret()
    inner = _inner(data)
    if inner is not None:
        saw, hint = next((saw, hint) for mark, saw, hint in _BINARY if inner.startswith(mark))
        return refused(saw, hint=hint)
    start = text.lstrip(" \t\r\n\"'")
    if start.startswith("<"):
        return refused(
            "an HTML or XML page", hint="look at it: it is what a web server answered, not the file"
        )
    if start.startswith("LS0t"):
        return refused("base64 of a PEM text", hint="decode it first: `base64 -d FILE > customerCA.crt`")
    return refused("without a BEGIN CERTIFICATE line")


def refused(saw: str, *, want: str = WANT, hint: str | None = None) -> AgentError:
    return AgentError("ca-not-a-certificate", f"the CA source is {saw}", saw=saw, want=want, hint=hint)


def damaged(saw: str) -> AgentError:
    return AgentError("ca-damaged", f"the CA cannot be decoded: {saw}", saw=saw, want=WANT)


def _secret() -> AgentError:
    """Refuse a private key with fixed words: nothing of the input may get into a report."""
    return AgentError(
        "ca-is-private-key",
        "there is a private key where only the CA's certificate may be",
        saw="a private key",
        want=WANT,
    )
