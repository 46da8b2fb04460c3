"""customerCA.crt as people have it: recognised, judged, and brought into the form that is written to a host.

What CloudHSM takes as a trust anchor (User Guide, `initialize-cluster`): a self-signed root, or a chain of at
most four certificates and 16 kB, issuer of the cluster certificate first, the root last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, cast

from agent.cloudhsm.fingerprint import sha256_of
from agent.cloudhsm.pem import MOST_BYTES, certificates, damaged, holds_secret, refused, write_pem
from agent.core.errors import AgentError
from agent.core.words import Notice

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    Name = tuple[tuple[tuple[str, str], ...], ...]

MOST_CERTIFICATES = 4
SOON = timedelta(days=180)
_CHAIN = "one self-signed root, or a chain that ends in it"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "domainComponent": "DC",
}


@dataclass(frozen=True)
class Ca:
    """A usable trust anchor.

    `pem` is what is written: 64 columns, LF, issuer of the cluster certificate first. `sha256` and `subject`
    are the root's; `issuer` names the first certificate, which signed the cluster's (the root when alone).
    The dates are the narrowest of the chain.
    """

    pem: bytes
    sha256: str
    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    count: int

    @property
    def each(self) -> tuple[bytes, ...]:
        """The certificates one by one, each as PEM: what `openssl x509` is asked about."""
        end = b"-----END CERTIFICATE-----\n"
        return tuple(part + end for part in self.pem.split(end)[:-1])


@dataclass(frozen=True)
class _Certificate:
    der: bytes
    subject: Name
    issuer: Name
    not_before: datetime
    not_after: datetime


def read_ca(data: bytes, *, now: datetime, fingerprint: str | None = None) -> Ca:
    """Judge what a user gave as the CA by the host's clock `now`.

    `fingerprint` is what `parse_fingerprint` gave; of a chain it is the root's. Raises AgentError with
    the code of what is wrong; which CA it is comes before whether it is valid. The rest is for `judge_keys`:
    the standard library cannot tell the strength of a key, the host's `openssl` can.
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
    first, root = chain[0], chain[-1]
    sha256 = sha256_of(root.der)
    if fingerprint is not None and fingerprint != sha256:
        raise _another(data, chain, fingerprint)
    for link in chain:
        _judge_dates(link, now)
    return Ca(
        pem=write_pem([link.der for link in chain]),
        sha256=sha256,
        subject=_one_line(root.subject),
        issuer=_one_line(first.subject),
        not_before=max(link.not_before for link in chain),
        not_after=min(link.not_after for link in chain),
        count=len(chain),
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


def same(a: bytes, b: bytes) -> bool:
    """Tell whether a client reads the same certificates from two files, whatever their line ends and order.

    OpenSSL reads them here as it does in the client, so a file that only `read_ca` can make sense of
    (flattened, UTF-16, indented) is not the same; `sole_fingerprint` tells whether it is another CA.
    """
    found = _as_client(a)
    return found is not None and found == _as_client(b)


def sole_fingerprint(data: bytes) -> str | None:
    """Return the SHA-256 that stands for the certificates in a file, None when none can be made out.

    It is the root's of a chain, the last one's of anything else: a stranger's file is never nobody's. Raises
    AgentError `ca-is-private-key`: such a file must be neither overwritten nor copied.
    """
    try:
        ders = certificates(data)
    except AgentError as error:
        if error.code.name == "ca-is-private-key":
            raise
        return None
    try:
        return sha256_of(_ordered([_load(der) for der in ders])[-1].der)
    except AgentError:
        return sha256_of(ders[-1])


def _as_client(data: bytes) -> tuple[int, list[bytes]] | None:
    if holds_secret(data):
        return None  # a client would skip the key; the operator must not
    context = _empty_store()
    try:
        context.load_verify_locations(cadata=data.decode("ascii", "replace").replace("\ufffd", "?"))
    except (OSError, ValueError):  # SSLError is an OSError
        return None
    return context.cert_store_stats()["x509"], sorted(context.get_ca_certs(binary_form=True))


def _empty_store() -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - 10 ms that only a run with a CA shall pay, not every reader of a fingerprint

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _load(der: bytes) -> _Certificate:
    """Let OpenSSL read one certificate; `get_ca_certs` lists only what may issue others (X509_check_ca)."""
    context = _empty_store()
    try:
        context.load_verify_locations(cadata=der)
        if not context.cert_store_stats()["x509_ca"]:
            raise refused(
                "an end-entity certificate",
                hint="pass the certificate that signed the cluster's (CA:TRUE), not one that it signed",
            )
        (again,) = context.get_ca_certs(binary_form=True)
        (told,) = context.get_ca_certs()
        # Python takes some bytes after a certificate for the end of input; which, depends on OpenSSL's version
        if again != der:
            raise damaged("bytes after the certificate")
        return _Certificate(
            der,
            cast("Name", told["subject"]),
            cast("Name", told["issuer"]),
            _date(cast("str", told["notBefore"])),
            _date(cast("str", told["notAfter"])),
        )
    except (OSError, ValueError):  # SSLError is an OSError
        raise damaged("base64 that is not one certificate") from None


def _date(written: str) -> datetime:
    """Read `Nov 20 07:05:09 2036 GMT`; the standard library's way would import two modules for it."""
    month, day, clock, year, _gmt = written.split()
    hour, minute, second = (int(part) for part in clock.split(":"))
    return datetime(int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second, tzinfo=timezone.utc)


def _ordered(found: Sequence[_Certificate]) -> list[_Certificate]:
    """Return the one chain these certificates form, root last, whatever order they came in.

    Sorting is safe: the names admit one order only, the set stays what was given, the root stays the root.
    Links are by name; that the signatures hold is proven by the client's own connection.
    """
    roots = [link for link in found if link.subject == link.issuer]
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
        below = [link for link in rest if link.issuer == chain[0].subject]
        if len(below) != 1:
            raise refused(
                "certificates that do not form one chain",
                want=_CHAIN,
                hint="order: issuer of the cluster certificate, its issuers, the root; nothing else",
            )
        chain = [*below, *chain]
        rest.remove(below[0])
    return chain


def _judge_dates(link: _Certificate, now: datetime) -> None:
    name = _one_line(link.subject)
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


def _another(data: bytes, chain: Sequence[_Certificate], wanted: str) -> AgentError:
    hint = None
    if wanted in (sha256_of(data), sha256_of(write_pem([link.der for link in chain]))):
        hint = "that is the checksum of the file; give `openssl x509 -noout -fingerprint -sha256 -in FILE`"
    elif wanted in [sha256_of(link.der) for link in chain[:-1]]:
        hint = "that is the fingerprint of an intermediate in this chain; give that of its root"
    return AgentError(
        "ca-fingerprint-differs",
        "this is not the CA whose fingerprint was given",
        saw=f"sha256:{sha256_of(chain[-1].der)}",
        want=f"sha256:{wanted}",
        hint=hint,
    )


def _one_line(name: Name) -> str:
    """Write a name as RFC 2253 does, most particular first; nothing in it can break a line or a terminal."""
    return ",".join(
        "+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part)
        for part in reversed(name)
    )


def _escaped(value: str) -> str:
    plain = re.sub(r'[,+"\\<>;]|^[ #]| $', lambda found: "\\" + found[0], value)
    return "".join(
        letter
        if letter.isprintable()
        else "".join(f"\\{byte:02X}" for byte in letter.encode("utf-8", "replace"))
        for letter in plain
    )
