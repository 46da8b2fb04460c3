"""Contexts of TLS, and whether this machine's Python can make one at all."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from agent.core.errors import AgentError

if TYPE_CHECKING:
    import ssl


def tls_context() -> ssl.SSLContext:
    """Return a context that verifies no certificate. Raises OSError where this Python can make none.

    An `openssl.cnf` with settings that its OpenSSL does not know, and earlier calls of any library, leave errors in the
    thread's queue, which the next call reports as its own. A cipher list without a cipher clears the queue.
    """
    try:
        import ssl  # noqa: PLC0415 -- 8 ms that most commands need not pay

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with contextlib.suppress(ssl.SSLError):
            context.set_ciphers("NO-SUCH-CIPHER")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("ALL:@SECLEVEL=0")  # any cipher of the other side: nothing is sent through it
    except (ImportError, OSError) as error:  # SSLError is an OSError
        reason = f"{sys.executable or 'Python'} can make no TLS connection: {error}"
        raise OSError(reason) from None
    return context


def require() -> None:
    """Raise AgentError `openssl-unusable` where no TLS connection can be made, to any server."""
    try:
        tls_context()
    except OSError as error:
        raise AgentError(
            "openssl-unusable",
            "this host's OpenSSL can make no TLS connection",
            saw=str(error),
            want="a Python with an OpenSSL that works",
        ) from error
