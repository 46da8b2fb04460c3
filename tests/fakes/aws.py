"""AWS's API as it answers on its bad days: answers for `tests.fakes.receiver`, and moto as a server where all is well."""

from __future__ import annotations

import datetime as dt
import json
import time
from typing import TYPE_CHECKING, Any

from agent.core.system import LINUX
from agent.hosts.posix import Posix
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from agent.core.system import System
    from tests.fakes.receiver import Answer, Exchange

SECRET = "wJalrXUtnFEMI/K7MDENG"
TOKEN = "IQoJb3JpZ2luX2VjENJ//s3cr3t"
KEYS = {"AWS_ACCESS_KEY_ID": "ASIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}


class RealTime(Memory):
    """Files in memory, real time, and a clock that may be wrong by `off`; `waits` are those it was asked for."""

    def __init__(self, off: dt.timedelta = dt.timedelta(), system: System = LINUX) -> None:
        super().__init__(system=system)
        self.off = off
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> dt.datetime:
        return Posix().now() + self.off

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


def says(body: str | bytes, status: int = 200, **headers: object) -> Answer:
    """Answer with this body, whatever is asked."""
    data = body if isinstance(body, bytes) else body.encode()

    def answer(exchange: Exchange) -> None:
        exchange.answer(status, **{"Content_Length": len(data), **headers})
        exchange.wfile.write(data)

    return answer


def answers(tree: Any) -> Answer:
    return says(json.dumps(tree))


def refuses(code: str, message: str = "", status: int = 400) -> Answer:
    return says(json.dumps({"__type": f"com.amazonaws#{code}", "message": message}), status)


def minds_the_clock(tree: Any) -> Answer:
    """Answer only whoever signs within five minutes of the time, as AWS does (moto does not)."""

    def answer(exchange: Exchange) -> None:
        late = Posix().now() - dt.datetime.strptime(
            f"{exchange.headers['X-Amz-Date']}+0000", "%Y%m%dT%H%M%SZ%z"
        )
        if abs(late) < dt.timedelta(minutes=5):
            answers(tree)(exchange)
        else:
            refuses("InvalidSignatureException", f"Signature expired: {late} from now", 403)(exchange)

    return answer


def half(body: str, kind: str) -> Answer:
    """End in the middle: of a body with a length, of one in chunks, or of what is only JSON no more."""

    def answer(exchange: Exchange) -> None:
        if kind == "length":
            exchange.answer(200, Content_Length=len(body))
            exchange.wfile.write(body[: len(body) // 2].encode())
        elif kind == "chunks":
            exchange.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{")
        elif kind == "headers":
            exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
        else:
            says(body[: len(body) // 2])(exchange)
        exchange.wfile.flush()

    return answer
