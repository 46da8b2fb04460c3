"""Finding, Step, Probe, Plan, Line and Report: the values a run is made of, all frozen and comparable."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import Host, HostView


class Outcome(str, Enum):
    """How one step ended."""

    MET = "met"
    CHANGED = "changed"
    WOULD_CHANGE = "would-change"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNDONE = "undone"


class Verdict(str, Enum):
    """How a run ended."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    DRIFT = "drift"
    ROLLED_BACK = "rolled-back"


@dataclass(frozen=True)
class Notice:
    """Something true and worth knowing that does not make the run fail."""

    code: str
    text: str


@dataclass(frozen=True)
class Finding:
    """One look. `code` and `hint` name the cause when not met; a met finding may carry one as a remark."""

    met: bool
    saw: str
    want: str
    code: str | None = None
    hint: str | None = None
    notices: tuple[Notice, ...] = ()


class Step(Protocol):
    """Something that can be made so. Frozen, comparable, and described by its fields alone."""

    @property
    def id(self) -> str:
        """Stable and shown everywhere, such as `package:cli`."""

    def check(self, view: HostView) -> Finding:
        """Look. Gives the truth now, or raises AgentError when it cannot be told."""

    def apply(self, host: Host) -> None:
        """Make it so, or raise AgentError. The engine looks again afterwards; returning proves nothing."""


class Probe(Protocol):
    """Something about which nothing can be done: it is only looked at."""

    @property
    def id(self) -> str:
        """Stable and shown everywhere, such as `reach:10.0.1.6:2223`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Patterns of line ids; for each, at least one matching line must be met or changed, else this is skipped."""

    def check(self, view: HostView) -> Finding:
        """Look. Bounded in time by the probe itself."""


@dataclass(frozen=True)
class Plan:
    """What will be done, in order, and then looked at. Complete before the first touch."""

    steps: tuple[Step, ...]
    probes: tuple[Probe, ...] = ()
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Line:
    """A step and how it ended. `detail` holds the extra keys of `package:` steps (url, file, sha256, size)."""

    id: str
    outcome: Outcome
    saw: str | None = None
    want: str | None = None
    code: str | None = None
    hint: str | None = None
    seconds: float = 0.0
    detail: Mapping[str, str | int | None] = field(default_factory=dict)
