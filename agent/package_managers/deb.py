"""Debian and Ubuntu: dpkg's database, apt-get for the transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.components import LINUX_PACKAGES
from agent.package_managers.protocol import (
    Condition,
    Installed,
    failure,
    run_transaction,
    unreadable_database,
    with_its_files,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.host import CommandResult, Host, HostView
    from agent.core.model import Notice
    from agent.core.timeouts import Timeouts

_QUERY = ("dpkg-query", "-W", "-f=${Package}\\t${Version}\\t${db:Status-Abbrev}\\t${Status}\\n")
# Keep a configuration file that was changed, and do not ask: the agent has no terminal.
_OPTIONS = (
    "-y",
    "-q",
    "--no-install-recommends",
    "-o", "Dpkg::Options::=--force-confold",
    "-o", "Dpkg::Use-Pty=0",
    # if it is on, apt would try to remove packages that are no longer needed, and --no-remove would make it refuse
    "-o", "APT::Get::AutomaticRemove=false",
    "-o", "APT::Sandbox::User=root",  # the verified file lies in a folder that the user _apt may not enter
)  # fmt: skip
# Best effort: a host in a private subnet reaches no mirror, and apt would try for many minutes.
_UPDATE = (
    "apt-get", "update", "-q",
    "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20",
)  # fmt: skip

# not apt-get: it would remove packages that need these without a message
# a package that dpkg marks for reinstallation may be removed too
_REMOVE = ("--remove", "--force-remove-reinstreq")

_REPAIR = "repair it: `dpkg --audit`, `dpkg --configure -a`"


@dataclass(frozen=True)
class Deb:
    """dpkg and apt-get, for the packages of these names."""

    names: tuple[str, ...] = LINUX_PACKAGES

    @property
    def locks(self) -> tuple[str, ...]:
        return ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/cache/apt/archives/lock")

    @property
    def version_parts(self) -> None:
        return None

    @property
    def knows_scripts(self) -> bool:
        return True

    def installed(self, view: HostView) -> tuple[Installed, ...]:
        done = view.query((*_QUERY, *self.names), timeout=30)
        # 1: no package of that name is known; anything above is a damaged database
        if done.status not in (0, 1):
            raise unreadable_database(done, "dpkg", _REPAIR)
        rows = (line.split("\t") for line in done.out.splitlines() if line.count("\t") == 3)
        found = [
            Installed(package, version, _condition(short), _remark(short, status))
            for package, version, short, status in rows
            # `un` was never installed, `rc` left only its configuration files
            if package in self.names and short[1:2] not in ("n", "c") and version
        ]
        return tuple(
            with_its_files(view, each, _listed) for each in sorted(found, key=lambda each: each.package)
        )

    def finish(self, host: Host, package: str, limits: Timeouts) -> None:
        argv = ("dpkg", "--configure", "--force-confold", package)
        _judge(run_transaction(host, self, argv, limits, _busy), argv)

    def install(self, host: Host, files: Sequence[str], limits: Timeouts) -> tuple[Notice, ...]:
        broken = [each.package for each in self._repaired(host, limits) if not each.is_complete]
        again = [file for file in files if file.rpartition("/")[2].partition("_")[0] in broken]
        if again:
            # apt-get would not unpack an installed version again, so a corrected script would not arrive
            run_transaction(host, self, ("dpkg", "--install", "--force-confold", *again), limits, _busy)
        # --no-remove: apt would remove a conflicting package without a message
        argv = ("apt-get", "install", "--no-remove", *_OPTIONS, *files)
        done = run_transaction(host, self, argv, limits, _busy)
        if not done.ok and "unmet dependencies" in done.out + done.err:
            # A fresh cloud image has empty package lists, so a dependency may only seem to be missing.
            run_transaction(host, self, _UPDATE, limits, _busy)
            done = run_transaction(host, self, argv, limits, _busy)
        _judge(done, argv)
        return ()

    def check_signature(self, view: HostView, file: str) -> tuple[Notice, ...]:  # noqa: ARG002
        """Do nothing: dpkg checks no signature of a single file; the checksum is the proof."""
        return ()

    def require_removable(self, host: Host, packages: Sequence[str], limits: Timeouts) -> None:
        argv = ("dpkg", "--simulate", *_REMOVE, *packages)
        _judge(run_transaction(host, self, argv, limits, _busy), argv)

    def remove(self, host: Host, packages: Sequence[str], limits: Timeouts) -> None:
        # checked first: dpkg would mark even a package that it refuses as to be removed
        self.require_removable(host, packages, limits)
        argv = ("dpkg", *_REMOVE, *packages)
        _judge(run_transaction(host, self, argv, limits, _busy), argv)

    def _repaired(self, host: Host, limits: Timeouts) -> tuple[Installed, ...]:
        """Finish what a killed dpkg left: until then apt-get refuses everything. Return the packages afterwards."""
        pending = any(name.isdigit() for name in host.list_dir("/var/lib/dpkg/updates"))
        found = () if pending else self.installed(host)
        if pending or any(not each.is_complete for each in found):
            run_transaction(host, self, ("dpkg", "--configure", "-a", "--force-confold"), limits, _busy)
            found = self.installed(host)
        return found


def _listed(view: HostView, package: str) -> tuple[str, ...]:
    """Return the paths of a package in the database; a line of dpkg's output that is no path is left out."""
    done = view.query(("dpkg-query", "-L", package), timeout=30)
    if not done.ok:
        raise unreadable_database(done, "dpkg", _REPAIR)
    return tuple(line for line in done.out.splitlines() if line.startswith("/"))


def _busy(done: CommandResult) -> bool:
    output = done.err + done.out
    return "Could not get lock" in output or "frontend lock was locked by" in output


def _condition(short: str) -> Condition:
    """Parse the three letters: wanted state, present state, and R where dpkg itself asks for a reinstallation.

    A package on hold, or marked for removal, is not broken. One that awaits the triggers of another (W) has all
    its files and ran all its scripts. dpkg completes one that was unpacked (U), half configured (F), or has triggers of
    its own to run (t); which files a half installed one (H) has is unknown.
    """
    if short[2:3] == "R":
        return Condition.BROKEN
    if short[1:2] in ("i", "W"):
        return Condition.COMPLETE
    return Condition.UNFINISHED if short[1:2] in ("U", "F", "t") else Condition.BROKEN


def _remark(short: str, status: str) -> str | None:
    return None if short[1:].strip() == "i" else " ".join(status.split()[1:]).replace("ok ", "")


def _judge(done: CommandResult, argv: Sequence[str]) -> None:
    if done.ok:
        return
    lines = [
        line.strip()
        for line in (done.err + "\n" + done.out).splitlines()
        if line.startswith(("E:", "dpkg:", " "))
    ]
    raise failure(done, argv, saw="; ".join(lines[-6:]))
