"""Host certificates: made by ssh-keygen, shown by a real sshd, and judged beside ssh itself."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import AgentError
from agent.ssh.host_certificate import parse
from tests.examples import examples
from tests.sshd import PROGRAM, Sshd, keygen

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no sshd")

KINDS = ("ed25519", "ecdsa", "rsa")


@pytest.fixture(scope="module")
def server() -> Iterator[Sshd]:
    with Sshd() as running:
        yield running


def certify(server: Sshd, authority: Path, key: Path, *options: str, names: str = "127.0.0.1") -> Path:
    """Sign a host's key, and return the certificate."""
    words = ["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "web-1", *(("-n", names) if names else ())]
    subprocess.run([*words, *options, f"{key}.pub"], check=True, capture_output=True)
    return Path(f"{key}-cert.pub")


def shows(server: Sshd, *certificates: Path) -> None:
    """Start the server again, with these certificates."""
    server.stop()
    server.configure(*(f"HostCertificate {each}" for each in certificates))
    server.start()


def line(marker: str, key: Path, names: str = "*") -> str:
    return f"{marker} {names} {Path(f'{key}.pub').read_text()}"


def ssh_takes(server: Sshd, *lines: str) -> bool:
    """Return whether ssh itself connects with the same configuration."""
    server.config(*lines, "StrictHostKeyChecking yes", "BatchMode yes")
    done = subprocess.run(
        ["ssh", "-F", str(server.folder / "ssh_config"), "box", "true"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode == 0


def connected(server: Sshd, *lines: str) -> AgentError | None:
    try:
        server.connect(*lines).close()
    except AgentError as error:
        return error
    return None


def refusal(server: Sshd, *lines: str) -> AgentError | None:
    """Return why we do not connect, None where we do; ssh must agree."""
    error = connected(server, *lines)
    assert ssh_takes(server, *lines) is (error is None), error
    return error


@pytest.fixture(scope="module")
def authority(server: Sshd) -> Path:
    return keygen(server.folder / "ca")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signer", KINDS)
def test_a_certificate_of_an_authority_proves_a_host(server: Sshd, kind: str, signer: str) -> None:
    own = keygen(server.folder / f"ca_{kind}_{signer}", kind=signer)
    key = keygen(server.folder / f"certified_{kind}_{signer}", kind=kind)
    server.host_keys.append(key)
    try:
        shows(
            server,
            certify(server, own, key, "-t", "rsa-sha2-512") if signer == "rsa" else certify(server, own, key),
        )
        server.known.write_text(line("@cert-authority", own, f"[127.0.0.1]:{server.port}"))
        assert refusal(server, f"HostKeyAlgorithms {ALGORITHM[kind]}-cert-v01@openssh.com") is None
    finally:
        server.host_keys.remove(key)


ALGORITHM = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256", "rsa": "rsa-sha2-512"}

CASES = {
    "its name": ((), "127.0.0.1", None),
    "one of its names": ((), "web-1,127.0.0.1", None),
    "a pattern": ((), "127.*", "it is for 127.*, not for 127.0.0.1"),
    "every name": ((), "", None),
    "another name": ((), "web-1", "it is for web-1, not for 127.0.0.1"),
    "ended": (("-V", "20200101:20210101"), "127.0.0.1", "it was valid until"),
    "not yet": (("-V", "20400101:20410101"), "127.0.0.1", "it is valid from 2040"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_certificate_says_is_judged_as_ssh_judges_it(server: Sshd, authority: Path, case: str) -> None:
    options, names, why = CASES[case]
    shows(server, certify(server, authority, server.host_keys[0], *options, names=names))
    server.known.write_text(line("@cert-authority", authority))
    error = refusal(server)
    assert (error is None) == (why is None), error
    if error is not None and why is not None:
        assert (error.code.name, why in str(error.saw)) == ("host-key-unknown", True), error.saw
        assert "ssh-keygen -s CA" in str(error.hint)


def test_an_alias_is_the_name(server: Sshd, authority: Path) -> None:
    shows(server, certify(server, authority, server.host_keys[0], names="web-7"))
    server.known.write_text(line("@cert-authority", authority, "web-7"))
    assert refusal(server, "HostKeyAlias web-7") is None
    assert refusal(server, "HostKeyAlias web-8") is not None
    assert refusal(server) is not None


def test_an_unknown_authority_proves_nothing_and_the_key_itself_still_counts(
    server: Sshd, authority: Path
) -> None:
    other = keygen(server.folder / "other_ca")
    shows(server, certify(server, authority, server.host_keys[0]))
    server.known.write_text(line("@cert-authority", other))
    error = refusal(server)
    assert error is not None
    assert "is no authority for this host" in str(error.saw)
    own = f"[127.0.0.1]:{server.port} {Path(f'{server.host_keys[0]}.pub').read_text()}"
    server.known.write_text(own + line("@cert-authority", other))
    assert refusal(server) is None


def test_an_authority_of_other_hosts_proves_nothing(server: Sshd, authority: Path) -> None:
    shows(server, certify(server, authority, server.host_keys[0]))
    server.known.write_text(line("@cert-authority", authority, "*.example.com"))
    assert refusal(server) is not None


def test_a_host_without_a_certificate_is_unknown(server: Sshd, authority: Path) -> None:
    shows(server)
    server.known.write_text(line("@cert-authority", authority))
    error = refusal(server)
    assert error is not None
    assert (error.code.name, "has no certificate" in str(error.saw)) == ("host-key-unknown", True)


@pytest.mark.parametrize("what", ["authority", "key"])
def test_what_is_revoked_is_refused_always(server: Sshd, authority: Path, what: str) -> None:
    shows(server, certify(server, authority, server.host_keys[0]))
    revoked = authority if what == "authority" else server.host_keys[0]
    server.known.write_text(line("@cert-authority", authority) + line("@revoked", revoked))
    error = refusal(server)
    assert error is not None
    assert (error.code.name, "revoked" in error.sentence) == ("host-key-changed", True)
    with pytest.raises(AgentError, match="revoked"):
        server.connect(trust_new=True)


def test_a_users_certificate_is_none_of_a_host(server: Sshd, authority: Path) -> None:
    key = server.host_keys[0]
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "x", "-n", "127.0.0.1", f"{key}.pub"],
        check=True, capture_output=True,
    )  # fmt: skip
    read = parse(blob_of(Path(f"{key}-cert.pub")))
    assert read.refusal("127.0.0.1", 2e9) == "it is a user's certificate, not a host's"


def test_the_configuration_may_forbid_a_kind_of_signature(server: Sshd, authority: Path) -> None:
    shows(server, certify(server, authority, server.host_keys[0]))
    server.known.write_text(line("@cert-authority", authority))
    error = refusal(server, "CASignatureAlgorithms rsa-sha2-512")
    assert error is not None
    assert "CASignatureAlgorithms does not have" in str(error.saw)


def blob_of(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])


@pytest.fixture(scope="module")
def certificate(server: Sshd, authority: Path) -> bytes:
    key = keygen(server.folder / "bytes")
    return blob_of(certify(server, authority, key))


def test_no_other_byte_can_be_in_a_certificate(certificate: bytes) -> None:
    read = parse(certificate)
    assert read.refusal("127.0.0.1", 2e9) is None
    for at in range(len(certificate)):
        changed = certificate[:at] + bytes([certificate[at] ^ 1]) + certificate[at + 1 :]
        try:
            other = parse(changed)
        except ValueError:
            continue
        assert other.refusal("127.0.0.1", 2e9) is not None, at


@given(data=st.binary(max_size=600))
@examples(200)
def test_bytes_that_are_no_certificate_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut|understood"):
        parse(data)
