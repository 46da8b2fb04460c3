"""What the fakes that speak HTTP have in common: a server on a thread that ends with its block, and answers in turn."""

from __future__ import annotations

import http.server
import os
import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


class QuietHandler(http.server.BaseHTTPRequestHandler):
    """Logs nothing."""

    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_words: object) -> None:
        pass

    def head(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def reset(self) -> None:
        """Break the connection, as a crashed server does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


class Server(http.server.ThreadingHTTPServer):
    """HTTP, or HTTPS with a context. `over` is set when the server ends: an answer that waits must wait for it too."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        handler: type[QuietHandler],
        context: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        super().__init__(address, handler)
        self.over = threading.Event()
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            # the handshake is in the connection's own thread
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def origin(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    def handle_error(self, *_words: object) -> None:
        pass  # clients that disconnect are what is tested


class AnswersInTurn(Server):
    """Gives its answers in turn, then repeats the last one. `requests` are path and headers of each request."""

    def __init__(self, answers: tuple[Callable[[Any], object], ...], *words: Any) -> None:
        super().__init__(*words)
        self.answers = answers
        self.requests: list[tuple[str, dict[str, str]]] = []

    def answer_next(self, exchange: QuietHandler, headers: dict[str, str]) -> None:
        """Record the request, answer it, and close the connection."""
        self.requests.append((exchange.path, headers))
        turn = min(len(self.requests), len(self.answers)) - 1
        exchange.close_connection = True
        with suppress(OSError):
            self.answers[turn](exchange)


S = TypeVar("S", bound=Server)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Serve on a thread while the block lasts."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()
