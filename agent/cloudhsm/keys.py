"""How strong the keys of certificates are, in the words of `openssl x509 -noout -text`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.words import Notice

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Key:
    """A certificate's key in OpenSSL's words: `rsaEncryption`, 2048; and the digest it was signed with."""

    algorithm: str
    bits: int | None
    digest: str


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
