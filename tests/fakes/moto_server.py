"""moto as a server on the loopback, taught what it lacks: a cluster as DescribeClusters of AWS really shows one.

Its insides are used for that, so it is pinned. It checks signatures and policies once `enforced` is entered; what it
cannot judge, clocks, throttling and answers that break, `tests.fakes.aws` does.
"""

from __future__ import annotations

import http.client
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT = "123456789012"
REGION = "eu-central-1"
CLUSTER = "cluster-2abcdefghij"


@contextmanager
def moto_server() -> Iterator[str]:
    """Yield the URL of a fresh moto, for the time of a test."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        post(f"{host}:{port}", "/moto-api/reset")
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def enforced(url: str) -> Iterator[None]:
    """Have it check signatures and policies."""
    post(url.split("/")[2], "/moto-api/reset-auth", "0")
    try:
        yield
    finally:
        post(url.split("/")[2], "/moto-api/reset-auth", "1e12")


def post(place: str, path: str, body: str = "") -> None:
    connection = http.client.HTTPConnection(place, timeout=10)
    connection.request("POST", path, body, {"Content-Type": "text/plain"})
    assert connection.getresponse().status == 200
    connection.close()


@cache
def _session() -> Any:
    import botocore.session

    return botocore.session.Session()  # keeps the models, of which EC2's takes seconds


def client(url: str, service: str) -> Any:
    """Return botocore's client of it: another than ours, to set things up."""
    return _session().create_client(
        service, REGION, endpoint_url=url, aws_access_key_id="admin", aws_secret_access_key="admin",
    )  # fmt: skip


def seed_cluster(**more: Any) -> str:
    """Put a cluster there with one HSM that works and one that comes, and return its id."""
    from moto.cloudhsmv2 import models

    hsm = {
        "HsmId": "hsm-2abcdefghij",
        "AvailabilityZone": f"{REGION}a",
        "EniId": "eni-1",
        "EniIp": "10.0.1.6",
        "State": "ACTIVE",
    }
    described = {
        "ClusterId": CLUSTER,
        "SecurityGroup": "sg-1",
        "VpcId": "vpc-1",
        "SubnetMapping": {f"{REGION}a": "subnet-1"},
        "Hsms": [hsm, {"HsmId": "hsm-3abcdefghij", "State": "CREATE_IN_PROGRESS"}],
        "Certificates": {"ClusterCertificate": "-----BEGIN CERTIFICATE-----"},
        "CreateTimestamp": 1764489600.0,
        **more,
    }
    cluster = models.Cluster(None, "hsm2m.medium", None, ["subnet-1"])
    shown = {**cluster.to_dict(), **described}
    setattr(cluster, "to_dict", lambda: shown)  # noqa: B010 -- of this very cluster, and mypy minds methods
    cluster.cluster_id = CLUSTER
    models.cloudhsmv2_backends[ACCOUNT][REGION].clusters[CLUSTER] = cluster
    return CLUSTER
