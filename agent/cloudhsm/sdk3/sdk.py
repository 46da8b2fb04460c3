"""SDK 3 as the planner sees it: what a plan does for a host that stays on it until its end of support."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.cloudhsm.paths import PORT
from agent.cloudhsm.sdk3.paths import PORT_CMU
from agent.cloudhsm.sdk3.steps import (
    ConfigureSdk3,
    DaemonConnected,
    DaemonService,
    ManagementUtil,
    WorkingConfiguration,
)
from agent.core.errors import AgentError
from agent.core.model import Notice

if TYPE_CHECKING:
    from agent.config.desired import Desired
    from agent.core.model import Probe, Step
    from agent.core.timeouts import Timeouts
    from agent.facts import Facts


class Sdk3:
    """The planner's `ClientSdk`. Its packages work with each other at one version only."""

    number = 3
    ports = (PORT, PORT_CMU)
    one_version = True
    replaces = None
    notices = (Notice("sdk3-end-of-support", "SDK 3 is out of support, and hsm2m clusters refuse it"),)

    def require_host(self, facts: Facts) -> None:
        """Raise AgentError `platform-unsupported` where nothing can run the daemon."""
        if facts.init == "other":
            raise AgentError(
                "platform-unsupported",
                "the daemon of SDK 3 is started and watched by systemd",
                saw="another init, or none",
                want="systemd",
                hint="SDK 5 has no daemon: leave `--sdk 3` out",
            )

    def steps(
        self,
        facts: Facts,
        desired: Desired,
        components: tuple[str, ...],  # noqa: ARG002 -- one tool configures them all
        limits: Timeouts,
    ) -> tuple[Step, ...]:
        """Return what follows the packages and the CA."""
        kept = (facts.kept.get(path) for path in facts.paths.sdk3.configs)
        return ConfigureSdk3(desired.hsm_ip, facts.paths, limits, *kept), DaemonService(facts.paths, limits)

    def probes(
        self,
        facts: Facts,
        desired: Desired,  # noqa: ARG002 -- the utility has the addresses from its configuration
        components: tuple[str, ...],  # noqa: ARG002 -- the daemon connects for them all
        requires: tuple[str, ...],
        limits: Timeouts,
    ) -> tuple[Probe, ...]:
        """Return what proves that the client works, beside reaching the HSMs."""
        utility = ManagementUtil(facts.paths, limits, (*requires, "service"))
        connected = (DaemonConnected(facts.paths, limits, (utility.id,)),)
        return (utility, *(connected if facts.paths.sdk3.cluster_cache else ()))

    def baseline(self, facts: Facts, limits: Timeouts) -> Probe | None:
        """Return what shows whether the present configuration works, None where there is none."""
        is_configured = facts.package(3, "cli") is not None and facts.has_ca
        return WorkingConfiguration(facts.paths, limits) if is_configured else None


SDK3 = Sdk3()
