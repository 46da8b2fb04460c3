"""Amazon Linux and Red Hat: rpm's database, dnf (yum where there is no dnf) for the transaction."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.components import LINUX_PACKAGES
from agent.core.model import Notice
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
    from agent.core.timeouts import Timeouts

_QUERY = ("rpm", "-qa", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}\\n")
# A repository that cannot be reached is given up soon; dnf's own limit is ten times 30 seconds for each.
_SHORTLY = ("--setopt=timeout=20", "--setopt=retries=2")
_REMARKS = 3

_REPAIR = "repair it: `rpm --rebuilddb`"


@dataclass(frozen=True)
class Rpm:
    """rpm and dnf, for the packages of these names.

    dnf would downgrade to an older file without a message and exit 0: the caller refuses that first.
    """

    names: tuple[str, ...] = LINUX_PACKAGES

    @property
    def locks(self) -> tuple[str, ...]:
        return (
            "/var/lib/rpm/.rpm.lock",
            "/usr/lib/sysimage/rpm/.rpm.lock",  # newer rpm keeps its database here
        )

    @property
    def version_parts(self) -> None:
        return None

    @property
    def knows_scripts(self) -> bool:
        return False

    def installed(self, view: HostView) -> tuple[Installed, ...]:
        return tuple(
            with_its_files(view, _installed(name, versions), _listed)
            for name, versions in self._versions(view).items()
        )

    def finish(self, host: Host, package: str, limits: Timeouts) -> None:
        """Remove the older of two versions, which a killed upgrade left; the files of the newer one stay."""
        for old in self._versions(host).get(package, ())[:-1]:
            self._run(host, ("rpm", "-e", f"{package}-{old}"), limits)

    def install(self, host: Host, files: Sequence[str], limits: Timeouts) -> tuple[Notice, ...]:
        there = self.installed(host)
        for each in there:
            if each.condition is Condition.UNFINISHED:
                self.finish(host, each.package, limits)
        # dnf does not reinstall an installed version, even if its files are missing
        broken = tuple(
            f"{each.package}-{each.version}." for each in there if each.condition is Condition.BROKEN
        )
        again = [file for file in files if file.rpartition("/")[2].startswith(broken)]
        if again:
            self._run(host, _argv(host, "reinstall", "--disablerepo=*", *again), limits)
        # Without the repositories first: a host in a private subnet cannot reach them, and most often needs none.
        argv = _argv(host, "install", "--disablerepo=*", *files)
        alone = run_transaction(host, self, argv, limits, _busy)
        if alone.ok:
            return _scripts_that_failed(alone)
        if not _lacks(alone):
            raise failure(alone, argv)
        argv = _argv(host, "install", *_SHORTLY, *files)
        helped = run_transaction(host, self, argv, limits, _busy)
        if not helped.ok:
            # the missing dependency is the cause, whatever the repositories report
            raise failure(helped, argv, saw=f"{alone.tail(3)}\nand with the repositories:\n{helped.tail(6)}")
        return _scripts_that_failed(helped)

    def check_signature(self, view: HostView, file: str) -> tuple[Notice, ...]:  # noqa: ARG002
        """Do nothing: dnf checks signatures where it is configured to, and reports them."""
        return ()

    def require_removable(self, host: Host, packages: Sequence[str], limits: Timeouts) -> None:
        self._run(host, ("rpm", "-e", "--test", "--allmatches", *packages), limits)

    def remove(self, host: Host, packages: Sequence[str], limits: Timeouts) -> None:
        # rpm is asked first: dnf would remove, without a message, all that needs these packages, and what they needed
        self.require_removable(host, packages, limits)
        self._run(host, _argv(host, "remove", "--setopt=clean_requirements_on_remove=0", *packages), limits)

    def _run(self, host: Host, argv: tuple[str, ...], limits: Timeouts) -> None:
        done = run_transaction(host, self, argv, limits, _busy)
        if not done.ok:
            raise failure(done, argv)

    def _versions(self, view: HostView) -> dict[str, list[str]]:
        """Return name -> versions, the oldest first; the same one for two processors counts once."""
        done = view.query((*_QUERY, *self.names), timeout=60)
        if not done.ok:
            raise unreadable_database(done, "rpm", _REPAIR)
        found: dict[str, set[str]] = {}
        for line in done.out.splitlines():
            name, tab, version = line.partition("\t")
            if tab and name in self.names:
                found.setdefault(name, set()).add(version)
        return {name: sorted(found[name], key=_by_number) for name in sorted(found)}


def _by_number(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _installed(name: str, versions: Sequence[str]) -> Installed:
    *old, newest = versions
    if not old:
        return Installed(name, newest)
    return Installed(name, newest, Condition.UNFINISHED, f"installed twice, also {', '.join(old)}")


def _scripts_that_failed(done: CommandResult) -> tuple[Notice, ...]:
    """Return a remark that rpm prints and forgets: it counts a package as installed although its last script failed."""
    lines = [line.strip() for line in (done.err + "\n" + done.out).splitlines() if "scriptlet" in line]
    failed = dict.fromkeys(line for line in lines if "fail" in line.lower() or line.startswith("Error in"))
    return tuple(Notice("package-script-failed", line) for line in list(failed)[:_REMARKS])


def _listed(view: HostView, package: str) -> tuple[str, ...]:
    """Return the paths of a package in the database; a line of rpm's output that is no path is left out."""
    done = view.query(("rpm", "-ql", package), timeout=30)
    if not done.ok:
        raise unreadable_database(done, "rpm", _REPAIR)
    return tuple(line for line in done.out.splitlines() if line.startswith("/"))


def _argv(view: HostView, verb: str, *words: str) -> tuple[str, ...]:
    # exit_on_lock: two instances of dnf would wait for each other without end
    # strict: if it is off, dnf skips a package with a missing dependency, and reports success
    options = ("-y", "-q", "--setopt=exit_on_lock=True", "--setopt=strict=True", "--setopt=skip_broken=False")
    return (_program(view), verb, *options, *words)


def _program(view: HostView) -> str:
    return "dnf" if view.stat("/usr/bin/dnf") else "yum"


def _busy(done: CommandResult) -> bool:
    output = done.err + done.out
    return done.status == 200 or "can't create transaction lock" in output


def _lacks(done: CommandResult) -> bool:
    """Tell whether another package must be installed too, by the messages of dnf or of yum."""
    output = done.err + done.out
    return "nothing provides" in output or "Requires:" in output
