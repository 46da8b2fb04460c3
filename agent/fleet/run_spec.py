"""What was typed, the inventory and the configuration -> Orders, or every complaint at once; no host is contacted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Optional

from agent.cloudhsm.ca import read_ca
from agent.config.ca_source import read_source
from agent.config.desired import Desired, InputErrors, from_json, resolve, to_json
from agent.config.options import duration
from agent.core.errors import AgentError
from agent.core.fleet_model import HostState
from agent.core.timeouts import Timeouts
from agent.fleet import inventory, waves
from agent.fleet.journal import RunSpec
from agent.fleet.package_offer import packages_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.config.desired import RawOptions
    from agent.core.fleet_model import Target
    from agent.core.host import HostView
    from agent.fleet.journal import RecordedRun

# A cluster takes 900 client connections at a time (cloudhsm-facts 5.5), each client process being one. The proof of a
# host starts two, at once; half of the 900 is left to the applications of the fleet.
CONNECTIONS = 900
MOST_PARALLEL = CONNECTIONS // 2 // 2
# of hosts that are complained about, so many are named
_NAMED = 5
# what `remove --plan` is called: the command as it is typed
REMOVAL = "remove --plan"
ONLY = ("failed", "unreachable", "not-reached", "drifted")
# the CA that a source has, as text, by the source and the fingerprint that it was held against
_Anchors = dict[tuple[str, Optional[str]], str]


@dataclass(frozen=True)
class FleetOptions:
    """The options of `hsm-agent fleet` beside those of `configure`, as texts; None was not typed."""

    inventory: str | None = None
    limit: str | None = None
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
    tree: str | None = None
    windows_tree: str | None = None


def new_spec(
    view: HostView,
    command: str,
    typed: FleetOptions,
    flags: RawOptions,
    below: Sequence[RawOptions],
    known: Mapping[str, HostState],
    input_errors: InputErrors,
    configured: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> RunSpec:
    """Return the orders of a new run. Raises AgentError `inventory-invalid`, `config-invalid`, `ca-…`.

    `below` are the sources of options that are weaker than the inventory: environment, then file. `known` is how hosts
    ended in the last run, for --only; `configured` which hosts were configured from here, and what for.
    """
    remarks, about_hosts = InputErrors(), InputErrors()
    targets = _targets(view, command, typed, known, about_hosts, remarks)
    orders = RunSpec(command, typed.inventory or "", targets, {}, remarks=tuple(remarks.texts))
    pace = _pace(orders, typed, input_errors)
    desired = _desired(view, targets, flags, below, input_errors)
    again = [target.name for target in targets if target.name in desired and not desired[target.name].hsm_ip]
    if command in ("plan", "rollout") and not typed.only:
        _require_addresses([name for name in again if name not in configured], len(targets), input_errors)
    if about_hosts.texts:  # what was typed is told with it: nobody corrects one and then meets the other
        about_hosts.texts += input_errors.texts
        inventory.refuse_any(about_hosts)
    input_errors.raise_any()
    bare = tuple(replace(target, options={}) for target in targets)
    return replace(
        pace,
        targets=bare,
        desired={name: to_json(each) for name, each in desired.items()},
        before={name: packages_of(configured[name]) for name in again if name in configured},
    )


def resume_spec(
    view: HostView,
    story: RecordedRun,
    command: str,
    typed: FleetOptions,
    flags: RawOptions,
    input_errors: InputErrors,
) -> tuple[RunSpec, tuple[Target, ...]]:
    """Return the orders of a run that is gone on with, changed by what is typed now, and the hosts that are due.

    What is typed is wanted of every host, with --only of those; a host that was proven for something else is due again.
    """
    if command != story.orders.command:
        hint = f"`fleet {command} --inventory FILE --only STATE` chooses by how hosts ended in the last run"
        input_errors.add("--resume", f"that run is a `fleet {story.orders.command}`; {hint}")
    if typed.inventory is not None or typed.limit is not None or typed.all:
        input_errors.add("--resume", "the run has its hosts already: no --inventory, no --limit and no --all")
    orders = _pace(story.orders, typed, input_errors)
    input_errors.raise_any()
    asked = [
        target
        for target in orders.targets
        if not typed.only or _is_among(story.state(target.name), typed.only)
    ]
    before = _before(story)
    if flags:
        anchors: _Anchors = {}
        own = InputErrors()
        said = dict(flags)
        ready = {
            target.name: _ready(view, replace(before[target.name], **said), anchors, own) for target in asked
        }
        for text in dict.fromkeys(own.texts):  # every host has it
            input_errors.add("options", text)
        changed = {name: to_json(each) for name, each in ready.items()}
        orders = replace(orders, desired={**orders.desired, **changed})
    input_errors.raise_any()
    wanted = story.orders.desired
    return orders, tuple(
        target
        for target in asked
        if story.state(target.name) is not HostState.OK or orders.desired[target.name] != wanted[target.name]
    )


def _before(story: RecordedRun) -> dict[str, Desired]:
    """Return what was wanted of each host. Raises AgentError `nothing-recorded` for what another version wrote."""
    try:
        return {name: from_json(tree) for name, tree in story.orders.desired.items()}
    except TypeError as error:
        raise AgentError(
            "nothing-recorded", "the run was begun by another version", saw=str(error), want="a run of this version",
            hint="the hsm-agent that began it can go on with it; or begin a new one with --only",
        ) from error  # fmt: skip


def _is_among(state: HostState, only: Sequence[str]) -> bool:
    # of one that was at work when its controller ended no end was reached either
    other = {HostState.DEGRADED: "failed", HostState.AT_WORK: "not-reached"}.get(state)
    return state.value in only or other in only


def _require_addresses(names: Sequence[str], total: int, input_errors: InputErrors) -> None:
    """Complain about hosts that would say, one by one, that nobody has ever said what they are to be."""
    if names:
        some = f"{', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''}"
        input_errors.add(
            "--hsm-ip",
            f"the address of an HSM is needed: no roll-out from here configured {some} ({len(names)} of {total} hosts)",
        )


def _targets(
    view: HostView,
    command: str,
    typed: FleetOptions,
    known: Mapping[str, HostState],
    input_errors: InputErrors,
    remarks: InputErrors,
) -> tuple[Target, ...]:
    """Return the hosts that are meant; none when there is anything to complain about."""
    where = typed.inventory or ""
    data = _read(view, where, input_errors) if where else b""
    if not where:
        input_errors.add("--inventory", "the file with the hosts is needed, or --resume with an earlier run")
    elif data is None:
        input_errors.add("--inventory", f"there is no file {where}")
    if input_errors.texts:
        return ()
    targets = inventory.read(data or b"", where, input_errors, remarks, view)
    if command == "remove" and typed.limit is None and not typed.all:
        input_errors.add(
            "--limit, --all",
            f"which of the {len(targets)} hosts? `--limit PATTERN`, or `--all`; `--plan` shows what would be removed",
        )
    if typed.limit is not None and typed.all:
        input_errors.add("--limit, --all", "one or the other")
    if input_errors.texts:
        return ()
    return _chosen(targets, typed, known, input_errors)


def _chosen(
    targets: tuple[Target, ...],
    typed: FleetOptions,
    known: Mapping[str, HostState],
    input_errors: InputErrors,
) -> tuple[Target, ...]:
    """Return those that --limit and --only leave; none when either means nothing."""
    if typed.limit is not None:
        targets = inventory.select(targets, typed.limit, input_errors)
    if typed.only and set(typed.only) <= set(ONLY):
        targets = tuple(
            each for each in targets if each.name in known and _is_among(known[each.name], typed.only)
        )
        if not known:
            input_errors.add("--only", "there is no earlier run to choose by")
        elif not targets:
            input_errors.add(
                "--only", f"no host of the inventory ended {' or '.join(typed.only)} in the last run"
            )
    return () if input_errors.texts else targets


def _read(view: HostView, where: str, input_errors: InputErrors) -> bytes | None:
    """Return the inventory; what is no file, or too large to be read, is a complaint."""
    try:
        return view.read(where)
    except AgentError as error:
        seen = view.stat(where)
        hint = f": `ansible-inventory -i {where} --list > fleet.json` makes one file of it"
        folder = seen is not None and seen.kind == "directory"
        input_errors.add(where, f"it is a folder{hint}" if folder else f"it cannot be read: {error.saw}")
        return b""


def _pace(orders: RunSpec, typed: FleetOptions, input_errors: InputErrors) -> RunSpec:
    """Take over what says how fast, and check it."""

    def read(option: str, text: str | None, parse: Callable[[str], Any], otherwise: Any) -> Any:
        if text is None:
            return otherwise
        try:
            return parse(text)
        except ValueError as error:
            input_errors.add(option, str(error))
            return otherwise

    read("--waves", typed.waves, waves.shares, None)
    read("--max-failed", typed.max_failed, waves.share, None)
    for each in typed.only:
        if each not in ONLY:
            input_errors.add("--only", f"{each!r} is not one of {', '.join(ONLY)}")
    return replace(
        orders,
        parallel=read("--parallel", typed.parallel, _parallel, orders.parallel),
        shares=typed.waves or orders.shares,
        soak=read("--soak", typed.soak, duration, orders.soak),
        limit=typed.max_failed or orders.limit,
        deadline=read("--deadline", typed.deadline, duration, orders.deadline),
        ssh_config=str(Path(typed.ssh_config).absolute()) if typed.ssh_config else orders.ssh_config,
    )


def _parallel(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_PARALLEL:
        why = f"a cluster takes {CONNECTIONS} client connections, of which the proof of a host makes two"
        raise ValueError(
            f"{text!r} is not a number from 1 to {MOST_PARALLEL}: {why}, and applications want theirs"
        )
    return int(text)


def _desired(
    view: HostView,
    targets: Sequence[Target],
    flags: RawOptions,
    below: Sequence[RawOptions],
    input_errors: InputErrors,
) -> dict[str, Desired]:
    """Settle the options of every host; what many hosts share is settled, read and complained about once."""
    made: dict[str, Desired | None] = {}
    anchors: _Anchors = {}
    found = {}
    for target in targets:
        key = repr(sorted(target.options.items()))
        if key not in made:
            own = InputErrors()
            try:
                made[key] = _ready(view, resolve((flags, dict(target.options), *below), own), anchors, own)
            except AgentError as error:
                if error.code.name != "config-invalid":
                    raise
                made[key] = None
            for text in own.texts:
                input_errors.add(target.where if target.options else "options", text)
        desired = made[key]
        if desired is not None:
            found[target.name] = desired
    return found


def _ready(view: HostView, desired: Desired, anchors: _Anchors, input_errors: InputErrors) -> Desired:
    """Read here what is this machine's: the CA is sent as text, and a folder of packages is this machine's folder."""
    source = desired.ca_cert
    if source is not None:
        key = (source, desired.ca_fingerprint)
        if key not in anchors:
            ca = read_ca(
                read_source(view, source, Timeouts()), now=view.now(), fingerprint=desired.ca_fingerprint
            )
            anchors[key] = f"inline:{ca.pem.decode()}"
        desired = replace(desired, ca_cert=anchors[key])
    folder = desired.package_source
    if folder is not None and "://" not in folder:
        if not Path(folder).is_dir():
            input_errors.add("--package-source", f"there is no folder {folder}")
        desired = replace(desired, package_source=str(Path(folder).absolute()))
    return desired
