"""One SSH connection: made through all jump hosts, verified, logged in, used for commands, and closed."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import paramiko

from agent.core.backoff import Backoff
from agent.core.codes import fix
from agent.core.errors import AgentError
from agent.core.transport import CancelledError, ConnectionLostError
from agent.ssh import sockets
from agent.ssh.channel import HUNG, SshChannel
from agent.ssh.config import PATIENCE, PORT
from agent.ssh.sockets import SocketCancelToken, SocketHandle
from agent.ssh.transport import BROKEN, ServerBusyError, SshTimeouts, SshTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from agent.core.codes import CodeName
    from agent.ssh.config import Hop, Route
    from agent.ssh.identities import IdentityStore
    from agent.ssh.known_hosts import KnownHosts, PublishedKeys
    from agent.ssh.login_limit import LoginLimiter

__all__ = [
    "CancelledError",
    "ConnectionLostError",
    "SocketCancelToken",
    "SshChannel",
    "SshConnection",
    "SshTimeouts",
    "connect",
]

# For a server that closes before its banner (MaxStartups): pauses of up to 0.75, 1.5, 3, 6 and 12 seconds.
_TRIES = 6
_BACKOFF = Backoff(first=0.75, cap=12.0, least=0.5)
# Pauses before a refused session is requested again, in seconds.
_PAUSES = (0.05, 0.1, 0.2, 0.4)
_TIMEOUTS = SshTimeouts()
# How long the threads of a closed connection may take to end, in seconds.
_JOIN = 2.0


def connect(
    route: Route,
    *,
    known: KnownHosts,
    identity_store: IdentityStore,
    trust_new: bool,
    cancel_token: SocketCancelToken,
    login_limiter: LoginLimiter,
    timeouts: SshTimeouts = _TIMEOUTS,
    published: Callable[[], PublishedKeys] | None = None,
) -> SshConnection:
    """Log in at every hop of the route, each through the one before.

    `published` returns host keys of the target that count beside its known hosts; it is called when they are needed.
    Raises AgentError with the cause, CancelledError when the token is cancelled.
    """
    connection = SshConnection(cancel_token, timeouts)
    try:
        for number in range(len(route.hops)):
            connection.add_hop(
                route,
                number,
                known=known,
                identity_store=identity_store,
                trust_new=trust_new,
                login_limiter=login_limiter,
                published=published if number == len(route.hops) - 1 else None,
            )
    except BaseException:
        connection.close()
        raise
    return connection


class SshConnection:
    """A connection that is logged in. One thread makes, uses and closes it; another may only cancel its token."""

    def __init__(self, cancel_token: SocketCancelToken, timeouts: SshTimeouts) -> None:
        self._cancel_token = cancel_token
        self._timeouts = timeouts
        self._handles: list[SocketHandle] = []
        self._transports: list[SshTransport] = []
        self._trusted: list[str] = []

    @property
    def trusted(self) -> str | None:
        """The fingerprints of host keys that this connection was the first to trust, None when there is none.

        One without a name is that of the target.
        """
        return ", ".join(self._trusted) or None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_hop(
        self,
        route: Route,
        number: int,
        *,
        known: KnownHosts,
        identity_store: IdentityStore,
        trust_new: bool,
        login_limiter: LoginLimiter,
        published: Callable[[], PublishedKeys] | None = None,
    ) -> None:
        """Log in at hop `number`; a server that drops the connection has too many logins, and is tried again."""
        server = tuple((each.host, each.port) for each in route.hops[: number + 1])
        for attempt in range(1, _TRIES + 1):
            try:
                with login_limiter.slot(server, self._cancel_token), self._naming_hop(route, number):
                    return self._enter(
                        route,
                        number,
                        known=known,
                        identity_store=identity_store,
                        trust_new=trust_new,
                        published=published,
                    )
            except ServerBusyError as dropped:
                if attempt == _TRIES:
                    output = str(dropped) or "the connection was closed before it sent anything"
                    raise AgentError(
                        "ssh-failed",
                        f"{_place(route, number)} drops connections",
                        saw=f"{output}, {_TRIES} times",
                        hint="its `MaxStartups` may be too low, or it bans this address; "
                        f"`ssh -v {_typed(route.hops[number])}` from here",
                    ) from None
            self._cancel_token.wait(_BACKOFF.pause(attempt))
        raise AssertionError(server)

    def open_command(self, command: str) -> SshChannel:
        """Run a command on the target with its two outputs and its input open."""
        transport = self._transports[-1]
        with self._open_session_errors(transport):
            channel = self._session(transport)
            return SshChannel(channel, command, self._cancel_token, self._timeouts.channel)

    def _session(self, transport: SshTransport) -> paramiko.Channel:
        """Open a session. With MaxSessions 1 the server may not have ended the one before yet."""
        for pause in _PAUSES:
            try:
                return transport.open_session(timeout=self._timeouts.channel)
            except paramiko.ChannelException:  # noqa: PERF203 -- a refusal is rare
                self._cancel_token.wait(pause)
        return transport.open_session(timeout=self._timeouts.channel)

    def close(self) -> None:
        """End the connection, from the target back to the first hop, with its threads and sockets."""
        _close(self._handles, self._transports)
        self._handles.clear()
        self._transports.clear()

    # --- one login

    def _enter(
        self,
        route: Route,
        number: int,
        *,
        known: KnownHosts,
        identity_store: IdentityStore,
        trust_new: bool,
        published: Callable[[], PublishedKeys] | None,
    ) -> None:
        hop = route.hops[number]
        handles, transports = len(self._handles), len(self._transports)
        try:
            transport = SshTransport(
                self._socket(route, number), hop, _place(route, number), self._cancel_token, self._timeouts
            )
            self._transports.append(transport)
            transport.exchange_keys(known, self._handles[0].proxy if number == 0 else None, published)
            fresh = transport.verify(known, trust_new=trust_new, published=published)
            transport.authenticate(identity_store)
        except BaseException:
            # close what this login opened, and keep the hops before it
            _close(self._handles[handles:], self._transports[transports:])
            del self._handles[handles:], self._transports[transports:]
            raise
        if fresh:
            is_target = number == len(route.hops) - 1
            self._trusted.append(fresh if is_target else f"{fresh} of {_place(route, number)}")

    def _socket(self, route: Route, number: int) -> Any:
        hop = route.hops[number]
        if number:
            return self._transports[-1].open_channel(
                "direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=hop.timeout or PATIENCE
            )
        if hop.proxy_command:
            handle = sockets.start_proxy_command(
                hop.proxy_command, shell=route.shell, cancel_token=self._cancel_token
            )
        else:
            family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(hop.family, socket.AF_UNSPEC)
            handle = sockets.connect_tcp(
                hop.host,
                hop.port,
                family=family,
                source=hop.source,
                timeout=hop.timeout or PATIENCE,
                cancel_token=self._cancel_token,
            )
        self._handles.append(handle)
        return handle.sock

    # --- what a failure is called

    @contextlib.contextmanager
    def _naming_hop(self, route: Route, number: int) -> Iterator[None]:
        """Name the hop in every error, and turn paramiko's into AgentError."""
        place = _place(route, number)
        try:
            yield
        except AgentError as error:
            sentence = error.sentence
            if number < len(route.hops) - 1 and place not in sentence:
                sentence = f"{place}: {sentence}"
            hint = _hint(error.code.name, route.hops[number]) if error.hint == error.code.fix else error.hint
            raise AgentError(error.code.name, sentence, saw=error.saw, want=error.want, hint=hint) from None
        except paramiko.ChannelException as error:
            saw = self._transports[-1].refusal or error.text
            raise _not_forwarded(saw, error.code, _place(route, number - 1), route.hops[number]) from None
        except BROKEN as error:
            self._cancel_token.raise_if_cancelled()
            late = "Timeout" in str(error)
            code: CodeName = "ssh-timed-out" if late else "ssh-failed"
            raise AgentError(
                code,
                f"{place} could not be reached" if number else f"{place} ended the connection",
                saw=str(error) or type(error).__name__,
                hint=_hint(code, route.hops[number]),
            ) from None

    @contextlib.contextmanager
    def _open_session_errors(self, transport: SshTransport) -> Iterator[None]:
        try:
            yield
        except paramiko.ChannelException as error:
            raise AgentError(
                "ssh-failed",
                "the host refuses another session",
                saw=transport.refusal or error.text,
                hint="`MaxSessions` in its sshd_config, or a forced command",
            ) from None
        except BROKEN as error:
            self._cancel_token.raise_if_cancelled()
            if transport.is_active() and "Timeout" in str(error):
                raise AgentError(
                    "ssh-timed-out", "the host does not open a session", saw=str(error), hint=HUNG
                ) from None
            raise ConnectionLostError(str(error) or type(error).__name__) from None


def _close(handles: Sequence[SocketHandle], transports: Sequence[SshTransport]) -> None:
    for transport in reversed(transports):
        if not isinstance(transport.sock, paramiko.Channel):
            # paramiko closes the socket under its thread, which notices only at its next turn, 0.1 s later
            for handle in handles:
                handle.shut()
        with contextlib.suppress(*BROKEN):
            transport.close()
    for handle in handles:
        handle.close()
    for transport in transports:
        if transport.ident is not None:
            transport.join(_JOIN)
        transport.packetizer.complete_handshake()  # paramiko leaves its timer running after a failure
        with contextlib.suppress(*BROKEN):
            transport.sock.close()


def _place(route: Route, number: int) -> str:
    """Return how errors name a hop."""
    hop = route.hops[number]
    where = hop.host if hop.host == hop.name else f"{hop.name} ({hop.host})"
    if hop.port != 22:
        where = f"{where} port {hop.port}"
    return where if number == len(route.hops) - 1 else f"the jump host {where}"


def _hint(code: CodeName, hop: Hop) -> str:
    """Return the hint of a code with what a person types for this hop."""
    typed = _typed(hop)
    values = {"USER@HOST": f"{hop.user}@{typed}", "HOST": typed, "NAME": hop.host, "ADDRESS": hop.host}
    if hop.keys:
        values["FILE"] = hop.keys[0]
    return fix(code, **values)


def _typed(hop: Hop) -> str:
    return hop.name if hop.port == PORT else f"{hop.name} -p {hop.port}"


def _not_forwarded(saw: str, number: int, jump: str, hop: Hop) -> AgentError:
    """Return why a jump host does not connect further. sshd reports it as text only."""
    words = saw.lower()
    sentence, hint = f"{jump} cannot connect to {hop.host} port {hop.port}", None
    code: CodeName
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
    return AgentError(code, sentence, saw=f"{saw} (code {number})", hint=hint or _hint(code, hop))
