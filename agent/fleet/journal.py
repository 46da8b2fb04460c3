"""The record of a roll-out on the operator's disk: one JSON record a line, appended and synced, never rewritten.

A controller that is killed loses nothing that it had seen: the journal has which hosts had their turn, how each ended
with its report, and which were running. An incomplete last line is what the kill interrupted.
After a power cut, lines that were not synced can be there in part. A line that is no record, or does not have the
checksum that it was written with, is skipped: its host is asked again. Without the last RunSpec, nothing is resumed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import threading
import time
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from agent.core.codes import fix
from agent.core.errors import AgentError
from agent.core.fleet_model import ArchiveDigests, HostResult, HostState, Target, summary_of
from agent.fleet.model import RunSpec, RunState, SentCommand
from agent.hosts.files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.core.codes import CodeName

_VERSION = 1
# How many runs are searched for what a host was configured with.
_REMEMBERED = 100
_FILE = "journal.jsonl"
# as `controller.new_run_id` makes them: nothing else among them is ever deleted
_RUN = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")
# The end of a line; journals of earlier versions do not have it.
_SUM = re.compile(rb', "crc32": ([0-9]{1,10})}\n?$')
# The marks of a line with a RunSpec: one of these remains when another is damaged.
_SPEC_KINDS, _SPEC_KEY = (b'"kind": "run"', b'"kind": "resumed"'), b'"orders": {'


def runs_dir(environ: Mapping[str, str]) -> Path:
    """Return the directory of all runs of this operator."""
    return operator_folder(environ, "XDG_STATE_HOME", ".local/state") / "hsm-agent" / "runs"


def operator_folder(environ: Mapping[str, str], name: str, otherwise: str) -> Path:
    """Return the directory of a variable, else one below the operator's home. Raises AgentError `usage`."""
    named = environ.get(name) or ""
    if named.startswith("/"):
        return Path(named)
    try:
        return Path(environ.get("HOME") or "~").expanduser() / otherwise
    except (RuntimeError, KeyError) as error:
        # a user without an entry in any database, as in a container; Python 3.9 raises KeyError
        raise AgentError(
            "usage", "there is no home to keep a roll-out in", saw=str(error), want=f"HOME or {name}",
            hint=f"set {name} to a directory, and HOME for ssh's own files",
        ) from error  # fmt: skip


class Journal:
    """A journal open for writing, by this controller alone: the kernel drops its lock with the process."""

    def __init__(self, file: IO[bytes]) -> None:
        """Write to an unbuffered file: what could not be written is not tried again when it is closed."""
        self._file = file
        self._pending = bytearray()
        # commands of Systems Manager are recorded by the thread that sends them
        self._lock = threading.Lock()

    def begin(self, run: RunState) -> None:
        self._add("run", run_id=run.run_id, started=run.started, orders=asdict(run.spec), **asdict(run.sent))
        self.sync()

    def resume(self, started: str, spec: RunSpec, sent: ArchiveDigests) -> None:
        self._add("resumed", started=started, orders=asdict(spec), **asdict(sent))
        self.sync()

    def began(self, host: str, attempt: int) -> None:
        self._add("began", host=host, attempt=attempt)

    def ended(self, end: HostResult) -> None:
        self._add("ended", end=asdict(end))

    def sending(self, comment: str, began: str, hosts: Mapping[str, int]) -> None:
        """Record a command of Systems Manager, before it is sent."""
        self._add("sending", comment=comment, began=began, hosts=hosts)

    def sent(self, comment: str, command_id: str) -> None:
        self._add("sent", comment=comment, command_id=command_id)

    def finish(self, run: RunState) -> None:
        self._add("finished", finished=run.finished, code=run.code, why=run.why, waves=run.waves)
        self.sync()

    def sync(self) -> None:
        """Write everything to the disk: called once for all hosts that ended at the same moment."""
        with self._lock:
            if self._pending:
                while self._pending:
                    del self._pending[: self._file.write(self._pending)]
                os.fsync(self._file.fileno())

    def _add(self, kind: str, **values: Any) -> None:
        # in ASCII, which also holds output of a host that is not valid text
        body = json.dumps({"v": _VERSION, "kind": kind, **values}).encode()
        with self._lock:
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
                "another hsm-agent is running this roll-out",
                saw=str(folder),
                want="one controller for each run",
                hint="wait for it, or end it: the hosts that it began finish by themselves",
            ) from error
        except OSError as error:  # a file system without locks
            raise _unwritten(folder, error) from error
        try:
            os.ftruncate(fd, _complete_size(folder / _FILE))
            for each in (folder, folder.parent):
                sync_folder(str(each))
            journal = Journal(file)
            yield journal
            journal.sync()
        except OSError as error:
            raise _unwritten(folder, error) from error


def is_running(folder: Path) -> bool:
    """Return whether a controller has the journal open for writing."""
    try:
        with (folder / _FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def read(folder: Path) -> RunState:
    """Return the run that the journal in `folder` records. Raises AgentError `nothing-recorded`."""
    run: RunState | None = None
    try:
        for record in records(folder):
            if record["kind"] == "run":
                run = RunState(record["run_id"], record["started"], _spec(record["orders"]), _sent(record))
            elif run is not None:
                _replay(run, record)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(folder / _FILE, error) from error
    if run is None:
        raise AgentError(
            "nothing-recorded", "there is no such roll-out", saw=f"no usable {folder / _FILE}", want="an earlier run",
            hint="`hsm-agent fleet runs` lists those that can be read",
        )  # fmt: skip
    return run


def configured(base: Path) -> dict[str, Mapping[str, Any]]:
    """Return the hosts that roll-outs from here configured, each with what was wanted of it last."""
    found: dict[str, Mapping[str, Any]] = {}
    for folder in reversed(runs(base)[-_REMEMBERED:]):
        with contextlib.suppress(AgentError):
            spec = _last_spec(folder)
            for name, desired in (spec.desired if spec.command == "rollout" else {}).items():
                if desired.get("hsm_ip"):
                    found.setdefault(name, desired)
    return found


def _last_spec(folder: Path) -> RunSpec:
    """Return what a run was asked to do last, without parsing how its hosts ended: those lines are long."""
    path = folder / _FILE
    spec = None
    try:
        with path.open("rb") as file:
            for line in file:
                if _has_spec(line):
                    spec = _spec((_record(line) or {})["orders"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, error) from error
    if spec is None:
        raise _unreadable(path, "no specification of the run")
    return spec


def reports(folder: Path) -> Iterator[HostResult]:
    """Yield the current results with their reports, one at a time: all of them may not fit into memory."""
    ends = read(folder).ends
    lines: dict[str, tuple[int, int]] = {}
    path = folder / _FILE
    with path.open("rb") as file:
        offset = 0
        for line in file:
            record = _record(line) if b'"kind": "ended"' in line[:64] and line.endswith(b"\n") else None
            if record is not None:
                lines[record["end"]["name"]] = (offset, len(line))
            offset += len(line)
        for begin, length in (each for name, each in lines.items() if name in ends):
            file.seek(begin)
            yield _end((_record(file.read(length)) or {})["end"])


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a journal. Raises AgentError `nothing-recorded` for one that this version cannot read."""
    path = folder / _FILE
    try:
        size = _complete_size(path)
        with path.open("rb") as file:
            while file.tell() < size:
                line = file.readline()
                record = _record(line)
                if record is None and _has_spec(line):
                    raise _unreadable(path, "what was asked for is not as it was written")
                if record is not None and record["v"] != _VERSION:
                    raise _unreadable(path, f"version {record['v']}")
                if record is not None:
                    yield record
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error


def _has_spec(line: bytes) -> bool:
    return _SPEC_KEY in line or any(each in line[:64] for each in _SPEC_KINDS)


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line, None for one that is damaged."""
    checksum = _SUM.search(line[-40:])
    if checksum:
        line = line[: len(line[:-40]) + checksum.start()] + b"}"
        if zlib.crc32(line) != int(checksum[1]):
            return None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(line)
        return found if isinstance(found, dict) and {"v", "kind"} <= found.keys() else None
    return None


def _unreadable(path: Path, why: object) -> AgentError:
    if isinstance(why, OSError):
        return AgentError(
            "nothing-recorded",
            "the record of roll-outs cannot be read",
            saw=f"{path}: {why.strerror or why}",
            want="a path that this user may read",
            hint=fix("write-failed", PATH=str(path)),
        )
    return AgentError(
        "nothing-recorded", "the journal cannot be read", saw=f"{path}: {why}", want="a journal of this version",
        hint="the hsm-agent that wrote it can go on with that roll-out; this one begins a new one",
    )  # fmt: skip


def runs(base: Path) -> tuple[Path, ...]:
    """Return the directories of all runs, oldest first: their names begin with their time.

    One without a first record is left out: its controller was killed before it wrote it.
    """
    try:
        return tuple(
            sorted(
                each for each in base.iterdir() if (each / _FILE).is_file() and _complete_size(each / _FILE)
            )
        )
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unreadable(base, error) from error


def prune(base: Path, seconds: float) -> tuple[str, ...]:
    """Delete the runs in which nothing was recorded for so long, oldest first, and return their names.

    A run that a controller has open stays. Raises AgentError `write-failed`.
    """
    before = time.time() - seconds
    try:
        folders = sorted(
            each for each in base.iterdir() if _RUN.fullmatch(each.name) and not each.is_symlink()
        )
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _undeleted(base, error) from error
    return tuple(each.name for each in folders if _delete(each, before))


def _delete(folder: Path, before: float) -> bool:
    """Delete a run that was last written before a time, in epoch seconds; return whether it was deleted."""
    try:
        with (folder / _FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_mtime >= before:
                return False
            shutil.rmtree(folder)
    except BlockingIOError:  # it is going on
        return False
    except FileNotFoundError:  # its controller was killed at once; or another process deletes it too
        return _delete_empty(folder, before)
    except OSError as error:
        raise _undeleted(folder, error) from error
    return True


def _delete_empty(folder: Path, before: float) -> bool:
    with contextlib.suppress(OSError):
        if folder.stat().st_mtime < before:
            folder.rmdir()
            return True
    return False


def _undeleted(folder: Path, error: OSError) -> AgentError:
    return AgentError(
        "write-failed", "a recorded run cannot be deleted", saw=f"{folder}: {error.strerror or error}",
        hint="delete it as the user who owns it",
    )  # fmt: skip


def _complete_size(path: Path) -> int:
    """Return how many bytes of a journal are complete lines."""
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


def _replay(run: RunState, record: Mapping[str, Any]) -> None:
    if record["kind"] == "began":
        run.begin(record["host"], record["attempt"])
    elif record["kind"] == "ended":
        run.end(summarised(_end(record["end"])))
    elif record["kind"] == "resumed":
        run.resume(_spec(record["orders"]), _sent(record))
    elif record["kind"] == "sending":
        command = SentCommand(record["comment"], record["began"], record["hosts"])
        run.commands[command.comment] = command
    elif record["kind"] == "sent" and record["comment"] in run.commands:
        command = run.commands[record["comment"]]
        run.commands[command.comment] = replace(command, command_id=record["command_id"])
    elif record["kind"] == "finished":
        # earlier versions did not write all of these
        finished = record.get("finished") or run.started
        run.finish(finished, record.get("code"), record.get("why"), record.get("waves", ()))


def _sent(record: Mapping[str, Any]) -> ArchiveDigests:
    # journals of the first version have no Windows archive
    return ArchiveDigests(record["tree"], record.get("windows_tree"), record.get("linux_trees", {}))


def _spec(tree: Mapping[str, Any]) -> RunSpec:
    targets = tuple(Target(**{**each, "groups": tuple(each["groups"])}) for each in tree["targets"])
    return RunSpec(**{**tree, "targets": targets, "remarks": tuple(tree["remarks"])})


def _end(tree: Mapping[str, Any]) -> HostResult:
    return HostResult(**{**tree, "state": HostState(tree["state"])})


def summarised(end: HostResult) -> HostResult:
    """Return a result with the parts of its report that the screen shows: the steps of 1,000 hosts fill a memory."""
    return replace(end, report=end.report and summary_of(end.report))


def _unwritten(folder: Path, error: OSError) -> AgentError:
    import errno  # noqa: PLC0415 -- only for a failure

    code: CodeName = "no-space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "write-failed"
    return AgentError(
        code, "the journal of the roll-out cannot be written", saw=f"{folder}: {error.strerror or error}",
        hint="free the space, or name another place with XDG_STATE_HOME; hosts that have begun finish by themselves",
    )  # fmt: skip
