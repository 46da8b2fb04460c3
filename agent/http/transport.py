"""requests' transport, except that interim answers are passed over and that it trusts as the host does."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import ssl
    from typing import BinaryIO

# 101 is an answer, to what nobody asked; 100 Continue, 102 Processing and 103 Early Hints come before one.
_INTERIM = (100, *range(102, 200))
_MOST_INTERIM = 20


class ContradictionError(http.client.HTTPException):
    """An answer has two lengths."""


class TruncatedError(http.client.HTTPException):
    """An answer ends before its headers do."""


class _HeaderLines:
    """What an answer is read from, line by line; it remembers the last."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.last = b""

    def readline(self, limit: int = -1) -> bytes:
        self.last = self._file.readline(limit)
        return self.last

    def close(self) -> None:
        self._file.close()


class _Answer(http.client.HTTPResponse):
    """An answer; http.client takes 103 for the answer itself, and reads as many 100 as come, all in one call.

    It also takes an end in the middle of the headers for theirs: a server that died had said `200 OK` by then.
    Two lengths are refused here: urllib3 does it when nobody closes the connection any more.
    """

    def begin(self) -> None:
        file = self.fp
        lines: Any = _HeaderLines(file)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:  # not closed meanwhile
                self.fp = file
        if not lines.last:
            raise TruncatedError
        lengths = ",".join(self.headers.get_all("Content-Length", ())).split(",")
        if len({each.strip() for each in lengths}) > 1:
            raise ContradictionError

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(_MOST_INTERIM):
            line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # typeshed leaves it out
            if line[1] not in _INTERIM:
                return line
            http.client.parse_headers(self.fp)
        raise http.client.BadStatusLine("one interim answer after the other")


class _Plain(HTTPConnection):
    response_class = _Answer


class _Secured(HTTPSConnection):
    response_class = _Answer


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecuredPool(HTTPSConnectionPool):
    ConnectionCls = _Secured


_POOLS = {"http": _PlainPool, "https": _SecuredPool}


class HttpTransport(HTTPAdapter):
    """Sends one request. `context` is what TLS trusts where no file of certificates is named to `send`.

    Windows brings a public root onto the machine only when one of its own programs needs it: so what its store has is
    added to the list of requests.
    """

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._trust: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **kwargs, **self._trust)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs, **self._trust)
        manager.pool_classes_by_scheme = _POOLS
        return manager
