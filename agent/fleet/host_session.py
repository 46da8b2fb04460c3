"""One visit to one host: connect, land, have the task done there, and tell how it ended."""

from __future__ import annotations

import random
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Callable

from agent.catalogue import load as load_catalogue
from agent.catalogue import published
from agent.core.errors import CODES, AgentError
from agent.core.fleet_model import HostResult, HostState
from agent.core.transport import CancelledError, ConnectionLostError
from agent.fleet.launch import (
    SHELL_PROBE,
    LaunchMethods,
    NoAnswerError,
    is_windows,
    last_words,
    refusal,
)
from agent.fleet.package_offer import PackageOffer
from agent.fleet.replies import SHOWN, ReplyReader, has_proof, validate_report
from agent.fleet.rollout import CONNECTING
from agent.remote.protocol import (
    WAIT,
    ArchiveRef,
    At,
    Failed,
    FileHeader,
    Hello,
    Refused,
    ReportMessage,
    Request,
    Settled,
    WantFile,
    WantTree,
    archive_message,
)
from agent.render.fleet.humanize import from_here
from agent.render.json_report import schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from agent.catalogue import Catalogue, Published
    from agent.core.transport import CancelToken, CommandChannel, Connection, Connector
    from agent.fleet.agent_archive import AgentArchives
    from agent.fleet.launch import LaunchMethod
    from agent.fleet.package_cache import PackageCache
    from agent.fleet.rollout import HostTask

# For how long a host that was lost is looked for, in seconds: a reboot takes a minute or two.
SEARCH = 300.0
_BACK_OFF = (0.5, 15.0)
# what a command of the fleet is called on a host, where it is another word
_THERE = {"rollout": "configure", "remove --plan": "plan"}
# Causes that may pass while a host restarts (one that goes down refuses logins), and those that never do.
_PASSING = (
    "host-name-unknown",
    "ssh-timed-out",
    "ssh-refused",
    "ssh-no-route",
    "ssh-failed",
    "login-refused",
)
_NOT_REACHED = (*_PASSING, "host-key-unknown", "host-key-changed", "key-unusable")
# What a run on a host gets of the time that is left for it, so that its report still comes in time.
_SHARE = 0.9
# For how long nothing at all may come before the first record, in seconds; becoming root may ask a slow directory.
_FIRST = 120.0
# How often a host is tried whose sessions end before anything of ours spoke: it is not the run that the link lost.
_TRIES = 3
_ENDED = (
    "sshd's log there says why (`journalctl -u ssh -u sshd`): ChrootDirectory, PAM, a limit, the user's shell"
)
# How much of an answer to the question which shell it is, is listened to, in bytes.
_ANSWER = 64 * 1024


@dataclass(frozen=True)
class SessionContext:
    """What a visit brings along: trees, packages, and for each host's name its options as JSON values and its place.

    `vendor` is where packages come from when no option says so; `before` has for hosts' names where theirs came from
    in an earlier roll-out. `deadline` and `search` are in seconds.
    """

    run_id: str
    trees: AgentArchives
    depot: PackageCache
    vendor: str
    desired: Mapping[str, Mapping[str, Any]]
    places: Mapping[str, tuple[str, int]]
    deadline: float
    search: float = SEARCH
    _names: Published = field(init=False, repr=False)
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    catalogue: Catalogue = field(default_factory=load_catalogue, repr=False)
    shape: Mapping[str, Any] = field(default_factory=schema, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", published(self.catalogue))

    def offer(self, name: str) -> PackageOffer:
        """Return which packages a host may ask for."""
        return PackageOffer(
            self.catalogue, self._names, self.desired[name], self.vendor, self.before.get(name, {})
        )


class HostRunner:
    """Goes to hosts. One for a whole roll-out; each visit has its own connection, made and closed in its own thread."""

    def __init__(self, door: Connector, session_context: SessionContext) -> None:
        self._door = door
        self._session_context = session_context
        self._ways = LaunchMethods(session_context.trees)

    def __call__(self, host_task: HostTask, cord: CancelToken, tell: Callable[[str], None]) -> HostResult:
        """Return how it ended, whatever happened."""
        return _HostSession(self._door, self._session_context, self._ways, host_task, cord, tell).made()


class _HostSession:
    def __init__(
        self,
        door: Connector,
        session_context: SessionContext,
        ways: LaunchMethods,
        host_task: HostTask,
        cord: CancelToken,
        tell: Callable[[str], None],
    ) -> None:
        self._door = door
        self._session_context = session_context
        self._ways = ways
        self._host_task = host_task
        self._cord = cord
        self._tell = tell
        self._began = time.monotonic()
        self._again = host_task.again
        self._landed = False
        self._answered = False
        self._has_tree = False
        self._trusted: str | None = None
        self._interrupted = False
        self._lost: float | None = None
        self._word = secrets.token_hex(8)
        self._offer = session_context.offer(host_task.target.name)

    def made(self) -> HostResult:
        for attempt in range(1_000_000):
            try:
                return self._attempt()
            except CancelledError:
                return self._end(HostState.FAILED, "interrupted", saw="the link was cut from here")
            except ConnectionLostError as error:
                why = str(error)
            except AgentError as error:
                if not (self._landed and error.code.name in _PASSING):
                    return self._not_done(error)
                why = f"{error.sentence}: {error.saw}" if error.saw else error.sentence
            # it was there and is gone: it may be finishing alone, or restarting
            now = time.monotonic()
            self._lost = self._lost or now
            if not (self._landed or self._host_task.again) and attempt + 1 >= _TRIES:
                return self._end(
                    HostState.UNREACHABLE,
                    "ssh-failed",
                    saw=f"the session ended right after the login: {why}",
                    hint=_ENDED,
                )
            if now - self._lost > self._session_context.search:
                break
            try:
                self._cord.wait(_pause(attempt))
            except CancelledError:
                break
            self._tell("connecting again" if self._landed else CONNECTING)
        return self._end(HostState.UNREACHABLE, "link-lost", saw=why)

    def _not_done(self, error: AgentError) -> HostResult:
        """Return an error's whole words: it may be about a jump host, which its sentence names."""
        state = HostState.UNREACHABLE if error.code.name in _NOT_REACHED else HostState.FAILED
        end = self._end(state, error.code.name, saw=error.saw, hint=error.hint)
        return replace(end, sentence=error.sentence, want=error.want)

    def _attempt(self) -> HostResult:
        target = self._host_task.target
        with self._door.open(target, self._cord) as link:
            self._trusted = link.trusted or self._trusted
            try:
                return self._entered(link, self._ways.into(target))
            except NoAnswerError:
                if target.system or not self._is_windows(link):
                    raise
            return self._entered(link, self._ways.into_windows(target))

    def _is_windows(self, link: Connection) -> bool:
        """Ask a shell that did not know our words which one it is."""
        heard = b""
        try:
            with link.open_command(SHELL_PROBE) as talk:
                talk.close_stdin()
                while len(heard) < _ANSWER and (piece := talk.receive()):
                    heard += piece
        except AgentError:  # what it failed with before says more
            return False
        return is_windows(heard)

    def _entered(self, link: Connection, way: LaunchMethod) -> HostResult:
        with link.open_command(way.command) as talk:
            return self._conversed(talk, way) or self._ended_early(talk, way)

    def _conversed(self, talk: CommandChannel, way: LaunchMethod) -> HostResult | None:
        """Do what the far end wants until it reports; None when it ends without."""
        self._answered = self._has_tree = False
        request = self._request(way)
        talk.send(way.opening(request))
        self._heard = ReplyReader(lambda: self._next(talk), request.word, _mind)
        for message in self._heard.messages():
            self._answered = True
            if isinstance(message, Hello):
                self._landed = self._again = True
                self._lost = None
                self._tell("looking")
            elif isinstance(message, Settled) and way.settles:
                request = self._request(way)  # with the time that is left now
                talk.send(request.line())
            elif isinstance(message, At):
                self._tell(message.step[:SHOWN])
            elif isinstance(message, WantTree):
                self._send_archive(talk, way)
            elif isinstance(message, WantFile):
                self._send_file(talk, message)
            elif isinstance(message, Failed):
                return self._failed(message)
            elif isinstance(message, ReportMessage):
                talk.close_stdin()
                report = validate_report(message.report, request, self._session_context.shape)
                if report["code"] != "interrupted" or self._interrupted:
                    return self._reported(report)
                # not by us: the host goes down, most likely; once more, when it is back
                self._interrupted = True
                raise ConnectionLostError("the run there was interrupted")
        return None

    def _next(self, talk: CommandChannel) -> bytes:
        """Return what comes next. The first word is waited for a while only: something there may read in our place."""
        if self._answered:
            return talk.receive()
        try:
            return talk.receive(timeout=_FIRST)
        except AgentError as error:
            if error.code.name != "ssh-timed-out":
                raise
        talk.close_stdin()  # so what reads there comes to its end, and what was to read finds nothing and says so
        return talk.receive(timeout=_FIRST)

    def _failed(self, message: Failed) -> HostResult:
        if (
            message.code == "link-lost"
        ):  # its wait timed out: this machine was suspended, or the connection stalled
            raise ConnectionLostError(message.saw)
        return self._end(HostState.FAILED, message.code, saw=message.saw)

    def _ended_early(self, talk: CommandChannel, way: LaunchMethod) -> NoReturn:
        talk.close_stdin()  # where nothing that is said arrives here, something there may still wait for more
        status, said = talk.status(), talk.errors().decode("utf-8", "replace").strip()
        if not self._answered:
            raise refusal(said) or way.silence(status, said, self._heard.noise)
        raise AgentError(
            "far-end-failed", "the agent on the host ended without a report", saw=last_words(status, said),
            want="a report",
        )  # fmt: skip

    def _send_archive(self, talk: CommandChannel, way: LaunchMethod) -> None:
        if self._has_tree:
            sentence = "the host asks for the agent again and again"
            raise AgentError("far-end-failed", sentence, saw="want tree", want="a report")
        self._has_tree = True
        self._tell("sending the agent")
        talk.send(archive_message(way.tree.data))

    def _request(self, way: LaunchMethod) -> Request:
        host_task, session_context = self._host_task, self._session_context
        command = _THERE.get(host_task.command, host_task.command)
        left = max(1.0, session_context.deadline - (time.monotonic() - self._began))
        return Request(
            tree=ArchiveRef(way.tree.sha256, keep=command != "plan"),
            command=command,
            removal=host_task.command.startswith("remove"),
            desired=self._offer.told(),
            request=f"{session_context.run_id}/{host_task.target.name}/{host_task.attempt}",
            again=self._again,
            resumed=self._host_task.again and not self._landed,
            seconds=_SHARE * left,
            word=self._word,
        )

    def _send_file(self, talk: CommandChannel, wanted: WantFile) -> None:
        try:
            url, source = self._offer.url(wanted.url, wanted.sha256), self._offer.source
            package = self._session_context.depot.cached(url, wanted.sha256, source, lambda: talk.send(WAIT))
        except AgentError as error:
            talk.send(Refused(error.code.name, error.sentence, error.saw, error.want).line())
            return
        talk.send(FileHeader(package.size, package.sha256).line())
        for piece in package.pieces():
            talk.send(piece)

    def _reported(self, report: Mapping[str, Any]) -> HostResult:
        outcome = report["outcome"]
        states = {"ok": HostState.OK, "degraded": HostState.DEGRADED, "drift": HostState.DRIFTED}
        state = states.get(outcome, HostState.FAILED)
        code, saw, hint = report["code"], None, None
        failure = report["failure"]
        if failure is not None:
            decisive = [
                step for step in report["steps"] if step["code"] in (code, report["cause"]) and step["code"]
            ]
            saw = failure["saw"] or next((step["saw"] for step in decisive), None)
            hint = next((step["hint"] for step in decisive if step["hint"]), None) or failure["hint"]
        if (
            state is HostState.OK
            and not self._host_task.command.startswith("remove")
            and not has_proof(report)
        ):
            state, code = HostState.FAILED, "far-end-failed"
            saw, hint = "a report of success without its proof", CODES["far-end-failed"].fix
        end = self._end(state, code, saw=saw, hint=hint)
        return replace(end, changed=report["changed"], exit_status=report["exit_status"], report=report)

    def _end(
        self, state: HostState, code: str | None, *, saw: str | None = None, hint: str | None = None
    ) -> HostResult:
        name = self._host_task.target.name
        address, port = self._session_context.places[name]
        known = CODES.get(code or "")
        return HostResult(
            name=name,
            address=address,
            port=port,
            wave=self._host_task.wave,
            state=state,
            code=code,
            exit_status=known.exit_status if known else None,
            saw=saw,
            hint=from_here(hint or (known.fix if known else "")) or None,
            seconds=time.monotonic() - self._began,
            trusted=self._trusted,
        )


def _mind(printed: str) -> None:
    """Raise what somebody says who answers the login instead of the agent."""
    refused = refusal(printed)
    if refused is not None:
        raise refused


def _pause(attempt: int) -> float:
    first, most = _BACK_OFF
    return random.uniform(0.5, 1.0) * min(most, first * 2.0 ** min(attempt, 10))  # noqa: S311 -- not a secret
