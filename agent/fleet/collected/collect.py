"""Read every report that lies in one place, several at a time, in bounded memory."""

from __future__ import annotations

import datetime as dt
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError
from agent.core.fleet_model import summary_of
from agent.fleet.collected.document import ForeignDocumentError, UnusableReportError, read_report
from agent.fleet.collected.sources import MOST_BYTES
from agent.fleet.replies import reported_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.fleet.collected.sources import ReportSource, StoredObject
    from agent.fleet.collected.spool import FiledReport, ReportSpool
    from agent.fleet.replies import ReportedState

# How many reports are read at a time, and how many may be read and not yet looked at.
_PARALLEL, _AHEAD = 16, 32
# How many objects are read, of which each host has one.
MOST_OBJECTS = 20_000
_SUFFIX = ".json"
# failures that are about one object; any other is about all of them
_OF_ONE = ("aws-denied", "aws-refused", "unreadable")


@dataclass(frozen=True)
class CollectedReport:
    """A valid report: `label` is the name of its object without `.json`, `written` when that was written there.

    `finished` is when its run ended by the host's clock; both are epoch seconds. `summary` is the part that a screen
    shows, `addresses` are those of the HSMs that were asked, `whole` is all of it.
    """

    label: str
    written: float
    finished: float
    state: ReportedState
    command: str
    exit_status: int
    changed: bool
    request: str | None
    addresses: tuple[str, ...]
    summary: Mapping[str, Any]
    whole: FiledReport

    @property
    def last_seen(self) -> float:
        """When the host was as its report says: a report that was kept and came later is as old as its run."""
        return min(self.written, self.finished)

    @property
    def host(self) -> Mapping[str, Any]:
        host: Mapping[str, Any] = self.summary["host"]
        return host


@dataclass(frozen=True)
class UnreadableObject:
    """What is meant as a report, and is none that can be used: its label, and why."""

    label: str
    written: float
    why: str


@dataclass
class Collection:
    """Everything that lies there. `foreign` are the names of what is no report; all of them are ignored."""

    place: str
    reports: list[CollectedReport] = field(default_factory=list)
    unreadable: list[UnreadableObject] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def collect(source: ReportSource, schema: Mapping[str, Any], spool: ReportSpool) -> Collection:
    """Return the reports of a place. Raises AgentError for what keeps all of them from being read."""
    found = Collection(source.place)
    denied = None
    for each, data in _read_all(source):
        label = each.name.removesuffix(_SUFFIX)
        if not each.name.endswith(_SUFFIX):
            found.foreign.append(each.name)
        elif isinstance(data, AgentError):
            denied = denied or (data if data.code.name == "aws-denied" else None)
            found.unreadable.append(UnreadableObject(label, each.written, f"{data.sentence}: {data.saw}"))
        elif data is not None:
            _add(found, each, label, data, schema, spool)
    if denied is not None and not found.reports:
        raise denied  # whoever may list and not read needs a permission, and not a table of failures
    return found


def _read_all(source: ReportSource) -> Iterator[tuple[StoredObject, bytes | AgentError | None]]:
    """Yield every object with its bytes, in order; those that are no reports by their names have none."""
    pool = ThreadPoolExecutor(_PARALLEL, "hsm-agent-reports")
    ahead: deque[tuple[StoredObject, Any]] = deque()
    try:
        for number, each in enumerate(source.objects(), 1):
            if number > MOST_OBJECTS:
                raise _too_many(source.place)
            ahead.append((each, pool.submit(_read, source, each)))
            if len(ahead) == _AHEAD:
                stored, future = ahead.popleft()
                yield stored, future.result()
        while ahead:
            stored, future = ahead.popleft()
            yield stored, future.result()
    finally:
        source.close()
        pool.shutdown(cancel_futures=True)


def _read(source: ReportSource, each: StoredObject) -> bytes | AgentError | None:
    if not each.name.endswith(_SUFFIX):
        return None
    if each.size > MOST_BYTES:
        size = f"{each.size:,} bytes"
        return AgentError("unreadable", "it is too large", saw=size, want=f"at most {MOST_BYTES:,}")
    try:
        return source.read(each.name)
    except AgentError as error:
        if error.code.name in _OF_ONE:
            return error
        raise


def _add(
    found: Collection,
    each: StoredObject,
    label: str,
    data: bytes,
    schema: Mapping[str, Any],
    spool: ReportSpool,
) -> None:
    try:
        report = read_report(data, schema)
    except ForeignDocumentError:
        found.foreign.append(each.name)
    except UnusableReportError as error:
        found.unreadable.append(UnreadableObject(label, each.written, str(error)))
    else:
        found.reports.append(_collected(each, label, report, spool))


def _collected(
    each: StoredObject, label: str, report: Mapping[str, Any], spool: ReportSpool
) -> CollectedReport:
    return CollectedReport(
        label=label,
        written=each.written,
        finished=_epoch(report["finished"]),
        state=reported_state(report, is_removal=report["command"] == "remove"),
        command=report["command"],
        exit_status=report["exit_status"],
        changed=report["changed"],
        request=report.get("request"),
        addresses=tuple(sorted({hsm["ip"] for hsm in report["hsms"]})),
        summary=summary_of(report),
        whole=spool.add(report),
    )


def _epoch(text: str) -> float:
    """Return a time of a report in epoch seconds; 0 for one that no calendar has, such as the 99th of a month."""
    try:
        return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except ValueError:
        return 0.0


def _too_many(place: str) -> AgentError:
    return AgentError(
        "nothing-recorded", "there is more than is read", saw=f"more than {MOST_OBJECTS:,} objects in {place}",
        want=f"at most {MOST_OBJECTS:,}", hint="name the prefix that holds the reports of one fleet",
    )  # fmt: skip
