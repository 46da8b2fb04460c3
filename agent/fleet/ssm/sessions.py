"""Sessions with hosts over Run Command: those that begin together share a command, and one thread talks to AWS.

A roll-out begins no more hosts than may run at a time, and each begins a session. Those that begin within a moment go
into one command with their ids. So no host that the roll-out has not begun is in AWS's hands: its stop rule holds
without a command that has to be cancelled.

Before a command is sent, the journal has the comment that it will carry. A controller that was killed in between finds
it by that comment; and if it was sent twice all the same, the host answers the second from its report of the first.
"""

from __future__ import annotations

import datetime as dt
import logging
import queue
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

from agent.aws.client import AwsRefusedError
from agent.core.backoff import Backoff
from agent.core.errors import AgentError, unexpected
from agent.core.fleet_model import HostState
from agent.core.transport import CancelledError
from agent.fleet.host_end import HostEnd
from agent.fleet.host_session import HOST_COMMANDS
from agent.fleet.ssm.answers import result_of
from agent.fleet.ssm.run_command import MOST_INSTANCES, CommandToSend, Invocation, ManagedNode
from agent.remote.packed import pack
from agent.remote.protocol import ArchiveRef, HostRequest
from agent.render.json_report import schema
from agent.ssm_document import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from agent.core.fleet_model import HostResult
    from agent.core.transport import CancelToken
    from agent.fleet.journal import Journal
    from agent.fleet.model import HostTask, RunState, SentCommand
    from agent.fleet.ssm.run_command import RunCommand

# Seconds: how long the next session is waited for before a command is sent without it; how often a session checks
# whether it was given up; and how long a command may take to reach a host whose agent is online.
_TOGETHER = 0.3
_TURN = 0.5
_DELIVERY = 120
# Waits between two looks at a command, growing while nothing happens; and after AWS could not be asked.
_LOOK = Backoff(first=1.0, cap=5.0, least=1.0)
_RETRY = Backoff(first=2.0, cap=30.0, least=2.0)
# How often a command that may have been sent is looked for: lists of AWS lag behind by seconds.
_SEARCHES = 4
# How often SSM may refuse a command for instances that it said were there, or show no invocation of an old command.
_REFUSALS, _EMPTY = 3, 5
# The part of the time left that a run on a host gets, so that its report still arrives in time.
_SHARE = 0.8
# Characters of a command's parameter, so that document and parameter together stay below what SSM takes.
_MOST_REQUEST = 32_000
_PASSING = ("aws-throttled", "aws-unreachable")
# of AwsRefusedError: an instance stopped meanwhile; the command is too old; its part for an instance is not there yet
_INVALID, _GONE, _NOT_YET = "InvalidInstanceId", "InvalidCommandId", "InvocationDoesNotExist"


@dataclass(eq=False)
class _Visit:
    """A session with one host. `repeats` counts how often it was sent again in this session."""

    task: HostTask
    instance: str
    end: HostEnd
    report_step: Callable[[str], None]
    results: queue.SimpleQueue[HostResult] = field(default_factory=queue.SimpleQueue)
    is_given_up: threading.Event = field(default_factory=threading.Event)
    node: ManagedNode | None = None
    repeats: int = 0

    @property
    def is_again(self) -> bool:
        return self.task.again or self.repeats > 0

    def result(self) -> HostResult | None:
        """Wait a moment for the result; None if there is none yet."""
        try:
            return self.results.get(timeout=_TURN)
        except queue.Empty:
            return None


@dataclass(eq=False)
class _Command:
    """A command and the sessions that wait for it. Without an id it is not sent, or (`may_be_sent`) not known to be."""

    comment: str
    visits: list[_Visit]
    began: dt.datetime
    id: str | None = None
    is_recorded: bool = False
    may_be_sent: bool = False
    due: float = 0.0
    searches: int = 0
    failures: int = 0
    refusals: int = 0
    looks: int = 0
    seen: Mapping[str, Invocation] = field(default_factory=dict)

    @property
    def waiting(self) -> list[_Visit]:
        return [visit for visit in self.visits if not visit.is_given_up.is_set()]


class SsmSessions:
    """Runs tasks on hosts by Run Command. Use it as a context manager: AWS is asked by a thread of its own."""

    def __init__(
        self, run: RunState, journal: Journal, open_api: Callable[[], RunCommand], document: dict[str, Any]
    ) -> None:
        self._run = run
        self._journal = journal
        self._open_api = open_api
        self._document = document
        self._name = name_of(document)
        self._schema = schema()
        self._is_document_there = False
        self._arrivals: queue.SimpleQueue[_Visit | None] = queue.SimpleQueue()
        self._commands: list[_Command] = []
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="run command", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """End the thread after the call that it is in, which is bounded: the journal is closed next."""
        self._is_closed.set()
        self._arrivals.put(None)
        self._thread.join()

    def __call__(self, task: HostTask, token: CancelToken, report_step: Callable[[str], None]) -> HostResult:
        """Run a task on its host and return how it ended. Raises CancelledError."""
        endpoint = self._run.endpoints[task.target.name]
        visit = _Visit(task, endpoint[0], HostEnd(task, endpoint), report_step)
        self._arrivals.put(visit)
        try:
            while (result := visit.result()) is None:
                token.wait(0)
        except CancelledError:
            visit.is_given_up.set()
            raise
        return result

    # --- the thread that asks AWS

    def _serve(self) -> None:
        while not self._is_closed.is_set():
            arrived = self._arrived()
            try:
                self._begin(arrived)
                self._advance()
            except Exception as crash:  # a defect: every session gets an answer, and the log the traceback
                logging.getLogger("agent").exception("Run Command failed")
                waiting = [*arrived, *(visit for command in self._commands for visit in command.visits)]
                self._commands.clear()
                for visit in waiting:
                    visit.results.put(visit.end.failed(unexpected(crash), HostState.FAILED))

    def _arrived(self) -> list[_Visit]:
        """Wait until a command is due or sessions begin, and return those that begin together."""
        arrived: list[_Visit] = []
        wait = min((command.due for command in self._commands), default=None)
        timeout = None if wait is None else max(0.0, wait - time.monotonic())
        try:
            while True:
                visit = self._arrivals.get(timeout=timeout)
                if visit is None:
                    return arrived
                arrived.append(visit)
                timeout = _TOGETHER
        except queue.Empty:
            return arrived

    def _begin(self, visits: Sequence[_Visit]) -> None:
        """Attach sessions to the commands that an earlier controller sent for them; make commands for the others."""
        fresh = []
        for visit in visits:
            recorded = self._recorded(visit)
            if recorded is None:
                fresh.append(visit)
            else:
                self._attach(visit, recorded)
        self._make(fresh)

    def _recorded(self, visit: _Visit) -> SentCommand | None:
        """Return the last command of an earlier controller for this very attempt."""
        if not visit.task.again or visit.repeats:
            return None
        name, attempt = visit.task.target.name, visit.task.attempt
        return next(
            (each for each in reversed(self._run.commands.values()) if each.hosts.get(name) == attempt), None
        )

    def _attach(self, visit: _Visit, recorded: SentCommand) -> None:
        command = next((each for each in self._commands if each.comment == recorded.comment), None)
        if command is None:
            command = _Command(
                recorded.comment, [], _parsed(recorded.began), recorded.command_id, is_recorded=True,
                may_be_sent=True,
            )  # fmt: skip
            self._commands.append(command)
        command.visits.append(visit)

    def _make(self, visits: Sequence[_Visit]) -> None:
        size = MOST_INSTANCES
        while (
            visits
            and size > 1
            and any(
                len(self._request(visits[at : at + size])) > _MOST_REQUEST
                for at in range(0, len(visits), size)
            )
        ):
            size //= 2
        for at in range(0, len(visits), size):
            comment = f"hsm-agent {self._run.run_id} {secrets.token_hex(4)}"
            self._commands.append(_Command(comment, list(visits[at : at + size]), _now()))

    def _advance(self) -> None:
        now = time.monotonic()
        for command in list(self._commands):
            command.visits = command.waiting
            if command.visits and command.due <= now:
                self._asked(command)
            if not command.visits:
                self._commands.remove(command)

    def _asked(self, command: _Command) -> None:
        """Take the next step with a command. AWS that cannot be asked is asked later, until the hosts' deadlines."""
        try:
            self._send(command) if command.id is None else self._look(command, command.id)
            command.failures = 0
        except AgentError as error:
            if error.code.name not in _PASSING:
                state = HostState.UNREACHABLE if command.id is None else HostState.FAILED
                self._end(command, error, state)
                return
            command.failures += 1
            command.due = time.monotonic() + _RETRY.pause(command.failures)
            for visit in command.visits:
                visit.report_step(f"waiting for AWS: {error.code.name}")

    def _end(self, command: _Command, error: AgentError, state: HostState) -> None:
        for visit in command.visits:
            visit.results.put(visit.end.failed(error, state))
        command.visits = []

    # --- sending

    def _send(self, command: _Command) -> None:
        api = self._open_api()
        if command.may_be_sent and not self._is_lost(command, api):
            return
        nodes = api.managed([visit.instance for visit in command.visits])
        for visit in command.visits:
            visit.node = nodes.get(visit.instance)
            if visit.node is None or not visit.node.is_online:
                visit.results.put(_absent(visit))
        command.visits = [visit for visit in command.visits if visit.node and visit.node.is_online]
        if not command.visits:
            return
        if not self._is_document_there:
            self._is_document_there = api.ensure_document(self._document)
        if not self._is_document_there:  # SSM is still creating it
            command.due = time.monotonic() + 1.0
            return
        self._record(command)
        self._sent(command, api)

    def _is_lost(self, command: _Command, api: RunCommand) -> bool:
        """Look for a command that may have been sent; after some looks it counts as one that was not."""
        command.id = api.find(self._name, command.comment, command.began)
        if command.id is not None:
            self._journal.sent(command.comment, command.id)
            self._journal.sync()
            return False
        command.searches += 1
        if command.searches < _SEARCHES:
            command.due = time.monotonic() + _LOOK.pause(command.searches)
            return False
        command.may_be_sent = False
        return True

    def _record(self, command: _Command) -> None:
        if command.is_recorded:
            return
        hosts = {visit.task.target.name: visit.task.attempt for visit in command.visits}
        self._journal.sending(command.comment, _iso(command.began), hosts)
        self._journal.sync()
        command.is_recorded = True

    def _sent(self, command: _Command, api: RunCommand) -> None:
        left = min(self._left(visit) for visit in command.visits)
        to_send = CommandToSend(
            self._name,
            [visit.instance for visit in command.visits],
            self._request(command.visits),
            command.comment,
            delivery=min(_DELIVERY, int(left)),
            limit=max(60, int(left)),
        )
        command.may_be_sent, command.searches = True, 0
        try:
            command.id = api.send(to_send)
        except AgentError as error:
            command.may_be_sent = error.code.name == "aws-unreachable"
            is_stale = isinstance(error, AwsRefusedError) and error.refusal.code == _INVALID
            command.refusals += is_stale
            if not is_stale or command.refusals > _REFUSALS:
                raise
            command.due = time.monotonic() + _LOOK.pause(command.refusals)
            return
        self._journal.sent(command.comment, command.id)
        self._journal.sync()
        command.due = time.monotonic() + _LOOK.pause(1)
        for visit in command.visits:
            visit.report_step(f"sent {command.id}")

    def _left(self, visit: _Visit) -> float:
        """Return how many seconds the host's deadline leaves."""
        return max(1.0, self._run.spec.deadline - (time.monotonic() - visit.end.began))

    def _request(self, visits: Sequence[_Visit]) -> str:
        return pack({"requests": {visit.instance: _values(self._host_request(visit)) for visit in visits}})

    def _host_request(self, visit: _Visit) -> HostRequest:
        task, run = visit.task, self._run
        desired = run.spec.desired[task.target.name]
        return HostRequest(
            tree=ArchiveRef("", keep=True),
            command=HOST_COMMANDS.get(task.command, task.command),
            removal=task.command.startswith("remove"),
            desired=desired,
            cluster=run.spec.clusters.get(desired.get("cluster_id", "")),
            request=f"{run.run_id}/{task.target.name}/{task.attempt}",
            again=visit.is_again,
            resumed=task.again,
            seconds=_SHARE * self._left(visit),
            word="",
        )

    # --- looking

    def _look(self, command: _Command, command_id: str) -> None:
        api = self._open_api()
        try:
            found = api.invocations(command_id)
        except AwsRefusedError as error:
            if error.refusal.code != _GONE:
                raise
            found = {}
        command.looks = 1 if found != command.seen else command.looks + 1
        command.seen = found
        command.due = time.monotonic() + _LOOK.pause(command.looks)
        self._learn_platforms(command, api)
        for visit in list(command.visits):
            invocation = found.get(visit.instance)
            if invocation is None and visit.task.again and command.looks > _EMPTY:
                self._repeat(command, visit)  # AWS keeps commands for 30 days
            elif invocation is not None and invocation.is_open:
                visit.report_step(_STEPS.get(invocation.status, invocation.status))
            elif invocation is not None:
                self._read(command, visit, invocation, api)

    def _learn_platforms(self, command: _Command, api: RunCommand) -> None:
        """Ask what kind of host those are whose command an earlier controller sent."""
        unknown = [visit for visit in command.visits if visit.node is None]
        nodes = api.managed([visit.instance for visit in unknown]) if unknown else {}
        for visit in unknown:
            visit.node = nodes.get(visit.instance, ManagedNode("", "", ""))

    def _read(self, command: _Command, visit: _Visit, invocation: Invocation, api: RunCommand) -> None:
        step = visit.node.step if visit.node else ""
        try:
            output = api.output(command.id or "", visit.instance, step)
        except AwsRefusedError as error:
            if error.refusal.code != _NOT_YET:
                raise
            return
        result = result_of(visit.end, invocation, output, self._host_request(visit), self._schema)
        is_cut_short = result.report is not None and result.report["code"] == "interrupted"
        # as over SSH: the cause of what failed in an earlier controller's time may have been repaired since
        is_old = visit.task.again and result.state is not HostState.OK
        if not visit.repeats and (is_cut_short or is_old):
            self._repeat(command, visit)
            return
        command.visits.remove(visit)
        visit.results.put(result)

    def _repeat(self, command: _Command, visit: _Visit) -> None:
        """Send it once more: the host answers with the report of a run of this request, if it has a good one."""
        command.visits.remove(visit)
        visit.repeats += 1
        self._make([visit])


_STEPS = {
    "Pending": "waiting for its SSM agent",
    "InProgress": "running",
    "Delayed": "waiting for its SSM agent",
}


def _absent(visit: _Visit) -> HostResult:
    node = visit.node
    if node is None:
        return visit.end.ended(
            HostState.UNREACHABLE, "ssm-agent-absent", saw=f"no managed node {visit.instance}"
        )
    seen = f", last heard at {node.seen}" if node.seen else ""
    return visit.end.ended(HostState.UNREACHABLE, "ssm-agent-lost", saw=f"{node.ping}{seen}")


def _values(request: HostRequest) -> dict[str, Any]:
    return {**request._asdict(), "tree": request.tree._asdict()}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def _iso(time: dt.datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _parsed(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.timezone.utc)
