"""How it ended on one host: a report, an error, or a code -> HostResult."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent.core.codes import CODES
from agent.core.fleet_model import HostResult
from agent.fleet.replies import reported_state
from agent.render.fleet.grouping import has_agent
from agent.render.fleet.humanize import from_here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.codes import CodeName
    from agent.core.errors import AgentError
    from agent.core.fleet_model import HostState
    from agent.fleet.model import HostTask


@dataclass
class HostEnd:
    """Makes the result of a task, timed from when it began. `trusted` is the fingerprint of a key that was accepted."""

    task: HostTask
    endpoint: tuple[str, int]
    trusted: str | None = None
    began: float = field(default_factory=time.monotonic)

    def reported(self, report: Mapping[str, Any]) -> HostResult:
        """Return the result for a valid report: success counts only with its proof."""
        said = reported_state(report, is_removal=self.task.command.startswith("remove"))
        end = self.ended(said.state, said.code, saw=said.saw, hint=said.hint, has_agent=has_agent(report))
        return replace(end, changed=report["changed"], exit_status=report["exit_status"], report=report)

    def failed(self, error: AgentError, state: HostState) -> HostResult:
        """Keep the error's sentence: it names the machine, which may be a jump host."""
        end = self.ended(state, error.code.name, saw=error.saw, hint=error.hint)
        return replace(end, sentence=error.sentence, want=error.want)

    def ended(
        self,
        state: HostState,
        code: CodeName | None,
        *,
        saw: str | None = None,
        hint: str | None = None,
        has_agent: bool | None = None,
    ) -> HostResult:
        """Return the result for a code; its own hint is that of the table. `has_agent`: as `from_here` takes it."""
        address, port = self.endpoint
        known = CODES[code] if code else None
        return HostResult(
            name=self.task.target.name,
            address=address,
            port=port,
            wave=self.task.wave,
            state=state,
            code=code,
            exit_status=known.exit_status if known else None,
            saw=saw,
            hint=from_here(hint or (known.fix if known else ""), has_agent=has_agent) or None,
            seconds=time.monotonic() - self.began,
            trusted=self.trusted,
        )
