"""The keys to log in with: files loaded once for all hosts, agents asked at each login, certificates for both."""

from __future__ import annotations

import base64
import binascii
import contextlib
import copy
import io
import os
import socket
import stat
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from paramiko.agent import AgentSSH

from agent.core.errors import AgentError
from agent.hosts import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.ssh.config import Hop
    from agent.ssh.sockets import SocketCancelToken

# How long an agent may take to answer or to sign, in seconds.
_ANSWER = 15.0
# The largest key file that is read, in bytes.
_SIZE = 64 * 1024
# The suffix of a certificate's key type.
_CERTIFICATE = "-cert-v01@openssh.com"
# The start of a private key in OpenSSH's own format.
_MAGIC = b"openssh-key-v1\0"

_KINDS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


@dataclass(frozen=True)
class Identity:
    """One key that is offered to a server, and its origin."""

    key: paramiko.PKey
    where: str


@dataclass(frozen=True)
class Identities:
    """All keys for one login in the order in which they are tried, and why others cannot be used."""

    keys: tuple[Identity, ...]
    troubles: tuple[str, ...]


@dataclass(frozen=True)
class KeyFile:
    """The contents of a key file: the private key, or why there is none; its public part, to find it in an agent."""

    path: str
    private: paramiko.PKey | None = None
    public: bytes | None = None
    trouble: str | None = None


class IdentityStore:
    """The key files of a run, each loaded once and shared by all threads."""

    def __init__(self, patience: float = _ANSWER) -> None:
        self._patience = patience
        self._files: dict[str, KeyFile] = {}
        self._lock = threading.Lock()

    def file(self, path: str) -> KeyFile:
        with self._lock:
            if path not in self._files:
                self._files[path] = _load(path)
            return self._files[path]

    @contextlib.contextmanager
    def offers(self, hop: Hop, cancel_token: SocketCancelToken) -> Iterator[Identities]:
        """Yield the keys for this login; those of the agent can sign until the context ends.

        Named keys come first, since a server counts every attempt; where none is named the agent's do, as in ssh.
        Each certificate comes just before its key.
        """
        if hop.agent is None:
            yield self._ordered(hop, ())
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(self._patience)
            with cancel_token.cancelling(lambda: _shut(sock)):
                held = _held(hop.agent, sock)
                cancel_token.raise_if_cancelled()
                offers = self._ordered(hop, held or ())
                gone = () if held is not None else (f"the agent {hop.agent} does not answer",)
                yield Identities(offers.keys, (*offers.troubles, *gone))

    def _ordered(self, hop: Hop, held: tuple[paramiko.AgentKey, ...]) -> Identities:
        by_blob = {each.asbytes(): each for each in held}
        named: list[Identity] = []
        troubles: list[str] = []
        for path in hop.keys:
            found = self.file(path)
            in_agent = by_blob.pop(found.public, None) if found.public else None
            key = in_agent or found.private
            if key is None:
                troubles.append(
                    f"{path}: {found.trouble or 'only its public half is there, and no agent holds it'}"
                )
                continue
            where = f"{path} (agent)" if in_agent else path
            for each in (*hop.certificates, f"{path}-cert.pub"):
                certified = _certified(key, each)
                if certified is not None:
                    named.append(Identity(certified, f"{each} (certificate)"))
            named.append(Identity(key, where))
        others = [Identity(key, f"{key.comment or 'a key'} (agent)") for key in by_blob.values()]
        if hop.identities_only:
            others = []
        keys = (*named, *others) if hop.keys_named else (*others, *named)
        return Identities(keys, tuple(troubles))


class _Agent(AgentSSH):
    """A connection to one agent. paramiko's own supports only SSH_AUTH_SOCK, and waits without limit."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._connect(sock)  # type: ignore[attr-defined]  # not in the stubs

    def _send_message(self, msg: Any) -> Any:
        """Ask the agent. A time-out during a login would end paramiko's thread silently."""
        try:
            return super()._send_message(msg)  # type: ignore[misc]
        except OSError as error:
            raise paramiko.SSHException(f"the agent does not answer: {error}") from None


def _held(path: str, sock: socket.socket) -> tuple[paramiko.AgentKey, ...] | None:
    """Return the keys of an agent, None when it does not answer: SSH_AUTH_SOCK outlives its agent."""
    try:
        sock.connect(path)
        keys = _Agent(sock).get_keys()
    except (OSError, paramiko.SSHException, ValueError, struct.error):
        return None
    for each in keys:
        if each.get_name().endswith(_CERTIFICATE):
            # paramiko reads an RSA certificate as its bare key, and offers that with the wrong type
            each.inner_key = None  # type: ignore[attr-defined]  # not in the stubs
    return keys


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _load(path: str) -> KeyFile:
    try:
        data = files.read(path, 0, _SIZE)
    except AgentError as error:
        return KeyFile(path, trouble=error.saw or error.sentence)
    public = _public_of(f"{path}.pub")
    if data is None:
        return KeyFile(path, public=public, trouble=None if public else "no such file")
    text = data.decode(errors="replace")
    if b"PRIVATE KEY-----" not in data:
        public = _public(text)
        return KeyFile(path, public=public, trouble=None if public else "not a private key")
    return _load_private(path, text, public or _public_of_private(text))


def _load_private(path: str, text: str, public: bytes | None) -> KeyFile:
    mode = os.stat(path)  # noqa: PTH116
    if mode.st_uid == os.geteuid() and stat.S_IMODE(mode.st_mode) & 0o077:
        # ssh skips such a key too
        return KeyFile(path, public=public, trouble=f"others may read it: `chmod 600 {path}`")
    if "-----BEGIN ENCRYPTED PRIVATE KEY-----" in text:
        return KeyFile(path, public=public, trouble="it has a passphrase, and no agent holds it")
    text = _in_openssh_format(text)
    for kind in _KINDS:
        try:
            private = kind.from_private_key(io.StringIO(text))
        except paramiko.PasswordRequiredException:
            return KeyFile(path, public=public, trouble="it has a passphrase, and no agent holds it")
        except (paramiko.SSHException, ValueError, LookupError, struct.error, OSError):
            continue
        return KeyFile(path, private, private.asbytes())
    return KeyFile(path, public=public, trouble="damaged, or of a type that is not supported")


def _in_openssh_format(text: str) -> str:
    """Return a key in PKCS#8 (from openssl) in OpenSSH's format: OpenSSH reads both, paramiko only the second."""
    if "-----BEGIN PRIVATE KEY-----" not in text:
        return text
    try:
        key = serialization.load_pem_private_key(text.encode(), None)
        made = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return text  # damaged, or a type that ssh does not have
    return made.decode()


def _certified(key: paramiko.PKey, path: str) -> paramiko.PKey | None:
    """Return a copy of the key with the certificate of that file, None when there is none for this key."""
    if not Path(path).is_file():
        return None
    if isinstance(
        key, paramiko.AgentKey
    ):  # copy() fails: it looks its attributes up in a key that is not there yet
        certified: paramiko.PKey = paramiko.AgentKey(key.agent, key.blob, key.comment)
    else:
        certified = copy.copy(key)
    try:
        certified.load_certificate(path)
    except (ValueError, OSError, paramiko.SSHException):
        return None
    return certified if _certifies(certified, key) else None


def _certifies(certified: paramiko.PKey, key: paramiko.PKey) -> bool:
    """Return whether a certificate is for this key: the numbers of the key follow type and nonce."""
    blob = certified.public_blob.key_blob if certified.public_blob else b""
    numbers = key.asbytes()
    skip = 4 + struct.unpack(">I", numbers[:4])[0]
    return bool(numbers[skip:] in blob)


def _public_of(path: str) -> bytes | None:
    try:
        data = files.read(path, 0, _SIZE)
    except AgentError:
        return None
    return None if data is None else _public(data.decode(errors="replace"))


def _public(text: str) -> bytes | None:
    words = text.split(None, 2)
    if len(words) < 2:
        return None
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    return blob if blob[4 : 4 + len(words[0])] == words[0].encode() else None


def _public_of_private(text: str) -> bytes | None:
    """Read the public part, which OpenSSH's format does not encrypt."""
    body = "".join(line for line in text.split() if not line.startswith("-") and "-----" not in line)
    start = text.partition("-----BEGIN OPENSSH PRIVATE KEY-----")[2].partition("-----END")[0]
    try:
        data = base64.b64decode("".join(start.split()) or body)
        if not data.startswith(_MAGIC):
            return None
        rest = data[len(_MAGIC) :]
        for _ in range(3):  # cipher, key derivation, its options
            (size,) = struct.unpack(">I", rest[:4])
            rest = rest[4 + size :]
        (_, size) = struct.unpack(">II", rest[:8])
        return rest[8 : 8 + size]
    except (binascii.Error, ValueError, struct.error):
        return None
