"""ClusterView -> the JSON document of schema version 1 that scripts rely on; `cluster.schema.json` describes it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.core.plain import cut, lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.aws.reachability import BlockedPath
    from agent.cloudhsm.cluster import ClusterHsm
    from agent.cloudhsm.cluster_view import ClusterView, VpcInstance

SCHEMA_VERSION = 1
# characters of one text; AWS's own are shorter
_LONGEST = 1000


def to_tree(view: ClusterView) -> dict[str, Any]:
    """Return the cluster as plain JSON values, in the order people read it."""
    cluster, error = view.cluster, view.error
    tree = {
        "schema_version": SCHEMA_VERSION,
        "command": "cluster",
        "agent_version": __version__,
        "asked": f"{view.asked:%Y-%m-%dT%H:%M:%SZ}",
        "named_by": view.named_by,
        "cluster": {
            "id": cluster.id,
            "state": cluster.state,
            "message": cluster.message,
            "region": cluster.region,
            "hsm_type": cluster.hsm_type,
            "mode": cluster.mode,
            "vpc": cluster.vpc,
            "security_group": {"id": cluster.security_group, "name": view.group_name},
            "subnets": [_subnet(view, each) for each in cluster.subnets],
        },
        "hsms": [_hsm(view, each) for each in cluster.hsms],
        "instances": None if view.instances is None else [_instance(each) for each in view.instances],
        "other_interfaces": _others(view),
        "this_host": {
            "name": view.host.name,
            "instance_id": view.host.instance_id,
            "in_group": view.in_group,
            "configuration": [
                {**asdict(each), "matches": not (each.missing or each.foreign)} for each in view.matches
            ],
        },
        "ca": None
        if view.ca is None
        else {"source": view.host.ca_source, "proven": view.ca.proven, "saw": view.ca.saw},
        "newest_backup": f"{view.backup:%Y-%m-%dT%H:%M:%SZ}" if view.backup else None,
        "notices": [asdict(each) for each in view.risks],
        "outcome": "ok" if error is None else "failed",
        "code": None if error is None else error.code.name,
        "failure": None
        if error is None
        else {"sentence": error.sentence, "saw": error.saw, "want": error.want, "hint": error.hint},
        "exit_status": 0 if error is None else error.code.exit_status,
    }
    clean: dict[str, Any] = _clean(tree)
    return clean


def to_document(tree: Mapping[str, Any]) -> str:
    """Return one JSON document, as it is printed: in ASCII, which every encoding and terminal has."""
    return json.dumps(tree, indent=2) + "\n"


def blocked_paths(tree: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Return what stops members of the group, or this host, on their way to HSMs; with each, whom it stops."""
    found: dict[tuple[str, ...], tuple[Mapping[str, Any], list[Mapping[str, Any]]]] = {}
    for instance in tree["instances"] or ():
        if instance["in_group"] or instance["this_host"]:
            for path in instance["blocked"]:
                key = (path["code"], path["by"], *path["hsms"])
                found.setdefault(key, (path, []))[1].append(instance)
    return list(found.values())


def _clean(value: Any) -> Any:
    """Return a value that every output can carry: no control characters, no text without end."""
    if isinstance(value, str):
        return lines(cut(value, _LONGEST))
    if isinstance(value, dict):
        return {name: _clean(each) for name, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, (list, tuple)) else value


def _subnet(view: ClusterView, subnet: str) -> dict[str, Any]:
    return {"zone": view.zones.get(subnet, ""), "id": subnet, "range": view.subnet_ranges.get(subnet, "")}


def _hsm(view: ClusterView, hsm: ClusterHsm) -> dict[str, Any]:
    return {
        "id": hsm.id,
        "zone": hsm.zone,
        "addresses": list(hsm.addresses),
        "state": hsm.state,
        "message": hsm.message,
        "usable": hsm.is_usable,
        "subnet": hsm.subnet,
        "range": view.subnet_ranges.get(hsm.subnet, ""),
        "interface": hsm.interface,
    }


def _instance(each: VpcInstance) -> dict[str, Any]:
    instance, interface = each.instance, each.interface
    return {
        "id": instance.id,
        "name": instance.name,
        "state": instance.state,
        "zone": instance.zone,
        "subnet": interface.subnet if interface else "",
        "interface": interface.id if interface else "",
        "addresses": list(interface.addresses) if interface else [],
        "in_group": each.in_group,
        "this_host": each.is_this_host,
        "reaches": each.reaches,
        "blocked": [_blocked(path) for path in each.blocked],
    }


def _blocked(path: BlockedPath) -> dict[str, Any]:
    obstacle = path.obstacle
    return {
        "hsms": list(path.hsms),
        "code": obstacle.code,
        "by": obstacle.id,
        "saw": obstacle.saw,
        "want": obstacle.want,
        "cure": obstacle.hint,
    }


def _others(view: ClusterView) -> list[dict[str, Any]] | None:
    if view.others is None:
        return None
    return [
        {
            "interface": each.interface.id,
            "kind": each.kind,
            "description": each.description,
            "zone": each.zone,
            "subnet": each.interface.subnet,
            "addresses": list(each.interface.addresses),
        }
        for each in view.others
    ]
