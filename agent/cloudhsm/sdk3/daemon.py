"""SDK 3's daemon: how it stands and since when, why it does not run, how it is started anew."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from agent.cloudhsm.paths import client_paths
from agent.cloudhsm.sdk3.service_managers import ServiceManager, ServiceStatus, Systemd, WindowsServices
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_KEEPERS: dict[str, ServiceManager] = {"linux": Systemd(), "windows": WindowsServices()}
# How long it may take to connect to its HSM; the unit is active as soon as the program runs, also if it ends at once.
_PATIENCE = 10.0
_LOOK_AGAIN = 0.1
# clocks of files and of processes differ by a hundredth of a second
_TICK = 0.02


def status(view: HostView, timeout: float) -> ServiceStatus:
    """Ask who keeps it. One that is not there is `inactive, not installed`; where nobody answers all is unknown."""
    here = client_paths(view.system).sdk3
    return _keeper(view).standing(view, here.service, here.daemon, timeout)


def recent_log(view: HostView, timeout: float) -> str:
    """Return the daemon's last words, empty when there are none to be had."""
    return _keeper(view).why(view, client_paths(view.system).sdk3.service, timeout)


def stop(host: Host, timeout: float) -> None:
    """Stop it, so that it does not notice half of a change, and forget which HSMs it knew.

    The addresses of the cluster this host was with before would be tried first (ki-all-2).
    """
    here = client_paths(host.system).sdk3
    host.run(_keeper(host).stop(here.service), timeout=timeout)
    if here.cluster_cache:
        host.remove(here.cluster_cache)


def start(host: Host, timeout: float) -> None:
    """Start it. What came of it is looked at afterwards."""
    host.run(_keeper(host).start(client_paths(host.system).sdk3.service), timeout=timeout)


def enable(host: Host, timeout: float) -> None:
    """Have it started at every boot."""
    host.run(_keeper(host).enable(client_paths(host.system).sdk3.service), timeout=timeout)


def stop_and_disable(host: Host, timeout: float) -> None:
    """Stop it for good. It may be stopped, disabled or missing: what matters is looked at afterwards."""
    host.run(_keeper(host).disable(client_paths(host.system).sdk3.service), timeout=timeout)


def wait_until_settled(host: Host, since: float | None, timeout: float) -> None:
    """Wait until a daemon just started is connected or has ended, at most some seconds.

    When it is connected it writes the cluster's addresses; `since` is when that file was written before. Where that
    cannot be seen, that it runs has to do.
    """
    waits = ("active", "activating") if client_paths(host.system).sdk3.cluster_cache else ("activating",)
    deadline = host.monotonic() + _PATIENCE
    while host.monotonic() < deadline:
        if connected_since(host) not in (None, since) or status(host, timeout).active not in waits:
            return
        host.sleep(_LOOK_AGAIN)


def connected_since(view: HostView) -> float | None:
    """Return when the daemon wrote down which HSMs its cluster has, None when it never did since it was stopped.

    Where it does that on Windows is not documented (facts 3.3).
    """
    path = client_paths(view.system).sdk3.cluster_cache
    stat = view.stat(path) if path else None
    return stat.mtime if stat else None


def has_connected(view: HostView, now: ServiceStatus) -> bool:
    """Tell whether this run of it has written that down; the file of an earlier run stays when it ends by itself."""
    when = connected_since(view)
    return when is not None and (now.started is None or when >= now.started - _TICK)


def restart(host: Host, timeout: float) -> bool:
    """Start it anew after its files were put back, also in an interrupted run, and tell whether it runs."""
    stop(host, timeout)
    start(host, timeout)
    with contextlib.suppress(AgentError):  # a wait is what an interrupt ends
        wait_until_settled(host, None, timeout)
    return is_running(host, timeout)


def is_running(host: Host, timeout: float) -> bool:
    """Tell whether it runs; with hands, since eyes are closed by an interrupt."""
    return _keeper(host).is_running(host, client_paths(host.system).sdk3.service, timeout)


def _keeper(view: HostView) -> ServiceManager:
    return _KEEPERS[view.system.kind]
