"""CAs, keys and chains that the real openssl made."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.fakes.certificates import openssl

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = """
[req]
distinguished_name = name
prompt = no
string_mask = utf8only
utf8 = yes
[name]
CN = unused
[ca]
basicConstraints = critical, CA:TRUE
[leaf]
basicConstraints = CA:FALSE
[period]
basicConstraints = critical, CA:TRUE
2.5.29.16 = ASN1:SEQUENCE:usage
[usage]
from = IMP:0,GENTIME:20200101000000Z
"""


@dataclass(frozen=True)
class Made:
    """A certificate, its key, and the folder's way to make more of them."""

    folder: Path
    name: str

    @property
    def pem(self) -> bytes:
        return (self.folder / f"{self.name}.crt").read_bytes()

    @property
    def der(self) -> bytes:
        return base64.b64decode(b"".join(self.pem.splitlines()[1:-1]))

    @property
    def key(self) -> bytes:
        return (self.folder / f"{self.name}.key").read_bytes()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()


class Maker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "cnf").write_text(CONFIG, encoding="utf-8")

    def root(self, name: str, subject: str, *kind: str, section: str = "ca", days: int = 3652) -> Made:
        """Make a self-signed certificate; `kind` says key type and digest, EC P-256 by default."""
        self._request(
            name, subject, *kind, "-x509", "-days", str(days), "-extensions", section, out=f"{name}.crt"
        )
        return Made(self.folder, name)

    def below(self, issuer: Made, name: str, subject: str, *, section: str = "ca", days: int = 3652) -> Made:
        self._request(name, subject, out=f"{name}.csr")
        sign = ("-CA", f"{issuer.name}.crt", "-CAkey", f"{issuer.name}.key", "-set_serial", "7")
        self._sign(name, *sign, "-extfile", self._at("cnf"), "-extensions", section, "-days", str(days))
        return Made(self.folder, name)

    def _at(self, name: str) -> str:
        return str(self.folder / name)

    def _sign(self, name: str, *argv: str) -> None:
        argv = tuple(self._at(word) if word.endswith((".crt", ".key")) else word for word in argv)
        openssl(
            "x509", "-req", "-sha256", "-in", self._at(f"{name}.csr"), "-out", self._at(f"{name}.crt"), *argv
        )

    def _request(self, name: str, subject: str, *argv: str, out: str) -> None:
        if "-newkey" not in argv:
            argv = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *argv)
        command = ("req", "-new", "-nodes", "-utf8", "-config", self._at("cnf"), "-subj", subject)
        openssl(*command, *argv, "-keyout", self._at(f"{name}.key"), "-out", self._at(out))


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def root(maker: Maker) -> Made:
    return maker.root("root", "/C=US/O=Example, Inc./CN=Example Root", "-newkey", "rsa:2048")
