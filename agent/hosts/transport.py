"""requests' transport, except that interim answers are passed over and that it trusts as the host does."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import ssl

# 101 is an answer, to what nobody asked; 100 Continue, 102 Processing and 103 Early Hints come before one.
_INTERIM = (100, *range(102, 200))
_MOST_INTERIM = 20


class ContradictionError(http.client.HTTPException):
    """An answer has two lengths."""


class _Answer(http.client.HTTPResponse):
    """An answer; http.client takes 103 for the answer itself, and reads as many 100 as come, all in one call.

    Two lengths are refused here: urllib3 does it when nobody closes the connection any more.
    """

    def begin(self) -> None:
        super().begin()
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


class Transport(HTTPAdapter):
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
