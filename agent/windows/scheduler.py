"""The agent's tasks in the Task Scheduler of Windows: a daily `verify`, and a first boot. On Linux, units do this.

An MSI registers no task. So `configure` registers it, once the host is proven, and `remove` removes it; neither fails
because of it. A task exists if the Task Scheduler has a file of it: the output of `schtasks` is translated.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.model import Notice

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

VERIFY = "hsm-agent-verify"
FIRST_BOOT = "hsm-agent-first-boot"
_TIMEOUT = 60.0


def ensure_daily_verify(host: Host) -> tuple[Notice, ...]:
    """Schedule a daily `verify` if an installed agent can run it. An existing task is not changed."""
    tasks = host.system.tasks
    if tasks is None:
        return ()
    try:
        if host.stat(host.system.join(tasks.registered, VERIFY)) is not None:
            return ()
        task = host.read(tasks.verify)
        if task is None:
            return ()  # not installed by its package, so it may be gone tomorrow
        refusal = _register(host, VERIFY, task.decode("utf-8", "replace"))
    except AgentError as error:
        refusal = error.saw or error.sentence
    if refusal:
        return (Notice("not-scheduled", f"`verify` could not be scheduled once a day: {refusal}"),)
    return (Notice("scheduled", f"`verify` runs once a day from now on: task {VERIFY}"),)


def delete_task(host: Host, name: str) -> tuple[Notice, ...]:
    """Remove a task if it exists."""
    tasks = host.system.tasks
    if tasks is None:
        return ()
    refusal = ""
    try:
        if not _is_there(host, name):
            return ()
        done = host.run(("schtasks", "/delete", "/tn", name, "/f"), timeout=_TIMEOUT)
        if _is_there(host, name):
            refusal = done.tail(2) or f"schtasks exited {done.status}"
    except AgentError as error:
        refusal = error.saw or error.sentence
    return (Notice("still-scheduled", f"task {name} could not be removed: {refusal}"),) if refusal else ()


def end_first_boot(host: Host) -> tuple[Notice, ...]:
    """Remove the task of the first boot, and the request that it was to configure."""
    tasks = host.system.tasks
    if tasks is not None:
        with contextlib.suppress(AgentError):
            if host.stat(tasks.first_boot) is not None:
                host.remove(tasks.first_boot)
    return delete_task(host, FIRST_BOOT)


def _register(host: Host, name: str, task: str) -> str:
    """Register a task; return why that failed, empty if it did not. The Task Scheduler requires UTF-16."""
    path = host.system.join(host.system.state, f"{name}.xml")
    host.write(path, task.encode("utf-16"), mode=0o600)
    try:
        done = host.run(("schtasks", "/create", "/tn", name, "/xml", path), timeout=_TIMEOUT)
    finally:
        host.remove(path)
    return "" if _is_there(host, name) else done.tail(2) or f"schtasks exited {done.status}"


def _is_there(view: HostView, name: str) -> bool:
    tasks = view.system.tasks
    return tasks is not None and view.stat(view.system.join(tasks.registered, name)) is not None
