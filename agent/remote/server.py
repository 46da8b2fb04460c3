"""The server of one request, on the host: it runs the command, and sends where it is and its Report."""

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
from agent.cloudhsm.cluster import description_from_json
from agent.config.desired import from_json
from agent.core.codes import CODES
from agent.core.errors import AgentError, unexpected
from agent.core.urls import redact_url
from agent.hosts.local import local_host
from agent.remote.protocol import PATIENCE, At, Failed, Hello, RecordStream, Refused, ReportMessage, WantFile
from agent.render.json_report import to_tree
from agent.report import new_run
from agent.state import records
from agent.steps.agent_package import AgentPackages

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from agent.core.host import Host
    from agent.core.model import Report, StepResult
    from agent.engine import Listener
    from agent.http.download import ProvidedFile
    from agent.remote.protocol import HostRequest
    from agent.report import RunInfo

# How often a repeated request checks whether its first run has ended, in seconds.
_POLL = 0.5
# Commands that hold the host's lock; and the codes of a run that was cut short.
_LOCKING = ("configure", "remove")
_CUT_SHORT = ("interrupted", "link-lost")


def serve_stdio(patience: float = PATIENCE) -> None:
    """Serve one request on standard input and output, without a bootstrap: on Windows the agent has its own Python.

    `patience` is how long the operator may be silent while the agent waits for it, in seconds.
    """
    from agent.hosts.timed_input import TimedInput  # noqa: PLC0415 -- the bootstrap has its own

    stream = RecordStream(TimedInput(sys.stdin.fileno(), patience), sys.stdout.buffer)
    try:
        request = stream.request()
    except ConnectionError as error:
        stream.send(Failed("link-lost", str(error)))
    else:
        stream.send(Hello(".".join(map(str, sys.version_info[:3]))))
        serve(request, stream)


def serve(request: HostRequest, stream: RecordStream) -> None:
    """Run what is requested and send the report."""
    listener = RemoteListener(stream)
    machine = local_host(stop_event(), sender=listener.send)
    log.open_log(machine, may_write=machine.is_root() and request.command != "plan")
    stream.send(answer(machine, request, listener))


def stop_event() -> threading.Event:
    """Return what is set when the host asks this process to end."""
    stop = threading.Event()
    # Also where they are ignored: over SSH that is inherited from how sshd was started, and not the user's choice as at
    # a terminal. And a shutdown sends only one signal before it kills.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    return stop


def answer(machine: Host, request: HostRequest, listener: Listener) -> Failed | ReportMessage:
    """Return the answer to a request: the report of its run, or why there was none."""
    try:
        return ReportMessage(report_for(machine, request, listener))
    except AgentError as error:  # while it waited for another run; a run of its own makes a report
        return Failed(error.code.name, error.saw or error.sentence)
    except Exception as crash:  # a defect: the operator gets an answer, and the log the traceback
        logging.getLogger("agent").exception("%s failed", request.request)
        failure = unexpected(crash)
        return Failed(failure.code.name, failure.saw)


def report_for(machine: Host, request: HostRequest, listener: Listener) -> Mapping[str, Any]:
    """Return the report of this request: of the run that it started earlier, or else of one run now."""
    end = machine.monotonic() + request.seconds
    while True:
        found = _awaited(machine, request, end) if request.again else None
        if found is not None:
            return found
        report = _run(machine, request, listener)
        # the earlier run may have taken the lock in between
        if not (request.again and report.code == "run-locked") or machine.monotonic() >= end:
            return to_tree(report)


def _awaited(machine: Host, request: HostRequest, end: float) -> Mapping[str, Any] | None:
    """Return the report of the run that this request started earlier, as soon as it has ended; None if there is none.

    It waits for the lock and does not try to run: each attempt would make a report of its own, `run-locked`, and
    deliver it to every sink.
    """
    while True:
        found = _finished(machine, request)
        if found is not None or machine.monotonic() >= end:
            return found
        if request.command not in _LOCKING or not _is_locked(machine):
            return _finished(machine, request)  # it may have ended since
        machine.sleep(_POLL)


def _is_locked(machine: Host) -> bool:
    try:
        with machine.lock(machine.system.lock, "hsm-agent, reading the report of a run"):
            return False
    except AgentError as error:
        return error.code.name == "run-locked"


def _finished(machine: Host, request: HostRequest) -> Mapping[str, Any] | None:
    """Return the report on disk when it answers this request.

    That of a run which the host's shutdown or a broken connection cut short does not. A controller that resumes an
    earlier one (`resumed`) accepts a good one only: the cause of a bad one may have been repaired since.
    """
    with contextlib.suppress(AgentError):
        tree = records.read_report(machine)
        is_ours = (tree.get("request"), tree.get("command")) == (request.request, request.command)
        cut_short = {tree.get("code"), tree.get("cause")} & set(_CUT_SHORT)
        if is_ours and not cut_short and (tree.get("outcome") == "ok" or not request.resumed):
            return tree
    return None


def _run(machine: Host, request: HostRequest, listener: Listener) -> Report:
    desired = from_json(request.desired)
    # the run ends before the operator's deadline, so that its report can still be read
    desired = replace(desired, timeout=min(desired.timeout or request.seconds, request.seconds))
    run = new_run(machine, request.command, os.environ, request.request)
    if request.cluster is not None:
        run = replace(run, cluster=description_from_json(request.cluster))
    packages = None if request.agent is None else AgentPackages.from_json(request.agent)
    run = replace(run, agent=packages, removes_agent=request.removes_agent)
    if request.command == "plan" and request.removal:
        report = commands.plan_removal(machine, run, listener, desired.timeout)
    else:
        report = _command(machine, request.command, desired, run, listener)
    log.log_report(report)
    return report


def _command(machine: Host, command: str, desired: Any, run: RunInfo, listener: Listener) -> Report:
    if command == "configure":
        return commands.configure(machine, desired, run, listener)
    if command == "remove":
        return commands.remove(machine, run, listener, desired.timeout)
    return commands.verify(machine, desired, run, listener)


class RemoteListener:
    """Sends the operator where the run is, and has files sent from there."""

    def __init__(self, stream: RecordStream) -> None:
        self._stream = stream
        self._lock = threading.Lock()  # probes begin in threads of their own

    def began(self, line_id: str, *, changing: bool) -> None:
        with self._lock:
            self._stream.send(At(line_id, changing))

    def ended(self, line: StepResult) -> None:
        """Send nothing: the report has every step."""

    def send(self, url: str, sha256: str | None) -> ProvidedFile:
        """Have a file sent. Raises AgentError with the operator's words, or when the connection is lost."""
        try:
            with self._lock:
                self._stream.send(WantFile(url, sha256))
            answer = self._stream.file_answer()
        except ConnectionError as error:
            _broken(url, error)
        if isinstance(answer, Refused):
            raise AgentError(CODES[answer.code].name, answer.sentence, saw=answer.saw, want=answer.want)
        from agent.http.download import ProvidedFile  # noqa: PLC0415 -- 5 ms that only a download pays

        return ProvidedFile(answer.size, answer.sha256, self._pieces(url, answer.size))

    def _pieces(self, url: str, size: int) -> Generator[bytes, None, None]:
        try:
            with contextlib.closing(self._stream.pieces(size)) as pieces:
                yield from pieces
        except ConnectionError as error:
            _broken(url, error)


def _broken(url: str, error: ConnectionError) -> NoReturn:
    raise AgentError(
        "link-lost",
        "the operator's end stopped sending a package",
        saw=str(error),
        want=redact_url(url),
        hint="run the roll-out again: it continues where it stopped",
    ) from error
