"""Which host is this? Records carry the host's identity, since they travel with a copied disk or an image."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError
from agent.windows.registry import read_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView

# the values of an EC2 instance's firmware (Nitro), and their counterpart on Xen
_VENDOR = "/sys/devices/virtual/dmi/id/sys_vendor"
_ASSET = "/sys/devices/virtual/dmi/id/board_asset_tag"
_XEN = "/sys/hypervisor/uuid"
_CRYPTOGRAPHY = r"HKLM\SOFTWARE\Microsoft\Cryptography"


def identity(view: HostView) -> str | None:
    """Return an identifier that no copy of this host shares, None when there is none.

    On EC2 it comes from the instance: a copy of a disk has the machine id of the original. A machine id is confidential
    (machine-id(5)), and reports leave the host, so the result is a hash.
    """
    try:
        own = _instance(view) or (_windows(view) if view.system.is_windows else _linux(view))
    except AgentError:
        return None
    return hashlib.sha256(f"hsm-agent {own}".encode()).hexdigest()[:32] if own else None


def is_foreign(view: HostView, record: Mapping[str, Any]) -> bool:
    """Tell whether a record is of another host. Older versions recorded no identity; their records count as ours."""
    if "identity" in record:
        return bool(record["identity"] != identity(view))
    instance = record.get("instance_id")
    return instance is not None and _instance(view) not in (None, instance)


def _instance(view: HostView) -> str | None:
    if view.system.is_windows:
        return None
    if _text(view, _VENDOR) == "Amazon EC2" and re.fullmatch(r"i-[0-9a-f]{8,32}", _text(view, _ASSET)):
        return _text(view, _ASSET)
    xen = _text(view, _XEN).lower()
    return xen if re.fullmatch(r"ec2[0-9a-f]{5}-[0-9a-f-]{27}", xen) else None


def _linux(view: HostView) -> str | None:
    """Return the machine id; an image holds `uninitialized` until its first boot."""
    found = _text(view, "/etc/machine-id")
    return found if re.fullmatch(r"[0-9a-f]{32}", found) else None


def _windows(view: HostView) -> str | None:
    return read_key(view, _CRYPTOGRAPHY).text("MachineGuid") or None


def _text(view: HostView, path: str) -> str:
    return (view.read(path) or b"").decode("ascii", "replace").strip()
