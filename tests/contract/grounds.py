"""The grounds on which every host is tried, and how a host is reached there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import pytest

from agent.core.errors import AgentError
from agent.hosts.local import local_host
from tests.fakes.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.core.host import Host


@dataclass(frozen=True)
class Ground:
    """A host, a folder on it, and the power to arrange what is there without asking the host."""

    host: Host
    folder: str
    memory: Memory | None = None

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def file(self, name: str, data: bytes = b"", mode: int = 0o644) -> str:
        path = self.path(name)
        if self.memory:
            self.memory.place(path, data, mode=mode)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)
            Path(path).chmod(mode)
        return path

    def directory(self, name: str) -> str:
        path = self.path(name)
        if self.memory:
            self.memory.place(path, kind="directory", mode=0o755)
        else:
            Path(path).mkdir(parents=True)
        return path

    def link(self, name: str, goal: str) -> str:
        path = self.path(name)
        if self.memory:
            self.memory.place(path, kind="link", mode=0o777, link=goal)
        else:
            Path(path).symlink_to(goal.replace("/", os.sep))
            if not os.path.lexists(path):
                pytest.skip("Wine says that it made a link, and makes none")
        return path

    def fifo(self, name: str) -> str:
        path = self.path(name)
        if self.memory:
            self.memory.place(path, kind="other")
        else:
            os.mkfifo(path)
        return path

    def program(self, name: str, text: str) -> str:
        return self.file(name, f"#!/bin/sh\n{text}\n".encode(), 0o755)


@contextmanager
def ground_of(kind: str) -> Iterator[Ground]:
    if kind == "memory":
        memory = Memory()
        memory.place("/there", kind="directory", mode=0o755)
        memory.place("/dev/zero", kind="other")
        yield Ground(memory, "/there", memory)
        return
    # not tmp_path: others than root must be able to enter
    with tempfile.TemporaryDirectory(prefix="host-of-tests-") as folder:
        Path(folder).chmod(0o755)
        yield Ground(local_host(), folder)


@contextmanager
def python(program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A child that has said `ready`."""
    argv = [sys.executable, "-c", program, *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


@contextmanager
def raises(code: str) -> Iterator[None]:
    with pytest.raises(AgentError) as caught:
        yield
    assert caught.value.code.name == code


def cause_of(act: Callable[[], object]) -> tuple[str, str]:
    """The code and what was seen of an error that must come."""
    with pytest.raises(AgentError) as caught:
        act()
    return caught.value.code.name, caught.value.saw


@contextmanager
def silent_server() -> Iterator[int]:
    """The kernel accepts, nobody answers."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield listener.getsockname()[1]
