"""One visit to one host: connect, land, have the errand done there, and tell how it ended."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Protocol

from agent import landing
from agent.core.errors import CODES, AgentError
from agent.core.fleet import End, State, Target
from agent.core.link import CutError, LinkLostError
from agent.fleet.heard import SHOWN, proven, records, sound
from agent.fleet.rollout import CONNECTING
from agent.render.record import schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from agent.fleet.depot import Depot
    from agent.fleet.rollout import Errand, Lifeline
    from agent.fleet.tree import Tree

# Constant, so that nothing is ever quoted: what a host is to do goes over standard input. One line in single quotes
# without a backslash or an exclamation mark means the same to every login shell. The first Python that is new enough
# runs what comes: the length of the landing program in a line, and then the program. -S leaves out the host's own
# site-packages, which cost time and might hold another version of a library of ours. The last word says in a list of
# processes whose it is; `status --wait` looks for it too.
_TOO_OLD = 93
_PYTHON = (
    f"import sys; sys.exit({_TOO_OLD}) if sys.version_info < (3, 9) else "
    "exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
)
_PYTHONS = "python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9"
COMMAND = (
    "exec /bin/sh -c '"
    's=; [ "$(id -u)" = 0 ] || s="sudo -n"; '
    f"for p in {_PYTHONS}; do "
    "p=$(command -v $p) || continue; "
    f'$s $p -I -S -X utf8 -c "{_PYTHON}" hsm-agent; '
    f"r=$?; [ $r = {_TOO_OLD} ] || exit $r; "
    "$p --version >&2; "
    f"done; exit {_TOO_OLD}'"
)

# For how long a host that was lost is looked for, in seconds: a reboot takes a minute or two.
SEARCH = 300.0
_BACK_OFF = (0.5, 15.0)
# what a command of the fleet is called on a host, where it is another word
_THERE = {"rollout": "configure"}
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
_LANDING = Path(landing.__file__)


class Talk(Protocol):
    """A command that runs on a host, with all three of its streams."""

    def send(self, data: bytes) -> None: ...

    def receive(self) -> bytes:
        """Return what comes next on standard output; empty at its end."""

    def finish(self) -> None: ...

    def status(self) -> int | None:
        """Return the exit status, None after death by a signal."""

    def errors(self) -> bytes:
        """Return the end of standard error."""


class Link(Protocol):
    """A connection to a host, as whoever it was asked to connect as."""

    @property
    def trusted(self) -> str | None: ...

    def talk(self, command: str) -> AbstractContextManager[Talk]: ...


class Door(Protocol):
    """The way to hosts."""

    def place(self, target: Target) -> tuple[str, int]:
        """Return the name or address, and the port, that are connected to."""

    def open(self, target: Target, lifeline: Any, /) -> AbstractContextManager[Link]:
        """Connect and log in. Raises AgentError with the cause, CutError when the lifeline is cut."""


@dataclass(frozen=True)
class Baggage:
    """What a visit brings along: the tree, packages, and for each host's name its options as JSON values and its place.

    `vendor` is where packages come from when no option says so; `deadline` and `search` are in seconds.
    """

    run_id: str
    tree: Tree
    depot: Depot
    vendor: str
    desired: Mapping[str, Mapping[str, Any]]
    places: Mapping[str, tuple[str, int]]
    deadline: float
    search: float = SEARCH
    landing: bytes = field(default_factory=_LANDING.read_bytes, repr=False)
    shape: Mapping[str, Any] = field(default_factory=schema, repr=False)


class Visitor:
    """Goes to hosts. One for a whole roll-out; each visit has its own connection, made and closed in its own thread."""

    def __init__(self, door: Door, baggage: Baggage) -> None:
        self._door = door
        self._baggage = baggage

    def __call__(self, errand: Errand, line: Lifeline, tell: Callable[[str], None]) -> End:
        """Return how it ended, whatever happened."""
        return _Visit(self._door, self._baggage, errand, line, tell).made()


class _Visit:
    def __init__(
        self, door: Door, baggage: Baggage, errand: Errand, line: Lifeline, tell: Callable[[str], None]
    ) -> None:
        self._door = door
        self._baggage = baggage
        self._errand = errand
        self._line = line
        self._tell = tell
        self._began = time.monotonic()
        self._again = errand.again
        self._landed = False
        self._trusted: str | None = None
        self._interrupted = False
        self._lost: float | None = None

    def made(self) -> End:
        for attempt in range(1_000_000):
            try:
                return self._attempt()
            except CutError:
                return self._end(State.FAILED, "interrupted", saw="the link was cut from here")
            except LinkLostError as error:
                why = str(error)
            except AgentError as error:
                if not (self._landed and error.code.name in _PASSING):
                    state = State.UNREACHABLE if error.code.name in _NOT_REACHED else State.FAILED
                    return self._end(state, error.code.name, saw=error.saw or error.sentence, hint=error.hint)
                why = error.saw or error.sentence
            # it was there and is gone: it may be finishing alone, or restarting
            now = time.monotonic()
            self._lost = self._lost or now
            if now - self._lost > self._baggage.search:
                break
            try:
                self._line.wait(_pause(attempt))
            except CutError:
                break
            self._tell("connecting again" if self._landed else CONNECTING)
        return self._end(State.UNREACHABLE, "link-lost", saw=why)

    def _attempt(self) -> End:
        with self._door.open(self._errand.target, self._line) as link:
            self._trusted = link.trusted or self._trusted
            with link.talk(COMMAND) as talk:
                return self._errand_done(talk)

    def _errand_done(self, talk: Talk) -> End:
        source, request = self._baggage.landing, self._request()
        talk.send(f"{len(source)}\n".encode() + source + json.dumps(request).encode() + b"\n")
        for record in records(talk.receive):
            event = record.get("event")
            if event == "hello":
                self._landed = self._again = True
                self._lost = None
                self._tell("looking")
            elif event == "at":
                self._tell(record["step"][:SHOWN])
            elif event == "want" and record["what"] == "tree":
                self._tell("sending the agent")
                data = self._baggage.tree.data
                talk.send(json.dumps({"size": len(data)}).encode() + b"\n" + data)
            elif event == "want":
                self._send_file(talk, record["url"], record["sha256"])
            elif event == "failed" and record["code"] == "link-lost":
                raise LinkLostError(record["saw"])  # it waited in vain: this machine slept, or the link did
            elif event == "failed":
                return self._end(State.FAILED, record["code"], saw=record["saw"])
            elif event == "report":
                talk.finish()
                report = sound(record.get("report"), request, self._baggage.shape)
                if report["code"] != "interrupted" or self._interrupted:
                    return self._reported(report)
                # not by us: the host goes down, most likely; once more, when it is back
                self._interrupted = True
                raise LinkLostError("the run there was interrupted")
        raise self._silence(talk)

    def _request(self) -> dict[str, Any]:
        errand, baggage = self._errand, self._baggage
        left = max(1.0, baggage.deadline - (time.monotonic() - self._began))
        return {
            "tree": {"sha256": baggage.tree.sha256, "keep": errand.command != "plan"},
            "command": _THERE.get(errand.command, errand.command),
            "desired": baggage.desired[errand.target.name],
            "request": f"{baggage.run_id}/{errand.target.name}/{errand.attempt}",
            "again": self._again,
            "resumed": self._errand.again and not self._landed,
            "seconds": _SHARE * left,
        }

    def _send_file(self, talk: Talk, url: str, sha256: str | None) -> None:
        try:
            source = self._baggage.desired[self._errand.target.name].get("package_source")
            parcel = self._baggage.depot.parcel(
                url, sha256, source or self._baggage.vendor, lambda: talk.send(b'{"wait": true}\n')
            )
        except AgentError as error:
            told = {"code": error.code.name, "sentence": error.sentence, "saw": error.saw, "want": error.want}
            talk.send(json.dumps(told).encode() + b"\n")
            return
        talk.send(json.dumps({"size": parcel.size, "sha256": parcel.sha256}).encode() + b"\n")
        for piece in parcel.pieces():
            talk.send(piece)

    def _silence(self, talk: Talk) -> AgentError | LinkLostError:
        """Say why there was no report: the words of whoever answered instead are all that there is to go by."""
        status = talk.status()
        said = talk.errors().decode("utf-8", "replace").strip()
        last = "\n".join(said.splitlines()[-3:])
        ended = "death by a signal" if status is None else f"exit {status}"
        if self._landed:
            return AgentError(
                "far-end-failed", "the agent on the host ended without a report", saw=last or ended,
                want="a report",
            )  # fmt: skip
        if status == _TOO_OLD:
            return AgentError(
                "python-missing", "the host has no Python that the agent can use", saw=last or "no python3 at all",
                want="Python 3.9 or newer",
            )  # fmt: skip
        if "sudo: " in said:
            return AgentError(
                "sudo-refused", "the user may not become root without a password", saw=last, want="sudo -n"
            )
        return AgentError(
            "far-end-failed", "no Python program could be started on the host", saw=last or ended,
            want="a login shell that runs commands",
        )  # fmt: skip

    def _reported(self, report: Mapping[str, Any]) -> End:
        outcome = report["outcome"]
        states = {"ok": State.OK, "degraded": State.DEGRADED, "drift": State.DRIFTED}
        state = states.get(outcome, State.FAILED)
        code, saw, hint = report["code"], None, None
        failure = report["failure"]
        if failure is not None:
            decisive = [
                step for step in report["steps"] if step["code"] in (code, report["cause"]) and step["code"]
            ]
            saw = failure["saw"] or next((step["saw"] for step in decisive), None)
            hint = next((step["hint"] for step in decisive if step["hint"]), None) or failure["hint"]
        if state is State.OK and self._errand.command != "remove" and not proven(report):
            state, code = State.FAILED, "far-end-failed"
            saw, hint = "a report of success without its proof", CODES["far-end-failed"].fix
        end = self._end(state, code, saw=saw, hint=hint)
        return replace(end, changed=report["changed"], exit_status=report["exit_status"], report=report)

    def _end(self, state: State, code: str | None, *, saw: str | None = None, hint: str | None = None) -> End:
        name = self._errand.target.name
        address, port = self._baggage.places[name]
        known = CODES.get(code or "")
        return End(
            name=name,
            address=address,
            port=port,
            wave=self._errand.wave,
            state=state,
            code=code,
            exit_status=known.exit_status if known else None,
            saw=saw,
            hint=hint or (known.fix if known else None),
            seconds=time.monotonic() - self._began,
            trusted=self._trusted,
        )


def _pause(attempt: int) -> float:
    first, most = _BACK_OFF
    return random.uniform(0.5, 1.0) * min(most, first * 2.0 ** min(attempt, 10))  # noqa: S311 -- not a secret
