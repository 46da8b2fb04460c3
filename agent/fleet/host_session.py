"""One session with one host: connect, start the agent there, have the task done, and return how it ended."""

from __future__ import annotations

import itertools
import secrets
import time
from typing import TYPE_CHECKING, Any, Callable

from agent import __version__
from agent.catalogue import load as load_catalogue
from agent.catalogue import published
from agent.core.backoff import Backoff
from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.fleet_model import HostResult, HostState
from agent.core.transport import CancelledError, ConnectionLostError
from agent.core.urls import below
from agent.fleet import package_cache
from agent.fleet.host_end import HostEnd
from agent.fleet.launch import (
    SHELL_PROBE,
    LaunchMethods,
    NoAnswerError,
    NoPythonError,
    is_windows,
    last_words,
    refusal,
)
from agent.fleet.model import ABSENT, CONNECTING, PRESENT
from agent.fleet.package_offer import PackageOffer
from agent.fleet.replies import SHOWN, ReplyReader, validate_report
from agent.remote.protocol import (
    WAIT,
    ArchiveRef,
    At,
    Failed,
    FileHeader,
    Hello,
    HostRequest,
    Refused,
    ReportMessage,
    Settled,
    WantFile,
    WantTree,
    archive_message,
)
from agent.render.json_report import schema
from agent.steps.agent_package import OWN, AgentPackages

if TYPE_CHECKING:
    from typing import NoReturn

    from agent.core.transport import CancelToken, CommandChannel, Connection, Connector
    from agent.fleet.agent_archive import AgentArchive, AgentArchives
    from agent.fleet.launch import LaunchMethod
    from agent.fleet.model import Deps, HostTask, RunState

_BACKOFF = Backoff(first=0.5, cap=15.0, least=0.5)
# Commands of the fleet that have another name on a host.
HOST_COMMANDS = {"rollout": "configure", "remove --plan": "plan"}
# Errors that may pass while a host restarts (one that shuts down refuses logins), and those that do not.
_PASSING = (
    "host-name-unknown",
    "ssh-timed-out",
    "ssh-refused",
    "ssh-no-route",
    "ssh-failed",
    "login-refused",
)
_NOT_REACHED = (*_PASSING, "host-key-unknown", "host-key-changed", "key-unusable")
# The part of the time left that a run on a host gets, so that its report still arrives in time.
_SHARE = 0.9
# How long nothing at all may arrive before the first record, in seconds; sudo may ask a slow directory.
_FIRST = 120.0
# How often a host is tried whose sessions end before any record: then it is not a run that the connection lost.
_TRIES = 3
_ENDED = (
    "sshd's log there says why (`journalctl -u ssh -u sshd`): ChrootDirectory, PAM, a limit, the user's shell"
)
# How much is read of the answer to SHELL_PROBE, in bytes.
_ANSWER = 64 * 1024


class HostRunner:
    """Runs tasks on hosts. One for each run; each session has a connection of its own, used in its own thread."""

    def __init__(self, run: RunState, deps: Deps, connector: Connector, archives: AgentArchives) -> None:
        self.run = run
        self.deps = deps
        self.connector = connector
        self.methods = LaunchMethods(archives)
        self.agent_packages = archives.packages
        self.packages = package_cache.PackageCache(deps.machine, package_cache.home(deps.environ))
        self.schema = schema()
        self._catalogue = load_catalogue()
        self._published = published(self._catalogue)

    def __call__(self, task: HostTask, token: CancelToken, report_step: Callable[[str], None]) -> HostResult:
        """Run a task on its host and return how it ended; does not raise."""
        return _HostSession(self, task, token, report_step).result()

    def agent_request(self) -> dict[str, Any] | None:
        """Return what hosts are sent about the agent's packages; None where none is to be installed."""
        if self.run.spec.agent_package != PRESENT:
            return None
        files = {kind: (each.name, each.sha256) for kind, each in self.agent_packages.items()}
        return AgentPackages(__version__, files).to_json()

    def agent_package(self, url: str) -> AgentArchive | None:
        """Return the agent's package that a host asks for, None for another file."""
        return next((each for each in self.agent_packages.values() if url == below(OWN, each.name)), None)

    def offer(self, name: str) -> PackageOffer:
        """Return which packages a host may ask for."""
        spec, vendor = self.run.spec, self._catalogue.base_url
        return PackageOffer(
            self._catalogue, self._published, spec.desired[name], vendor, spec.before.get(name, {})
        )


class _HostSession:
    def __init__(
        self, runner: HostRunner, task: HostTask, token: CancelToken, report_step: Callable[[str], None]
    ) -> None:
        self._runner = runner
        self._task = task
        self._token = token
        self._report_step = report_step
        self._result = HostEnd(task, runner.run.endpoints[task.target.name])
        self._again = task.again
        self._started = False  # the host said hello, in this attempt or an earlier one
        self._answered = False
        self._archive_sent = False
        self._interrupted = False
        self._lost: float | None = None
        self._word = secrets.token_hex(8)
        self._offer = runner.offer(task.target.name)

    def result(self) -> HostResult:
        for attempt in itertools.count(1):
            try:
                return self._attempt()
            except CancelledError:
                return self._result.ended(HostState.FAILED, "interrupted", saw="the link was cut from here")
            except ConnectionLostError as error:
                why = str(error)
            except AgentError as error:
                if not (self._started and error.code.name in _PASSING):
                    return self._not_done(error)
                why = f"{error.sentence}: {error.saw}" if error.saw else error.sentence
            # it was there and is gone: it may be finishing alone, or restarting
            now = time.monotonic()
            self._lost = self._lost or now
            if not (self._started or self._task.again) and attempt >= _TRIES:
                saw = f"the session ended right after the login: {why}"
                return self._result.ended(HostState.UNREACHABLE, "ssh-failed", saw=saw, hint=_ENDED)
            if now - self._lost > self._runner.deps.search:
                break
            try:
                self._token.wait(_BACKOFF.pause(attempt))
            except CancelledError:
                break
            self._report_step("connecting again" if self._started else CONNECTING)
        return self._result.ended(HostState.UNREACHABLE, "link-lost", saw=why)

    def _not_done(self, error: AgentError) -> HostResult:
        state = HostState.UNREACHABLE if error.code.name in _NOT_REACHED else HostState.FAILED
        return self._result.failed(error, state)

    def _attempt(self) -> HostResult:
        target, methods = self._task.target, self._runner.methods
        with self._runner.connector.open(target, self._token) as connection:
            self._result.trusted = connection.trusted or self._result.trusted
            try:
                return self._launched(connection, methods.for_target(target))
            except NoPythonError as missing:
                method = methods.without_python(target, missing)
            except NoAnswerError:
                if target.system or not self._is_windows(connection):
                    raise
                method = methods.for_windows(target)
            return self._launched(connection, method)

    def _is_windows(self, connection: Connection) -> bool:
        """Ask a shell that did not understand our command which one it is."""
        answer = b""
        try:
            with connection.open_command(SHELL_PROBE) as channel:
                channel.close_stdin()
                while len(answer) < _ANSWER and (piece := channel.receive()):
                    answer += piece
        except AgentError:  # the first failure says more
            return False
        return is_windows(answer)

    def _launched(self, connection: Connection, method: LaunchMethod) -> HostResult:
        with connection.open_command(method.command) as channel:
            return self._conversed(channel, method) or self._ended_early(channel, method)

    def _conversed(self, channel: CommandChannel, method: LaunchMethod) -> HostResult | None:
        """Answer what the host wants until it reports; None when it ends without a report."""
        self._answered = self._archive_sent = False
        request = self._request(method)
        channel.send(method.opening(request))
        self._replies = ReplyReader(lambda: self._next(channel), request.word, _raise_refusal)
        for message in self._replies.messages():
            self._answered = True
            if isinstance(message, Hello):
                self._started = self._again = True
                self._lost = None
                self._report_step("checking")
            elif isinstance(message, Settled) and method.then is not None:
                method, self._archive_sent = method.then, False
                request = self._request(method)  # with the time that is left now
                channel.send(method.opening(request))
            elif isinstance(message, At):
                self._report_step(message.step[:SHOWN])
            elif isinstance(message, WantTree):
                self._send_archive(channel, method)
            elif isinstance(message, WantFile):
                self._send_file(channel, message)
            elif isinstance(message, Failed):
                return self._failed(message)
            elif isinstance(message, ReportMessage):
                channel.close_stdin()
                report = validate_report(message.report, request, self._runner.schema)
                if report["code"] != "interrupted" or self._interrupted:
                    return self._result.reported(report)
                # not by us: most likely the host shuts down; once more, when it is back
                self._interrupted = True
                raise ConnectionLostError("the run there was interrupted")
        return None

    def _next(self, channel: CommandChannel) -> bytes:
        """Return what comes next. The wait for the first byte is bounded: another program may read in our place."""
        if self._answered:
            return channel.receive()
        try:
            return channel.receive(timeout=_FIRST)
        except AgentError as error:
            if error.code.name != "ssh-timed-out":
                raise
        channel.close_stdin()  # so that program ends, and the one that finds no input says so
        return channel.receive(timeout=_FIRST)

    def _failed(self, message: Failed) -> HostResult:
        if (
            message.code == "link-lost"
        ):  # its wait timed out: this machine was suspended, or the connection stalled
            raise ConnectionLostError(message.saw)
        return self._result.ended(HostState.FAILED, CODES[message.code].name, saw=message.saw)

    def _ended_early(self, channel: CommandChannel, method: LaunchMethod) -> NoReturn:
        channel.close_stdin()  # where no output arrives here, a program there may still wait for input
        status, stderr = channel.status(), channel.errors().decode("utf-8", "replace").strip()
        if not self._answered:
            raise refusal(stderr) or method.no_answer_error(status, stderr, self._replies.noise)
        raise AgentError(
            "far-end-failed", "the agent on the host ended without a report", saw=last_words(status, stderr),
            want="a report",
        )  # fmt: skip

    def _send_archive(self, channel: CommandChannel, method: LaunchMethod) -> None:
        if self._archive_sent:
            sentence = "the host asks for the agent again and again"
            raise AgentError("far-end-failed", sentence, saw="want tree", want="a report")
        self._archive_sent = True
        self._report_step("sending the agent")
        channel.send(archive_message(method.archive.data))

    def _request(self, method: LaunchMethod) -> HostRequest:
        task, run = self._task, self._runner.run
        command = HOST_COMMANDS.get(task.command, task.command)
        desired = self._offer.desired_of_host()
        left = max(1.0, run.spec.deadline - (time.monotonic() - self._result.began))
        return HostRequest(
            tree=ArchiveRef(method.archive.sha256, keep=command != "plan"),
            command=command,
            removal=task.command.startswith("remove"),
            desired=desired,
            cluster=run.spec.clusters.get(desired.get("cluster_id", "")),
            request=f"{run.run_id}/{task.target.name}/{task.attempt}",
            again=self._again,
            resumed=task.again and not self._started,
            seconds=_SHARE * left,
            word=self._word,
            agent=self._runner.agent_request(),
            removes_agent=run.spec.agent_package == ABSENT,
        )

    def _send_file(self, channel: CommandChannel, wanted: WantFile) -> None:
        own = self._runner.agent_package(wanted.url)
        if own is not None:
            channel.send(FileHeader(len(own.data), own.sha256).line() + own.data)
            return
        try:
            url, source = self._offer.url(wanted.url, wanted.sha256), self._offer.source_of(wanted.url)
            package = self._runner.packages.cached(url, wanted.sha256, source, lambda: channel.send(WAIT))
        except AgentError as error:
            channel.send(Refused(error.code.name, error.sentence, error.saw, error.want).line())
            return
        channel.send(FileHeader(package.size, package.sha256).line())
        for piece in package.pieces():
            channel.send(piece)


def _raise_refusal(line: str) -> None:
    """Raise what a program that answers the login instead of the agent says with a line."""
    refused = refusal(line)
    if refused is not None:
        raise refused
