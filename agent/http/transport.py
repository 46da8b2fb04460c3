"""requests' transport, except that it skips interim answers and trusts the host's certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from agent.http.strict_response import StrictResponse

if TYPE_CHECKING:
    import ssl


class _Plain(HTTPConnection):
    response_class = StrictResponse


class _Secured(HTTPSConnection):
    response_class = StrictResponse


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecuredPool(HTTPSConnectionPool):
    ConnectionCls = _Secured


_POOLS = {"http": _PlainPool, "https": _SecuredPool}


class HttpTransport(HTTPAdapter):
    """Sends one request. `context` is what TLS trusts where `send` gets no file of certificates.

    Windows installs a public root only when one of its own programs needs it: so the certificates of its store are
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
