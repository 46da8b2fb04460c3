"""The rules about customerCA.crt, on certificates that the real openssl made."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Callable

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import MD5, SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from agent.cloudhsm.ca import FoundCertificates, expiry_notice, find_certificates, read_ca, written
from agent.cloudhsm.fingerprint import parse_fingerprint
from agent.cloudhsm.key_strength import PublicKeyKind, judge_keys, key_of
from agent.cloudhsm.paths import LINUX
from agent.cloudhsm.pem import MOST_BYTES, MOST_INPUT, write_pem
from agent.cloudhsm.signatures import is_signed_by
from agent.cloudhsm.x509 import names, read_certificate
from agent.core.errors import AgentError
from agent.steps.certificate import Certificate
from tests.examples import examples
from tests.fakes.authorities import Made, Maker
from tests.fakes.authorities import maker as maker  # noqa: PLC0414 -- pytest takes it from here
from tests.fakes.authorities import root as root  # noqa: PLC0414 -- pytest takes it from here
from tests.fakes.certificates import _knows_traditional, openssl
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from pathlib import Path

    from agent.core.model import Finding

NOW = datetime.now(timezone.utc) + timedelta(hours=1)
QUICK = examples(60, suppress=list(HealthCheck))


# OpenSSL 1.1.1 writes the old form of a key by itself, 3.0 when it is told to
TRADITIONAL = ("-traditional",) if _knows_traditional() else ()


PSS = ("-sigopt", "rsa_padding_mode:pss")


@pytest.fixture(scope="session")
def links(maker: Maker) -> tuple[Made, ...]:
    """A chain of five, root first; the one below the root ends after 30 days."""
    found = [maker.root("link0", "/CN=link 0")]
    for number in range(1, 5):
        days = 30 if number == 1 else 3652
        found.append(maker.below(found[-1], f"link{number}", f"/CN=link {number}", days=days))
    return tuple(found)


@pytest.fixture(scope="session")
def chain(links: tuple[Made, ...]) -> bytes:
    return links[1].pem + links[0].pem


def refusal(data: bytes, *, now: datetime = NOW, fingerprint: str | None = None) -> AgentError:
    with pytest.raises(AgentError) as caught:
        read_ca(data, now=now, fingerprint=fingerprint)
    return caught.value


def words(error: AgentError) -> str:
    return " | ".join((str(error), error.sentence, error.saw, error.want, error.hint))


# One way each in which people's copies of a certificate differ from the file.
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda pem: pem,
    "CRLF": lambda pem: pem.replace(b"\n", b"\r\n"),
    "CR": lambda pem: pem.replace(b"\n", b"\r"),
    "no last newline": lambda pem: pem.rstrip(),
    "UTF-8 mark": lambda pem: b"\xef\xbb\xbf" + pem,
    "UTF-16 LE": lambda pem: b"\xff\xfe" + pem.decode("latin-1").encode("utf-16-le"),
    "UTF-16 BE": lambda pem: b"\xfe\xff" + pem.decode("latin-1").encode("utf-16-be"),
    "UTF-16 without mark": lambda pem: pem.decode("latin-1").encode("utf-16-le"),
    "spaces": lambda pem: pem.replace(b"\n", b" "),
    "one line": lambda pem: pem.replace(b"\n", b""),
    "written-out newlines": lambda pem: pem.replace(b"\n", b"\\n"),
    "written-out CRLF": lambda pem: pem.replace(b"\n", b"\\r\\n"),
    "JSON": lambda pem: json.dumps(pem.decode("latin-1")).encode(),
    "JSON in JSON": lambda pem: json.dumps({"v": json.dumps({"ca": pem.decode("latin-1")})}).encode(),
    "JSON of PHP": lambda pem: json.dumps(pem.decode("latin-1")).replace("/", "\\/").encode(),
    "JSON of Java": lambda pem: json.dumps(pem.decode("latin-1")).replace("=", "\\u003d").encode(),
    "quotes": lambda pem: b"'" + pem.rstrip() + b"'\n",
    "indented": lambda pem: b"".join(b"    " + line + b"\n" for line in pem.splitlines()),
    "tabs and blank lines": lambda pem: b"".join(b"\t" + line + b"  \n\n" for line in pem.splitlines()),
    "all blanks to newlines": lambda pem: pem.replace(b" ", b"\n"),
    "no blanks at all": lambda pem: b"".join(pem.split()),
    "comment": lambda pem: "# die CA von Jürgen; the private key is in the vault\n".encode() + pem,
    "bag attributes": lambda pem: b"Bag Attributes\n    friendlyName: ca\nsubject=CN = ca\n" + pem,
    "twice": lambda pem: pem + b"\n" + pem,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_root_is_read_in_every_form(root: Made, form: str) -> None:
    ca = read_ca(FORMS[form](root.pem), now=NOW)
    assert ca.pem == root.pem
    assert ca.sha256 == root.sha256
    assert ca.count == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_chain_is_read_in_every_form(chain: bytes, links: tuple[Made, ...], form: str) -> None:
    ca = read_ca(FORMS[form](chain), now=NOW)
    assert (ca.pem, ca.count, ca.sha256) == (chain, 2, links[0].sha256)


def test_a_text_dump_and_the_old_label_are_read(root: Made) -> None:
    dump = openssl("x509", "-text", stdin=root.pem)
    assert read_ca(dump, now=NOW).pem == root.pem
    assert read_ca(root.pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE"), now=NOW).pem == root.pem


def test_an_extension_called_private_key_usage_period_is_no_private_key(maker: Maker) -> None:
    made = maker.root("period", "/CN=period", section="period")
    dump = openssl("x509", "-text", stdin=made.pem)
    assert b"Private Key Usage Period" in dump
    assert read_ca(dump, now=NOW).pem == made.pem


def test_what_a_ca_says_of_itself(root: Made) -> None:
    ca = read_ca(root.pem, now=NOW)
    assert ca.subject == ca.issuer == "CN=Example Root,O=Example\\, Inc.,C=US"
    assert ca.not_before.tzinfo is timezone.utc
    assert ca.not_after - ca.not_before == timedelta(days=3652)
    said = openssl("x509", "-noout", "-enddate", "-fingerprint", "-sha256", stdin=root.pem).decode()
    assert parse_fingerprint(said.split("\n")[1]) == ca.sha256
    assert f"{ca.not_after:%H:%M:%S %Y} GMT" in said


def test_a_name_cannot_break_a_line_or_a_terminal(maker: Maker) -> None:
    made = maker.root("names", "/OU=#1/CN= Zoë\x1b[31m\nroot ")
    subject = read_ca(made.pem, now=NOW).subject
    assert subject == "CN=\\ Zoë\\1B[31m\\0Aroot\\ ,OU=\\#1"


def test_of_a_chain_the_root_counts_and_the_narrowest_dates(chain: bytes, links: tuple[Made, ...]) -> None:
    ca = read_ca(chain, now=NOW)
    assert (ca.subject, ca.issuer) == ("CN=link 0", "CN=link 1")
    assert ca.not_after - ca.not_before <= timedelta(days=30)
    assert ca.pem == links[1].pem + links[0].pem
    assert ca.fingerprints == (links[1].sha256, links[0].sha256)


def test_a_chain_in_any_order_is_put_in_the_one_it_must_have(links: tuple[Made, ...]) -> None:
    right = b"".join(made.pem for made in reversed(links[:4]))
    assert read_ca(right, now=NOW).pem == right
    assert read_ca(b"".join(made.pem for made in links[:4]), now=NOW).pem == right
    mixed = links[2].pem + links[0].pem + links[3].pem + links[1].pem
    assert read_ca(mixed, now=NOW).pem == right


# Made by OpenSSL 3.0, `x509 -req -signkey`, valid until 2081; from 3.4 on that command makes version 3 only.
VERSION_1 = b"""\
-----BEGIN CERTIFICATE-----
MIIBITCByQIUaqYHaaOff2HQQJVnXJbwOrmuhtEwCgYIKoZIzj0EAwIwEzERMA8G
A1UEAwwIb2xkIHJvb3QwIBcNMjYxMTI0MDAyMDEyWhgPMjA4MTA4MjcwMDIwMTJa
MBMxETAPBgNVBAMMCG9sZCByb290MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
WCI2ATBD3Vjvt+KpwRokAZ4bk29GVoa/VMj9+eX0Lc3rUtB0A6bKe5+eZD4hSOfx
jvIVq3DoAlhzPMCWPEUrLDAKBggqhkjOPQQDAgNHADBEAiADEI7cHY/spPkd81jq
M311tqV7qI75lXrREhaByu6JnAIgdkLM62CwKiat00RsIxut6DdlX5eM+D5+ugoF
88P7boQ=
-----END CERTIFICATE-----
"""


def test_a_version_1_root_is_a_ca() -> None:
    now = datetime(2030, 1, 1, tzinfo=timezone.utc)
    assert b"Version: 1 (0x0)" in openssl("x509", "-noout", "-text", stdin=VERSION_1)
    assert read_ca(VERSION_1, now=now).pem == VERSION_1


@QUICK
@given(
    form=st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=3),
    of=st.sampled_from(["root", "chain"]),
)
def test_reading_is_idempotent_after_any_mixture_of_damage(
    root: Made, chain: bytes, form: list[str], of: str
) -> None:
    data = {"root": root.pem, "chain": chain}[of]
    damaged = data
    for name in form:
        damaged = FORMS[name](damaged)
    try:
        ca = read_ca(damaged, now=NOW)
    except AgentError as error:
        # some mixtures are too much; they are refused and nothing else
        assert error.code.name in ("ca-damaged", "ca-not-a-certificate")  # noqa: PT017
    else:
        assert ca.pem == data
        assert read_ca(ca.pem, now=NOW) == ca


@QUICK
@given(st.binary(max_size=200) | st.text(alphabet="-BEGIND CRT\\nu0/\n", max_size=300).map(str.encode))
@example(b"PRIVATEKEY")
def test_no_input_makes_anything_but_a_refusal(data: bytes) -> None:
    refused = refusal(data)
    assert refused.code.exit_status == 30
    if refused.code.name == "ca-is-private-key":
        with pytest.raises(AgentError):
            find_certificates(data)
    else:
        assert not find_certificates(data).plain


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        b"-",
        b" ",
        b"\\",
        b"\\u00",
        b"-----BEGIN ",
        b"-----BEGIN A-----",
        b"-----END A-----\n",
        b"BEGIN A A ",
        b"PRIVATE ",
    ],
)
def test_the_cost_of_hostile_input_is_bounded(unit: bytes) -> None:
    """What grows with the square of its input takes minutes here; what is dear is only a long run's heap of objects."""
    started = time.thread_time()
    assert refusal((unit * MOST_INPUT)[: MOST_INPUT - 8]).code.exit_status == 30
    assert not find_certificates(unit * 100_000).plain
    assert time.thread_time() - started < 30


@QUICK
@given(at=st.integers(0, 5000), byte=st.integers(0, 255))
def test_a_changed_byte_never_gives_another_certificate(root: Made, at: int, byte: int) -> None:
    data = bytearray(root.pem)
    data[at % len(data)] = byte
    try:
        ca = read_ca(bytes(data), now=NOW)
    except AgentError as error:
        assert error.code.exit_status == 30  # noqa: PT017
    else:
        # what is signed is as it was; the bits beside it say what they said
        assert ca.fingerprints == (root.sha256,)


@pytest.fixture(scope="session")
def keys(maker: Maker, root: Made) -> dict[str, bytes]:
    sealed = ("-aes256", "-passout", "pass:test")
    ec = maker.root("keys", "/CN=keys").key
    rsa = openssl("rsa", *TRADITIONAL, stdin=root.key)
    return {
        "PKCS#8": root.key,
        "PKCS#1": rsa,
        "SEC 1": openssl("ec", stdin=ec),
        "encrypted PKCS#8": openssl("pkcs8", "-topk8", "-passout", "pass:test", stdin=root.key),
        "encrypted PKCS#1": openssl("rsa", *TRADITIONAL, *sealed, stdin=root.key),
        "EC PKCS#8": ec,
        "cut": root.key[:600],
        "beheaded": root.key[200:],
        "lower case": root.key.replace(b"PRIVATE KEY", b"private key"),
        "text": openssl("pkey", "-noout", "-text", stdin=root.key),
        "PuTTY": b"PuTTY-User-Key-File-3: ssh-rsa\nPrivate-Lines: 8\nAAABAEXAMPLEEXAMPLEEXAMPLE\n",
        "OpenSSH": root.key.replace(b"PRIVATE KEY", b"OPENSSH PRIVATE KEY"),
        "under a certificate's label": root.key.replace(b"PRIVATE KEY", b"CERTIFICATE"),
    }


KINDS = [
    "PKCS#8", "PKCS#1", "SEC 1", "encrypted PKCS#8", "encrypted PKCS#1", "EC PKCS#8", "cut", "beheaded",
    "lower case", "text", "PuTTY", "OpenSSH", "under a certificate's label",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_key_is_refused_in_every_form_and_never_repeated(
    keys: dict[str, bytes], root: Made, kind: str
) -> None:
    key = keys[kind]
    for form, damage in FORMS.items():
        for data in (damage(key), damage(root.pem + key), damage(key + root.pem)):
            error = refusal(data)
            assert error.code.name == "ca-is-private-key", (form, error.sentence)
            said = words(error)
            assert "private key" in said
            text = key.decode()
            assert not [
                at
                for at in range(len(text) - 12)
                if text[at : at + 12] in said and text[at : at + 12].isalnum()
            ]
            assert error.__cause__ is None


@pytest.mark.parametrize(
    "argv",
    [
        ("pkcs8", "-topk8", "-nocrypt", "-outform", "der"),
        ("pkcs8", "-topk8", "-passout", "pass:test", "-outform", "der"),
        ("rsa", *TRADITIONAL, "-outform", "der"),
    ],
)
def test_a_private_key_in_der_is_one_too(root: Made, argv: tuple[str, ...]) -> None:
    assert refusal(openssl(*argv, stdin=root.key)).code.name == "ca-is-private-key"


def test_a_small_private_key_in_der_is_one_too(maker: Maker) -> None:
    key = maker.root("small", "/CN=small").key
    assert refusal(openssl("ec", "-outform", "der", stdin=key)).code.name == "ca-is-private-key"


def test_other_files_are_named_with_the_command_that_converts_them(root: Made, tmp_path: Path) -> None:
    key, crt = tmp_path / "key", tmp_path / "crt"
    key.write_bytes(root.key)
    crt.write_bytes(root.pem)
    der = openssl("x509", "-outform", "der", stdin=root.pem)
    bundle = openssl("pkcs12", "-export", "-in", str(crt), "-inkey", str(key), "-passout", "pass:test")
    seven = ("crl2pkcs7", "-nocrl", "-certfile", str(crt))
    request = openssl("req", "-new", "-key", str(key), "-subj", "/CN=x")
    public = openssl("pkey", "-pubout", stdin=root.key)
    trusted = openssl("x509", "-trustout", "-addtrust", "serverAuth", stdin=root.pem)
    page = b"\n<!DOCTYPE html><html><body>403 Forbidden</body></html>"
    for data, saw, hint in (
        (der, "DER", "openssl x509 -inform der -in FILE -out customerCA.crt"),
        (bundle, "PKCS#12", "openssl pkcs12"),
        (openssl(*seven, "-outform", "der"), "PKCS#7", "openssl pkcs7 -inform der"),
        (openssl(*seven), "PKCS#7", "openssl pkcs7 -print_certs"),
        (request, "a certificate request", "export the issuing CA"),
        (request.replace(b"BEGIN", b"BEGIN NEW").replace(b"END", b"END NEW"), "a certificate request", ""),
        (root.pem + request, "a certificate request", ""),
        (public, "a public key", ""),
        (trusted, "OpenSSL's trust settings", "openssl x509 -in FILE"),
        (page, "an HTML or XML page", "web server"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "an HTML or XML page", ""),
        (base64.b64encode(root.pem), "base64 of a PEM text", "base64 -d"),
        (b"".join(root.pem.splitlines()[1:-1]), "without a BEGIN CERTIFICATE line", ""),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "another kind of PEM block", ""),
        (b"hello", "without a BEGIN CERTIFICATE line", ""),
        (b"PK\x03\x04" + bytes(range(256)), "without a BEGIN CERTIFICATE line", ""),
    ):
        error = refusal(data)
        assert error.code.name == "ca-not-a-certificate", saw
        assert saw in error.saw
        assert hint in error.hint


def test_an_end_entity_certificate_is_refused(maker: Maker, root: Made) -> None:
    for made in (
        maker.below(root, "leaf", "/CN=HSM:x:PARTN:1", section="leaf"),
        maker.root("self", "/CN=self", section="leaf"),
    ):
        error = refusal(made.pem)
        assert (error.code.name, error.saw) == ("ca-not-a-certificate", "an end-entity certificate")
        assert "that signed the cluster's" in error.hint


def test_what_is_no_single_chain_is_refused(maker: Maker, links: tuple[Made, ...], root: Made) -> None:
    for data, saw in (
        (links[1].pem, "an intermediate CA without its root"),
        (links[0].pem + root.pem, "2 root certificates"),
        (links[2].pem + links[0].pem, "certificates that do not form one chain"),
        (b"".join(made.pem for made in links), "5 certificates"),
    ):
        error = refusal(data)
        assert (error.code.name, error.saw) == ("ca-not-a-certificate", saw)
        assert error.hint
    fork = maker.below(links[0], "fork", "/CN=fork")
    assert "do not form one chain" in refusal(links[1].pem + fork.pem + links[0].pem).saw
    assert "cat intermediateCA.crt customerRootCA.crt" in refusal(links[1].pem).hint


@pytest.mark.parametrize("data", [b"", b" \r\n\t", b"\xef\xbb\xbf\n", b"\xff\xfe\r\0\n\0"])
def test_nothing_is_unreadable(data: bytes) -> None:
    error = refusal(data)
    assert (error.code.name, error.saw) == ("ca-unreadable", "nothing")


def test_too_large_is_unreadable(maker: Maker, root: Made) -> None:
    error = refusal(root.pem + b"\n" * MOST_INPUT)
    assert error.code.name == "ca-unreadable"
    assert "not read" in error.sentence
    large = maker.root("large", "/CN=large" + "".join(f"/OU={number:064}" for number in range(180)))
    error = refusal(large.pem)
    assert error.code.name == "ca-unreadable"
    assert error.want == f"at most {MOST_BYTES} bytes"
    # a text dump around it counts for nothing
    assert read_ca(b"#" * 200_000 + b"\n" + root.pem, now=NOW).pem == root.pem


def test_damage_is_named(root: Made, links: tuple[Made, ...]) -> None:
    body = root.pem.splitlines()
    mixed = root.pem.replace(b"END CERTIFICATE", b"END X509 CERTIFICATE")
    tail = base64.b64encode(root.der + b"tail of it")
    two_in_one = base64.b64encode(root.der + links[0].der)
    for data, saw in (
        (root.pem[:-30], "no END line"),
        (root.pem[:400], "no END line"),
        (root.pem[100:], "no BEGIN line"),
        (mixed, "do not match"),
        (root.pem.replace(body[3], body[3][:-1] + b"!"), "no base64"),
        (root.pem.replace(body[3], body[3][:-1]), "no base64"),
        (root.pem.replace(body[3], body[3][:-4]), "not one certificate"),
        (root.pem.replace(body[3] + b"\n", b""), "not one certificate"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "not one certificate"),
        (b"-----BEGIN CERTIFICATE-----" + tail + b"-----END CERTIFICATE-----", "certificate"),
        (b"-----BEGIN CERTIFICATE-----" + two_in_one + b"-----END CERTIFICATE-----", "certificate"),
    ):
        error = refusal(data)
        assert error.code.name == "ca-damaged", saw
        assert saw in error.saw


def test_the_dates_of_every_certificate_count(chain: bytes, links: tuple[Made, ...], root: Made) -> None:
    ca = read_ca(root.pem, now=NOW)
    assert read_ca(root.pem, now=ca.not_after) == ca
    assert read_ca(root.pem, now=ca.not_before) == ca
    late = refusal(root.pem, now=ca.not_after + timedelta(seconds=1))
    assert late.code.name == "ca-expired"
    assert "Example Root" in late.sentence
    assert f"{ca.not_after:%Y-%m-%d}" in late.saw
    assert "this host's clock says" in late.saw
    early = refusal(root.pem, now=datetime(1970, 1, 1, 0, 5, tzinfo=timezone.utc))
    assert early.code.name == "ca-not-yet-valid"
    assert "this host's clock says 1970-01-01 00:05 UTC" in early.saw
    month = refusal(chain, now=NOW + timedelta(days=31))
    assert month.code.name == "ca-expired"
    assert "CN=link 1 " in month.sentence
    assert read_ca(links[0].pem, now=NOW + timedelta(days=31)).count == 1


def test_a_fingerprint_is_compared_with_the_root(root: Made, chain: bytes, links: tuple[Made, ...]) -> None:
    assert read_ca(root.pem, now=NOW, fingerprint=root.sha256).count == 1
    assert read_ca(chain, now=NOW, fingerprint=links[0].sha256).count == 2
    error = refusal(root.pem, fingerprint=links[0].sha256)
    assert error.code.name == "ca-fingerprint-differs"
    assert (error.saw, error.want) == (f"sha256:{root.sha256}", f"sha256:{links[0].sha256}")
    assert "that of its root" in refusal(chain, fingerprint=links[1].sha256).hint
    checksum = hashlib.sha256(FORMS["CRLF"](root.pem)).hexdigest()
    assert "checksum of the file" in refusal(FORMS["CRLF"](root.pem), fingerprint=checksum).hint
    # which CA it is comes before whether it is valid
    late = NOW + timedelta(days=36500)
    assert refusal(root.pem, now=late, fingerprint=links[0].sha256).code.name == "ca-fingerprint-differs"


DIGITS = hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        DIGITS,
        DIGITS.upper(),
        f"  {DIGITS}\n",
        ":".join(DIGITS[at : at + 2] for at in range(0, 64, 2)).upper(),
        " ".join(DIGITS[at : at + 4] for at in range(0, 64, 4)),
        f"SHA256:{DIGITS}",
        f"sha256 Fingerprint={DIGITS}",
        f"SHA256 Fingerprint={':'.join(DIGITS[at : at + 2] for at in range(0, 64, 2))}\n",
        f"SHA-256: {DIGITS}",
    ],
)
def test_a_fingerprint_is_read_as_people_write_it(text: str) -> None:
    assert parse_fingerprint(text) == DIGITS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has 64 hexadecimal digits, this has 0"),
        (DIGITS[:-1], "this has 63"),
        (DIGITS + "0", "this has 65"),
        ("x" * 64, "64 hexadecimal digits"),
        ("SHA256:" + base64.b64encode(bytes(range(32))).decode().rstrip("="), "base64, as ssh prints it"),
        (base64.b64encode(bytes(range(200, 232))).decode(), "base64, as ssh prints it"),
        (DIGITS[:40], "SHA-1"),
        (f"sha1 Fingerprint={DIGITS[:40]}", "SHA-1"),
    ],
)
def test_what_is_no_fingerprint_is_said_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_fingerprint(text)


def test_the_end_of_a_ca_is_told_half_a_year_before(root: Made) -> None:
    ca = read_ca(root.pem, now=NOW)
    assert expiry_notice(ca, ca.not_after - timedelta(days=181)) is None
    notice = expiry_notice(ca, ca.not_after - timedelta(days=179, hours=1))
    assert notice is not None
    assert notice.code == "ca-expires-soon"
    assert f"{ca.not_after:%Y-%m-%d}, in 179 days" in notice.text


def test_what_a_client_reads_in_a_file(root: Made, chain: bytes, links: tuple[Made, ...]) -> None:
    sound = FoundCertificates((root.sha256,), is_complete=True, plain=True)
    for form in ("as it is", "CRLF", "no last newline", "comment", "bag attributes", "twice"):
        assert find_certificates(FORMS[form](root.pem)) == sound, form
    assert find_certificates(root.pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE")) == sound
    assert find_certificates(openssl("x509", "-text", stdin=root.pem)) == sound
    assert find_certificates(b"---- our CA ----\n" + root.pem) == sound
    both = (links[1].sha256, links[0].sha256)
    for data in (chain, links[0].pem + links[1].pem):
        assert find_certificates(data) == FoundCertificates(both, is_complete=True, plain=True)
    # no client can read these, and they are no other CA
    for form in ("spaces", "UTF-16 LE", "written-out newlines", "JSON", "CR", "indented", "quotes"):
        assert find_certificates(FORMS[form](root.pem)) == FoundCertificates(
            (root.sha256,), is_complete=True, plain=False
        ), form


@pytest.mark.parametrize("form", FORMS)
def test_what_is_plain_openssl_reads_too(root: Made, form: str, tmp_path: Path) -> None:
    data = FORMS[form](root.pem)
    if find_certificates(data).plain:
        (tmp_path / "ca").write_bytes(data)
        said = openssl("verify", "-CAfile", str(tmp_path / "ca"), stdin=root.pem)
        assert said.strip() == b"stdin: OK"


def test_all_certificates_of_a_file_are_found_whatever_stands_beside_them(
    maker: Maker, root: Made, chain: bytes, links: tuple[Made, ...]
) -> None:
    def found(data: bytes) -> set[str]:
        return set(find_certificates(data).fingerprints)

    leaf = maker.below(root, "leaf2", "/CN=leaf", section="leaf")
    trusted = openssl("x509", "-trustout", "-addtrust", "serverAuth", stdin=root.pem)
    request = openssl("req", "-new", "-key", str(root.folder / "root.key"), "-subj", "/CN=x")
    assert found(root.pem + links[0].pem) == {root.sha256, links[0].sha256}
    assert found(leaf.pem) == {leaf.sha256}
    assert found(trusted) == found(root.pem + request) == found(root.pem + chain[:300]) == {root.sha256}
    assert found(chain[:300] + b"\n" + root.pem) >= {root.sha256}
    assert found(root.pem + trusted.replace(b"TRUSTED ", b"")) == {root.sha256}
    for data in (trusted, root.pem + request, root.pem + chain[:300]):
        assert not find_certificates(data).is_complete
    assert (
        find_certificates(b"nothing")
        == find_certificates(root.pem[:300])
        == FoundCertificates((), False, False)
    )
    disguised = root.key.replace(b"PRIVATE KEY", b"CERTIFICATE")
    for data in (root.pem + root.key, chain[:300] + root.pem + disguised):
        with pytest.raises(AgentError, match="private key"):
            find_certificates(data)


def test_the_fingerprints_of_a_chain_are_written_with_the_root_first() -> None:
    assert written(["a"]) == "sha256:a"
    assert written(["a", "b", "c"]) == "sha256:c over sha256:b over sha256:a"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [
        ("rsa", ("-newkey", "rsa:2048"), PublicKeyKind("RSA", 2048, "sha256")),
        ("rsa224", ("-newkey", "rsa:3072", "-sha224"), PublicKeyKind("RSA", 3072, "sha224")),
        ("odd", ("-newkey", "rsa:2056", "-sha512"), PublicKeyKind("RSA", 2056, "sha512")),
        ("ec", (), PublicKeyKind("EC", 256, "sha256")),
        (
            "p384",
            ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1", "-sha384"),
            PublicKeyKind("EC", 384, "sha384"),
        ),
        (
            "p521",
            ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp521r1", "-sha512"),
            PublicKeyKind("EC", 521, "sha512"),
        ),
        (
            "k1",
            ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp256k1", "-sha224"),
            PublicKeyKind("EC", 256, "sha224"),
        ),
        (
            "wide",
            ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-sha512"),
            PublicKeyKind("EC", 256, "sha512"),
        ),
        ("pss", ("-newkey", "rsa:2048", *PSS, "-sha384"), PublicKeyKind("RSA", 2048, "sha384")),
        (
            "salt",
            ("-newkey", "rsa:2048", *PSS, "-sigopt", "rsa_pss_saltlen:0"),
            PublicKeyKind("RSA", 2048, "sha256"),
        ),
        (
            "mask",
            ("-newkey", "rsa:2056", *PSS, "-sigopt", "rsa_mgf1_md:sha512"),
            PublicKeyKind("RSA", 2056, "sha256"),
        ),
        ("rsapss", ("-newkey", "rsa-pss"), PublicKeyKind("RSA-PSS", 2048, "sha256")),
    ],
)
def test_a_good_key_is_read_and_its_signature_verified(
    maker: Maker, name: str, kind: tuple[str, ...], key: PublicKeyKind
) -> None:
    made = maker.root(f"good-{name}", "/CN=Public-Key: (1 bit)", *kind)
    ca = read_ca(made.pem, now=NOW)
    assert ca.keys == (key,)
    assert judge_keys(ca.keys) == ()
    # two bits of the signature, and one of the key that is signed: not of its curve's name, where another curve is read
    for at, bit in ((-1, 1), (-40, 4), (len(made.der) // 2, 1)):
        der = bytearray(made.der)
        der[at] ^= bit
        assert refusal(write_pem([bytes(der)])).code.exit_status == 30


@pytest.mark.parametrize(
    ("name", "kind", "saw"),
    [
        ("rsa", ("-newkey", "rsa:1024"), "RSA 1024 bits"),
        ("rsa2047", ("-newkey", "rsa:2047"), "RSA 2047 bits"),
        ("ec", ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"), "EC 224 bits"),
    ],
)
def test_a_weak_key_is_refused_wherever_it_stands(
    maker: Maker, root: Made, name: str, kind: tuple[str, ...], saw: str
) -> None:
    weak = read_ca(maker.root(f"weak-{name}", "/CN=weak", *kind).pem, now=NOW)
    with pytest.raises(AgentError) as caught:
        judge_keys([*read_ca(root.pem, now=NOW).keys, *weak.keys])
    assert caught.value.code.name == "ca-key-weak"
    assert caught.value.saw == saw
    assert "2048" in caught.value.want


def test_a_dsa_key_is_refused(maker: Maker, tmp_path: Path) -> None:
    openssl("dsaparam", "-out", str(tmp_path / "params"), "1024")
    made = maker.root("dsa", "/CN=dsa", "-newkey", f"dsa:{tmp_path / 'params'}")
    with pytest.raises(AgentError) as caught:
        judge_keys(read_ca(made.pem, now=NOW).keys)
    assert caught.value.code.name == "ca-key-weak"
    assert caught.value.saw == "DSA"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("sha1", ("-newkey", "rsa:2048", "-sha1"), "ca-signature-old"),
        ("md5", ("-newkey", "rsa:2048", "-md5"), "ca-signature-old"),
        ("ecsha1", ("-sha1",), "ca-signature-old"),
        ("edwards", ("-newkey", "ed25519"), "ca-key-unlisted"),
    ],
)
def test_old_signatures_and_unlisted_keys_are_remarks(
    maker: Maker, name: str, kind: tuple[str, ...], code: str
) -> None:
    made = maker.root(f"remark-{name}", "/CN=remark", *kind)
    (notice,) = judge_keys(read_ca(made.pem, now=NOW).keys)
    assert notice.code == code


def test_a_key_on_another_curve_is_taken_as_it_is(maker: Maker) -> None:
    kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1")
    ca = read_ca(maker.root("brainpool", "/CN=curve", *kind).pem, now=NOW)
    assert ca.keys == (PublicKeyKind("EC", 256, "sha256"),)


# one certificate that only names its issuer, for each kind of key of that issuer


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [("-newkey", "rsa:2048"), (), ("-newkey", "rsa:2048", *PSS), ("-newkey", "ed25519")]
)
def test_a_strangers_certificate_does_not_ride_along(
    maker: Maker, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    stranger = Maker(tmp_path)
    genuine, copied = (
        maker.root("pinned", "/CN=Pinned Root", *kind),
        stranger.root("copy", "/CN=Pinned Root", *kind),
    )
    forged = stranger.below(copied, "forged", "/CN=Sub")
    for data in (forged.pem + genuine.pem, genuine.pem + forged.pem):
        error = refusal(data, fingerprint=genuine.sha256)
        assert error.code.name == "ca-not-a-certificate"
        assert "CN=Sub" in error.saw
        assert "CN=Pinned Root" in error.saw
        assert refusal(data).saw == error.saw
    # the honest one of the same name passes, where its algorithm is one that CloudHSM takes
    honest = maker.below(genuine, "honest", "/CN=Sub")
    if "ed25519" not in kind:
        assert read_ca(honest.pem + genuine.pem, now=NOW, fingerprint=genuine.sha256).count == 2
    # nor does one below an honest one, nor both together
    deep = stranger.below(forged, "deep", "/CN=Deep")
    for data in (deep.pem + honest.pem + genuine.pem, forged.pem + honest.pem + genuine.pem):
        assert refusal(data, fingerprint=genuine.sha256).code.name == "ca-not-a-certificate"


def test_a_root_that_did_not_sign_itself_is_refused(maker: Maker, root: Made) -> None:
    """A certificate with the root's name and somebody else's signature is an intermediate in disguise."""
    same_name = maker.below(root, "roll", "/C=US/O=Example, Inc./CN=Example Root")
    assert "is not signed by its own key" in refusal(same_name.pem).saw


@given(cut=st.data())
@examples(80, suppress=list(HealthCheck))
def test_cryptography_agrees_on_every_link(maker: Maker, cut: st.DataObject) -> None:
    """Each certificate of a heap, each key of the heap: signed or not, and what they say of themselves."""
    heap = [path.read_bytes() for path in sorted(maker.folder.glob("*.crt")) if b"BEGIN" in path.read_bytes()]
    one = x509.load_pem_x509_certificate(cut.draw(st.sampled_from(heap)))
    other = x509.load_pem_x509_certificate(cut.draw(st.sampled_from(heap)))
    try:
        one.verify_directly_issued_by(other)
        judged = True
    except (InvalidSignature, ValueError):
        judged = False
    except (TypeError, UnsupportedAlgorithm):
        judged = None
    if isinstance(one.signature_hash_algorithm, (SHA1, MD5)):
        judged = None  # refused there by rule, and remarked on here
    mine, issuer = (read_certificate(each.public_bytes(Encoding.DER)) for each in (one, other))
    if judged is not None:
        signed = is_signed_by(mine, issuer.key)
        assert signed is None or (signed and names(mine.issuer, issuer.subject)) == judged
    assert mine.not_after == one.not_valid_after_utc
    assert mine.sha256 == one.fingerprint(SHA256()).hex()


@QUICK
@given(at=st.integers(0, 2000), byte=st.integers(0, 255), cut=st.integers(0, 2000))
def test_bytes_that_are_no_certificate_are_a_value_error_and_nothing_else(
    root: Made, at: int, byte: int, cut: int
) -> None:
    der = bytearray(root.der)
    der[at % len(der)] = byte
    for data in (bytes(der), bytes(der[: cut % len(der)])):
        try:
            certificate = read_certificate(data)
        except ValueError:
            continue
        assert is_signed_by(certificate, certificate.key) in (True, False, None)
        assert key_of(certificate).digest


# A10: nothing that OpenSSL was asked before has a say. The child has the configuration that is named, and complaints
# of OpenSSL in its thread's queue, left there as by a library that does not look.


# what lies on the host beside what is wanted, and whether it may be replaced unasked


def check(there: bytes, wanted: bytes, *, replace: bool = False) -> Finding:
    ca = read_ca(wanted, now=NOW)
    step = Certificate(LINUX, ca.pem, ca.fingerprints, "2036", replace)
    return step.check(Memory({LINUX.ca: there}))


def test_any_difference_in_the_set_of_certificates_wants_to_be_allowed(
    root: Made, chain: bytes, links: tuple[Made, ...]
) -> None:
    for there, wanted in (
        (root.pem, chain),
        (links[0].pem, chain),  # one more than there is
        (chain, links[0].pem),  # one less
        (chain + root.pem, chain),  # a stranger beside it
        (links[0].pem + root.pem, links[0].pem),
        (links[0].pem + root.pem + b"-----BEGIN CERTIFICATE-----\nAAAA\n", links[0].pem),  # and damage
        (FORMS["JSON"](chain), links[0].pem),
        (openssl("x509", "-trustout", "-addtrust", "serverAuth", stdin=root.pem), links[0].pem),
        (links[2].pem + chain, chain),
    ):
        with pytest.raises(AgentError) as caught:
            check(there, wanted)
        assert caught.value.code.name == "ca-would-be-replaced"
        for each in find_certificates(there).fingerprints:
            assert each in caught.value.saw
        for each in read_ca(wanted, now=NOW).fingerprints:
            assert each in caught.value.want
        allowed = check(there, wanted, replace=True)
        assert not allowed.met


def test_what_is_damaged_and_no_other_ca_is_healed_and_the_same_is_left(root: Made, chain: bytes) -> None:
    for there in (
        chain[:-200],
        chain[200:],
        b"hello",
        b"\n",
        FORMS["UTF-16 LE"](chain),
        FORMS["one line"](chain),
    ):
        assert not check(there, chain).met
    for there in (chain, FORMS["CRLF"](chain), FORMS["twice"](chain), FORMS["comment"](chain)):
        assert check(there, chain).met
    found = check(chain, chain)
    assert found.saw == written(read_ca(chain, now=NOW).fingerprints)
