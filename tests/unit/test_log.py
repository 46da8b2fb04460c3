"""Where the log goes, and a record as an event of Windows. The real registry and Event Log are in tests/wine, as far as Wine has them."""

from __future__ import annotations

import logging
import logging.handlers
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.core.system import windows
from agent.hosts.windows.events import ERROR, INFORMATION, LONGEST, WARNING, EventLog, words
from agent.log import open_log
from tests.doubles.memory import Memory

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
