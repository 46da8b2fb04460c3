"""A run ends in time, whatever its steps ask for."""

from __future__ import annotations

from typing import Callable

import pytest

from agent.core.errors import AgentError, DownloadTimeoutError
from agent.core.host import CommandResult, Host
from agent.hosts.deadline import DeadlineHost
from tests.fakes.memory import Memory

LATE = "timed-out"


def machine() -> Memory:
    def slow(_argv: tuple[str, ...], memory: Memory) -> CommandResult:
        memory.clock += 40
        return CommandResult(0, "done", "")

    def dripping(memory: Memory) -> AgentError:
        memory.clock += 30
        return DownloadTimeoutError("download-failed", "no", saw="3 bytes in 30 s")

    def broken(memory: Memory) -> AgentError:
        memory.clock += 30
        return refused

    refused = AgentError("download-failed", "no", saw="HTTP 500; attempt 2 of 5")
    memory = Memory(
        {"/file": b"x"},
        programs={"ldd": slow, "apt-get": slow},
        ports={
            ("10.0.0.1", 2223): "hsm-timed-out",
            ("10.0.0.2", 2223): "hsm-no-tls",
            ("10.0.0.3", 2223): None,
        },
        urls={
            "https://mirror/x": b"bytes",
            "https://mirror/y": refused,
            "https://mirror/slow": dripping,
            "https://mirror/broken": broken,
        },
    )
    memory.clock = 1000
    return memory


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(AgentError) as caught:
        act()
    return caught.value.code.name


def fetch(host: Host, url: str, timeout: float) -> str:
    return host.download(url, "/x", sha256=None, limit=100, timeout=timeout)


def test_before_the_limit_everything_passes() -> None:
    memory = machine()
    host: Host = DeadlineHost(memory, 100)
    assert host.read("/file") == b"x"
    assert host.read("/file", offset=1) == b""
    host.write("/new", b"y", mode=0o600, owner=(5, 6))
    assert host.stat("/new") == memory.stat("/new")
    host.chmod("/new", 0o640)
    host.symlink("/link", "new")
    assert (host.readlink("/link"), host.stat("/new")) == ("new", memory.stat("/new"))
    host.remove("/link")
    assert host.list_dir("/") == ("file", "new")
    assert host.query(("ldd", "/a"), timeout=50).ok
    assert host.run(("apt-get", "x"), timeout=50).ok
    assert host.connect("10.0.0.3", 2223, timeout=5).cause is None
    assert host.http_get("https://mirror/x", limit=9, timeout=5) == b"bytes"
    assert fetch(host, "https://mirror/x", 5) == fetch(memory, "https://mirror/x", 5)
    with host.lock("/lock", "configure"):
        assert memory.held == {"/lock": "configure"}
    host.remove("/new")
    host.sleep(2)
    assert (host.lock_holder("/lock"), host.processes_mapping("/opt")) == (None, ())
    assert host.disk_space("/") == memory.disk_space("/")
    assert (host.name, host.now(), host.monotonic()) == (memory.name, memory.now(), 1082)


def test_after_the_limit_no_verb_passes() -> None:
    memory = machine()
    host: Host = DeadlineHost(memory, 100)
    memory.clock += 100
    verbs: list[Callable[[], object]] = [
        lambda: host.read("/file"),
        lambda: host.stat("/file"),
        lambda: host.readlink("/file"),
        lambda: host.symlink("/link", "file"),
        lambda: host.chmod("/file", 0o644),
        lambda: host.list_dir("/"),
        lambda: host.query(("ldd", "/a"), timeout=1),
        lambda: host.connect("10.0.0.3", 2223, timeout=1),
        lambda: host.lock_holder("/lock"),
        lambda: host.processes_mapping("/opt"),
        lambda: host.http_get("https://mirror/x", limit=9, timeout=1),
        lambda: host.disk_space("/"),
        lambda: host.sleep(1),
        lambda: host.write("/new", b"", mode=0o600),
        lambda: host.remove("/file"),
        lambda: host.run(("apt-get", "x"), timeout=1),
        lambda: host.lock("/lock", "configure"),
        lambda: fetch(host, "https://mirror/x", 1),
    ]
    assert [code_of(verb) for verb in verbs] == [LATE] * len(verbs)
    assert memory.touches == []
    assert (host.name, host.now(), host.monotonic(), host.is_root()) == ("memory", memory.now(), 1100, True)


def test_a_program_gets_no_more_than_what_is_left() -> None:
    memory = machine()
    host = DeadlineHost(memory, 30)
    assert code_of(lambda: host.run(("apt-get", "x"), timeout=600)) == LATE
    assert memory.monotonic() == 1030


def test_a_program_that_is_too_slow_by_its_own_measure_is_not_our_fault() -> None:
    host = DeadlineHost(machine(), 100)
    assert host.query(("ldd", "/a"), timeout=20).timed_out
    assert host.run(("apt-get", "x"), timeout=20).timed_out


def test_an_hsm_is_not_blamed_for_our_limit() -> None:
    for address in ("10.0.0.1", "10.0.0.2"):
        host = DeadlineHost(machine(), 3)
        assert code_of(lambda host=host, address=address: host.connect(address, 2223, timeout=5)) == LATE  # type: ignore[misc]
    assert DeadlineHost(machine(), 30).connect("10.0.0.1", 2223, timeout=5).cause == "hsm-timed-out"


def test_a_pause_ends_with_the_limit() -> None:
    memory = machine()
    DeadlineHost(memory, 30).sleep(3600)
    assert memory.monotonic() == 1030


def test_a_download_is_blamed_only_for_its_own_time() -> None:
    host = DeadlineHost(machine(), 30)
    for timeout in (5, 600):
        assert code_of(lambda timeout=timeout: fetch(host, "https://mirror/y", timeout)) == "download-failed"  # type: ignore[misc]
    assert (
        code_of(lambda: fetch(DeadlineHost(machine(), 30), "https://mirror/broken", 600)) == "download-failed"
    )
    assert code_of(lambda: fetch(DeadlineHost(machine(), 30), "https://mirror/slow", 5)) == "download-failed"
    assert code_of(lambda: host.http_get("https://mirror/slow", limit=9, timeout=600)) == LATE
