"""How strong the keys of certificates are, read from the certificates themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.signatures import CURVES, EC, RSA, RSA_PSS, curve_oid, digest_of, rsa_numbers
from agent.core.errors import AgentError
from agent.core.model import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.cloudhsm.x509 import PublicKey, X509Certificate

_TITLES = {
    RSA: "RSA",
    RSA_PSS: "RSA-PSS",
    EC: "EC",
    "1.2.840.10040.4.1": "DSA",
    "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448",
}
# curves that a CA may be on and that no signature is verified on here
_SIZES = {
    "1.2.840.10045.3.1.1": 192,
    "1.3.132.0.33": 224,
    "1.3.36.3.3.2.8.1.1.1": 160,
    "1.3.36.3.3.2.8.1.1.3": 192,
    "1.3.36.3.3.2.8.1.1.5": 224,
    "1.3.36.3.3.2.8.1.1.7": 256,
    "1.3.36.3.3.2.8.1.1.11": 384,
    "1.3.36.3.3.2.8.1.1.13": 512,
}
_LEAST = {"RSA": 2048, "RSA-PSS": 2048, "EC": 256}


@dataclass(frozen=True)
class PublicKeyKind:
    """A certificate's key: its kind, as people call it; its size, None where that says nothing; and the digest."""

    kind: str
    bits: int | None
    digest: str


def key_of(certificate: X509Certificate) -> PublicKeyKind:
    """Return what is known of a certificate's key, and of the digest that the certificate was signed with."""
    key = certificate.key
    return PublicKeyKind(
        _TITLES.get(key.algorithm.oid, key.algorithm.oid), _bits(key), digest_of(certificate.signed_with)
    )


def _bits(key: PublicKey) -> int | None:
    try:
        if key.algorithm.oid in (RSA, RSA_PSS):
            return rsa_numbers(key)[0].bit_length()
        if key.algorithm.oid == EC:
            curve = curve_oid(key)
            return CURVES[curve].p.bit_length() if curve in CURVES else _SIZES.get(curve)
    except ValueError:  # a curve that is written out in numbers, for one
        return None
    return None


def judge_keys(keys: Iterable[PublicKeyKind]) -> tuple[Notice, ...]:
    """Judge the keys of a chain.

    Clients 5.17.0 and 5.17.1 refuse an RSA key below 2048 bits (`ki-all`); CloudHSM takes RSA and ECDSA only
    (`initialize-cluster`). Raises AgentError `ca-key-weak`.
    """
    return tuple(dict.fromkeys(notice for key in keys for notice in _judge_key(key)))


def _judge_key(key: PublicKeyKind) -> tuple[Notice, ...]:
    least = _LEAST.get(key.kind)
    if key.kind == "DSA" or (least is not None and key.bits is not None and key.bits < least):
        raise AgentError(
            "ca-key-weak",
            "the CA's key is too weak for the client",
            saw=f"{key.kind} {key.bits} bits" if key.bits else key.kind,
            want="RSA from 2048 bits, or EC from 256 bits",
        )
    notices = []
    if least is None or key.bits is None:
        notices.append(
            Notice(
                "ca-key-unlisted",
                f"the CA's key is {key.kind}{'' if least is None else ' of an unknown size'}; "
                "CloudHSM initialises clusters with RSA and EC only",
            )
        )
    if key.digest in ("md5", "sha1"):
        notices.append(
            Notice(
                "ca-signature-old",
                f"the CA is signed with {key.digest}; CloudHSM takes SHA-224 to SHA-512 for new clusters",
            )
        )
    return tuple(notices)
