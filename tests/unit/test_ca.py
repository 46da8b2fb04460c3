"""The rules about customerCA.crt, on certificates that the real openssl made."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.cloudhsm.ca import expiry_notice, read_ca, same, sole_fingerprint
from agent.cloudhsm.fingerprint import parse_fingerprint
from agent.cloudhsm.keys import Key, judge_keys, key_strength, surely_strong
from agent.cloudhsm.pem import MOST_BYTES, MOST_INPUT
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(timezone.utc) + timedelta(hours=1)
QUICK = settings(max_examples=60, suppress_health_check=list(HealthCheck))
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


def openssl(*argv: str, stdin: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *argv], input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def _knows_traditional() -> bool:
    said = subprocess.run(["openssl", "rsa", "-help"], capture_output=True, check=False)
    return b"-traditional" in said.stdout + said.stderr


# OpenSSL 1.1.1 writes the old form of a key by itself, 3.0 when it is told to
TRADITIONAL = ("-traditional",) if _knows_traditional() else ()


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


def told(pem: bytes) -> str:
    return openssl("x509", "-noout", "-text", stdin=pem).decode()


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
    assert b"".join(ca.each) == ca.pem
    assert ca.each == (links[1].pem, links[0].pem)


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
def test_no_input_makes_anything_but_a_refusal(data: bytes) -> None:
    assert refusal(data).code.exit_status == 30
    assert not same(data, data)


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
    started = time.monotonic()
    assert refusal((unit * MOST_INPUT)[: MOST_INPUT - 8]).code.exit_status == 30
    assert not same(unit * 10_000, unit * 10_000)
    assert time.monotonic() - started < 2


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
        # a signature is not proven here, so a change inside the certificate shows in its fingerprint alone
        assert read_ca(ca.pem, now=NOW) == ca


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


def test_the_same_certificates_for_a_client(root: Made, chain: bytes, links: tuple[Made, ...]) -> None:
    for form in ("CRLF", "no last newline", "comment", "bag attributes", "twice"):
        assert same(root.pem, FORMS[form](root.pem)), form
        assert same(FORMS[form](root.pem), root.pem), form
    assert same(chain, links[0].pem + links[1].pem)
    # no client can read these, so they are not the same; that they are no other CA is told by the fingerprint
    for form in ("spaces", "UTF-16 LE", "written-out newlines", "JSON"):
        assert not same(root.pem, FORMS[form](root.pem)), form
        assert sole_fingerprint(FORMS[form](root.pem)) == root.sha256
    assert not same(root.pem, chain)
    assert not same(chain, links[0].pem)
    assert not same(b"", b"")
    assert not same(root.pem, root.pem + root.key)


def test_a_fingerprint_stands_for_whatever_certificates_are_there(
    maker: Maker, root: Made, chain: bytes, links: tuple[Made, ...]
) -> None:
    assert sole_fingerprint(chain) == links[0].sha256
    assert sole_fingerprint(root.pem + links[0].pem) == links[0].sha256
    leaf = maker.below(root, "leaf2", "/CN=leaf", section="leaf")
    assert sole_fingerprint(leaf.pem) == leaf.sha256
    assert sole_fingerprint(b"nothing") is None
    assert sole_fingerprint(root.pem[:300]) is None
    with pytest.raises(AgentError, match="private key"):
        sole_fingerprint(root.pem + root.key)


@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [
        ("rsa", ("-newkey", "rsa:2048"), Key("rsaEncryption", 2048, "sha256withrsaencryption")),
        ("ec", (), Key("id-ecPublicKey", 256, "ecdsa-with-sha256")),
        (
            "pss",
            ("-newkey", "rsa:2048", "-sigopt", "rsa_padding_mode:pss", "-sha384"),
            Key("rsaEncryption", 2048, "sha384"),
        ),
        ("rsapss", ("-newkey", "rsa-pss"), Key("rsassaPss", 2048, "sha256")),
    ],
)
def test_a_good_key_is_read_and_taken(maker: Maker, name: str, kind: tuple[str, ...], key: Key) -> None:
    made = maker.root(f"good-{name}", "/CN=Public-Key: (1 bit)", *kind)
    text = told(made.pem)
    assert key_strength(text) == key
    assert judge_keys([text, text]) == ()
    assert surely_strong(made.pem) == (name in ("rsa", "ec"))  # of RSA-PSS openssl is asked


@pytest.mark.parametrize(
    ("name", "kind", "saw"),
    [
        ("rsa", ("-newkey", "rsa:1024"), "RSA 1024 bits"),
        ("ec", ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"), "EC 224 bits"),
    ],
)
def test_a_weak_key_is_refused_wherever_it_stands(
    maker: Maker, root: Made, name: str, kind: tuple[str, ...], saw: str
) -> None:
    weak = maker.root(f"weak-{name}", "/CN=weak", *kind)
    assert read_ca(weak.pem, now=NOW).count == 1
    assert not surely_strong(weak.pem)
    with pytest.raises(AgentError) as caught:
        judge_keys([told(root.pem), told(weak.pem)])
    assert caught.value.code.name == "ca-key-weak"
    assert caught.value.saw == saw
    assert "2048" in caught.value.want


def test_a_dsa_key_is_refused(maker: Maker, tmp_path: Path) -> None:
    openssl("dsaparam", "-out", str(tmp_path / "params"), "1024")
    made = maker.root("dsa", "/CN=dsa", "-newkey", f"dsa:{tmp_path / 'params'}")
    assert not surely_strong(made.pem)
    text = told(made.pem)
    with pytest.raises(AgentError) as caught:
        judge_keys([text])
    assert caught.value.code.name == "ca-key-weak"
    assert caught.value.saw.startswith("DSA")  # OpenSSL 1.1.1 does not print its size this way


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
    assert not surely_strong(made.pem)
    (notice,) = judge_keys([told(made.pem)])
    assert notice.code == code


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1", "secp256k1"])
def test_a_key_on_a_curve_of_cloudhsm_needs_no_openssl(maker: Maker, curve: str) -> None:
    kind = ("-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-sha512")
    assert surely_strong(maker.root(f"curve-{curve}", "/CN=curve", *kind).pem)


@given(at=st.integers(0, 2000), byte=st.integers(0, 255), cut=st.integers(0, 2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_certificate_that_cannot_be_read_is_not_surely_strong(
    root: Made, at: int, byte: int, cut: int
) -> None:
    der = bytearray(base64.b64decode(b"".join(root.pem.splitlines()[1:-1])))
    der[at % len(der)] = byte
    for data in (bytes(der), bytes(der[: cut % len(der)])):
        pem = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(data) + b"\n-----END CERTIFICATE-----\n"
        assert surely_strong(pem) in (True, False)
    assert not surely_strong(pem)


def test_a_key_that_openssl_says_nothing_about_is_a_remark() -> None:
    assert key_strength("") is None
    (notice,) = judge_keys(["", "unable to load certificate"])
    assert notice.code == "ca-key-unchecked"


# What OpenSSL 1.0.2 and 1.1.1 write differs from 3.0: two lines of each.
@pytest.mark.parametrize(
    "line", ["                Public-Key: (1024 bit)", "                RSA Public-Key: (1024 bit)"]
)
def test_the_text_of_older_openssl_is_read(line: str) -> None:
    text = (
        "Certificate:\n    Data:\n    Signature Algorithm: sha1WithRSAEncryption\n        Subject Public Key Info:\n"
        f"            Public Key Algorithm: rsaEncryption\n{line}\n                Modulus:\n"
    )
    assert key_strength(text) == Key("rsaEncryption", 1024, "sha1withrsaencryption")
