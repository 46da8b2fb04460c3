"""Did this CA issue the certificate of the cluster? Pure arithmetic, so on every host, Windows too, without a program.

Dates are left out: an expired CA is the right one and expired, which are two findings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.ca import one_line
from agent.cloudhsm.pem import certificates
from agent.cloudhsm.signatures import is_signed_by
from agent.cloudhsm.x509 import names, read_certificate
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.cloudhsm.x509 import X509Certificate


@dataclass(frozen=True)
class CaProof:
    """Whether the CA issued the certificate of the cluster; None where nobody can tell, and `saw` says why."""

    proven: bool | None
    saw: str

    @property
    def error(self) -> AgentError | None:
        """The error of a CA that is another cluster's; None where it is not known to be one."""
        if self.proven is not False:
            return None
        want = "the CA that issued the certificate of the cluster"
        return AgentError("ca-not-of-cluster", "this CA is not the cluster's", saw=self.saw, want=want)


def prove_ca(ca: bytes, certificate: bytes) -> CaProof:
    """Follow the signatures from ClusterCertificate (PEM) to a root in customerCA.crt (PEM, in any order)."""
    try:
        leaf, *_ = _read(certificate)
    except (AgentError, ValueError):
        return CaProof(None, "the certificate that AWS shows for the cluster cannot be read")
    try:
        authorities = [each for each in _read(ca) if each.is_ca]
    except (AgentError, ValueError):
        return CaProof(None, "the CA cannot be read")
    return _follow(leaf, authorities)


def _read(data: bytes) -> list[X509Certificate]:
    return [read_certificate(der) for der in certificates(data)]


def _follow(leaf: X509Certificate, authorities: Sequence[X509Certificate]) -> CaProof:
    """Walk up one signature at a time; as many steps as there are certificates end any circle."""
    current, unknown = leaf, False
    for _ in range(len(authorities) + 1):
        named = [each for each in authorities if names(current.issuer, each.subject)]
        verdicts = [(is_signed_by(current, each.key), each) for each in named]
        issuer = next((each for signed, each in verdicts if signed), None)
        if issuer is None:
            unknown = any(signed is None for signed, _ in verdicts)
            break
        if issuer.is_self_issued:
            return CaProof(True, f"the certificate of the cluster is issued by {_shown(issuer)}")
        current = issuer
    subject = one_line(current.subject)
    if unknown:
        return CaProof(None, f"the signature of {subject} is of a kind that cannot be verified here")
    if current is not leaf:
        return CaProof(False, f"the issuer of {subject} is missing: {one_line(current.issuer)}")
    if named:
        return CaProof(False, f"a CA of the same name with another key: {_shown(named[0])}")
    have = " and ".join(one_line(each.subject) for each in authorities) or "no CA"
    return CaProof(
        False, f"the certificate of the cluster is issued by {one_line(leaf.issuer)}; this is {have}"
    )


def _shown(certificate: X509Certificate) -> str:
    return f"{one_line(certificate.subject)}, sha256:{certificate.sha256}"
