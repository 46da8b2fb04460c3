"""The far side of a roll-out: the request comes over the wire, events and the Report go back."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from agent import commands, log
from agent.config.desired import from_json
from agent.core.errors import AgentError, unexpected
from agent.core.urls import shown
from agent.hosts.local import local_host
from agent.render.json_report import to_tree
from agent.report import new_run
from agent.state import records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.host import Host
    from agent.core.model import Report, StepResult
    from agent.http.download import ProvidedFile
    from agent.remote.bootstrap import RecordStream
    from agent.report import RunInfo

# How often a request that came again looks whether the first one has ended, in seconds.
_LOOK_AGAIN = 0.5
# Commands that run alone on a host; and the ends of a run that was not let finish.
_LOCKING = ("configure", "remove")
_CUT_SHORT = ("interrupted", "link-lost")


def serve_stdio(patience: float | None = None) -> None:
    """Serve one request on standard input and output: where the agent came with its own Python, it needs no landing.

    `patience` is for how long the operator's end may be silent while we wait for it, in seconds; else as in a landing.
    """
    from agent.hosts.timed_input import TimedInput  # noqa: PLC0415 -- where a landing was, it has seen to the wire
    from agent.remote.bootstrap import PATIENCE, RecordStream  # noqa: PLC0415 -- as above

    patience = PATIENCE if patience is None else patience
    wire = RecordStream(TimedInput(sys.stdin.fileno(), patience), sys.stdout.buffer)
    try:
        request = wire.request()
    except ConnectionError as error:
        wire.say("failed", code="link-lost", saw=str(error))
    else:
        wire.say("hello", python=".".join(map(str, sys.version_info[:3])))
        serve(request, wire)


def serve(request: Mapping[str, Any], wire: RecordStream) -> None:
    """Do what is asked for and send the report.

    `request` has command, desired, removal (of which a plan is), request (who asks), again (the same was asked for
    before), resumed (by a controller before this one) and seconds (how long all of it may take).
    """
    stop = threading.Event()
    # Also where they are ignored. Over SSH that was inherited from how sshd was started, and is nobody's wish, as it is
    # at a terminal; and a shutdown has but one word before it kills.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    wired = RemoteListener(wire)
    machine = local_host(stop, sender=wired.send)
    log.open_log(machine, may_write=machine.is_root() and request["command"] != "plan")
    try:
        report = report_for(machine, request, wired)
    except AgentError as error:  # while waiting for another run; a run of our own reports
        wire.say("failed", code=error.code.name, saw=error.saw or error.sentence)
    except Exception as crash:  # a defect: whoever asks gets an answer, and the log the traceback
        logging.getLogger("agent").exception("%s failed", request["request"])
        met = unexpected(crash)
        wire.say("failed", code=met.code.name, saw=met.saw)
    else:
        wire.say("report", report=report)


def report_for(machine: Host, request: Mapping[str, Any], wired: RemoteListener) -> Mapping[str, Any]:
    """Return the report of this request: of the run that it started when it came first, or else of one run now."""
    end = machine.monotonic() + request["seconds"]
    while True:
        found = _awaited(machine, request, end) if request["again"] else None
        if found is not None:
            return found
        report = _run(machine, request, wired)
        # the run of the first time may have taken the lock in between
        if not (request["again"] and report.code == "run-locked") or machine.monotonic() >= end:
            return to_tree(report)


def _awaited(machine: Host, request: Mapping[str, Any], end: float) -> Mapping[str, Any] | None:
    """Return the report of the run that this request began when it came first, as soon as that has ended.

    None where there is none to wait for. It is waited for by its lock and not by trying to run: each trial would end
    in a report of its own, `run-locked`, and be told to everybody whom a report is for.
    """
    while True:
        found = _finished(machine, request)
        if found is not None or machine.monotonic() >= end:
            return found
        if request["command"] not in _LOCKING or not _is_locked(machine):
            return _finished(machine, request)  # it may have ended since
        machine.sleep(_LOOK_AGAIN)


def _is_locked(machine: Host) -> bool:
    try:
        with machine.lock(machine.system.lock, "hsm-agent, looking for the end of a run"):
            return False
    except AgentError as error:
        return error.code.name == "run-locked"


def _finished(machine: Host, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the report on disk when it is an answer to this request.

    One of a run that the host's shutdown or a broken link ended is none. To a controller that goes on with the run
    of another (`resumed`) only a good one is: since a bad one, somebody may have mended what it told.
    """
    with contextlib.suppress(AgentError):
        tree = records.read_report(machine)
        mine = (tree.get("request"), tree.get("command")) == (request["request"], request["command"])
        cut_short = {tree.get("code"), tree.get("cause")} & set(_CUT_SHORT)
        if mine and not cut_short and (tree.get("outcome") == "ok" or not request["resumed"]):
            return tree
    return None


def _run(machine: Host, request: Mapping[str, Any], wired: RemoteListener) -> Report:
    command = request["command"]
    desired = from_json(request["desired"])
    # the run ends before whoever waits for it gives up, so that its report can still be read
    desired = replace(desired, timeout=min(desired.timeout or request["seconds"], request["seconds"]))
    run = new_run(machine, command, os.environ, lambda: _identity(machine), request["request"])
    if command == "plan" and request.get("removal"):
        report = commands.plan_removal(machine, run, wired, desired.timeout)
    else:
        report = _command(machine, command, desired, run, wired)
    log.log_report(report)
    return report


def _identity(machine: Host) -> str | None:
    from agent.http.imds import instance_id  # noqa: PLC0415 -- only where a report goes somewhere

    return instance_id(machine, os.environ)


def _command(machine: Host, command: str, desired: Any, run: RunInfo, wired: RemoteListener) -> Report:
    if command == "configure":
        return commands.configure(machine, desired, run, wired)
    if command == "remove":
        return commands.remove(machine, run, wired, desired.timeout)
    return commands.verify(machine, desired, run, wired)


class RemoteListener:
    """Tells the operator where the run is, and has files sent from there."""

    def __init__(self, wire: RecordStream) -> None:
        self._wire = wire
        self._lock = threading.Lock()  # probes begin in threads of their own

    def began(self, line_id: str, *, touching: bool) -> None:
        with self._lock:
            self._wire.say("at", step=line_id, touching=touching)

    def ended(self, line: StepResult) -> None:
        """Say nothing: every line is in the report."""

    def send(self, url: str, sha256: str | None) -> ProvidedFile:
        """Have a file sent. Raises AgentError with the operator's own words, or when the link breaks."""
        try:
            with self._lock:
                self._wire.say("want", what="file", url=url, sha256=sha256)
            report_for = self._wire.line()
            while "wait" in report_for:  # it comes from far to the operator's end, too
                report_for = self._wire.line()
        except ConnectionError as error:
            _broken(url, error)
        if "code" in report_for:
            raise AgentError(
                report_for["code"], report_for["sentence"], saw=report_for["saw"], want=report_for["want"]
            )
        from agent.http.download import ProvidedFile  # noqa: PLC0415 -- 5 ms that only a download pays

        return ProvidedFile(report_for["size"], report_for["sha256"], self._pieces(url, report_for["size"]))

    def _pieces(self, url: str, size: int) -> Any:
        try:
            with contextlib.closing(self._wire.pieces(size)) as pieces:
                yield from pieces
        except ConnectionError as error:
            _broken(url, error)


def _broken(url: str, error: ConnectionError) -> NoReturn:
    raise AgentError(
        "link-lost",
        "the operator's end stopped sending a package",
        saw=str(error),
        want=shown(url),
        hint="run the roll-out again: it continues where it stopped",
    ) from error
