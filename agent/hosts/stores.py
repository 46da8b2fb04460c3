"""Which certificates this host trusts for https: those of its own store, before a list that came with a library."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

# The host's own store first: a mirror inside a company has a CA that no bundled list knows. Windows has it in no file,
# and there everybody may make a folder of one of these names at the root of a drive.
_FILES = (
    ()
    if sys.platform == "win32"
    else (
        "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Amazon Linux, RHEL
        "/etc/pki/tls/certs/ca-bundle.crt",
    )
)


def trust_as_the_host_does(session: requests.Session, environ: Mapping[str, str]) -> None:
    """Have a session trust the file that the environment names, or else the host's store.

    Windows brings a public root onto the machine only when one of its own programs needs it: so its store is added to
    the list of `requests`.
    """
    named = (environ.get("REQUESTS_CA_BUNDLE"), environ.get("SSL_CERT_FILE"), *_FILES)
    file = next((each for each in named if each and os.path.isfile(each)), None)  # noqa: PTH113
    if file is not None:
        session.verify = file
        return
    import ssl  # noqa: PLC0415 -- with requests itself

    from requests.adapters import HTTPAdapter  # noqa: PLC0415 -- as above

    context = ssl.create_default_context()

    class OfTheHost(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> Any:
            return super().init_poolmanager(*args, ssl_context=context, **kwargs)

        def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
            return super().proxy_manager_for(*args, ssl_context=context, **kwargs)

    session.mount("https://", OfTheHost())
