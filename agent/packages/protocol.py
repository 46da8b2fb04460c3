"""What a package manager must answer, and the wait for its locks that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.core.host import Done, Host, HostView
    from agent.core.limits import Limits

# how often a busy lock is looked at again, in seconds
_LOOK_AGAIN = 0.5


@dataclass(frozen=True)
class Installed:
    """A package in the host's database. `broken` says in the manager's own word what is unfinished, None when clean."""

    package: str
    version: str
    broken: str | None = None


class PackageManager(Protocol):
    """One family of package managers. Implementations are stateless and frozen."""

    @property
    def locks(self) -> tuple[str, ...]:
        """The fcntl lock files that an installation takes."""

    def installed(self, view: HostView) -> tuple[Installed, ...]:
        """Return the CloudHSM packages the database knows, sorted by name; leftovers of removed ones are not listed."""

    def install(self, host: Host, files: Sequence[str], limits: Limits) -> None:
        """Install local, already verified files in one transaction.

        Raises AgentError `package-failed`, `package-locked`.
        """

    def remove(self, host: Host, packages: Sequence[str], limits: Limits) -> None:
        """Remove packages and keep what they leave in /opt. Raises AgentError as `install` does."""


def lock_holder(view: HostView, manager: PackageManager) -> str | None:
    """Return who holds a lock of the manager in words, such as `apt-get (pid 812) holds /var/lib/dpkg/lock`."""
    for path in manager.locks:
        holder = view.holder(path)
        if holder is not None:
            return f"{holder.name or 'a process'} (pid {holder.pid}) holds {path}"
    return None


def transact(
    host: Host, manager: PackageManager, argv: Sequence[str], limits: Limits, busy: Callable[[Done], bool]
) -> Done:
    """Run one package transaction once the locks are free, and again when another program was quicker to them.

    Looking at the lock, before and after, decides; `busy` reads the manager's own refusal, for holders that have
    let go by the time we look. apt's own wait (DPkg::Lock::Timeout) does not cover all of its locks, dnf waits
    without end, rpm not at all: so the wait is ours. A transaction in progress is never cut short by `limits.lock`.

    Raises AgentError `package-locked` with the holder's name, `package-failed` when it took longer than
    `limits.package` seconds.
    """
    deadline = host.monotonic() + limits.lock
    refused: Done | None = None
    while True:
        held = lock_holder(host, manager)
        if held is None:
            done = host.do(argv, timeout=limits.package)
            if done.timed_out:
                raise AgentError(
                    "package-failed",
                    f"`{' '.join(argv)}` did not end",
                    saw=f"still running after {limits.package:g} s; {done.tail(3)}",
                    want="an end",
                )
            if done.ok or not (busy(done) or lock_holder(host, manager)):
                return done
            refused = done
        if host.monotonic() >= deadline:
            break
        host.pause(_LOOK_AGAIN)
    raise AgentError(
        "package-locked",
        "the package manager's lock did not become free",
        saw=f"{held or (refused.tail(2) if refused else 'busy')} after {limits.lock:g} s",
        want="a free lock",
    )
