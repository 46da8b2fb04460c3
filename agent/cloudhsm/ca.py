"""customerCA.crt as people have it: recognised, judged, and brought into the form that is written to a host.

What CloudHSM takes as a trust anchor (User Guide, `initialize-cluster`): a self-signed root, or a chain of at
most four certificates and 16 kB, issuer of the cluster certificate first, the root last.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agent.cloudhsm.fingerprint import sha256_of
from agent.cloudhsm.key_strength import key_of
from agent.cloudhsm.pem import (
    MOST_BYTES,
    certificates,
    damaged,
    plain_certificates,
    readable,
    refused,
    write_pem,
)
from agent.cloudhsm.signatures import is_signed_by
from agent.cloudhsm.x509 import names, read_certificate
from agent.core.errors import AgentError
from agent.core.model import Notice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from agent.cloudhsm.key_strength import PublicKeyKind
    from agent.cloudhsm.x509 import Name, X509Certificate

MOST_CERTIFICATES = 4
SOON = timedelta(days=180)
_CHAIN = "one self-signed root, or a chain that ends in it"


@dataclass(frozen=True)
class Ca:
    """A usable trust anchor.

    `pem` is what is written: 64 columns, LF, issuer of the cluster certificate first. `fingerprints` and `keys` are
    those of its certificates in the same order, so that the last fingerprint is the root's: `sha256`. `subject` is the
    root's too; `issuer` names the first certificate, which signed the cluster's (the root when alone). The dates are
    the narrowest of the chain.
    """

    pem: bytes
    fingerprints: tuple[str, ...]
    keys: tuple[PublicKeyKind, ...]
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime

    @property
    def sha256(self) -> str:
        return self.fingerprints[-1]

    @property
    def count(self) -> int:
        return len(self.fingerprints)


def read_ca(data: bytes, *, now: datetime, fingerprint: str | None = None) -> Ca:
    """Judge what a user gave as the CA by the host's clock `now`.

    `fingerprint` is what `parse_fingerprint` gave; of a chain it is the root's, and every other certificate is proven
    by the signature of the next. Raises AgentError with the code of what is wrong; which CA it is comes before whether
    it is valid. How strong `keys` are is for `judge_keys` to say.
    """
    ders = certificates(data)
    if len(ders) > MOST_CERTIFICATES:
        raise refused(
            f"{len(ders)} certificates",
            want=_CHAIN,
            hint=f"pass only the CA of the cluster; CloudHSM takes a chain of at most {MOST_CERTIFICATES}",
        )
    pem = write_pem(ders)
    if len(pem) > MOST_BYTES:
        raise AgentError(
            "ca-unreadable",
            "the CA is too large",
            saw=f"{len(pem)} bytes",
            want=f"at most {MOST_BYTES} bytes",
            hint="CloudHSM takes a trust anchor of at most 16 kB; pass the one that initialised the cluster",
        )
    chain = _ordered([_load(der) for der in ders])
    fingerprints = tuple(link.sha256 for link in chain)
    if fingerprint not in (None, fingerprints[-1]):
        raise _another(data, chain, str(fingerprint))
    _judge_signatures(chain)
    for link in chain:
        _judge_dates(link, now)
    return Ca(
        pem=write_pem([link.der for link in chain]),
        fingerprints=fingerprints,
        keys=tuple(key_of(link) for link in chain),
        subject=one_line(chain[-1].subject),
        issuer=one_line(chain[0].subject),
        not_before=max(link.not_before for link in chain),
        not_after=min(link.not_after for link in chain),
    )


def expiry_notice(ca: Ca, now: datetime) -> Notice | None:
    """Say that a CA ends soon, from half a year before: it cannot be renewed, as initialisation fixes it."""
    left = ca.not_after - now
    if left > SOON:
        return None
    return Notice(
        "ca-expires-soon",
        f"the CA expires on {ca.not_after:%Y-%m-%d}, in {max(left.days, 0)} days; "
        "initialising the cluster fixed it, so plan the move to a cluster with a new CA",
    )


@dataclass(frozen=True)
class FoundCertificates:
    """The fingerprints of the certificates in a file, root last if they are one chain.

    `is_complete`: everything that is meant to be a certificate could be read. `plain`: a client can read the file as it
    is. A file that is flattened, indented or UTF-16 is complete, but no client can read it.
    """

    fingerprints: tuple[str, ...]
    is_complete: bool
    plain: bool


def find_certificates(data: bytes) -> FoundCertificates:
    """Return what a file holds. Raises AgentError `ca-is-private-key`: it must be neither overwritten nor copied."""
    ders, is_complete = readable(data)
    found = tuple(map(sha256_of, ders))
    with contextlib.suppress(AgentError):
        found = tuple(link.sha256 for link in _ordered([_load(der) for der in ders]))
    return FoundCertificates(found, is_complete, plain=bool(found) and plain_certificates(data) == set(ders))


def written(fingerprints: Sequence[str]) -> str:
    """Write the fingerprints of a file as they are shown: the root's, then those of the certificates it vouches for."""
    root, *others = reversed(fingerprints)
    return f"sha256:{root}" + "".join(f" over sha256:{each}" for each in others)


def _load(der: bytes) -> X509Certificate:
    try:
        certificate = read_certificate(der)
    except ValueError:  # of the bytes, the dates and the texts in it
        raise damaged("base64 that is not one certificate") from None
    if not certificate.is_ca:
        raise refused(
            "an end-entity certificate",
            hint="pass the certificate that signed the cluster's (CA:TRUE), not one that it signed",
        )
    return certificate


def _ordered(found: Sequence[X509Certificate]) -> list[X509Certificate]:
    """Return the one chain these certificates form by their names, root last, whatever order they came in.

    Sorting is safe: the names admit one order only, the set stays what was given, the root stays the root.
    """
    roots = [link for link in found if link.is_self_issued]
    if not roots:
        raise refused(
            "an intermediate CA without its root",
            want=_CHAIN,
            hint="append the root: `cat intermediateCA.crt customerRootCA.crt > chainCA.crt`",
        )
    if len(roots) > 1:
        raise refused(
            f"{len(roots)} root certificates",
            want=_CHAIN,
            hint="pass only the CA that initialised the cluster",
        )
    chain = roots
    rest = [link for link in found if link is not roots[0]]
    while rest:
        below = [link for link in rest if names(link.issuer, chain[0].subject)]
        if len(below) != 1:
            raise refused(
                "certificates that do not form one chain",
                want=_CHAIN,
                hint="order: issuer of the cluster certificate, its issuers, the root; nothing else",
            )
        chain = [*below, *chain]
        rest.remove(below[0])
    return chain


def _judge_signatures(chain: Sequence[X509Certificate]) -> None:
    """Refuse a chain of which a link is one by its name alone: with the root's fingerprint it would pass unseen.

    Of an algorithm that is not known here a root says nothing: it is all there is, and its fingerprint covers it.
    """
    for link, issuer in zip(chain, [*chain[1:], chain[-1]]):
        signed = is_signed_by(link, issuer.key)
        if signed or (signed is None and len(chain) == 1):
            continue
        one, other = one_line(link.subject), one_line(issuer.subject)
        if link is issuer:
            one, other = f"the root {one}", "its own key"
        how = "is not signed by" if signed is not None else "is signed in a way that cannot be verified, by"
        raise refused(
            f"a chain in which {one} {how} {other}" if len(chain) > 1 else f"a root that {how} {other}",
            want=_CHAIN,
            hint="each certificate must be signed by the next; get the chain again from the owner of the CA,"
            " and compare every fingerprint",
        )


def _judge_dates(link: X509Certificate, now: datetime) -> None:
    name = one_line(link.subject)
    clock = f"this host's clock says {now:%Y-%m-%d %H:%M} UTC"
    if now > link.not_after:
        raise AgentError(
            "ca-expired",
            f"the certificate of {name} has expired",
            saw=f"valid until {link.not_after:%Y-%m-%d %H:%M} UTC; {clock}",
            want="a CA that is valid now",
        )
    if now < link.not_before:
        raise AgentError(
            "ca-not-yet-valid",
            f"the certificate of {name} is not valid yet",
            saw=f"{clock}; valid from {link.not_before:%Y-%m-%d %H:%M} UTC",
            want="a CA that is valid now",
        )


def _another(data: bytes, chain: Sequence[X509Certificate], wanted: str) -> AgentError:
    hint = None
    if wanted in (sha256_of(data), sha256_of(write_pem([link.der for link in chain]))):
        hint = "that is the checksum of the file; give `openssl x509 -noout -fingerprint -sha256 -in FILE`"
    elif wanted in [link.sha256 for link in chain[:-1]]:
        hint = "that is the fingerprint of an intermediate in this chain; give that of its root"
    return AgentError(
        "ca-fingerprint-differs",
        "this is not the CA whose fingerprint was given",
        saw=written([link.sha256 for link in chain]),
        want=f"sha256:{wanted}",
        hint=hint,
    )


def one_line(name: Name) -> str:
    """Write a name as RFC 2253 does, most particular first; nothing in it can break a line or a terminal."""
    return ",".join("+".join(f"{key}={_escaped(value)}" for key, value in part) for part in reversed(name))


def _escaped(value: str) -> str:
    plain = re.sub(r'[,+"\\<>;]|^[ #]| $', lambda found: "\\" + found[0], value)
    return "".join(
        letter
        if letter.isprintable()
        else "".join(f"\\{byte:02X}" for byte in letter.encode("utf-8", "replace"))
        for letter in plain
    )
