"""Where the log goes, and a record as an event of Windows. The real registry and Event Log are in tests/windows, as far as Wine has them."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Callable

import pytest

from agent.core.system import LINUX, windows
from agent.hosts.windows.events import ERROR, INFORMATION, LONGEST, WARNING, EventLog, words
from agent.log import open_log
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    logger = logging.getLogger("agent")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)


def absent(**_: bool) -> None:
    """A machine without a log of its own."""


def refuses(**_: bool) -> logging.Handler:
    raise PermissionError(5, "Access is denied")


def opened(machine: Memory, **words: object) -> logging.Handler:
    open_log(machine, **words)  # type: ignore[arg-type]
    (handler,) = logging.getLogger("agent").handlers
    return handler


@pytest.mark.parametrize("own", [absent, refuses])
def test_a_machine_without_a_log_of_its_own_gets_a_file(own: object, tmp_path: Path) -> None:
    machine = Memory(system=replace(windows(), log=str(tmp_path / "log")))
    handler = opened(machine, may_write=True, own=own)
    logging.getLogger("agent").info("done")
    handler.close()
    assert (tmp_path / "log" / "hsm-agent.log").read_text(encoding="utf-8").endswith(" INFO done\n")


def a_user_s(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0o666)
    os.chown(path, 1000, 1000)


LYING_THERE: dict[str, Callable[[Path], None]] = {
    "a FIFO": lambda path: os.mkfifo(path, 0o666),
    "a folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to(path.parents[1] / "other"),
    "a device": lambda path: path.symlink_to("/dev/full"),
    "a user's": a_user_s,
    "in a user's folder": lambda path: os.chown(path.parent, 1000, 1000),
    "in a folder of everybody": lambda path: path.parent.chmod(0o777),
}


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs and owners by numbers are Linux's")
@pytest.mark.parametrize("what", LYING_THERE)
def test_no_log_blocks_or_is_written_through_and_no_stack_is_shown(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "log"
    folder.mkdir(mode=0o750)
    (tmp_path / "other").write_text("somebody's")
    if os.geteuid() != 0 and "user" in what:
        pytest.skip("only root gives files away")
    LYING_THERE[what](folder / "hsm-agent.log")
    machine = Memory(system=replace(LINUX, log=str(folder)))
    for place in (folder, folder / "hsm-agent.log"):
        with contextlib.suppress(FileNotFoundError):
            seen = place.lstat()
            kind = "link" if place.is_symlink() else "directory" if place.is_dir() else "file"
            machine.place(str(place), kind=kind, mode=seen.st_mode & 0o7777, uid=seen.st_uid, gid=seen.st_gid)
    open_log(machine, may_write=True, own=absent)
    for _ in range(3):
        logging.getLogger("agent").info("a line")
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "other").read_text() == "somebody's"
    assert "folder" not in what or not (folder / "hsm-agent.log").is_file()


def test_a_log_that_goes_away_is_no_stack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Memory(system=replace(windows(), log=str(tmp_path / "log")))
    handler = opened(machine, may_write=True, own=absent)
    (tmp_path / "log").rmdir()
    logging.getLogger("agent").error("lost")
    handler.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("own", [absent, refuses])
def test_who_may_not_write_leaves_no_trace(own: object, tmp_path: Path) -> None:
    machine = Memory(system=replace(windows(), log=str(tmp_path / "log")))
    assert isinstance(opened(machine, may_write=False, own=own), logging.NullHandler)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_had_is_no_reason_not_to_run(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder should be")
    machine = Memory(system=replace(windows(), log=str(tmp_path / "log")))
    assert isinstance(opened(machine, may_write=True, own=absent), logging.NullHandler)


def test_a_folder_whose_parent_is_not_there_is_not_made(tmp_path: Path) -> None:
    """It is made with its permissions by the first run that changes something; whoever comes before has no log."""
    machine = Memory(system=replace(windows(), log=str(tmp_path / "hsm-agent" / "log")))
    assert isinstance(opened(machine, may_write=True, own=absent), logging.NullHandler)
    assert list(tmp_path.iterdir()) == []


def test_a_machines_own_log_is_taken_first() -> None:
    own = EventLog(lambda *_: None)
    assert opened(Memory(), may_write=True, own=lambda **_: own) is own


@pytest.mark.parametrize(
    ("level", "want"),
    [
        (logging.DEBUG, (INFORMATION, 1)),
        (logging.INFO, (INFORMATION, 1)),
        (logging.WARNING, (WARNING, 2)),
        (logging.ERROR, (ERROR, 3)),
        (logging.CRITICAL, (ERROR, 3)),
    ],
)
def test_a_record_becomes_an_event_of_its_kind(level: int, want: tuple[int, int]) -> None:
    written: list[tuple[int, int, str]] = []
    EventLog(lambda *event: written.append(event)).handle(
        logging.LogRecord("agent", level, "", 0, "%s failed", ("firewall",), None)
    )
    assert written == [(*want, "firewall failed")]


def test_an_event_is_bounded_and_shown_as_it_is() -> None:
    assert words("x" * LONGEST) == "x" * LONGEST
    assert words("x" * (LONGEST + 1)) == "x" * (LONGEST - 3) + "..."
    assert words("[fe80::1%12] 100% %n\0") == "[fe80::1% 12] 100% %n "
    assert len(words("%1" * LONGEST)) == LONGEST


def test_an_event_that_is_not_taken_is_lost_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(1502, "The event log file is full.")

    EventLog(full).handle(logging.LogRecord("agent", logging.INFO, "", 0, "x", (), None))
    assert capsys.readouterr() == ("", "")
