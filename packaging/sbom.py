"""The bill of materials, CycloneDX 1.5 in JSON: the parts of the tree with author, licence and hash."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from libraries import Library


def sbom(version: str, digest: str, date: datetime, libraries: list[Library]) -> bytes:
    """Return the document; `digest` is the tree's."""
    # no registry has this package: one of the same name there is another project
    purl = f"pkg:generic/hsm-agent@{version}"
    agent = {
        "type": "application",
        "bom-ref": purl,
        "name": "hsm-agent",
        "version": version,
        "purl": purl,
        "properties": [{"name": "hsm-agent:tree:sha256", "value": digest}],
    }
    parts = [_component(each) for each in libraries]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # derived from the content, so that the document is reproducible
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'hsm-agent:{digest}')}",
        "version": 1,
        "metadata": {"timestamp": date.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": agent},
        "components": parts,
        "dependencies": [
            {"ref": agent["bom-ref"], "dependsOn": [each["bom-ref"] for each in parts]},
            *({"ref": each["bom-ref"]} for each in parts),
        ],
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _component(library: Library) -> dict[str, Any]:
    purl = f"pkg:{library.registry}/{library.name}@{library.version}"
    expression = library.metadata.get("License-Expression")
    licence = {"expression": expression} if expression else {"license": {"name": licence_of(library)}}
    # a component has one hash of each kind; both wheels of a compiled library are distributed
    files = [{"type": "distribution", "url": purl, "hashes": [_hash(each)]} for each in library.wheels]
    cpe = f"cpe:2.3:a:{library.cpe}:{library.version}:*:*:*:*:*:*:*"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": library.name,
        "version": library.version,
        "description": library.metadata["Summary"],
        "licenses": [licence],
        "purl": purl,
        **({"cpe": cpe} if library.cpe else {}),
        **({"externalReferences": files} if files else {}),
    }


def _hash(sha256: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": sha256}


def licence_of(library: Library) -> str:
    """Return the name of a library's licence, as its authors give it."""
    found = library.metadata.get("License-Expression") or library.metadata.get("License") or ""
    classifiers = library.metadata.get_all("Classifier") or []
    named = [each.rsplit(" :: ", 1)[-1] for each in classifiers if each.startswith("License ::")]
    return found if found and "\n" not in found else " and ".join(named) or "unknown"
