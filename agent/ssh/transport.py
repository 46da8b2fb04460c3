"""From a socket to a login: banners, key exchange, the host's key, and ours one after the other."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import paramiko

from agent.core.errors import AgentError
from agent.ssh.known_hosts import HostKey

if TYPE_CHECKING:
    from typing import Any, NoReturn

    from agent.ssh.config import Algorithms, Hop
    from agent.ssh.identities import Identities, IdentityStore
    from agent.ssh.known_hosts import KnownHosts
    from agent.ssh.sockets import ProxyCommand, SocketCancelToken

# What paramiko's thread and calls raise when the peer sends nonsense or goes away.
BROKEN = (paramiko.SSHException, OSError, EOFError, ValueError, LookupError, struct.error)

# A sign of life is sent after so many seconds without one.
_KEEPALIVE = 15
# The types of key that one type in known_hosts stands for.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
# How paramiko logs a line before the banner, and a channel that was refused; the server's words follow.
_BANNER, _REFUSAL = "Banner: ", " open FAILED: "
# How much of a server's words is kept, in characters.
_WORDS = 200


@dataclass(frozen=True)
class SshTimeouts:
    """How long each stage may take, in seconds: a second line behind the cancel token."""

    banner: float = 15.0
    handshake: float = 20.0
    login: float = 30.0
    channel: float = 30.0

    def at_least(self, seconds: float) -> SshTimeouts:
        """Return one for a server that may take so long: ConnectTimeout also covers banner and keys, as in ssh."""
        return replace(self, banner=max(self.banner, seconds), handshake=max(self.handshake, seconds))


class ServerBusyError(Exception):
    """The server closed before it said who it is: too many knock at once. The text is what it said instead."""


class SshTransport(paramiko.Transport):
    """paramiko's, which remembers what the peer said: that is only logged there, with tracebacks.

    paramiko is given events of ours and then asked for its exception. Its own waits raise whatever its thread
    met, which only a blind except would catch, and that of `start_client` returns as if all were well when its
    time is over. In sentences `{}` stands for the host, whose place on the way the link knows.
    """

    def __init__(self, sock: Any, hop: Hop, cancel_token: SocketCancelToken, patience: SshTimeouts) -> None:
        patience = patience.at_least(hop.timeout or 0.0)
        super().__init__(sock)
        self.banner_timeout = patience.banner
        self.handshake_timeout = patience.handshake
        self.auth_timeout = patience.login
        self.said = ""
        self.refusal = ""
        self._hop = hop
        self._cancel_token = cancel_token
        self._patience = patience

    def exchange_keys(self, known: KnownHosts, proxy: ProxyCommand | None) -> None:
        """Exchange banners and keys, asking for a type of host key that is known."""
        self._agree_only_on(self._hop.algorithms)
        kinds = [name for kind in known.kinds(self._hop) for name in _ALGORITHMS.get(kind, (kind,))]
        options = self.get_security_options()
        preferred = [kind for kind in kinds if kind in options.key_types]
        options.key_types = (*preferred, *(each for each in options.key_types if each not in preferred))
        ended = threading.Event()
        start = time.monotonic()
        self.start_client(event=ended)
        ended.wait(self._patience.banner + self._patience.handshake)
        self._cancel_token.raise_if_cancelled()
        if not (self.is_active() and ended.is_set()):
            seconds = time.monotonic() - start
            if not self.remote_version:
                self._not_greeted(proxy, late=not ended.is_set() or seconds >= self._patience.banner)
            self._not_agreed(late=not ended.is_set() or seconds >= self._patience.handshake)

    def verify(self, known: KnownHosts, *, trust_new: bool) -> str | None:
        """Judge the host's key; a fingerprint is one that is trusted from now on."""
        key = self.get_remote_server_key()
        return known.check(self._hop, HostKey(key.get_name(), key.asbytes()), trust_new=trust_new)

    def authenticate(self, identity_store: IdentityStore) -> None:
        """Offer one key after the other until the server takes one."""
        tried: list[str] = []
        error: Exception | None = None
        with identity_store.offers(self._hop, self._cancel_token) as offers:
            for offer in offers.keys:
                if not _may_log_in(offer.key, self._hop.algorithms.logins):
                    continue
                tried.append(offer.where)
                error = self._offer(offer.key)
                if self.is_authenticated():
                    self.set_keepalive(_KEEPALIVE)
                    return
                if isinstance(error, paramiko.BadAuthenticationType) or not self.is_active():
                    break
        self._not_let_in(tried, error, offers)

    def run(self) -> None:
        """Do paramiko's work, and wake who waits when it fails to clean up after itself.

        It closes its socket at the end, which a channel of a dead jump host takes amiss, and stumbles over an
        OSError that has no number.
        """
        try:
            super().run()
        except BROKEN as error:
            self.saved_exception = self.saved_exception or error
            with contextlib.suppress(*BROKEN):
                self.close()
            for event in (self.completion_event, *self.channel_events.values()):
                if event is not None:
                    event.set()
            if self.auth_handler is not None:
                self.auth_handler.abort()

    def _agree_only_on(self, allowed: Algorithms) -> None:
        """Leave out what ssh's configuration does not allow. Raises AgentError when nothing is left."""
        options = self.get_security_options()
        for what, names in (
            ("kex", allowed.key_exchange),
            ("ciphers", allowed.ciphers),
            ("digests", allowed.macs),
            ("key_types", allowed.host_keys),
        ):
            left = tuple(each for each in getattr(options, what) if not names or each in names)
            if not left:
                raise AgentError(
                    "config-invalid",
                    "ssh's configuration for {} allows no algorithm that is known here",
                    saw=", ".join(names),
                    want=f"one of {', '.join(getattr(options, what))}",
                )
            setattr(options, what, left)

    def _offer(self, key: paramiko.PKey) -> Exception | None:
        ended = threading.Event()
        try:
            self.auth_publickey(self._hop.user, key, event=ended)
        except BROKEN as error:  # gone since the last answer
            self._cancel_token.raise_if_cancelled()
            return self.get_exception() or error
        ended.wait(self._patience.login)
        self._cancel_token.raise_if_cancelled()
        if self.is_active() and not ended.is_set():
            raise _late(f"does not answer the login of {self._hop.user}", self._patience.login, "")
        return self.get_exception()

    def _not_greeted(self, proxy: ProxyCommand | None, *, late: bool) -> NoReturn:
        """The server, or the proxy command on the way to it, did not say who it is."""
        words = self.said or (proxy.said() if proxy else "")
        if late:
            raise _late("did not say who it is", self._patience.banner, words)
        if proxy:
            raise AgentError(
                "ssh-failed",
                "the ProxyCommand for {} ended before the server said who it is",
                saw=words or "it said nothing",
                hint=f"run it by hand: `{self._hop.proxy_command}`",
            )
        raise ServerBusyError(words)

    def _not_agreed(self, *, late: bool) -> NoReturn:
        error = self.get_exception()
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
            saw = f"{error} ({self.remote_version})"
            raise AgentError("ssh-failed", "{} shares no algorithm with this agent", saw=saw)
        if late:
            raise _late("does not go on with the key exchange", self._patience.handshake, self.remote_version)
        saw = self.said or str(error or "") or "it closed the connection"
        raise AgentError("ssh-failed", "the key exchange with {} failed", saw=saw)

    def _not_let_in(self, tried: list[str], error: Exception | None, offers: Identities) -> NoReturn:
        """Say why no key was taken: none to offer, one that cannot sign, a lost connection, or a refusal."""
        user, troubles = self._hop.user, "; ".join(offers.troubles)
        if not tried and troubles:
            raise AgentError("key-unusable", f"no key to log in to {{}} as {user}", saw=troubles)
        if not self.is_active() and not self.said:
            # Signing is done by paramiko's thread, which ends when that fails.
            if "sign" in str(error) or "agent" in str(error):
                raise AgentError(
                    "key-unusable",
                    f"the login to {{}} as {user} could not be signed",
                    saw=f"{tried[-1]}: {error}",
                    hint="ask the agent: `ssh-add -l`, and `ssh-add -T FILE.pub` has it sign",
                )
            raise AgentError(
                "ssh-failed", "{} ended the connection during the login", saw=str(error or "it said nothing")
            )
        saw = [f"{user} with {', '.join(tried)}" if tried else f"{user} without any key"]
        if self.said:
            saw.append(f"it says: {self.said}")
        if isinstance(error, paramiko.BadAuthenticationType):
            saw.append(f"it takes only {', '.join(error.allowed_types)}")
        elif isinstance(error, paramiko.ssh_exception.PartialAuthentication):
            saw.append(f"it also wants {', '.join(error.allowed_types)}")
        if troubles:
            saw.append(troubles)
        raise AgentError("login-refused", "{} refuses the login", saw="; ".join(saw))

    def _log(self, level: int, msg: str | list[str], *args: object) -> None:
        """Log what paramiko calls errors as details: without a set-up, Python prints errors to standard error."""
        if isinstance(msg, str) and msg.startswith(_BANNER):
            self.said = self.said or msg[len(_BANNER) :][:_WORDS]
        elif isinstance(msg, str) and _REFUSAL in msg:  # the exception has a text of paramiko's own
            self.refusal = msg.partition(_REFUSAL)[2].rpartition(": ")[0][:_WORDS]
        super()._log(min(level, 10), msg, *args)  # type: ignore[misc]  # not in the stubs

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.said = m.get_text()[:_WORDS]


def _may_log_in(key: paramiko.PKey, names: tuple[str, ...]) -> bool:
    """Tell whether PubkeyAcceptedAlgorithms has the key's type; an RSA key signs in more than one way."""
    kind = key.public_blob.key_type if key.public_blob else key.get_name()
    signatures = (kind, *(kind.replace("ssh-rsa", each) for each in ("rsa-sha2-512", "rsa-sha2-256")))
    return not names or any(each in names for each in signatures)


def _late(what: str, seconds: float, saw: str) -> AgentError:
    waited = f"nothing more within {seconds:g} s"
    return AgentError("ssh-timed-out", f"{{}} {what}", saw=f"{saw}, then {waited}" if saw else waited)
