"""The commands as plain functions: each takes a machine and what is desired, and returns a Report."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.aws.access import AwsAccess
from agent.catalogue import life_cycle, load
from agent.cloudhsm.ca import expiry_notice
from agent.cloudhsm.cluster import group_name
from agent.cloudhsm.paths import client_paths
from agent.cloudhsm.post_checks import (
    client_processes,
    configuration_warnings,
    processes_to_restart,
    unread,
    users,
)
from agent.cloudhsm.shared import parted, shared
from agent.config.ca_source import load_ca
from agent.config.cluster_source import HsmSource, resolve_hsms, with_region_of
from agent.config.desired import Desired, to_json
from agent.config.recorded import (
    accept,
    last_configure,
    receivers,
    record_of,
    record_remarks,
    resolve_desired,
    save_success,
    unfinished,
    with_ca,
)
from agent.core.errors import AgentError
from agent.core.model import Notice, Report, RunOutcome, StepOutcome
from agent.core.timeouts import Timeouts
from agent.diagnosis import Diagnosis
from agent.engine import EngineResult, apply_plan, check_plan
from agent.facts import gather
from agent.hosts import ready
from agent.hosts.deadline import DeadlineHost
from agent.hosts.read_only import ReadOnlyHost
from agent.package_managers.agent_package import AGENT_MANAGERS
from agent.planner import plan, removal_plan
from agent.run import RecordedRun, recipients_of
from agent.state import records, snapshots
from agent.state.exposure import close
from agent.state.pending import clear_cache
from agent.state.snapshot_format import REMOVE, ROLLBACK
from agent.steps.agent_package import AgentAbsent
from agent.steps.cluster_group import (
    NOT_DESCRIBED,
    Detachment,
    GroupAttached,
    GroupByName,
    GroupsDetached,
    has_attached,
    undo_attachment,
)
from agent.steps.package import Package
from agent.steps.restore import SnapshotUndo, restore
from agent.verdict import judge
from agent.windows import scheduler

if TYPE_CHECKING:
    from agent.cloudhsm.ca import Ca
    from agent.core.host import Host, HostView, ProcessInfo
    from agent.core.model import Step, StepResult
    from agent.engine import Listener
    from agent.facts import Facts
    from agent.planner import PlanResult
    from agent.report import RunContext, RunInfo
    from agent.state.records import AttachedGroup

# how long the host is checked after a run whose own time is over, in seconds
_AFTERWARDS = 0.5


def timeouts_for(desired: Desired) -> Timeouts:
    """Return the waits of a run: `--timeout` bounds the whole, and each wait in it.

    A longer one gives packages, downloads and the lock longer; no HSM gets more patience from it. Single waits end
    before the run does: what hangs is then named by its own code, and there is time left to look at the rest.
    """
    limits = Timeouts()
    if desired.timeout is None:
        return limits
    run = desired.timeout
    # a tool that ignores SIGTERM takes its time twice
    tool, client = min(limits.tool, 0.35 * run), min(limits.client, 0.5 * run)
    cluster = (
        0.25 * run
    )  # also more than by default: whoever makes an HSM at this moment may want to wait for it
    return replace(
        limits, run=run, package=run, download=run, lock=0.8 * run, tool=tool, client=client, cluster=cluster
    )


@dataclass(frozen=True)
class _PreparedUndo:
    """The engine's Undo, for which everything is loaded that the rest of the run may need, before the first change."""

    keeper: SnapshotUndo
    urls: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None

    def save(self, *, worked: bool) -> None:
        ready.load_for_run()
        if self.urls:
            ready.load_for_web()
        if any(url.startswith("s3:") for url in self.urls):
            ready.load_for_aws()
        if self.diagnosis is not None and self.diagnosis.is_possible:
            ready.load_for_diagnosis()
        self.keeper.save(worked=worked)

    def restore(self) -> tuple[StepResult, ...]:
        restored = self.keeper.restore()
        if self.diagnosis is None:
            return restored
        keeper = self.keeper
        return (*restored, *undo_attachment(keeper.host, self.diagnosis.environ, keeper.run_id))


def _has_all_packages(result: EngineResult) -> bool:
    packages = [line for line in result.steps if line.kind == "package"]
    return all(line.outcome in (StepOutcome.MET, StepOutcome.CHANGED) for line in packages)


def _downloads(planned: PlanResult) -> tuple[str, ...]:
    """Return the URLs of what may be brought over the network."""
    urls = [step.download.url for step in planned.plan.steps if isinstance(step, Package) and step.download]
    return tuple(url for url in urls if "://" in url and not url.startswith("file:"))


def configure(machine: Host, desired: Desired, run: RunInfo, listener: Listener) -> Report:
    """Bring the host to the desired state, prove it, and remember what was asked and what came of it.

    Without an address of an HSM it is the last `configure` again: which corrects drift.
    """
    with RecordedRun(machine, run, desired) as this:
        this.lock_host()
        context, limits = this.context, timeouts_for(desired)
        host = DeadlineHost(machine, limits.run)
        context.wanted = wanted = with_region_of(resolve_desired(host, desired), run.environ)
        this.deliver_to(wanted)
        context.note(*close(machine))
        accept(machine, record_of(machine, run.run_id, wanted))
        this.save_begun()
        known = _gather_input(host, wanted, limits, this, listener, patience=limits.cluster)
        planned = known.planned
        record = accept(machine, with_ca(run.run_id, known.wanted, known.ca))
        undo = _PreparedUndo(SnapshotUndo(machine, run.run_id), _downloads(planned), known.diagnosis)
        names = shared(machine)
        context.result = result = apply_plan(planned.plan, host, listener, undo)
        context.result = result = known.diagnosis.explain(result, planned.plan, listener)
        if _has_all_packages(result):
            with contextlib.suppress(AgentError):
                clear_cache(machine)
        _check_again(host, context)
        context.has_attached = has_attached(machine, run.run_id)
        _run_post_checks(host, planned, context)
        context.note(*parted(machine, names))
        outcome = judge(result).outcome
        if outcome in (RunOutcome.OK, RunOutcome.DEGRADED):
            context.note(*save_success(machine, record), *_keep_proven(machine, run))
            if outcome is RunOutcome.OK:  # degraded is not done: the next start tries again
                context.note(*scheduler.end_first_boot(machine))
            context.note(*scheduler.ensure_daily_verify(machine))
    return this.report


def verify(machine: Host, desired: Desired, run: RunInfo, listener: Listener) -> Report:
    """Check everything and change nothing: for the options given, or else for the last `configure`.

    The report is kept as any other, that of `plan` (the same under another name) excepted. While a `configure` that was
    asked for something else has not succeeded, the host is not as wanted, whatever these options say.
    """
    with RecordedRun(machine, run, desired) as this:
        if run.command == "verify":
            this.keep_beside_others()
        context, limits = this.context, timeouts_for(desired)
        host = DeadlineHost(machine, limits.run)
        view = ReadOnlyHost(host)
        context.wanted = wanted = resolve_desired(view, desired)
        this.deliver_to(wanted)
        known = _gather_input(view, wanted, limits, this, listener)
        context.result = result = check_plan(known.planned.plan, view, listener)
        context.result = known.diagnosis.explain(result, known.planned.plan, listener)
        _run_post_checks(host, known.planned, context)
        # an ordinary user cannot read the record that may be there
        is_unknown = not machine.is_root() and machine.stat(machine.system.desired) is not None
        context.is_first = last_configure(machine) is None and not is_unknown
        if run.command == "verify":
            context.unfinished = unfinished(view, with_ca(run.run_id, known.wanted, known.ca), run.environ)
            context.note(*record_remarks(view))
    return this.report


def rollback(machine: Host, run_id: str | None, run: RunInfo, listener: Listener) -> Report:
    """Put back the CA and the configuration as they were before a run, by default the last ones that worked."""
    with RecordedRun(machine, run, Desired()) as this:
        this.lock_host()
        this.deliver_to(recipients_of(machine, Desired()))
        context = this.context
        wanted = snapshots.load(machine, run_id)
        context.facts = facts = gather(machine)
        ready.load_for_run()
        context.note(*snapshots.remarks(machine, wanted))
        snapshots.save(machine, run.run_id, reason=ROLLBACK, to=wanted.name)
        this.save_begun()
        names = shared(machine)
        context.result = result = EngineResult(restore(machine, wanted))
        context.note(*parted(machine, names))
        for line in result.steps:
            listener.ended(line)
        with contextlib.suppress(AgentError):
            using = _programs(machine, (*facts.components(5), *facts.components(3)), context)
            context.restarts = processes_to_restart(machine, facts.paths, using)
        still = unfinished(machine, None, run.environ)
        if still is not None:
            context.note(Notice("configure-unfinished", still.saw))
        elif result.changed and last_configure(machine) is not None:
            text = "`configure` without options, also by its timer, brings back what this rollback undid"
            context.note(Notice("request-in-force", text))
    return this.report


def remove(machine: Host, run: RunInfo, listener: Listener, timeout: float | None) -> Report:
    """Take the client packages off. The CA and the configuration are kept in a snapshot."""
    with RecordedRun(machine, run, Desired()) as this:
        this.lock_host()
        recipients = recipients_of(machine, Desired())
        this.deliver_to(recipients)
        context, limits = this.context, timeouts_for(Desired(timeout=timeout))
        host = DeadlineHost(machine, limits.run)
        context.facts = facts = gather(host)
        using = users(facts.paths, _programs(machine, (*facts.components(5), *facts.components(3)), context))
        undo = _PreparedUndo(SnapshotUndo(machine, run.run_id, REMOVE))
        this.save_begun()
        attached = _attached_groups(machine, context)
        after: tuple[Step, ...] = (
            *_detach_steps(attached, host, run),
            *_agent_absent(facts, run, limits),
        )
        context.result = result = apply_plan(removal_plan(facts, limits, after), host, listener, undo)
        _forget_groups(machine, attached, result)
        is_done = judge(result).outcome is RunOutcome.OK
        # also where another run, or somebody else, took the last package off: nothing is asked of this host any more
        if result.changed or is_done:
            _forget(machine, recipients)
            with contextlib.suppress(AgentError):
                clear_cache(machine)
        if result.changed:
            text = f"the CA and the configuration are kept; `hsm-agent rollback {run.run_id}` puts them back"
            context.note(Notice("kept", text))
            context.restarts = using
        _check_again(host, context)
        if is_done:
            context.note(
                *scheduler.end_first_boot(machine), *scheduler.delete_task(machine, scheduler.VERIFY)
            )
    return this.report


def _agent_absent(facts: Facts, run: RunInfo, limits: Timeouts) -> tuple[AgentAbsent, ...]:
    """Return the step that takes the agent's own package off, where that is asked for."""
    wanted = run.removes_agent and facts.format
    return (AgentAbsent(AGENT_MANAGERS[facts.format], limits),) if wanted else ()


def _forget(machine: Host, recipients: Desired) -> None:
    """Keep nothing of what was asked for but the sinks of its reports: what comes now goes to them as well."""
    if machine.stat(machine.system.desired) is not None:
        records.write_receivers(machine, to_json(receivers(recipients)))
        machine.remove(machine.system.desired)


def plan_removal(machine: Host, run: RunInfo, listener: Listener, timeout: float | None) -> Report:
    """Check what `remove` would take off, and change nothing."""
    with RecordedRun(machine, run, Desired()) as this:
        limits = timeouts_for(Desired(timeout=timeout))
        view = ReadOnlyHost(DeadlineHost(machine, limits.run))
        this.context.facts = facts = gather(view)
        after: tuple[Step, ...] = (
            *_detach_steps(_attached_groups(view, this.context), view, run),
            *_agent_absent(facts, run, limits),
        )
        this.context.result = check_plan(removal_plan(facts, limits, after), view, listener)
    return this.report


@dataclass(frozen=True)
class _Input:
    """What a plan is made of, and the plan. `wanted` has the region in which AWS was asked: it holds in any shell."""

    wanted: Desired
    planned: PlanResult
    ca: Ca
    diagnosis: Diagnosis


def _gather_input(
    host: HostView,
    desired: Desired,
    limits: Timeouts,
    this: RecordedRun,
    listener: Listener,
    *,
    patience: float = 0.0,
) -> _Input:
    """Gather facts, ask AWS for the cluster, read the CA and plan; each is in the report as soon as it is there.

    `patience`: for how many seconds AWS is asked again while it changes the list of HSMs.
    """
    context = this.context
    context.facts = facts = gather(host)
    access = AwsAccess(host, this.info.environ, desired.region)
    if desired.cluster_id is not None:
        listener.began("cluster:state", changing=False)
    source = resolve_hsms(host, desired, access, facts.addresses, patience, this.info.cluster)
    context.note(*source.notices)
    ca, remarks = load_ca(host, desired, limits, access)
    context.catalogue = this.catalogue or load()
    group = _group_steps(source, access, this.info)
    agent = (this.info.agent.step(host, facts, limits),) if this.info.agent is not None else ()
    context.planned = planned = plan(
        facts, source.desired, context.catalogue, ca, limits, source.cluster, (*agent, *group)
    )
    if group:
        text = (
            f"--attach-group: {group[0].group} is attached to this instance where it is not there already; "
            "`hsm-agent remove` detaches what the agent attached"
        )
        context.note(Notice("group-attached", text))
    soon = expiry_notice(ca, host.now())
    context.note(*planned.plan.notices, *remarks, *((soon,) if soon else ()))
    described = source.cluster.description if source.cluster else None
    diagnosis = Diagnosis(host, access, this.info.environ, desired.cluster_id, described)
    region = described.region if described else desired.region
    return _Input(replace(desired, region=region), planned, ca, diagnosis)


def _group_steps(
    source: HsmSource, access: AwsAccess, run: RunInfo
) -> tuple[GroupAttached | GroupByName, ...]:
    """Return the step that attaches the cluster's group, where that is desired.

    Raises AgentError `group-not-attachable` where no cluster is named.
    """
    cluster, desired = source.cluster, source.desired
    if not desired.attach_group or (cluster is not None and cluster.error is not None):
        return ()  # why the cluster is not known, its own guard says
    if desired.cluster_id is None:
        raise AgentError(
            "group-not-attachable",
            "the cluster's group is not known",
            saw="no --cluster-id",
            want="the description of the cluster",
            hint=NOT_DESCRIBED,
        )
    known, address = cluster.description if cluster else None, desired.hsm_ip[0]
    if known is None or not known.security_group:
        return (GroupByName(group_name(desired.cluster_id), address, run.environ),)
    return (GroupAttached(known.security_group, known.vpc, address, run.run_id, access, run.environ),)


def _attached_groups(view: HostView, context: RunContext) -> tuple[AttachedGroup, ...]:
    """Return what earlier runs attached; a record that cannot be used is remarked on."""
    try:
        return records.read_attached(view)
    except AgentError as error:
        context.note(Notice("group-not-detached", f"{error.sentence}: {error.saw}"))
        return ()


def _detach_steps(
    attached: tuple[AttachedGroup, ...], view: HostView, run: RunInfo
) -> tuple[GroupsDetached, ...]:
    """Return the step that detaches what was attached, if anything was."""
    each = tuple(Detachment(group, AwsAccess(view, run.environ, group.region)) for group in attached)
    return (GroupsDetached(each),) if each else ()


def _forget_groups(machine: Host, attached: tuple[AttachedGroup, ...], result: EngineResult) -> None:
    """Forget what was attached once it is seen not to be there."""
    if any(each.code == "group-not-detached" for each in result.notices):
        return
    done = (StepOutcome.MET, StepOutcome.CHANGED)
    if any(line.id == GroupsDetached.id and line.outcome in done for line in result.steps):
        with contextlib.suppress(AgentError):  # the next `remove` finds nothing attached, and tries again
            records.forget_attached(machine, *attached)


def _keep_proven(machine: Host, run: RunInfo) -> tuple[Notice, ...]:
    """Keep what works now, for a `rollback` to it; that it could not be kept is only remarked on."""
    try:
        snapshots.prove(machine, run.run_id)
    except AgentError as error:
        text = f"what works now could not be kept for a `rollback`: {error.saw or error.sentence}"
        return (Notice("snapshot-not-kept", text),)
    return ()


def _check_again(host: DeadlineHost, context: RunContext) -> None:
    """Gather the facts of after a run that may have changed the host: what the report says is true of then.

    Where they cannot be gathered, or not in a moment when the run's time is over, those of before stay.
    """
    if context.result is None or all(line.outcome is StepOutcome.MET for line in context.result.steps):
        return
    with contextlib.suppress(AgentError):
        context.after = gather(host.longer(_AFTERWARDS))
        if context.planned is not None and context.facts is not None and context.catalogue is not None:
            catalogue = context.catalogue  # not read again: the agent's own files may be gone by now
            stale, fresh = (
                life_cycle(
                    catalogue, context.planned.fit, {each.package: each.version for each in seen.installed}
                )
                for seen in (context.facts, context.after)
            )
            context.notices = (*(each for each in context.notices if each not in stale), *fresh)


def _programs(view: HostView, components: tuple[str, ...], context: RunContext) -> tuple[ProcessInfo, ...]:
    """Return the programs that use the client; that they cannot be checked is noted."""
    try:
        return client_processes(view, client_paths(view.system), components)
    except AgentError as error:
        context.note(*unread(error))
        return ()


def _run_post_checks(host: DeadlineHost, planned: PlanResult, context: RunContext) -> None:
    """Find what lets a host look right and be wrong; what cannot be checked is left out."""
    with contextlib.suppress(AgentError):
        machine = host.longer(_AFTERWARDS)
        here = client_paths(machine.system)
        programs = _programs(machine, planned.client.components, context)
        context.restarts = processes_to_restart(machine, here, programs)
        context.note(*configuration_warnings(machine, here, programs, planned.client.sdk))
