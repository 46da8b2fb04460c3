"""What a roll-out knows of a host (Target), how it ended there (HostResult), and who is shown it (RolloutListener)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


# The outcomes of steps that say why a host is not as wanted; and the step in which the vendor's client answers.
UNMET_OUTCOMES = ("failed", "would-change")
ANSWER_STEP = "client:hsm-info"
# Of a host's own report, what the fleet's report shows: the keys of the report, and those of a step.
SUMMARY_KEYS = ("host", "client", "ca", "warnings", "restart_needed", "cause", "failure")
SUMMARY_STEP_KEYS = ("id", "outcome", "saw", "want", "hint")


class HostState(str, Enum):
    """How a host ended; `drifted` is the result of `plan` and `verify`. The first four come with a report of the host.

    `at-work` is a journal's state for a host that has started and has no end: a roll-out itself never ends with it.
    `silent` is that of a host which has not reported, or not for too long, to the place where reports are collected.
    """

    OK = "ok"
    DEGRADED = "degraded"
    DRIFTED = "drifted"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    AT_WORK = "at-work"
    NOT_REACHED = "not-reached"
    SILENT = "silent"


@dataclass(frozen=True)
class ArchiveDigests:
    """The agent on the hosts of a run: the SHA-256 of the archive that was sent to them, in hex; None if nothing is.

    `linux_trees` has those of the builds with an interpreter in them, by processor.
    """

    tree: str | None = None
    windows_tree: str | None = None
    linux_trees: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """One host of the inventory. None means: not in the inventory, so ssh's own configuration decides.

    `options` are those of `configure` for this host alone, as `agent.config.desired` parses them. `system` is its kind,
    as in `agent.core.system`; None is detected. `where` is FILE:LINE. `instance_id` and `region` say which EC2 instance
    it is, where the inventory comes from EC2.
    """

    name: str
    address: str
    port: int | None = None
    user: str | None = None
    key: str | None = None
    jump: str | None = None
    groups: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    system: str | None = None
    instance_id: str | None = None
    region: str | None = None


@dataclass(frozen=True)
class HostResult:
    """How it ended on one host. `report` is the host's own, unchanged; None when there is none.

    `exit_status` is that of the host's run, or of `code` where there was no run; `seconds` from start to end.
    `sentence`, `saw`, `want` and `hint` describe the failure; they name its machine, which may be a jump host.
    `trusted` is the fingerprint of a host key that was new and accepted.
    """

    name: str
    address: str
    port: int
    wave: int
    state: HostState
    changed: bool = False
    code: str | None = None
    exit_status: int | None = None
    sentence: str | None = None
    saw: str | None = None
    want: str | None = None
    hint: str | None = None
    seconds: float = 0.0
    trusted: str | None = None
    report: Mapping[str, Any] | None = None

    @property
    def abandoned(self) -> bool:
        """Whether the host was abandoned while it may have been running: it finishes alone and keeps its report."""
        return self.code in ("host-deadline", "link-lost")


def summary_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a host's report that the fleet's report shows: 1,000 complete ones would fill the memory."""
    steps = [
        {key: step.get(key) for key in SUMMARY_STEP_KEYS}
        for step in report.get("steps", ())
        if step.get("outcome") in UNMET_OUTCOMES or step["id"] == ANSWER_STEP
    ]
    return {**{key: report[key] for key in SUMMARY_KEYS if key in report}, "steps": steps}


class RolloutListener(Protocol):
    """Displays a roll-out while it runs. Called from one thread."""

    def run_started(self, command: str, waves: Sequence[int]) -> None:
        """A run with so many hosts in each wave; hosts that were verified before do not count."""

    def wave_started(self, number: int, hosts: int) -> None:
        """Wave `number`, from 1 on, begins with so many hosts."""

    def host_started(self, name: str) -> None:
        """The connection to a host is being made."""

    def host_step(self, name: str, what: str) -> None:
        """A host is at a step, such as `package:cli`, or at one of the roll-out, such as `sending the agent`."""

    def host_finished(self, end: HostResult) -> None: ...

    def soak_started(self, seconds: float) -> None:
        """The wave is done; the next one begins after so many seconds."""

    def run_stopping(self, why: str) -> None:
        """No further host is started; those that are running finish."""

    def close(self) -> None: ...
