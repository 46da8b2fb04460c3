"""Did this key sign that certificate? RSA (RFC 8017) and ECDSA (SEC 1), which are all that CloudHSM takes.

By arithmetic: the standard library of Python verifies no signature but in a TLS connection, and what it does there
hangs on the host's OpenSSL. Nothing here is secret, so nothing has to take the same time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from agent.cloudhsm.x509 import Algorithm, integer, oid, read_algorithm, sequence, values

if TYPE_CHECKING:
    from agent.cloudhsm.x509 import PublicKey, X509Certificate

RSA, RSA_PSS, EC = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.10", "1.2.840.10045.2.1"
# by the signature's algorithm, and by the digest's own
_RSA_DIGESTS = {
    "1.2.840.113549.1.1.4": "md5",
    "1.2.840.113549.1.1.5": "sha1",
    "1.3.14.3.2.29": "sha1",
    "1.2.840.113549.1.1.14": "sha224",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
_EC_DIGESTS = {
    "1.2.840.10045.4.1": "sha1",
    "1.2.840.10045.4.3.1": "sha224",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
_DIGESTS = {
    "1.2.840.113549.2.5": "md5",
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_MGF1 = "1.2.840.113549.1.1.8"
# the beginning of a DigestInfo up to its digest (RFC 8017, 9.2)
_DIGEST_INFO = {
    "md5": bytes.fromhex("3020300c06082a864886f70d020505000410"),
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha224": bytes.fromhex("302d300d06096086480165030402040500041c"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
# as OpenSSL has it: what is beyond costs seconds, and no CA has such a key
_MOST_MODULUS, _MOST_EXPONENT = 16384, 64

_Point = Optional[tuple[int, int, int]]


@dataclass(frozen=True)
class Curve:
    """y² = x³ + ax + b over the field of p, and a point of order n (SEC 2, FIPS 186-4)."""

    name: str
    p: int
    a: int
    b: int
    n: int
    x: int
    y: int


def _curve(name: str, *numbers: str) -> Curve:
    return Curve(name, *(int(number, 16) for number in numbers))


CURVES = {
    "1.2.840.10045.3.1.7": _curve(
        "P-256",
        "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
        "ffffffff00000001000000000000000000000000fffffffffffffffffffffffc",
        "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
    ),
    "1.3.132.0.34": _curve(
        "P-384",
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000fffffffc",
        "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
        "aa87ca22be8b05378eb1c71ef320ad746e1d3b628ba79b9859f741e082542a385502f25dbf55296c3a545e3872760ab7",
        "3617de4a96262c6f5d9e98bf9292dc29f8f41dbd289a147ce9da3113b5f0b8c00a60b1ce1d7e819d7a431d7c90ea0e5f",
    ),
    "1.3.132.0.35": _curve(
        "P-521",
        "01" + "ff" * 65,
        "01" + "ff" * 64 + "fc",
        "0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e156193951ec7e937b1652c0bd3bb1bf073573df88"
        "3d2c34f1ef451fd46b503f00",
        "01fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa51868783bf2f966b7fcc0148f709a5d03bb5c9b8"
        "899c47aebb6fb71e91386409",
        "00c6858e06b70404e9cd9e3ecb662395b4429c648139053fb521f828af606b4d3dbaa14b5e77efe75928fe1dc127a2ffa8de3348b3c1"
        "856a429bf97e7e31c2e5bd66",
        "011839296a789a3bc0045c8a5fb42c7d1bd998f54449579b446817afbd17273e662c97ee72995ef42640c550b9013fad0761353c7086"
        "a272c24088be94769fd16650",
    ),
    "1.3.132.0.10": _curve(
        "secp256k1",
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f",
        "0",
        "7",
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        "483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8",
    ),
}  # fmt: skip


def is_signed_by(certificate: X509Certificate, key: PublicKey) -> bool | None:
    """Tell whether the key made the signature; None where that takes an algorithm that is not known here."""
    made_with, kind = certificate.signed_with.oid, key.algorithm.oid
    try:
        if made_with in _EC_DIGESTS:
            return kind == EC and _signed_by_ec(certificate, key)
        if made_with in _RSA_DIGESTS or made_with == RSA_PSS:
            return kind in (RSA, RSA_PSS) and _signed_by_rsa(certificate, key)
    except ValueError:  # a key or a signature that is no DER of its kind
        return False
    return None


def digest_of(algorithm: Algorithm) -> str:
    """Return the digest that a signature is made with, `none` where the algorithm has its own."""
    if algorithm.oid == RSA_PSS:
        return _pss(algorithm)[0] or "unknown"
    return {**_RSA_DIGESTS, **_EC_DIGESTS}.get(algorithm.oid, "none")


def rsa_numbers(key: PublicKey) -> tuple[int, int]:
    """Return modulus and exponent. Raises ValueError."""
    modulus, exponent = sequence(key.data)
    return integer(modulus), integer(exponent)


def curve_oid(key: PublicKey) -> str:
    """Return which curve a key is on. Raises ValueError where it has none by name."""
    (name,) = values(key.algorithm.parameters)
    return oid(name)


def _signed_by_rsa(certificate: X509Certificate, key: PublicKey) -> bool | None:
    n, e = rsa_numbers(key)
    size = n.bit_length()
    if not 512 <= size <= _MOST_MODULUS or not 3 <= e < 1 << _MOST_EXPONENT or not n & e & 1:
        return False
    length, number = (size + 7) // 8, int.from_bytes(certificate.signature, "big")
    if len(certificate.signature) != length or number >= n:
        return False
    opened = pow(number, e, n)
    if certificate.signed_with.oid == RSA_PSS:
        name, mask, salt = _pss(certificate.signed_with)
        if name is None or mask is None:
            return None
        return _is_pss(opened, size, _hash(name, certificate.signed), name, mask, salt)
    name = _RSA_DIGESTS[certificate.signed_with.oid]
    info = _DIGEST_INFO[name] + _hash(name, certificate.signed)
    return opened.to_bytes(length, "big") == b"\0\1" + b"\xff" * (length - len(info) - 3) + b"\0" + info


def _pss(algorithm: Algorithm) -> tuple[str | None, str | None, int]:
    """Return digest, digest of the mask and length of the salt; None for a digest that is not known."""
    given = {each.tag: each.content for each in sequence(algorithm.parameters or b"\x30\x00")}
    name: str | None = "sha1"
    mask: str | None = "sha1"
    salt = 20
    if 0xA0 in given:
        name = _DIGESTS.get(_only(given[0xA0]).oid)
    if 0xA1 in given:
        function = _only(given[0xA1])
        mask = _DIGESTS.get(_only(function.parameters).oid) if function.oid == _MGF1 else None
    if 0xA2 in given:
        (number,) = values(given[0xA2])
        salt = integer(number)
    return name, mask, salt


def _only(der: bytes) -> Algorithm:
    (value,) = values(der)
    return read_algorithm(value)


def _is_pss(opened: int, size: int, digest: bytes, name: str, mask: str, salt: int) -> bool:
    """EMSA-PSS-VERIFY (RFC 8017, 9.1.2)."""
    bits = size - 1
    length, room = (bits + 7) // 8, len(digest)
    if salt < 0 or length < room + salt + 2 or opened.bit_length() > bits:
        return False
    encoded = opened.to_bytes(length, "big")
    masked, seed = encoded[: length - room - 1], encoded[length - room - 1 : -1]
    pad = b"".join(
        _hash(mask, seed + counter.to_bytes(4, "big")) for counter in range(len(masked) // _size(mask) + 1)
    )
    block = int.from_bytes(masked, "big") ^ int.from_bytes(pad[: len(masked)], "big")
    block &= (1 << (8 * len(masked) - (8 * length - bits))) - 1
    plain = block.to_bytes(len(masked), "big")
    padding, salted = plain[: len(plain) - salt], plain[len(plain) - salt :]
    return (
        encoded[-1] == 0xBC
        and padding == b"\0" * (len(padding) - 1) + b"\1"
        and seed == _hash(name, bytes(8) + digest + salted)
    )


def _signed_by_ec(certificate: X509Certificate, key: PublicKey) -> bool | None:
    name, curve = _EC_DIGESTS[certificate.signed_with.oid], CURVES.get(curve_oid(key))
    if curve is None:
        return None
    public = _point(curve, key.data)
    r, s = (integer(number) for number in sequence(certificate.signature))
    if public is None or not 0 < r < curve.n or not 0 < s < curve.n:
        return False
    digest = _hash(name, certificate.signed)
    number = int.from_bytes(digest, "big") >> max(0, 8 * len(digest) - curve.n.bit_length())
    inverse = pow(s, -1, curve.n)
    x = _sum_of_products(curve, number * inverse % curve.n, r * inverse % curve.n, public)
    return x is not None and x % curve.n == r


def _point(curve: Curve, data: bytes) -> tuple[int, int] | None:
    """Return the point of a key, or None if it is not on the curve."""
    p, size = curve.p, (curve.p.bit_length() + 7) // 8
    x = int.from_bytes(data[1 : size + 1], "big")
    square = (x * x * x + curve.a * x + curve.b) % p
    if data[:1] in (b"\2", b"\3") and len(data) == size + 1:
        y = pow(square, (p + 1) // 4, p)  # each p here is 3 modulo 4
        y = y if y & 1 == data[0] & 1 else p - y
    elif data[:1] == b"\4" and len(data) == 2 * size + 1:
        y = int.from_bytes(data[size + 1 :], "big")
    else:
        return None
    return (x, y) if x < p and y < p and y * y % p == square else None


def _sum_of_products(curve: Curve, u: int, v: int, point: tuple[int, int]) -> int | None:
    """Return the x of u times the base point plus v times another, both in one walk over the bits."""
    base: _Point = (curve.x, curve.y, 1)
    other: _Point = (*point, 1)
    table = (None, base, other, _added(curve, base, other))
    total: _Point = None
    for bit in range(max(u.bit_length(), v.bit_length()) - 1, -1, -1):
        total = _added(curve, _doubled(curve, total), table[(u >> bit & 1) | (v >> bit & 1) << 1])
    return None if total is None else total[0] * pow(total[2], -2, curve.p) % curve.p


def _doubled(curve: Curve, point: _Point) -> _Point:
    """Double a point in Jacobian coordinates; None is the one at infinity."""
    if point is None or point[1] == 0:
        return None
    (x, y, z), p = point, curve.p
    yy = y * y % p
    s = 4 * x * yy % p
    m = (3 * x * x + curve.a * pow(z, 4, p)) % p
    new = (m * m - 2 * s) % p
    return new, (m * (s - new) - 8 * yy * yy) % p, 2 * y * z % p


def _added(curve: Curve, one: _Point, other: _Point) -> _Point:
    if one is None or other is None:
        return one or other
    (x1, y1, z1), (x2, y2, z2), p = one, other, curve.p
    zz1, zz2 = z1 * z1 % p, z2 * z2 % p
    u1, u2 = x1 * zz2 % p, x2 * zz1 % p
    s1, s2 = y1 * z2 * zz2 % p, y2 * z1 * zz1 % p
    if u1 == u2:
        return _doubled(curve, one) if s1 == s2 else None
    h, r = (u2 - u1) % p, (s2 - s1) % p
    hh = h * h % p
    hhh, v = h * hh % p, u1 * hh % p
    x = (r * r - hhh - 2 * v) % p
    return x, (r * (v - x) - s1 * hhh) % p, h * z1 * z2 % p


def _hash(name: str, data: bytes) -> bytes:
    # a FIPS build refuses MD5 and SHA-1 without this; that they are weak is reported elsewhere
    return hashlib.new(name, data, usedforsecurity=False).digest()


def _size(name: str) -> int:
    return len(_hash(name, b""))
