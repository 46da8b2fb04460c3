"""Command line, inventory and configuration -> RunSpec, or all input errors together; no host is contacted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Callable

from agent.cloudhsm.cluster import (
    description_from_json,
)
from agent.config.desired import Desired, from_json, to_json
from agent.config.input_errors import InputErrors, did_you_mean
from agent.config.options import duration
from agent.core.errors import AgentError
from agent.core.fleet_model import HostState
from agent.fleet import inventory, waves
from agent.fleet.ec2_source import Ec2Source
from agent.fleet.model import ABSENT, PRESENT, RunSpec
from agent.fleet.package_offer import packages_of
from agent.fleet.shared_input import OpenAccess, SharedInput, desired_of_hosts, ready_to_send
from agent.fleet.ssm.settings import check_targets, region_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.cloudhsm.cluster import ClusterDescription
    from agent.config.desired import RawOptions
    from agent.core.fleet_model import Target
    from agent.core.host import HostView
    from agent.fleet.model import RunState

# A cluster takes 900 client connections at a time (cloudhsm-facts 5.5), each client process being one. The proof of a
# host starts two, at once; half of the 900 is left to the applications of the fleet.
CONNECTIONS = 900
MOST_PARALLEL = CONNECTIONS // 2 // 2
# How many hosts an input error names.
_NAMED = 5
# The command of `remove --plan`.
REMOVAL = "remove --plan"
VIA = ("ssh", "ssm")
# options that only one of them has
OF_SSM = ("agent", "agent_sha256", "windows_agent", "windows_agent_sha256")
OF_SSH = (
    "ssh_config",
    "trust_new_hosts",
    "tree",
    "windows_tree",
    "linux_tree",
    "install",
    "with_agent",
    "agent_packages",
)
ONLY = ("failed", "unreachable", "not-reached", "drifted")


@dataclass(frozen=True)
class FleetOptions:
    """The options of `hsm-agent fleet` beside those of `configure`, as texts; None was not given."""

    inventory: str | None = None
    limit: str | None = None
    host: tuple[str, ...] = ()
    all: bool = False
    plan: bool = False
    parallel: str | None = None
    waves: str | None = None
    soak: str | None = None
    max_failed: str | None = None
    deadline: str | None = None
    resume: str | None = None
    only: tuple[str, ...] = ()
    ssh_config: str | None = None
    trust_new_hosts: bool = False
    trust_console: bool = False
    profile: str | None = None
    tree: str | None = None
    windows_tree: str | None = None
    linux_tree: tuple[str, ...] = ()
    via: str | None = None
    agent: str | None = None
    agent_sha256: str | None = None
    windows_agent: str | None = None
    windows_agent_sha256: str | None = None
    install: bool = False
    with_agent: bool = False
    agent_packages: str | None = None


def new_spec(
    view: HostView,
    open_access: OpenAccess,
    command: str,
    options: FleetOptions,
    flags: RawOptions,
    below: Sequence[RawOptions],
    known: Mapping[str, HostState],
    input_errors: InputErrors,
    configured: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> RunSpec:
    """Return what a new run is to do. Raises AgentError `inventory-invalid`, `config-invalid`, `ca-…`, and for
    clusters `aws-…`, `cluster-…`.

    `below` are the sources of options that are weaker than the inventory: environment, then file. `known` is how hosts
    ended in the last run, for --only; `configured` has the hosts that were configured from here, and their options.
    """
    remarks, about_hosts = InputErrors(), InputErrors()
    region = next((each["region"] for each in (flags, *below) if each.get("region")), None)
    source = Ec2Source(open_access, region)
    targets = _targets(view, command, options, known, about_hosts, remarks, source)
    spec = RunSpec(command, options.inventory or "", targets, {}, remarks=tuple(remarks.texts))
    spec = _with_pace(spec, options, input_errors)
    shared = SharedInput(view, open_access)
    desired = desired_of_hosts(shared, targets, flags, below, input_errors)
    region = flags.get("region") or region_of(targets, input_errors) if options.via == "ssm" else None
    spec = replace(spec, ssm=_ssm(view, open_access, options, region, input_errors))
    if spec.ssm:
        check_targets(targets, desired, input_errors)
    again = [target.name for target in targets if target.name in desired and not desired[target.name].hsm_ip]
    if command in ("plan", "rollout") and not options.only:
        _require_addresses([name for name in again if name not in configured], len(targets), input_errors)
    if about_hosts.texts:  # together with the errors of the command line, so that one correction is enough
        about_hosts.texts += input_errors.texts
        inventory.refuse_any(about_hosts)
    input_errors.raise_any()
    bare = tuple(replace(target, options={}) for target in targets)
    return replace(
        spec,
        targets=bare,
        desired={name: to_json(each) for name, each in desired.items()},
        clusters=shared.clusters(),
        remarks=(*spec.remarks, *shared.remarks),
        before={name: packages_of(configured[name]) for name in again if name in configured},
    )


def resume_spec(
    view: HostView,
    open_access: OpenAccess,
    run: RunState,
    command: str,
    options: FleetOptions,
    flags: RawOptions,
    input_errors: InputErrors,
) -> tuple[RunSpec, tuple[Target, ...]]:
    """Return what a resumed run is to do, changed by the options given now, and the hosts that are due.

    The options apply to every host, with --only to those; a host that was proven for something else is due again.
    """
    if command != run.spec.command:
        hint = f"`fleet {command} --inventory FILE --only STATE` chooses by how hosts ended in the last run"
        input_errors.add("--resume", f"that run is a `fleet {run.spec.command}`; {hint}")
    for name in ("via", *OF_SSM):
        if getattr(options, name):
            input_errors.add(f"--{name.replace('_', '-')}", "the run keeps how it reaches its hosts")
    if options.inventory is not None or options.limit is not None or options.host or options.all:
        others = "no --inventory, no --limit, no --host and no --all"
        input_errors.add("--resume", f"the run has its hosts already: {others}")
    spec = _with_pace(run.spec, options, input_errors)
    input_errors.raise_any()
    asked = [
        target
        for target in spec.targets
        if not options.only or _is_among(run.state(target.name), options.only)
    ]
    before = _desired_before(run)
    if flags:
        shared, own = SharedInput(view, open_access), InputErrors()
        given = {
            **({"hsm_ip": ()} if "cluster_id" in flags else {}),
            **flags,
        }  # another cluster has other addresses
        ready = {
            target.name: ready_to_send(shared, replace(before[target.name], **given), own) for target in asked
        }
        for text in dict.fromkeys(own.texts):  # the same for every host
            input_errors.add("options", text)
        changed = {name: to_json(each) for name, each in ready.items()}
        spec = replace(
            spec,
            desired={**spec.desired, **changed},
            clusters={**spec.clusters, **shared.clusters()},
            remarks=tuple(dict.fromkeys((*spec.remarks, *shared.remarks))),
        )
    input_errors.raise_any()
    wanted = run.spec.desired
    return spec, tuple(
        target
        for target in asked
        if run.state(target.name) is not HostState.OK
        or (spec.desired[target.name], spec.agent_package) != (wanted[target.name], run.spec.agent_package)
    )


def _ssm(
    view: HostView,
    open_access: OpenAccess,
    options: FleetOptions,
    region: str | None,
    input_errors: InputErrors,
) -> dict[str, Any]:
    """Return the settings for Systems Manager; none for SSH. Raises AgentError `aws-region-unknown`."""
    if options.via not in (None, *VIA):
        input_errors.add("--via", f"{options.via!r} is not one of {', '.join(VIA)}")
    of_ssm = {name: getattr(options, name) for name in OF_SSM if getattr(options, name)}
    of_ssh = {name: getattr(options, name) for name in OF_SSH if getattr(options, name)}
    if options.via != "ssm":
        for name in of_ssm:
            input_errors.add(f"--{name.replace('_', '-')}", "it needs --via ssm: over SSH the agent is sent")
        return {}
    for name in of_ssh:
        input_errors.add(f"--{name.replace('_', '-')}", "it is for SSH, not for --via ssm")
    return settings_of(
        view,
        open_access(region).client.session.region,
        (options.agent, options.agent_sha256),
        (options.windows_agent, options.windows_agent_sha256),
        input_errors,
    )


def _desired_before(run: RunState) -> dict[str, Desired]:
    """Return what was wanted of each host, without the addresses that AWS gave: the cluster may have others now.

    Raises AgentError `nothing-recorded` for what another version wrote.
    """
    try:
        sent = {name: description_from_json(tree) for name, tree in run.spec.clusters.items()}
        before = {name: from_json(tree) for name, tree in run.spec.desired.items()}
        return {
            name: replace(each, hsm_ip=()) if _is_from(sent.get(each.cluster_id or ""), each) else each
            for name, each in before.items()
        }
    except TypeError as error:
        raise AgentError(
            "nothing-recorded", "the run was begun by another version", saw=str(error), want="a run of this version",
            hint="the hsm-agent that began it can continue it; or start a new one with --only",
        ) from error  # fmt: skip


def _is_from(cluster: ClusterDescription | None, desired: Desired) -> bool:
    return cluster is not None and desired.hsm_ip == cluster.addresses()


def _is_among(state: HostState, only: Sequence[str]) -> bool:
    # a host that was running when its controller ended has not reached its end either
    other = {HostState.DEGRADED: "failed", HostState.AT_WORK: "not-reached"}.get(state)
    return state.value in only or other in only


def _require_addresses(names: Sequence[str], total: int, input_errors: InputErrors) -> None:
    """Report hosts that were never configured: each would fail alone, without an --hsm-ip."""
    if names:
        some = f"{', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}"
        input_errors.add(
            "--hsm-ip",
            f"the address of an HSM is needed: no roll-out from here configured {some} ({len(names)} of {total} hosts)",
        )


def read_targets(
    view: HostView,
    open_access: OpenAccess,
    options: FleetOptions,
    region: str | None,
    input_errors: InputErrors,
    remarks: InputErrors,
) -> tuple[Target, ...]:
    """Return the hosts of an inventory that --limit chooses; none when there is an input error.

    `remarks` collects warnings. Raises AgentError `aws-…` where EC2 is the inventory.
    """
    source = Ec2Source(open_access, region)
    return _targets(view, "status", options, {}, input_errors, remarks, source)


def _targets(
    view: HostView,
    command: str,
    options: FleetOptions,
    known: Mapping[str, HostState],
    input_errors: InputErrors,
    remarks: InputErrors,
    source: Ec2Source,
) -> tuple[Target, ...]:
    """Return the targets; none when there is an input error."""
    where = options.inventory or ""
    is_file = where and not where.startswith(inventory.EC2)
    data = _read(view, where, input_errors) if is_file else b""
    if not where:
        input_errors.add("--inventory", "the file with the hosts is needed, or --resume with an earlier run")
    elif data is None:
        input_errors.add("--inventory", f"there is no file {where}")
    if input_errors.texts:
        return ()
    targets = inventory.read(data or b"", where, input_errors, remarks, view, source)
    if command == "remove" and options.limit is None and not options.host and not options.all:
        typed = f"hsm-agent fleet remove --inventory {where}"
        input_errors.add(
            "--limit, --host, --all",
            f"which of the {len(targets):,} hosts? for some, type `{typed} --limit PATTERN`; for every one, "
            f"`{typed} --all`; with `--plan` it shows what would be removed",
        )
    if (options.limit is not None) + bool(options.host) + options.all > 1:
        input_errors.add("--limit, --host, --all", "one of them at a time")
    if options.trust_console and targets and not any(each.instance_id for each in targets):
        input_errors.add(
            "--trust-console",
            "no host of the inventory is an EC2 instance: `--inventory ec2:...`, or a table [ec2] in TOML, finds some",
        )
    if input_errors.texts:
        return ()
    return _chosen(targets, options, known, input_errors)


def _chosen(
    targets: tuple[Target, ...],
    options: FleetOptions,
    known: Mapping[str, HostState],
    input_errors: InputErrors,
) -> tuple[Target, ...]:
    """Return the targets that --limit or --host and --only choose; none when one of them is invalid."""
    if options.limit is not None:
        targets = inventory.select(targets, options.limit, input_errors)
    if options.host:
        targets = _named(targets, options.host, input_errors)
    if options.only and set(options.only) <= set(ONLY):
        targets = tuple(
            each for each in targets if each.name in known and _is_among(known[each.name], options.only)
        )
        if not known:
            input_errors.add("--only", "there is no earlier run to choose by")
        elif not targets:
            input_errors.add(
                "--only", f"no host of the inventory ended {' or '.join(options.only)} in the last run"
            )
    return () if input_errors.texts else targets


def _named(
    targets: tuple[Target, ...], names: Sequence[str], input_errors: InputErrors
) -> tuple[Target, ...]:
    """Return the targets with exactly these names; each other name is an input error."""
    known = {each.name for each in targets}
    for name in names:
        if name not in known:
            input_errors.add(
                "--host", f"there is no host {name!r} in the inventory{did_you_mean(name, known)}"
            )
    return tuple(each for each in targets if each.name in names)


def _read(view: HostView, where: str, input_errors: InputErrors) -> bytes | None:
    """Return the inventory; one that is not a file, or too large to read, is an input error."""
    try:
        return view.read(where)
    except AgentError as error:
        seen = view.stat(where)
        hint = f": `ansible-inventory -i {where} --list > fleet.json` makes one file of it"
        folder = seen is not None and seen.kind == "directory"
        input_errors.add(where, f"it is a directory{hint}" if folder else f"it cannot be read; {error.saw}")
        return b""


def _with_pace(spec: RunSpec, options: FleetOptions, input_errors: InputErrors) -> RunSpec:
    """Check the options of the roll-out itself, and return the spec with them."""

    def read(option: str, text: str | None, parse: Callable[[str], Any], otherwise: Any) -> Any:
        if text is None:
            return otherwise
        try:
            return parse(text)
        except ValueError as error:
            input_errors.add(option, str(error))
            return otherwise

    if options.agent_packages is not None and not options.install and options.resume is None:
        input_errors.add("--agent-packages", "it is for --install, which brings the agent's package")
    read("--waves", options.waves, waves.shares, None)
    read("--max-failed", options.max_failed, waves.share, None)
    for each in options.only:
        if each not in ONLY:
            input_errors.add("--only", f"{each!r} is not one of {', '.join(ONLY)}")
    return replace(
        spec,
        parallel=read("--parallel", options.parallel, _parallel, spec.parallel),
        agent_package=PRESENT if options.install else ABSENT if options.with_agent else spec.agent_package,
        shares=options.waves or spec.shares,
        soak=read("--soak", options.soak, duration, spec.soak),
        limit=options.max_failed or spec.limit,
        deadline=read("--deadline", options.deadline, duration, spec.deadline),
        ssh_config=str(Path(options.ssh_config).absolute()) if options.ssh_config else spec.ssh_config,
    )


def _parallel(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_PARALLEL:
        why = f"a cluster takes {CONNECTIONS} client connections, of which the proof of a host makes two"
        raise ValueError(
            f"{text!r} is not a number from 1 to {MOST_PARALLEL}: {why}, and applications want theirs"
        )
    return int(text)
