"""Connections that are kept between questions: used again, replaced when the server closed them, and only for reading."""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from agent.http.connection_pool import ConnectionPool
from agent.http.exchange import ApiRequest, ExchangeLimits, exchange

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = ExchangeLimits(connect=5.0, total=10.0, answer=1000)


class Handler(BaseHTTPRequestHandler):
    """Answers with the number of the connection. `server.manner` is what happens to it afterwards."""

    protocol_version = "HTTP/1.1"
    server: Any

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1
        self.number = self.server.connections

    def do_GET(self) -> None:
        body = str(self.number).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if self.server.manner == "says so":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        if self.server.manner == "closes":
            self.close_connection = True

    do_POST = do_GET

    def log_message(self, *_words: object) -> None: ...


@contextmanager
def server(manner: str) -> Iterator[str]:
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.manner, running.connections = manner, 0
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def ask(url: str, pool: ConnectionPool | None, method: str = "GET") -> str:
    return exchange(ApiRequest(method, url), LIMITS, environ={}, pool=pool).body.decode()


@pytest.mark.parametrize(
    ("manner", "numbers"),
    [("keeps", ["1", "1", "1"]), ("closes", ["1", "2", "3"]), ("says so", ["1", "2", "3"])],
)
def test_a_connection_is_used_again_where_the_server_keeps_it(manner: str, numbers: list[str]) -> None:
    with server(manner) as url, closing(ConnectionPool()) as pool:
        assert [ask(url, pool) for _ in numbers] == numbers


def test_without_a_pool_and_for_changes_each_question_has_its_own() -> None:
    with server("keeps") as url, closing(ConnectionPool()) as pool:
        assert [ask(url, None), ask(url, None)] == ["1", "2"]
        assert [ask(url, pool, "POST"), ask(url, pool), ask(url, pool, "POST"), ask(url, pool)] == [
            "3",
            "4",
            "5",
            "4",
        ]


def test_a_connection_to_one_server_is_no_connection_to_another() -> None:
    with server("keeps") as one, server("keeps") as other, closing(ConnectionPool()) as pool:
        assert [ask(one, pool), ask(other, pool), ask(other, pool)] == ["1", "1", "1"]
