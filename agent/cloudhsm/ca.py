"""customerCA.crt as people have it: recognised, judged, and brought into the form that is written to a host.

What CloudHSM takes as a trust anchor (User Guide, `initialize-cluster`): a self-signed root, or a chain of at
most four certificates and 16 kB, issuer of the cluster certificate first, the root last.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, cast

from agent.core.errors import AgentError
from agent.core.words import Notice

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence

    Name = tuple[tuple[tuple[str, str], ...], ...]

MOST_CERTIFICATES = 4
MOST_BYTES = 16 * 1024
# beyond this nothing is parsed; a CA with its text dump is a hundredth of it
MOST_INPUT = 1024 * 1024
SOON = timedelta(days=180)

_WANT = "a PEM certificate of a CA"
_CHAIN = "one self-signed root, or a chain that ends in it"

# \n, \r, \t and \/ written out, once or several times over (JSON in JSON), and JSON's \u000a or \u002b
_ESCAPED = re.compile(r"\\{1,4}(?:u00([0-7][0-9A-Fa-f])|([nrt/]))")
# The blanks of a label may be gone, or be newlines: a `sed` that repairs flattened secrets makes them so.
_MARK = re.compile(r"-{1,5}\s{0,2}(BEGIN|END)([A-Z0-9\s]{1,40})-{1,5}")
# PEM labels in capitals anywhere, in any case after BEGIN, and what `openssl pkey -text` and PuTTY write;
# not "X509v3 Private Key Usage Period", nor a comment that says where the private key is kept
_SECRET = re.compile(
    r"PRIVATE\W{0,8}KEY|(?i:-\s{0,2}BEGIN[\w\s]{0,30}PRIVATE\W{0,8}KEY)|Private-Key:|PuTTY-User-Key-File"
)
_FINGERPRINT = re.compile(r"(?:sha-?(1|256|512)(?: fingerprint)? ?[:=])?([0-9a-f:\s-]*)", re.IGNORECASE)

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
class Key:
    """A certificate's key in OpenSSL's words: `rsaEncryption`, 2048; and the digest it was signed with."""

    algorithm: str
    bits: int | None
    digest: str


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
    ders = _certificates(data)
    if len(ders) > MOST_CERTIFICATES:
        raise _refused(
            f"{len(ders)} certificates",
            want=_CHAIN,
            hint=f"pass only the CA of the cluster; CloudHSM takes a chain of at most {MOST_CERTIFICATES}",
        )
    pem = _pem(ders)
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
    sha256 = _sha256(root.der)
    if fingerprint is not None and fingerprint != sha256:
        raise _another(data, chain, fingerprint)
    for link in chain:
        _judge_dates(link, now)
    return Ca(
        pem=_pem([link.der for link in chain]),
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
        ders = _certificates(data)
    except AgentError as error:
        if error.code.name == "ca-is-private-key":
            raise
        return None
    try:
        return _sha256(_ordered([_load(der) for der in ders])[-1].der)
    except AgentError:
        return _sha256(ders[-1])


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


def _certificates(data: bytes) -> list[bytes]:
    """Return the DER of every certificate in PEM text of any form, without duplicates."""
    if len(data) > MOST_INPUT:
        raise AgentError(
            "ca-unreadable",
            "the CA source is far too large to be a certificate; it was not read",
            saw=f"{len(data)} bytes",
            want=f"at most {MOST_BYTES} bytes",
        )
    if not data.strip(b"\0 \t\r\n\v\f\xef\xbb\xbf\xff\xfe"):
        raise AgentError("ca-unreadable", "the CA source is empty", saw="nothing", want=_WANT)
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
            raise _refused(saw, hint=hint)
        ders[_decoded(body)] = None
    return list(ders)


def _as_client(data: bytes) -> tuple[int, list[bytes]] | None:
    if _SECRET.search(_text(data)):
        return None  # a client would skip the key; the operator must not
    context = _empty_store()
    try:
        context.load_verify_locations(cadata=data.decode("ascii", "replace").replace("\ufffd", "?"))
    except (OSError, ValueError):  # SSLError is an OSError
        return None
    return context.cert_store_stats()["x509"], sorted(context.get_ca_certs(binary_form=True))


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
            raise _damaged("BEGIN and END lines that do not match")
        blocks.append((label, text[begin.end() : end.start()]))
    if len(marks) % 2:
        raise _damaged(f"{'no END' if marks[-1][0][1] == 'BEGIN' else 'no BEGIN'} line: the text was cut")
    return blocks


def _decoded(body: str) -> bytes:
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
    except ValueError:
        raise _damaged("characters that are no base64, or some are missing") from None
    if _is_key(der):
        raise _secret()
    return der


def _empty_store() -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - 10 ms that only a run with a CA shall pay, not every reader of a fingerprint

    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _load(der: bytes) -> _Certificate:
    """Let OpenSSL read one certificate; `get_ca_certs` lists only what may issue others (X509_check_ca)."""
    context = _empty_store()
    try:
        context.load_verify_locations(cadata=der)
        if not context.cert_store_stats()["x509_ca"]:
            raise _refused(
                "an end-entity certificate",
                hint="pass the certificate that signed the cluster's (CA:TRUE), not one that it signed",
            )
        (again,) = context.get_ca_certs(binary_form=True)
        (told,) = context.get_ca_certs()
        # Python takes some bytes after a certificate for the end of input; which, depends on OpenSSL's version
        if again != der:
            raise _damaged("bytes after the certificate")
        return _Certificate(
            der,
            cast("Name", told["subject"]),
            cast("Name", told["issuer"]),
            _date(cast("str", told["notBefore"])),
            _date(cast("str", told["notAfter"])),
        )
    except (OSError, ValueError):  # SSLError is an OSError
        raise _damaged("base64 that is not one certificate") from None


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
        raise _refused(
            "an intermediate CA without its root",
            want=_CHAIN,
            hint="append the root: `cat intermediateCA.crt customerRootCA.crt > chainCA.crt`",
        )
    if len(roots) > 1:
        raise _refused(
            f"{len(roots)} root certificates",
            want=_CHAIN,
            hint="pass only the CA that initialised the cluster",
        )
    chain = roots
    rest = [link for link in found if link is not roots[0]]
    while rest:
        below = [link for link in rest if link.issuer == chain[0].subject]
        if len(below) != 1:
            raise _refused(
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
    if wanted in (_sha256(data), _sha256(_pem([link.der for link in chain]))):
        hint = "that is the checksum of the file; give `openssl x509 -noout -fingerprint -sha256 -in FILE`"
    elif wanted in [_sha256(link.der) for link in chain[:-1]]:
        hint = "that is the fingerprint of an intermediate in this chain; give that of its root"
    return AgentError(
        "ca-fingerprint-differs",
        "this is not the CA whose fingerprint was given",
        saw=f"sha256:{_sha256(chain[-1].der)}",
        want=f"sha256:{wanted}",
        hint=hint,
    )


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
        return _refused(saw, hint=hint)
    start = text.lstrip(" \t\r\n\"'")
    if start.startswith("<"):
        return _refused(
            "an HTML or XML page", hint="look at it: it is what a web server answered, not the file"
        )
    if start.startswith("LS0t"):
        return _refused("base64 of a PEM text", hint="decode it first: `base64 -d FILE > customerCA.crt`")
    return _refused("without a BEGIN CERTIFICATE line")


def _refused(saw: str, *, want: str = _WANT, hint: str | None = None) -> AgentError:
    return AgentError("ca-not-a-certificate", f"the CA source is {saw}", saw=saw, want=want, hint=hint)


def _damaged(saw: str) -> AgentError:
    return AgentError("ca-damaged", f"the CA cannot be decoded: {saw}", saw=saw, want=_WANT)


def _secret() -> AgentError:
    """Refuse a private key with fixed words: nothing of the input may get into a report."""
    return AgentError(
        "ca-is-private-key",
        "there is a private key where only the CA's certificate may be",
        saw="a private key",
        want=_WANT,
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


def _pem(ders: Sequence[bytes]) -> bytes:
    lines = []
    for der in ders:
        body = base64.b64encode(der)
        lines += [b"-----BEGIN CERTIFICATE-----"]
        lines += [body[start : start + 64] for start in range(0, len(body), 64)]
        lines += [b"-----END CERTIFICATE-----"]
    return b"\n".join([*lines, b""])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
