"""SDK 3's daemon as systemd has it: how it stands and since when, why it does not run, how it is started anew."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.layout import CLUSTER_CACHE, SERVICE3
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_SHOW = ("systemctl", "show", "--property=ActiveState,UnitFileState,MainPID", SERVICE3)
# its own words alone, without what systemd says about it
_JOURNAL = ("journalctl", f"_SYSTEMD_UNIT={SERVICE3}.service", "--lines=3", "--output=cat", "--no-pager")
# How long it may take to connect to its HSM; the unit is active as soon as the program runs, also if it ends at once.
_PATIENCE = 10.0
_LOOK_AGAIN = 0.1
# USER_HZ, in which /proc counts; the same on every processor the client is made for
_TICKS = 100.0


@dataclass(frozen=True)
class Standing:
    """How the daemon stands, in systemd's words. `started` is epoch seconds, None when it does not run."""

    active: str
    enabled: str
    started: float | None


def standing(view: HostView, timeout: float) -> Standing:
    """Ask systemd. A unit that is not there is `inactive, not installed`; without systemd all is unknown."""
    done = view.ask(_SHOW, timeout=timeout)
    said = dict(line.partition("=")[::2] for line in done.out.splitlines())
    return Standing(
        said.get("ActiveState") or "unknown",
        said.get("UnitFileState") or ("not installed" if done.ok else "unknown"),
        _started(view, said.get("MainPID", "0")),
    )


def why(view: HostView, timeout: float) -> str:
    """Return the daemon's last words from the journal, empty when there are none to be had."""
    done = view.ask(_JOURNAL, timeout=timeout)
    said = [line.strip()[:300] for line in done.out.splitlines() if line.strip()]
    return " / ".join(said) if done.ok and "-- No entries --" not in said else ""


def stop(host: Host, timeout: float) -> None:
    """Stop it, so that it does not notice half of a change, and forget which HSMs it knew.

    The addresses of the cluster this host was with before would be tried first (ki-all-2).
    """
    host.do(("systemctl", "stop", SERVICE3), timeout=timeout)
    host.remove(CLUSTER_CACHE)


def start(host: Host, timeout: float) -> None:
    """Start it. What came of it is looked at afterwards."""
    host.do(("systemctl", "start", SERVICE3), timeout=timeout)


def settle(host: Host, since: float | None, timeout: float) -> None:
    """Wait until a daemon just started is connected or has ended, at most some seconds.

    When it is connected it writes the cluster's addresses; `since` is when that file was written before.
    """
    deadline = host.monotonic() + _PATIENCE
    while host.monotonic() < deadline:
        if written(host) not in (None, since) or standing(host, timeout).active not in (
            "active",
            "activating",
        ):
            return
        host.pause(_LOOK_AGAIN)


def written(view: HostView) -> float | None:
    """Return when the daemon wrote down which HSMs its cluster has, None when it never did since it was stopped."""
    stat = view.stat(CLUSTER_CACHE)
    return stat.mtime if stat else None


def revive(host: Host, timeout: float) -> bool:
    """Start it anew after its files were put back, also in an interrupted run, and tell whether it runs."""
    stop(host, timeout)
    start(host, timeout)
    with contextlib.suppress(AgentError):  # a wait is what an interrupt ends
        settle(host, None, timeout)
    return is_running(host, timeout)


def is_running(host: Host, timeout: float) -> bool:
    """Tell whether it runs; with hands, since eyes are closed by an interrupt."""
    return host.do(("systemctl", "is-active", "--quiet", SERVICE3), timeout=timeout).ok


def _started(view: HostView, pid: str) -> float | None:
    """Return when a process began, on the clock that files are dated by.

    systemd tells that in whole seconds of the local time zone, or on a clock that stands still while the machine
    sleeps; /proc counts from the boot on, in hundredths.
    """
    stat = view.read(f"/proc/{pid}/stat") if pid not in ("", "0") else None
    uptime = view.read("/proc/uptime")
    now = view.now().timestamp()
    if stat is None or uptime is None:
        return None
    # the second field is the program's name in parentheses, which may hold anything; this is field 22
    ticks = float(stat.rpartition(b")")[2].split()[19])
    return now - float(uptime.split()[0]) + ticks / _TICKS
