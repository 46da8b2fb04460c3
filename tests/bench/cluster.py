"""`python -m tests.bench.cluster [ROUNDS]`: how long `hsm-agent cluster` takes for 28 HSMs and 300 instances, against moto.

moto runs in this process, so that its processor time is that of this process while the command runs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.bench.table import keep
from tests.fakes.aws import KEYS
from tests.fakes.aws_cluster import seed_aws_cluster
from tests.fakes.aws_server import AwsServer
from tests.fakes.moto_server import CLUSTER, REGION

if TYPE_CHECKING:
    from tests.fakes.aws_cluster import AwsCluster

ROUNDS = 7
HSMS, INSTANCES = 28, 300
# seconds (issue 12)
TARGET = 1.0


def seeded(server: AwsServer) -> AwsCluster:
    """Return a cluster as large as AWS makes one, and a VPC with a third of its instances in the group."""
    made = seed_aws_cluster(server.url, hsms=HSMS, begun=False)
    for number in range(INSTANCES):
        address = f"{made.prefix}.{20 + number // 100}.{number % 100 + 10}"
        made.add_instance(address, f"worker-{number}", attached=number % 3 == 0)
    return made


def timed(server: AwsServer, *argv: str) -> tuple[float, float, float]:
    """Return seconds by the clock, and of processor time: the command's, and moto's meanwhile."""
    environ = {**os.environ, **KEYS, "AWS_ENDPOINT_URL": server.url, "AWS_REGION": REGION}
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
        f"| {HSMS} HSMs, {INSTANCES} instances | median (best to worst) | processor time, the command's | moto's | target | held |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    held = True
    with AwsServer() as server:
        seeded(server)
        for more in (["--output", "json"], ["--html", "/dev/null"]):
            found = sorted(timed(server, "cluster", CLUSTER, *more) for _ in range(rounds))
            middle = statistics.median(each[0] for each in found)
            used, moto = (statistics.median(each[place] for each in found) for place in (1, 2))
            fits = middle <= TARGET
            held = held and fits
            lines.append(
                f"| `cluster ID {' '.join(more)}` | **{middle:.2f} s** ({found[0][0]:.2f} to {found[-1][0]:.2f}) "
                f"| {used:.2f} s | {moto:.2f} s | ≤ {TARGET:g} s | {'yes' if fits else '**no**'} |"
            )
    sys.stdout.write("\n".join(lines) + "\n")
    keep("\n".join(lines), "the cluster command")
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
