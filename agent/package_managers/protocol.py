"""The interface to a package manager, and the wait for its locks that all of them share."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.core.codes import CodeName
    from agent.core.host import CommandResult, Host, HostView
    from agent.core.model import Notice
    from agent.core.timeouts import Timeouts

# The causes in a failing manager's output: a pattern, the code, and the hint (None: the code's own). Repeating
# the command would only fail again.
_CAUSES: tuple[tuple[str, CodeName, str | None], ...] = (
    (
        r"No space left on device|more space needed on|needs \d+\w*( more)?( inodes| space)? on the \S+ filesystem",
        "no-space",
        None,
    ),
    (
        r"Too many open files|fork.{0,40}(Resource temporarily unavailable|failed)|Cannot allocate memory",
        "no-resources",
        None,
    ),
    (
        # all output of a quiet dnf for a file that exists and whose package name is excluded
        r"exclude filtering|Unable to find a match",
        "package-failed",
        "`excludepkgs` (or `exclude`) in /etc/dnf/dnf.conf keeps this package away: take its name out there",
    ),
    (
        r"is not signed|GPG check FAILED|Public key for \S+ is not installed",
        "package-failed",
        "`localpkg_gpgcheck=1` in /etc/dnf/dnf.conf wants a signature besides the SHA-256: set it to 0, or sign a copy",
    ),
    (
        r"[Hh]eld packages were changed",
        "package-failed",
        "the package is on hold: `apt-mark showhold` names it, `apt-mark unhold NAME` lets it be changed",
    ),
)
# how often a busy lock is checked again, in seconds
_LOOK_AGAIN = 0.5


class Condition(Enum):
    """How much of a package in the database is on the host."""

    COMPLETE = "complete"
    UNFINISHED = (
        "unfinished"  # every file is in its place, and the manager can complete the rest without the package
    )
    BROKEN = "broken"  # files may be missing, or be those of two versions: it has to be installed again


@dataclass(frozen=True)
class Installed:
    """A package in the host's database.

    `remark` is the manager's own word for an unusual state, None for a normal one. `pending_reboot_file` is a file of
    it that only the next start of the host puts in its place, None when there is none.
    """

    package: str
    version: str
    condition: Condition = Condition.COMPLETE
    remark: str | None = None
    pending_reboot_file: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.condition is Condition.COMPLETE


# The files of a package that are run or loaded, and never empty; of those in `bin` these are surely programs (facts
# 3.1).
_RUN = re.compile(r"configure(-[a-z0-9-]+)?|cloudhsm-cli")
_LOADED = re.compile(r".+\.(so(\.\d+)*|jar)")


def with_its_files(
    view: HostView, each: Installed, listed: Callable[[HostView, str], tuple[str, ...]]
) -> Installed:
    """Return a package with its state: it is broken if a program or library of it is missing or cannot be used.

    `listed` returns the paths of a package; an empty list means that the manager's own record is lost, since every
    package has some. Configuration does not count, since another step checks it.
    """
    if not each.is_complete:
        return each
    paths = listed(view, each.package)
    if not paths:
        return replace(each, condition=Condition.BROKEN, remark="the list of its files is lost")
    root = view.system.join(view.system.programs, "cloudhsm")
    parts = tuple(f"{root}/{part}/" for part in ("bin", "lib", "java"))
    faults = {path: _fault(view, path) for path in paths if path.startswith(parts)}
    spoilt = [path for path, fault in faults.items() if fault is not None]
    if not spoilt:
        return each
    more = f" and {len(spoilt) - 1} more" if len(spoilt) > 1 else ""
    return replace(each, condition=Condition.BROKEN, remark=f"{spoilt[0]}{more} {faults[spoilt[0]]}")


def _fault(view: HostView, path: str) -> str | None:
    """Return what is wrong with one file of a package, None for nothing. The target of a link is not the package's."""
    stat = view.stat(path)
    if stat is None:
        return "missing"
    folder, _, name = path.rpartition("/")
    is_run = folder.endswith("/bin") and _RUN.fullmatch(name) is not None
    if stat.kind == "link" or not (is_run or _LOADED.fullmatch(name)):
        return None
    if stat.kind != "file":
        return "not a file"
    if not stat.size:
        return "empty"
    return "not executable" if is_run and not stat.mode & 0o100 else None


class PackageManager(Protocol):
    """One family of package managers. Implementations are stateless and frozen."""

    @property
    def locks(self) -> tuple[str, ...]:
        """The fcntl lock files that an installation takes."""

    @property
    def version_parts(self) -> int | None:
        """How many parts of a version the database has: three of 5.18.0-1 on Windows, None for all of them."""

    @property
    def knows_scripts(self) -> bool:
        """Whether a package that the database calls installed has run all its scripts to their ends."""

    def installed(self, view: HostView) -> tuple[Installed, ...]:
        """Return the packages of AWS in the database, sorted by name; leftovers of removed ones are not listed.

        Only the names in cloudhsm/components.py count, whatever a site calls its own packages.
        """

    def finish(self, host: Host, package: str, limits: Timeouts) -> None:
        """Complete one unfinished package, with the files on the host. Raises AgentError as `install` does."""

    def install(self, host: Host, files: Sequence[str], limits: Timeouts) -> tuple[Notice, ...]:
        """Install local, already verified files in one transaction, and return remarks that the manager printed.

        Installed packages, intact or not, are installed again. Raises AgentError `package-failed`, `package-locked`
        and, when the manager reports it, `no-space`.
        """

    def check_signature(self, view: HostView, file: str) -> tuple[Notice, ...]:
        """Return remarks about a file's own signature, in addition to the checksum that was compared.

        Raises AgentError `checksum-mismatch` when the signature proves that the file was changed.
        """

    def require_removable(self, host: Host, packages: Sequence[str], limits: Timeouts) -> None:
        """Raise AgentError `package-failed` when another package needs one of these, if that is known before."""

    def remove(self, host: Host, packages: Sequence[str], limits: Timeouts) -> None:
        """Remove these packages and no other, and keep what they leave in /opt. Raises AgentError as `install` does.

        A package that another one needs is not removed: `package-failed`.
        """


def lock_holder(view: HostView, manager: PackageManager) -> str | None:
    """Return who holds a lock of the manager as text, such as `apt-get (pid 812) holds /var/lib/dpkg/lock`."""
    for path in manager.locks:
        holder = view.lock_holder(path)
        if holder is not None:
            return f"{holder.name or 'a process'} (pid {holder.pid}) holds {path}"
    return None


def failure(done: CommandResult, argv: Sequence[str], saw: str = "") -> AgentError:
    """Return the error for a failed transaction: with the manager's own message, or the given one.

    The command can be repeated by hand as shown: the file that it names stays in place until it is installed.
    """
    output = done.out + done.err
    line = " ".join(argv)
    code, hint = next(
        (found[1:] for found in _CAUSES if re.search(found[0], output)),
        ("package-failed", f"run `{line}` by hand and repair what it says, then run this again"),
    )
    return AgentError(
        code,
        f"{argv[0]} did not end in time" if done.timed_out else f"{argv[0]} exited {done.status}",
        saw=("still running when its time ran out; " if done.timed_out else "") + (saw or done.tail(6)),
        want="exit 0",
        hint=hint,
    )


def unreadable_database(done: CommandResult, name: str, hint: str) -> AgentError:
    """Return the error for a manager's database that gives no answer."""
    code, remedy = next(
        (found[1:] for found in _CAUSES if re.search(found[0], done.err)), ("package-failed", hint)
    )
    return AgentError(
        code, f"{name}'s database cannot be read", saw=done.tail(3), want="an answer", hint=remedy
    )


def _refusal(done: CommandResult, argv: Sequence[str]) -> str:
    return done.tail(2) or f"{argv[0]} exited {done.status}"


def run_transaction(
    host: Host,
    manager: PackageManager,
    argv: Sequence[str],
    limits: Timeouts,
    busy: Callable[[CommandResult], bool],
) -> CommandResult:
    """Run one package transaction once the locks are free, and again when another program took them first.

    Checks of the lock, before and after, decide; `busy` recognises the manager's own refusal, for holders that have
    released it by then. apt's own wait (DPkg::Lock::Timeout) does not cover all of its locks, dnf waits
    without end, rpm not at all: so the agent waits itself. `limits.lock` never cuts a transaction in progress short.

    Raises AgentError `package-locked` with the holder's name.
    """
    began = host.monotonic()
    busy_with = ""
    try:
        while not busy_with or host.monotonic() < began + limits.lock:
            if busy_with:
                host.sleep(_LOOK_AGAIN)
            busy_with = lock_holder(host, manager) or ""
            if not busy_with:
                done = host.run(argv, timeout=limits.package)
                if done.ok or done.timed_out:
                    return done
                busy_with = lock_holder(host, manager) or (_refusal(done, argv) if busy(done) else "")
                if not busy_with:
                    return done
    except AgentError as error:
        # the time of the run is up: it was spent waiting for the lock
        if not busy_with or error.code.name != "timed-out":
            raise
    raise AgentError(
        "package-locked",
        "the package manager's lock did not become free",
        saw=f"{busy_with}, still after {host.monotonic() - began:.0f} s",
        want="a free lock",
    )
