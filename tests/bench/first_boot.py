"""`python -m tests.bench.first_boot [ROUNDS]`: user-data and the timer's look, measured in the lab and kept in README.md."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.__main__ import HERE, IMAGES, PADDING, Figures, Result, compared, on, turns, versions
from tests.bench.table import keep
from tests.building import build
from tests.system import images
from tests.system.agent_install import CHECKOUT
from tests.system.desk import Desk
from tests.system.first_boot import user_data
from tests.system.installed import install
from tests.system.lab import Lab
from tests.system.scene import ROWS, Scene, agent, cluster, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.host import LabHost

ROUNDS = 5
LIMIT = 4_000_000
DESK_CA = "/etc/hsm-agent/desk-ca.crt"


def sizes(built: Path) -> Iterator[Result]:
    for pattern in ("*.deb", "*.rpm"):
        size = next(built.glob(pattern)).stat().st_size
        yield Result(f"size, {pattern[1:]}", "", f"{size / 1e6:.2f} MB", "", "", "≤ 4 MB", size <= LIMIT)


def first_boot(scene: Scene, desk: Desk, built: Path, image: str, rounds: int) -> Iterator[Result]:
    """From the first line of user-data to the delivered report, each run on a fresh host with systemd and a disk."""
    package = next(built.glob("*.deb" if images.image(image).family == "deb" else "*.rpm"))
    told = ["--report-to", desk.url, "--report-ca", DESK_CA]
    script = user_data(scene, image, "shell", package, told)
    options = next(line for line in script.splitlines() if line.startswith(b'{"'))
    file = f"cloudhsm-cli{ROWS[image][2].format(version='5.18.0-1')}"
    sha256 = hashlib.sha256(package.read_bytes()).hexdigest()
    client = [f"{scene.url}/{ROWS[image][1]}/{file}", scene.sums[file]]
    plain = ["/root/plain.sh", *client, "/root/customerCA.crt", desk.url, DESK_CA, *scene.addresses]
    commands = {
        "agent": ["sh", "/root/user-data"],
        "plain.sh --agent": [
            "/root/plain.sh",
            "--agent",
            f"{scene.url}/{package.name}",
            sha256,
            "/root/options.json",
        ],
        "plain.sh": plain,
    }
    found: Figures = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name in commands if number % 2 else reversed(commands):
            host = scene.lab.host(f"{image}+systemd", on_disk=True)
            try:
                prepare(host, scene)
                host.put(DESK_CA, desk.ca.read_bytes())
                host.put("/root/user-data", script)
                host.put("/root/options.json", options)
                host.put("/root/plain.sh", (HERE / "plain.sh").read_bytes(), 0o755)
                taken = len(desk.taken())
                once = turns(host, {name: commands[name]}, 1, warm=0)[name]
                assert len(desk.taken()) > taken, name
                found[name] += once if number else []
            finally:
                scene.lab.end(host)
    for name in ("plain.sh --agent", "plain.sh"):
        both = {each: found[each] for each in ("agent", name)}
        yield compared(f"user-data / `{name}`", image, both, 1.3)


def look(scene: Scene, built: Path, image: str, rounds: int) -> Iterator[Result]:
    """The look of the timer, by the program that its unit starts."""
    host: LabHost = scene.lab.host(f"{image}+systemd")
    try:
        prepare(host, scene)
        install(host, built)
        assert agent(host, "configure", *scene.options(image)).exit_status == 0
        argv = ["/usr/bin/hsm-agent", "verify", "--quiet"]
        seconds = max(each[1] for each in turns(host, {"agent": argv}, rounds)["agent"])
        where = f"{image}, cli"
        yield Result(
            "`verify`, processor time with all it started",
            where,
            f"{seconds:.2f} s",
            "",
            "",
            "≤ 1 s",
            seconds <= 1,
        )
        peaks = on(host, "memory", argv=argv, rounds=rounds)
        for part, what in (("own", "the agent's process"), ("whole", "with all it started")):
            peak = max(each[part] for each in peaks) * 1024 / 1e6
            yield Result(f"`verify`, memory, {what}", where, f"{peak:.0f} MB", "", "", "≤ 50 MB", peak <= 50)
    finally:
        scene.lab.end(host)


def main(arguments: list[str]) -> int:
    reason = images.reason_not_to_run()
    if reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    rounds = int(arguments[0]) if arguments else ROUNDS
    images.install_tools()
    with Lab() as lab, tempfile.TemporaryDirectory() as name, cluster(lab, Path(name)) as scene:
        built = build(CHECKOUT, Path(name, "dist"))
        Path(name, "desk").mkdir()
        desk = Desk(lab, Path(name, "desk"))
        desk.down(yes=False)
        for image in IMAGES:
            scene.package(image, "cloudhsm-cli", padding_mb=PADDING)
        lines = [
            f"{os.cpu_count()} processors; {versions(scene)}; `python -m tests.bench.first_boot {rounds}`",
            "",
            "| what | where | ours | theirs | ratio of medians (middle half of the pairs) | target | held |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(each.row() for each in sizes(built)),
        ]
        for image in IMAGES:
            lines += [each.row() for each in first_boot(scene, desk, built, image, rounds)]
            lines += [each.row() for each in look(scene, built, image, rounds)]
    sys.stdout.write("\n".join(lines) + "\n")
    keep("\n".join(lines), "first boot")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
