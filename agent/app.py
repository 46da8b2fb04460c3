"""The commands as plain functions: each takes a machine and what is desired, and returns a Report or values."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

from agent import tasks
from agent.anchor import wanted_ca
from agent.catalogue import components, life_cycle, load, newest
from agent.cloudhsm.ca import expiry_notice
from agent.cloudhsm.hazards import hazards, restarts, running
from agent.core.errors import CODES, AgentError
from agent.core.limits import Limits
from agent.core.words import Failure, Notice, Outcome, Report, Verdict
from agent.desired import Desired, from_json, to_json
from agent.engine import Walk, apply, look
from agent.facts import gather
from agent.hosts.guarded import Guarded
from agent.planner import fit_host, plan, removal
from agent.render.record import to_document
from agent.report import Known, assemble
from agent.state import snapshot, store
from agent.state.at_work import at_work
from agent.steps.package import tidy
from agent.verdict import judge

if TYPE_CHECKING:
    from agent.catalogue import Fit
    from agent.cloudhsm.ca import Ca
    from agent.core.host import Host, HostView
    from agent.engine import Listener
    from agent.planner import Planned
    from agent.report import Run

# A run takes seconds; looking costs two small files. In seconds.
_LOOK_AGAIN = 0.5


def limits_of(desired: Desired) -> Limits:
    """Return the waits of a run: `--timeout` bounds the whole, and each wait in it.

    A longer one gives packages, downloads and the lock longer; no HSM gets more patience from it. Single waits end
    before the run does: what hangs is then named by its own code, and there is time left to look at the rest.
    """
    limits = Limits()
    if desired.timeout is None:
        return limits
    run = desired.timeout
    tool, client = (min(each, 0.5 * run) for each in (limits.tool, limits.client))
    return replace(limits, run=run, package=run, download=run, lock=0.8 * run, tool=tool, client=client)


def configure(machine: Host, desired: Desired, run: Run, listener: Listener) -> Report:
    """Bring the host to the desired state, prove it, and remember what was asked and what came of it.

    Without an address of an HSM it is the last `configure` again: the cure for drift.
    """

    def body(known: Known) -> None:
        limits = limits_of(desired)
        host = Guarded(machine, limits.run)
        wanted = _or_last(host, desired)
        planned, ca = _prepare(host, wanted, limits, known)
        known.walk = apply(planned.plan, host, listener, snapshot.Keeper(machine, run.run_id))
        packages = [line for line in known.walk.lines if line.id.startswith("package:")]
        if all(line.outcome in (Outcome.MET, Outcome.CHANGED) for line in packages):
            with contextlib.suppress(AgentError):
                tidy(machine)
        _observe(machine, planned, known)
        proven = judge(known.walk).outcome in (Verdict.OK, Verdict.DEGRADED)
        if proven or known.walk.changed:
            known.notices = (*known.notices, *_remember(machine, wanted, ca))
        if proven:
            known.notices = (*known.notices, *tasks.end_first_boot(machine), *tasks.keep(machine))

    return _changing(machine, run, _known_to(machine, desired), body)


def verify(machine: Host, desired: Desired, run: Run, listener: Listener) -> Report:
    """Look at everything and touch nothing: for the options given, or else for the last `configure`.

    The report is remembered as any other, `plan` (the same look under another name) excepted.
    """

    def body(known: Known) -> None:
        limits = limits_of(desired)
        host = Guarded(machine, limits.run)
        planned, _ = _prepare(host, _or_last(host, desired), limits, known)
        known.walk = look(planned.plan, host, listener)
        _observe(machine, planned, known)

    return _reported(machine, run, _known_to(machine, desired), body, remember=run.command == "verify")


def rollback(machine: Host, run_id: str | None, run: Run, listener: Listener) -> Report:
    """Put back the CA and the configuration as they were before a run, by default the last one that changed them."""

    def body(known: Known) -> None:
        wanted = snapshot.load(machine, run_id)
        known.facts = gather(machine)
        snapshot.save(machine, run.run_id, rollback=True)
        known.walk = Walk(wanted.restore(machine))
        for line in known.walk.lines:
            listener.ended(line)

    return _changing(machine, run, _known_to(machine, Desired()), body)


def remove(machine: Host, run: Run, listener: Listener, timeout: float | None) -> Report:
    """Take the client packages off. The CA and the configuration are kept in a snapshot."""

    def body(known: Known) -> None:
        limits = limits_of(Desired(timeout=timeout))
        host = Guarded(machine, limits.run)
        known.facts = gather(host)
        known.walk = apply(removal(known.facts, limits), host, listener, snapshot.Keeper(machine, run.run_id))
        if known.walk.changed:
            machine.remove(machine.system.desired)
            tidy(machine)
            text = f"the CA and the configuration are kept; `hsm-agent rollback {run.run_id}` puts them back"
            known.notices = (Notice("kept", text),)
        if judge(known.walk).outcome is Verdict.OK:
            ended = (*tasks.end_first_boot(machine), *tasks.end(machine, tasks.VERIFY))
            known.notices = (*known.notices, *ended)

    return _changing(machine, run, _known_to(machine, Desired()), body)


def plan_removal(machine: Host, run: Run, listener: Listener, timeout: float | None) -> Report:
    """Look what `remove` would take off, and touch nothing."""

    def body(known: Known) -> None:
        limits = limits_of(Desired(timeout=timeout))
        host = Guarded(machine, limits.run)
        known.facts = gather(host)
        known.walk = look(removal(known.facts, limits), host, listener)

    return _reported(machine, run, Known(), body, remember=False)


def facts(view: HostView, platform: str | None) -> dict[str, Any]:
    """Look at the machine and say which client fits it, as plain JSON values; `refusal` says why none does."""
    known = gather(view)
    catalogue = load()
    fit: Fit | None = None
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


def last_report(view: HostView, wait: float | None) -> dict[str, Any]:
    """Return the last report; with `wait` that of the run which is at work now, or the first one there ever is.

    Raises AgentError `nothing-recorded` when there is none, or `timed-out` when the wait was in vain.
    """
    ends = view.monotonic() + (wait or 0)
    while True:
        saw = at_work(view) if wait else None
        if saw is None:
            try:
                return store.read_report(view)
            except AgentError as none:
                if not wait or none.code.name != "nothing-recorded":
                    raise
                saw = none.saw
        if view.monotonic() >= ends:
            raise AgentError(
                "timed-out", "the wait for a report was in vain", saw=saw, want=f"a report within {wait:g} s",
                hint=f"`{view.system.story}` says what goes on",
            )  # fmt: skip
        view.pause(_LOOK_AGAIN)


def _prepare(host: HostView, desired: Desired, limits: Limits, known: Known) -> tuple[Planned, Ca]:
    """Gather facts, read the CA and plan; each is known to the report as soon as it is there."""
    known.facts = gather(host)
    ca, remarks = wanted_ca(host, desired, limits)
    known.planned = plan(known.facts, desired, load(), ca, limits)
    soon = expiry_notice(ca, host.now())
    known.notices = (*known.planned.plan.notices, *remarks, *((soon,) if soon else ()))
    return known.planned, ca


def _or_last(view: HostView, desired: Desired) -> Desired:
    """Return what was asked for now, or when nothing was, what the last `configure` was asked for."""
    if desired.hsm_ip:
        return desired
    try:
        last = store.read_last(view)
    except AgentError as error:
        if error.code.name != "unreadable" or view.is_root():
            raise
        raise AgentError(
            "not-root",
            "an ordinary user may not read what the last `configure` was asked for",
            saw="an ordinary user",
            want=f"{view.system.mighty}, or options",
            hint="run it with sudo, or on Windows elevated, or give the options that `configure` was given",
        ) from error
    try:
        before = from_json(last.desired)
    except TypeError:
        raise AgentError(
            "nothing-recorded",
            "the record is of another version",
            saw=view.system.desired,
            want="a record this version wrote",
        ) from None
    said = {name: value for name, value in vars(desired).items() if value != vars(Desired())[name]}
    if not set(desired.report_to) <= set(before.report_to):
        # a token is for the receivers that it was named with
        before = replace(before, report_token_file=None, report_ca=None)
    return replace(before, **{"ca_cert": f"inline:{last.ca_pem}", **said})


def _remember(machine: Host, desired: Desired, ca: Ca) -> tuple[Notice, ...]:
    """Keep what was asked for. What the run did stands also when that fails, so it is only remarked on."""
    kept = replace(desired, ca_cert=None, replace_ca=False, timeout=None)
    try:
        store.write_last(machine, store.Last(to_json(kept), ca.pem.decode()))
    except AgentError as error:
        text = f"what was asked for could not be kept, so `verify` needs its options: {error.saw or error.sentence}"
        return (Notice("record-not-kept", text),)
    return ()


def _observe(machine: Host, planned: Planned, known: Known) -> None:
    """See what lets a host look right and be wrong; whatever cannot be seen is left out."""
    with contextlib.suppress(AgentError):
        programs = running(machine, planned.client.components)
        known.restarts = restarts(machine, programs)
        known.notices = (*known.notices, *hazards(machine, programs, planned.client.sdk))


def refused(machine: Host, run: Run, error: AgentError, desired: Desired) -> Report:
    """Report a run that ended before it began, since what was asked for is not valid, to whom it was to be told."""
    known = Known(told_to=desired) if desired.report_to else _known_to(machine, replace(desired, hsm_ip=()))
    return _delivered(machine, run, assemble(machine, run, known, error), known.told_to, remember=False)


def _known_to(view: HostView, desired: Desired) -> Known:
    """Begin a run with whom it is told to: who is named now, or else who was named to the last `configure`."""
    with contextlib.suppress(AgentError):
        return Known(told_to=_or_last(view, desired))
    return Known(told_to=desired)


def _changing(machine: Host, run: Run, known: Known, body: Callable[[Known], None]) -> Report:
    """Run the body of a command that changes the host: as root, alone, and remembered."""
    try:
        if not machine.is_root():
            mighty = machine.system.mighty
            raise AgentError(
                "not-root", f"changing this host needs {mighty}", saw="an ordinary user", want=mighty
            )
        asked = f", for roll-out {run.request}" if run.request else ""
        with machine.lock(machine.system.lock, f"hsm-agent {run.command}, run {run.run_id}{asked}"):
            return _reported(machine, run, known, body, remember=True)
    except AgentError as error:
        return _delivered(machine, run, assemble(machine, run, known, error), known.told_to, remember=False)


def _reported(
    machine: Host, run: Run, known: Known, body: Callable[[Known], None], *, remember: bool
) -> Report:
    """Run a body and report however it ended; an AgentError is the run's own outcome."""
    error: AgentError | None = None
    try:
        body(known)
    except AgentError as raised:
        error = raised
    except Exception as crash:  # a defect: a run always reports, and the log gets the traceback
        logging.getLogger("agent").exception("run %s failed", run.run_id)
        error = AgentError("internal", "the agent failed", saw=f"{type(crash).__name__}: {crash}")
    report = assemble(machine, run, known, error)
    remember = remember and machine.is_root() and report.code != "nothing-recorded"
    if remember:
        report = _recorded(machine, report)
    return _delivered(machine, run, report, known.told_to, remember=remember)


def _recorded(machine: Host, report: Report) -> Report:
    """Keep a report for `status`; that it could not be kept is then in it."""
    try:
        store.write_report(machine, to_document(report))
    except AgentError as unwritten:
        notice = Notice("report-not-kept", f"the report could not be kept: {unwritten.saw}")
        return replace(report, notices=(*report.notices, notice))
    return report


def _delivered(machine: Host, run: Run, report: Report, told_to: Desired, *, remember: bool) -> Report:
    """Deliver a report, and return it as it is shown and kept: with what became of that.

    What is delivered is the report as it was before. That it did not arrive is the run's outcome only when nothing
    worse is.
    """
    if run.command == "plan" or not (told_to.report_to or (machine.is_root() and _spooled(machine))):
        return report
    from agent.delivery import deliver  # noqa: PLC0415 -- only where a report goes somewhere

    hurried = report.code == "interrupted"
    done = deliver(machine, told_to, to_document(report), run.environ, hurried=hurried)
    if not done.notices:
        return report
    report = replace(report, notices=(*report.notices, *done.notices))
    if done.failed and report.exit_status == 0:
        code = CODES["report-undelivered"]
        failure = Failure(code.name, code.meaning, "", "", code.fix)  # what was seen, the warnings say
        report = replace(report, code=code.name, exit_status=code.exit_status, failure=failure)
    return _recorded(machine, report) if remember else report


def _spooled(view: HostView) -> bool:
    with contextlib.suppress(AgentError):
        return bool(view.names(view.system.spool))
    return False
