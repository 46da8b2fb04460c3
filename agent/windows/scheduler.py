"""What Windows does by itself: `verify` once a day, and a first boot that goes on. On Linux, packages bring units.

An MSI registers no task. So `configure` does, once the host is proven, and `remove` takes it off; neither fails because
of it. That a task is there is told by the file that the Task Scheduler keeps of it: the words of `schtasks` are
translated.
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


def keep(host: Host) -> tuple[Notice, ...]:
    """Have the host looked at once a day when an installed agent can do it. One that is there stays as it is."""
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


def end(host: Host, name: str) -> tuple[Notice, ...]:
    """Take a task off when it is there."""
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
    """Let a first boot be over: its task, and what it was told to configure."""
    tasks = host.system.tasks
    if tasks is not None:
        with contextlib.suppress(AgentError):
            if host.stat(tasks.first_boot) is not None:
                host.remove(tasks.first_boot)
    return end(host, FIRST_BOOT)


def _register(host: Host, name: str, task: str) -> str:
    """Register a task, and return why that did not work, empty when it did. The Task Scheduler wants UTF-16."""
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
