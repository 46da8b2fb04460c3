"""The number of simultaneous logins at one SSH server: a bastion drops those that are too many."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from agent.ssh.sockets import SocketCancelToken

# sshd drops connections at random once ten are not logged in yet (MaxStartups 10:30:100).
LOGINS = 8


class LoginLimiter:
    """Lets `limit` threads at a time through to each server."""

    def __init__(self, limit: int = LOGINS) -> None:
        self._limit = limit
        self._inside: dict[Hashable, int] = {}
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def slot(self, server: Hashable, cancel_token: SocketCancelToken) -> Iterator[None]:
        """Wait for a place with this server, and hold it. Raises CancelledError when the token is cancelled first."""
        with cancel_token.cancelling(self._wake), self._changed:
            self._changed.wait_for(
                lambda: cancel_token.is_cancelled or self._inside.get(server, 0) < self._limit
            )
            cancel_token.raise_if_cancelled()
            self._inside[server] = self._inside.get(server, 0) + 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[server] -= 1
                if not self._inside[server]:
                    del self._inside[server]
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()
