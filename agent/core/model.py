"""Finding, Step, Probe, Plan, Line and Report: the values a run is made of, all frozen and comparable."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TypeVar, Union

from agent.core.codes import CODES
from agent.core.plain import MOST, carried

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.core.codes import CodeName
    from agent.core.host import Host, HostView

# the values of a finding's detail: plain JSON
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
    """The result of one check. `code` and `hint` name the cause when not met; a met one may carry one as a remark."""

    met: bool
    saw: str
    want: str
    code: CodeName | None = None
    hint: str | None = None
    notices: tuple[Notice, ...] = ()
    detail: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def ok(
        cls,
        saw: str,
        want: str,
        *,
        notices: tuple[Notice, ...] = (),
        detail: Mapping[str, Value] | None = None,
    ) -> Finding:
        """Return a finding of what is as it is wanted."""
        return cls(True, saw, want, notices=notices, detail=dict(detail or {}))

    @classmethod
    def unmet(
        cls,
        saw: str,
        want: str,
        code: CodeName | None = None,
        hint: str | None = None,
        *,
        notices: tuple[Notice, ...] = (),
        detail: Mapping[str, Value] | None = None,
    ) -> Finding:
        """Return a finding that is not met. Without a hint of its own, it has that of its code."""
        hint = hint or (CODES[code].fix if code else None)
        return cls(False, saw, want, code, hint, notices, dict(detail or {}))


class Step(Protocol):
    """Something that the agent can change. Frozen, comparable, and described by its fields alone."""

    @property
    def id(self) -> str:
        """Stable and shown everywhere, such as `package:cli`."""

    @property
    def not_applied_code(self) -> CodeName:
        """The code that is reported when `apply` returned and the second check still fails."""

    def check(self, view: HostView) -> Finding:
        """Check. Raises AgentError when the state cannot be determined or the request is refused.

        The engine checks every step before it changes anything, so a refusal here costs the host nothing.
        """

    def apply(self, host: Host) -> tuple[Notice, ...] | None:
        """Make the change, or raise AgentError; return what a tool let pass that is worth reporting, if anything.

        The engine checks again afterwards: returning proves nothing.
        """


class Probe(Protocol):
    """Something that the agent can only check, and not change."""

    @property
    def id(self) -> str:
        """Stable and shown everywhere, such as `reach:10.0.1.6:2223`."""

    @property
    def requires(self) -> tuple[str, ...]:
        """Patterns of step ids; for each, at least one matching step must be met or changed, else this is skipped."""

    @property
    def depends_on(self) -> str | None:
        """The id of a probe that is checked together with this one, and whose finding this one's depends on."""

    def check(self, view: HostView) -> Finding:
        """Check. The probe itself limits its time."""


class Guard(Protocol):
    """Something that is checked before the first change, and without which nothing is changed."""

    @property
    def id(self) -> str:
        """Stable and shown everywhere, such as `cluster:state`."""

    def check(self, view: HostView) -> Finding:
        """Check."""


@dataclass(frozen=True)
class Plan:
    """The guards, the steps in order, and then the probes. Complete before the first change.

    `baseline` shows whether the host had a working configuration before the first change, to which a run can go back;
    None when it had no configuration at all. `replaces`: some addresses that are configured now are no longer wanted.
    """

    steps: tuple[Step, ...]
    probes: tuple[Probe, ...] = ()
    notices: tuple[Notice, ...] = ()
    baseline: Probe | None = None
    replaces: bool = False
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class StepResult:
    """A step and how it ended.

    `detail` is that of its last finding: url, file, sha256, size; connect_ms, source; answers.
    """

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
class InstalledAgent:
    """The agent that a package installed on a host; `verifies` when its daily verify is enabled there."""

    version: str
    verifies: bool


@dataclass(frozen=True)
class HostIdentity:
    """The host of a report. `platform` is its catalogue row or None; `forced` when the caller named it.

    `identity` distinguishes it from its copies, see `agent/state/identity.py`. `agent` is what is installed there.
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
    agent: InstalledAgent | None = None


@dataclass(frozen=True)
class RequestedState:
    """What was asked of a host, without secrets. None and empty mean that the agent decided."""

    addresses: tuple[str, ...]
    components: tuple[str, ...]
    version: str | None
    sdk: int
    platform: str | None
    ca_fingerprint: str | None
    accept_single_hsm: bool
    cluster: str | None = None


@dataclass(frozen=True)
class ClientState:
    """The client that a run installs. `verified_by`: catalogue-sha256, caller-sha256, unverified or installed."""

    sdk: int
    version: str | None
    components: tuple[str, ...]
    verified_by: str


@dataclass(frozen=True)
class CaState:
    """The CA that the host should have. `sha256` and `subject` are the root's, `not_after` is ISO 8601.

    `fingerprints` are those of all certificates in the file, issuer of the cluster certificate first, the root last.
    """

    path: str
    sha256: str
    subject: str
    not_after: str
    fingerprints: tuple[str, ...] = ()


@dataclass(frozen=True)
class ClusterSummary:
    """The cluster as AWS described it to this run, as far as a report has it. `type` is that of its HSMs."""

    id: str
    state: str
    type: str
    region: str


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
    """The error that decided a run, complete: all fields of AgentError."""

    code: str
    sentence: str
    saw: str
    want: str
    hint: str


@dataclass(frozen=True)
class Report:
    """Everything one run saw and did; schema version 1. Times are ISO 8601 in UTC.

    `cause` is the code that led to `rolled-back` or `rollback-failed`; `failure` the deciding error in full;
    `request` the roll-out that asked for the run and this host's name in it.

    Any text from a host, a tool, a process or a server is printable, bounded and finite in a report: so every output
    can carry it, and none has to know what was hostile. A notice counts what is left out.
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
    cluster: ClusterSummary | None = None

    def __post_init__(self) -> None:
        bad = [number for number, line in enumerate(self.steps) if line.outcome in _WORTH_MOST]
        ends = range(
            len(self.notices) - MOST // 4, len(self.notices)
        )  # the notices of the delivery come last
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
# the lists of a report that a host can make long, and what they contain
_LISTS = {
    "steps": "steps", "hsms": "HSMs", "restart_needed": "programs to restart", "notices": "warnings",
}  # fmt: skip


def _some(entries: Sequence[_Entry], first: Iterable[int] = ()) -> tuple[_Entry, ...]:
    """Return as many entries as a list may have, in their order; entries with these numbers take precedence.

    A shortened list has some room left, for later entries.
    """
    if len(entries) <= MOST:
        return tuple(entries)
    wanted = list(dict.fromkeys([*first, *range(len(entries))]))[: MOST - MOST // 10]
    return tuple(entries[number] for number in sorted(wanted))
