"""Connections to the hosts of a fleet, by ssh's configuration, known hosts and keys, which are read once."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from agent.ssh import duplicates
from agent.ssh.config import SshConfig
from agent.ssh.connection import SshConnection, connect
from agent.ssh.identities import IdentityStore
from agent.ssh.known_hosts import KnownHosts
from agent.ssh.login_limit import LoginLimiter
from agent.ssh.sockets import source_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from agent.core.fleet_model import Target
    from agent.ssh.config import Route
    from agent.ssh.known_hosts import PublishedKeys
    from agent.ssh.sockets import SocketCancelToken

# How many ssh programs run at once: each takes 5 ms of processor time, or waits for a name server.
_AT_ONCE = 4 * (os.cpu_count() or 1)


class SshConnector:
    """Shared by all threads of a roll-out. `host_keys` returns those that are published for a target."""

    def __init__(
        self,
        ssh_config: str | None,
        *,
        trust_new: bool,
        host_keys: Callable[[Target], PublishedKeys] | None = None,
    ) -> None:
        self._config = SshConfig.read(Path(ssh_config) if ssh_config else None)
        self._known = KnownHosts()
        self._identity_store = IdentityStore()
        self._login_limiter = LoginLimiter()
        self._trust_new = trust_new
        self._host_keys = host_keys

    def endpoints(
        self, targets: Sequence[Target], stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, tuple[str, int]]:
        """Return for each target's name the name or address, and the port, that are connected to.

        Raises AgentError `config-invalid`, `inventory-invalid` when two are one machine, `interrupted`.
        """
        routes = self._routes(targets, stopped)
        duplicates.refuse(targets, routes)
        return {name: (route.target.host, route.target.port) for name, route in routes.items()}

    def open(self, target: Target, cancel_token: SocketCancelToken) -> SshConnection:
        """Connect and log in. Raises AgentError with the cause, CancelledError when the token is cancelled."""
        return connect(
            self._config.route(target),
            known=self._known,
            identity_store=self._identity_store,
            trust_new=self._trust_new,
            cancel_token=cancel_token,
            login_limiter=self._login_limiter,
            published=self._published(target),
        )

    def _published(self, target: Target) -> Callable[[], PublishedKeys] | None:
        """Return what asks for the published keys of a target, once for a connection."""
        host_keys = self._host_keys
        return None if host_keys is None else cache(lambda: host_keys(target))

    def _routes(self, targets: Sequence[Target], stopped: Callable[[], bool]) -> dict[str, Route]:
        """Resolve all routes in parallel; the first error ends it."""
        failed: list[Future[Route]] = []
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [
                pool.submit(self._config.route, target, lambda: bool(failed) or stopped())
                for target in targets
            ]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed += [each for each in futures if each in done and each.exception()]
            for each in futures:
                each.cancel()
        if failed:
            failed[0].result()
        return {target.name: future.result() for target, future in zip(targets, futures)}


def direct_source(ssh_config: str | None, target: Target) -> str | None:
    """Return from which address this machine connects to a target; None behind a jump host or a proxy command."""
    route = SshConfig.read(Path(ssh_config) if ssh_config else None).route(target)
    if len(route.hops) > 1 or route.target.proxy_command:
        return None
    return route.target.source or source_address(route.target.host)
