"""Certificates of a made-up cluster, made by openssl as AWS's guide describes (cloudhsm-facts.md 7)."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DAYS = 3652
LIMIT_SECONDS = 120.0
# One configuration for all, so that nothing depends on the machine's own openssl.cnf.
CONFIG = """
[req]
distinguished_name = name
prompt = no
[name]
CN = unused
[ca]
default_ca = dated
[dated]
database = {folder}/index.txt
new_certs_dir = {folder}
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
countryName = optional
stateOrProvinceName = optional
localityName = optional
organizationName = optional
organizationalUnitName = optional
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[end_entity]
basicConstraints = critical, CA:FALSE
subjectKeyIdentifier = hash
"""
EXPIRED = ("20150101000000Z", "20160101000000Z")
NOT_YET_VALID = ("20900101000000Z", "20950101000000Z")
RSA_2048 = ("rsa:2048",)
RSA_1024 = ("rsa:1024",)
EC_P256 = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
KINDS = ("normal", "weak", "expired", "not-yet-valid", "end-entity", "ec", "chain")


class OpensslError(Exception):
    """The openssl program failed; the text is its own message."""


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Pki:
    """The certificates of one cluster and its tests. `ca.cert` is the customerCA.crt that clients get.

    `hsm` is the cluster certificate: one for all HSMs, since the CSR is the cluster's. `other_ca` issued
    `other_hsm` and nothing else. `client` is for mutual TLS, issued by `client_ca`.
    """

    ca: KeyPair
    hsm: KeyPair
    other_ca: KeyPair
    other_hsm: KeyPair
    client_ca: KeyPair
    client: KeyPair


def make(folder: Path, kind: str = "normal") -> Pki:
    """Make everything in `folder`, which is created. `kind` is the kind of the customer CA: one of KINDS.

    A second call on the same folder makes new keys. About 0.5 s.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ca, hsm = customer(folder, kind)
    other_ca = authority(folder, "otherCA")
    client_ca = authority(folder, "clientCA")
    return Pki(
        ca=ca,
        hsm=hsm,
        other_ca=other_ca,
        other_hsm=issued(folder, "other-hsm", other_ca, subject=cluster_subject("other"), with_issuer=True),
        client_ca=client_ca,
        client=issued(folder, "client", client_ca, subject="/O=Lab/CN=client"),
    )


def customer(folder: Path, kind: str = "normal") -> tuple[KeyPair, KeyPair]:
    """Make a customer CA of one of KINDS and the cluster certificate it issued.

    weak: RSA 1024; expired, not-yet-valid: by their dates; end-entity: a self-signed CA:FALSE that issued all
    the same; ec: P-256; chain: `ca.cert` is chainCA.crt, an intermediate and then its root.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dates = {"expired": EXPIRED, "not-yet-valid": NOT_YET_VALID}.get(kind)
    key_type = {"weak": RSA_1024, "ec": EC_P256}.get(kind, RSA_2048)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind}, known: {' '.join(KINDS)}")
    if kind == "chain":
        root = authority(folder, "customerRootCA")
        middle = issued(folder, "intermediateCA", root, subject="/O=Lab/CN=lab intermediateCA", is_ca=True)
        chain = folder / "chainCA.crt"
        chain.write_bytes(middle.cert.read_bytes() + root.cert.read_bytes())
        return KeyPair(chain, middle.key), issued(folder, "hsm", middle, subject=cluster_subject("lab"))
    ca = authority(folder, "customerCA", key_type=key_type, dates=dates, is_ca=kind != "end-entity")
    return ca, issued(folder, "hsm", ca, subject=cluster_subject("lab"))


def cluster_subject(cluster: str) -> str:
    """Return the subject that a CloudHSM cluster's signing request carries."""
    return f"/C=US/ST=CA/O=Cavium/OU=N3FIPS/L=SanJose/CN=HSM:{cluster}:PARTN:1, for FIPS mode"


def authority(
    folder: Path,
    name: str,
    *,
    key_type: Sequence[str] = RSA_2048,
    dates: tuple[str, str] | None = None,
    is_ca: bool = True,
) -> KeyPair:
    """Make a self-signed certificate: NAME.crt and NAME.key in `folder`."""
    made, config = KeyPair(folder / f"{name}.crt", folder / f"{name}.key"), _config(folder)
    subject, section = f"/C=US/ST=CA/O=Lab/CN=lab {name}", "authority" if is_ca else "end_entity"
    new = ["req", "-config", config, "-newkey", *key_type, "-nodes", "-subj", subject]
    new += ["-keyout", str(made.key)]
    if dates is None:
        _openssl([*new, "-x509", "-days", str(DAYS), "-extensions", section, "-out", str(made.cert)])
        return made
    request = folder / f"{name}.csr"
    _openssl([*new, "-out", str(request)])
    _dated(request, made.cert, section, dates, ["-selfsign", "-keyfile", str(made.key)])
    return made


def issued(
    folder: Path,
    name: str,
    issuer: KeyPair,
    *,
    subject: str,
    dates: tuple[str, str] | None = None,
    is_ca: bool = False,
    with_issuer: bool = False,
) -> KeyPair:
    """Make a certificate issued by `issuer`. `with_issuer`: NAME.crt carries the issuer as well."""
    made, config = KeyPair(folder / f"{name}.crt", folder / f"{name}.key"), _config(folder)
    request, section = folder / f"{name}.csr", "authority" if is_ca else "end_entity"
    new = ["req", "-config", config, "-newkey", *RSA_2048, "-nodes", "-subj", subject]
    _openssl([*new, "-keyout", str(made.key), "-out", str(request)])
    if dates is None:
        signing = ["-CA", str(issuer.cert), "-CAkey", str(issuer.key), "-CAcreateserial"]
        extensions = ["-extfile", config, "-extensions", section]
        argv = ["x509", "-req", "-days", str(DAYS), "-in", str(request), *signing, *extensions]
        _openssl([*argv, "-out", str(made.cert)])
    else:
        signing = ["-cert", str(issuer.cert), "-keyfile", str(issuer.key)]
        _dated(request, made.cert, section, dates, signing)
    if with_issuer:
        made.cert.write_bytes(made.cert.read_bytes() + issuer.cert.read_bytes())
    return made


def _dated(request: Path, out: Path, section: str, dates: tuple[str, str], signing: Sequence[str]) -> None:
    folder, (start, end) = out.parent, dates
    (folder / "index.txt").touch()
    argv = ["ca", "-config", _config(folder), "-batch", "-notext", "-preserveDN"]
    argv += ["-startdate", start, "-enddate", end, "-extensions", section, *signing]
    _openssl([*argv, "-in", str(request), "-out", str(out)])


def _config(folder: Path) -> str:
    path = folder / "openssl.cnf"
    text = CONFIG.format(folder=folder)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return str(path)


def _openssl(arguments: Sequence[str]) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, check=False, timeout=LIMIT_SECONDS)
    if done.returncode != 0:
        raise OpensslError(f"openssl {' '.join(arguments)}: {done.stderr.decode(errors='replace')[-2000:]}")
