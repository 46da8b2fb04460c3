"""The main job, for real, against a stand-in cluster: first run, second run, a fault and its cause, the repair."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from agent import __version__
from agent.catalogue import load, match_platform, parse_os_release, resolve_artefact
from agent.cloudhsm.components import LINUX_PACKAGES
from agent.core.errors import AgentError
from agent.demo import aws, aws_acts, default_config, hsm_server, mirror, packages, pki, sandbox
from agent.render import screen
from agent.render.output import CommandOutput
from agent.render.text import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# in the demo's own network namespace, where no other machine has them
ADDRESSES = ("10.0.1.6", "10.0.2.9")
_UBUNTU = 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nPRETTY_NAME="Ubuntu 24.04 (demo)"\n'
_AMAZON = 'NAME="Amazon Linux"\nID="amzn"\nVERSION_ID="2023"\nPRETTY_NAME="Amazon Linux 2023 (demo)"\n'
# what `--aws` plays, in place of a fault
AWS = "group-not-attached"
_STANDIN = "/etc/cloudhsm-standin"
_REPORT = "/var/lib/hsm-agent/report.json"
_CA = "/root/customerCA.crt"
_WIDE = 80
_INDENT = 3


@dataclass(frozen=True)
class DemoStep:
    """One call of `hsm-agent` in the demo, its purpose, and its expected exit status."""

    title: str
    argv: tuple[str, ...]
    exit_status: int


@dataclass(frozen=True)
class FaultCase:
    """A fault, the call that finds it, its repair, and the call that shows the repair."""

    says: str
    breaks: Callable[[DemoRun], None]
    found: tuple[str, ...]
    exit_status: int
    repair: Callable[[DemoRun], None]
    after: tuple[str, ...] = ("verify",)


class DemoRun:
    """The sandbox, the cluster and the mirror of a running demo."""

    def __init__(self, scene: sandbox.Sandbox, made: pki.Pki, folder: Path) -> None:
        self.scene = scene
        self.made = made
        self.folder = folder
        self.hsms = contextlib.ExitStack()
        self.running: dict[str, contextlib.ExitStack] = {}
        self.environ: dict[str, str] = {}

    def hsm(self, address: str) -> hsm_server.HsmServer:
        return hsm_server.HsmServer(
            address,
            self.made.hsm,
            self.made.other_hsm,
            self.made.client_ca.cert,
            self.folder / f"mode-{address}",
        )

    def start(self, address: str) -> None:
        stack = contextlib.ExitStack()
        stack.enter_context(hsm_server.running(self.hsm(address)))
        self.running[address] = stack
        self.hsms.push(stack)

    def stop(self, address: str) -> None:
        self.running.pop(address).close()

    def modes(self, mode: str) -> None:
        for address in ADDRESSES:
            hsm_server.set_mode(self.hsm(address).state, mode)

    def set_misbehaviour(self, tool: str, word: str | None) -> None:
        """Make a stand-in tool misbehave, or behave again."""
        path = self.scene.path(f"{_STANDIN}/{tool}")
        path.parent.mkdir(exist_ok=True)
        if word is None:
            path.unlink()
        else:
            path.write_text(word, encoding="utf-8")

    def place(self, source: Path, inside: str) -> None:
        shutil.copyfile(source, self.scene.path(inside))

    def forget(self) -> None:
        """Restore the configuration of a freshly installed package: the effect of a reinstallation."""
        text = default_config.fresh_cfg("cli")
        self.scene.path("/opt/cloudhsm/etc/cloudhsm-cli.cfg").write_text(text, encoding="utf-8")


def _configure(*more: str) -> tuple[str, ...]:
    addresses = [word for address in ADDRESSES for word in ("--hsm-ip", address)]
    return ("configure", *addresses, *more)


def _nothing(_play: DemoRun) -> None:
    pass


FAULTS = {
    "hsm-refused": FaultCase(
        "one HSM is gone",
        lambda play: play.stop(ADDRESSES[1]), ("verify",), 41, lambda play: play.start(ADDRESSES[1]),
    ),
    "hsm-silent": FaultCase(
        "both HSMs accept connections and say nothing",
        lambda play: play.modes("silent"), ("verify",), 40, lambda play: play.modes("normal"),
    ),
    "not-activated": FaultCase(
        "the cluster was initialised, and never activated",
        lambda play: play.modes("unactivated"), ("verify",), 43, lambda play: play.modes("normal"),
    ),
    "mutual-tls": FaultCase(
        "the cluster begins to ask for client certificates",
        lambda play: play.modes("mtls"), ("verify",), 42, _nothing,
        _configure("--client-cert", "/root/client.crt", "--client-key", "/root/client.key"),
    ),
    "wrong-ca": FaultCase(
        "somebody configures the CA of another cluster",
        _nothing, _configure("--ca-cert", "/root/otherCA.crt", "--replace-ca"), 51, _nothing,
        _configure("--ca-cert", _CA),
    ),
    "drift": FaultCase(
        "a reinstallation put the configuration back to its placeholder",
        DemoRun.forget, ("verify",), 3, _nothing, _configure(),
    ),
    "tool-lies": FaultCase(
        "the configure tool says it succeeded, and does nothing",
        lambda play: play.set_misbehaviour("configure-cli", "lie"), _configure("--log-level", "debug"), 50,
        lambda play: play.set_misbehaviour("configure-cli", None), _configure("--log-level", "debug"),
    ),
    "wrong-bytes": FaultCase(
        "the mirror serves other bytes than were published",
        lambda play: mirror.set_faults(play.folder / "mirror.json", {"*": "wrong-bytes"}), (), 21,
        lambda play: mirror.set_faults(play.folder / "mirror.json", {}),
        _configure("--component", "pkcs11"),
    ),
}  # fmt: skip


def play(fault: str, *, as_json: bool) -> int:
    """Run the demo in a throw-away root and return its exit status; raises AgentError as `sandbox.enter` does."""
    return sandbox.enter("agent.demo.play", (fault, "json" if as_json else "text"))


def main(arguments: Sequence[str]) -> int:
    """Run it inside the namespaces. `arguments`: the private folder, the file descriptor, the fault, text or json."""
    folder, fd, name, output = Path(arguments[0]), int(arguments[1]), arguments[2], arguments[3]
    _open_output()

    def body() -> int:
        presenter = _Presenter(as_json=output == "json")
        scene = sandbox.build(folder)
        with _set(scene, folder) as (this, source), contextlib.ExitStack() as stack:
            acts = _aws_acts(this, source, stack) if name == AWS else _acts(FAULTS[name], this, source)
            presenter.opening(scene, with_aws=name == AWS)
            passed = all(presenter.act(this, act) for act in acts)
        presenter.end(name, passed=passed)
        return 0 if passed else 1

    return sandbox.send_errors(fd, body)


@contextlib.contextmanager
def _set(scene: sandbox.Sandbox, folder: Path) -> Iterator[tuple[DemoRun, tuple[str, ...]]]:
    """Build cluster, mirror and packages in the sandbox."""
    _clear(scene)
    release = _masquerade(scene)
    made = pki.make(folder / "pki")
    catalogue = load()
    fit = match_platform(
        catalogue,
        os=release["ID"],
        os_version=release["VERSION_ID"],
        arch=scene.run(["uname", "-m"]).stdout.strip(),
    )
    sums = []
    for component in ("cli", "pkcs11"):
        wanted = resolve_artefact(catalogue, fit, fit.arch, component, None)
        built = packages.build(
            folder / "mirror",
            wanted.path,
            wanted.package,
            wanted.version,
            interpreter=sys.executable,
            padding_mb=4,
        )
        sums += ["--sha256", f"{wanted.file}={built}"]
    this = DemoRun(scene, made, folder)
    for source, inside in (
        (made.ca.cert, _CA),
        (made.other_ca.cert, "/root/otherCA.crt"),
        (made.client.cert, "/root/client.crt"),
        (made.client.key, "/root/client.key"),
    ):
        this.place(source, inside)
    with this.hsms, mirror.running(mirror.Mirror(folder / "mirror", folder / "mirror.json")) as url:
        yield this, ("--package-source", url, *sums)


def _acts(fault: FaultCase, play: DemoRun, source: tuple[str, ...]) -> Iterator[DemoStep]:
    """Yield the acts of a fault: first run, second run, the fault and its cause, the repair."""
    for address in ADDRESSES:
        sandbox.give_address(address)
        play.start(address)
    full = _configure("--ca-cert", _CA, *source)
    yield DemoStep("a host that has nothing", full, 0)
    yield DemoStep("the same again changes nothing", full, 0)
    fault.breaks(play)
    yield DemoStep(
        fault.says, _full(fault.found or _configure("--component", "pkcs11"), source), fault.exit_status
    )
    fault.repair(play)
    yield DemoStep("fixed, and checked again", _full(fault.after, source), 0)


def _aws_acts(play: DemoRun, source: tuple[str, ...], stack: contextlib.ExitStack) -> Iterator[DemoStep]:
    """Yield the acts of `--aws`, with a stand-in of AWS that runs as long as `stack`."""
    for address in sorted({each.address for each in (*aws_acts.BEFORE, *aws_acts.AFTER)}):
        sandbox.give_address(address)
    state = play.folder / "aws.json"
    aws.DemoCloud(aws_acts.BEFORE, play.made.hsm.cert.read_text(encoding="utf-8")).save(state)
    url = stack.enter_context(aws.running(state))
    play.environ = {"AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_SERVICE_ENDPOINT": url}
    full = ("configure", "--cluster-id", aws.CLUSTER_ID, "--ca-cert", _CA, *source)
    report = play.scene.path(_REPORT)
    for title, argv, status in aws_acts.acts(state, url, full, report, play.start, play.stop):
        yield DemoStep(title, argv, status)


def _full(argv: tuple[str, ...], source: tuple[str, ...]) -> tuple[str, ...]:
    return (*argv, *source) if argv[0] == "configure" else argv


def _clear(scene: sandbox.Sandbox) -> None:
    """Remove a real client and a real agent's record from the sandbox: the demo begins without them."""
    if scene.path("/usr/bin/dpkg-query").exists():
        there = scene.run(["dpkg-query", "-W", "-f=${Package}\\n", *LINUX_PACKAGES]).stdout.split()
        remove = ["dpkg", "--purge", "--force-depends"]
    else:
        there = scene.run(["rpm", "-qa", "--qf", "%{NAME}\\n", *LINUX_PACKAGES]).stdout.split()
        remove = ["rpm", "-e", "--nodeps"]
    if there:
        scene.run([*remove, *there])
    for place in ("/opt/cloudhsm", "/var/lib/hsm-agent", "/var/cache/hsm-agent", "/etc/hsm-agent", _STANDIN):
        shutil.rmtree(scene.path(place), ignore_errors=True)


def _masquerade(scene: sandbox.Sandbox) -> dict[str, str]:
    """Make the sandbox look like a listed system, unless it already is one. Return its os-release."""
    path = scene.path("/etc/os-release")
    own = parse_os_release(path.read_text(encoding="utf-8")) if path.exists() else {}
    try:
        fit = match_platform(
            load(), os=own.get("ID", ""), os_version=own.get("VERSION_ID", ""), arch=_arch(scene)
        )
    except AgentError:
        pass
    else:
        if fit.last is None:
            return own
    text = _UBUNTU if scene.path("/usr/bin/apt-get").exists() else _AMAZON
    path.unlink(missing_ok=True)  # most often a link to /usr/lib
    path.write_text(text, encoding="utf-8")
    return parse_os_release(text)


def _arch(scene: sandbox.Sandbox) -> str:
    return scene.run(["uname", "-m"]).stdout.strip()


class _Presenter:
    """Prints what happens: headings and screens for people, one document for programs."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._acts: list[dict[str, Any]] = []

    def opening(self, scene: sandbox.Sandbox, *, with_aws: bool) -> None:
        """Print what is real here and what is not."""
        if self._as_json:
            return
        manager = "apt and dpkg" if scene.path("/usr/bin/apt-get").exists() else "dnf and rpm"
        _say_wrapped(
            "This plays in a throw-away copy of this machine. Two HSMs, a package mirror and the client packages, with"
            f" their checksums, are stand-ins for AWS's; {manager} and all that hsm-agent does are real."
            + " AWS's API and this instance's metadata are stand-ins too." * with_aws
            + "\n"
        )

    def act(self, play: DemoRun, act: DemoStep) -> bool:
        """Run one step and print it; True when it ended as expected."""
        if not self._as_json:
            _say(f"── {len(self._acts) + 1}. {act.title}\n{_command_line(act.argv)}\n")
        argv = [sys.executable, "-m", "agent", *act.argv, "--quiet", "--output", "json"]
        done = play.scene.run(argv, PYTHONPATH=_SOURCE, **play.environ)
        report = json.loads(done.stdout) if done.stdout else None
        self._acts.append(
            {
                "title": act.title,
                "argv": ["hsm-agent", *act.argv],
                "exit_status": done.returncode,
                "expected": act.exit_status,
                "report": report,
            }
        )
        if not self._as_json and report is not None:
            _say("".join(f"{' ' * _INDENT}{line}\n" if line else "\n" for line in _screen(report)))
        if done.returncode != act.exit_status:
            sys.stderr.write(f"expected exit {act.exit_status}, got {done.returncode}\n{done.stderr}")
        return done.returncode == act.exit_status

    def end(self, fault: str, *, passed: bool) -> None:
        if self._as_json:
            tree = {
                "schema_version": 1,
                "command": "demo",
                "agent_version": __version__,
                "fault": fault,
                "ok": passed,
                "acts": self._acts,
            }
            _say(json.dumps(tree, indent=2))
        elif passed:
            others = " ".join(name for name in FAULTS if name != fault)
            _say("The copy is gone; this machine itself was not changed.")
            _say_wrapped(f"Other faults, with `hsm-agent demo --fault NAME`: {others}")


def _open_output() -> None:
    """Make standard output one that takes any text, and says when it is full or has no reader."""
    stream: Any = sys.stdout
    if stream is None:
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 -- as long as the process
    stream.reconfigure(errors="replace")
    sys.stdout = CommandOutput(stream)


_SOURCE = str(Path(__file__).resolve().parents[2])


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _say_wrapped(text: str) -> None:
    _say("\n".join(wrapped("", text, _WIDE)) + "\n" * text.endswith("\n"))


def _screen(report: dict[str, Any]) -> list[str]:
    """Return the lines of a report's screen, without a warning that every stand-in causes: the opening names it."""
    warnings = [each for each in report["warnings"] if each["code"] != "checksum-replaced"]
    return screen.report({**report, "warnings": warnings}, width=_WIDE - _INDENT).splitlines()


def _command_line(argv: Sequence[str]) -> str:
    """Return the call as a person types it, one option per line when it is long.

    The checksums of the made-up packages are left out: they are long, and a real run needs none.
    """
    words: list[str] = []
    for word, before in zip(argv, ("", *argv)):
        if "--sha256" in (word, before):
            continue
        if words and not word.startswith("--") and before.startswith("--"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    line = "   # hsm-agent " + " ".join(words)
    return line if len(line) <= _WIDE else "   # hsm-agent " + " \\\n       ".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
