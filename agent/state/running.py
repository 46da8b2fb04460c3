"""Which run is at work on this host just now? Told without touching its lock, which could refuse the next one."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import HostView

_TIMEOUT = 10.0


def at_work(view: HostView) -> str | None:
    """Return the words of the run that holds the lock; those of one that was killed stay behind in the file."""
    words = _words(view)
    holder = re.search(r"\(pid (\d+)\)$", words)
    return words if holder and _IS_AGENT[view.system.kind](view, holder[1]) else None


def _words(view: HostView) -> str:
    """Read them where the lock is, or, for whom that is closed, beside it."""
    for path in (view.system.lock, f"{view.system.lock}.holder"):
        with contextlib.suppress(AgentError):
            return (view.read(path) or b"").decode("utf-8", "replace").strip()
    return ""


def _linux(view: HostView, pid: str) -> bool:
    """Read its arguments; those of another user's program prove nothing, who can give it this number and any words."""
    path = f"/proc/{pid}/cmdline"
    there = view.stat(path)
    return there is not None and there.uid == 0 and b"agent" in (view.read(path) or b"")


def _windows(view: HostView, pid: str) -> bool:
    """Ask for the program's name: the agent's own, or that of the Python which runs it from a checkout."""
    done = view.query(("tasklist", "/fi", f"PID eq {pid}", "/fo", "csv", "/nh"), timeout=_TIMEOUT)
    return re.match(r'"(hsm-agent|pythonw?)\.exe"', done.out.strip(), re.IGNORECASE) is not None


_IS_AGENT = {"linux": _linux, "windows": _windows}
