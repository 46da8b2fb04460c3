"""`python -m tests.bench.aws [ROUNDS]`: what naming the HSMs by their cluster costs a `configure` that changes nothing.

`python -m tests.bench.aws serve IP CERTIFICATE HSM-IP…` is AWS's stand-in, which runs at the operator's seat meanwhile.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.__main__ import Result, configure, host_of, milliseconds, on, turns, versions
from tests.bench.table import keep
from tests.fakes.aws import KEYS
from tests.fakes.moto_server import CLUSTER, REGION
from tests.system import images
from tests.system.lab import Lab
from tests.system.scene import agent, cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.scene import Scene

CHECKOUT = Path(__file__).parents[2]
ROUNDS = 40
PORT = 8081
IMAGES = ("ubuntu24.04", "amzn2023")
# of a run by the cluster's id above one by addresses (issue 12): seconds, and MB
MORE_SECONDS = 0.060
MORE_MEMORY = 8


def serve(ip: str, certificate: str, *addresses: str) -> None:
    """Be AWS until ended: a cluster with HSMs at these addresses, whose certificate lies in that file."""
    from tests.fakes import cluster_answers
    from tests.fakes.aws_cluster import seed_aws_cluster
    from tests.fakes.aws_server import AwsServer

    with AwsServer(socket.create_server((ip, PORT))) as server:
        made = seed_aws_cluster(
            server.url, hsms=0, begun=False, certificate=Path(certificate).read_text(encoding="utf-8")
        )
        hsms = [cluster_answers.hsm(number, EniIp=address) for number, address in enumerate(addresses)]
        made.cluster.description["Hsms"] = hsms
        threading.Event().wait()


def results(scene: Scene, image: str, rounds: int) -> Iterator[Result]:
    environ = {**KEYS, "AWS_ENDPOINT_URL": f"http://{scene.lab.operator.ip}:{PORT}"}
    with host_of(scene, image) as host:
        by_address = configure(scene, image)
        words = iter(by_address)
        rest = [word for word in words if word != "--hsm-ip" or not next(words)]
        by_cluster = [*rest, "--cluster-id", CLUSTER, "--region", REGION]
        assert agent(host, "configure", *scene.options(image)).exit_status == 0
        asked = {"agent": by_cluster, "addresses": by_address}
        found = turns(host, asked, rounds, env=environ)
        assert {each[2] for name in found for each in found[name]} == {0}
        more = sorted(mine[1] - other[1] for mine, other in zip(found["agent"], found["addresses"]))
        middle = statistics.median(more)
        spread = f"{more[len(more) // 4] * 1000:.0f} to {more[-1 - len(more) // 4] * 1000:.0f} ms"
        yield Result(
            "processor time of `--cluster-id` above `--hsm-ip`",
            f"{image}, cli",
            milliseconds(statistics.median(each[1] for each in found["agent"])),
            milliseconds(statistics.median(each[1] for each in found["addresses"])),
            f"**{middle * 1000:.0f} ms** ({spread})",
            f"≤ {MORE_SECONDS * 1000:.0f} ms",
            middle <= MORE_SECONDS,
        )
        peaks = [
            max(each["own"] for each in on(host, "memory", argv=argv, rounds=5, env=environ)) * 1024 / 1e6
            for argv in asked.values()
        ]
        yield Result(
            "memory at its peak, the agent's process, above `--hsm-ip`",
            f"{image}, cli",
            f"{peaks[0]:.0f} MB",
            f"{peaks[1]:.0f} MB",
            f"**{peaks[0] - peaks[1]:.1f} MB**",
            f"≤ {MORE_MEMORY} MB",
            peaks[0] - peaks[1] <= MORE_MEMORY,
        )


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["serve"]:
        serve(*arguments[1:])
        return 0
    reason = images.reason_not_to_run()
    if reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    rounds = int(arguments[0]) if arguments else ROUNDS
    images.install_tools()
    images.ensure()
    with Lab() as lab, tempfile.TemporaryDirectory() as folder, cluster(lab, Path(folder)) as scene:
        certificate = scene.made.hsm.cert
        server = [sys.executable, "-m", "tests.bench.aws", "serve", lab.operator.ip, str(certificate)]
        lab.operator.start([*server, *scene.addresses], [PORT], {"PYTHONPATH": str(CHECKOUT)}, seconds=60)
        for image in IMAGES:
            scene.package(image, "cloudhsm-cli")
        lines = [
            f"{os.cpu_count()} processors; {versions(scene)}; `python -m tests.bench.aws {rounds}`",
            "",
            "| what | where | ours | by addresses | more (middle half of the pairs) | target | held |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        found = [each for image in IMAGES for each in results(scene, image, rounds)]
    lines += [each.row() for each in found]
    sys.stdout.write("\n".join(lines) + "\n")
    keep("\n".join(lines), "the cluster")
    return 0 if all(each.held for each in found) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
