"""Host certificates as OpenSSH has them: who signed which key, for which names, and for how long.

paramiko takes a certificate in a key exchange and proves that the host has its key. What the certificate says is read
and judged here, by the rules of ssh's own client (PROTOCOL.certkeys, sshkey_cert_check_host).
"""

from __future__ import annotations

import datetime as dt
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paramiko
from paramiko.pkey import UnknownKeyType

from agent.ssh.key_blob import KEY_FIELDS, FieldReader
from agent.ssh.known_hosts import HostKey

if TYPE_CHECKING:
    from collections.abc import Collection

_SUFFIX = "-cert-v01@openssh.com"
# The algorithms of a key exchange with a certificate, in ssh's order.
ALGORITHMS = (
    f"ssh-ed25519{_SUFFIX}",
    f"ecdsa-sha2-nistp256{_SUFFIX}",
    f"ecdsa-sha2-nistp384{_SUFFIX}",
    f"ecdsa-sha2-nistp521{_SUFFIX}",
    f"rsa-sha2-512{_SUFFIX}",
    f"rsa-sha2-256{_SUFFIX}",
)
# With which authorities sign, by ssh's default for CASignatureAlgorithms: no SHA-1.
_SIGNATURES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_HOST = 2
_MOST_PRINCIPALS = 256
# How many of them a reason names.
_SHOWN = 5


@dataclass(frozen=True)
class HostCertificate:
    """A certificate of a host's key. Times are in seconds since 1970; no principal means every name, as in ssh.

    `signed` are the bytes that `signature` is about.
    """

    key: HostKey
    kind: int
    key_id: str
    principals: tuple[str, ...]
    valid_after: int
    valid_before: int
    critical: bytes
    authority: HostKey
    signed: bytes
    signature: bytes

    def refusal(self, name: str, now: float, signatures: Collection[str] = ()) -> str | None:
        """Return why it does not prove a host's name now; None where it does.

        `signatures` are the algorithms with which an authority may sign, all of ssh's default if there are none.
        """
        algorithm = _algorithm(self.signature)
        named = ", ".join(self.principals[:_SHOWN])
        wrong = (
            (self.kind != _HOST, "it is a user's certificate, not a host's"),
            (now < self.valid_after, f"it is valid from {_moment(self.valid_after)} on"),
            (now >= self.valid_before, f"it was valid until {_moment(self.valid_before)}"),
            (self.principals and name not in self.principals, f"it is for {named}, not for {name}"),
            (self.critical, "it has critical options, of which ssh knows none for hosts"),
            (
                algorithm not in (signatures or _SIGNATURES),
                f"it is signed with {algorithm}, which CASignatureAlgorithms does not have",
            ),
        )
        why = next((why for is_so, why in wrong if is_so), None)
        if why is None and not _is_signed(self):
            return "the signature of its authority is wrong, or of a kind that is not understood here"
        return why


def parse(blob: bytes) -> HostCertificate:
    """Return what a certificate says, without judging it. Raises ValueError for bytes that are none."""
    reader = FieldReader(blob)
    name = reader.text()
    plain = name[: -len(_SUFFIX)] if name.endswith(_SUFFIX) else ""
    if plain not in KEY_FIELDS:
        raise ValueError(f"{name[:60]!r} is no type of certificate that is understood here")
    reader.field()  # the nonce
    fields = [reader.field() for _ in range(KEY_FIELDS[plain])]
    reader.number(8)  # the serial number
    kind = reader.number(4)
    key_id = reader.text()
    principals = _texts(reader.field())
    valid_after, valid_before = reader.number(8), reader.number(8)
    critical = reader.field()
    reader.field()  # extensions, of which a host has none that matter
    reader.field()  # reserved
    authority = reader.field()
    signed = blob[: reader.at]
    signature = reader.field()
    if not reader.is_done:
        raise ValueError("bytes behind the signature")
    key = b"".join(_string(each) for each in (plain.encode(), *fields))
    return HostCertificate(
        HostKey(plain, key),
        kind,
        key_id,
        principals,
        valid_after,
        valid_before,
        critical,
        HostKey(FieldReader(authority).text(), authority),
        signed,
        signature,
    )


def _texts(data: bytes) -> tuple[str, ...]:
    reader, found = FieldReader(data), []
    while not reader.is_done:
        found.append(reader.text())
        if len(found) > _MOST_PRINCIPALS:  # ssh takes no more either
            raise ValueError(f"more than {_MOST_PRINCIPALS} principals")
    return tuple(found)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _algorithm(signature: bytes) -> str:
    """Return the algorithm of a signature, which has two fields and no byte more."""
    reader = FieldReader(signature)
    try:
        name = reader.text()[:60]
        reader.field()
    except ValueError:
        return "nothing"
    return name if reader.is_done else "nothing"


def _is_signed(certificate: HostCertificate) -> bool:
    authority = certificate.authority
    try:
        key = paramiko.PKey.from_type_string(authority.kind, authority.blob)
        return bool(key.verify_ssh_sig(certificate.signed, paramiko.Message(certificate.signature)))
    except (paramiko.SSHException, UnknownKeyType, ValueError, LookupError, EOFError, struct.error):
        return False


def _moment(seconds: int) -> str:
    try:
        return f"{dt.datetime.fromtimestamp(seconds, dt.timezone.utc):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return "a time that no calendar has"
