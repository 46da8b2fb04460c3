"""One SSH connection: made through all jump hosts, verified, logged in, used for commands, and closed."""

from __future__ import annotations

import contextlib
import random
import shlex
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import paramiko

from agent.core.errors import AgentError
from agent.core.host import READ_LIMIT
from agent.core.link import CutError, LinkLostError
from agent.hosts.processes import Ended, Excerpt
from agent.hosts.ssh import wire
from agent.hosts.ssh.talk import Talk
from agent.hosts.ssh.trust import HostKey
from agent.hosts.ssh.wire import Lifeline, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Any, NoReturn

    from typing_extensions import Self

    from agent.hosts.ssh.gate import Gate
    from agent.hosts.ssh.keys import Keyring
    from agent.hosts.ssh.login import Hop, Route
    from agent.hosts.ssh.trust import Known

__all__ = ["CutError", "Lifeline", "Link", "LinkLostError", "Patience", "Talk", "connect"]

# A server that closes before its banner (MaxStartups) is tried again after 0.5, 1, 2, 4 and 8 seconds, more or less.
_TRIES, _BACK_OFF = 6, 0.5
# How long to wait before a refused session is asked for again, in seconds.
_PAUSES = (0.05, 0.1, 0.2, 0.4)
# A sign of life is sent after so many seconds without one.
_KEEPALIVE = 15
# How long the threads of a closed connection may take to end, in seconds.
_JOIN = 2.0
# The types of key that one type in known_hosts stands for.
_ALGORITHMS = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}

# How paramiko logs a channel that was refused; the server's words follow.
_REFUSAL = " open FAILED: "

# What paramiko's thread and calls raise when the peer sends nonsense or goes away.
_BROKEN = (paramiko.SSHException, OSError, EOFError, ValueError, LookupError, struct.error)

_Socket = "socket.socket | paramiko.Channel"


@dataclass(frozen=True)
class Patience:
    """How long each stage may take, in seconds: a second line behind the lifeline."""

    banner: float = 15.0
    handshake: float = 20.0
    login: float = 30.0
    channel: float = 30.0


class _Dropped(Exception):  # noqa: N818 -- an event, not an error
    """The server closed before it said who it is: too many knock at once."""


class _Transport(paramiko.Transport):
    """paramiko's, which remembers what the peer said: it only logs that, with tracebacks, and both off the screen."""

    def __init__(self, sock: Any, patience: Patience) -> None:
        super().__init__(sock)
        self.banner_timeout = patience.banner
        self.handshake_timeout = patience.handshake
        self.auth_timeout = patience.login
        self.said = ""
        self.refusal = ""

    def run(self) -> None:
        """Do paramiko's work. It closes its socket at the end; a channel of a dead jump host takes that amiss."""
        with contextlib.suppress(*_BROKEN):
            super().run()

    def _log(self, level: int, msg: str | list[str], *args: object) -> None:
        """Log what paramiko calls errors as details: without a set-up, Python prints errors to standard error."""
        if isinstance(msg, str) and msg.startswith("Banner: "):
            self.said = self.said or msg[len("Banner: ") :][:200]
        elif isinstance(msg, str) and _REFUSAL in msg:  # the exception has a text of paramiko's own
            self.refusal = msg.partition(_REFUSAL)[2].rpartition(": ")[0][:200]
        super()._log(min(level, 10), msg, *args)  # type: ignore[misc]  # not in the stubs

    def _parse_disconnect(self, m: paramiko.Message) -> None:
        m.get_int()
        self.said = m.get_text()[:200]


def connect(
    route: Route,
    *,
    known: Known,
    keyring: Keyring,
    trust_new: bool,
    lifeline: Lifeline,
    gate: Gate,
    patience: Patience = Patience(),
) -> Link:
    """Log in at every hop of the route, each through the one before.

    Raises AgentError with the cause, CutError when the lifeline is cut.
    """
    link = Link(lifeline, patience)
    try:
        for number in range(len(route.hops)):
            link.extend(route, number, known=known, keyring=keyring, trust_new=trust_new, gate=gate)
    except BaseException:
        link.close()
        raise
    return link


class Link:
    """A connection that is logged in. Made, used and closed in one thread; only its lifeline is for another."""

    def __init__(self, lifeline: Lifeline, patience: Patience) -> None:
        self._lifeline = lifeline
        self._patience = patience
        self._wires: list[Wire] = []
        self._transports: list[_Transport] = []
        self._trusted: list[str] = []

    @property
    def trusted(self) -> str | None:
        """The fingerprints of host keys that are trusted since this connection, None when there is none."""
        return ", ".join(self._trusted) or None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def extend(
        self, route: Route, number: int, *, known: Known, keyring: Keyring, trust_new: bool, gate: Gate
    ) -> None:
        """Log in at hop `number`, again and again while the server only has too many callers."""
        hop = route.hops[number]
        server = tuple((each.host, each.port) for each in route.hops[: number + 1])
        for attempt in range(1, _TRIES + 1):
            try:
                with gate.passing(server, self._lifeline), self._told(route, number):
                    return self._enter(route, number, known=known, keyring=keyring, trust_new=trust_new)
            except _Dropped as dropped:
                if attempt == _TRIES:
                    words = str(dropped) or "the connection was closed before it said anything"
                    raise AgentError(
                        "ssh-failed",
                        f"{_place(route, number)} drops connections",
                        saw=f"{words}, {_TRIES} times",
                        hint="its `MaxStartups` may be too low, or it bans this address; `ssh -v HOST` from here",
                    ) from None
            half = _BACK_OFF * 2 ** (attempt - 1)
            self._lifeline.wait(half * random.uniform(0.75, 1.5))  # noqa: S311 -- jitter
        raise AssertionError(hop)

    def talk(self, command: str) -> Talk:
        """Run a command on the target with its two outputs and its input open."""
        return self._talk(command)

    def _talk(self, command: str, errors: Excerpt | None = None) -> Talk:
        transport = self._transports[-1]
        with self._living(transport):
            channel = self._session(transport)
            return Talk(channel, command, self._lifeline, self._patience.channel, errors)

    def _session(self, transport: _Transport) -> paramiko.Channel:
        """Open a session. The one before may not be over for the server yet, which matters with MaxSessions 1."""
        for pause in _PAUSES:
            try:
                return transport.open_session(timeout=self._patience.channel)
            except paramiko.ChannelException:  # noqa: PERF203 -- a refusal is rare
                self._lifeline.wait(pause)
        return transport.open_session(timeout=self._patience.channel)

    def run(self, command: str, stdin: bytes, timeout: float, /) -> Ended:
        """Do what `Run` of agent/hosts/shell.py promises.

        `timeout` over there ends the program's whole group: sshd leaves it running when a channel closes. The
        shell around it turns death by a signal into a status, which paramiko would not tell.
        """
        words = ("sh", "-c", _BOUNDED, "hsm-agent", command, f"{timeout:g}")
        start = time.monotonic()
        out, errors = Excerpt(READ_LIMIT), Excerpt(READ_LIMIT)
        with self._talk(f"exec {shlex.join(words)}", errors) as talk:
            talk.settle(stdin, out.add, limit=timeout + self._patience.channel)
            status = talk.status()
        if status in (124, 137) and time.monotonic() - start >= timeout:
            status = None
        return Ended(status, out.text(), talk.errors())

    def close(self) -> None:
        """End the connection, from the target back to the first hop, with its threads and sockets."""
        for transport in reversed(self._transports):
            if not isinstance(transport.sock, paramiko.Channel):
                # paramiko closes the socket under its thread, which sees that at its next turn, 0.1 s later
                for each in self._wires:
                    each.shut()
            with contextlib.suppress(*_BROKEN):
                transport.close()
        for each in self._wires:
            each.close()
        for transport in self._transports:
            if transport.ident is not None:
                transport.join(_JOIN)
            transport.packetizer.complete_handshake()  # paramiko leaves its timer running after a failure
            with contextlib.suppress(*_BROKEN):
                transport.sock.close()
        self._wires.clear()
        self._transports.clear()

    # --- one login

    def _enter(self, route: Route, number: int, *, known: Known, keyring: Keyring, trust_new: bool) -> None:
        hop = route.hops[number]
        below = len(self._wires), len(self._transports)
        try:
            transport = _Transport(self._socket(route, number), self._patience)
            self._transports.append(transport)
            self._greet(transport, hop, known)
            key = transport.get_remote_server_key()
            fresh = known.check(hop, HostKey(key.get_name(), key.asbytes()), trust_new=trust_new)
            self._log_in(transport, hop, keyring)
            transport.set_keepalive(_KEEPALIVE)
        except BaseException:
            self._drop(*below)
            raise
        if fresh:
            self._trusted.append(fresh)

    def _drop(self, wires: int, transports: int) -> None:
        """Close what one failed login has opened, and leave the hops before it."""
        failed = Link(self._lifeline, self._patience)
        failed._wires, self._wires = self._wires[wires:], self._wires[:wires]
        failed._transports, self._transports = self._transports[transports:], self._transports[:transports]
        failed.close()

    def _socket(self, route: Route, number: int) -> Any:
        hop = route.hops[number]
        if number:
            return self._transports[-1].open_channel(
                "direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=hop.timeout
            )
        if hop.proxy_command:
            made = wire.through(hop.proxy_command, shell=route.shell, lifeline=self._lifeline)
        else:
            family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(hop.family, socket.AF_UNSPEC)
            made = wire.dial(hop.host, hop.port, family=family, timeout=hop.timeout, lifeline=self._lifeline)
        self._wires.append(made)
        return made.sock

    def _greet(self, transport: _Transport, hop: Hop, known: Known) -> None:
        """Exchange banners and keys, asking for a type of host key that is known."""
        kinds = [name for kind in known.kinds(hop) for name in _ALGORITHMS.get(kind, (kind,))]
        options = transport.get_security_options()
        preferred = [kind for kind in kinds if kind in options.key_types]
        options.key_types = (*preferred, *(each for each in options.key_types if each not in preferred))
        ended = threading.Event()
        start = time.monotonic()
        # With an event of ours paramiko returns at once. Its own wait returns as if all were well at its time-out.
        transport.start_client(event=ended)
        ended.wait(self._patience.banner + self._patience.handshake)
        self._lifeline.check()
        if transport.is_active() and ended.is_set():
            return
        seconds = time.monotonic() - start
        error = transport.get_exception()
        if not transport.remote_version:
            self._not_greeted(transport, hop, late=not ended.is_set() or seconds >= self._patience.banner)
        if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
            raise AgentError(
                "ssh-failed",
                "{} shares no algorithm with this agent",
                saw=f"{error} ({transport.remote_version})",
            )
        if ended.is_set() and seconds < self._patience.handshake:
            saw = transport.said or str(error or "") or "it closed the connection"
            raise AgentError("ssh-failed", "the key exchange with {} failed", saw=saw)
        raise _late("does not go on with the key exchange", seconds, transport.remote_version)

    def _log_in(self, transport: _Transport, hop: Hop, keyring: Keyring) -> None:
        """Offer one key after the other until the server takes one."""
        tried: list[str] = []
        with keyring.offers(hop) as offers:
            for offer in offers.keys:
                ended = threading.Event()
                tried.append(offer.where)
                with contextlib.suppress(paramiko.SSHException):  # gone meanwhile: seen just below
                    transport.auth_publickey(hop.user, offer.key, event=ended)
                    ended.wait(self._patience.login)
                self._lifeline.check()
                if transport.is_authenticated():
                    return
                error = transport.get_exception()
                if transport.is_active() and not ended.is_set():
                    raise _late(f"does not answer the login of {hop.user}", self._patience.login, "")
                if isinstance(error, paramiko.BadAuthenticationType) or not transport.is_active():
                    break
        troubles = offers.troubles
        if troubles and not tried:
            raise AgentError(
                "key-unusable", f"no key to log in to {{}} as {hop.user}", saw="; ".join(troubles)
            )
        saw = f"{hop.user} with {', '.join(tried)}" if tried else f"{hop.user} without any key"
        if transport.said:
            saw = f"{saw}; it says: {transport.said}"
        elif isinstance(error := locals().get("error"), paramiko.BadAuthenticationType):
            saw = f"{saw}; it takes {', '.join(error.allowed_types)} only"
        if troubles:
            saw = f"{saw}; {'; '.join(troubles)}"
        raise AgentError("login-refused", "{} refuses the login", saw=saw)

    def _not_greeted(self, transport: _Transport, hop: Hop, *, late: bool) -> NoReturn:
        """The server, or the proxy command on the way to it, did not say who it is."""
        proxy = self._wires[-1].proxy if hop.proxy_command else None
        words = transport.said or (proxy.said() if proxy else "")
        if late:
            raise _late("did not say who it is", self._patience.banner, words)
        if proxy:
            raise AgentError(
                "ssh-failed",
                "the ProxyCommand for {} ended before the server said who it is",
                saw=words or "it said nothing",
                hint=f"run it by hand: `{hop.proxy_command}`",
            )
        raise _Dropped(words)

    # --- what a failure is called

    @contextlib.contextmanager
    def _told(self, route: Route, number: int) -> Iterator[None]:
        """Name the hop in every failure, and give those of paramiko their code."""
        place = _place(route, number)
        try:
            yield
        except AgentError as error:
            sentence = error.sentence.replace("{}", place)
            if number < len(route.hops) - 1 and place not in sentence:
                sentence = f"{place}: {sentence}"
            raise AgentError(
                error.code.name, sentence, saw=error.saw, want=error.want, hint=error.hint
            ) from None
        except paramiko.ChannelException as error:
            words = self._transports[-1].refusal or error.text
            raise _not_forwarded(words, error.code, _place(route, number - 1), route.hops[number]) from None
        except _BROKEN as error:
            self._lifeline.check()
            late = "Timeout" in str(error)
            raise AgentError(
                "ssh-timed-out" if late else "ssh-failed",
                f"{place} could not be reached" if number else f"{place} ended the connection",
                saw=str(error) or type(error).__name__,
            ) from None

    @contextlib.contextmanager
    def _living(self, transport: _Transport) -> Iterator[None]:
        try:
            yield
        except paramiko.ChannelException as error:
            raise AgentError(
                "ssh-failed",
                "the host refuses another session",
                saw=str(error),
                hint="`MaxSessions` in its sshd_config, or a forced command",
            ) from None
        except _BROKEN as error:
            self._lifeline.check()
            if transport.is_active() and "Timeout" in str(error):
                raise AgentError(
                    "ssh-timed-out", "the host does not open a session", saw=str(error)
                ) from None
            raise LinkLostError(str(error) or type(error).__name__) from None


# $1 is the command, $2 its time. What the outer shell itself would say (`Killed`) is nobody's output; dash applies a
# redirection of `timeout` to itself while it waits, so the inner shell takes standard error back.
_BOUNDED = """
exec 3>&2 2>/dev/null
timeout -k 1 "$2" sh -c 'exec 2>&3 3>&-; eval "$1"' sh "$1"
exit $?
"""


def _place(route: Route, number: int) -> str:
    hop = route.hops[number]
    where = hop.host if hop.host == hop.name else f"{hop.name} ({hop.host})"
    if hop.port != 22:
        where = f"{where} port {hop.port}"
    return where if number == len(route.hops) - 1 else f"the jump host {where}"


def _late(what: str, seconds: float, saw: str) -> AgentError:
    waited = f"nothing more within {seconds:.0f} s"
    return AgentError("ssh-timed-out", f"{{}} {what}", saw=f"{saw}, then {waited}" if saw else waited)


def _not_forwarded(saw: str, number: int, jump: str, hop: Hop) -> AgentError:
    """Say why a jump host does not connect further. sshd tells it in words only."""
    words = saw.lower()
    sentence, hint = f"{jump} cannot connect to {hop.host} port {hop.port}", None
    if "refused" in words:
        code = "ssh-refused"
    elif "timed out" in words or "timeout" in words:
        code = "ssh-timed-out"
    elif "route" in words or "unreachable" in words:
        code = "ssh-no-route"
    elif "not known" in words or "resol" in words or "no address" in words:
        code = "host-name-unknown"
    else:
        code, sentence = "ssh-failed", f"{jump} does not connect to {hop.host} port {hop.port}"
        hint = "`AllowTcpForwarding` and `PermitOpen` in its sshd_config decide that"
    return AgentError(code, sentence, saw=f"{saw} (code {number})", hint=hint)
