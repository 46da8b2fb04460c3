"""A client package: bring it onto the host at one exact version, or take packages off."""

from __future__ import annotations

import contextlib
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

from agent.catalogue import parse_version
from agent.cloudhsm.disk_space import refuse_without_room, require_executable
from agent.core.errors import AgentError
from agent.core.model import Finding, Notice
from agent.core.urls import redact_url, scheme_of
from agent.package_managers import Condition
from agent.state.exposure import close_cache
from agent.state.pending import mark_pending

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from agent.cloudhsm.paths import ClientPaths
    from agent.core.codes import CodeName
    from agent.core.host import Host, HostView
    from agent.core.model import Value
    from agent.core.timeouts import Timeouts
    from agent.package_managers import Installed, PackageManager

# The vendor's packages are some 10 to 60 MB; a server that sends more than this sends something else.
_LARGEST = 512 * 1024 * 1024


@dataclass(frozen=True)
class Download:
    """One file of the vendor: where it is, and the SHA-256 it must have (None: nothing is known to compare with)."""

    url: str
    file: str
    sha256: str | None

    def path(self, view: HostView) -> str:
        return view.system.join(view.system.cache, self.file)

    def ensure_cached(self, host: Host, limits: Timeouts) -> None:
        """Have the verified file in the cache. A file that is there already and has the right hash is used."""
        path = self.path(host)
        close_cache(host, path, f"{path}.part", f"{path}.part.from")
        host.download(self.url, self.path(host), sha256=self.sha256, limit=_LARGEST, timeout=limits.download)


def require_authentic_source(url: str) -> None:
    """Raise AgentError `checksum-unknown` unless a file without a checksum comes from where its server proves itself.

    That is https, whose redirects never leave it, S3, a place on this machine, or the operator's end of a roll-out,
    which checks its own source. Its scripts run as root.
    """
    scheme = scheme_of(url)
    if scheme in (None, "https", "s3", "file", "pushed"):
        return
    file = redact_url(url).rpartition("/")[2]
    raise AgentError(
        "checksum-unknown",
        f"no checksum is known for {file}, and {scheme}: does not prove who sent it",
        saw=f"{scheme}:, and no checksum",
        want="https:, a directory, or a SHA-256",
        hint=f"pass `--sha256 {file}=HASH` from a source you trust,"
        " or name a --package-source with https: or a directory",
    )


@dataclass(frozen=True)
class Package:
    """One component's package at one version; `version` is `latest` for whatever the vendor calls so.

    `download` is None for a package that is there and is to stay as it is.
    """

    not_applied_code: ClassVar[CodeName] = "package-failed"

    component: str
    package: str
    version: str
    newest_known: str
    download: Download | None
    manager: PackageManager = field(repr=False)
    limits: Timeouts = field(repr=False)
    paths: ClientPaths = field(repr=False)

    @property
    def id(self) -> str:
        return f"package:{self.component}"

    def check(self, view: HostView) -> Finding:
        """Ask the package database. Refuses a downgrade (dnf would do it and exit 0) and unknown bytes."""
        there = self._there(view)
        require_executable(view, self.paths.root)
        cached = None
        detail: dict[str, Value] = {"url": None, "file": None, "sha256": None, "size": None}
        if self.download is not None:
            cached = view.stat(self.download.path(view))
            detail.update(
                url=redact_url(self.download.url), file=self.download.file, sha256=self.download.sha256
            )
            # known once it was downloaded; the cache is emptied when every package is there
            detail.update(size=cached.size if cached else None)
        if there is not None and self._is_wanted(there):
            self._refuse_unfinished(there)
            notices = (*self._notices(there), *(self._signature(view) if cached else ()))
            return Finding.ok(there.version, self.version, notices=notices, detail=detail)
        if not self._can_finish(there):
            self._refuse_unknown()
        refuse_without_room(view, *self._places(view))
        if there is None:
            return Finding.unmet("absent", self.version, detail=detail)
        if self.version != "latest" and self._number(there.version) > self._number(self.version):
            raise AgentError(
                "package-downgrade",
                f"{self.package} would be downgraded",
                saw=there.version,
                want=self.version,
            )
        saw = f"{there.version} ({there.remark})" if there.remark else there.version
        return Finding.unmet(saw, self.version, detail=detail)

    def apply(self, host: Host) -> tuple[Notice, ...]:
        """Complete what is unfinished, or install; return what the manager let pass."""
        there = self._there(host)
        try:
            if self._can_finish(there):
                self.manager.finish(host, self.package, self.limits)
                return ()
        except AgentError as error:
            # its own file, where there is one, may be another than the one whose script failed
            if self.download is None or error.code.name != "package-failed":
                raise
        if self.download is None:
            raise AgentError(
                "package-failed",
                f"{self.package} was removed during this run",
                saw="absent",
                want=self.version,
            )
        self._refuse_unknown()
        self.download.ensure_cached(host, self.limits)
        self._signature(host)
        try:
            return self.manager.install(host, (self.download.path(host),), self.limits)
        except AgentError as error:
            if error.code.name in ("reboot-required", "package-locked"):
                raise
            # it also fails for what is not ours, such as another package's script: the database decides
            if not self._came(host):
                # the manager's own words seldom say that the disk is the cause
                refuse_without_room(host, *self._places(host))
                raise
            if not self.manager.knows_scripts:
                message = error.saw or error.sentence
                text = f"{self.package} is installed, though the package manager reported: {message}"
                return (Notice("package-script-failed", text),)
        return ()

    def _there(self, view: HostView) -> Installed | None:
        return next((each for each in self.manager.installed(view) if each.package == self.package), None)

    def _came(self, view: HostView) -> bool:
        """Tell whether what is wanted is there; where that cannot be checked any more, the failure before it counts."""
        with contextlib.suppress(AgentError):
            there = self._there(view)
            return there is not None and self._is_wanted(there)
        return False

    def _is_wanted(self, there: Installed) -> bool:
        return there.is_complete and self._has_version(there)

    def _can_finish(self, there: Installed | None) -> bool:
        return there is not None and there.condition is Condition.UNFINISHED and self._has_version(there)

    def _has_version(self, there: Installed) -> bool:
        if self.version == "latest":
            # What the vendor calls latest has no number to compare with: at least the newest known one will do.
            return self._number(there.version) >= self._number(self.newest_known)
        return self._number(there.version) == self._number(self.version)

    def _number(self, version: str) -> tuple[int, ...]:
        return parse_version(version)[: self.manager.version_parts]

    def _refuse_unknown(self) -> None:
        """Refuse bytes for which nothing vouches: neither a checksum nor, for `latest`, the way they come."""
        if self.download is None or self.download.sha256 is not None:
            return
        if self.version != "latest":
            raise AgentError(
                "checksum-unknown",
                f"no checksum is known for {self.download.file}",
                saw="none in the catalogue, none given",
                want="a SHA-256",
                hint=f"pass `--sha256 {self.download.file}=HASH` from a source you trust, or another --client-version",
            )
        require_authentic_source(self.download.url)

    def _refuse_unfinished(self, there: Installed) -> None:
        if there.pending_reboot_file:
            raise AgentError(
                "reboot-required",
                f"{self.package} is incomplete until Windows restarts",
                saw=f"{there.version}, and {there.pending_reboot_file} is replaced at the next start",
                want=f"{self.version}, all of it in place",
            )

    def _places(self, view: HostView) -> tuple[str, ...]:
        """Return where an installation writes: the client, the package databases, the download."""
        root, settings = self.paths.root, self.paths.homes[0]
        programs = view.system.join(root, "bin")
        return (root, programs, settings, *view.system.package_db_paths, view.system.cache)

    def _signature(self, view: HostView) -> tuple[Notice, ...]:
        return self.manager.check_signature(view, self.download.path(view)) if self.download else ()

    def _notices(self, there: Installed) -> tuple[Notice, ...]:
        if self.download is None or self.download.sha256 is not None:
            return ()
        return (
            Notice("client-unverified", f"{self.package} {there.version}: no published checksum to verify"),
        )


class StoppableDaemon(Protocol):
    """A daemon that goes with its package."""

    def stopped_for_good(self, host: Host, timeout: float) -> AbstractContextManager[None]:
        """Stop it for good, unless the body fails; `timeout` is in seconds."""


@dataclass(frozen=True)
class PackagesAbsent:
    """Packages that must not be there. `first` is downloaded before anything is removed.

    `daemon` is stopped before its package is removed. `replacements` are the packages that replace them. Each is
    marked as pending before that: a run that ends in between must not forget what the host had.
    """

    not_applied_code: ClassVar[CodeName] = "package-failed"

    name: str
    packages: tuple[str, ...]
    manager: PackageManager = field(repr=False)
    limits: Timeouts = field(repr=False)
    daemon: StoppableDaemon | None = None
    first: tuple[Download, ...] = ()
    replacements: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"package:{self.name}"

    def check(self, view: HostView) -> Finding:
        there = [f"{each.package} {each.version}" for each in self._there(view)]
        return Finding(met=not there, saw=", ".join(there) or "absent", want="absent")

    def apply(self, host: Host) -> None:
        """Download what follows, then remove in AWS's order: libraries, daemon stopped, the client itself."""
        for download in self.first:
            download.ensure_cached(host, self.limits)
        for package in self.replacements:
            mark_pending(host, package)
        # the base package `cloudhsm-client` is the shortest name, and the others need it
        names = sorted((each.package for each in self._there(host)), key=len, reverse=True)
        # all of them together, before the first goes: another package may need the last one
        self.manager.require_removable(host, names, self.limits)
        libraries = [name for name in names if name != names[-1]]
        if libraries:
            self.manager.remove(host, libraries, self.limits)
        daemon = (
            nullcontext() if self.daemon is None else self.daemon.stopped_for_good(host, self.limits.tool)
        )
        with daemon:
            self.manager.remove(host, names[-1:], self.limits)

    def _there(self, view: HostView) -> list[Installed]:
        return [each for each in self.manager.installed(view) if each.package in self.packages]
