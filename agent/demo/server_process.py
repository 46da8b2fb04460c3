"""Start one of the demo's servers as a child process, wait until it listens, and end it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

READY_SECONDS = 30.0
END_SECONDS = 5.0
SOURCE = Path(__file__).resolve().parent.parent.parent


class NotReadyError(Exception):
    """The server ended, or did not report in time that it listens."""


@dataclass(frozen=True)
class ServerProcess:
    """A server that listens. `ports` are its ports, in the order of the request."""

    process: subprocess.Popen[bytes]
    address: str
    ports: tuple[int, ...]


@contextlib.contextmanager
def running(
    module: str, arguments: Sequence[str], *, prefix: Sequence[str] = (), interpreter: str = sys.executable
) -> Iterator[ServerProcess]:
    """Run `python -m MODULE ARGUMENTS` while the block lasts.

    `prefix` is put before it, such as `nsenter --net=/run/netns/lab-hsm10`. The server reads its
    standard input to the end and then stops, so it does not outlive a parent that is killed.
    """
    argv = [*prefix, interpreter, "-m", module, *arguments, "--until-eof"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            ready = _ready(process, argv)
            yield ServerProcess(process, str(ready["address"]), tuple(ready["ports"]))
        finally:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _ready(process: subprocess.Popen[bytes], argv: Sequence[str]) -> Mapping[str, list[int]]:
    out = process.stdout
    if out is None or not select.select([out], [], [], READY_SECONDS)[0]:
        raise NotReadyError(f"not ready within {READY_SECONDS:g} s: {' '.join(argv)}")
    line = out.readline()
    if not line:
        raise NotReadyError(f"ended with status {process.wait()}: {' '.join(argv)}")
    ready: Mapping[str, list[int]] = json.loads(line)
    return ready


def say_ready(address: str, ports: Sequence[int]) -> None:
    """Print that the server listens; `running` waits for this one line."""
    sys.stdout.write(json.dumps({"address": address, "ports": list(ports)}) + "\n")
    sys.stdout.flush()


def ending(*, until_eof: bool) -> Iterator[object]:
    """Yield files; one becomes readable when this process must stop: a signal, or the end of its input."""
    wake, write = socket.socketpair()
    write.setblocking(False)
    signal.set_wakeup_fd(write.detach())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    yield wake
    if until_eof:
        yield sys.stdin.buffer
