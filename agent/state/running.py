"""Which run holds the lock of this host now? Found without trying the lock, since that could refuse the next run."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import HostView

_TIMEOUT = 10.0


def current_run(view: HostView) -> str | None:
    """Return the text of the run that holds the lock; the text of a killed run stays in the file."""
    text = _holder_text(view)
    holder = re.search(r"\(pid (\d+)\)$", text)
    is_agent = _windows if view.system.is_windows else _linux
    return text if holder and is_agent(view, holder[1]) else None


def _holder_text(view: HostView) -> str:
    """Read the text in the lock file, or, for a user who cannot open that, in the file beside it."""
    for path in (view.system.lock, f"{view.system.lock}.holder"):
        with contextlib.suppress(AgentError):
            return (view.read(path) or b"").decode("utf-8", "replace").strip()
    return ""


def _linux(view: HostView, pid: str) -> bool:
    """Check the arguments of the process, and whether it holds a lock: the number of a killed run is used again.

    In a container it is often 1, the number of the next program that asks. Another user's process proves nothing: he
    can arrange its number and text.
    """
    path = f"/proc/{pid}/cmdline"
    there = view.stat(path)
    is_agent = there is not None and there.uid == 0 and b"agent" in (view.read(path) or b"")
    return is_agent and _holds_lock(view, pid)


def _holds_lock(view: HostView, pid: str) -> bool:
    """Tell whether a process holds a lock of the kind that a run takes; true where the kernel's list cannot be read."""
    locks = None
    with contextlib.suppress(AgentError):
        locks = view.read("/proc/locks")
    return locks is None or re.search(rf"FLOCK +ADVISORY +WRITE {pid} ".encode(), locks) is not None


def _windows(view: HostView, pid: str) -> bool:
    """Check the name of the program: the agent's own, or that of the Python which runs it from a checkout."""
    done = view.query(("tasklist", "/fi", f"PID eq {pid}", "/fo", "csv", "/nh"), timeout=_TIMEOUT)
    return re.match(r'"(hsm-agent|pythonw?)\.exe"', done.out.strip(), re.IGNORECASE) is not None
