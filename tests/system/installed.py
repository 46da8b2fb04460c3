"""The agent's own packages on a lab host."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .scene import STATE

if TYPE_CHECKING:
    from pathlib import Path

    from .host import LabHost


TIMER = "hsm-agent-verify.timer"
VERIFY = "hsm-agent-verify.service"


def is_deb(host: LabHost) -> bool:
    return host.image.family == "deb"


def install(host: LabHost, folder: Path) -> None:
    ending, program = (
        (".deb", ["apt-get", "install", "-y", "-q"])
        if is_deb(host)
        else (".rpm", ["dnf", "install", "-y", "-q"])
    )
    package = next(folder.glob(f"*{ending}"))
    host.put(f"/root/{package.name}", package.read_bytes())
    host.must([*program, f"/root/{package.name}"], timeout=120)


def show(host: LabHost, unit: str, *properties: str) -> tuple[str, ...]:
    """Return properties of a unit, in the order asked for."""
    told = host.must(["systemctl", "show", unit, f"--property={','.join(properties)}"])
    found = dict(line.split("=", 1) for line in told.splitlines())
    return tuple(found[name] for name in properties)


def ended(host: LabHost, unit: str) -> tuple[str, str]:
    """Start a oneshot unit, and return its result and its program's exit status."""
    host.run(["systemctl", "start", unit], timeout=120)
    result, status = show(host, unit, "Result", "ExecMainStatus")
    return result, status


def last_report(host: LabHost) -> dict[str, object]:
    found: dict[str, object] = json.loads(host.get(f"{STATE}/report.json"))
    return found
