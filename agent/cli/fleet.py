"""The commands for a fleet: the same options as for one host, and those of the roll-out."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Optional

import typer

from agent import log
from agent.aws.access import AwsAccess
from agent.cli import collected
from agent.cli.fleet_output import require_writable, show
from agent.cli.options import CONFIG, Output, Quiet, is_json, with_options
from agent.cli.requirements import require_linux
from agent.cli.terminal import is_dumb, print_result, style
from agent.config.input_errors import InputErrors
from agent.config.options import OPTIONS, Option, age
from agent.config.sources import read_sources
from agent.core.errors import AgentError
from agent.hosts.local import local_host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.aws.session import CredentialsProvider
    from agent.core.fleet_model import HostResult, Target
    from agent.core.host import HostView
    from agent.fleet.model import Deps, Explain, RunSpec, RunState, Transport
    from agent.fleet.run_spec import FleetOptions
    from agent.fleet.shared_input import OpenAccess
    from agent.http.download import PartReader, PartSource

RunName = Annotated[Optional[str], typer.Argument(metavar="[RUN]", help="a run, or `last` (the default)")]
HostName = Annotated[
    Optional[str], typer.Argument(metavar="[HOST]", help="one host of it, with its own report in full")
]
From = Annotated[
    Optional[str],
    typer.Option(
        "--from", metavar="s3://BUCKET/PREFIX/|DIR", help="where hosts leave their reports (--report-to)"
    ),
]
Prune = Annotated[
    Optional[str],
    typer.Option(
        metavar="AGE", help="first delete the runs in which nothing was recorded for so long: 36h, 30d, 2w"
    ),
]

INVENTORY = Option(
    "inventory",
    None,
    "the hosts: a list, TOML, or an inventory of Ansible; or EC2's: ec2:TERM,... of tag:NAME=VALUE, asg=, vpc=, "
    "cluster=, region=, state=, address=, group=, user=",
    str,
    metavar="FILE|ec2:TERMS",
    short="-i",
)
LIMIT = Option(
    "limit",
    None,
    "only these hosts: names and groups, with * and ?, !not, &and",
    str,
    metavar="PATTERN",
    short="-l",
)
HOST = Option("host", None, "only this host, by its name in the inventory", str, many=True, metavar="NAME")
_HOSTS = (
    INVENTORY,
    LIMIT,
    HOST,
    Option("only", None, "only hosts that ended so: failed, unreachable, not-reached, drifted", str,
           many=True, metavar="STATE"),
    Option("resume", None, "continue this run, or the `last` one: proven hosts are left alone", str,
           metavar="RUN"),
    Option("parallel", None, "hosts at a time (32)", str, metavar="N"),
    Option("deadline", None, "limit for each host (15m)", str, metavar="DURATION"),
    Option("ssh_config", None, "instead of ~/.ssh/config", str, metavar="FILE"),
    Option("via", None, "how hosts are reached: ssh (default), or ssm: AWS Systems Manager", str, metavar="ssh|ssm"),
    Option("agent", None, "with ssm, where Linux gets hsm-agent: package, or a URL or s3://BUCKET/KEY", str,
           metavar="SOURCE"),
    Option("agent_sha256", None, "the SHA-256 of what that URL holds", str, metavar="HASH"),
    Option("windows_agent", None, "with ssm, a URL or s3://BUCKET/KEY of the .msi; default: hosts have it", str,
           metavar="SOURCE"),
    Option("windows_agent_sha256", None, "the SHA-256 of what that URL holds", str, metavar="HASH"),
    Option("profile", None, "the AWS profile with which this machine asks AWS (hsm-agent[aws])", str, metavar="NAME"),
    Option("trust_new_hosts", None, "accept and record unknown host keys; never a changed one", str,
           flag=True),
    Option("trust_console", None, "of an EC2 instance, accept and record the host keys on its console", str,
           flag=True),
    Option("tree", None, "the archive of the agent to send, instead of the one in this package", str,
           metavar="FILE"),
    Option("windows_tree", None, "the zip of the agent to send to Windows hosts", str,
           metavar="FILE"),
    Option("linux_tree", None, "the build for Linux hosts without Python, one for each processor", str,
           many=True, metavar="FILE"),
)  # fmt: skip
_WAVES = (
    Option("waves", None, "how many hosts are done when each wave ends (1,10%,100%)", str, metavar="LIST"),
    Option("soak", None, "wait after a wave, then verify its hosts again (none)", str,
           metavar="DURATION"),
    Option("max_failed", None, "how many hosts may fail, in the run and in each wave, before it stops (0)", str,
           metavar="N|P%"),
)  # fmt: skip
_INSTALL = (
    Option("install", None, "also install the agent's own package, with its daily verify", str, flag=True),
    Option(
        "agent_packages",
        None,
        "where these packages are (beside the archive of the agent)",
        str,
        metavar="DIR",
    ),
)
_ALL = (
    Option("all", None, "every host of the inventory, without --limit and --host", str, flag=True),
    Option("plan", None, "show what would be removed, and change nothing", str, flag=True),
    Option("with_agent", None, "also remove the agent's own package, whoever installed it", str, flag=True),
)
# How many recorded runs are listed: each journal is read for that.
_LISTED = 50
# Options above that name an input file.
_READ = ("inventory", "ssh_config", "tree", "windows_tree")
_FILES = (
    Option("junit", None, "also write JUnit XML", str, metavar="FILE"),
    Option("html", None, "also write one self-contained page", str, metavar="FILE"),
)


def _host_command(
    name: str,
    text: str,
    own_table: Sequence[Option],
    given_table: Sequence[Option] = OPTIONS,
    config_table: Sequence[Option] = (CONFIG,),
) -> Callable[..., None]:
    """Return a command that connects to hosts. `text` is its help; the tables are its options besides common ones."""

    def command(
        *,
        own: Mapping[str, Any],
        given: Mapping[str, Any],
        files: Mapping[str, Any],
        config: Mapping[str, Any],
        output: Output = "text",
        quiet: Quiet = False,
    ) -> None:
        what = "remove --plan" if own.get("plan") else name
        _run(what, own, given, files, config.get("config"), output, quiet=quiet)

    command.__doc__ = text
    return with_options(command, own=own_table, given=given_table, files=_FILES, config=config_table)


def _status(
    *,
    own: Mapping[str, Any],
    files: Mapping[str, Any],
    run: RunName = None,
    host: HostName = None,
    source: From = None,
    output: Output = "text",
) -> None:
    """Show how a roll-out stands, or one host of it in full, from this machine's disk; no host is contacted.

    With --from: how all hosts stand that leave their reports in a bucket or a directory.
    """
    machine = local_host()
    require_linux(machine, "fleet status")
    from agent.fleet import controller  # noqa: PLC0415

    input_errors = InputErrors()
    require_writable(machine, files, {"--inventory": own["inventory"]}, input_errors)
    if source is not None:
        if run is not None:
            input_errors.add("--from", "the reports there are of no run: leave RUN out")
        _show_collected(machine, source, own, files, input_errors, as_json=is_json(output))
    for name, value in own.items():
        if value:
            input_errors.add(f"--{name.replace('_', '-')}", "it belongs to --from")
    if host is not None and any(files.values()):
        input_errors.add("--html, --junit", "they show a whole run: leave the host out")
    input_errors.raise_any()
    folder = controller.find_run(os.environ, run)
    if host is not None:
        _show_host(controller.host_part(folder, host), as_json=is_json(output))
    stored = controller.stored_report(folder)
    show(stored, lambda: controller.with_host_reports(folder, stored), files, as_json=is_json(output))


def _show_collected(
    machine: HostView,
    place: str,
    own: Mapping[str, Any],
    files: Mapping[str, Any],
    input_errors: InputErrors,
    *,
    as_json: bool,
) -> None:
    """Show how the hosts stand that report to a place, and end with its exit status."""
    from agent.fleet.collected.spool import ReportSpool  # noqa: PLC0415

    with ReportSpool() as spool:
        found = collected.read_status(machine, place, own, spool, input_errors)
        show(found.tree, found.whole, files, as_json=as_json)


def _show_host(part: Mapping[str, Any], *, as_json: bool) -> NoReturn:
    """Print one host's own report as it would be shown there; without one, raise what the roll-out says of it."""
    from agent.render.fleet.one_host import exit_status_of, failure_of, screen  # noqa: PLC0415

    report = part["report"]
    if report is None:
        raise failure_of(part)
    print_result(json.dumps(report, indent=2) + "\n" if as_json else screen(part, **style()))
    raise typer.Exit(exit_status_of(part))


def _runs(*, prune: Prune = None, output: Output = "text") -> None:
    """List the runs that are recorded on this machine, newest first; no host is contacted."""
    require_linux(local_host(), "fleet runs")
    from agent.fleet import controller  # noqa: PLC0415
    from agent.render.fleet import runs  # noqa: PLC0415

    pruned = controller.prune(os.environ, _age("--prune", prune)) if prune is not None else ()
    tree = runs.to_tree(controller.recorded(os.environ, _LISTED), pruned)
    print_result(json.dumps(tree, indent=2) + "\n" if is_json(output) else runs.lines(tree))


def _age(option: str, text: str) -> float:
    try:
        return age(text)
    except ValueError as error:
        raise InputErrors([f"{option}: {error}"]).error() from None


COMMANDS: Mapping[str, Callable[..., None]] = {
    "plan": _host_command(
        "plan", "Show what a roll-out would do on each host, and change nothing.", (*_HOSTS, *_INSTALL)
    ),
    "rollout": _host_command(
        "rollout",
        "Bring every host to a proven working state, wave by wave.",
        (*_HOSTS, *_INSTALL, *_WAVES),
    ),
    "verify": _host_command(
        "verify",
        "Find what differs or fails on each host, and change nothing.\n\n"
        "Without options of configure: for what each host's last configure was asked for.",
        _HOSTS,
    ),
    "remove": _host_command(
        "remove",
        "Take the client packages off the hosts that are named, wave by wave.",
        (*_HOSTS, *_ALL, *_WAVES),
        given_table=(),
        config_table=(),
    ),
    "status": with_options(_status, own=(INVENTORY, LIMIT, *collected.OPTIONS), files=_FILES),
    "runs": _runs,
}


def _run(
    command: str,
    typed: Mapping[str, Any],
    given: Mapping[str, Any],
    files: Mapping[str, Any],
    config: str | None,
    output: str,
    *,
    quiet: bool,
) -> None:
    """Read and check all input, then run; no host is contacted before all of it is valid."""
    machine = local_host()
    require_linux(machine, f"fleet {command}")
    from agent.fleet import controller, run_spec  # noqa: PLC0415 -- only for a command that goes out

    as_json = is_json(output)
    log.open_log(machine, may_write=machine.is_root())
    repeated = {name: tuple(typed[name] or ()) for name in ("only", "host", "linux_tree")}
    options = run_spec.FleetOptions(**{**typed, **repeated})
    input_errors = InputErrors()
    flags, *below = read_sources(machine, given, config, input_errors)
    read = {
        "--config": config,
        "--ca-cert": next((each["ca_cert"].text for each in (flags, *below) if each.get("ca_cert")), None),
        **{f"--{name.replace('_', '-')}": typed[name] for name in _READ},
        **{f"--linux-tree {path}": path for path in options.linux_tree},
    }
    require_writable(machine, files, read, input_errors)

    @cache  # a person is asked for a second factor once, not for each region and each package
    def person() -> CredentialsProvider:
        from agent.aws.operator import OperatorCredentials  # noqa: PLC0415 -- only where AWS is asked

        terminal = sys.stdin is not None and sys.stdin.isatty()
        return OperatorCredentials(machine, os.environ, options.profile, has_terminal=terminal)

    def open_access(region: str | None) -> AwsAccess:
        return AwsAccess(machine, os.environ, region, person())

    if options.resume is None:
        known = controller.last_states(os.environ) if options.only else {}
        configured = controller.configured(os.environ)
        spec = run_spec.new_spec(
            machine, open_access, command, options, flags, below, known, input_errors, configured
        )
        folder, result = controller.start(spec, _deps(options, open_access, quiet=quiet))
    else:
        folder = controller.find_run(os.environ, options.resume)

        def again(run: RunState) -> tuple[RunSpec, tuple[Target, ...]]:
            return run_spec.resume_spec(machine, open_access, run, command, options, flags, input_errors)

        result = controller.resume(folder, again, _deps(options, open_access, quiet=quiet))
    show(result, lambda: controller.with_host_reports(folder, result), files, as_json=as_json)


def _deps(options: FleetOptions, open_access: OpenAccess, *, quiet: bool) -> Deps:
    """Return what a roll-out needs of this machine: the archives, SSH, a display, and the operator's interrupts."""
    from agent.fleet.model import Deps  # noqa: PLC0415
    from agent.fleet.requester import requester  # noqa: PLC0415
    from agent.render.fleet.choose import choose  # noqa: PLC0415
    from agent.ssh.sockets import SocketCancelToken  # noqa: PLC0415

    times = interrupts()
    listener = choose(sys.stderr, quiet=quiet, dumb=is_dumb(), colour=not os.environ.get("NO_COLOR"))
    machine = local_host(objects=_objects_by(open_access))
    return Deps(
        machine,
        os.environ,
        lambda spec: _transport(spec, options, open_access),
        SocketCancelToken,
        listener,
        lambda: len(times),
        by=requester(machine.name, os.environ),
        explain=_explain_by(machine, open_access),
    )


def _explain_by(machine: HostView, open_access: OpenAccess) -> Explain:
    """Return what asks AWS why instances are not reached; nothing is loaded before there is such a host."""

    def explain(
        ssh_config: str | None, unreached: Sequence[tuple[Target, HostResult]]
    ) -> Sequence[HostResult]:
        from agent.fleet.ec2_diagnosis import UnreachedInstances  # noqa: PLC0415
        from agent.ssh.connector import direct_source  # noqa: PLC0415 -- paramiko costs 150 ms

        return UnreachedInstances(machine, open_access, direct_source).explain(ssh_config, unreached)

    return explain


def _transport(spec: RunSpec, options: FleetOptions, open_access: OpenAccess) -> Transport:
    """Return how the hosts of a run are reached: what either way needs is loaded for it alone."""
    if spec.ssm:
        from agent.fleet.ssm.transport import FleetOverSsm  # noqa: PLC0415

        return FleetOverSsm(spec.ssm, open_access)
    from agent.fleet import agent_archive  # noqa: PLC0415
    from agent.fleet.ec2_console import InstanceConsoles  # noqa: PLC0415
    from agent.fleet.model import PRESENT  # noqa: PLC0415
    from agent.fleet.ssh_transport import FleetOverSsh  # noqa: PLC0415

    archives = agent_archive.load(options.tree, options.windows_tree, options.linux_tree)
    if spec.agent_package == PRESENT:
        packages = agent_archive.load_packages(options.agent_packages, options.tree)
        archives = replace(archives, packages=packages)
    try:
        from agent.ssh.connector import SshConnector  # noqa: PLC0415 -- paramiko costs 150 ms
    except ModuleNotFoundError as missing:  # an extra, which no host needs
        raise AgentError(
            "usage", "the fleet needs libraries that a host does not", saw=f"no {missing.name}",
            want="hsm-agent[fleet]", hint="on the machine you work from, in a checkout: `pipx install '.[fleet]'`",
        ) from missing  # fmt: skip
    host_keys = InstanceConsoles(open_access).host_keys if options.trust_console else None
    connector = SshConnector(spec.ssh_config, trust_new=options.trust_new_hosts, host_keys=host_keys)
    return FleetOverSsh(connector, archives)


def _objects_by(open_access: OpenAccess) -> PartSource:
    """Return what reads packages in S3 with the operator's own credentials."""

    def open_object(url: str, check_stopped: Callable[[], None], seconds: float) -> PartReader:
        from agent.aws.objects import ObjectReader  # noqa: PLC0415 -- only for packages in S3

        return ObjectReader(open_access(None), url, check_stopped, seconds).read

    return open_object


def interrupts() -> list[int]:
    """Catch the signals that ask to stop; each is appended to the returned list.

    A signal that is ignored already stays ignored: under nohup a roll-out continues when its terminal is closed.
    """
    caught: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: caught.append(number))
    return caught
