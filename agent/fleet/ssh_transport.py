"""A roll-out's hosts over SSH."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable

from agent.fleet.host_session import HostRunner
from agent.hosts import descriptors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from agent.core.fleet_model import ArchiveDigests, Target
    from agent.core.transport import Connector
    from agent.fleet.agent_archive import AgentArchives
    from agent.fleet.journal import Journal
    from agent.fleet.model import Deps, HostSession, RunState


@dataclass(frozen=True)
class FleetOverSsh:
    """Reaches hosts by connections, and sends them the agent."""

    connector: Connector
    archives: AgentArchives

    @property
    def sent(self) -> ArchiveDigests:
        return self.archives.sent

    def endpoints(
        self, targets: Sequence[Target], parallel: int, stopped: Callable[[], bool]
    ) -> Mapping[str, tuple[str, int]]:
        descriptors.require(min(parallel, len(targets)))
        return self.connector.endpoints(targets, stopped)

    def sessions(self, run: RunState, deps: Deps, _journal: Journal) -> AbstractContextManager[HostSession]:
        return contextlib.nullcontext(HostRunner(run, deps, self.connector, self.archives))
