"""The connection to a host as a roll-out uses it, whatever makes it, and how to cancel it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from agent.core.fleet_model import Target


class ConnectionLostError(Exception):
    """The connection broke: the program on the host continues, and a new connection may find its result."""


class CancelledError(Exception):
    """The cancel token is cancelled: its owner gave up this connection."""

    def __init__(self) -> None:
        super().__init__("the connection was cut by its watchdog")


class CancelToken(Protocol):
    """Once cancelled, it ends every wait that uses it."""

    def cancel(self) -> None: ...

    def wait(self, seconds: float) -> None:
        """Wait so many seconds, or raise CancelledError as soon as it is cancelled."""


class CommandChannel(Protocol):
    """A command that runs on a host, with all three of its streams."""

    def send(self, data: bytes) -> None: ...

    def receive(self, *, timeout: float = ...) -> bytes:
        """Return what comes next on standard output, empty at its end; AgentError `ssh-timed-out` if nothing comes."""

    def close_stdin(self) -> None: ...

    def status(self) -> int | None:
        """Return the exit status, None after death by a signal."""

    def errors(self) -> bytes:
        """Return the end of standard error."""


class Connection(Protocol):
    """A connection to a host, with the user's login."""

    @property
    def trusted(self) -> str | None: ...

    def open_command(self, command: str) -> AbstractContextManager[CommandChannel]: ...


class Connector(Protocol):
    """Makes connections to hosts."""

    def endpoints(
        self, targets: Sequence[Target], stopped: Callable[[], bool], /
    ) -> Mapping[str, tuple[str, int]]:
        """Return for each target's name the host name or address, and the port, to connect to."""

    def open(self, target: Target, cancel_token: Any, /) -> AbstractContextManager[Connection]:
        """Connect and log in. Raises AgentError with the cause, CancelledError when the token is cancelled."""
