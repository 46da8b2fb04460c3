"""Finding, Step, Probe, Plan, Line and Report: the values a run is made of, all frozen and comparable."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar, Union

from agent.core.errors import CODES
from agent.core.plain import MOST, carried

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.core.errors import CodeName
    from agent.core.host import Host, HostView

# what a finding's detail may hold: plain JSON values
Value = Union[str, int, float, bool, None]
_Entry = TypeVar("_Entry")


class StepOutcome(str, Enum):
    """How one step ended."""

    MET = "met"
    CHANGED = "changed"
    WOULD_CHANGE = "would-change"
    FAILED = "failed"
    SKIPPED = "skipped"
    UNDONE = "undone"


class RunOutcome(str, Enum):
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
    code: CodeName | None = None
    hint: str | None = None
    notices: tuple[Notice, ...] = ()
    detail: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def ok(cls, saw: str, want: str, *, notices: tuple[Notice, ...] = ()) -> Finding:
        """Return a finding of what is as it is wanted."""
        return cls(True, saw, want, notices=notices)

    @classmethod
    def unmet(
        cls,
        saw: str,
        want: str,
        code: CodeName | None = None,
        hint: str | None = None,
        *,
        notices: tuple[Notice, ...] = (),
    ) -> Finding:
        """Return a finding that is not met. Without a hint of its own, it has that of its code."""
        return cls(False, saw, want, code, hint or (CODES[code].fix if code else None), notices)


class Step(Protocol):
    """Something that can be made so. Frozen, comparable, and described by its fields alone."""

    @property
    def id(self) -> str:
        """Stable and shown everywhere, such as `package:cli`."""

    @property
    def not_applied_code(self) -> CodeName:
        """The code that is reported when `apply` returned and a second look still disagrees."""

    def check(self, view: HostView) -> Finding:
        """Look. Raises AgentError when the truth cannot be told or what is wanted is refused.

        The engine looks at every step before it touches anything, so a refusal here costs the host nothing.
        """

    def apply(self, host: Host) -> tuple[Notice, ...] | None:
        """Make it so, or raise AgentError; return what a tool let pass that is worth knowing, if anything.

        The engine looks again afterwards: returning proves nothing.
        """


class Probe(Protocol):
    """Something about which nothing can be done: it is only looked at."""

    @property
    def id(self) -> str:
        """Stable and shown everywhere, such as `reach:10.0.1.6:2223`."""

    @property
    def requires(self) -> tuple[str, ...]:
        """Patterns of line ids; for each, at least one matching line must be met or changed, else this is skipped."""

    @property
    def depends_on(self) -> str | None:
        """The id of a probe it is looked at together with, and without which its own finding means nothing."""

    def check(self, view: HostView) -> Finding:
        """Look. Bounded in time by the probe itself."""


@dataclass(frozen=True)
class Plan:
    """What will be done, in order, and then looked at. Complete before the first touch.

    `worked` tells, looked at before the first touch, whether the host has a working configuration to go back to;
    None when it has no configuration at all. `replaces`: addresses that are configured now are not wanted any more.
    """

    steps: tuple[Step, ...]
    probes: tuple[Probe, ...] = ()
    notices: tuple[Notice, ...] = ()
    baseline: Probe | None = None
    replaces: bool = False


@dataclass(frozen=True)
class StepResult:
    """A step and how it ended. `detail` is that of its last finding: url, file, sha256, size; connect_ms; answers."""

    id: str
    outcome: StepOutcome
    saw: str | None = None
    want: str | None = None
    code: str | None = None
    hint: str | None = None
    seconds: float = 0.0
    detail: Mapping[str, Value] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The first word of the id, such as `package` or `reach`."""
        return self.id.partition(":")[0]


@dataclass(frozen=True)
class HostIdentity:
    """Which host a report is about. `platform` is its catalogue row or None; `forced` when the caller named it.

    `identity` tells it from its copies, see `agent/state/identity.py`.
    """

    name: str
    os: str
    os_version: str
    title: str
    arch: str
    platform: str | None
    forced: bool = False
    instance_id: str | None = None
    identity: str | None = None


@dataclass(frozen=True)
class RequestedState:
    """What was wanted of a host: never a secret. None and empty mean that it was left to the agent."""

    addresses: tuple[str, ...]
    components: tuple[str, ...]
    version: str | None
    sdk: int
    platform: str | None
    ca_fingerprint: str | None
    accept_single_hsm: bool


@dataclass(frozen=True)
class ClientState:
    """The client a run leads to. `verified_by`: catalogue-sha256, caller-sha256, unverified or installed."""

    sdk: int
    version: str | None
    components: tuple[str, ...]
    verified_by: str


@dataclass(frozen=True)
class CaState:
    """The CA that is wanted on the host. `sha256` and `subject` are the root's, `not_after` is ISO 8601.

    `fingerprints` are those of all certificates in the file, issuer of the cluster certificate first, the root last.
    """

    path: str
    sha256: str
    subject: str
    not_after: str
    fingerprints: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hsm:
    """One address and whether it was reached; `connect_ms` in milliseconds."""

    ip: str
    port: int
    reached: bool
    cause: str | None
    connect_ms: float | None


@dataclass(frozen=True)
class StaleProcess:
    """A running program that loaded the client before its configuration changed. `started` is ISO 8601."""

    pid: int
    name: str
    component: str
    started: str


@dataclass(frozen=True)
class ErrorDetails:
    """The error that decided a run, whole: what AgentError carries."""

    code: str
    sentence: str
    saw: str
    want: str
    hint: str


@dataclass(frozen=True)
class Report:
    """Everything one run saw and did; schema version 1. Times are ISO 8601 in UTC.

    `cause` is the code that led to `rolled-back` or `rollback-failed`; `failure` the deciding error with its words;
    `request` the roll-out that asked for the run and this host's name in it.

    Whatever a host, a tool, a process or a server said, a report holds it printable, bounded and finite: so every way
    out carries it, and none has to know what was hostile. What is left out is counted in a notice.
    """

    run_id: str
    command: str
    agent_version: str
    host: HostIdentity
    steps: tuple[StepResult, ...]
    outcome: RunOutcome
    code: str | None
    exit_status: int
    changed: bool
    started: str
    finished: str
    client: ClientState | None = None
    ca: CaState | None = None
    hsms: tuple[Hsm, ...] = ()
    notices: tuple[Notice, ...] = ()
    restart_needed: tuple[StaleProcess, ...] = ()
    cause: str | None = None
    failure: ErrorDetails | None = None
    request: str | None = None
    asked: RequestedState | None = None

    def __post_init__(self) -> None:
        bad = [number for number, line in enumerate(self.steps) if line.outcome in _WORTH_MOST]
        ends = range(
            len(self.notices) - MOST // 4, len(self.notices)
        )  # what became of the report is told last
        kept = {
            "steps": _some(self.steps, bad),
            "hsms": _some(self.hsms, (n for n, hsm in enumerate(self.hsms) if not hsm.reached)),
            "restart_needed": _some(self.restart_needed),
            "notices": _some(self.notices, ends),
        }
        missing = [
            f"{len(getattr(self, name)) - len(some):,} {_LISTS[name]}"
            for name, some in kept.items()
            if len(some) < len(getattr(self, name))
        ]
        if missing:
            kept["notices"] += (
                Notice("report-cut", f"too many for a report, left out: {', '.join(missing)}"),
            )
        for name, value in carried({**vars(self), **kept}).items():
            object.__setattr__(self, name, value)


_WORTH_MOST = (StepOutcome.FAILED, StepOutcome.WOULD_CHANGE)
# the lists of a report that a host makes long, and what they hold
_LISTS = {
    "steps": "steps", "hsms": "HSMs", "restart_needed": "programs to restart", "notices": "warnings",
}  # fmt: skip


def _some(entries: Sequence[_Entry], first: Iterable[int] = ()) -> tuple[_Entry, ...]:
    """Return as many entries as a list may have, in their order; those with these numbers before others.

    A list that is cut has some room left, for what comes later.
    """
    if len(entries) <= MOST:
        return tuple(entries)
    wanted = list(dict.fromkeys([*first, *range(len(entries))]))[: MOST - MOST // 10]
    return tuple(entries[number] for number in sorted(wanted))
