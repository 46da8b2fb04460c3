"""The messages of a host, read with bounds; a report counts only when it is valid, and success only with its proof."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

from agent.core.codes import CODES
from agent.core.errors import AgentError
from agent.core.fleet_model import HostState
from agent.fleet import bounded_json
from agent.remote.protocol import RECORD, At, Failed, Hello, ReportMessage, Settled, WantFile, WantTree
from agent.render.schema_check import first_violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.core.codes import CodeName
    from agent.remote.protocol import HostMessage, HostRequest

# Bounds on what a host sends. In bytes: one line, and all of it. Then the number of records. A correct host stays far
# below each; a compromised one must cost neither memory nor the time of other hosts.
_LARGEST = 1024 * 1024
_MOST = 4 * _LARGEST
_RECORDS = 1000
# Characters of one text in a record; those of a report are bounded by its schema.
_LONGEST = 4096
# How much of all other output is kept, in bytes: its end can say why no record came.
_KEPT = 4096
# What a report's outcome makes of its host; all others are failed.
_STATES = {"ok": HostState.OK, "degraded": HostState.DEGRADED, "drift": HostState.DRIFTED}
# Characters of a step's name, or of an invalid record, that are shown.
SHOWN = 100


class ReplyReader:
    """The output of a host: records that begin with the word of the request, and whatever else is printed there."""

    def __init__(
        self, receive: Callable[[], bytes], word: str, check: Callable[[str], None] = lambda _line: None
    ) -> None:
        """Read from `receive`, which returns the next bytes, none at the end.

        `check` gets each other line until the first record comes, and may raise.
        """
        self._receive = receive
        self._check = check
        self._mark = RECORD + word.encode()
        self._noise = bytearray()

    @property
    def noise(self) -> str:
        """The end of all other output: of a login shell, or of a program that answered instead of ours."""
        return self._noise[-_KEPT:].decode("utf-8", "replace")

    def messages(self) -> Iterator[HostMessage]:
        """Yield the messages that arrive. Raises AgentError `far-end-failed` for an invalid one, and for too many."""
        count = 0
        for line in self._lines():
            before, found, text = line.partition(self._mark)
            self._keep(before if found else line)
            if not found and not count:
                self._check(line[:_KEPT].decode("utf-8", "replace"))
            if found:
                count += 1
                _refuse_more(count, _RECORDS, "records")
                yield parse_record(text)

    def _lines(self) -> Iterator[bytes]:
        """Yield complete lines. No byte is searched twice, however small the pieces are that arrive."""
        held = bytearray()
        total = seen = 0
        while piece := self._receive():
            total += len(piece)
            held += piece
            begin = 0
            while (end := held.find(b"\n", max(begin, seen))) >= 0:
                yield bytes(held[begin : end + 1])
                begin = end + 1
            del held[:begin]
            seen = len(held)
            _refuse_more(seen, _LARGEST, "bytes in one line")
            _refuse_more(total, _MOST, "bytes")
        self._keep(bytes(held))

    def _keep(self, text: bytes) -> None:
        self._noise += text
        if len(self._noise) > 2 * _KEPT:
            del self._noise[:-_KEPT]


def _refuse_more(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise _nonsense("the host sends without end", f"{count} {what}", "a report")


def parse_record(text: bytes) -> HostMessage:
    """Return the message of a record, complete, so that no later code has to check it.

    Raises AgentError `far-end-failed` for what is no record.
    """
    record: object = None
    with suppress(ValueError):
        record = bounded_json.load(text, _LARGEST)
    message = _message(record) if isinstance(record, dict) else None
    if message is None:
        shown = text[:SHOWN].decode("utf-8", "replace").rstrip()
        raise _nonsense("the host sends what is no record", shown, "a record")
    return message


def _message(record: Mapping[str, Any]) -> HostMessage | None:
    """Return the message of a record, None when it is of an unknown kind or lacks what its kind must have."""
    event = record.get("event")
    if event == "hello":
        return Hello(record["python"] if _has_texts(record, "python") else "")
    if event == "settled":
        return Settled()
    if event == "at" and _has_texts(record, "step"):
        return At(record["step"], record.get("changing") is True)
    if event == "want" and _has_texts(record, "what"):
        return _wanted(record)
    if event == "failed" and _has_texts(record, "code", "saw") and record["code"] in CODES:
        return Failed(record["code"], record["saw"])
    return ReportMessage(record.get("report")) if event == "report" else None


def _wanted(record: Mapping[str, Any]) -> HostMessage | None:
    if record["what"] == "tree":
        return WantTree()
    is_complete = _has_texts(record, "url") and (record.get("sha256") is None or _has_texts(record, "sha256"))
    return WantFile(record["url"], record.get("sha256")) if is_complete else None


def _has_texts(record: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(record.get(name), str) and len(record[name]) <= _LONGEST for name in names)


def validate_report(report: Any, request: HostRequest, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report that is valid by the published schema and answers this request.

    Its codes must be in our table: they decide what the operator reads about the host.
    """
    where = first_fault(report, schema)
    if where is not None:
        raise _nonsense("the host's report is none", f"wrong at {where}", "a report")
    valid: dict[str, Any] = report
    if (valid["command"], valid.get("request")) != (request.command, request.request):
        saw = f"{valid['command']} for {valid.get('request')}"[:SHOWN]
        want = f"{request.command} for {request.request}"[:SHOWN]
        raise _nonsense("the host sends the report of another run", saw, want)
    return valid


def first_fault(report: Any, schema: Mapping[str, Any]) -> str | None:
    """Return the first place where a report is invalid by its schema, or has a code that our table lacks; or None."""
    return first_violation(report, schema["$defs"]["report"], schema) or _unknown(report)


def _unknown(report: Mapping[str, Any]) -> str | None:
    """Return where a report has an unknown code, or fails without one."""
    failure = report["failure"] or {}
    codes = [
        ("code", report["code"]),
        ("cause", report["cause"]),
        ("failure.code", failure.get("code")),
        *((f"steps.{place}.code", step["code"]) for place, step in enumerate(report["steps"])),
        *((f"hsms.{place}.cause", hsm["cause"]) for place, hsm in enumerate(report["hsms"])),
    ]
    if report["outcome"] != "ok" and report["code"] is None:
        return "code"
    return next((place for place, code in codes if code is not None and code not in CODES), None)


def _nonsense(sentence: str, saw: str, want: str) -> AgentError:
    return AgentError("far-end-failed", sentence, saw=saw, want=want)


def has_proof(report: Mapping[str, Any]) -> bool:
    """Return whether a report has the proof: every HSM reached, and every query of the client answered."""
    client = [step for step in report["steps"] if step["id"].startswith("client:")]
    return (
        bool(report["hsms"] and client)
        and all(hsm["reached"] for hsm in report["hsms"])
        and all(step["outcome"] == "met" for step in client)
    )


@dataclass(frozen=True)
class ReportedState:
    """What a host's report says of it: its state, and where that is not ok the code, what was seen, and a hint."""

    state: HostState
    code: CodeName | None
    saw: str | None
    hint: str | None


def reported_state(report: Mapping[str, Any], *, is_removal: bool = False) -> ReportedState:
    """Return the state of the host with a valid report; success counts with its proof, which a removal has not."""
    state, code = _STATES.get(report["outcome"], HostState.FAILED), report["code"]
    if state is HostState.OK and not is_removal and not has_proof(report):
        hint = CODES["far-end-failed"].fix
        return ReportedState(
            HostState.FAILED, "far-end-failed", "a report of success without its proof", hint
        )
    return ReportedState(state, code, *_cause(report))


def _cause(report: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return what was seen where a run failed, and the hint: of the failure, or of the step that decided it."""
    failure = report["failure"]
    if failure is None:
        return None, None
    codes = (report["code"], report["cause"])
    decisive = [step for step in report["steps"] if step["code"] and step["code"] in codes]
    saw = failure["saw"] or next((step["saw"] for step in decisive), None)
    return saw, next((step["hint"] for step in decisive if step["hint"]), None) or failure["hint"]
