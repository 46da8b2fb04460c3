"""`ssm-inventory:`: an item in AWS Systems Manager's inventory; without credentials, a file that its agent collects."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError
from agent.core.plain import cut
from agent.http.imds import read_metadata
from agent.sinks.message import UndeliveredError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView
    from agent.core.system import System
    from agent.sinks.message import DeliveryContext, OutgoingReport

TYPE = "Custom:CloudHSMClient"
SCHEMA = "1.0"
FILE = "CloudHSMClient.json"
# AWS's limit of characters of one value
LONGEST = 4096
_NODE = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})|mi-[0-9a-f]{17}")
# then the file is left; every other failure is reported
_NO_CREDENTIALS = ("aws-no-credentials", "aws-region-unknown")
# about the item itself
_PERMANENT = (
    "InvalidItemContentException",
    "InvalidTypeNameException",
    "ItemContentMismatchException",
    "ItemSizeLimitExceededException",
    "TotalSizeLimitExceededException",
    "UnsupportedInventorySchemaVersionException",
)


def check(uri: str) -> None:
    """Require nothing behind the colon: the node and its region are this machine's."""
    if uri != "ssm-inventory:":
        raise ValueError(f"{uri!r} is not ssm-inventory: alone")


def send(report: OutgoingReport, context: DeliveryContext) -> None:
    """Put the item into the inventory of this node, or leave it for SSM's agent. Raises UndeliveredError."""
    tree, machine = report.tree, context.machine
    node = tree["host"]["instance_id"]
    why = _put(node, tree, context) if node else "the metadata service names no instance"
    if why is None:
        with contextlib.suppress(AgentError):  # an ordinary user may not look there, and left no file
            for each in _nodes(machine, node):
                machine.remove(_file(machine.system, each))
        return
    nodes = _nodes(machine, node)
    if len(nodes) != 1:
        where = folder(machine.system)
        raise UndeliveredError(f"{why}; and SSM's agent has no directory of one node in {where}")
    machine.write(_file(machine.system, nodes[0]), left_for_agent(tree).encode(), mode=0o600)


def _put(node: str, tree: Mapping[str, Any], context: DeliveryContext) -> str | None:
    """Put the item; return None when AWS has it, and why not where there are no credentials to put it with."""
    from agent.aws.access import AwsAccess  # noqa: PLC0415 -- 30 ms
    from agent.aws.operations import PUT_INVENTORY  # noqa: PLC0415 -- as above
    from agent.sinks.aws import undelivered, within  # noqa: PLC0415 -- as above

    # of the node, which the region of the cluster need not be
    region = read_metadata(context.machine, context.environ, "placement/region")
    access = AwsAccess(context.machine, context.environ, region)
    try:
        within(context, access.client).call(PUT_INVENTORY, {"InstanceId": node, "Items": [item(tree)]})
    except AgentError as error:
        if error.code.name not in _NO_CREDENTIALS:
            raise undelivered(error, _PERMANENT) from None
        return f"{error.sentence}: {error.saw}"
    return None


def item(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report as an item of the inventory."""
    return {
        "TypeName": TYPE,
        "SchemaVersion": SCHEMA,
        "CaptureTime": tree["finished"],
        "Content": [attributes(tree)],
    }


def left_for_agent(tree: Mapping[str, Any]) -> str:
    """Return a report as the file that SSM's agent collects; it adds the time itself."""
    return json.dumps({"SchemaVersion": SCHEMA, "TypeName": TYPE, "Content": attributes(tree)}) + "\n"


def attributes(tree: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes, always the same ones, each a text: empty where the report does not know it."""
    host, client, ca = (tree.get(name) or {} for name in ("host", "client", "ca"))
    hsms = tree["hsms"]
    reached = sum(bool(each["reached"]) for each in hsms)
    stale = [str(each["name"]) for each in tree.get("restart_needed") or ()]
    values = {
        "HostName": host.get("name"),
        "Os": host.get("os"),
        "OsVersion": host.get("os_version"),
        "Arch": host.get("arch"),
        "Platform": host.get("platform"),
        "AgentVersion": tree["agent_version"],
        "Sdk": client.get("sdk"),
        "ClientVersion": client.get("version"),
        "Components": " ".join(client.get("components") or ()),
        "ClusterId": (tree.get("cluster") or {}).get("id"),
        "Hsms": len(hsms),
        "HsmsReached": reached,
        "CaSha256": ca.get("sha256"),
        "CaNotAfter": ca.get("not_after"),
        "Outcome": tree["outcome"],
        "Code": tree["code"],
        "ExitStatus": tree["exit_status"],
        "Changed": str(bool(tree["changed"])).lower(),
        "RestartNeeded": " ".join(stale),
        "Command": tree["command"],
        "RunId": tree["run_id"],
        "Finished": tree["finished"],
    }
    return {name: cut(str("" if value is None else value), LONGEST) for name, value in values.items()}


def folder(system: System) -> str:
    """Return where SSM's agent keeps a folder for each node that this machine is or was."""
    if system.is_windows:
        return system.join(system.data, "Amazon", "SSM", "InstanceData")
    return system.join(system.data, "lib", "amazon", "ssm")


def _file(system: System, node: str) -> str:
    return system.join(folder(system), node, "inventory", "custom", FILE)


def _nodes(view: HostView, node: str | None) -> list[str]:
    """Return the nodes that the agent has folders for: the one that is meant, or else all."""
    there = [name for name in view.list_dir(folder(view.system)) if _NODE.fullmatch(name)]
    return [name for name in there if node in (None, name)]
