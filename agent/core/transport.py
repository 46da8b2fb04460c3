"""What a roll-out wants of a connection to a host, whoever makes it, and how one ends before its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from agent.core.fleet_model import Target


class ConnectionLostError(Exception):
    """The connection broke: what runs over there goes on, and a new connection may find its result."""


class CancelledError(Exception):
    """The cancel token is cancelled: whoever watches this connection gave it up."""

    def __init__(self) -> None:
        super().__init__("the connection was cut by its watchdog")


class CancelToken(Protocol):
    """Cancelled, it ends every wait that it was given to."""

    def cancel(self) -> None: ...

    def wait(self, seconds: float) -> None:
        """Wait so long, or raise CancelledError as soon as it is cancelled."""


class CommandChannel(Protocol):
    """A command that runs on a host, with all three of its streams."""

    def send(self, data: bytes) -> None: ...

    def receive(self, *, timeout: float = ...) -> bytes:
        """Return what comes next on standard output, empty at its end; AgentError `ssh-timed-out` when nothing does."""

    def close_stdin(self) -> None: ...

    def status(self) -> int | None:
        """Return the exit status, None after death by a signal."""

    def errors(self) -> bytes:
        """Return the end of standard error."""


class Connection(Protocol):
    """A connection to a host, as whoever it was asked to connect as."""

    @property
    def trusted(self) -> str | None: ...

    def open_command(self, command: str) -> AbstractContextManager[CommandChannel]: ...


class Connector(Protocol):
    """Makes connections to hosts."""

    def endpoints(
        self, targets: Sequence[Target], stopped: Callable[[], bool], /
    ) -> Mapping[str, tuple[str, int]]:
        """Return for each target's name the name or address, and the port, that are connected to."""

    def open(self, target: Target, cancel_token: Any, /) -> AbstractContextManager[Connection]:
        """Connect and log in. Raises AgentError with the cause, CancelledError when the token is cancelled."""
