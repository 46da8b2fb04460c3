"""What a roll-out shows while it goes on: lines for logs, a display for terminals, at every size, and never a flood."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.fleet_model import HostResult, HostState
from agent.render.fleet.choose import choose
from agent.render.fleet.counters import RolloutCounters
from agent.render.fleet.humanize import duration
from agent.render.fleet.live import LiveDisplay, frame
from agent.render.fleet.log_lines import LogLines
from agent.render.fleet.terminal_area import TerminalArea, cells, fitting

if TYPE_CHECKING:
    from agent.core.fleet_model import RolloutListener

ROOT = Path(__file__).parents[4]
PLAIN = ROOT / "tests" / "golden" / "fleet" / "plain.log"


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def end(
    name: str,
    state: HostState = HostState.OK,
    code: str | None = None,
    *,
    changed: bool = True,
    wave: int = 1,
) -> HostResult:
    return HostResult(name, "10.0.0.9", 22, wave, state, changed=changed, code=code, seconds=3.14)


def play(watcher: RolloutListener, clock: Clock, sizes: tuple[int, ...] = (1, 10, 120)) -> None:
    """Three waves: a canary, a few with two failures, many with a cause that 30 hosts share and a stop."""
    watcher.run_started("fleet rollout", sizes)
    names = iter(f"web-{number}" for number in range(1, sum(sizes) + 1))
    for number, size in enumerate(sizes, 1):
        watcher.wave_started(number, size)
        for place in range(min(size, 60)):  # of the last wave the rest is never begun
            name = next(names)
            watcher.host_started(name)
            clock.now += 2
            watcher.host_step(name, "package:cli")
            if number == 2 and place in (3, 4):
                bad = (
                    (HostState.FAILED, "hsm-timed-out")
                    if place == 3
                    else (HostState.UNREACHABLE, "ssh-refused")
                )
                watcher.host_finished(end(name, *bad, wave=number))
            elif number == 3 and 10 <= place < 40:
                watcher.host_finished(end(name, HostState.FAILED, "hsm-timed-out", wave=number))
            else:
                watcher.host_finished(end(name, changed=place % 2 == 0, wave=number))
            if number == 3 and place == 58:
                watcher.host_started("web-70")
                watcher.run_stopping("32 of 131 hosts failed, and --max-failed is 30")
        if number == 1:
            watcher.soak_started(300)
            clock.now += 300
    watcher.host_finished(end("web-70", wave=3))
    watcher.host_finished(HostResult("web-132", "10.0.0.9", 22, 0, HostState.NOT_REACHED))


def test_a_log_has_what_its_reader_looks_for(pytestconfig: pytest.Config) -> None:
    stream, clock = io.StringIO(), Clock()
    plain = LogLines(stream, clock)
    play(plain, clock)
    plain.close()
    if pytestconfig.getoption("--update-golden"):
        PLAIN.write_text(stream.getvalue(), encoding="utf-8")
    assert stream.getvalue() == PLAIN.read_text(encoding="utf-8")


def test_a_thousand_hosts_are_no_flood() -> None:
    stream, clock = io.StringIO(), Clock()
    plain = LogLines(stream, clock)
    plain.run_started("fleet verify", (1000,))
    plain.wave_started(1, 1000)
    for number in range(1000):
        plain.host_started(f"web-{number}")
        clock.now += 0.2
        plain.host_finished(
            end(f"web-{number}", HostState.FAILED, "hsm-timed-out") if number % 2 else end(f"web-{number}")
        )
    lines = stream.getvalue().splitlines()
    assert len(lines) < 40
    assert next(line for line in lines if "about" in line) == (
        "hsm-agent: wave 1 of 1: 151 of 1,000 done, 0 running, 75 not well, about 2 min 50 s left"
    )  # fmt: skip
    assert lines[-1] == "hsm-agent: wave 1 of 1 done: 500 ok, 500 failed; in 3 min 20 s"


def test_hosts_that_are_looked_at_again_after_the_soak_count_once_and_are_told_when_they_did_not_last() -> (
    None
):
    stream, clock = io.StringIO(), Clock()
    plain = LogLines(stream, clock)
    plain.run_started("rollout", (2, 5))
    plain.wave_started(1, 2)
    for name in ("web-1", "web-2"):
        plain.host_finished(end(name))
    plain.soak_started(60)
    clock.now += 60
    plain.host_started("web-2")
    assert ("  checking its hosts again", "changed") in frame(plain, 80, 24)
    for name in ("web-1", "web-2"):
        plain.host_finished(end(name, HostState.FAILED, "hsm-refused") if name == "web-2" else end(name))
    plain.host_finished(end("web-2", HostState.FAILED, "hsm-timed-out"))
    assert stream.getvalue().splitlines()[4:] == [
        "hsm-agent: wave 1 of 2 done: 2 ok; in 0.0 s",
        "hsm-agent: waiting 1 min, then checking the wave's hosts again before the next wave",
        "hsm-agent: web-2 failed (hsm-refused) 3.1 s",
        "hsm-agent: web-2 failed (hsm-timed-out) 3.1 s",
    ]
    wave = plain.waves[0]
    assert (wave.done, wave.bad, dict(wave.causes)) == (2, 1, {"hsm-timed-out": 1})


def at_work(hosts: int = 400, done: int = 100, bad: int = 7) -> RolloutCounters:
    clock = Clock()
    tally = RolloutCounters(clock)
    tally.run_started("fleet rollout", (1, hosts))
    tally.wave_started(1, 1)
    tally.host_started("canary")
    tally.host_finished(end("canary"))
    tally.wave_started(2, hosts)
    for number in range(done):
        tally.host_started(f"web-{number}")
        clock.now += 0.25
        tally.host_finished(
            end(f"web-{number}", HostState.FAILED, "hsm-timed-out") if number < bad else end(f"web-{number}")
        )
    for number in range(min(32, hosts - done)):
        tally.host_started(f"edge-{number:04}.eu-central-1.example")
        tally.host_step(f"edge-{number:04}.eu-central-1.example", f"reach:10.0.1.{number}:2223")
        clock.now += 0.25
    return tally


def test_the_display_says_how_far_how_fast_what_failed_and_whom_it_waits_for() -> None:
    assert [text for text, _ in frame(at_work(), 80, 24)] == [
        "fleet rollout: 401 hosts in 2 waves, 33 s",
        "  wave 1 of 2: 1 ok",
        "  wave 2 of 2  [#######.......................] 100 of 400",
        "  32 running, 93 ok, 7 not well",
        "  3.0 hosts/s, about 1 min 39 s left",
        "  7 hsm-timed-out",
        "  slowest:",
        "    edge-0000.eu-central-1.example  8.0 s  reach:10.0.1.0:2223",
        "    edge-0001.eu-central-1.example  7.8 s  reach:10.0.1.1:2223",
        "    edge-0002.eu-central-1.example  7.5 s  reach:10.0.1.2:2223",
        "    edge-0003.eu-central-1.example  7.2 s  reach:10.0.1.3:2223",
        "    edge-0004.eu-central-1.example  7.0 s  reach:10.0.1.4:2223",
    ]


@given(
    columns=st.integers(1, 250), rows=st.integers(1, 80), hosts=st.integers(1, 60), done=st.integers(0, 60)
)
def test_the_display_fits_every_terminal(columns: int, rows: int, hosts: int, done: int) -> None:
    shown = drawn(frame(at_work(hosts, min(done, hosts)), columns, rows), columns, rows)
    assert len(shown) <= max(rows - 1, 1)
    assert all(cells(line) <= columns - 1 for line in shown)


def drawn(lines: object, columns: int, rows: int) -> list[str]:
    class Sized(TerminalArea):
        def size(self) -> os.terminal_size:
            return os.terminal_size((columns, rows))

    stream = io.StringIO()
    Sized(stream, colour=False).draw(lines)  # type: ignore[arg-type]
    return stream.getvalue().removeprefix("\r").removesuffix("\033[J").replace("\033[K", "").split("\r\n")


def test_what_matters_is_legible_on_40_columns() -> None:
    tally = at_work()
    tally.run_stopping("40 of 401 hosts failed, and --max-failed is 10%")
    assert drawn(frame(tally, 40, 20), 40, 20)[:8] == [
        "fleet rollout: 401 hosts, 33 s",
        "  wave 1 of 2: 1 ok",
        "  wave 2 of 2  [##........] 100 of 400",
        "  32 running, 93 ok, 7 not well",
        "  3.0 hosts/s",
        "  7 hsm-timed-out",
        "  stopping, 32 running: 40 of 401 hosts",
        "  failed, and --max-failed is 10%",
    ]


def test_a_name_may_hold_anything() -> None:
    tally = RolloutCounters(Clock())
    tally.run_started("fleet plan", (1,))
    tally.wave_started(1, 1)
    tally.host_started("web\x1b[2J\n漢字漢字漢字漢字漢字漢字")
    tally.host_step("nobody", "a step of a host that is not at work")
    assert "漢" in frame(tally, 80, 24)[-1][0]
    assert all(text.isprintable() for text, _ in frame(tally, 80, 24))


@given(text=st.text(), columns=st.integers(2, 40))
def test_what_is_cut_fits(text: str, columns: int) -> None:
    assert cells(fitting(text, columns)) <= columns
    assert (fitting(text, columns) == text) == (cells(text) <= columns)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0.0 s"),
        (3.14, "3.1 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (252, "4 min 12 s"),
        (3599.7, "1 h"),
        (3780, "1 h 3 min"),
        (7e6, "1,944 h 27 min"),
    ],
)
def test_a_time_is_said_in_at_most_two_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_stream_that_is_gone_ends_no_roll_out() -> None:
    for watcher in (LogLines(Gone()), LiveDisplay(Gone())):
        play(watcher, Clock())
        watcher.close()


def test_what_fits_the_stream_is_chosen() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        kinds = [
            type(choose(terminal, quiet=quiet, dumb=dumb))
            for quiet, dumb in ((True, False), (False, True), (False, False))
        ]
    os.close(leader)
    assert kinds == [RolloutCounters, LogLines, LiveDisplay]
    assert type(choose(io.StringIO(), quiet=False)) is LogLines
    assert type(choose(None, quiet=False)) is RolloutCounters


def test_a_run_that_ends_before_it_begins_leaves_no_thread_behind() -> None:
    LiveDisplay(io.StringIO()).close()
    live = LiveDisplay(io.StringIO())
    live.run_started("fleet plan", (1,))
    live.close()
    assert [thread for thread in threading.enumerate() if thread.name == "display"] == []


def test_rows_that_became_more_when_the_terminal_got_narrower_are_erased_too() -> None:
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        canvas = TerminalArea(terminal, colour=False)
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 80, 0, 0))
        canvas.draw([("x" * 70, ""), ("y" * 10, "")])
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 30, 0, 0))
        canvas.draw([("z" * 70, "")])
        shown = b""
        while shown.count(b"\033[J") < 3:
            shown += os.read(leader, 4096)
    os.close(leader)
    # 70 columns are three rows of 30, and the second line is one more
    assert shown.split(b"\033[J", 1)[1] == b"\r\033[3A\033[J" + b"z" * 27 + b"..\033[K\033[J"
