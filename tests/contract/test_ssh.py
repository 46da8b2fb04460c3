"""SSH against a real sshd on 127.0.0.1: what gets in, what does not and why, and that nothing ever hangs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization

from agent.core.errors import AgentError
from agent.core.fleet_model import Target
from agent.ssh.config import SshConfig
from agent.ssh.connection import (
    CancelledError,
    ConnectionLostError,
    SocketCancelToken,
    SshChannel,
    SshConnection,
    SshTimeouts,
    connect,
)
from agent.ssh.identities import IdentityStore
from agent.ssh.known_hosts import KnownHosts
from agent.ssh.login_limit import LoginLimiter
from tests import sshd
from tests.full_server import full_server
from tests.sshd import Sshd, fingerprint, keygen, run
from tests.system.kernel import until
from tests.threads import InThread, assert_cut, nothing_left

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.ssh.config import Hop
    from agent.ssh.identities import Identities

pytestmark = pytest.mark.skipif(sshd.PROGRAM is None, reason="this machine has no sshd")

QUICK = SshTimeouts(banner=0.4, handshake=0.4, login=0.4, channel=0.4)


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def server() -> Iterator[Sshd]:
    with Sshd() as made:
        made.trust()
        yield made


@contextmanager
def fails(code: str, saw: str = "") -> Iterator[None]:
    with pytest.raises(AgentError) as caught:
        yield
    error = caught.value
    assert error.code.name == code, (error.sentence, error.saw)
    assert "{}" not in error.sentence
    assert saw in f"{error.sentence}: {error.saw}: {error.hint}"
    # its values are known here
    assert re.search(r"\b(USER|HOST|NAME|ADDRESS|FILE|PATH)\b", error.hint) is None


# --- commands


def test_a_command_has_input_two_outputs_and_a_status(server: Sshd) -> None:
    with server.connect() as link, link.open_command("echo ready; cat; echo bad >&2; exit 7") as talk:
        assert talk.receive() == b"ready\n"
        talk.send(b"in")
        talk.close_stdin()
        assert b"".join(iter(talk.receive, b"")) == b"in"
        assert (talk.status(), talk.errors()) == (7, b"bad\n")
    assert link.trusted is None


def test_one_connection_serves_many_commands_also_at_once(server: Sshd) -> None:
    with server.connect() as link:
        with link.open_command("cat") as one, link.open_command("cat") as other:
            for talk, word in ((one, b"1"), (other, b"2")):
                talk.send(word)
                talk.close_stdin()
            assert (one.receive(), other.receive()) == (b"1", b"2")
        assert [run(link, "exit 3").status for _ in range(20)] == [3] * 20


def test_death_by_a_signal_has_no_status(server: Sshd) -> None:
    with server.connect() as link, link.open_command("exec sh -c 'kill -9 $$'") as talk:
        assert (talk.receive(), talk.status()) == (b"", None)


def test_8_mb_on_both_outputs_at_once(server: Sshd) -> None:
    script = "head -c 8000000 /dev/zero >&2 & head -c 8000000 /dev/zero; wait; echo end >&2"
    with server.connect() as link, link.open_command(script) as talk:
        talk.close_stdin()
        assert sum(len(piece) for piece in iter(talk.receive, b"")) == 8_000_000
        assert talk.status() == 0
        assert len(talk.errors()) == 64 * 1024
        assert talk.errors().endswith(b"\0end\n")


def test_one_output_first_and_then_the_other(server: Sshd) -> None:
    for first, then in (("", ">&2"), (">&2", "")):
        script = f"head -c 8000000 /dev/zero {first}; head -c 8000000 /dev/zero {then}"
        with server.connect() as link, link.open_command(script) as talk:
            talk.close_stdin()
            assert sum(len(piece) for piece in iter(talk.receive, b"")) == 8_000_000
            assert talk.status() == 0


def test_a_command_may_answer_while_it_is_sent_to(server: Sshd) -> None:
    """A pipe in both directions at once: who only sends, and then only receives, waits for ever."""
    data = os.urandom(1000) * 8000
    with server.connect() as link, link.open_command("tee /dev/stderr") as talk:
        talk.send(data)
        talk.close_stdin()
        assert b"".join(iter(talk.receive, b"")) == data
        assert talk.errors() == data[-64 * 1024 :]


def test_a_command_that_does_not_read_is_no_failure(server: Sshd) -> None:
    with server.connect() as link, link.open_command("exec <&-; echo no; exit 4") as talk:
        talk.send(b"x" * 8_000_000, timeout=20)
        talk.close_stdin()
        assert (talk.receive(), talk.status()) == (b"no\n", 4)


def test_a_command_that_never_reads_is_not_sent_to_for_ever(server: Sshd) -> None:
    with server.connect() as link, link.open_command("sleep 20") as talk:
        with fails("ssh-timed-out", "does not read its input"):
            talk.send(b"x" * 8_000_000, timeout=0.3)
        with fails("ssh-timed-out", "says nothing"):
            talk.receive(timeout=0.2)
        with fails("ssh-timed-out", "does not end"):
            talk.status(timeout=0.2)


def test_a_login_shell_that_prints_is_the_commands_own_affair(server: Sshd) -> None:
    server.stop()
    banner = server.folder / "banner"
    banner.write_text("Authorised users only\n")
    server.configure(f"Banner {banner}")
    server.start()
    with server.connect() as link:
        assert run(link, "echo ready").out == b"ready\n"


def test_max_sessions_1(server: Sshd) -> None:
    server.stop()
    server.configure("MaxSessions 1")
    server.start()
    with server.connect() as link:
        with link.open_command("cat"), fails("ssh-failed", "MaxSessions"):
            link.open_command("true")
        assert run(link, "exit 3").status == 3


def test_a_session_that_is_refused_is_told_in_the_servers_words(server: Sshd) -> None:
    server.stop()
    server.configure("MaxSessions 0")
    server.start()
    with server.connect() as link, pytest.raises(AgentError) as caught:
        link.open_command("true")
    assert (caught.value.code.name, caught.value.saw) == ("ssh-failed", "open failed")


# --- who gets in


def test_the_wrong_user_and_the_wrong_key(server: Sshd) -> None:
    with fails("login-refused", "nosuchuser with"):
        server.connect("User nosuchuser")
    with fails("login-refused", f"`ssh -v nosuchuser@box -p {server.port}`"):
        server.connect("User nosuchuser")
    server.authorize()
    with fails("login-refused", str(server.key)):
        server.connect()


def test_a_key_that_is_not_there_or_damaged_or_open_to_all(server: Sshd) -> None:
    key = server.folder / "other"
    server.config()
    for prepare, saw in (
        (lambda: None, "no such file"),
        (
            lambda: key.write_text(
                "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n"
            ),
            "damaged",
        ),
        (lambda: key.write_text("words"), "not a private key"),
    ):
        prepare()
        if key.exists():
            key.chmod(0o600)
        with fails("key-unusable", saw):
            connect_with_only(server, key)
    key.unlink()
    keygen(key).chmod(0o644)
    with fails("key-unusable", "chmod 600"):
        connect_with_only(server, key)


def connect_with_only(server: Sshd, key: Path | str, *lines: str) -> SshConnection:
    """Connect with one key and no other."""
    config = server.config(*lines)
    path = server.folder / "ssh_config"
    path.write_text(path.read_text().replace(f"IdentityFile {server.key}", f"IdentityFile {key}"))
    config = SshConfig.read(path)
    return enter(config)


def enter(
    config: SshConfig, gate: LoginLimiter | None = None, known: KnownHosts | None = None
) -> SshConnection:
    return connect(
        config.route(Target("box", "box")),
        known=known or KnownHosts(),
        identity_store=IdentityStore(),
        trust_new=False,
        cancel_token=SocketCancelToken(),
        login_limiter=gate or LoginLimiter(),
    )


def test_a_key_with_a_passphrase_is_unusable_without_an_agent(server: Sshd) -> None:
    locked = keygen(server.folder / "locked", passphrase="secret")
    server.authorize(server.key, locked)
    with fails("key-unusable", "passphrase"):
        connect_with_only(server, locked)
    with server.connect(f"IdentityFile {locked}") as link:  # another key gets in
        assert run(link, "exit 3").status == 3
    with agent(server.folder) as path:
        subprocess.run(
            ["ssh-add", str(locked)],
            env={
                **os.environ,
                "SSH_AUTH_SOCK": path,
                "SSH_ASKPASS": str(askpass(server.folder)),
                "SSH_ASKPASS_REQUIRE": "force",
            },
            check=True,
            capture_output=True,
        )
        server.authorize(locked)
        with server.connect(f"IdentityAgent {path}", f"IdentityFile {locked}", "IdentitiesOnly yes") as link:
            assert run(link, "exit 3").status == 3


def askpass(folder: Path) -> Path:
    path = folder / "askpass"
    path.write_text("#!/bin/sh\necho secret\n")
    path.chmod(0o700)
    return path


@contextmanager
def agent(folder: Path) -> Iterator[str]:
    path = folder / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield str(path)
        finally:
            child.terminate()


def add_to(agent_path: str, *keys: Path) -> None:
    subprocess.run(
        ["ssh-add", "-q", *map(str, keys)], env={**os.environ, "SSH_AUTH_SOCK": agent_path}, check=True
    )


def test_an_agent_with_many_keys_needs_identities_only(server: Sshd) -> None:
    """sshd counts every key (MaxAuthTries 6): the right one must not come after others."""
    with agent(server.folder) as path:
        others = [keygen(server.folder / f"other-{number}") for number in range(7)]
        add_to(path, *others, server.key)
        key = server.key.with_name("user")
        key.unlink()  # the agent holds it; its public half stays
        with server.connect(f"IdentityAgent {path}", "IdentitiesOnly yes") as link:
            assert run(link, "exit 3").status == 3
        with server.connect(f"IdentityAgent {path}") as link:  # named keys come first
            assert run(link, "exit 3").status == 3
        with fails("login-refused", "Too many authentication failures"):
            connect_with_only(server, "none", f"IdentityAgent {path}")
    with fails("key-unusable", "no agent"):  # SSH_AUTH_SOCK outlived its agent
        server.connect(f"IdentityAgent {path}", "IdentitiesOnly yes")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_every_type_of_key_gets_in_also_through_an_agent(server: Sshd, kind: str) -> None:
    key = keygen(server.folder / "typed", kind=kind)
    server.authorize(key)
    with connect_with_only(server, key) as link:
        assert run(link, "exit 3").status == 3
    with agent(server.folder) as path:
        add_to(path, key)
        key.unlink()
        with server.connect(f"IdentityAgent {path}", f"IdentityFile {key}.pub") as link:
            assert run(link, "exit 3").status == 3


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("form", ["PKCS8", "TraditionalOpenSSL"])
def test_a_key_that_openssl_wrote_gets_in(server: Sshd, kind: str, form: str) -> None:
    if (kind, form) == ("ed25519", "TraditionalOpenSSL"):
        form = "PKCS8"  # there is no older form of it
    key = keygen(server.folder / "typed", kind=kind)
    server.authorize(key)
    private = serialization.load_ssh_private_key(key.read_bytes(), None)
    plain, locked = (
        private.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), how)
        for how in (serialization.NoEncryption(), serialization.BestAvailableEncryption(b"secret"))
    )
    key.write_bytes(plain)
    with connect_with_only(server, key) as link:
        assert run(link, "exit 3").status == 3
    key.write_bytes(locked)
    with fails("key-unusable", "it has a passphrase"):
        connect_with_only(server, key)
    key.write_bytes(plain[:60] + b"####" + plain[64:])
    with fails("key-unusable", "damaged"):
        connect_with_only(server, key)


def test_an_agent_that_is_gone_is_named(server: Sshd) -> None:
    gone = server.folder / "gone"
    with fails("key-unusable", f"the agent {gone} does not answer"):
        connect_with_only(server, "none", f"IdentityAgent {gone}")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_client_certificate_gets_in(server: Sshd, kind: str) -> None:
    authority, key = keygen(server.folder / "authority"), keygen(server.folder / "certified", kind=kind)
    server.stop()
    server.configure(f"TrustedUserCAKeys {authority}.pub")
    server.start()
    server.authorize()
    with fails("login-refused"):
        connect_with_only(server, key)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", user, f"{key}.pub"], check=True
    )
    with connect_with_only(server, key) as link:  # found beside the key
        assert run(link, "exit 3").status == 3
    certificate = Path(f"{key}-cert.pub").rename(server.folder / "elsewhere.pub")
    with server.connect(f"CertificateFile {certificate}", f"IdentityFile {key}") as link:
        assert run(link, "exit 3").status == 3
    with agent(server.folder) as path:  # the agent holds the key, the certificate is a file
        add_to(path, key)
        key.unlink()
        with server.connect(
            f"IdentityAgent {path}", f"CertificateFile {certificate}", f"IdentityFile {key}.pub"
        ) as link:
            assert run(link, "exit 3").status == 3


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_an_agent_that_holds_key_and_certificate_gets_in_with_either(server: Sshd, kind: str) -> None:
    """As those of step-ca, Vault and Teleport do: no file is there."""
    authority, key = keygen(server.folder / "authority"), keygen(server.folder / "certified", kind=kind)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", "-n", user, f"{key}.pub"], check=True
    )
    with agent(server.folder) as path:
        add_to(path, key)
        Path(f"{key}-cert.pub").unlink()
        key.unlink()
        server.authorize(key)
        with connect_with_only(server, "none", f"IdentityAgent {path}") as link:  # the bare key
            assert run(link, "exit 3").status == 3
        with connect_with_only(server, f"{key}.pub", f"IdentityAgent {path}", "IdentitiesOnly yes") as link:
            assert run(link, "exit 3").status == 3
        server.authorize()
        server.stop()
        server.configure(f"TrustedUserCAKeys {authority}.pub")
        server.start()
        with connect_with_only(server, "none", f"IdentityAgent {path}") as link:
            assert run(link, "exit 3").status == 3


def test_a_server_that_takes_no_keys_is_told(server: Sshd) -> None:
    server.stop()
    server.configure(
        "PubkeyAuthentication no", "KbdInteractiveAuthentication yes", "PasswordAuthentication yes"
    )
    server.start()
    with fails("login-refused", "password"):
        server.connect()


def test_a_server_that_wants_more_than_a_key_is_told_and_two_keys_are_given(server: Sshd) -> None:
    server.stop()
    server.configure("AuthenticationMethods publickey,password", "PasswordAuthentication yes")
    server.start()
    with fails("login-refused", "it also wants password"):
        server.connect()
    server.stop()
    server.configure("AuthenticationMethods publickey,publickey")
    server.start()
    other = keygen(server.folder / "other")
    server.authorize(server.key, other)
    with server.connect(f"IdentityFile {other}") as link:
        assert run(link, "exit 3").status == 3


@contextmanager
def agent_that_does_not_sign(
    real: str, *, answer: bytes | None = None, lists: bool = True
) -> Iterator[tuple[str, threading.Event]]:
    """A stand-in: lists what a real agent holds, and is asked to sign; or is silent from the start."""
    path, asked = f"{real}-lazy", threading.Event()
    with closing(socket.socket(socket.AF_UNIX)) as listener, ExitStack() as kept:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            kept.enter_context(connection)
            connection.settimeout(10)
            request = connection.recv(4096)
            if not lists:
                asked.set()
                return
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(real)
                other.sendall(request)
                connection.sendall(other.recv(65536))
            connection.recv(4096)
            if answer is not None:
                connection.sendall(answer)
            asked.set()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path, asked
        finally:
            thread.join(15)


def test_an_agent_that_does_not_sign_is_told_and_can_be_cut(server: Sshd) -> None:
    with agent(server.folder) as path:
        add_to(path, server.key)
        server.key.unlink()
        failure = b"\0\0\0\1\5"
        with agent_that_does_not_sign(path, answer=failure) as (lazy, _), fails("key-unusable", "ssh-add -T"):
            server.connect(f"IdentityAgent {lazy}")
        Path(lazy).unlink()
        with agent_that_does_not_sign(path) as (lazy, _), fails("key-unusable", "could not be signed"):
            server.connect(f"IdentityAgent {lazy}", identity_store=IdentityStore(0.3))
        Path(lazy).unlink()
        for lists in (True, False):
            cancel_token = SocketCancelToken()
            with agent_that_does_not_sign(path, lists=lists) as (lazy, asked):
                waiting = InThread(
                    partial(server.connect, f"IdentityAgent {lazy}", cancel_token=cancel_token)
                )
                assert asked.wait(10)
                assert_cut(cancel_token, waiting)
            Path(lazy).unlink()
        with (
            agent_that_does_not_sign(path, lists=False) as (lazy, _),
            fails("key-unusable", "no agent holds it"),
        ):
            server.connect(f"IdentityAgent {lazy}", identity_store=IdentityStore(0.3))


# --- whom we trust


def test_an_unknown_key_is_a_failure_with_its_fingerprint(server: Sshd) -> None:
    server.known.write_text("")
    with fails("host-key-unknown", fingerprint(server.host_keys[0])):
        server.connect()
    assert server.known.read_text() == ""


def test_a_changed_key_is_a_failure_with_both_fingerprints_also_when_new_ones_are_trusted(
    server: Sshd,
) -> None:
    other = keygen(server.folder / "host_other")
    server.known.write_text(f"[127.0.0.1]:{server.port} {Path(f'{other}.pub').read_text()}")
    for trust_new in (False, True):
        with pytest.raises(AgentError) as caught:
            server.connect(trust_new=trust_new)
        error = caught.value
        assert error.code.name == "host-key-changed"
        assert fingerprint(server.host_keys[0]) in error.saw
        assert fingerprint(other) in error.want
        assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in error.hint


def test_a_revoked_key_is_refused_always(server: Sshd) -> None:
    server.known.write_text(
        f"{server.known.read_text()}@revoked * {Path(f'{server.host_keys[0]}.pub').read_text()}"
    )
    for trust_new in (False, True):
        with fails("host-key-changed", "revoked"):
            server.connect(trust_new=trust_new)


def test_a_host_without_a_certificate_is_told_which_authority_wants_one(server: Sshd) -> None:
    server.known.write_text(f"@cert-authority * {Path(f'{server.host_keys[0]}.pub').read_text()}")
    with fails("host-key-unknown", f"`@cert-authority` in {server.known}:1 wants a certificate"):
        server.connect()


def test_a_host_key_that_is_shorter_than_ssh_would_take_is_refused() -> None:
    with Sshd(kinds=("rsa",)) as server:
        server.trust("rsa")
        server.connect("RequiredRSASize 1024").close()
        with fails("ssh-failed", "RSA with "):
            server.connect("RequiredRSASize 16000")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_host_known_by_one_key_is_asked_for_that_one(kind: str) -> None:
    with Sshd(kinds=("ed25519", "ecdsa", "rsa")) as server:
        server.trust(kind)
        with server.connect() as link:
            assert run(link, "exit 3").status == 3


def test_a_hashed_file_and_an_alias(server: Sshd) -> None:
    subprocess.run(["ssh-keygen", "-H", "-f", str(server.known)], check=True, capture_output=True)
    server.connect().close()
    server.known.write_text(f"its-name {Path(f'{server.host_keys[0]}.pub').read_text()}")
    server.connect("HostKeyAlias its-name").close()
    with fails("host-key-unknown", "other-name"):
        server.connect("HostKeyAlias other-name")


OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx6ZP4pKiWv8p1P4B4p2Kd0lKpWcR1yq2m7K7ct0nTz"
KNOWN_HOSTS = {
    "of the bare name": "{host} {key}\n",
    "another of the bare name": "{host} {other}\n",
    "another of this port": "{place} {other}\n{host} {key}\n",
    "another of this port, behind": "{host} {key}\n{place} {other}\n",
    "another of every port": "[{host}]:* {other}\n{host} {key}\n",
    "one of two of this port": "{place} {other}\n{place} {key}\n",
    "a type of the bare name": "{host} {ecdsa}\n{place} {key}\n",
    "revoked": "{place} {key}\n@revoked * {key}\n",
    "behind a form feed": "{place} {other} me\x0c{place} {key}\n",
    "behind Unicode's end of a line": "# me\u2028{place} {key}\n",
    "behind a carriage return": "# me\r{place} {key}\n",
    "behind a blank that is none": "{place}\u00a0{key}\n",
    "with the line ends of Windows": "# me\r\n{place} {key}\r\n",
    "with tabs": " \t{place}\t{key}\t me\n",
}


@pytest.mark.parametrize("case", KNOWN_HOSTS)
def test_a_key_is_known_when_it_is_to_ssh(case: str) -> None:
    with Sshd(kinds=("ed25519", "ecdsa")) as server:
        key, ecdsa = (
            " ".join((server.folder / f"host_{kind}.pub").read_text().split()[:2])
            for kind in ("ed25519", "ecdsa")
        )
        text = KNOWN_HOSTS[case].format(
            host="127.0.0.1", place=f"[127.0.0.1]:{server.port}", key=key, ecdsa=ecdsa, other=OTHER
        )
        server.known.write_bytes(text.encode())
        config = server.config("StrictHostKeyChecking yes", "BatchMode yes", "UpdateHostKeys no")
        asked = subprocess.run(
            ["ssh", "-T", "-F", str(server.folder / "ssh_config"), "box", "true"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=20,
        )  # fmt: skip
        try:
            enter(config).close()
            known = True
        except AgentError as error:
            assert error.code.name in ("host-key-unknown", "host-key-changed")  # noqa: PT017 -- it may be known
            known = False
    assert known == (asked.returncode == 0)


def test_a_new_key_is_trusted_once_by_many_threads(server: Sshd) -> None:
    server.known.unlink()
    known, gate, told = KnownHosts(), LoginLimiter(), []
    route = server.config().route(Target("box", "box"))

    def enter() -> None:
        with connect(
            route,
            known=known,
            identity_store=IdentityStore(),
            trust_new=True,
            cancel_token=SocketCancelToken(),
            login_limiter=gate,
        ) as link:
            told.append(link.trusted)

    for each in [InThread(enter) for _ in range(8)]:
        assert each.ended() is None
    assert (
        sorted(told, key=str) == [fingerprint(server.host_keys[0])] * 1 + [None] * 7 or told.count(None) == 7
    )
    assert len(server.known.read_text().splitlines()) == 1
    assert server.known.stat().st_mode & 0o777 == 0o600
    server.connect().close()


def test_a_new_key_says_whose_it_is(server: Sshd) -> None:
    """Two hops, of which both are new: the target's own has no name, since the record is the target's."""
    server.config("ProxyJump hop", "HostKeyAlias target")
    path = server.folder / "ssh_config"
    hop = path.read_text().replace("Host box", "Host hop").replace("ProxyJump hop", "ProxyJump none")
    path.write_text(
        path.read_text() + hop.replace("alias target", "alias hop").replace("Alias target", "Alias hop")
    )
    route = SshConfig.read(path).route(Target("box", "box"))
    with connect(
        route,
        known=KnownHosts(),
        identity_store=IdentityStore(),
        trust_new=True,
        cancel_token=SocketCancelToken(),
        login_limiter=LoginLimiter(),
    ) as link:
        own = fingerprint(server.host_keys[0])
        assert link.trusted == f"{own} of the jump host hop (127.0.0.1) port {server.port}, {own}"


def test_a_known_hosts_file_that_cannot_be_written(server: Sshd) -> None:
    server.known.unlink()
    (server.folder / "in-the-way").write_text("")
    with fails("write-failed", "in-the-way"):
        server.connect(f"UserKnownHostsFile {server.folder}/in-the-way/known", trust_new=True)


# --- what is in the way


def test_a_name_that_does_not_resolve(server: Sshd) -> None:
    with fails("host-name-unknown", "no-such-host.invalid"):
        server.connect("HostName no-such-host.invalid")


def test_a_port_where_nothing_listens(server: Sshd) -> None:
    server.stop()
    with fails("ssh-refused", f"port {server.port}"):
        server.connect()
    server.start()


@contextmanager
def stand_in(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A listener that does `answer` with every connection, and keeps it open until the test ends."""
    with closing(socket.socket()) as listener, ExitStack() as kept:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                kept.enter_context(connection)
                connection.settimeout(10)
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def silent(_: socket.socket) -> None:
    pass


def only_a_banner(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def another_language(connection: socket.socket) -> None:
    connection.recv(100)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.shutdown(socket.SHUT_RDWR)


def too_many(connection: socket.socket) -> None:
    connection.sendall(b"Exceeded MaxStartups\r\n")
    connection.shutdown(socket.SHUT_RDWR)


def nonsense(connection: socket.socket) -> None:
    """A packet that no key exchange begins with."""
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" + bytes((0, 0, 0, 12, 10, 99)) + bytes(10))


def huge(connection: socket.socket) -> None:
    """A packet of 2 GB."""
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\x7f\xff\xff\xfc" + bytes(10000))


def endless(connection: socket.socket) -> None:
    connection.settimeout(2)
    try:
        while True:
            connection.sendall(b"x" * 1000)
    except OSError:
        return


def test_what_is_slow_is_told_for_every_stage(server: Sshd) -> None:
    with stand_in(silent) as port, fails("ssh-timed-out", "did not say who it is"):
        server.connect(f"Port {port}", patience=QUICK)
    with stand_in(only_a_banner) as port, fails("ssh-timed-out", "does not go on with the key exchange"):
        server.connect(f"Port {port}", patience=QUICK)
    with fails("ssh-timed-out", "does not answer the login"):
        server.connect(identity_store=Stopping(server), patience=SshTimeouts(login=0.4))
    server.signal(signal.SIGCONT)
    with server.connect(patience=SshTimeouts(channel=0.4)) as link:
        server.signal(signal.SIGSTOP)
        with fails("ssh-timed-out", "does not open a session"):
            link.open_command("true")
    server.signal(signal.SIGCONT)
    with full_server() as port, fails("ssh-timed-out", "no answer within 1 s"):
        server.connect(f"Port {port}", "ConnectTimeout 1")


def test_what_is_no_ssh_server_is_told(server: Sshd) -> None:
    with stand_in(nonsense) as port, fails("ssh-failed", "the key exchange with"):
        server.connect(f"Port {port}")
    with stand_in(huge) as port, fails("ssh-failed", "a packet of"):
        server.connect(f"Port {port}")
    with stand_in(endless) as port, fails("ssh-timed-out"):
        server.connect(f"Port {port}", patience=QUICK)


@pytest.mark.parametrize(
    ("answer", "saw"), [(too_many, "Exceeded MaxStartups"), (another_language, "HTTP/1.1 400")]
)
def test_a_server_that_drops_is_tried_again_and_told(
    server: Sshd, answer: Callable[[socket.socket], None], saw: str
) -> None:
    cancel_token = Impatient()
    with stand_in(answer) as port, fails("ssh-failed", saw):
        server.connect(f"Port {port}", cancel_token=cancel_token)
    assert len(cancel_token.waits) == 5
    assert all(0.3 <= wait / 2**number <= 0.8 for number, wait in enumerate(cancel_token.waits))


class Impatient(SocketCancelToken):
    """Counts the waits and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_max_startups_1_lets_all_of_them_in_one_after_the_other(server: Sshd) -> None:
    server.stop()
    server.configure("MaxStartups 1")
    server.start()
    route = server.config().route(Target("box", "box"))
    known, identity_store, gate, ended = KnownHosts(), IdentityStore(), LoginLimiter(1), []

    def enter() -> None:
        with connect(
            route,
            known=known,
            identity_store=identity_store,
            trust_new=False,
            cancel_token=SocketCancelToken(),
            login_limiter=gate,
        ) as link:
            ended.append(run(link, "exit 3").status)

    for each in [InThread(enter) for _ in range(8)]:
        assert each.ended(40) is None
    assert ended == [3] * 8


def test_no_shared_algorithm_is_told(server: Sshd) -> None:
    server.stop()
    server.configure("Ciphers chacha20-poly1305@openssh.com")
    server.start()
    with fails("ssh-failed", "no algorithm"):
        server.connect()


def test_paramiko_prints_nothing(server: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
    with stand_in(nonsense) as port, fails("ssh-failed"):
        server.connect(f"Port {port}")
    server.connect().close()
    assert capfd.readouterr() == ("", "")


# --- the proxy command


def test_a_proxy_command_carries_the_connection_and_ends_with_it(server: Sshd) -> None:
    relay = server.folder / "relay.py"
    relay.write_text(RELAY)
    pid = server.folder / "pid-of-relay"
    with server.connect(f"ProxyCommand python3 {relay} %h %p {pid}") as link:
        assert run(link, "exit 3").status == 3
        assert Path(f"/proc/{pid.read_text()}").exists()
    assert not Path(f"/proc/{pid.read_text()}").exists()


RELAY = """
import os, select, socket, sys
open(sys.argv[3], "w").write(str(os.getpid()))
other = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    ready = select.select([0, other], [], [])[0]
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            break
        other.sendall(data)
    if other in ready:
        data = other.recv(65536)
        if not data:
            break
        os.write(1, data)
"""


def test_a_proxy_command_that_fails_is_told_in_its_words(server: Sshd) -> None:
    with fails("ssh-failed", "no instance i-0"):
        server.connect("ProxyCommand sh -c 'echo no instance i-0 >&2; exit 1'", cancel_token=Impatient())
    with fails("ssh-failed", "/no/such/program"):
        server.connect("ProxyCommand /no/such/program %h", cancel_token=Impatient())


def test_a_proxy_command_that_hangs_and_ignores_every_signal_it_can(server: Sshd) -> None:
    with fails("ssh-timed-out", "did not say who it is"):
        server.connect("ProxyCommand sh -c 'trap \"\" TERM HUP; sleep 30; sleep 30'", patience=QUICK)


# --- the watchdog


class Stopping(IdentityStore):
    """Stops the server between key exchange and login."""

    def __init__(self, server: Sshd) -> None:
        super().__init__()
        self._server = server
        self.asked = threading.Event()

    @contextmanager
    def offers(self, hop: Hop, cancel_token: SocketCancelToken) -> Iterator[Identities]:
        self._server.signal(signal.SIGSTOP)
        self.asked.set()
        with super().offers(hop, cancel_token) as found:
            yield found


def test_a_cut_ends_a_connect(server: Sshd) -> None:
    cancel_token = Telling()
    with full_server() as port:
        waiting = InThread(lambda: server.connect(f"Port {port}", cancel_token=cancel_token))
        assert cancel_token.held.wait(10)
        until(lambda: syn_sent(port), "the connect to be under way")
        assert_cut(cancel_token, waiting)


class Telling(SocketCancelToken):
    def __init__(self) -> None:
        super().__init__()
        self.held = threading.Event()

    def on_cancel(self, act: Callable[[], None]) -> object:
        token = super().on_cancel(act)
        self.held.set()
        return token


def syn_sent(port: int) -> bool:
    """Whether a connect to this port has had no answer for long enough to be waited for (state 02)."""
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[3] == "02" for row in rows) > 1


@pytest.mark.parametrize("answer", [silent, only_a_banner], ids=["banner", "key exchange"])
def test_a_cut_ends_the_greeting(server: Sshd, answer: Callable[[socket.socket], None]) -> None:
    cancel_token, came = SocketCancelToken(), threading.Event()

    def answer_and_tell(connection: socket.socket) -> None:
        answer(connection)
        came.set()

    with stand_in(answer_and_tell) as port:
        waiting = InThread(lambda: server.connect(f"Port {port}", cancel_token=cancel_token))
        assert came.wait(10)
        assert_cut(cancel_token, waiting)


def test_a_cut_ends_a_login(server: Sshd) -> None:
    cancel_token, identity_store = SocketCancelToken(), Stopping(server)
    waiting = InThread(lambda: server.connect(cancel_token=cancel_token, identity_store=identity_store))
    assert identity_store.asked.wait(10)
    assert_cut(cancel_token, waiting)


def test_a_cut_ends_the_wait_for_a_session(server: Sshd) -> None:
    cancel_token = SocketCancelToken()
    with server.connect(cancel_token=cancel_token) as link:
        server.signal(signal.SIGSTOP)
        assert_cut(cancel_token, InThread(lambda: link.open_command("true")))


def test_a_cut_ends_a_command_in_the_middle_of_its_output(server: Sshd) -> None:
    cancel_token, heard = SocketCancelToken(), threading.Event()

    def listen() -> None:
        with server.connect(cancel_token=cancel_token) as link, link.open_command("yes") as talk:
            while True:
                talk.receive()
                heard.set()

    waiting = InThread(listen)
    assert heard.wait(10)
    server.signal(signal.SIGSTOP)
    assert_cut(cancel_token, waiting)


def test_a_cut_ends_a_silent_command_and_one_that_is_sent_to(server: Sshd) -> None:
    acts: tuple[Callable[[SshChannel], object], ...] = (
        lambda talk: talk.receive(),
        lambda talk: talk.status(timeout=60),
        lambda talk: talk.send(b"x" * 100_000_000),
    )
    for act in acts:
        cancel_token = SocketCancelToken()
        with server.connect(cancel_token=cancel_token) as link, link.open_command("sleep 60") as talk:
            assert_cut(cancel_token, InThread(lambda talk=talk, act=act: act(talk)))  # type: ignore[misc]


def test_a_cut_ends_the_wait_at_the_gate_and_between_two_attempts(server: Sshd) -> None:
    gate, cancel_token = LoginLimiter(1), SocketCancelToken()
    with gate.slot((("127.0.0.1", server.port),), SocketCancelToken()):
        waiting = InThread(lambda: server.connect(gate=gate, cancel_token=cancel_token))
        assert_cut(cancel_token, waiting)
    cancel_token, came = SocketCancelToken(), threading.Event()

    def answer(connection: socket.socket) -> None:
        too_many(connection)
        came.set()

    with stand_in(answer) as port:
        waiting = InThread(lambda: server.connect(f"Port {port}", cancel_token=cancel_token))
        assert came.wait(10)
        assert_cut(cancel_token, waiting)


def test_a_cut_ends_a_proxy_command(server: Sshd) -> None:
    cancel_token, begun = SocketCancelToken(), server.folder / "begun"
    os.mkfifo(begun)
    line = f"ProxyCommand sh -c 'echo >{begun}; exec sleep 60'"
    waiting = InThread(lambda: server.connect(line, cancel_token=cancel_token))
    begun.read_bytes()
    assert_cut(cancel_token, waiting)


def test_a_line_that_is_cut_stays_cut(server: Sshd) -> None:
    cancel_token = SocketCancelToken()
    with server.connect(cancel_token=cancel_token) as link:
        cancel_token.cancel()
        cancel_token.cancel()
        with pytest.raises(CancelledError):
            run(link, "true")
    with pytest.raises(CancelledError):
        server.connect(cancel_token=cancel_token)


# --- a server that is not sshd


class Refusing(paramiko.ServerInterface):
    """Takes every key, opens every session, and then does `answer` with a command."""

    def __init__(self, answer: Callable[[], bool]) -> None:
        self._answer = answer

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return self._answer()


@contextmanager
def refusing(server: Sshd, answer: Callable[[], bool]) -> Iterator[int]:
    """A stand-in with sshd's host key."""
    key = paramiko.Ed25519Key.from_private_key_file(str(server.host_keys[0]))
    with closing(socket.socket()) as listener, ExitStack() as kept:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            kept.callback(connection.close)
            transport = paramiko.Transport(connection)
            kept.callback(transport.join, 5)
            kept.callback(transport.close)
            transport.add_server_key(key)
            transport.start_server(event=threading.Event(), server=Refusing(answer))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(15)


def test_a_server_that_runs_no_commands_is_told(server: Sshd) -> None:
    line = "HostKeyAlias other"
    server.known.write_text(f"other {Path(f'{server.host_keys[0]}.pub').read_text()}")
    with ExitStack() as stack:
        port = stack.enter_context(refusing(server, lambda: False))
        link = stack.enter_context(server.connect(f"Port {port}", line))
        with fails("ssh-failed", "runs no commands"):
            link.open_command("true")


def test_a_command_that_is_never_begun_is_told_and_can_be_cut(server: Sshd) -> None:
    server.known.write_text(f"other {Path(f'{server.host_keys[0]}.pub').read_text()}")
    for patience in (SshTimeouts(channel=0.4), SshTimeouts()):
        cancel_token, asked, go = SocketCancelToken(), threading.Event(), threading.Event()

        def answer(asked: threading.Event = asked, go: threading.Event = go) -> bool:
            asked.set()
            return go.wait(10)

        lines = ("HostKeyAlias other",)
        with (
            refusing(server, answer) as port,
            server.connect(f"Port {port}", *lines, cancel_token=cancel_token, patience=patience) as link,
        ):
            waiting = InThread(lambda link=link: link.open_command("true"))  # type: ignore[misc]
            assert asked.wait(10)
            if patience.channel < 1:
                error = waiting.ended(3)
                assert isinstance(error, AgentError)
                assert (error.code.name, error.sentence) == (
                    "ssh-timed-out",
                    "the host does not start the command",
                )
            else:
                assert_cut(cancel_token, waiting)
            go.set()


# --- the link breaks


def test_a_link_that_breaks_is_told_apart_from_an_end(server: Sshd) -> None:
    acts: tuple[Callable[[SshChannel], object], ...] = (
        lambda talk: talk.receive(),
        lambda talk: talk.status(),
        lambda talk: talk.send(b"x" * 20_000_000),
    )
    for act in acts:
        with server.connect() as link, link.open_command("echo x; sleep 30") as talk:
            assert talk.receive() == b"x\n"
            waiting = InThread(lambda talk=talk, act=act: act(talk))  # type: ignore[misc]
            server.stop()
            assert isinstance(waiting.ended(5), ConnectionLostError)
            with pytest.raises(ConnectionLostError):
                run(link, "true")
        server.start()
