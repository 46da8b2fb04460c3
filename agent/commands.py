"""The commands as plain functions: each takes a machine and what is desired, and returns a Report or values."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable

from agent.catalogue import components, life_cycle, load, newest
from agent.cloudhsm.ca import expiry_notice
from agent.cloudhsm.paths import client_paths
from agent.cloudhsm.pem import contains_private_key
from agent.cloudhsm.post_checks import client_processes, configuration_warnings, processes_to_restart, users
from agent.cloudhsm.shared import parted, shared
from agent.config.ca_source import load_ca
from agent.config.desired import Desired, InputErrors, from_json, to_json
from agent.core.errors import CODES, AgentError, unexpected
from agent.core.model import ErrorDetails, Notice, Report, RunOutcome, StepOutcome
from agent.core.timeouts import Timeouts
from agent.engine import EngineResult, apply_plan, check_plan
from agent.facts import gather
from agent.hosts import ready
from agent.hosts.deadline import DeadlineHost
from agent.hosts.read_only import ReadOnlyHost
from agent.planner import fit_host, plan, removal_plan
from agent.render.json_report import to_document
from agent.report import RunContext, build_report
from agent.state import records, snapshots
from agent.state.exposure import close
from agent.state.running import at_work
from agent.state.snapshot_format import REMOVE, ROLLBACK
from agent.steps.package import Package, tidy
from agent.steps.restore import SnapshotUndo, restore
from agent.verdict import judge
from agent.windows import scheduler

if TYPE_CHECKING:
    from agent.catalogue import PlatformMatch
    from agent.cloudhsm.ca import Ca
    from agent.core.host import Host, HostView
    from agent.core.model import StaleProcess, StepResult
    from agent.engine import Listener
    from agent.facts import Facts
    from agent.planner import PlanResult
    from agent.report import RunInfo

# what is said of a run and not of a host, and what of a record is not about the host itself
_OF_THE_RUN = {"timeout", "report_to", "report_ca", "report_token_file"}
_NOT_OF_THE_HOST = {*_OF_THE_RUN, "ca_cert", "ca_fingerprint", "package_source", "sha256"}
# places for reports that want the network
_OVER_THE_NETWORK = {"https", "http", "cfn"}
# A run takes seconds; looking costs two small files. In seconds.
_LOOK_AGAIN = 0.5
_TELL_AGAIN = 30.0
# how long what a run left is looked at where its own time is over, in seconds
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
    # a tool that does not even end when it is told to takes its time twice
    tool, client = min(limits.tool, 0.35 * run), min(limits.client, 0.5 * run)
    return replace(limits, run=run, package=run, download=run, lock=0.8 * run, tool=tool, client=client)


@dataclass(frozen=True)
class _Prepared:
    """The engine's Undo, for which everything is loaded that the rest of the run may need, before the first touch."""

    keeper: SnapshotUndo
    downloads: bool = False

    def save(self, *, worked: bool) -> None:
        ready.load_for_run()
        if self.downloads:
            ready.load_for_web()
        self.keeper.save(worked=worked)

    def restore(self) -> tuple[StepResult, ...]:
        return self.keeper.restore()


def _downloads(planned: PlanResult) -> bool:
    """Tell whether anything may be brought over the network."""
    urls = [step.download.url for step in planned.plan.steps if isinstance(step, Package) and step.download]
    return any("://" in url and not url.startswith("file:") for url in urls)


def configure(machine: Host, desired: Desired, run: RunInfo, listener: Listener) -> Report:
    """Bring the host to the desired state, prove it, and remember what was asked and what came of it.

    Without an address of an HSM it is the last `configure` again: the cure for drift.
    """

    def body(known: RunContext) -> None:
        limits = timeouts_for(desired)
        host = DeadlineHost(machine, limits.run)
        known.wanted = wanted = resolve_desired(host, desired)
        known.notices = closed = close(machine)
        _accept(machine, _asked(machine, run, wanted))
        _begun(machine, run, known)
        planned, ca = _prepare(host, wanted, limits, known)
        known.notices = (*closed, *known.notices)
        record = _accept(machine, _with_ca(run, wanted, ca))
        undo = _Prepared(SnapshotUndo(machine, run.run_id), downloads=_downloads(planned))
        names = shared(machine)
        known.walk = apply_plan(planned.plan, host, listener, undo)
        packages = [line for line in known.walk.steps if line.id.startswith("package:")]
        if all(line.outcome in (StepOutcome.MET, StepOutcome.CHANGED) for line in packages):
            with contextlib.suppress(AgentError):
                tidy(machine)
        _look_again(host, known)
        _run_post_checks(host, planned, known)
        known.notices = (*known.notices, *parted(machine, names))
        outcome = judge(known.walk).outcome
        if outcome in (RunOutcome.OK, RunOutcome.DEGRADED):
            known.notices = (*known.notices, *_save_desired(machine, record))
            known.notices = (*known.notices, *_keep_proven(machine, run))
            # degraded is not done: the next start tries again
            ended = scheduler.end_first_boot(machine) if outcome is RunOutcome.OK else ()
            known.notices = (*known.notices, *ended, *scheduler.keep(machine))

    return _exclusive_run(machine, run, _recipients(machine, desired), body)


def verify(machine: Host, desired: Desired, run: RunInfo, listener: Listener) -> Report:
    """Look at everything and touch nothing: for the options given, or else for the last `configure`.

    The report is remembered as any other, `plan` (the same look under another name) excepted. While a `configure` that
    was asked for something else has not succeeded, the host is not as wanted, whatever these options say.
    """

    def body(known: RunContext) -> None:
        limits = timeouts_for(desired)
        host = DeadlineHost(machine, limits.run)
        view = ReadOnlyHost(host)
        known.wanted = wanted = resolve_desired(view, desired)
        planned, ca = _prepare(view, wanted, limits, known)
        known.walk = check_plan(planned.plan, view, listener)
        _run_post_checks(host, planned, known)
        known.is_first = _last(machine) is None
        if run.command == "verify":
            known.unfinished = _unfinished(view, _with_ca(run, wanted, ca))

    known = _recipients(machine, desired)
    return _reported(machine, run, known, body, remember=run.command == "verify", beside=True)


def rollback(machine: Host, run_id: str | None, run: RunInfo, listener: Listener) -> Report:
    """Put back the CA and the configuration as they were before a run, by default the last ones that worked."""

    def body(known: RunContext) -> None:
        wanted = snapshots.load(machine, run_id)
        known.facts = gather(machine)
        ready.load_for_run()
        known.notices = snapshots.remarks(machine, wanted)
        snapshots.save(machine, run.run_id, reason=ROLLBACK, to=wanted.name)
        _begun(machine, run, known)
        names = shared(machine)
        known.walk = EngineResult(restore(machine, wanted))
        known.notices = (*known.notices, *parted(machine, names))
        for line in known.walk.steps:
            listener.ended(line)
        with contextlib.suppress(AgentError):
            using = client_processes(machine, (*known.facts.components(5), *known.facts.components(3)))
            known.restarts = processes_to_restart(machine, using)
        unfinished = _unfinished(machine, None)
        if unfinished is not None:
            known.notices = (*known.notices, Notice("configure-unfinished", unfinished.saw))

    return _exclusive_run(machine, run, _recipients(machine, Desired()), body)


def remove(machine: Host, run: RunInfo, listener: Listener, timeout: float | None) -> Report:
    """Take the client packages off. The CA and the configuration are kept in a snapshot."""

    def body(known: RunContext) -> None:
        limits = timeouts_for(Desired(timeout=timeout))
        host = DeadlineHost(machine, limits.run)
        known.facts = gather(host)
        using = _users(machine, known.facts)
        undo = _Prepared(SnapshotUndo(machine, run.run_id, REMOVE))
        _begun(machine, run, known)
        known.walk = apply_plan(removal_plan(known.facts, limits), host, listener, undo)
        # also where another run, or somebody else, took the last package off: nothing is asked of this host any more
        if known.walk.changed or judge(known.walk).outcome is RunOutcome.OK:
            _forget(machine, known)
        if known.walk.changed:
            with contextlib.suppress(AgentError):
                tidy(machine)
            text = f"the CA and the configuration are kept; `hsm-agent rollback {run.run_id}` puts them back"
            known.notices = (Notice("kept", text),)
            known.restarts = using
        _look_again(host, known)
        if judge(known.walk).outcome is RunOutcome.OK:
            ended = (*scheduler.end_first_boot(machine), *scheduler.end(machine, scheduler.VERIFY))
            known.notices = (*known.notices, *ended)

    return _exclusive_run(machine, run, _recipients(machine, Desired()), body)


def _forget(machine: Host, known: RunContext) -> None:
    """Keep nothing of what was asked for but who was told of it: they are told as well of what comes now."""
    if machine.stat(machine.system.desired) is not None:
        records.write_receivers(machine, to_json(_receivers(known.told_to)))
        machine.remove(machine.system.desired)


def plan_removal(machine: Host, run: RunInfo, listener: Listener, timeout: float | None) -> Report:
    """Look what `remove` would take off, and touch nothing."""

    def body(known: RunContext) -> None:
        limits = timeouts_for(Desired(timeout=timeout))
        view = ReadOnlyHost(DeadlineHost(machine, limits.run))
        known.facts = gather(view)
        known.walk = check_plan(removal_plan(known.facts, limits), view, listener)

    return _reported(machine, run, RunContext(), body, remember=False)


def facts(view: HostView, platform: str | None) -> dict[str, Any]:
    """Look at the machine and say which client fits it, as plain JSON values; `refusal` says why none does."""
    known = gather(view)
    catalogue = load()
    fit: PlatformMatch | None = None
    refusal = None
    try:
        fit = fit_host(known, platform, catalogue)
    except AgentError as error:
        refusal = {"code": error.code.name, "sentence": error.sentence, "saw": error.saw, "hint": error.hint}
    fits = components(catalogue, fit, known.arch) if fit else ()
    installed = {each.package: each.version for each in known.installed}
    advice = (*fit.notices, *life_cycle(catalogue, fit, installed)) if fit else ()
    return {
        "schema_version": 1,
        "host": {
            "name": known.name,
            "os": known.os,
            "os_version": known.os_version,
            "title": known.title,
            "arch": known.arch,
            "package_format": known.format,
            "init": known.init,
            "platform": fit.row.name if fit else None,
            "platform_forced": bool(fit and fit.forced),
        },
        "fits": {each: newest(catalogue, fit, known.arch, each) for each in fits if fit},
        "installed": {
            each.package: {"version": each.version, "broken": each.remark} for each in known.installed
        },
        "configured": {
            each.component: {"servers": list(each.servers), "ca": each.ca} for each in known.configured
        },
        "ca_present": known.has_ca,
        "advice": [{"code": each.code, "text": each.text} for each in advice],
        "refusal": refusal,
    }


def last_report(
    view: HostView, wait: float | None, progress: Callable[[str], None] = lambda _words: None
) -> dict[str, Any]:
    """Return the last report; with `wait` that of the run which is at work now, or the first one there ever is.

    `progress` is told what is waited for: when that changes, and now and then.
    Raises AgentError `nothing-recorded` when there is none, or `timed-out` when the wait was in vain.
    """
    ends = view.monotonic() + (wait or 0)
    told, tell_at = "", 0.0
    while True:
        saw = at_work(view) if wait else None
        if saw is None:
            try:
                return records.read_report(view)
            except AgentError as none:
                if not wait or none.code.name != "nothing-recorded":
                    raise
                saw = none.saw
        if view.monotonic() >= ends:
            raise AgentError(
                "timed-out", "the wait for a report was in vain", saw=saw, want=f"a report within {wait:g} s",
                hint=f"`{view.system.log_command}` says what goes on",
            )  # fmt: skip
        if saw != told or view.monotonic() >= tell_at:
            told, tell_at = saw, view.monotonic() + _TELL_AGAIN
            progress(f"waiting, for {ends - view.monotonic():.0f} s at most: {saw}")
        view.sleep(_LOOK_AGAIN)


def _prepare(host: HostView, desired: Desired, limits: Timeouts, known: RunContext) -> tuple[PlanResult, Ca]:
    """Gather facts, read the CA and plan; each is known to the report as soon as it is there."""
    known.facts = gather(host)
    ca, remarks = load_ca(host, desired, limits)
    known.catalogue = load()
    known.planned = plan(known.facts, desired, known.catalogue, ca, limits)
    soon = expiry_notice(ca, host.now())
    known.notices = (*known.planned.plan.notices, *remarks, *((soon,) if soon else ()))
    return known.planned, ca


def resolve_desired(view: HostView, desired: Desired) -> Desired:
    """Return what was asked for now, or when nothing was, what the last `configure` was asked for, failed or not."""
    if desired.hsm_ip:
        return desired
    said = {name: value for name, value in vars(desired).items() if value != vars(Desired())[name]}
    try:
        last = records.read_last(view)
    except AgentError as error:
        if error.code.name == "nothing-recorded" and said.keys() - _OF_THE_RUN:
            raise _incomplete(view, desired, error) from error
        if error.code.name != "unreadable" or view.is_root():
            raise
        raise AgentError(
            "not-root",
            "an ordinary user may not read what the last `configure` was asked for",
            saw="an ordinary user",
            want=f"{view.system.admin_role}, or options",
            hint="run it with sudo, or on Windows elevated, or give the options that `configure` was given",
        ) from error
    before = _of_record(view, last)
    if not set(desired.report_to) <= set(before.report_to):
        # a token is for the receivers that it was named with
        before = replace(before, report_token_file=None, report_ca=None)
    return replace(before, **said)


def _incomplete(view: HostView, desired: Desired, error: AgentError) -> AgentError:
    """Return everything that options without an address lack, on a host that has no record to complete them from."""
    return AgentError(
        "config-invalid", "the options are not complete", saw="\n".join(filter(None, _lacking(view, desired))),
        want="options that are complete, or an earlier `configure`",
        hint=f"{error.sentence}: name each HSM with `--hsm-ip`, and the CA with `--ca-cert`",
    )  # fmt: skip


def _lacking(view: HostView, desired: Desired) -> tuple[str, str]:
    """Return what is missing where nothing is recorded that could complete it: of the addresses, and of the CA."""
    if _last(view) is not None:
        return "", ""
    hsm = "" if desired.hsm_ip else "--hsm-ip: at least one address of an HSM is needed"
    with contextlib.suppress(AgentError):
        if desired.ca_cert is None and view.stat(client_paths(view.system).ca) is None:
            return hsm, "--ca-cert: customerCA.crt is needed, since there is none on this host yet"
    return hsm, ""


def _of_record(view: HostView, last: records.LastConfigure) -> Desired:
    """Return what a record says was asked for. Raises AgentError `nothing-recorded` for what cannot be understood."""
    with contextlib.suppress(TypeError):
        before = from_json(last.desired)
        if before.hsm_ip:
            return before if last.ca_pem is None else replace(before, ca_cert=f"inline:{last.ca_pem}")
    raise AgentError(
        "nothing-recorded",
        "the record is of another version",
        saw=view.system.desired,
        want="a record this version wrote",
    )


def _kept(wanted: Desired) -> Desired:
    """Return what is kept of what was asked for: without what is said anew each time, and the CA, kept by itself."""
    return replace(wanted, ca_cert=None, replace_ca=False, timeout=None)


def _asked(machine: HostView, run: RunInfo, wanted: Desired) -> records.LastConfigure:
    """Return the record of a `configure` that begins. Where its CA is to be read from is kept, and never a secret."""
    before = _last(machine)
    if before is not None and before.ca_pem is not None and wanted.ca_cert == f"inline:{before.ca_pem}":
        return records.LastConfigure(to_json(_kept(wanted)), before.ca_pem, run.run_id)
    source = wanted.ca_cert
    if source is not None and contains_private_key(source.encode("utf-8", "surrogateescape")):
        source = "inline:"
    return records.LastConfigure(to_json(replace(_kept(wanted), ca_cert=source)), None, run.run_id)


def _with_ca(run: RunInfo, wanted: Desired, ca: Ca) -> records.LastConfigure:
    """Return what is asked for, with the CA as it was read."""
    return records.LastConfigure(to_json(_kept(wanted)), ca.pem.decode(), run.run_id)


def _accept(machine: Host, record: records.LastConfigure) -> records.LastConfigure:
    """Keep what is asked for before anything is done about it: it counts from now on, however this run ends.

    Raises AgentError where it cannot be kept, unless a `configure` has succeeded that was asked for the same.
    """
    before = _last(machine)
    done = before.succeeded if before is not None else None
    record = replace(record, succeeded=done)
    if before is not None and before.asks == record.asks:
        return record
    try:
        records.write_last(machine, record)
    except AgentError:
        if done is None or _meant(done) != _meant(record) or record.ca_pem not in (None, done.ca_pem):
            raise
    return record


def _begun(machine: Host, run: RunInfo, known: RunContext) -> None:
    """Keep a report that says that this run has begun: one that is killed must not leave an older one's success."""
    unended = AgentError(
        "interrupted",
        "the run has begun, and its end is not reported",
        saw="it is at work, was killed, or its end could not be kept",
        want="its own report",
        hint="`hsm-agent status --wait` waits while it is at work; otherwise run the same command again",
    )
    with contextlib.suppress(AgentError):
        report = build_report(machine, replace(run, identity=lambda: None), known, unended)
        records.write_report(machine, to_document(report))


def _save_desired(machine: Host, record: records.LastConfigure) -> tuple[Notice, ...]:
    """Keep that what was asked for has succeeded. What the run did stands also when that fails."""
    try:
        records.write_last(machine, replace(record, succeeded=record))
    except AgentError as error:
        text = f"that this run succeeded could not be kept: {error.saw or error.sentence}"
        return (Notice("record-not-kept", text),)
    return ()


def _keep_proven(machine: Host, run: RunInfo) -> tuple[Notice, ...]:
    """Keep what works now, for a `rollback` to it; that it could not be kept is only remarked on."""
    try:
        snapshots.prove(machine, run.run_id)
    except AgentError as error:
        text = f"what works now could not be kept for a `rollback`: {error.saw or error.sentence}"
        return (Notice("snapshot-not-kept", text),)
    return ()


def _last(view: HostView) -> records.LastConfigure | None:
    """Return the record of this host, None where there is none, or one that cannot be understood."""
    with contextlib.suppress(AgentError, TypeError):
        last = records.read_last(view)
        for each in filter(None, (last, last.succeeded)):
            from_json(each.desired)
        return last
    return None


def _unfinished(view: HostView, looked_at: records.LastConfigure | None) -> ErrorDetails | None:
    """Tell that the last `configure` has not succeeded, unless what it means was looked at, or succeeded before."""
    last = _last(view)
    if last is None or last.is_done:
        return None
    run = f"run {last.run_id}" if last.run_id else "it"
    same = [each for each in (last.succeeded, looked_at) if each is not None and _meant(each) == _meant(last)]
    sentence = "the last `configure` was asked for something else, and no success of it is recorded"
    hsms = " ".join(map(str, last.desired.get("hsm_ip", ())))
    saw = f"{run} was asked for HSMs {hsms}, and no run since is known to have succeeded"
    if same:
        try:
            if _ca_of(view, last) in [each.ca_pem for each in same]:
                return None
        except AgentError as error:
            if error.ends_run:
                raise
            sentence = "the last `configure` did not succeed, and the CA that it asked for cannot be used"
            saw = f"{run}: {error.sentence}: {error.saw}"
    return ErrorDetails(
        "drift",
        sentence,
        saw,
        "a `configure` that succeeds",
        "run `hsm-agent configure`: without options it is that one again, with others they are what is wanted",
    )


def _ca_of(view: HostView, last: records.LastConfigure) -> str:
    """Return the CA that a record asks for: what is at the place it names. Raises AgentError as reading that does."""
    if last.ca_pem is not None:
        return last.ca_pem
    return load_ca(view, _of_record(view, last), Timeouts())[0].pem.decode()


def _meant(last: records.LastConfigure) -> Desired:
    """Return what a record asks of the host itself but for the CA, in one spelling: what is meant without saying, said.

    Neither who is told of it, nor where packages come from.
    """
    said = from_json({name: value for name, value in last.desired.items() if name not in _NOT_OF_THE_HOST})
    return replace(
        said,
        hsm_ip=tuple(sorted(set(said.hsm_ip))),
        component=tuple(sorted({"cli", *said.component})),
        sdk=said.sdk or 5,
    )


def _look_again(host: DeadlineHost, known: RunContext) -> None:
    """Look at the machine as it is after a run that may have changed it: what is said of it is true of then.

    Where it cannot be looked at, or not in a moment when the run's time is over, what was true before stays.
    """
    if known.walk is None or all(line.outcome is StepOutcome.MET for line in known.walk.steps):
        return
    with contextlib.suppress(AgentError):
        known.after = gather(host.longer(_AFTERWARDS))
        if known.planned is not None and known.facts is not None and known.catalogue is not None:
            catalogue = known.catalogue  # not read again: the agent's own files may be gone by now
            stale, fresh = (
                life_cycle(
                    catalogue, known.planned.fit, {each.package: each.version for each in seen.installed}
                )
                for seen in (known.facts, known.after)
            )
            known.notices = (*(each for each in known.notices if each not in stale), *fresh)


def _users(view: HostView, seen: Facts) -> tuple[StaleProcess, ...]:
    """Return the programs that use the client which is about to go."""
    with contextlib.suppress(AgentError):
        return users(client_processes(view, (*seen.components(5), *seen.components(3))), view.system)
    return ()


def _run_post_checks(host: DeadlineHost, planned: PlanResult, known: RunContext) -> None:
    """See what lets a host look right and be wrong; whatever cannot be seen is left out."""
    with contextlib.suppress(AgentError):
        machine = host.longer(_AFTERWARDS)
        programs = client_processes(machine, planned.client.components)
        known.restarts = processes_to_restart(machine, programs)
        known.notices = (*known.notices, *configuration_warnings(machine, programs, planned.client.sdk))


def _with_what_lacks(view: HostView, error: AgentError, desired: Desired) -> AgentError:
    """Add to complaints what the next look would complain of: the whole input is corrected in one go."""
    spelled = (("--hsm-ip", "hsm.ip", "HSM_AGENT_HSM_IP"), ("--ca-cert", "hsm.ca_cert", "HSM_AGENT_CA_CERT"))
    lacking = [
        text
        for names, text in zip(spelled, _lacking(view, desired))
        if text and not any(name in error.saw for name in names)
    ]
    if error.code.name != "config-invalid" or not lacking:
        return error
    input_errors = InputErrors([*error.saw.splitlines(), *lacking])
    return input_errors.error()


def report_invalid_input(machine: Host, run: RunInfo, error: AgentError, desired: Desired) -> Report:
    """Report a run that ended before it began, since what was asked for is not valid, to whom it was to be told."""
    known = (
        RunContext(told_to=desired)
        if desired.report_to
        else _recipients(machine, replace(desired, hsm_ip=()))
    )
    error = _with_what_lacks(machine, error, desired)
    return _delivered(machine, run, build_report(machine, run, known, error), known.told_to, remember=False)


def _recipients(view: HostView, desired: Desired) -> RunContext:
    """Begin a run with whom it is told to: who is named now, or else who was named to the last `configure`.

    After a `remove` there is none, and a `rollback` of it concerns those who were told of the `remove`.
    """
    with contextlib.suppress(AgentError):
        return RunContext(told_to=resolve_desired(view, desired))
    if not desired.report_to:
        with contextlib.suppress(AgentError, TypeError):
            return RunContext(told_to=from_json(records.read_receivers(view)))
    return RunContext(told_to=desired)


def _receivers(told_to: Desired) -> Desired:
    return Desired(
        report_to=told_to.report_to,
        report_ca=told_to.report_ca,
        report_token_file=told_to.report_token_file,
    )


def _exclusive_run(
    machine: Host, run: RunInfo, known: RunContext, body: Callable[[RunContext], None]
) -> Report:
    """Run the body of a command that changes the host: as root, alone, and remembered."""
    try:
        if not machine.is_root():
            mighty = machine.system.admin_role
            raise AgentError(
                "not-root", f"changing this host needs {mighty}", saw="an ordinary user", want=mighty
            )
        asked = f", for roll-out {run.request}" if run.request else ""
        with machine.lock(machine.system.lock, f"hsm-agent {run.command}, run {run.run_id}{asked}"):
            return _reported(machine, run, known, body, remember=True)
    except AgentError as error:
        return _delivered(
            machine, run, build_report(machine, run, known, error), known.told_to, remember=False
        )


def _reported(
    machine: Host,
    run: RunInfo,
    known: RunContext,
    body: Callable[[RunContext], None],
    *,
    remember: bool,
    beside: bool = False,
) -> Report:
    """Run a body and report however it ended; an AgentError is the run's own outcome.

    `beside`: without the lock, so that another run may change the host meanwhile. Its report is then the one to keep.
    """
    before = _last_words(machine) if beside and remember else None
    error: AgentError | None = None
    try:
        _ready_to_report(machine, run, known)
        body(known)
    except AgentError as raised:
        error = raised
    except Exception as crash:  # a defect: a run always reports, and the log gets the traceback
        logging.getLogger("agent").exception("run %s failed", run.run_id)
        error = unexpected(crash)
    if before is not None:
        after = _last_words(machine)
        if before.at_work or after != before:
            text = "another run was at work on this host meanwhile, and `status` shows what that one reports"
            known.notices = (*known.notices, Notice("run-beside", text))
            remember = False
    report = build_report(machine, run, known, error)
    remember = remember and machine.is_root() and report.code != "nothing-recorded"
    if remember:
        report = _recorded(machine, report)
    return _delivered(machine, run, report, known.told_to, remember=remember)


@dataclass(frozen=True)
class _Words:
    """What other runs have said so far: the one that is at work, and the last that reported."""

    at_work: str | None
    reported: str | None


def _last_words(view: HostView) -> _Words:
    words = reported = None
    with contextlib.suppress(AgentError):
        words = at_work(view)
    with contextlib.suppress(AgentError):
        reported = str(records.read_report(view).get("run_id"))
    return _Words(words, reported)


def _recorded(machine: Host, report: Report) -> Report:
    """Keep a report for `status`; that it could not be kept is then in it."""
    try:
        records.write_report(machine, to_document(report))
    except AgentError as unwritten:
        notice = Notice("report-not-kept", f"the report could not be kept: {unwritten.saw}")
        return replace(report, notices=(*report.notices, notice))
    return report


def _delivered(machine: Host, run: RunInfo, report: Report, told_to: Desired, *, remember: bool) -> Report:
    """Deliver a report, and return it as it is shown and kept: with what became of that.

    What is delivered is the report as it was before. That it did not arrive is the run's outcome only when nothing
    worse is.
    """
    if not _is_told(machine, run, told_to):
        return report
    from agent.sinks.delivery import deliver  # noqa: PLC0415 -- only where a report goes somewhere

    hurried = report.code == "interrupted"
    done = deliver(machine, told_to, to_document(report), run.environ, hurried=hurried)
    if not done.notices:
        return report
    report = replace(report, notices=(*report.notices, *done.notices))
    if done.failed and report.exit_status == 0:
        code = CODES["report-refused" if done.refused else "report-undelivered"]
        failure = ErrorDetails(code.name, code.meaning, "", "", code.fix)  # what was seen, the warnings say
        report = replace(report, code=code.name, exit_status=code.exit_status, failure=failure)
    return _recorded(machine, report) if remember else report


def _is_told(view: HostView, run: RunInfo, told_to: Desired) -> bool:
    """Tell whether a report goes to anybody: of this run, or of those before it."""
    return run.command != "plan" and bool(told_to.report_to or (view.is_root() and _spooled(view)))


def _ready_to_report(view: HostView, run: RunInfo, known: RunContext) -> None:
    """Load what the report's delivery will take: when the run has ended, the agent may be gone from the disk."""
    if not _is_told(view, run, known.told_to):
        return
    import agent.sinks.delivery  # noqa: F401, PLC0415 -- only where a report goes somewhere

    schemes = {uri.partition(":")[0] for uri in known.told_to.report_to}
    waits = view.is_root() and _spooled(view)  # for whichever place
    if waits or "junit" in schemes:
        import xml.etree.ElementTree  # noqa: F401, PLC0415 -- 10 ms that only this pays
    if waits or schemes & _OVER_THE_NETWORK:
        ready.load_for_web()


def _spooled(view: HostView) -> bool:
    with contextlib.suppress(AgentError):
        return bool(view.list_dir(view.system.spool))
    return False
