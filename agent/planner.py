"""(Facts, Desired, Catalogue, CA) -> Plan. Pure: the same values always give the same plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.catalogue import fit_host, life_cycle, parse_version
from agent.cloudhsm.components import NAMES, component_of
from agent.cloudhsm.sdk3.daemon import daemon_on
from agent.cloudhsm.sdk3.sdk import SDK3
from agent.core.errors import AgentError
from agent.core.model import CaState, ClusterSummary, Guard, Notice, Plan, Probe, Step
from agent.package_managers import MANAGERS
from agent.steps.certificate import Certificate
from agent.steps.cluster import guards_of
from agent.steps.firewall import FirewallRuleAbsent, FirewallRulePresent
from agent.steps.package import PackagesAbsent
from agent.steps.package_choice import PackageChoice
from agent.steps.reach import Reach
from agent.steps.sdk5 import SDK5

if TYPE_CHECKING:
    from agent.catalogue import Catalogue, PlatformMatch
    from agent.cloudhsm.ca import Ca
    from agent.cloudhsm.cluster import NamedCluster
    from agent.config.desired import Desired
    from agent.core.model import ClientState
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
    choice = PackageChoice(facts, desired, catalogue, fit, sdk.number, sdk.one_version)
    packages = tuple(choice.step(each, limits) for each in components)
    # before all others: when that fails, nothing has changed that would have to be put back
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
    client = choice.client(packages)
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
                *choice.checksum_notices(packages),
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


def _replaces(facts: Facts, desired: Desired) -> bool:
    """Tell whether an address that is configured now is not wanted any more."""
    configured = (each.servers for each in facts.configured if each.component == "cli")
    return any(address not in desired.hsm_ip for servers in configured for address in servers)


def _notices(facts: Facts, catalogue: Catalogue, fit: PlatformMatch, sdk: ClientSdk) -> tuple[Notice, ...]:
    installed = {each.package: each.version for each in facts.installed}
    return (*fit.notices, *sdk.notices, *life_cycle(catalogue, fit, installed))
