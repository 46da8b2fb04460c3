"""How strong the keys of certificates are: read from them where that is easy, else in the words of `openssl x509`."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.words import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable

# Object identifiers as DER has them: kinds of key; P-256, P-384, P-521 and secp256k1; RSA and ECDSA with SHA-224 to
# SHA-512 (RFC 3279, 4055, 5480, 5758).
_RSA = bytes.fromhex("2a864886f70d010101")
_EC = bytes.fromhex("2a8648ce3d0201")
_CURVES = tuple(map(bytes.fromhex, ("2a8648ce3d030107", "2b81040022", "2b81040023", "2b8104000a")))
_SIGNATURES = tuple(
    bytes.fromhex(family) + bytes([number])
    for family, numbers in (("2a864886f70d0101", (11, 12, 13, 14)), ("2a8648ce3d0403", (1, 2, 3, 4)))
    for number in numbers
)


@dataclass(frozen=True)
class Key:
    """A certificate's key in OpenSSL's words: `rsaEncryption`, 2048; and the digest it was signed with."""

    algorithm: str
    bits: int | None
    digest: str


def surely_strong(pem: bytes) -> bool:
    """Tell whether one certificate certainly passes `judge_keys` without a notice; False says nothing about it.

    It saves asking openssl, which takes longer to start than all else that is looked at on a host. Of a key that is
    weak or unusual, openssl's words are shown.
    """
    try:
        der = base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))
        ((_, certificate),) = _parts(der)
        (_, signed), _, _ = _parts(certificate)
        # the version may be absent; then: serial number, signature, issuer, validity, subject, key
        _, (_, signature), _, _, _, (_, public), *_ = (part for part in _parts(signed) if part[0] != 0xA0)
        (_, digest), *_ = _parts(signature)
        (_, algorithm), (_, key) = _parts(public)
        (_, kind), (_, parameters) = _parts(algorithm)
        if digest not in _SIGNATURES:
            return False
        if kind != _RSA:
            return kind == _EC and parameters in _CURVES
        ((_, numbers),) = _parts(key[1:])  # of a BIT STRING the first byte counts bits that are not used
        (_, modulus), _ = _parts(numbers)
        return int.from_bytes(modulus, "big").bit_length() >= 2048
    except (ValueError, IndexError):
        return False


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each value that lies in DER one after the other."""
    found, at = [], 0
    while at < len(der):
        tag, size, begin = der[at], der[at + 1], at + 2
        if size & 0x80:
            begin += size & 0x7F
            size = int.from_bytes(der[at + 2 : begin], "big")
        at = begin + size
        if at > len(der):
            raise ValueError("cut short")
        found.append((tag, der[begin:at]))
    return found


def key_strength(text: str) -> Key | None:
    """Read the key out of `openssl x509 -noout -text` (1.0.2 to 3.x); None when it is something else."""
    algorithm = re.search(r"^ *Public Key Algorithm: *(\S+)", text, re.MULTILINE)
    signature = re.search(r"^ *Signature Algorithm: *(\S+)(?:\s+Hash Algorithm: *(\S+))?", text, re.MULTILINE)
    if algorithm is None or signature is None:
        return None
    # 1.1.1 wrote "RSA Public-Key: (2048 bit)", the others "Public-Key: (2048 bit)"; Ed25519 has no size
    bits = re.compile(r"\s+[\w. -]*Public-Key: \((\d+) bit").match(text, algorithm.end())
    # RSA-PSS names its digest in the parameters
    return Key(algorithm[1], int(bits[1]) if bits else None, (signature[2] or signature[1]).lower())


def judge_keys(texts: Iterable[str]) -> tuple[Notice, ...]:
    """Judge what `openssl x509 -noout -text` says of each certificate; "" where it could not be asked.

    Clients 5.17.0 and 5.17.1 refuse an RSA key below 2048 bits (`ki-all`); CloudHSM takes RSA and ECDSA only
    (`initialize-cluster`). Raises AgentError `ca-key-weak`.
    """
    return tuple(dict.fromkeys(notice for text in texts for notice in _judge_key(key_strength(text))))


def _judge_key(key: Key | None) -> tuple[Notice, ...]:
    if key is None:
        return (
            Notice(
                "ca-key-unchecked", "the strength of the CA's key was not checked: openssl gave no answer"
            ),
        )
    title = {
        "rsaEncryption": "RSA",
        "rsassaPss": "RSA-PSS",
        "id-ecPublicKey": "EC",
        "dsaEncryption": "DSA",
    }.get(key.algorithm, key.algorithm)
    least = {"RSA": 2048, "RSA-PSS": 2048, "EC": 256}.get(title)
    if title == "DSA" or (least is not None and key.bits is not None and key.bits < least):
        raise AgentError(
            "ca-key-weak",
            "the CA's key is too weak for the client",
            saw=f"{title} {key.bits} bits" if key.bits else title,
            want="RSA from 2048 bits, or EC from 256 bits",
        )
    notices = []
    if least is None or key.bits is None:
        notices.append(
            Notice(
                "ca-key-unlisted",
                f"the CA's key is {title}; CloudHSM initialises clusters with RSA and EC only",
            )
        )
    if re.search(r"md[245]|sha1(?!\d)", key.digest):
        notices.append(
            Notice(
                "ca-signature-old",
                f"the CA is signed with {key.digest}; CloudHSM takes SHA-224 to SHA-512 for new clusters",
            )
        )
    return tuple(notices)
