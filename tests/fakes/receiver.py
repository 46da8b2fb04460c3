"""A receiver of reports: a real HTTP or HTTPS server that keeps what it was sent, once for each idempotency key.

`python -m tests.fakes.receiver IP PORT CERT KEY FOLDER` serves in the lab: what it took lies in FOLDER as 0001.json
and so on, the heads of all requests in FOLDER/requests, and while FOLDER/down is there it answers 503.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import ssl
import struct
import sys
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from collections.abc import Iterator


class Exchange(http.server.BaseHTTPRequestHandler):
    """One POST or PUT, given to the answer whose turn it is."""

    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.document = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers)))
        turn = min(len(self.server.requests), len(self.server.answers)) - 1
        self.close_connection = True
        with suppress(OSError):
            self.server.answers[turn](self)

    def do_PUT(self) -> None:
        self.do_POST()

    def do_GET(self) -> None:
        self.server.requests.append((self.path, {**self.headers, "method": "GET"}))
        turn = min(len(self.server.requests), len(self.server.answers)) - 1
        self.close_connection = True
        with suppress(OSError):
            self.server.answers[turn](self)

    def log_message(self, *_words: object) -> None:
        pass

    def answer(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": 0, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def take(self) -> None:
        """Keep the report, if it is not here yet."""
        self.server.taken.setdefault(self.headers["Idempotency-Key"], json.loads(self.document))

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


Answer = Callable[[Exchange], object]


class Receiver(http.server.ThreadingHTTPServer):
    """Gives its answers in turn, the last one again and again; `taken` is what it has, in order, by its key."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        answers: tuple[Answer, ...],
        context: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        super().__init__(address, Exchange)
        self.answers = answers
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.taken: dict[str, dict[str, Any]] = {}
        self.over = threading.Event()
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/reports?secret=hidden"

    @property
    def run_ids(self) -> list[str]:
        return [document["run_id"] for document in self.taken.values()]

    def handle_error(self, *_words: object) -> None:
        pass  # clients that go away are what is tested


@contextmanager
def receiver(*answers: Answer, context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    with Receiver(answers, context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


def accept(exchange: Exchange) -> None:
    """Take it: 200, or 409 when it is here already."""
    here = exchange.headers["Idempotency-Key"] in exchange.server.taken
    exchange.take()
    exchange.answer(409 if here else 200)


def accept_and_break(exchange: Exchange) -> None:
    """Take it, and let the connection break before the sender hears of it."""
    exchange.take()
    exchange.reset()


def only(status: int, **headers: object) -> Answer:
    return lambda exchange: exchange.answer(status, **headers)


def silent(exchange: Exchange) -> None:
    exchange.server.over.wait(30)


def main(ip: str, port: str, cert: str, key: str, folder: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    place = Path(folder)

    def answer(exchange: Exchange) -> None:
        path, headers = exchange.server.requests[-1]
        with (place / "requests").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"path": path, "headers": headers}) + "\n")
        if (place / "down").exists():
            exchange.answer(503)
            return
        here = exchange.headers["Idempotency-Key"] in exchange.server.taken
        exchange.take()
        # before it is answered, and whole: whoever was told that it is here may look
        for number, document in enumerate(exchange.server.taken.values(), 1):
            kept = place / f"{number:04}.json"
            if not kept.exists():
                draft = place / f"draft-{number}"
                draft.write_text(json.dumps(document), encoding="utf-8")
                draft.replace(kept)
        exchange.answer(409 if here else 200)

    with Receiver((answer,), context, (ip, int(port))) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
