"""A receiver of reports: a real HTTP or HTTPS server that keeps what it was sent, once for each idempotency key.

`python -m tests.fakes.receiver IP PORT CERT KEY FOLDER` serves in the lab: what it took lies in FOLDER as 0001.json
and so on, the heads of all requests in FOLDER/requests, and while FOLDER/down is there it answers 503.
"""

from __future__ import annotations

import json
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from tests.fakes.http_server import AnswersInTurn, QuietHandler, serving

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Exchange(QuietHandler):
    """One POST or PUT, given to the answer whose turn it is."""

    server: Receiver

    def do_POST(self) -> None:
        self.document = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.answer_next(self, dict(self.headers))

    def do_PUT(self) -> None:
        self.do_POST()

    def do_GET(self) -> None:
        self.server.answer_next(self, {**self.headers, "method": "GET"})

    def answer(self, status: int, **headers: object) -> None:
        self.head(status, **{"Content_Length": 0, **headers})

    def take(self) -> None:
        """Keep the report, if it is not here yet."""
        self.server.taken.setdefault(self.headers["Idempotency-Key"], json.loads(self.document))


Answer = Callable[[Exchange], object]


class Receiver(AnswersInTurn):
    """`taken` are the reports that it has, in order, by their key."""

    def __init__(
        self,
        answers: tuple[Answer, ...],
        context: ssl.SSLContext | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        super().__init__(answers, Exchange, context, address)
        self.taken: dict[str, dict[str, Any]] = {}

    @property
    def url(self) -> str:
        return f"{self.origin}/reports?secret=hidden"

    @property
    def run_ids(self) -> list[str]:
        return [document["run_id"] for document in self.taken.values()]


def receiver(*answers: Answer, context: ssl.SSLContext | None = None) -> AbstractContextManager[Receiver]:
    return serving(Receiver(answers, context))


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
        # before the answer, and complete: a sender that got the answer may read the file
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
