"""What a run knew, saw and did -> its Report, however it ended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent import __version__
from agent.config.desired import requested_state
from agent.core.codes import CODES
from agent.core.model import (
    ErrorDetails,
    HostIdentity,
    Hsm,
    Notice,
    Report,
    RunOutcome,
    StaleProcess,
    StepOutcome,
)
from agent.engine import EngineResult
from agent.package_managers.agent_package import installed_agent
from agent.state.identity import identity
from agent.steps.reach import Reach
from agent.verdict import RunVerdict, judge

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping

    from agent.catalogue import Catalogue, PlatformMatch
    from agent.cloudhsm.cluster import ClusterDescription
    from agent.config.desired import Desired
    from agent.core.errors import AgentError
    from agent.core.host import HostView
    from agent.core.model import RequestedState, StepResult
    from agent.facts import Facts
    from agent.planner import PlanResult
    from agent.steps.agent_package import AgentPackages


@dataclass(frozen=True)
class RunInfo:
    """One call of one command: its name in every report, when it began, and the environment, which may hold a token.

    `request` is who asked for the run from elsewhere: a roll-out, and this host's name in it. `cluster` is the desired
    one as that operator got it from AWS. `agent` has the packages of the agent, one of which is to be installed here;
    `removes_agent`: a removal takes that package off as well. `catalogue` is for who starts many runs: without it, each
    reads the one that came with the agent.
    """

    run_id: str
    command: str
    started: datetime.datetime
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    request: str | None = None
    cluster: ClusterDescription | None = None
    agent: AgentPackages | None = None
    removes_agent: bool = False
    catalogue: Catalogue | None = field(default=None, repr=False)


def new_run(view: HostView, command: str, environ: Mapping[str, str], request: str | None = None) -> RunInfo:
    """Name a run by its time. The last four digits are the part of the second, in hexadecimal.

    So names sort, also of runs in one second (`rollback` relies on it), and two hosts' runs differ.
    """
    now = view.now()
    name = f"{now:%Y%m%dT%H%M%SZ}-{now.microsecond * 0x10000 // 1_000_000:04x}"
    return RunInfo(name, command, now, environ, request)


@dataclass
class RunContext:
    """What a run knows so far, so that one that ends early still reports all of it.

    `wanted` is what was asked for, completed from the record. `facts` are those before the run, `after` those after one
    that may have changed the machine. `unfinished` is what is wanted of this host and was not looked at: a `configure`
    that has not succeeded. `is_first`: no `configure` is recorded here that there could be a drift from.
    `has_attached`: a group that this run attached is, or may be, on an interface, whatever its step says.
    """

    wanted: Desired | None = None
    facts: Facts | None = None
    after: Facts | None = None
    catalogue: Catalogue | None = None
    planned: PlanResult | None = None
    result: EngineResult | None = None
    notices: tuple[Notice, ...] = ()
    restarts: tuple[StaleProcess, ...] = ()
    unfinished: ErrorDetails | None = None
    is_first: bool = False
    has_attached: bool = False

    def note(self, *notices: Notice) -> None:
        """Add to what is worth knowing."""
        self.notices = (*self.notices, *notices)


def build_report(view: HostView, run: RunInfo, context: RunContext, error: AgentError | None) -> Report:
    """Put together what is known. An error outside the steps is the run's own; otherwise the lines decide."""
    result = context.result or EngineResult(())
    judged = judge(result)
    if context.unfinished is not None and judged.outcome is RunOutcome.OK:
        drift = CODES[context.unfinished.code]
        judged = RunVerdict(RunOutcome.DRIFT, drift.name, drift.exit_status, failure=context.unfinished)
    if context.is_first and judged.code == "drift" and judged.failure is not None:
        # nothing was left as it should be that could have drifted
        words = "this host is not configured as wanted, and no `configure` is recorded here"
        hint = "run `hsm-agent configure` with the same options"
        judged = replace(judged, failure=replace(judged.failure, sentence=words, hint=hint))
    if error is not None:
        failure = ErrorDetails(error.code.name, error.sentence, error.saw, error.want, error.hint)
        judged = RunVerdict(RunOutcome.FAILED, error.code.name, error.code.exit_status, failure=failure)
    planned, facts = context.planned, context.facts
    return Report(
        run_id=run.run_id,
        command=run.command,
        agent_version=__version__,
        host=replace(
            _host(view, facts, planned.fit if planned else None),
            identity=identity(view),
            agent=installed_agent(view) if run.request else None,
        ),
        steps=(*result.steps, *result.undone),
        outcome=judged.outcome,
        code=judged.code,
        exit_status=judged.exit_status,
        changed=result.changed
        or context.has_attached
        or (context.after is not None and context.after != context.facts),
        started=_iso(run.started),
        finished=_iso(view.now()),
        client=planned.client if planned else None,
        ca=planned.ca if planned else None,
        hsms=_hsms(planned, result),
        notices=tuple(dict.fromkeys((*context.notices, *result.notices))),
        restart_needed=context.restarts,
        cause=judged.cause,
        failure=judged.failure,
        request=run.request,
        asked=_asked(context.wanted, planned),
        cluster=planned.cluster if planned else None,
    )


def _asked(wanted: Desired | None, planned: PlanResult | None) -> RequestedState | None:
    return None if wanted is None else requested_state(wanted, planned.ca.sha256 if planned else None)


def _host(view: HostView, facts: Facts | None, fit: PlatformMatch | None) -> HostIdentity:
    if facts is None:
        return HostIdentity(view.name, "unknown", "", "an unknown system", "unknown", None)
    row, forced = (fit.row.name, fit.forced) if fit else (None, False)
    return HostIdentity(view.name, facts.os, facts.os_version, facts.title, facts.arch, row, forced)


def _hsms(planned: PlanResult | None, result: EngineResult) -> tuple[Hsm, ...]:
    lines = {line.id: line for line in result.steps}
    probes = [probe for probe in planned.plan.probes if isinstance(probe, Reach)] if planned else []
    return tuple(_hsm(probe, lines[probe.id]) for probe in probes if probe.id in lines)


def _hsm(probe: Reach, line: StepResult) -> Hsm:
    reached = line.outcome is StepOutcome.MET
    milliseconds = line.detail.get("connect_ms")
    return Hsm(
        ip=probe.address,
        port=probe.port,
        reached=reached,
        cause=None if reached else line.code,
        connect_ms=milliseconds if isinstance(milliseconds, float) else None,
    )


def _iso(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
