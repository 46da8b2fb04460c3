"""Which CA issued the certificate of a cluster, with openssl and cryptography as judges."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from agent.cloudhsm.ca_proof import prove_ca
from tests.fakes.issued import by_openssl

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime(2026, 11, 30, tzinfo=dt.timezone.utc)
YEAR = dt.timedelta(days=365)


@dataclass(frozen=True)
class Issuer:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def new_key(kind: str) -> Any:
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key({"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}[kind])


def issue(
    name: str, issuer: Issuer | None, kind: str, *, ca: bool = True, ends: dt.timedelta = YEAR
) -> Issuer:
    key = new_key(kind)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 2 * YEAR)
        .not_valid_after(NOW + ends)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pss = padding.PSS(padding.MGF1(SHA256()), 32)
    signer = issuer.key if issuer else key
    more: dict[str, Any] = (
        {"rsa_padding": pss} if kind == "rsa-pss" and isinstance(signer, rsa.RSAPrivateKey) else {}
    )
    return Issuer(builder.sign(signer, SHA256(), **more), key)


@dataclass(frozen=True)
class Family:
    """A root, an intermediate and the certificates of clusters below each of them; and what only looks like them."""

    root: Issuer
    intermediate: Issuer
    below_root: Issuer
    below_intermediate: Issuer
    expired_root: Issuer
    below_expired: Issuer
    namesake: Issuer
    other: Issuer


@pytest.fixture(scope="module", params=["rsa", "rsa-pss", "p256", "p384"])
def family(request: pytest.FixtureRequest) -> Family:
    kind = request.param
    root = issue("root", None, kind)
    intermediate = issue("intermediate", root, kind)
    expired = issue("expired", None, kind, ends=-YEAR)
    return Family(
        root,
        intermediate,
        issue("cluster", root, kind, ca=False),
        issue("cluster", intermediate, kind, ca=False),
        expired,
        issue("cluster", expired, kind, ca=False),
        issue("root", None, kind),
        issue("other", None, kind),
    )


def by_cryptography(authorities: list[Issuer], leaf: x509.Certificate) -> bool:
    """Follow the chain upwards as far as it goes, by the library's own check of each step."""
    for each in authorities:
        try:
            leaf.verify_directly_issued_by(each.certificate)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return each.certificate.issuer == each.certificate.subject or by_cryptography(
            authorities, each.certificate
        )
    return False


@pytest.mark.slow
def test_every_combination_is_judged_as_openssl_and_cryptography_judge_it(
    family: Family, tmp_path: Path
) -> None:
    authorities = (family.root, family.intermediate, family.expired_root, family.namesake, family.other)
    leaves = (family.below_root, family.below_intermediate, family.below_expired, family.other)
    proven = 0
    for leaf, count in itertools.product(leaves, (1, 2)):
        for chosen in itertools.combinations(authorities, count):
            ca = b"".join(each.pem for each in chosen)
            proof = prove_ca(ca, leaf.pem)
            assert proof.proven is by_cryptography(list(chosen), leaf.certificate), (leaf, chosen)
            # openssl takes the first CA of a name where two have it, and no certificate that is its own root
            names = [each.certificate.subject for each in chosen]
            if len(set(names)) == count:
                assert proof.proven is by_openssl(ca, leaf.pem, tmp_path), (leaf, chosen)
            proven += bool(proof.proven)
    assert proven > 10
    backwards = family.root.pem + family.intermediate.pem
    assert prove_ca(backwards, family.below_intermediate.pem).proven is True


def test_what_is_wrong_is_said(family: Family) -> None:
    for ca, said in (
        (family.other, "the certificate of the cluster is issued by CN=root; this is CN=other"),
        (family.namesake, "a CA of the same name with another key: CN=root, sha256:"),
    ):
        error = prove_ca(ca.pem, family.below_root.pem).error
        assert error is not None
        assert error.code.name == "ca-not-of-cluster"
        assert error.saw.startswith(said)
    missing = prove_ca(family.intermediate.pem, family.below_intermediate.pem)
    assert missing.saw == "the issuer of CN=intermediate is missing: CN=root"


def test_an_expired_ca_is_the_right_one(family: Family) -> None:
    assert prove_ca(family.expired_root.pem, family.below_expired.pem).proven is True


@pytest.mark.parametrize("text", [b"", b"-----BEGIN CERTIFICATE-----", b"\xff" * 100])
def test_what_cannot_be_read_proves_nothing(text: bytes, family: Family) -> None:
    for proof in (prove_ca(family.root.pem, text), prove_ca(text, family.below_root.pem)):
        assert (proof.proven, proof.error) == (None, None)
        assert "cannot be read" in proof.saw


def test_certificates_that_issue_each_other_end(family: Family) -> None:
    one = issue("one", Issuer(family.intermediate.certificate, family.intermediate.key), "p256")
    assert prove_ca(one.pem + family.intermediate.pem, one.pem).proven is False
