"""SDK 5 as the planner sees it: a configure tool for each component, and the CLI that proves them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cloudhsm.paths import PORT
from agent.steps.client import ClusterActivated, HsmInfo
from agent.steps.configure import Configure
from agent.steps.library import Jar, Library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config.desired import Desired
    from agent.core.model import Notice, Probe, Step
    from agent.core.timeouts import Timeouts
    from agent.facts import Facts


class Sdk5:
    """The planner's `ClientSdk`. It takes the place of SDK 3 where that is asked for."""

    number = 5
    ports = (PORT,)
    one_version = False
    replaces = 3
    notices: tuple[Notice, ...] = ()

    def require_host(self, facts: Facts) -> None:
        """Take every host: nothing of SDK 5 runs on its own."""

    def steps(
        self, facts: Facts, desired: Desired, components: tuple[str, ...], limits: Timeouts
    ) -> tuple[Step, ...]:
        """Return what follows the packages and the CA."""
        return tuple(
            Configure(
                component=component,
                paths=facts.paths,
                servers=desired.hsm_ip,
                accept_single_hsm=desired.accept_single_hsm,
                limits=limits,
                options=desired.client,
                kept=facts.kept.get(component),
            )
            for component in components
        )

    def probes(
        self,
        facts: Facts,
        desired: Desired,
        components: tuple[str, ...],
        requires: tuple[str, ...],
        limits: Timeouts,
    ) -> tuple[Probe, ...]:
        """Return what proves that the client works, beside reaching the HSMs."""
        return (
            *_libraries(facts, components, limits),
            HsmInfo(facts.paths, len(desired.hsm_ip), desired.accept_single_hsm, limits, requires),
            ClusterActivated(facts.paths, limits, requires),
        )

    def baseline(self, facts: Facts, limits: Timeouts) -> Probe | None:
        """Return what shows whether the present configuration works, None where there is none."""
        cli = next((each for each in facts.configured if each.component == "cli" and each.servers), None)
        if cli is None or not facts.has_ca:
            return None
        # Only the client itself shows that it works, whatever the package database says of it. One HSM is accepted:
        # its answer means that the configuration worked. Two tries: the first connection may fail on a cold start. No
        # third: the usual reason to configure again is that the addresses are dead.
        return HsmInfo(facts.paths, len(cli.servers), True, limits, tries=2)


def _libraries(facts: Facts, components: tuple[str, ...], limits: Timeouts) -> Iterator[Probe]:
    """Yield a probe for each library that can be checked on this kind of system."""
    paths = facts.paths
    for component in components:
        requires = (f"package:{component}",)
        if paths.loader is None or component not in paths.libraries:
            continue
        if component == "jce" and paths.jars:
            yield Jar(paths.jars, requires)
        else:
            yield Library(component, paths, paths.loader, limits, requires)


SDK5 = Sdk5()
