"""What a roll-out did so far, on the operator's disk: one JSON record a line, appended and synced, never rewritten.

A controller that is killed loses nothing that it had seen: whoever reads the journal knows which hosts had their turn,
how each ended with its whole report, and which were at work. A last line that is torn is what the kill interrupted.
After a power cut, lines that had not been synced can be there in part; what is no record, or does not have the checksum
that it was written with, is passed over: its host is asked again. Without what was wanted last, nothing goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agent.core.errors import AgentError, CodeName
from agent.core.fleet_model import ArchiveDigests, HostResult, HostState, Target
from agent.hosts.files import sync_folder
from agent.render.fleet.grouping import summary_details

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VERSION = 1
# of how many runs is known what their hosts were asked for
_REMEMBERED = 100
_FILE = "journal.jsonl"
# behind all else in a line; journals of before have none
_SUM = re.compile(rb', "crc32": ([0-9]{1,10})}\n?$')
# what tells a line that says what is wanted: one of these stays where another is damaged
_ORDERS, _TOLD = (b'"kind": "run"', b'"kind": "resumed"'), b'"orders": {'


@dataclass(frozen=True)
class RunSpec:
    """What a run was asked to do, whole: enough to go on with it from its journal alone.

    `desired` has for each host's name what `agent.config.desired.to_json` made of its options and those of its target.
    Times are in seconds; `shares` and `limit` are as they were written. `remarks` are what the inventory made one say.
    `before` has for hosts that are to do their last `configure` again where an earlier roll-out had packages from.
    """

    command: str
    inventory: str
    targets: tuple[Target, ...]
    desired: Mapping[str, Mapping[str, Any]]
    ssh_config: str | None = None
    parallel: int = 32
    shares: str = "1,10%,100%"
    soak: float = 0.0
    limit: str = "0"
    deadline: float = 900.0
    remarks: tuple[str, ...] = ()
    before: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class InFlight:
    """A host that was begun and has no end: it may still be at work. `attempt` counts from 1 for each host."""

    host: str
    attempt: int


@dataclass
class RecordedRun:
    """What a journal tells: the orders, and the last word on each host. `ends` are without the hosts' own reports.

    What was said before a host was begun again, or before something else was wanted of it, is no last word.
    `attempts` counts how often each host was begun; `open` are those begun and not ended; `left` are those that were
    given up at work.
    """

    run_id: str
    started: str
    orders: RunSpec
    sent: ArchiveDigests
    ends: dict[str, HostResult] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    open: dict[str, InFlight] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    finished: Mapping[str, Any] | None = None

    def state(self, name: str) -> HostState:
        if name in self.open:
            return HostState.AT_WORK
        return self.ends[name].state if name in self.ends else HostState.NOT_REACHED


def runs_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of all runs of this operator."""
    return operator_folder(environ, "XDG_STATE_HOME", ".local/state") / "hsm-agent" / "runs"


def operator_folder(environ: Mapping[str, str], name: str, otherwise: str) -> Path:
    """Return the folder that the environment names, else one below the operator's home. Raises AgentError `usage`."""
    named = environ.get(name) or ""
    if named.startswith("/"):
        return Path(named)
    try:
        return Path(environ.get("HOME") or "~").expanduser() / otherwise
    except (RuntimeError, KeyError) as error:
        # a user that no database knows, as in a container; Python 3.9 says it with a KeyError
        raise AgentError(
            "usage", "there is no home to keep a roll-out in", saw=str(error), want=f"HOME or {name}",
            hint=f"set {name} to a folder, and HOME for ssh's own files",
        ) from error  # fmt: skip


class Journal:
    """A journal that is open for writing: this controller's alone, by a lock that the kernel drops with its process."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to a file that has no buffer: what could not be written is not tried again when it is closed."""
        self._file = file
        self._pending = bytearray()

    def begin(self, run_id: str, started: str, orders: RunSpec, sent: ArchiveDigests) -> None:
        self._add("run", run_id=run_id, started=started, orders=asdict(orders), **asdict(sent))
        self.sync()

    def resume(self, started: str, orders: RunSpec, sent: ArchiveDigests) -> None:
        self._add("resumed", started=started, orders=asdict(orders), **asdict(sent))
        self.sync()

    def began(self, host: str, attempt: int) -> None:
        self._add("began", host=host, attempt=attempt)

    def ended(self, end: HostResult) -> None:
        self._add("ended", end=asdict(end))

    def finished(self, **verdict: Any) -> None:
        self._add("finished", **verdict)
        self.sync()

    def sync(self) -> None:
        """Have everything on the disk: called once for all that ended at the same moment."""
        if self._pending:
            while self._pending:
                del self._pending[: self._file.write(self._pending)]
            os.fsync(self._file.fileno())

    def _add(self, kind: str, **values: Any) -> None:
        # in ASCII, which holds also what a host says that is no text
        body = json.dumps({"v": _VERSION, "kind": kind, **values}).encode()
        self._pending += body[:-1] + b', "crc32": %d}\n' % zlib.crc32(body)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    """Open the journal of a run, made if there is none. Raises AgentError `run-locked`, `write-failed`, `no-space`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder / _FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritten(folder, error) from error
    with os.fdopen(fd, "ab", buffering=0) as file:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AgentError(
                "run-locked",
                "another hsm-agent is at work on this roll-out",
                saw=str(folder),
                want="one controller for each run",
                hint="wait for it, or end it: the hosts that it began finish by themselves",
            ) from error
        except OSError as error:  # a file system without locks
            raise _unwritten(folder, error) from error
        try:
            os.ftruncate(fd, _whole(folder / _FILE))
            for each in (folder, folder.parent):
                sync_folder(str(each))
            journal = Journal(file)
            yield journal
            journal.sync()
        except OSError as error:
            raise _unwritten(folder, error) from error


def at_work(folder: Path) -> bool:
    """Tell whether a controller has the journal open for writing."""
    try:
        with (folder / _FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def read(folder: Path) -> RecordedRun:
    """Return what the journal in `folder` tells. Raises AgentError `nothing-recorded`."""
    story: RecordedRun | None = None
    try:
        for record in records(folder):
            if record["kind"] == "run":
                story = RecordedRun(
                    record["run_id"], record["started"], _orders(record["orders"]), _sent(record)
                )
            elif story is not None:
                _tell(story, record)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder / _FILE, error) from error
    if story is None:
        raise AgentError(
            "nothing-recorded", "there is no such roll-out", saw=f"no usable {folder / _FILE}", want="an earlier run",
            hint="`hsm-agent fleet status` shows the last one",
        )  # fmt: skip
    return story


def configured(base: Path) -> dict[str, Mapping[str, Any]]:
    """Return the hosts that roll-outs from here configured, each with what was wanted of it last."""
    found: dict[str, Mapping[str, Any]] = {}
    for folder in reversed(runs(base)[-_REMEMBERED:]):
        with contextlib.suppress(AgentError):
            orders = _last_orders(folder)
            for name, desired in (orders.desired if orders.command == "rollout" else {}).items():
                if desired.get("hsm_ip"):
                    found.setdefault(name, desired)
    return found


def _last_orders(folder: Path) -> RunSpec:
    """Return what a run was asked to do last, without reading how its hosts ended: those lines are long."""
    path = folder / _FILE
    orders = None
    try:
        with path.open("rb") as file:
            for line in file:
                if _says_orders(line):
                    orders = _orders((_record(line) or {})["orders"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error
    if orders is None:
        raise _unreadable(path, "no orders")
    return orders


def reports(folder: Path) -> Iterator[HostResult]:
    """Give the ends that stand whole, with their reports, one at a time: all of them may be more than memory holds."""
    stand = read(folder).ends
    places: dict[str, tuple[int, int]] = {}
    path = folder / _FILE
    with path.open("rb") as file:
        at = 0
        for line in file:
            record = _record(line) if b'"kind": "ended"' in line[:64] and line.endswith(b"\n") else None
            if record is not None:
                places[record["end"]["name"]] = (at, len(line))
            at += len(line)
        for begin, length in (place for name, place in places.items() if name in stand):
            file.seek(begin)
            yield _end((_record(file.read(length)) or {})["end"], whole=True)


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """Give the records of a journal. Raises AgentError `nothing-recorded` for one that this version cannot read."""
    path = folder / _FILE
    try:
        size = _whole(path)
        with path.open("rb") as file:
            while file.tell() < size:
                line = file.readline()
                record = _record(line)
                if record is None and _says_orders(line):
                    raise _unreadable(path, "what was asked for is not as it was written")
                if record is not None and record["v"] != _VERSION:
                    raise _unreadable(path, f"version {record['v']}")
                if record is not None:
                    yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error


def _says_orders(line: bytes) -> bool:
    return _TOLD in line or any(each in line[:64] for each in _ORDERS)


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line, None for one that is damaged."""
    told = _SUM.search(line[-40:])
    if told:
        line = line[: len(line[:-40]) + told.start()] + b"}"
        if zlib.crc32(line) != int(told[1]):
            return None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(line)
        return found if isinstance(found, dict) and {"v", "kind"} <= found.keys() else None
    return None


def _unreadable(path: Path, why: object) -> AgentError:
    return AgentError(
        "nothing-recorded", "the journal cannot be read", saw=f"{path}: {why}", want="a journal of this version",
        hint="the hsm-agent that wrote it can go on with that roll-out; this one begins a new one",
    )  # fmt: skip


def runs(base: Path) -> tuple[Path, ...]:
    """Return the folders of all runs, oldest first: their names begin with their time.

    One whose controller was killed before it had written what it was asked for is none.
    """
    try:
        return tuple(
            sorted(each for each in base.iterdir() if (each / _FILE).is_file() and _whole(each / _FILE))
        )
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unreadable(base, error) from error


def _whole(path: Path) -> int:
    """Return how many bytes of a journal are whole lines."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - 65536)
            file.seek(begin)
            at = file.read(end - begin).rfind(b"\n")
            if at >= 0:
                return begin + at + 1
            end = begin
    return 0


def _tell(story: RecordedRun, record: Mapping[str, Any]) -> None:
    if record["kind"] == "began":
        begun = InFlight(record["host"], record["attempt"])
        story.attempts[begun.host] = begun.attempt
        story.open[begun.host] = begun
        story.ends.pop(begun.host, None)
        story.left.discard(begun.host)
    elif record["kind"] == "ended":
        end = _end(record["end"], whole=False)
        story.ends[end.name] = end
        story.open.pop(end.name, None)
        if end.abandoned:
            story.left.add(end.name)
    elif record["kind"] == "resumed":
        _resume(story, _orders(record["orders"]), _sent(record))
    elif record["kind"] == "finished":
        story.finished = record


def _resume(story: RecordedRun, orders: RunSpec, sent: ArchiveDigests) -> None:
    at_work = {*story.open, *story.left}
    for name, wanted in orders.desired.items():
        if wanted != story.orders.desired[name]:
            story.ends.pop(name, None)
            # what is at work there is waited for, and its report is not of what is wanted now
            story.attempts[name] = story.attempts.get(name, 0) + (name in at_work)
    story.orders, story.sent, story.finished = orders, sent, None


def _sent(record: Mapping[str, Any]) -> ArchiveDigests:
    return ArchiveDigests(
        record["tree"], record.get("windows_tree")
    )  # the second came later than the first journals


def _orders(tree: Mapping[str, Any]) -> RunSpec:
    targets = tuple(Target(**{**each, "groups": tuple(each["groups"])}) for each in tree["targets"])
    return RunSpec(**{**tree, "targets": targets, "remarks": tuple(tree["remarks"])})


def _end(tree: Mapping[str, Any], *, whole: bool) -> HostResult:
    end = HostResult(**{**tree, "state": HostState(tree["state"])})
    return end if whole else summarised(end)


def summarised(end: HostResult) -> HostResult:
    """Leave of a host's report what the screen of the whole run shows: the steps of a thousand hosts fill a memory."""
    return replace(end, report=end.report and summary_details(end.report))


def _unwritten(folder: Path, error: OSError) -> AgentError:
    import errno  # noqa: PLC0415 -- only for a failure

    code: CodeName = "no-space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "write-failed"
    return AgentError(
        code, "the journal of the roll-out cannot be written", saw=f"{folder}: {error.strerror or error}",
        hint="free the space, or name another place with XDG_STATE_HOME; what is begun finishes by itself",
    )  # fmt: skip
