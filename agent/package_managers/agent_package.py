"""The agent's own package on a host: the managers that handle it, and whether the agent is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.model import InstalledAgent
from agent.package_managers.deb import Deb
from agent.package_managers.msi import Msi
from agent.package_managers.rpm import Rpm
from agent.windows.scheduler import VERIFY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import HostView
    from agent.package_managers.protocol import PackageManager

PACKAGE = "hsm-agent"
TIMER = "hsm-agent-verify.timer"
AGENT_MANAGERS: Mapping[str, PackageManager] = {
    "deb": Deb((PACKAGE,)),
    "rpm": Rpm((PACKAGE,)),
    "msi": Msi(PACKAGE),
}
# what the packages install on Linux; its own links enable a timer there
_PROGRAM, _SOURCE = "/usr/bin/hsm-agent", "/usr/lib/hsm-agent/agent/__init__.py"
_ENABLED = f"/etc/systemd/system/timers.target.wants/{TIMER}"
_VERSION = re.compile(rb'^__version__ = "([^"]+)"', re.MULTILINE)


def installed_agent(view: HostView) -> InstalledAgent | None:
    """Return the agent that a package installed here; None where there is none, or it cannot be read.

    By its files: to ask a package database costs each host of a roll-out as much as a second start of Python.
    """
    system, tasks = view.system, view.system.tasks
    try:
        if tasks is not None:
            source = view.read(system.join(system.programs, PACKAGE, "agent", "__init__.py"))
            verifies = view.stat(system.join(tasks.registered, VERIFY)) is not None
        else:
            source = view.read(_SOURCE) if view.stat(_PROGRAM) else None
            verifies = view.stat(_ENABLED) is not None
    except AgentError:
        return None
    found = _VERSION.search(source) if source is not None else None
    return InstalledAgent(found[1].decode("ascii", "replace"), verifies) if found else None
