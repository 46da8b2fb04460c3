"""Steps that write files, for the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.core.model import StepOutcome, StepResult

if TYPE_CHECKING:
    from tests.fakes.memory import Memory


@dataclass
class Files:
    """An Undo over all files of a Memory."""

    host: Memory
    fails: bool = False
    kept: dict[str, bytes | None] = field(default_factory=dict)

    def save(self, *, worked: bool) -> None:
        if self.fails:
            raise AgentError("read-only", "the snapshot cannot be kept", saw="/var")
        self.kept = {path: self.host.read(path) for path in ("/a", "/b")}

    def restore(self) -> tuple[StepResult, ...]:
        lines = []
        for path, data in self.kept.items():
            if data is not None and self.host.read(path) != data:
                self.host.write(path, data, mode=0o644)
                lines.append(StepResult(path[1:], StepOutcome.UNDONE))
        return tuple(lines)
