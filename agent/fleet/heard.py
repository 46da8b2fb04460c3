"""What a host says: records, and a report that is believed only with its shape, and a success only with its proof."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Callable

from agent.core.errors import CODES, AgentError
from agent.landing import RECORD
from agent.render.shape import fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Of what a host sends, in bytes: one line, and all of it; then the number of records, and how deep one may be. A
# truthful host stays far below each; one in wrong hands shall cost neither memory nor the other hosts' time.
_LARGEST = 4 * 1024 * 1024
_MOST = 4 * _LARGEST
_RECORDS = 1000
_DEEPEST = 16
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


def records(receive: Callable[[], bytes]) -> Iterator[dict[str, Any]]:
    """Give the records that come, leaving out whatever else a login shell prints.

    `receive` returns the next bytes, none at their end. Raises AgentError `far-end-failed` for nonsense.
    """
    held = b""
    heard = told = 0
    while piece := receive():
        heard += len(piece)
        held += piece
        *lines, held = held.split(b"\n")
        for line in lines:
            _, found, text = line.partition(RECORD)
            if found:
                told += 1
                yield _parsed(text)
        for count, limit, what in (
            (len(held), _LARGEST, "bytes in one line"), (heard, _MOST, "bytes"), (told, _RECORDS, "records"),
        ):  # fmt: skip
            if count > limit:
                raise _nonsense("the host sends without end", f"{count} {what}", "a report")


def _parsed(text: bytes) -> dict[str, Any]:
    """Return a record that has what its kind must have, so that nothing later need ask."""
    try:
        record = json.loads(text, parse_constant=_number, parse_float=_number)
    except (ValueError, RecursionError):
        record = None
    if not (isinstance(record, dict) and _whole(record) and not _deeper(record, _DEEPEST)):
        raise _nonsense(
            "the host sends what is no record", text[:SHOWN].decode("utf-8", "replace"), "a record"
        )
    return record


def _number(text: str) -> float:
    """Read a number of JSON, which knows neither NaN nor infinity: whoever reads our report would choke on them."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _whole(record: Mapping[str, Any]) -> bool:
    event = record.get("event")
    if not isinstance(event, str) or event not in _TEXTS:
        return False
    if not all(isinstance(record.get(word), str) for word in _TEXTS[event]):
        return False
    if event == "want" and record["what"] != "tree":
        return isinstance(record.get("url"), str) and isinstance(record.get("sha256"), (str, type(None)))
    return event != "failed" or record["code"] in CODES


def _deeper(value: object, most: int) -> bool:
    """Tell whether a value has more levels than that."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most == 0 or any(_deeper(each, most - 1) for each in inside)


def sound(report: Any, request: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report that has the shape of the published one, `wanted`, and is of this request and no other."""
    where = fault(report, wanted["$defs"]["report"], wanted)
    if where is not None:
        raise _nonsense("the host's report is none", f"wrong at {where}", "a report")
    whole: dict[str, Any] = report
    asked, told = ({key: each[key] for key in ("command", "request")} for each in (request, whole))
    if asked != told:
        saw, want = (f"{each['command']} for {each['request']}"[:SHOWN] for each in (told, asked))
        raise _nonsense("the host sends the report of another run", saw, want)
    return whole


def _nonsense(sentence: str, saw: str, want: str) -> AgentError:
    return AgentError("far-end-failed", sentence, saw=saw, want=want)


def proven(report: Mapping[str, Any]) -> bool:
    """Tell whether a report holds the proof itself: every HSM reached, and every question to the client answered."""
    client = [step for step in report["steps"] if step["id"].startswith("client:")]
    return (
        bool(report["hsms"] and client)
        and all(hsm["reached"] for hsm in report["hsms"])
        and all(step["outcome"] == "met" for step in client)
    )
