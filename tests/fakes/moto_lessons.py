"""What moto lacks, taught to it: HSMs of a cluster, inventory of Systems Manager, console output, signals to stacks.

The answers have the members of AWS's API reference; botocore's models judge them in `tests/contract`.
"""

from __future__ import annotations

import base64
import copy
import json
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from moto.cloudhsmv2 import models
from moto.cloudhsmv2.exceptions import ResourceNotFoundException
from moto.cloudhsmv2.responses import CloudHSMV2Response
from moto.ec2.responses import EC2Response
from moto.ssm.responses import SimpleSystemManagerResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from moto.core.responses import BaseResponse

ACCOUNT = "123456789012"
# Text of consoles by instance, items of inventory by instance and type, stacks that take signals: as tests put them.
_KEPT = "taught"


class DescribedCluster(models.Cluster):
    """A cluster that is described as AWS describes one.

    `description` counts from now on; while there are `earlier` ones, each call is answered with the next of them.
    """

    def __init__(self, description: dict[str, Any], earlier: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(None, "hsm2m.medium", None, [])
        self.description = description
        self.earlier = list(earlier)
        self.cluster_id = description["ClusterId"]

    @property
    def state(self) -> str:
        """Its state, by which a filter finds it."""
        return str(self.description.get("State", ""))

    @state.setter
    def state(self, value: str) -> None:
        self.__dict__.setdefault("description", {})["State"] = value

    def to_dict(self) -> dict[str, Any]:
        """Return what DescribeClusters says of it now."""
        return copy.deepcopy(self.earlier.pop(0) if self.earlier else self.description)

    def hsm(self, hsm_id: str) -> dict[str, Any]:
        """Return one of its HSMs, to be changed in place."""
        return next(each for each in self.description["Hsms"] if each["HsmId"] == hsm_id)


def teach() -> None:
    """Give moto the methods; a second time changes nothing."""
    lessons: dict[type[BaseResponse], tuple[Callable[[Any], Any], ...]] = {
        CloudHSMV2Response: (create_hsm, delete_hsm, initialize_cluster),
        SimpleSystemManagerResponse: (put_inventory, list_inventory_entries),
        EC2Response: (get_console_output,),
    }
    for response, methods in lessons.items():
        for method in methods:
            setattr(response, method.__name__, method)


def kept(backend: Any) -> dict[Any, Any]:
    """Return what is kept beside a backend of moto; a reset of moto forgets it."""
    tree: dict[Any, Any] = backend.__dict__.setdefault(_KEPT, {})
    return tree


def _cluster(response: Any, cluster_id: str) -> DescribedCluster:
    found = response.cloudhsmv2_backend.clusters.get(cluster_id)
    if not isinstance(found, DescribedCluster):
        raise ResourceNotFoundException(f"Cluster {cluster_id} not found")
    return found


def create_hsm(self: Any) -> str:
    """Begin to make an HSM: it has neither address nor interface yet."""
    asked = json.loads(self.body)
    cluster = _cluster(self, asked["ClusterId"])
    zone = asked["AvailabilityZone"]
    made = {
        "AvailabilityZone": zone,
        "ClusterId": cluster.cluster_id,
        "SubnetId": cluster.description["SubnetMapping"][zone],
        "HsmId": f"hsm-new{'abcdefgh'[len(cluster.description['Hsms']) % 8]}2345677",
        "HsmType": cluster.description["HsmType"],
        "State": "CREATE_IN_PROGRESS",
    }
    cluster.description["Hsms"].append(made)
    return json.dumps({"Hsm": made})


def delete_hsm(self: Any) -> str:
    """Begin to delete an HSM: it is listed, with its address, until a test takes it away."""
    asked = json.loads(self.body)
    cluster = _cluster(self, asked["ClusterId"])
    for each in cluster.description["Hsms"]:
        if asked.get("HsmId") == each["HsmId"] or asked.get("EniIp") == each.get("EniIp", ""):
            each["State"] = "DELETE_IN_PROGRESS"
            return json.dumps({"HsmId": each["HsmId"]})
    raise ResourceNotFoundException("no such HSM")


def initialize_cluster(self: Any) -> str:
    """Take the signed certificate and its CA."""
    asked = json.loads(self.body)
    cluster = _cluster(self, asked["ClusterId"])
    cluster.description["Certificates"] = {"ClusterCertificate": asked["SignedCert"]}
    cluster.description["State"] = "INITIALIZED"
    return json.dumps({"State": "INITIALIZE_IN_PROGRESS", "StateMessage": "Cluster is initializing."})


def put_inventory(self: Any) -> str:
    """Keep the items of an instance."""
    asked = json.loads(self.body)
    items = kept(self.ssm_backend)
    for item in asked["Items"]:
        items[asked["InstanceId"], item["TypeName"]] = item
    return json.dumps({"Message": "Inventory was added."})


def list_inventory_entries(self: Any) -> str:
    """Return what was put for an instance and a type."""
    asked = json.loads(self.body)
    item = kept(self.ssm_backend).get((asked["InstanceId"], asked["TypeName"]), {})
    answer = {
        "TypeName": asked["TypeName"],
        "InstanceId": asked["InstanceId"],
        "Entries": item.get("Content", []),
    }
    for name in ("SchemaVersion", "CaptureTime"):
        if item:
            answer[name] = item[name]
    return json.dumps(answer)


def get_console_output(self: Any) -> str:
    """Return the console of an instance, and no output where it posted none yet."""
    name = self._get_param("InstanceId")
    text = kept(self.ec2_backend).get(name)
    output = f"<output>{base64.b64encode(text.encode()).decode()}</output>" if text else ""
    return (
        '<GetConsoleOutputResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>1</requestId>'
        f"<instanceId>{escape(name)}</instanceId><timestamp>2026-11-30T09:00:00.000Z</timestamp>{output}"
        "</GetConsoleOutputResponse>"
    )


def signal_resource(params: Mapping[str, str]) -> tuple[int, str]:
    """Return status and answer of SignalResource: a signal for a stack that is called `complete` comes too late."""
    if params.get("StackName") != "complete":
        answer = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>"
        return 200, f"<SignalResourceResponse>{answer}</SignalResourceResponse>"
    words = "Stack complete is in CREATE_COMPLETE state and cannot be signaled"
    error = f"<Error><Type>Sender</Type><Code>ValidationError</Code><Message>{words}</Message></Error>"
    return 400, f"<ErrorResponse>{error}</ErrorResponse>"
