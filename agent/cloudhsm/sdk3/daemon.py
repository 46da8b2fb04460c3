"""SDK 3's daemon: its state and since when, its last log lines, how it is started, stopped and restarted."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.sdk3.service_managers import ServiceManager, ServiceStatus, Systemd, WindowsServices
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.cloudhsm.paths import ClientPaths
    from agent.cloudhsm.sdk3.paths import Sdk3Paths
    from agent.core.host import Host, HostView

# How long it may take to connect to its HSM; the unit is active as soon as the program runs, also if it ends at once.
_PATIENCE = 10.0
_LOOK_AGAIN = 0.1
# clocks of files and of processes differ by a hundredth of a second
_TICK = 0.02


@dataclass(frozen=True)
class Daemon:
    """The daemon on one kind of system, behind its service manager. Time-outs are in seconds, for each command.

    The methods raise AgentError as `query` and `run` do; what a command says with its exit status is not believed.
    """

    paths: Sdk3Paths
    manager: ServiceManager

    def status(self, view: HostView, timeout: float) -> ServiceStatus:
        """Ask the service manager. A missing service is `inactive, not installed`; without an answer all is unknown."""
        return self.manager.status(view, self.paths.service, self.paths.daemon, timeout)

    def recent_log(self, view: HostView, timeout: float) -> str:
        """Return the daemon's last log lines, empty when there are none."""
        return self.manager.recent_log(view, self.paths.service, timeout)

    def stop(self, host: Host, timeout: float) -> None:
        """Stop it, so that it does not read half of a change, and forget which HSMs it knew.

        It would try the addresses of the cluster that this host was with before first (ki-all-2).
        """
        host.run(self.manager.stop(self.paths.service), timeout=timeout)
        if self.paths.cluster_cache:
            host.remove(self.paths.cluster_cache)

    def start(self, host: Host, timeout: float) -> None:
        """Start it. Whether it then runs is checked afterwards."""
        host.run(self.manager.start(self.paths.service), timeout=timeout)

    def enable(self, host: Host, timeout: float) -> None:
        """Have it started at every boot."""
        host.run(self.manager.enable(self.paths.service), timeout=timeout)

    @contextlib.contextmanager
    def stopped_for_good(self, host: Host, timeout: float) -> Iterator[None]:
        """Stop and disable it for the body; when that fails, its package stays, and so does what it did before.

        It may be stopped, disabled or missing already.
        """
        before = self.status(host, timeout)
        host.run(self.manager.disable(self.paths.service), timeout=timeout)
        try:
            yield
        except AgentError:
            with contextlib.suppress(AgentError):  # the first failure is the cause
                if before.enabled == "enabled":
                    self.enable(host, timeout)
                if before.is_up:
                    self.start(host, timeout)
            raise

    def wait_until_settled(self, host: Host, since: float | None, timeout: float) -> None:
        """Wait until a daemon that was just started is connected or has ended, at most some seconds.

        When it is connected it writes the cluster's addresses; `since` is when that file was written before. Where that
        file is not known, it is enough that the daemon runs.
        """
        waits = ("active", "activating") if self.paths.cluster_cache else ("activating",)
        deadline = host.monotonic() + _PATIENCE
        while host.monotonic() < deadline:
            if (
                self.connected_since(host) not in (None, since)
                or self.status(host, timeout).active not in waits
            ):
                return
            host.sleep(_LOOK_AGAIN)

    def connected_since(self, view: HostView) -> float | None:
        """Return when the daemon wrote down which HSMs its cluster has, None when it did not since it was stopped."""
        stat = view.stat(self.paths.cluster_cache) if self.paths.cluster_cache else None
        return stat.mtime if stat else None

    def has_connected(self, view: HostView, now: ServiceStatus) -> bool:
        """Tell whether this run of it has written that file; that of an earlier run stays when it ends by itself."""
        when = self.connected_since(view)
        return when is not None and (now.started is None or when >= now.started - _TICK)

    def restart(self, host: Host, timeout: float) -> bool:
        """Restart it after its files were put back, also in an interrupted run, and tell whether it runs."""
        self.stop(host, timeout)
        self.start(host, timeout)
        with contextlib.suppress(AgentError):  # an interrupt ends a wait
            self.wait_until_settled(host, None, timeout)
        return self.is_running(host, timeout)

    def is_running(self, host: Host, timeout: float) -> bool:
        """Tell whether it runs. Takes a Host: an interrupt refuses every query of a view, and not its `run`."""
        return self.manager.is_running(host, self.paths.service, timeout)


def daemon_on(paths: ClientPaths) -> Daemon:
    """Return the daemon of one kind of system."""
    return Daemon(paths.sdk3, WindowsServices() if paths.system.is_windows else Systemd())
