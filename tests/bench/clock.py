"""Time commands where they run: a question as JSON on standard input, the figures on standard output.

It is sent to a host as text, so it needs nothing but the standard library of Python 3.9.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_TURN = 0.002


def start(argv: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, env={**os.environ, **env})


def timed(argv: list[str], env: dict[str, str]) -> tuple[float, float, int]:
    """Return wall seconds, processor seconds of the process and its children, and the exit status."""
    began = time.perf_counter()
    child = start(argv, env)
    _, status, used = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    return seconds, used.ru_utime + used.ru_stime, child.returncode


def once(argv: list[str], env: dict[str, str]) -> dict[str, Any]:
    """Run one command that is expected to take long, and return what it took and the end of what it said.

    `memory` is the largest process of all that it started, in kB.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={**os.environ, **env}
        )
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        said.seek(max(0, said.tell() - 2000))
        return {
            "seconds": seconds,
            "processor": used.ru_utime + used.ru_stime,
            "memory": used.ru_maxrss,
            "status": child.returncode,
            "said": said.read().decode(errors="replace"),
        }


def in_turns(commands: dict[str, list[str]], env: dict[str, str], rounds: int, warm: int) -> dict[str, Any]:
    """Run A B, B A, A B...; the first `warm` rounds are not counted."""
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in commands}
    for number in range(-warm, rounds):
        for name in list(commands) if number % 2 else reversed(list(commands)):
            once = timed(commands[name], env)
            if number >= 0 or once[2]:
                found[name].append(once)
    return found


def tree(pid: int) -> list[int]:
    """Return a process and everything below it."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(word) for word in (task / "children").read_text().split()]
    return found


def kilobytes(pid: int, file: str, field: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
    return 0


def memory(argv: list[str], env: dict[str, str]) -> dict[str, int]:
    """Return the peak in kB of the process itself, and of it with all it started, shared pages counted once."""
    child = start(argv, env)
    own = whole = 0
    while child.poll() is None:
        own = max(own, kilobytes(child.pid, "status", "VmHWM:"))
        whole = max(whole, sum(kilobytes(pid, "smaps_rollup", "Pss:") for pid in tree(child.pid)))
        time.sleep(_TURN)
    return {"own": own, "whole": whole, "status": child.returncode}


def main() -> None:
    asked = json.load(sys.stdin)
    answer: Any
    if asked["what"] == "memory":
        answer = [memory(asked["argv"], asked["env"]) for _ in range(asked["rounds"])]
    elif asked["what"] == "once":
        answer = once(asked["argv"], asked["env"])
    else:
        answer = in_turns(asked["commands"], asked["env"], asked["rounds"], asked["warm"])
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
