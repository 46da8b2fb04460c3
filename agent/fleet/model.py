"""The values of a roll-out: RunSpec is what was asked, RunState what happened so far, Deps the outside world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from agent.core.fleet_model import HostResult, HostState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from agent.core.fleet_model import ArchiveDigests, RolloutListener, Target
    from agent.core.host import Host
    from agent.core.transport import CancelToken
    from agent.fleet.journal import Journal

# Commands that change hosts go wave by wave. The others check all hosts alike, and no failure stops a check.
_CHANGING = ("rollout", "remove")
# What can be asked about the agent's own package.
PRESENT, ABSENT = "present", "absent"
# How long a lost host is searched for, in seconds: a reboot takes a minute or two.
SEARCH = 300.0
# New client connections to a cluster are limited, and a cold start of many at once is what fails first
# (cloudhsm-facts 5.5 and 8 #18): of the sessions that start a wave, one begins in each span of so many seconds.
START_SPACING = 1 / 64
# The first step of a session, before it reports any other.
CONNECTING = "connecting"


@dataclass(frozen=True)
class RunSpec:
    """What a run was asked to do, completely: its journal alone is enough to resume it. The fields are its JSON keys.

    `desired` has for each host's name what `agent.config.desired.to_json` made of its options and those of its target.
    Times are in seconds; `shares` and `limit` are as they were written. `remarks` are warnings about the inventory.
    `clusters` has by their ids the clusters of `desired`, as AWS described them to the operator: they are sent along.
    `ssm` is how hosts are reached by Systems Manager (`agent.fleet.ssm.settings`); it is empty for SSH.
    `agent_package` is what is asked about the agent's own package: PRESENT, ABSENT, or nothing.
    `before` has for hosts that repeat their last `configure` where an earlier roll-out had packages from.
    `by` is who asked for the run last: `user`, `sudo_user`, `host`, and the address that they logged in `from`.
    """

    command: str
    inventory: str
    targets: tuple[Target, ...]
    desired: Mapping[str, Mapping[str, Any]]
    ssh_config: str | None = None
    parallel: int = 32
    shares: str = "1,10%,100%"
    soak: float = 0.0
    limit: str = "0"
    deadline: float = 900.0
    remarks: tuple[str, ...] = ()
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clusters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    by: Mapping[str, str | None] | None = None
    ssm: Mapping[str, Any] = field(default_factory=dict)
    agent_package: str | None = None

    @property
    def changes_hosts(self) -> bool:
        return self.command in _CHANGING

    def port_of(self, target: Target) -> int:
        """Return the port of a target that was not reached yet; Systems Manager connects to none."""
        return 0 if self.ssm else target.port or 22


@dataclass(frozen=True)
class SentCommand:
    """A command of Systems Manager, recorded before it was sent. `hosts` has the attempt of each by name.

    `comment` identifies it in AWS; `began` is a time in ISO 8601. Without `command_id` it may not have been sent.
    """

    comment: str
    began: str
    hosts: Mapping[str, int]
    command_id: str | None = None


@dataclass
class RunState:
    """The state of a run: each change goes into the journal, and the journal's replay restores it.

    `ends` has the last result of each host, without the host's report. What was recorded before a host was begun again,
    or before something else was wanted of it, is not a result any more. `attempts` counts how often each host was
    begun; `open` are hosts that were begun and have no end, `left` those abandoned while they may have been running.
    `finished` is a time in ISO 8601, None while the run goes on; `code` and `why` say why not every host had its turn.
    `endpoints` has for each name the address and port that are connected to; the journal does not have them.
    `commands` has by their comments the commands that earlier controllers of the run sent.
    """

    run_id: str
    started: str
    spec: RunSpec
    sent: ArchiveDigests
    ends: dict[str, HostResult] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    open: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    waves: list[Sequence[str]] = field(default_factory=list)
    finished: str | None = None
    code: str | None = None
    why: str | None = None
    endpoints: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    commands: dict[str, SentCommand] = field(default_factory=dict)

    def state(self, name: str) -> HostState:
        if name in self.ends:
            return self.ends[name].state
        return HostState.AT_WORK if name in self.open else HostState.NOT_REACHED

    def may_be_running(self, name: str) -> bool:
        """Return whether the host may still run what an earlier session started."""
        return name in self.open or name in self.left

    def begin(self, name: str, attempt: int) -> None:
        self.attempts[name] = attempt
        self.open.add(name)
        self.left.discard(name)
        self.ends.pop(name, None)

    def end(self, result: HostResult) -> None:
        self.ends[result.name] = result
        self.open.discard(result.name)
        if result.abandoned:
            self.left.add(result.name)

    def leave(self, result: HostResult) -> None:
        """Note a host that the operator left running: its journal has no end, so it stays open."""
        self.ends[result.name] = result

    def resume(self, spec: RunSpec, sent: ArchiveDigests) -> None:
        """Take over what is asked now: hosts of which something else is wanted have no result any more."""
        for name, desired in spec.desired.items():
            if desired != self.spec.desired[name]:
                self.ends.pop(name, None)
                # a run that may be going on there is waited for, and its report does not answer the new request
                self.attempts[name] = self.attempts.get(name, 0) + self.may_be_running(name)
        self.spec, self.sent = spec, sent
        self.waves, self.finished, self.code, self.why = [], None, None, None

    def finish(
        self, finished: str, code: str | None, why: str | None, waves: Sequence[Sequence[str]]
    ) -> None:
        self.finished, self.code, self.why, self.waves = finished, code, why, list(waves)


@dataclass(frozen=True)
class HostTask:
    """What one session with a host is for. `again`: it was requested before, and may be done or running there."""

    command: str
    target: Target
    wave: int
    attempt: int
    again: bool


# Runs a task on its host and returns how it ended; it does not raise. It calls the last argument with each step.
HostSession = Callable[[HostTask, "CancelToken", Callable[[str], None]], HostResult]


class Transport(Protocol):
    """How the hosts of a run are reached: all that differs between SSH and Systems Manager."""

    @property
    def sent(self) -> ArchiveDigests:
        """The agent that hosts get."""

    def endpoints(
        self, targets: Sequence[Target], parallel: int, stopped: Callable[[], bool], /
    ) -> Mapping[str, tuple[str, int]]:
        """Return for each target's name the address and port by which it is reached, so many at a time."""

    def sessions(self, run: RunState, deps: Deps, journal: Journal, /) -> AbstractContextManager[HostSession]:
        """Return what runs the tasks of a run on their hosts."""


Explain = Callable[[Optional[str], "Sequence[tuple[Target, HostResult]]"], "Sequence[HostResult]"]


@dataclass(frozen=True)
class Deps:
    """What a roll-out needs of the outside world.

    `transport` returns how the hosts of a run are reached. `interrupts` returns how often the operator interrupted:
    once, and no host is begun; twice, and connections are cut. `search` and `start_spacing` are in seconds. `by` is
    that of RunSpec. `explain` returns the results of unreached hosts about which there is more to say, given ssh's
    configuration of the run.
    """

    machine: Host
    environ: Mapping[str, str]
    transport: Callable[[RunSpec], Transport]
    cancel_token: Callable[[], CancelToken]
    listener: RolloutListener
    interrupts: Callable[[], int]
    search: float = SEARCH
    start_spacing: float = START_SPACING
    by: Mapping[str, str | None] | None = None
    explain: Explain = lambda _ssh_config, _unreached: ()
