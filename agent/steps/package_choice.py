"""Which package of a component a host gets: the version that is there or another, and the file that brings it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.catalogue import LATEST, components, newest, parse_version, resolve_artefact
from agent.core.aws_names import with_region
from agent.core.errors import AgentError
from agent.core.model import ClientState, Notice
from agent.core.urls import below
from agent.package_managers import MANAGERS, Condition
from agent.steps.package import Download, Package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.catalogue import Artefact, Catalogue, PlatformMatch
    from agent.config.desired import Desired
    from agent.core.timeouts import Timeouts
    from agent.facts import Facts
    from agent.package_managers import Installed, PackageManager


@dataclass(frozen=True)
class PackageChoice:
    """Chooses the packages of one SDK for a host; `one_version`: they work together at one version only."""

    facts: Facts
    desired: Desired
    catalogue: Catalogue
    fit: PlatformMatch
    sdk: int
    one_version: bool

    def step(self, component: str, limits: Timeouts) -> Package:
        """Return the step for one component.

        When nothing was said about the version and there is one, it stays, whole or not: an upgrade happens when it is
        asked for. One that is whole has nothing to download, and may be one the vendor withdrew.

        Raises AgentError `component-unsupported`, `client-end-of-support` and `checksum-mismatch`.
        """
        there = self.facts.package(self.sdk, component)
        known_newest = newest(self.catalogue, self.fit, self.facts.arch, component, self.sdk)
        version = self.desired.client_version
        if self.one_version and version is None and there is None:
            version = _plain(self.facts.package(self.sdk, "cli"))
        if there is None and version in (None, LATEST):
            self._refuse_left_behind(component)
        wanted = self._artefact(component, version)
        keep = self._kept(there, wanted.version) if self.desired.client_version is None else None
        file: Artefact | None = wanted
        if keep is not None:
            file = None if keep.is_complete else self._file_of(component, keep)
        return Package(
            component=component,
            package=wanted.package,
            version=keep.version if keep else wanted.version,
            newest_known=known_newest,
            download=self._download(file) if file else None,
            manager=self._manager,
            limits=limits,
            paths=self.facts.paths,
        )

    def client(self, packages: tuple[Package, ...]) -> ClientState:
        """Say what the client will be.

        Only bytes that this run brings are verified by it; what is there is `installed`.
        """
        version = packages[0].version.split("-")[0] if packages else None
        files = self._brought(packages)
        if any(each.sha256 is None for each in files):
            verified_by = "unverified"
        elif any(each.file in self.desired.sha256 for each in files):
            verified_by = "caller-sha256"
        else:
            verified_by = "catalogue-sha256" if files else "installed"
        return ClientState(self.sdk, version, tuple(each.component for each in packages), verified_by)

    def checksum_notices(self, packages: tuple[Package, ...]) -> Iterator[Notice]:
        """Say whose bytes a mirror's are where the caller's checksum is not the one that AWS published."""
        for each in self._brought(packages):
            published = self.catalogue.published(each.file)
            if published is not None and each.sha256 != published:
                text = f"{each.file}: `--sha256` stands in for what AWS published, sha256:{published}"
                yield Notice("checksum-replaced", text)

    @property
    def _manager(self) -> PackageManager:
        return MANAGERS[self.fit.row.format]

    def _artefact(self, component: str, version: str | None) -> Artefact:
        return resolve_artefact(self.catalogue, self.fit, self.facts.arch, component, version, sdk=self.sdk)

    def _refuse_left_behind(self, component: str) -> None:
        """Raise AgentError `component-unsupported` if the newest client of this host no longer has this one."""
        made = components(self.catalogue, self.fit, self.facts.arch, self.sdk)
        last = newest(self.catalogue, self.fit, self.facts.arch, component, self.sdk).partition("-")[0]
        if made and component not in made:
            raise AgentError(
                "component-unsupported",
                f"the newest client for {self.fit.title} has no {component}",
                saw=f"made up to {last}",
                want=component,
                hint=f"`--client-version {last}` is the last with it; without it fit: {', '.join(made)}",
            )

    def _kept(self, there: Installed | None, newest_version: str) -> Installed | None:
        """Return what is there when it is to stay at its version.

        None where the newest is wanted or is there already.
        """
        if there is None or _plain(there) is None or self._is_same(there.version, newest_version):
            return None
        return there

    def _file_of(self, component: str, there: Installed) -> Artefact | None:
        """Return the file of the version that is there, in case it has to be installed again.

        The manager may complete an unfinished package without it, so that one may have no file any more.
        """
        is_needed = there.condition is Condition.BROKEN
        try:
            file = self._artefact(component, _plain(there))
        except AgentError:
            if is_needed:
                raise
            return None
        return file if is_needed or file.sha256 or file.file in self.desired.sha256 else None

    def _download(self, file: Artefact) -> Download:
        """Say where a file comes from and what its bytes must be. Raises AgentError `checksum-mismatch`."""
        vendor = self.catalogue.base_url
        base = with_region(self.desired.package_source or vendor, self.desired.region)
        given = self.desired.sha256.get(file.file)
        url = below(base, file.path)
        from_vendor = url.partition("?")[0].lower() == f"{vendor}/{file.path}".lower()
        if given and file.sha256 and given != file.sha256 and from_vendor:
            raise AgentError(
                "checksum-mismatch",
                f"`--sha256` is not what AWS published for {file.file}",
                saw=f"sha256:{given}",
                want=f"sha256:{file.sha256}",
                hint="leave `--sha256` out: the checksum of this file is known",
            )
        return Download(url, file.file, given or file.sha256)

    def _brought(self, packages: tuple[Package, ...]) -> list[Download]:
        """Return the files whose bytes this run would bring."""
        missing = (each for each in packages if not self._is_there(each))
        return [each.download for each in missing if each.download is not None]

    def _is_there(self, step: Package) -> bool:
        there = self.facts.package(self.sdk, step.component)
        return (
            there is not None
            and there.condition is not Condition.BROKEN
            and self._is_same(there.version, step.version)
        )

    def _is_same(self, there: str, wanted: str) -> bool:
        """Tell whether an installed version is the wanted one: rpm adds the platform, `5.18.0-1.el9`."""
        parts = self._manager.version_parts
        return parse_version(there)[:parts] == parse_version(wanted)[:parts]


def _plain(there: Installed | None) -> str | None:
    """Return the X.Y.Z-N of a version as a package database has it, such as `3.4.3-1.el8`."""
    found = re.match(r"\d+\.\d+\.\d+(-\d+)?", there.version if there else "")
    return found[0] if found else None
