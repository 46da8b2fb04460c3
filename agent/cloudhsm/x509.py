"""X.509 certificates read from their own bytes (RFC 5280): no state of OpenSSL has a say in what they are.

A thread's OpenSSL keeps a queue of errors, and what an earlier call left there is taken for the failure of a later one.
So a sound CA was damaged on hosts whose `openssl.cnf` names a group that their OpenSSL does not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import NamedTuple

from agent.cloudhsm.fingerprint import sha256_of

Name = tuple[tuple[tuple[str, str], ...], ...]

_BOOLEAN, _INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE, _SET = 0x01, 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_BASIC_CONSTRAINTS, _KEY_USAGE = "2.5.29.19", "2.5.29.15"
_KEY_CERT_SIGN = 0x04
# kinds of string by their tags: UTF8, Numeric, Printable, T61, IA5, Visible, Universal, BMP
_TEXTS = {
    12: "utf-8",
    **dict.fromkeys((18, 19, 22, 26), "ascii"),
    20: "latin-1",
    28: "utf-32-be",
    30: "utf-16-be",
}
_ATTRIBUTES = {
    "2.5.4.3": "CN",
    "2.5.4.4": "surname",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "streetAddress",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.17": "postalCode",
    "2.5.4.42": "givenName",
    "2.5.4.46": "dnQualifier",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "userId",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}


class Value(NamedTuple):
    """One value of DER: its tag, its content, and all of its bytes."""

    tag: int
    content: bytes
    whole: bytes


@dataclass(frozen=True)
class Algorithm:
    """An algorithm by its object identifier; `parameters` are the bytes behind that."""

    oid: str
    parameters: bytes


@dataclass(frozen=True)
class PublicKey:
    """What a certificate certifies; `data` is in the form of its algorithm."""

    algorithm: Algorithm
    data: bytes


@dataclass(frozen=True)
class X509Certificate:
    """One certificate. `signed` are the bytes that `signature` is over; `is_ca` tells whether it may issue others."""

    der: bytes
    signed: bytes
    signature: bytes
    signed_with: Algorithm
    subject: Name
    issuer: Name
    not_before: datetime
    not_after: datetime
    key: PublicKey
    is_ca: bool

    @property
    def sha256(self) -> str:
        return sha256_of(self.der)

    @property
    def is_self_issued(self) -> bool:
        return names(self.subject, self.issuer)


def read_certificate(der: bytes) -> X509Certificate:
    """Return the certificate that these bytes are, all of them. Raises ValueError for anything else."""
    (whole,) = _all(der, 1)
    signed, algorithm, signature = _all(_content(whole, _SEQUENCE), 3)
    fields = list(values(_content(signed, _SEQUENCE)))
    version = _version(fields.pop(0)) if fields and fields[0].tag == _VERSION else 1
    if len(fields) < 6:
        raise ValueError("a certificate has a serial number, an issuer, dates, a subject and a key")
    serial, inner, issuer, validity, subject, key = fields[:6]
    _content(serial, _INTEGER)
    signed_with = read_algorithm(algorithm)
    if read_algorithm(inner) != signed_with:
        raise ValueError("two algorithms of one signature")
    begin, end = _all(_content(validity, _SEQUENCE), 2)
    extensions = _extensions(fields[6:])
    subject_name, issuer_name = _name(subject), _name(issuer)
    self_issued = names(subject_name, issuer_name)
    return X509Certificate(
        der=der,
        signed=signed.whole,
        signature=_bits(signature),
        signed_with=signed_with,
        subject=subject_name,
        issuer=issuer_name,
        not_before=_time(begin),
        not_after=_time(end),
        key=_public_key(key),
        is_ca=_may_issue(extensions) if version == 3 else self_issued,
    )


def names(one: Name, other: Name) -> bool:
    """Tell whether two names are one: letters and spaces count as X509_NAME_cmp has them."""
    return _folded(one) == _folded(other)


def values(der: bytes) -> tuple[Value, ...]:
    """Return the values that lie one after the other. Raises ValueError where it is not DER."""
    found, at = [], 0
    while at < len(der):
        begin, size = _header(der, at)
        if begin + size > len(der):
            raise ValueError("cut short")
        found.append(Value(der[at], der[begin : begin + size], der[at : begin + size]))
        at = begin + size
    return tuple(found)


def sequence(der: bytes) -> tuple[Value, ...]:
    """Return the contents of the SEQUENCE that these bytes are. Raises ValueError."""
    (whole,) = _all(der, 1)
    return values(_content(whole, _SEQUENCE))


def integer(value: Value) -> int:
    """Return a number. Raises ValueError."""
    content = _content(value, _INTEGER)
    if not content:
        raise ValueError("a number without digits")
    return int.from_bytes(content, "big", signed=True)


def oid(value: Value) -> str:
    """Return an object identifier as people write it. Raises ValueError."""
    content = _content(value, _OID)
    if not content or content[-1] & 0x80 or len(content) > 64:
        raise ValueError("no object identifier")
    arcs, arc = [], 0
    for byte in content:
        arc = arc << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(each) for each in (first, arcs[0] - 40 * first, *arcs[1:]))


def read_algorithm(value: Value) -> Algorithm:
    """Return an AlgorithmIdentifier. Raises ValueError."""
    kind, *parameters = values(_content(value, _SEQUENCE))
    return Algorithm(oid(kind), b"".join(each.whole for each in parameters))


def _header(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content begins and how long it is. DER has one spelling of a length."""
    if at + 2 > len(der) or der[at] & 0x1F == 0x1F:
        raise ValueError("cut short, or a tag that no certificate has")
    size, begin = der[at + 1], at + 2
    if size < 0x80:
        return begin, size
    count = size & 0x7F
    digits = der[begin : begin + count]
    if not 0 < count <= 4 or len(digits) != count:
        raise ValueError("no length of DER")
    size = int.from_bytes(digits, "big")
    if size < 0x80 or digits[0] == 0:
        raise ValueError("no length of DER")
    return begin + count, size


def _all(der: bytes, count: int) -> tuple[Value, ...]:
    found = values(der)
    if len(found) != count:
        raise ValueError(f"{len(found)} values, wanted {count}")
    return found


def _content(value: Value, tag: int) -> bytes:
    if value.tag != tag:
        raise ValueError(f"tag {value.tag:#x}, wanted {tag:#x}")
    return value.content


def _bits(value: Value) -> bytes:
    """Return a BIT STRING as bytes; its first byte counts unused bits."""
    content = _content(value, _BITS)
    if content[:1] != b"\0":
        raise ValueError("bits that are no bytes")
    return content[1:]


def _version(value: Value) -> int:
    (number,) = values(value.content)
    return integer(number) + 1


def _public_key(value: Value) -> PublicKey:
    algorithm, data = values(_content(value, _SEQUENCE))
    return PublicKey(read_algorithm(algorithm), _bits(data))


def _name(value: Value) -> Name:
    return tuple(
        tuple(_attribute(each) for each in values(_content(part, _SET)))
        for part in values(_content(value, _SEQUENCE))
    )


def _attribute(value: Value) -> tuple[str, str]:
    kind, text = values(_content(value, _SEQUENCE))
    identifier = oid(kind)
    encoding = _TEXTS.get(text.tag)
    written = text.content.decode(encoding, "replace") if encoding else "#" + text.whole.hex()
    return _ATTRIBUTES.get(identifier, identifier), written


def _folded(name: Name) -> list[list[tuple[str, str]]]:
    return [sorted((kind, " ".join(text.lower().split())) for kind, text in part) for part in name]


def _time(value: Value) -> datetime:
    written = value.content.decode("ascii")
    if value.tag == _UTC_TIME:
        written = ("19" if written[:2] >= "50" else "20") + written
    elif value.tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    if len(written) != 15 or written[14] != "Z" or not written[:14].isdigit():
        raise ValueError("no time")
    month, day, hour, minute, second = (int(written[at : at + 2]) for at in range(4, 14, 2))
    return datetime(int(written[:4]), month, day, hour, minute, second, tzinfo=timezone.utc)


def _extensions(rest: list[Value]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for field in rest:
        if field.tag == _EXTENSIONS:
            for extension in sequence(field.content):
                identifier, *_, data = values(_content(extension, _SEQUENCE))
                found[oid(identifier)] = _content(data, _OCTETS)
    return found


def _may_issue(extensions: dict[str, bytes]) -> bool:
    """Tell whether a certificate is a CA's: its basic constraints, and its key usage if it has one, say so."""
    usage = extensions.get(_KEY_USAGE)
    if usage is not None:
        (bits,) = values(usage)
        if not _content(bits, _BITS)[1:2] or not bits.content[1] & _KEY_CERT_SIGN:
            return False
    constraints = sequence(extensions.get(_BASIC_CONSTRAINTS, b"\x30\x00"))
    return any(each.tag == _BOOLEAN and any(each.content) for each in constraints[:1])
