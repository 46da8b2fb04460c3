"""What a configured host can still have wrong, so that the programs on it cannot use the client."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.core.links import path_prefixes, resolve_link
from agent.core.model import Notice, StaleProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.cloudhsm.paths import ClientPaths
    from agent.core.errors import AgentError
    from agent.core.host import HostView, ProcessInfo

# how the kernel marks a file that was removed or replaced since it was mapped
_DELETED = " (deleted)"


def client_processes(
    view: HostView, here: ClientPaths, components: tuple[str, ...]
) -> tuple[ProcessInfo, ...]:
    """Return the programs that use the client's libraries; none are looked for where no library is installed.

    Raises AgentError `unreadable` where there are too many to check.
    """
    if not set(components) & set(here.libraries):
        return ()
    found: dict[int, ProcessInfo] = {}
    for folder in _real_folders(view, here):
        for each in view.processes_mapping(view.system.join(folder, "")):
            mapped = (*(found[each.pid].mapped if each.pid in found else ()), *each.mapped)
            found[each.pid] = replace(each, mapped=mapped)
    return tuple(found[pid] for pid in sorted(found))


def _real_folders(view: HostView, here: ClientPaths) -> list[str]:
    """Return where the client really lies: the kernel knows the files of a program by their paths without links."""
    if view.system.separator != "/":
        return [here.root]
    root, lib = (list(path_prefixes(view, path))[-1] for path in (here.root, here.lib))
    return [root] if lib.startswith(f"{root}/") else [root, lib]


def processes_to_restart(
    view: HostView, here: ClientPaths, programs: tuple[ProcessInfo, ...]
) -> tuple[StaleProcess, ...]:
    """Return the programs that use what was there before: an older configuration or CA, or a library since replaced."""
    ca = view.stat(resolve_link(view, here.ca))
    found = []
    for program, component in _used(here, programs):
        stat = view.stat(resolve_link(view, here.settings(component, view)))
        changed = max((each.mtime for each in (stat, ca) if each is not None), default=0.0)
        libraries = (path for path in program.mapped if path.endswith(_DELETED))
        if program.started < changed or component in {_component(here, path) for path in libraries}:
            found.append(_restart(program, component))
    return tuple(found)


def users(here: ClientPaths, programs: tuple[ProcessInfo, ...]) -> tuple[StaleProcess, ...]:
    """Return the programs that use the client, whenever they started: for when it goes."""
    return tuple(_restart(program, component) for program, component in _used(here, programs))


def _used(here: ClientPaths, programs: tuple[ProcessInfo, ...]) -> Iterator[tuple[ProcessInfo, str]]:
    for program in programs:
        for component in sorted({_component(here, path) for path in program.mapped} - {None}, key=str):
            yield program, str(component)


def _restart(program: ProcessInfo, component: str) -> StaleProcess:
    started = datetime.datetime.fromtimestamp(program.started, datetime.timezone.utc)
    return StaleProcess(program.pid, program.name, component, started.isoformat(timespec="seconds"))


def unread(error: AgentError) -> tuple[Notice, ...]:
    """Return a notice of programs that could not be checked, none for a run that is over."""
    if error.ends_run:
        return ()
    return (Notice("programs-unread", f"which programs use the client is not known: {error.saw}"),)


def configuration_warnings(
    view: HostView, here: ClientPaths, programs: tuple[ProcessInfo, ...], sdk: int
) -> tuple[Notice, ...]:
    """Return warnings about what fails later. `sdk` is the generation that is wanted here."""
    notices = list(_log_folder(view, here, programs, sdk))
    if sdk == 5:
        home = here.homes[0]
        left = [path for path in here.sdk3.leftovers if view.stat(path) is not None]
        left += [view.system.join(home, name) for name in view.list_dir(home) if name.endswith(".rpmsave")]
        if left:
            text = f"left by an earlier client, not used any more: {', '.join(left)}"
            notices.append(Notice("client-leftovers", text))
    return tuple(notices)


def _log_folder(
    view: HostView, here: ClientPaths, programs: tuple[ProcessInfo, ...], sdk: int
) -> list[Notice]:
    """A program that cannot write its log falls back to standard error, or ends (GH cfn-template#16)."""
    folder = here.log("").rpartition(view.system.separator)[0]
    stat = view.stat(resolve_link(view, folder))
    if stat is None or stat.uid < 0:  # Windows has no numbers for users
        return []
    notices = []
    if sdk == 5 and stat.uid != 0:
        text = (
            f"{folder} belongs to uid {stat.uid}, as SDK 3 left it; `chown root:root {folder}` puts it right"
        )
        notices.append(Notice("log-folder-owner", text))
    for program in programs:
        writable = (
            program.uid in (0, stat.uid)
            or stat.mode & 0o002
            or (program.gid == stat.gid and stat.mode & 0o020)
        )
        if not writable:
            text = (
                f"{program.name} (pid {program.pid}, uid {program.uid}) may not write logs in {folder};"
                " give it --log-file elsewhere or --log-type term"
            )
            notices.append(Notice("log-folder-not-writable", text))
    return notices


def _component(here: ClientPaths, path: str) -> str | None:
    name = path.rpartition(here.system.separator)[2].lower()
    return next((component for component, part in here.libraries.items() if part in name), None)
