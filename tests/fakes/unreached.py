"""An instance on EC2 that does not reach its cluster: metadata and moto's EC2 on the loopback tell of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from agent.aws.access import AwsAccess
from agent.cloudhsm.cluster import read_cluster
from agent.core.model import Plan, StepOutcome, StepResult
from agent.diagnosis import Diagnosis
from agent.engine import EngineResult
from agent.http.imds import ENDPOINT
from agent.render.progress import NullProgress
from agent.steps.reach import Reach
from agent.verdict import judge
from tests.fakes.aws import KEYS, RealTime
from tests.fakes.aws_cluster import AwsCluster, Instance, seed_aws_cluster
from tests.fakes.imds import imds
from tests.fakes.moto_server import CLUSTER, REGION, aws_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.aws_server import AwsServer
    from tests.fakes.imds import Imds

CLIENT = "10.77.20.5"


@dataclass
class Scene:
    """An instance, the cluster that it does not reach, and what tells of both."""

    server: AwsServer
    cluster: AwsCluster
    instance: Instance
    metadata: Imds
    view: RealTime = field(default_factory=RealTime)
    is_described: bool = True
    cluster_id: str | None = CLUSTER
    source: str = CLIENT

    @property
    def environ(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": self.server.url, ENDPOINT: self.metadata.url}

    def explain(self, **causes: str | None) -> EngineResult:
        """Return the result for these HSMs, by their number and why they are not reached; by default, the first."""
        return self.explained(causes or {"hsm0": "hsm-timed-out"}, self.environ)

    def explained(self, causes: dict[str, str | None], environ: dict[str, str]) -> EngineResult:
        probes = {name: Reach(self.cluster.addresses[int(name[3:])], 2223, 5.0) for name in causes}
        detail = {"source": self.source} if self.source else {}
        lines = tuple(
            StepResult(probe.id, StepOutcome.FAILED, "timed out after 5 s", "connected", causes[name], "?", 5.0, detail)
            if causes[name]
            else StepResult(probe.id, StepOutcome.MET, "connected in 1 ms", "connected")
            for name, probe in probes.items()
        )  # fmt: skip
        before = EngineResult((StepResult("package:cli", StepOutcome.MET), *lines))
        described = read_cluster(self.cluster.cluster.description, REGION) if self.is_described else None
        known = Diagnosis(
            self.view, AwsAccess(self.view, environ, REGION), environ, self.cluster_id, described
        )
        after = known.explain(before, Plan((), tuple(probes.values())), NullProgress())
        # the law of all of this: how the run ended is not the diagnosis's to say
        assert judge(after).exit_status == judge(before).exit_status
        assert judge(after).outcome is judge(before).outcome
        return after

    def tell_metadata(self, *interfaces: str) -> None:
        """Have the metadata service describe these interfaces as EC2 does now."""
        self.metadata.texts.clear()
        self.metadata.texts["placement/region"] = REGION
        found = self.cluster.ec2.describe_network_interfaces(NetworkInterfaceIds=list(interfaces))
        macs = [f"02:00:00:00:00:0{number}" for number, _ in enumerate(interfaces)]
        self.metadata.texts["network/interfaces/macs/"] = "\n".join(f"{mac}/" for mac in macs)
        by_id = {each["NetworkInterfaceId"]: each for each in found["NetworkInterfaces"]}
        for mac, name in zip(macs, interfaces):
            each = by_id[name]
            for key, words in {
                "interface-id": [name],
                "vpc-id": [each["VpcId"]],
                "subnet-id": [each["SubnetId"]],
                "local-ipv4s": [each["PrivateIpAddress"]],
                "security-group-ids": [group["GroupId"] for group in each["Groups"]],
                "security-groups": [group["GroupName"] for group in each["Groups"]],
            }.items():
                self.metadata.texts[f"network/interfaces/macs/{mac}/{key}"] = "\n".join(words)


@pytest.fixture
def server() -> Iterator[AwsServer]:
    with aws_server() as place:
        yield place


@pytest.fixture
def scene(server: AwsServer) -> Iterator[Scene]:
    cluster = seed_aws_cluster(server.url, hsms=2, begun=False)
    with imds() as metadata:
        made = Scene(server, cluster, cluster.add_instance(CLIENT, "web-1"), metadata)
        made.tell_metadata(made.instance.interface)
        server.calls.clear()
        yield made


def detach(scene: Scene) -> None:
    """Take the cluster's group off the instance."""
    groups = [
        each for each in scene.cluster.groups_of(scene.instance.interface) if each != scene.cluster.group
    ]
    scene.cluster.ec2.modify_network_interface_attribute(
        NetworkInterfaceId=scene.instance.interface, Groups=groups
    )
    scene.tell_metadata(scene.instance.interface)
    scene.server.calls.clear()
