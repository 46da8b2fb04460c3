"""Whether this machine's Python can make a TLS connection at all."""

from __future__ import annotations

from agent.core.errors import AgentError
from agent.hosts import connect


def require() -> None:
    """Raise AgentError `openssl-unusable` where no TLS connection can be made, whoever is at the other end."""
    try:
        connect.tls_context()
    except OSError as error:
        raise AgentError(
            "openssl-unusable",
            "this host's OpenSSL can make no TLS connection",
            saw=str(error),
            want="a Python with an OpenSSL that works",
        ) from error
