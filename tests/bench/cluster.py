"""`python -m tests.bench.cluster [ROUNDS]`: how long `hsm-agent cluster` takes for 28 HSMs and 300 instances.

It asks moto, and then a server that repeats moto's answers from memory, which takes next to nothing for them. Both run in
this process, so that their processor time is that of this process while the command runs.
"""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from tests.bench.table import keep
from tests.fakes.aws import KEYS
from tests.fakes.aws_cluster import seed_aws_cluster
from tests.fakes.aws_server import AwsServer
from tests.fakes.moto_server import CLUSTER, REGION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fakes.aws_cluster import AwsCluster

ROUNDS = 7
HSMS, INSTANCES = 28, 300
# seconds (issue 12)
TARGET = 1.0


class RepeatingServer(AwsServer):
    """moto, that repeats its answer to the same question once `repeats` is true. Only the signature differs then."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats = False
        self._answers: dict[tuple[str, bytes], tuple[str, list[tuple[str, str]], bytes]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        question = (environ.get("HTTP_X_AMZ_TARGET", ""), body)
        if not self.repeats or question not in self._answers:
            said: list[tuple[str, list[tuple[str, str]]]] = []
            data = b"".join(super().__call__(environ, lambda *start: said.append(start[:2])))
            self._answers[question] = (*said[0], data)
        status, headers, data = self._answers[question]
        start_response(status, headers)
        return [data]


def seeded(server: AwsServer) -> AwsCluster:
    """Return a cluster as large as AWS makes one, and a VPC with a third of its instances in the group."""
    made = seed_aws_cluster(server.url, hsms=HSMS, begun=False)
    for number in range(INSTANCES):
        address = f"{made.prefix}.{20 + number // 100}.{number % 100 + 10}"
        made.add_instance(address, f"worker-{number}", attached=number % 3 == 0)
    return made


def timed(server: AwsServer, bytecode: str, *argv: str) -> tuple[float, float, float]:
    """Return seconds by the clock, and of processor time: the command's, and the server's meanwhile.

    The command's bytecode lies in `bytecode`, as that of an installed agent lies beside its modules.
    """
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ.update(
        {**KEYS, "AWS_ENDPOINT_URL": server.url, "AWS_REGION": REGION, "PYTHONPYCACHEPREFIX": bytecode}
    )
    began, before = time.monotonic(), os.times()
    done = subprocess.run(
        [sys.executable, "-m", "agent", *argv], env=environ, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    moto = after.user + after.system - before.user - before.system
    return time.monotonic() - began, used, moto


def main(arguments: list[str]) -> int:
    rounds = int(arguments[0]) if arguments else ROUNDS
    lines = [
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.0f}; `python -m tests.bench.cluster {rounds}`",
        "",
        f"| {HSMS} HSMs, {INSTANCES} instances | asks | median (best to worst) | processor time, the command's | the server's | target | held |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    held = True
    with RepeatingServer() as server, tempfile.TemporaryDirectory() as bytecode:
        seeded(server)
        for asked in ("moto", "its answers, repeated"):
            server.repeats = asked != "moto"
            for more in (["--output", "json"], ["--html", "/dev/null"]):
                timed(
                    server, bytecode, "cluster", CLUSTER, *more
                )  # writes the bytecode, and fills the memory
                found = sorted(timed(server, bytecode, "cluster", CLUSTER, *more) for _ in range(rounds))
                middle = statistics.median(each[0] for each in found)
                used, serving = (statistics.median(each[place] for each in found) for place in (1, 2))
                fits = middle <= TARGET
                held = held and fits
                lines.append(
                    f"| `cluster ID {' '.join(more)}` | {asked} "
                    f"| **{middle:.2f} s** ({found[0][0]:.2f} to {found[-1][0]:.2f}) "
                    f"| {used:.2f} s | {serving:.2f} s | ≤ {TARGET:g} s | {'yes' if fits else '**no**'} |"
                )
    sys.stdout.write("\n".join(lines) + "\n")
    keep("\n".join(lines), "the cluster command")
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
