"""`python -m tests.bench.fleet [HOSTS] [ROUNDS]`: all sides in turns, the controller alone, and one host in a black hole.

Each turn has fresh hosts, and each side both passes on them.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from agent.fleet import journal
from agent.fleet.launch import COMMAND, bootstrap_program
from agent.remote.protocol import RECORD
from tests.bench.clock import tree as descendants
from tests.bench.fleet.sides import PARALLEL, SIDES, Command, Ground, Side, ours, peers
from tests.bench.table import keep
from tests.fakes import crowd
from tests.system import images
from tests.system.agent_install import CHECKOUT
from tests.system.fleet import Operator
from tests.system.kernel import end, until
from tests.system.lab import Lab
from tests.system.scene import CA, ROWS, Scene, cluster, servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from tests.system.host import LabHost

CLOCK = Path(__file__).parents[1] / "clock.py"
HOSTS, ROUNDS = 100, 2
# so few that two processors are not the bottleneck
FEW = 10
IMAGE = "ubuntu22.04"
PADDING = 12  # MB
# a call ends with this program, however that ends
BOUND = ("setpriv", "--pdeathsig", "KILL", "--")
# what a call may take, in seconds
LIMIT = 900
CROWD_PORT, LATENCY = 2222, 0.02
CROWD_KEY = "ssh_host_ed25519_key"
DEADLINE = 10


@dataclass(frozen=True)
class Took:
    """One pass: wall seconds, the controller's processor seconds and peak in MB, the hosts' processor seconds each."""

    seconds: float
    processor: float
    memory: float
    host: float


@dataclass
class Figures:
    """Of one side."""

    first: list[Took] = field(default_factory=list)
    second: list[Took] = field(default_factory=list)

    def median(self, which: str, what: str = "seconds") -> float:
        return float(statistics.median(getattr(each, what) for each in getattr(self, which)))


def run(
    scene: Scene,
    command: Command,
    hosts: Sequence[LabHost] = (),
    after: Callable[[], None] = lambda: None,
    status: int = 0,
) -> Took:
    """Run a command at the operator's seat, timed there by `clock.py`; `after` is not counted."""
    before = used(hosts)
    question = json.dumps({"what": "once", "argv": [*BOUND, *command.argv], "env": dict(command.env)})
    argv = [*BOUND, sys.executable, "-c", CLOCK.read_text()]
    done = scene.lab.operator.run(argv, question.encode(), LIMIT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    after()
    assert told["status"] == status, told
    spent = (used(hosts) - before) / max(1, len(hosts))
    return Took(told["seconds"], told["processor"], told["memory"] * 1024 / 1e6, spent)


def used(hosts: Sequence[LabHost]) -> float:
    """Return the processor seconds of all that was started on these hosts, once all of it has ended."""
    return sum(_ticks(host) for host in hosts) / os.sysconf("SC_CLK_TCK")


def _ticks(host: LabHost) -> int:
    def at_rest() -> list[int]:
        """Pid 1, which takes in what a session leaves behind, and the sshd below it, without any session."""
        found = descendants(host.pid)
        return found if len(found) == 2 else []

    until(lambda: bool(at_rest()), f"{host.name} to come to rest")
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in at_rest())
    return sum(int(word) for words in stats for word in words[11:15])  # their own and their children's


@contextlib.contextmanager
def fresh(scene: Scene, count: int, tree: Path, package: Path, kit: Path) -> Iterator[Ground]:
    """Give fresh hosts, and an operator with an empty home who knows them."""
    with tempfile.TemporaryDirectory() as home, ThreadPoolExecutor(8) as pool:
        hosts = list(pool.map(lambda _: scene.lab.host(IMAGE), range(count)))
        try:
            operator = Operator(scene, Path(home) / "home", tree)
            operator.meet(*hosts)
            yield Ground(operator, hosts, package, kit)
        finally:
            list(pool.map(scene.lab.end, hosts))


def proven(host: LabHost, scene: Scene) -> bool:
    """Judge a host by what is there, for all sides alike."""
    asked = host.run(["dpkg-query", "-W", "-f=${Version} ${db:Status-Abbrev}", "cloudhsm-cli"])
    return (
        asked.stdout.split() == ["5.18.0-1", "ii"]
        and servers(host) == list(scene.addresses)
        and host.get(CA) == scene.made.ca.cert.read_bytes()
    )


def turn(side: Side, ground: Ground, found: Figures) -> None:
    scene, command = ground.operator.scene, side.command(ground)

    def once() -> Took:
        return run(scene, command, ground.hosts, lambda: side.after(ground))

    found.first.append(once())
    assert all(proven(host, scene) for host in ground.hosts), side.name
    found.second += (once() for _ in range(side.seconds))
    say(f"{side.name}: {found.first[-1]} {found.second[-side.seconds :]}")


def all_sides(scene: Scene, count: int, rounds: int, things: tuple[Path, Path, Path]) -> dict[str, Figures]:
    found = {side.name: Figures() for side in SIDES}
    for number in range(rounds):
        for side in SIDES if number % 2 == 0 else reversed(SIDES):
            if side.slow and number:
                continue
            with fresh(scene, count, *things) as ground:
                turn(side, ground, found[side.name])
    return found


def tables(found: dict[str, Figures], count: int) -> list[str]:
    lines = [
        "| side | first pass | second pass | controller's processor time a host, first and second | host's processor time, first and second | controller's largest process |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, each in found.items():
        walls = [f"{each.median(which):.1f} s ({spread(each, which)})" for which in ("first", "second")]
        control = " and ".join(
            f"{each.median(which, 'processor') / count * 1000:.0f} ms" for which in ("first", "second")
        )
        host = " and ".join(f"{each.median(which, 'host') * 1000:.0f} ms" for which in ("first", "second"))
        memory = max(took.memory for took in (*each.first, *each.second))
        lines.append(f"| {name} | {' | '.join(walls)} | {control} | {host} | {memory:.0f} MB |")
    lines += ["", "| pass | against | ratio of medians | target | held |", "| --- | --- | --- | --- | --- |"]
    for which, other, target in (
        ("second", "pyinfra", 0.8),
        ("second", "Ansible", 0.1),
        ("second", "OpenSSH", None),
        ("first", "pyinfra", 1.0),
        ("first", "Ansible", 0.25),
        ("first", "OpenSSH", None),
    ):
        ratio = found["hsm-agent"].median(which) / found[other].median(which)
        held = "" if target is None else "yes" if ratio <= target else "**no**"
        lines.append(
            f"| {which} | {other} | **{ratio:.2f}** | {f'≤ {target:g}' if target else ''} | {held} |"
        )
    return lines


def spread(each: Figures, which: str) -> str:
    return ", ".join(f"{took.seconds:.1f}" for took in getattr(each, which))


# --- the controller alone


def conversation(ground: Ground) -> bytes:
    """Have a proven host say again what it says in a second pass, and return its records, one a line."""
    run = journal.read(ground.operator.last_run())
    host, source = ground.hosts[0], bootstrap_program()
    request = {
        "tree": {"sha256": run.sent.tree, "keep": True},
        "command": "configure",
        "desired": dict(run.spec.desired[host.name]),
        "request": crowd.RECORDED,
        "again": False,
        "seconds": 100.0,
    }
    asked = f"{len(source)}\n".encode() + source + json.dumps(request).encode() + b"\n"
    done = host.run_bytes(["/bin/sh", "-c", COMMAND], asked)
    assert done.returncode == 0, done.stderr
    return b"".join(line.partition(RECORD)[2] + b"\n" for line in done.stdout.splitlines())


def controller(scene: Scene, told: bytes, tree: Path, counts: Sequence[int]) -> Iterator[str]:
    """Roll out to stand-ins that answer at once and at length: what is left is the controller."""
    yield "| targets | `--parallel` | wall | processor time | a target | peak memory |"
    yield "| --- | --- | --- | --- | --- | --- |"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / "host_key")],
            check=True,
            timeout=10,
        )
        (place / "user.pub").write_text(scene.lab.ssh_key.with_suffix(".pub").read_text())
        (place / "conversation.jsonl").write_bytes(told)
        argv = [
            sys.executable,
            "-m",
            "tests.fakes.crowd",
            folder,
            "0",
            str(max(counts)),
            str(CROWD_PORT),
            str(LATENCY),
        ]
        said = place / "said"
        server = scene.lab.operator.start(argv, [CROWD_PORT], log=said)
        try:
            until(lambda: said.read_text() == "ready\n", "all of the crowd to listen", 30)
            yield from _crowds(scene, place, tree, counts)
        finally:
            end(server)


def _crowds(scene: Scene, place: Path, tree: Path, counts: Sequence[int]) -> Iterator[str]:
    key = " ".join((place / "host_key.pub").read_text().split()[:2])
    for count, parallel in [*((count, PARALLEL) for count in counts), (max(counts), 2 * PARALLEL)]:
        operator = Operator(scene, place / f"home-{count}-{parallel}", tree)
        names = [crowd.address(number) for number in range(count)]
        operator.known_hosts.write_text("".join(f"[{name}]:{CROWD_PORT} {key}\n" for name in names))
        hosts = "".join(
            f'[hosts.s{number}]\naddress = "{name}"\nport = {CROWD_PORT}\n'
            for number, name in enumerate(names)
        )
        (operator.home / "fleet.toml").write_text(hosts)
        pace = ("--waves", "100%", "--parallel", str(parallel), "--quiet")
        took = run(scene, Command(operator.argv("rollout", *operator.everything(), *pace), operator.env))
        row = f"| {count} | {parallel} | {took.seconds:.1f} s | {took.processor:.2f} s"
        yield f"{row} | {took.processor / count * 1000:.1f} ms | {took.memory:.0f} MB |"


# --- one host in a black hole


def hole(ground: Ground) -> Iterator[str]:
    """The same pass without and with one host whose port 22 swallows every packet, in the middle of the inventory."""
    yield f"| one of {len(ground.hosts)} hosts | the others were done after | the whole took |"
    yield "| --- | --- | --- |"
    command = ours(ground)
    argv = [*command.argv, "--deadline", f"{DEADLINE}s", "--max-failed", "1"]
    victim = ground.hosts[len(ground.hosts) // 2]
    found: dict[bool, list[float]] = {False: [], True: []}
    for lost in (False, True, True, False):
        if lost:
            victim.seat.faults.drop(ports=[22])
        with Watch(ground.operator, len(ground.hosts) - lost) as watch:
            took = run(ground.operator.scene, Command(argv, command.env), status=70 if lost else 0)
        victim.seat.faults.clear()
        found[lost].append(watch.seconds)
        case = f"is in a black hole, `--deadline {DEADLINE}s`" if lost else "answers"
        yield f"| {case} | {watch.seconds:.1f} s | {took.seconds:.1f} s |"
    ratio = statistics.median(found[True]) / statistics.median(found[False])
    yield f"| ratio of medians; target ≤ 1.1: {'yes' if ratio <= 1.1 else '**no**'} | **{ratio:.2f}** | |"


class Watch:
    """Looks, while a roll-out goes on, when its journal has so many ends."""

    def __init__(self, operator: Operator, wanted: int) -> None:
        self._runs = operator.last_run().parent
        self._wanted = wanted
        self._before = set(self._runs.iterdir())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seconds = float("nan")

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        # once more after the end: the last of them may have been the end of the whole
        while True:
            over = self._over.wait(0.1)
            for folder in set(self._runs.iterdir()) - self._before:
                with contextlib.suppress(FileNotFoundError):
                    if (folder / "journal.jsonl").read_bytes().count(b'"kind": "ended"') >= self._wanted:
                        self.seconds = time.perf_counter() - self._began
                        return
            if over:
                return


# --- all of it


def title(kit: Path, rounds: int) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d}, {os.cpu_count()} processors for the controller and all hosts "
        f"together, {memory:.0f} GiB; hosts of {IMAGE}, {PARALLEL} at a time, package of {PADDING} MB; "
        f"{versions(kit)}; load before {os.getloadavg()[0]:.1f}; {rounds} rounds"
    )


def versions(kit: Path) -> str:
    ask = "from importlib.metadata import version as v; print('pyinfra', v('pyinfra') + ', ansible-core', v('ansible-core'))"
    told = subprocess.run(
        [str(kit / "bin/python"), "-c", ask], check=True, capture_output=True, text=True, timeout=60
    )
    ssh = subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True, timeout=60)
    ask = "import sys, paramiko; print('Python', sys.version.split()[0] + ', paramiko', paramiko.__version__)"
    own = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True, timeout=60)
    return f"{own.stdout.strip()}, {told.stdout.strip()}, {ssh.stderr.split(',')[0]}"


def built(folder: Path) -> Path:
    """Return the archive of this checkout that travels."""
    argv = [sys.executable, str(CHECKOUT / "packaging/build.py"), "--tree", "--out", str(folder)]
    subprocess.run([*argv, "--wheels", str(images.CACHE / "bench/wheels")], check=True, timeout=300)
    return next(folder.glob("*.tar.gz"))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    reason = images.reason_not_to_run()
    if reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    count, rounds = (int(word) for word in (*arguments, *map(str, (HOSTS, ROUNDS)[len(arguments) :])))
    images.install_tools()
    images.ensure([IMAGE])
    kit = peers()
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        place = Path(folder)
        tree = built(place / "dist")
        with cluster(lab, place) as scene:
            package = place / "mirror" / ROWS[IMAGE][1] / scene.package(IMAGE, padding_mb=PADDING)
            lines = [title(kit, rounds)]
            for number in sorted({FEW, count}, reverse=True):
                found = all_sides(scene, number, rounds, (tree, package, kit))
                lines += ["", f"**{number} hosts**", "", *tables(found, number)]
            with fresh(scene, count, tree, package, kit) as ground:
                run(scene, ours(ground))
                told = conversation(ground)
                lines += ["", *hole(ground)]
            lines += ["", *controller(scene, told, tree, (10, 100, 1000))]
    say("\n".join(lines))
    keep("\n".join(lines), "the fleet")
    return 0 if not any("**no**" in line for line in lines) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
