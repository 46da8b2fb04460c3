"""A roll-out's hosts over AWS Systems Manager: they need no open port, and the agent comes to them by URL or bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from agent.core.fleet_model import ArchiveDigests
from agent.fleet.ssm.run_command import RunCommand
from agent.fleet.ssm.sessions import SsmSessions
from agent.fleet.ssm.settings import instance_of, sources_from
from agent.ssm_document import rollout_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from agent.aws.access import AwsAccess
    from agent.core.fleet_model import Target
    from agent.fleet.journal import Journal
    from agent.fleet.model import Deps, HostSession, RunState


@dataclass(frozen=True)
class FleetOverSsm:
    """Reaches hosts by Run Command. `settings` are the `ssm` of a RunSpec; `open_access` returns AWS in a region."""

    settings: Mapping[str, Any]
    open_access: Callable[[str | None], AwsAccess]

    @property
    def sent(self) -> ArchiveDigests:
        sources = sources_from(self.settings)
        windows = sources.windows.sha256 if sources.windows else ""
        return ArchiveDigests(sources.linux.sha256 or None, windows or None)

    def endpoints(
        self, targets: Sequence[Target], _parallel: int, _stopped: Callable[[], bool]
    ) -> Mapping[str, tuple[str, int]]:
        """Return the instance of each target; no port is connected to."""
        return {target.name: (instance_of(target) or target.address, 0) for target in targets}

    def sessions(self, run: RunState, _deps: Deps, journal: Journal) -> AbstractContextManager[HostSession]:
        access = self.open_access(self.settings["region"])
        document = rollout_document(sources_from(self.settings))
        return SsmSessions(run, journal, lambda: RunCommand(access.client), document)
