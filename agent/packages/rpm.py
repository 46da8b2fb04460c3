"""Amazon Linux and Red Hat: rpm's database, dnf (yum where there is no dnf) for the transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.packages.protocol import Installed, failure, transact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.host import Done, Host, HostView
    from agent.core.limits import Limits

_QUERY = ("rpm", "-qa", "--qf", "%{NAME}\\t%{VERSION}-%{RELEASE}\\n", "cloudhsm-*")


@dataclass(frozen=True)
class Rpm:
    """rpm and dnf. dnf would downgrade to an older file without a word and exit 0: the caller refuses that first."""

    @property
    def locks(self) -> tuple[str, ...]:
        return (
            "/var/lib/rpm/.rpm.lock",
            "/usr/lib/sysimage/rpm/.rpm.lock",  # where newer rpm keeps its database
        )

    def installed(self, view: HostView) -> tuple[Installed, ...]:
        done = view.ask(_QUERY, timeout=60)
        if not done.ok:
            raise AgentError(
                "package-failed", "rpm's database cannot be read", saw=done.tail(3), want="an answer",
                hint="repair it: `rpm --rebuilddb`",
            )  # fmt: skip
        versions: dict[str, list[str]] = {}
        for line in done.out.splitlines():
            name, tab, version = line.partition("\t")
            if tab and version not in versions.setdefault(name, []):
                versions[name].append(version)
        return tuple(_installed(name, versions[name]) for name in sorted(versions))

    def install(self, host: Host, files: Sequence[str], limits: Limits) -> None:
        # Without the repositories first: a host in a private subnet cannot reach them, and most often needs none.
        alone = transact(host, self, _argv(host, "install", "--disablerepo=*", *files), limits, _busy)
        if not alone.ok:
            self._judged(host, _argv(host, "install", *files), limits)

    def remove(self, host: Host, packages: Sequence[str], limits: Limits) -> None:
        self._judged(host, _argv(host, "remove", *packages), limits)

    def _judged(self, host: Host, argv: Sequence[str], limits: Limits) -> None:
        done = transact(host, self, argv, limits, _busy)
        if not done.ok:
            raise AgentError(
                "package-failed",
                f"{argv[0]} exited {done.status}",
                saw=done.tail(6),
                want="exit 0",
                hint=f"run `{' '.join(argv)}` by hand and repair what it says, then run this again",
            )


def _argv(view: HostView, verb: str, *words: str) -> tuple[str, ...]:
    # exit_on_lock: dnf against dnf would wait without end
    return (_program(view), verb, "-y", "-q", "--setopt=exit_on_lock=True", *words)


def _program(view: HostView) -> str:
    return "dnf" if view.stat("/usr/bin/dnf") else "yum"


def _busy(done: Done) -> bool:
    said = done.err + done.out
    return done.status == 200 or "can't create transaction lock" in said
