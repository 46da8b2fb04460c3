"""What a host says: records, and a report that is believed only with its shape, and a success only with its proof."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Callable

from agent.core.errors import CODES, AgentError
from agent.remote.bootstrap import RECORD
from agent.render.schema_check import first_violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Of what a host sends, in bytes: one line, and all of it; then the number of records, of values in one of them (each
# costs some 100 bytes here, and as little as two there), and how deep one may be. A truthful host stays far below
# each; one in wrong hands shall cost neither memory nor the other hosts' time.
_LARGEST = 1024 * 1024
_MOST = 4 * _LARGEST
_RECORDS = 1000
_VALUES = 50_000
_DEEPEST = 16
# Digits of a number: Python before 3.10.7 needs a minute for a million of them.
_DIGITS = 32
# Characters of one text in a record that is no report; those of a report are bounded by its schema.
_LONGEST = 4096
# How much of what is no record is kept, in bytes: its end may say why none came.
_KEPT = 4096
# characters of a step's name, or of nonsense, that are shown
SHOWN = 100
# what each record must have besides its name, all of it text
_TEXTS = {
    "hello": (),
    "settled": (),
    "at": ("step",),
    "want": ("what",),
    "failed": ("code", "saw"),
    "report": (),
}


class ReplyReader:
    """What comes from a host: records that begin with the word of the request, and whatever else is printed there."""

    def __init__(
        self, receive: Callable[[], bytes], word: str, mind: Callable[[str], None] = lambda _noise: None
    ) -> None:
        """Listen to `receive`, which returns the next bytes, none at their end.

        `mind` is shown what else was printed as long as no record came, and may raise.
        """
        self._receive = receive
        self._mind = mind
        self._mark = RECORD + word.encode()
        self._noise = bytearray()

    @property
    def noise(self) -> str:
        """The end of what was no record: a login shell's words, or those of whoever answered instead of us."""
        return self._noise[-_KEPT:].decode("utf-8", "replace")

    def records(self) -> Iterator[dict[str, Any]]:
        """Give the records that come. Raises AgentError `far-end-failed` for nonsense in one, and without an end."""
        told = 0
        for line in self._lines():
            before, found, text = line.partition(self._mark)
            self._pass_over(before if found else line)
            if not found and not told:
                self._mind(line[:_KEPT].decode("utf-8", "replace"))
            if found:
                told += 1
                _refuse_more(told, _RECORDS, "records")
                yield _parsed(text)

    def _lines(self) -> Iterator[bytes]:
        """Give lines as they become whole. Nothing is looked at twice, however small the pieces are that come."""
        held = bytearray()
        heard = seen = 0
        while piece := self._receive():
            heard += len(piece)
            held += piece
            begin = 0
            while (end := held.find(b"\n", max(begin, seen))) >= 0:
                yield bytes(held[begin : end + 1])
                begin = end + 1
            del held[:begin]
            seen = len(held)
            _refuse_more(seen, _LARGEST, "bytes in one line")
            _refuse_more(heard, _MOST, "bytes")
        self._pass_over(bytes(held))

    def _pass_over(self, text: bytes) -> None:
        self._noise += text
        if len(self._noise) > 2 * _KEPT:
            del self._noise[:-_KEPT]


def _refuse_more(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise _nonsense("the host sends without end", f"{count} {what}", "a report")


def _parsed(text: bytes) -> dict[str, Any]:
    """Return a record that has what its kind must have, so that nothing later need ask."""
    record = None
    # each value but one stands behind one of these; what is in a text counts too, and is far below the limit
    if len(text) <= _LARGEST and sum(map(text.count, (b",", b":", b"[", b"{"))) <= _VALUES:
        try:
            record = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_integer)
        except (ValueError, RecursionError):
            record = None
    if not (isinstance(record, dict) and _whole(record) and not _deeper(record, _DEEPEST)):
        raise _nonsense(
            "the host sends what is no record", text[:SHOWN].decode("utf-8", "replace").rstrip(), "a record"
        )
    return record


def _number(text: str) -> float:
    """Read a number of JSON, which knows neither NaN nor infinity: whoever reads our report would choke on them."""
    value = float(text) if len(text) <= _DIGITS else math.inf
    if not math.isfinite(value):
        raise ValueError(text[:SHOWN])
    return value


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(text[:SHOWN])
    return int(text)


def _whole(record: Mapping[str, Any]) -> bool:
    event = record.get("event")
    if not isinstance(event, str) or event not in _TEXTS:
        return False
    if not all(_is_text(record.get(word)) for word in _TEXTS[event]):
        return False
    if event == "want" and record["what"] != "tree":
        return _is_text(record.get("url")) and (record.get("sha256") is None or _is_text(record["sha256"]))
    return event != "failed" or record["code"] in CODES


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _deeper(value: object, most: int) -> bool:
    """Tell whether a value has more levels than that."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most == 0 or any(_deeper(each, most - 1) for each in inside)


def validate_report(report: Any, request: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report that has the shape of the published one, `wanted`, and is of this request and no other.

    What it fails with must be codes of ours: they decide what is said of the host, and in whose words.
    """
    where = first_violation(report, wanted["$defs"]["report"], wanted) or _unknown(report)
    if where is not None:
        raise _nonsense("the host's report is none", f"wrong at {where}", "a report")
    whole: dict[str, Any] = report
    asked, told = ({key: each.get(key) for key in ("command", "request")} for each in (request, whole))
    if asked != told:
        saw, want = (f"{each['command']} for {each['request']}"[:SHOWN] for each in (told, asked))
        raise _nonsense("the host sends the report of another run", saw, want)
    return whole


def _unknown(report: Mapping[str, Any]) -> str | None:
    """Return where a report has a code that there is not, or fails without one."""
    failure = report["failure"] or {}
    said = [
        ("code", report["code"]),
        ("cause", report["cause"]),
        ("failure.code", failure.get("code")),
        *((f"steps.{place}.code", step["code"]) for place, step in enumerate(report["steps"])),
        *((f"hsms.{place}.cause", hsm["cause"]) for place, hsm in enumerate(report["hsms"])),
    ]
    if report["outcome"] != "ok" and report["code"] is None:
        return "code"
    return next((place for place, code in said if code is not None and code not in CODES), None)


def _nonsense(sentence: str, saw: str, want: str) -> AgentError:
    return AgentError("far-end-failed", sentence, saw=saw, want=want)


def has_proof(report: Mapping[str, Any]) -> bool:
    """Tell whether a report holds the proof itself: every HSM reached, and every question to the client answered."""
    client = [step for step in report["steps"] if step["id"].startswith("client:")]
    return (
        bool(report["hsms"] and client)
        and all(hsm["reached"] for hsm in report["hsms"])
        and all(step["outcome"] == "met" for step in client)
    )
