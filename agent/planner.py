"""(Facts, Desired, Catalogue, CA) -> Plan. Pure: the same values always give the same plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.catalogue import (
    LATEST,
    components,
    life_cycle,
    match_platform,
    newest,
    parse_version,
    resolve_artefact,
)
from agent.cloudhsm.components import NAMES, component_of
from agent.cloudhsm.sdk3.daemon import daemon_on
from agent.cloudhsm.sdk3.sdk import SDK3
from agent.core.aws_names import with_region
from agent.core.errors import AgentError
from agent.core.model import CaState, ClientState, ClusterSummary, Guard, Notice, Plan, Probe, Step
from agent.core.urls import below
from agent.package_managers import MANAGERS, Condition, Installed, PackageManager
from agent.steps.certificate import Certificate
from agent.steps.cluster import guards_of
from agent.steps.firewall import FirewallRuleAbsent, FirewallRulePresent
from agent.steps.package import Download, Package, PackagesAbsent
from agent.steps.reach import Reach
from agent.steps.sdk5 import SDK5

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.catalogue import Artefact, Catalogue, PlatformMatch
    from agent.cloudhsm.ca import Ca
    from agent.cloudhsm.cluster import NamedCluster
    from agent.config.desired import Desired
    from agent.core.timeouts import Timeouts
    from agent.facts import Facts


@dataclass(frozen=True)
class PlanResult:
    """A plan, and what it says about the client and the CA it leads to."""

    plan: Plan
    fit: PlatformMatch
    client: ClientState
    ca: CaState
    cluster: ClusterSummary | None = None


class ClientSdk(Protocol):
    """One generation of the client. Its packages, the CA and the reachability of the HSMs are the planner's.

    `ports` are those of an HSM that it connects to; `one_version`: its packages work together at one version only;
    `replaces` is the SDK whose place it takes when that is asked for.
    """

    @property
    def number(self) -> int: ...

    @property
    def ports(self) -> tuple[int, ...]: ...

    @property
    def one_version(self) -> bool: ...

    @property
    def replaces(self) -> int | None: ...

    @property
    def notices(self) -> tuple[Notice, ...]: ...

    def require_host(self, facts: Facts) -> None:
        """Raise AgentError `platform-unsupported` for a host on which it cannot work."""

    def steps(
        self, facts: Facts, desired: Desired, components: tuple[str, ...], limits: Timeouts
    ) -> tuple[Step, ...]:
        """Return what follows the packages and the CA."""

    def probes(
        self,
        facts: Facts,
        desired: Desired,
        components: tuple[str, ...],
        requires: tuple[str, ...],
        limits: Timeouts,
    ) -> tuple[Probe, ...]:
        """Return what proves that the client works, beside reaching the HSMs."""

    def baseline(self, facts: Facts, limits: Timeouts) -> Probe | None:
        """Return what shows whether the present configuration works, None where there is none."""


_SDKS: tuple[ClientSdk, ...] = (SDK5, SDK3)
# what must be met before the client is asked anything
_PROVEN_BY = ("package:cli", "certificate", "configure:cli", "reach:*")


def fit_host(facts: Facts, platform: str | None, catalogue: Catalogue) -> PlatformMatch:
    """Return the catalogue row of this host. Raises AgentError `platform-unsupported`."""
    fit = match_platform(
        catalogue,
        os=facts.os,
        os_version=facts.os_version,
        arch=facts.arch,
        id_like=facts.id_like,
        platform=platform,
    )
    if fit.row.format != facts.format:
        raise AgentError(
            "platform-unsupported",
            f"row {fit.row.name} is made of {fit.row.format} packages",
            saw=f"{facts.title}, which has {facts.format or 'neither apt nor dnf'}",
            want=fit.row.format,
            hint=_rows_for(facts, catalogue),
        )
    return fit


def _rows_for(facts: Facts, catalogue: Catalogue) -> str:
    """Say which rows a host can be treated as: those whose packages its manager installs."""
    rows = [f"`{row.name}`" for row in catalogue.rows if row.format == facts.format]
    if not rows:
        return (
            "AWS's clients come as rpm and deb packages: install dnf (`microdnf install dnf`) or apt-get, or use "
            "another operating system"
        )
    return f"leave `--platform` out, or take a row of {facts.format} packages: {', '.join(rows)}"


def plan(
    facts: Facts,
    desired: Desired,
    catalogue: Catalogue,
    ca: Ca,
    limits: Timeouts,
    cluster: NamedCluster | None = None,
    before: tuple[Step, ...] = (),
) -> PlanResult:
    """Return the steps that lead from these facts to what is desired. `cluster` is the one that was named, if any.

    `before` are steps about what lies outside this host; they come before all others.

    Raises AgentError `platform-unsupported`, `component-unsupported`, `client-end-of-support`, `package-conflict`, and
    `config-invalid` for what this kind of system does not have.
    """
    fit = fit_host(facts, desired.platform, catalogue)
    if desired.allow_firewall and facts.system.firewall is None:
        raise AgentError(
            "config-invalid",
            "--allow-firewall is about Windows Firewall",
            saw=f"--allow-firewall: {facts.title}, whose firewall is yours to change",
            want="a host with Windows",
            hint="leave it out here",
        )
    manager = MANAGERS[fit.row.format]
    sdk = _sdk_of(desired)
    other = _other_packages(facts, desired, sdk)
    sdk.require_host(facts)
    components = _wanted(facts, desired, sdk)
    packages = tuple(_package(each, facts, desired, catalogue, fit, manager, limits) for each in components)
    # before all others: when that fails, nothing has been touched that would have to be put back
    steps: list[Step] = [*before, *([FirewallRulePresent(limits)] if desired.allow_firewall else ())]
    if other:
        missing = tuple(each.download for each in packages if each.download is not None)
        replacements = tuple(each.package for each in packages)
        daemon = daemon_on(facts.paths)
        steps.append(
            PackagesAbsent("sdk3", other, manager, limits, daemon, first=missing, replacements=replacements)
        )
    steps += packages
    paths = facts.paths
    steps.append(Certificate(paths, ca.pem, ca.fingerprints, ca.not_after.isoformat(), desired.replace_ca))
    steps += sdk.steps(facts, desired, components, limits)
    client = _client(packages, facts, desired, sdk.number)
    guards: tuple[Guard, ...] = ()
    unchecked: tuple[Notice, ...] = ()
    if cluster is not None:
        version = parse_version(client.version) if client.version else None
        guards, unchecked = guards_of(cluster, desired.hsm_ip, ca.pem, sdk.number, version)
    reach = (Reach(address, port, limits.connect) for port in sdk.ports for address in desired.hsm_ip)
    return PlanResult(
        plan=Plan(
            tuple(steps),
            (*reach, *sdk.probes(facts, desired, components, _PROVEN_BY, limits)),
            (
                *_notices(facts, catalogue, fit, sdk),
                *_checksum_notices(packages, facts, catalogue, sdk.number),
                *unchecked,
            ),
            sdk.baseline(facts, limits),
            _replaces(facts, desired),
            guards,
        ),
        fit=fit,
        client=client,
        ca=CaState(paths.ca, ca.sha256, ca.subject, ca.not_after.isoformat(), ca.fingerprints),
        cluster=_summary(cluster),
    )


def _summary(cluster: NamedCluster | None) -> ClusterSummary | None:
    """Return what a report says of the cluster; None where AWS did not describe it."""
    known = cluster.description if cluster else None
    return ClusterSummary(known.id, known.state, known.hsm_type, known.region) if known else None


def _sdk_of(desired: Desired) -> ClientSdk:
    return next(each for each in _SDKS if each.number == (desired.sdk or SDK5.number))


def _other_packages(facts: Facts, desired: Desired, sdk: ClientSdk) -> tuple[str, ...]:
    """Return the packages of the other SDK, which this one replaces. Raises AgentError `package-conflict`."""
    known = ((each.package, component_of(each.package)) for each in facts.installed)
    others = {package: row.sdk for package, row in known if row is not None and row.sdk != sdk.number}
    if others and (desired.sdk is None or sdk.replaces is None):
        raise AgentError(
            "package-conflict",
            f"SDK {next(iter(others.values()))} is installed on this host",
            saw=", ".join(others),
            want=f"SDK {sdk.number} alone",
            hint=None if sdk.replaces else "remove it first: `hsm-agent remove`",
        )
    return tuple(others)


def removal_plan(facts: Facts, limits: Timeouts, after: tuple[Step, ...] = ()) -> Plan:
    """Return the steps that take every client package off this host, and what else `configure` brought.

    `after` are steps about what lies outside this host; they come last.
    """
    steps: tuple[Step, ...] = tuple(
        _absent(package, facts, limits)
        for package in sorted((each.package for each in facts.installed), key=len, reverse=True)
    )
    return Plan((*steps, *((FirewallRuleAbsent(limits),) if facts.system.firewall else ()), *after))


def _absent(package: str, facts: Facts, limits: Timeouts) -> PackagesAbsent:
    known = component_of(package)
    name = known.name if known else package
    has_daemon = known is not None and (known.sdk, known.name) == (SDK3.number, "cli")
    daemon = daemon_on(facts.paths) if has_daemon else None
    return PackagesAbsent(name, (package,), MANAGERS[facts.format], limits, daemon)


def _wanted(facts: Facts, desired: Desired, sdk: ClientSdk) -> tuple[str, ...]:
    """Return the components in a fixed order: the CLI always, since without it nothing is proven.

    What is installed is configured too. What an SDK had that is replaced, the new one gets: programs on this host use
    it.
    """
    wanted = {"cli", *desired.component, *facts.components(sdk.number)}
    if sdk.replaces is not None:
        wanted.update(facts.components(sdk.replaces), facts.due)
    return tuple(component for component in NAMES if component in wanted)


def _package(
    component: str, facts: Facts, desired: Desired, catalogue: Catalogue, fit: PlatformMatch, manager: PackageManager,
    limits: Timeouts,
) -> Package:  # fmt: skip
    """Return the step for one component.

    When nothing was said about the version and there is one, it stays, whole or not: an upgrade happens when it is
    asked for. One that is whole has nothing to download, and may be one the vendor withdrew.
    """
    sdk = _sdk_of(desired).number
    there = facts.package(sdk, component)
    known_newest = newest(catalogue, fit, facts.arch, component, sdk)
    version = desired.client_version
    if _sdk_of(desired).one_version and version is None and there is None:
        version = _plain(facts.package(sdk, "cli"))
    if there is None and version in (None, LATEST):
        _refuse_left_behind(catalogue, fit, facts, component, sdk)
    wanted = resolve_artefact(catalogue, fit, facts.arch, component, version, sdk=sdk)
    keep = _kept(manager, there, wanted.version) if desired.client_version is None else None
    file: Artefact | None = wanted
    if keep is not None:
        file = None if keep.is_complete else _again(facts, catalogue, fit, component, keep, desired)
    return Package(
        component=component,
        package=wanted.package,
        version=keep.version if keep else wanted.version,
        newest_known=known_newest,
        download=_download(file, desired, catalogue) if file else None,
        manager=manager,
        limits=limits,
        paths=facts.paths,
    )


def _refuse_left_behind(
    catalogue: Catalogue, fit: PlatformMatch, facts: Facts, component: str, sdk: int
) -> None:
    """Raise AgentError `component-unsupported` for one that the newest client of this host does not have any more."""
    made = components(catalogue, fit, facts.arch, sdk)
    last = newest(catalogue, fit, facts.arch, component, sdk).partition("-")[0]
    if made and component not in made:
        raise AgentError(
            "component-unsupported",
            f"the newest client for {fit.title} has no {component}",
            saw=f"made up to {last}",
            want=component,
            hint=f"`--client-version {last}` is the last with it; without it fit: {', '.join(made)}",
        )


def _kept(manager: PackageManager, there: Installed | None, newest_version: str) -> Installed | None:
    """Return what is there when it is to stay at its version; None where the newest is wanted or is there already."""
    if there is None or _plain(there) is None or _same(manager, there.version, newest_version):
        return None
    return there


def _again(
    facts: Facts, catalogue: Catalogue, fit: PlatformMatch, component: str, there: Installed, desired: Desired
) -> Artefact | None:
    """Return the file of the version that is there, in case it has to be installed again.

    The manager may complete an unfinished package without it, so that one may have no file any more.
    """
    needed = there.condition is Condition.BROKEN
    try:
        file = resolve_artefact(
            catalogue, fit, facts.arch, component, _plain(there), sdk=_sdk_of(desired).number
        )
    except AgentError:
        if needed:
            raise
        return None
    return file if needed or file.sha256 or file.file in desired.sha256 else None


def _download(file: Artefact, desired: Desired, catalogue: Catalogue) -> Download:
    """Say where a file comes from and what its bytes must be. Raises AgentError `checksum-mismatch`."""
    base = with_region(desired.package_source or catalogue.base_url, desired.region)
    given = desired.sha256.get(file.file)
    url = below(base, file.path)
    from_vendor = url.partition("?")[0].lower() == f"{catalogue.base_url}/{file.path}".lower()
    if given and file.sha256 and given != file.sha256 and from_vendor:
        raise AgentError(
            "checksum-mismatch",
            f"`--sha256` is not what AWS published for {file.file}",
            saw=f"sha256:{given}",
            want=f"sha256:{file.sha256}",
            hint="leave `--sha256` out: the checksum of this file is known",
        )
    return Download(url, file.file, given or file.sha256)


def _same(manager: PackageManager, there: str, wanted: str) -> bool:
    """Tell whether an installed version is the wanted one: rpm adds the platform, `5.18.0-1.el9`."""
    parts = manager.parts
    return parse_version(there)[:parts] == parse_version(wanted)[:parts]


def _plain(there: Installed | None) -> str | None:
    """Return the X.Y.Z-N of a version as a package database has it, such as `3.4.3-1.el8`."""
    found = re.match(r"\d+\.\d+\.\d+(-\d+)?", there.version if there else "")
    return found[0] if found else None


def _replaces(facts: Facts, desired: Desired) -> bool:
    """Tell whether an address that is configured now is not wanted any more."""
    configured = (each.servers for each in facts.configured if each.component == "cli")
    return any(address not in desired.hsm_ip for servers in configured for address in servers)


def _client(packages: tuple[Package, ...], facts: Facts, desired: Desired, sdk: int) -> ClientState:
    """Say what the client will be. Only bytes that this run brings are verified by it; what is there is `installed`."""
    version = packages[0].version.split("-")[0] if packages else None
    files = _brought(packages, facts, sdk)
    if any(each.sha256 is None for each in files):
        verified_by = "unverified"
    elif any(each.file in desired.sha256 for each in files):
        verified_by = "caller-sha256"
    else:
        verified_by = "catalogue-sha256" if files else "installed"
    return ClientState(sdk, version, tuple(each.component for each in packages), verified_by)


def _brought(packages: tuple[Package, ...], facts: Facts, sdk: int) -> list[Download]:
    """Return the files whose bytes this run would bring."""
    missing = (each for each in packages if not _is_there(each, facts.package(sdk, each.component)))
    return [each.download for each in missing if each.download is not None]


def _checksum_notices(
    packages: tuple[Package, ...], facts: Facts, catalogue: Catalogue, sdk: int
) -> Iterator[Notice]:
    """Say whose bytes a mirror's are where the caller's checksum is not the one that AWS published."""
    for each in _brought(packages, facts, sdk):
        published = catalogue.published(each.file)
        if published is not None and each.sha256 != published:
            text = f"{each.file}: `--sha256` stands in for what AWS published, sha256:{published}"
            yield Notice("checksum-replaced", text)


def _is_there(step: Package, there: Installed | None) -> bool:
    return (
        there is not None
        and there.condition is not Condition.BROKEN
        and _same(step.manager, there.version, step.version)
    )


def _notices(facts: Facts, catalogue: Catalogue, fit: PlatformMatch, sdk: ClientSdk) -> tuple[Notice, ...]:
    installed = {each.package: each.version for each in facts.installed}
    return (*fit.notices, *sdk.notices, *life_cycle(catalogue, fit, installed))
