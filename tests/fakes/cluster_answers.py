"""DescribeClusters' answers as AWS's API reference has them; botocore's model judges them in tests/contract."""

from __future__ import annotations

from typing import Any

CLUSTER_ID = "cluster-2abcdefghij"
CLUSTER_STATES = (
    "CREATE_IN_PROGRESS",
    "UNINITIALIZED",
    "INITIALIZE_IN_PROGRESS",
    "INITIALIZED",
    "ACTIVE",
    "UPDATE_IN_PROGRESS",
    "MODIFY_IN_PROGRESS",
    "ROLLBACK_IN_PROGRESS",
    "DELETE_IN_PROGRESS",
    "DELETED",
    "DEGRADED",
)
SECRET = "pr3c0-passw0rd"


def hsm(number: int, state: str = "ACTIVE", **more: Any) -> dict[str, Any]:
    """Return the HSM of one zone; a value of None takes a member away."""
    zone = "abc"[number % 3]
    tree = {
        "AvailabilityZone": f"eu-central-1{zone}",
        "ClusterId": CLUSTER_ID,
        "SubnetId": f"subnet-{zone}",
        "EniId": f"eni-{number}",
        "EniIp": f"10.0.{number}.6",
        "HsmId": f"hsm-{number}abcdefghij",
        "HsmType": "hsm2m.medium",
        "State": state,
        **more,
    }
    return {name: value for name, value in tree.items() if value is not None}


def cluster(state: str = "ACTIVE", *hsms: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a cluster with these HSMs; a value of None takes a member away."""
    tree = {
        "BackupPolicy": "DEFAULT",
        "ClusterId": CLUSTER_ID,
        "HsmType": "hsm2m.medium",
        "Mode": "FIPS",
        "NetworkType": "IPV4",
        "PreCoPassword": SECRET,
        "SecurityGroup": "sg-0123456789abcdef0",
        "State": state,
        "SubnetMapping": {"eu-central-1a": "subnet-a", "eu-central-1b": "subnet-b"},
        "VpcId": "vpc-0123456789abcdef0",
        "Certificates": {"ClusterCertificate": "-----BEGIN CERTIFICATE-----"},
        "Hsms": list(hsms),
        **more,
    }
    return {name: value for name, value in tree.items() if value is not None}


def page(*clusters: dict[str, Any], token: str | None = None) -> dict[str, Any]:
    return {"Clusters": list(clusters), **({"NextToken": token} if token else {})}
