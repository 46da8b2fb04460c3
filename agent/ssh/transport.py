"""From a socket to a login: banners, key exchange, the check of the host's key, and our keys one by one."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import paramiko

from agent.core.errors import AgentError
from agent.ssh import host_certificate
from agent.ssh.host_certificate import ALGORITHMS as CERTIFICATES
from agent.ssh.known_hosts import HostKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from agent.ssh.config import Algorithms, Hop
    from agent.ssh.host_certificate import HostCertificate
    from agent.ssh.identities import Identities, IdentityStore
    from agent.ssh.known_hosts import KnownHosts, PublishedKeys
    from agent.ssh.sockets import ProxyCommand, SocketCancelToken

# What paramiko's thread and calls raise when the peer sends nonsense or goes away.
BROKEN = (paramiko.SSHException, OSError, EOFError, ValueError, LookupError, struct.error)

# A keepalive is sent after so many idle seconds.
_KEEPALIVE = 15
# The types of key that one type in known_hosts includes.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
# How paramiko logs a line before the banner, and a channel that was refused; the server's text follows.
_BANNER, _REFUSAL = "Banner: ", " open FAILED: "
# How much of a server's text is kept, in characters.
_WORDS = 200


@dataclass(frozen=True)
class SshTimeouts:
    """How long each stage may take, in seconds: a second line behind the cancel token."""

    banner: float = 15.0
    handshake: float = 20.0
    login: float = 30.0
    channel: float = 30.0

    def at_least(self, seconds: float) -> SshTimeouts:
        """Return time-outs of at least so long: ConnectTimeout also covers banner and keys, as in ssh."""
        return replace(self, banner=max(self.banner, seconds), handshake=max(self.handshake, seconds))


class ServerBusyError(Exception):
    """The server closed before its banner: it has too many logins. The text is what it sent instead."""


class SshTransport(paramiko.Transport):
    """paramiko's transport, which keeps what the peer says: paramiko only logs it, with tracebacks.

    paramiko gets events of ours, and is then asked for its exception. Its own waits raise whatever its thread met,
    which only a blind except would catch, and `start_client` returns as if it had succeeded when its time is over.
    """

    def __init__(
        self, sock: Any, hop: Hop, place: str, cancel_token: SocketCancelToken, timeouts: SshTimeouts
    ) -> None:
        """`place` is how errors name the hop."""
        timeouts = timeouts.at_least(hop.timeout or 0.0)
        super().__init__(sock)
        self.banner_timeout = timeouts.banner
        self.handshake_timeout = timeouts.handshake
        self.auth_timeout = timeouts.login
        self.peer_text = ""
        self.refusal = ""
        self._hop = hop
        self._place = place
        self._cancel_token = cancel_token
        self._timeouts = timeouts

    def exchange_keys(
        self,
        known: KnownHosts,
        proxy: ProxyCommand | None,
        published: Callable[[], PublishedKeys] | None = None,
    ) -> None:
        """Exchange banners and keys, asking for a type of host key that is known, or else published."""
        options = self.get_security_options()
        if known.has_authority(self._hop):  # as ssh: a certificate before every plain key
            options.key_types = (*CERTIFICATES, *options.key_types)
        self._agree_only_on(self._hop.algorithms)
        found = known.kinds(self._hop)
        if published is not None and not found:
            found = tuple(dict.fromkeys(key.kind for key in published().keys))
        kinds = [name for kind in found for name in _ALGORITHMS.get(kind, (kind,))]
        preferred = [kind for kind in (*CERTIFICATES, *kinds) if kind in options.key_types]
        options.key_types = (*preferred, *(each for each in options.key_types if each not in preferred))
        ended = threading.Event()
        start = time.monotonic()
        self.start_client(event=ended)
        ended.wait(self._timeouts.banner + self._timeouts.handshake)
        self._cancel_token.raise_if_cancelled()
        if not (self.is_active() and ended.is_set()):
            seconds = time.monotonic() - start
            if not self.remote_version:
                self._not_greeted(proxy, late=not ended.is_set() or seconds >= self._timeouts.banner)
            self._not_agreed(late=not ended.is_set() or seconds >= self._timeouts.handshake)

    def verify(
        self,
        known: KnownHosts,
        *,
        trust_new: bool,
        published: Callable[[], PublishedKeys] | None = None,
    ) -> str | None:
        """Check the host's key; return its fingerprint when it is new and trusted from now on."""
        key = self.get_remote_server_key()
        bits = key.get_bits() if key.get_name() == "ssh-rsa" else self._hop.rsa_bits
        if bits < self._hop.rsa_bits:
            raise AgentError(
                "ssh-failed",
                f"the host key of {self._place} is too short",
                saw=f"RSA with {bits} bits",
                want=f"RequiredRSASize {self._hop.rsa_bits}",
                hint="give the host a longer key, or one of another type: `ssh-keygen -A` makes what is missing",
            )
        own = HostKey(key.get_name(), key.asbytes())
        certificate = self._certificate(key)
        return known.check(self._hop, own, trust_new=trust_new, certificate=certificate, published=published)

    def _certificate(self, key: paramiko.PKey) -> HostCertificate | None:
        """Return the certificate that the host sent for its key, None for a plain key."""
        if key.public_blob is None:
            return None
        try:
            return host_certificate.parse(key.public_blob.key_blob)
        except ValueError as error:
            raise AgentError(
                "ssh-failed",
                f"the certificate of {self._place} cannot be read",
                saw=str(error),
                want="a host certificate as `ssh-keygen -s` makes it",
            ) from None

    def authenticate(self, identity_store: IdentityStore) -> None:
        """Offer one key after the other until the server accepts one."""
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
        """Run paramiko's thread, and wake its waiters when it fails to clean up.

        It closes its socket at the end, for which a channel of a dead jump host raises; and it cannot handle an OSError
        without a number.
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
        """Leave out algorithms that ssh's configuration does not allow. Raises AgentError when none is left."""
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
                    f"ssh's configuration for {self._place} allows no algorithm that is known here",
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
        ended.wait(self._timeouts.login)
        self._cancel_token.raise_if_cancelled()
        if self.is_active() and not ended.is_set():
            raise _late(
                f"{self._place} does not answer the login of {self._hop.user}", self._timeouts.login, ""
            )
        return self.get_exception()

    def _not_greeted(self, proxy: ProxyCommand | None, *, late: bool) -> NoReturn:
        """Raise why no banner came from the server, or from the proxy command before it."""
        words = self.peer_text or (proxy.last_error() if proxy else "")
        if late:
            raise _late(f"{self._place} did not say who it is", self._timeouts.banner, words)
        if proxy:
            raise AgentError(
                "ssh-failed",
                f"the ProxyCommand for {self._place} ended before the server identified itself",
                saw=words or "it sent nothing",
                hint=f"run it by hand: `{self._hop.proxy_command}`",
            )
        raise ServerBusyError(words)

    def _not_agreed(self, *, late: bool) -> NoReturn:
        error = self.get_exception()
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
            saw = f"{error} ({self.remote_version})"
            raise AgentError("ssh-failed", f"{self._place} shares no algorithm with this agent", saw=saw)
        if late:
            raise _late(
                f"{self._place} does not go on with the key exchange",
                self._timeouts.handshake,
                self.remote_version,
            )
        saw = self.peer_text or str(error or "") or "it closed the connection"
        raise AgentError("ssh-failed", f"the key exchange with {self._place} failed", saw=saw)

    def _not_let_in(self, tried: list[str], error: Exception | None, offers: Identities) -> NoReturn:
        """Raise why no key was accepted: none to offer, one that cannot sign, a lost connection, or a refusal."""
        user, troubles = self._hop.user, "; ".join(offers.troubles)
        if not tried and troubles:
            raise AgentError(
                "key-unusable",
                f"no key to log in to {self._place} as {user}",
                saw=troubles,
                hint=None if self._hop.keys else _NO_KEYS,
            )
        if not self.is_active() and not self.peer_text:
            # Signing is done by paramiko's thread, which ends when that fails.
            if "sign" in str(error) or "agent" in str(error):
                raise AgentError(
                    "key-unusable",
                    f"the login to {self._place} as {user} could not be signed",
                    saw=f"{tried[-1]}: {error}",
                    hint="ask the agent: `ssh-add -l`, and `ssh-add -T` with the key's .pub file has it sign",
                )
            raise AgentError(
                "ssh-failed",
                f"{self._place} ended the connection during the login",
                saw=str(error or "it sent nothing"),
            )
        saw = [f"{user} with {', '.join(tried)}" if tried else f"{user} without any key"]
        if self.peer_text:
            saw.append(f"it says: {self.peer_text}")
        if isinstance(error, paramiko.BadAuthenticationType):
            saw.append(f"it takes only {', '.join(error.allowed_types)}")
        elif isinstance(error, paramiko.ssh_exception.PartialAuthentication):
            saw.append(f"it also wants {', '.join(error.allowed_types)}")
        if troubles:
            saw.append(troubles)
        raise AgentError("login-refused", f"{self._place} refuses the login", saw="; ".join(saw))

    def _log(self, level: int, msg: str | list[str], *args: object) -> None:
        """Log paramiko's errors as details: without a configuration, Python prints errors to standard error."""
        if isinstance(msg, str) and msg.startswith(_BANNER):
            self.peer_text = self.peer_text or msg[len(_BANNER) :][:_WORDS]
        elif isinstance(msg, str) and _REFUSAL in msg:  # the exception has a text of paramiko's own
            self.refusal = msg.partition(_REFUSAL)[2].rpartition(": ")[0][:_WORDS]
        super()._log(min(level, 10), msg, *args)  # type: ignore[misc]  # not in the stubs

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.peer_text = m.get_text()[:_WORDS]


_NO_KEYS = (
    "start an agent that holds a key, or name a key file: `key` in the inventory, `IdentityFile` for ssh"
)


def _may_log_in(key: paramiko.PKey, names: tuple[str, ...]) -> bool:
    """Return whether PubkeyAcceptedAlgorithms has the key's type; an RSA key has several signature algorithms."""
    kind = key.public_blob.key_type if key.public_blob else key.get_name()
    signatures = (kind, *(kind.replace("ssh-rsa", each) for each in ("rsa-sha2-512", "rsa-sha2-256")))
    return not names or any(each in names for each in signatures)


def _late(sentence: str, seconds: float, saw: str) -> AgentError:
    waited = f"nothing more within {seconds:g} s"
    return AgentError("ssh-timed-out", sentence, saw=f"{saw}, then {waited}" if saw else waited)
