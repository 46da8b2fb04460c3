"""What the hosts of a roll-out share and this machine reads once -> the desired state of each host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from agent.cloudhsm.ca import read_ca
from agent.cloudhsm.ca_proof import prove_ca
from agent.cloudhsm.cluster import address_error, cluster_error, cluster_notices, description_to_json
from agent.config.ca_source import read_source
from agent.config.cluster_source import describe_cluster, is_answer, not_checked
from agent.config.desired import Desired, resolve
from agent.config.input_errors import InputErrors
from agent.config.options import CaSource
from agent.core.aws_names import with_region
from agent.core.errors import AgentError
from agent.core.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.aws.access import AwsAccess
    from agent.cloudhsm.cluster import ClusterDescription
    from agent.config.desired import RawOptions
    from agent.core.fleet_model import Target
    from agent.core.host import HostView

# Given the region that was named, or None, returns AWS as the operator asks it.
OpenAccess = Callable[[Optional[str]], "AwsAccess"]


class SharedInput:
    """What many hosts share and this machine reads once: CAs by their sources, and clusters."""

    def __init__(self, view: HostView, open_access: OpenAccess) -> None:
        self.view = view
        self.remarks: list[str] = []
        self._open_access = open_access
        self._anchors: dict[tuple[CaSource, str | None, str | None], CaSource] = {}
        self._clusters: dict[tuple[str, str | None], ClusterDescription | AgentError] = {}

    def ca(self, source: CaSource, desired: Desired) -> CaSource:
        """Return the CA of a source as the text that hosts are sent. Raises AgentError as `read_source` does."""
        key = (source, desired.region, desired.ca_fingerprint)
        if key not in self._anchors:
            data = read_source(self.view, source, Timeouts(), self._open_access(desired.region))
            ca = read_ca(data, now=self.view.now(), fingerprint=desired.ca_fingerprint)
            self._anchors[key] = CaSource("inline", ca.pem.decode())
        return self._anchors[key]

    def cluster(self, cluster_id: str, region: str | None) -> ClusterDescription:
        """Return what AWS says of a cluster. Raises AgentError `aws-…`, `cluster-not-found`, each time again."""
        key = (cluster_id, region)
        if key not in self._clusters:
            try:
                found = describe_cluster(self._open_access(region), cluster_id, (), 0.0)
                self._clusters[key] = found
                self.remarks += [each.text for each in cluster_notices(found)]
            except AgentError as error:
                self._clusters[key] = error
        answer = self._clusters[key]
        if isinstance(answer, AgentError):
            raise answer
        return answer

    def clusters(self) -> dict[str, dict[str, Any]]:
        """Return the clusters that AWS described, as they are sent to hosts."""
        found = (each for each in self._clusters.values() if not isinstance(each, AgentError))
        return {each.id: description_to_json(each) for each in found}


def desired_of_hosts(
    shared: SharedInput,
    targets: Sequence[Target],
    flags: RawOptions,
    below: Sequence[RawOptions],
    input_errors: InputErrors,
) -> dict[str, Desired]:
    """Resolve the options of every host; those that hosts share are resolved, read and reported once."""
    made: dict[str, Desired | None] = {}
    found = {}
    for target in targets:
        key = repr(sorted(target.options.items()))
        if key not in made:
            own = InputErrors()
            try:
                made[key] = ready_to_send(shared, resolve((flags, dict(target.options), *below), own), own)
            except AgentError as error:
                if error.code.name != "config-invalid":
                    raise
                made[key] = None
            for text in own.texts:
                input_errors.add(target.where if target.options else "options", text)
        desired = made[key]
        if desired is not None:
            found[target.name] = desired
    return found


def ready_to_send(shared: SharedInput, desired: Desired, input_errors: InputErrors) -> Desired:
    """Read the CA, which is sent as text, ask for the cluster, and resolve the directory of packages.

    All three are this machine's: a host needs neither the file nor a permission of AWS. Raises AgentError where no host
    could succeed.
    """
    source = desired.ca_cert
    if source is not None:
        desired = replace(desired, ca_cert=shared.ca(source, desired))
    if desired.cluster_id is not None:
        desired = _with_addresses(shared, desired, desired.cluster_id)
    folder = desired.package_source
    if folder is not None and "://" not in folder:
        if not Path(folder).is_dir():
            input_errors.add("--package-source", f"there is no directory {folder}")
        desired = replace(desired, package_source=str(Path(folder).absolute()))
    elif folder is not None:
        # as the host's plan has it: what a host asks for is compared with it
        desired = replace(desired, package_source=with_region(folder, desired.region))
    return desired


def _with_addresses(shared: SharedInput, desired: Desired, cluster_id: str) -> Desired:
    """Fill in what AWS says of the cluster, if it can be used; the addresses that were given stay, and are checked."""
    try:
        cluster = shared.cluster(cluster_id, desired.region)
    except AgentError as error:
        if error.ends_run or not desired.hsm_ip or is_answer(error):
            raise
        shared.remarks.append(not_checked(cluster_id, error).text)
        return desired
    addresses = desired.hsm_ip or cluster.addresses()
    ca = desired.ca_cert.value.encode() if desired.ca_cert else b""
    proof = prove_ca(ca, cluster.certificate.encode()).error if ca else None
    refused = cluster_error(cluster) or address_error(cluster, addresses) or proof
    if refused is not None:
        raise refused
    return replace(desired, hsm_ip=addresses, region=cluster.region)
