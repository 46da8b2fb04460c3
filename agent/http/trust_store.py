"""Which certificates this host trusts for https: those of its own store, before a list that came with a library."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The host's own store first: a mirror inside a company has a CA that no bundled list contains. Windows has no file for
# it, and any user there may make a folder of one of these names at the root of a drive.
_FILES = (
    ()
    if sys.platform == "win32"
    else (
        "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Amazon Linux, RHEL
        "/etc/pki/tls/certs/ca-bundle.crt",
    )
)
NAMED = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


class UnusableStoreError(Exception):
    """The certificates that the environment names are unusable; the text is the reason, `hint` what to do."""

    def __init__(self, variable: str, path: str, why: str) -> None:
        super().__init__(f"{path}, which {variable} names: {why}")
        self.hint = f"name a file with certificates in PEM in {variable}, or unset it: then the host's own store counts"


def trusted_file(environ: Mapping[str, str], named: tuple[str, ...] = NAMED) -> str | None:
    """Return the file of certificates to trust: the one that the environment names in one of the variables `named`,
    or else the host's own store.

    None where the host has no file for its store. Raises UnusableStoreError for a named file that cannot be
    used: OpenSSL's own error names neither the file nor the variable.
    """
    for variable in named:
        path = environ.get(variable)
        if path:
            # a folder contains names that are hashes; there is nothing to check beforehand
            why = None if os.path.isdir(path) else unusable(path)  # noqa: PTH112
            if why is not None:
                raise UnusableStoreError(variable, path, why)
            return path
    return next((each for each in _FILES if os.path.isfile(each)), None)  # noqa: PTH113


def unusable(path: str) -> str | None:
    """Return why a file of certificates is unusable, None when it contains certificates.

    OpenSSL opens any path, and would wait at a FIFO for ever.
    """
    import ssl  # noqa: PLC0415 -- with requests itself

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116
            return "it is no regular file"
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "it holds no certificate"
    except OSError as error:
        return error.strerror or str(error)
    return None
