"""JSON with its own checksum: what is read is what was written, or it is refused."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY = "sha256"


def seal(tree: Mapping[str, Any]) -> bytes:
    """Return a document of these JSON values and the checksum of them all."""
    return json.dumps({**tree, _KEY: _digest(tree)}).encode()


def unseal(data: bytes) -> dict[str, Any]:
    """Return the sealed values. Raises ValueError, with a clause about "it", for anything else."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is incomplete: no JSON") from None
    return opened(tree)


def opened(tree: Any) -> dict[str, Any]:
    """Return the values of a document without their checksum. Raises ValueError as `unseal` does."""
    if not isinstance(tree, dict) or _KEY not in tree:
        raise ValueError("it has no checksum")
    values = {key: value for key, value in tree.items() if key != _KEY}
    if tree[_KEY] != _digest(values):
        raise ValueError("it does not have the checksum it was written with")
    return values


def _digest(tree: Mapping[str, Any]) -> str:
    """Hash the values and not their spelling: another order of keys, or other spaces, make no difference."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
