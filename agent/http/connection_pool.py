"""Connections that are kept for the next exchange with the same server: for whoever asks it thousands of questions."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    import http.client
    import ssl

# Idle connections for each server; more are closed.
_MOST = 32


class ConnectionPool:
    """Idle connections by their server and proxy, and the one TLS context of them all. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._context: ssl.SSLContext | None = None

    def take(self, server: str) -> http.client.HTTPConnection | None:
        """Return an idle connection, which the server may have closed meanwhile; None where there is none."""
        with self._lock:
            idle = self._idle.get(server)
            return idle.pop() if idle else None

    def give(self, server: str, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose answer was read to its end."""
        with self._lock:
            idle = self._idle.setdefault(server, [])
            if len(idle) < _MOST:
                idle.append(connection)
                return
        connection.close()

    def context(self, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Return the TLS context, made once: reading a system's certificates takes some 15 ms."""
        with self._lock:
            if self._context is None:
                self._context = make()
            return self._context

    def close(self) -> None:
        with self._lock:
            every = [connection for idle in self._idle.values() for connection in idle]
            self._idle.clear()
        for connection in every:
            with suppress(OSError):
                connection.close()
