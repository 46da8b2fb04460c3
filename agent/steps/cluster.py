"""What is checked of the cluster before the first change: its state, whose the addresses are, whose the CA is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.ca_proof import prove_ca
from agent.cloudhsm.cluster import address_error, client_error
from agent.core.model import Finding, Notice

if TYPE_CHECKING:
    from agent.cloudhsm.ca_proof import CaProof
    from agent.cloudhsm.cluster import ClusterDescription, NamedCluster
    from agent.core.errors import AgentError
    from agent.core.host import HostView
    from agent.core.model import Guard


@dataclass(frozen=True)
class ClusterState:
    """AWS describes the cluster, clients can use it, and this client can. `version` is X.Y.Z, None where unknown."""

    cluster: NamedCluster
    sdk: int
    version: tuple[int, ...] | None
    id: str = "cluster:state"

    def check(self, view: HostView) -> Finding:
        del view  # AWS's answer is a fact of the run
        known = self.cluster.description
        error = self.cluster.error or (client_error(known, self.sdk, self.version) if known else None)
        if error is not None:
            return _unmet(error)
        assert known is not None
        kind = f" of {known.hsm_type}" if known.hsm_type else ""
        return Finding.ok(
            f"{known.id}{kind} in {known.region} is {known.state}", "a cluster that can be used"
        )


@dataclass(frozen=True)
class ClusterAddresses:
    """Every address that is used is an HSM's of the cluster."""

    cluster: ClusterDescription
    addresses: tuple[str, ...]
    id: str = "cluster:addresses"

    def check(self, view: HostView) -> Finding:
        del view
        error = address_error(self.cluster, self.addresses)
        if error is not None:
            return _unmet(error)
        usable, total = self.cluster.usable_at(self.addresses), len(self.cluster.addresses())
        others = [
            f"{each.id} is {each.state}"
            for each in self.cluster.hsms
            if each not in usable and each.canonical_addresses & set(self.addresses)
        ]
        saw = f"{', '.join(self.addresses)}: {len(usable)} of the {total} HSMs that can be used"
        return Finding.ok(
            "; ".join((saw, *others)),
            f"addresses of HSMs of {self.cluster.id}",
        )


@dataclass(frozen=True)
class ClusterCa:
    """The CA issued the certificate of the cluster. There is no such guard if that cannot be checked."""

    proof: CaProof
    id: str = "cluster:ca"

    def check(self, view: HostView) -> Finding:
        del view
        if self.proof.error is not None:
            return _unmet(self.proof.error)
        return Finding.ok(self.proof.saw, "the CA that issued the certificate of the cluster")


def guards_of(
    cluster: NamedCluster, addresses: tuple[str, ...], ca: bytes, sdk: int, version: tuple[int, ...] | None
) -> tuple[tuple[Guard, ...], tuple[Notice, ...]]:
    """Return what is checked of a cluster, as far as it can be, and what cannot."""
    state, known = ClusterState(cluster, sdk, version), cluster.description
    if known is None or cluster.error is not None:
        return (state,), ()
    guards = (state, ClusterAddresses(known, addresses))
    proof = prove_ca(ca, known.certificate.encode())
    if proof.proven is None:
        text = f"whether this CA is that of {known.id} is not known: {proof.saw}"
        return guards, (Notice("ca-not-checked", text),)
    return (*guards, ClusterCa(proof)), ()


def _unmet(error: AgentError) -> Finding:
    return Finding.unmet(error.saw or error.sentence, error.want, error.code.name, error.hint)
