"""The silent killers: what lets a host look configured while the programs on it cannot use the client."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from agent.cloudhsm.layout import CLIENT3_SETTINGS, LIBRARIES, LINUX
from agent.core.words import Notice, Restart

if TYPE_CHECKING:
    from agent.core.host import HostView, Running


def running(view: HostView, components: tuple[str, ...]) -> tuple[Running, ...]:
    """Return the programs that use the client's libraries; none are looked for where no library is installed."""
    if not set(components) & set(LIBRARIES):
        return ()
    return view.mapping(f"{LINUX.root}/")


def restarts(view: HostView, programs: tuple[Running, ...]) -> tuple[Restart, ...]:
    """Return the programs that started before their component's configuration or the CA changed: they use the old."""
    found = []
    ca = view.stat(LINUX.ca)
    for program in programs:
        for component in sorted({_component(path) for path in program.mapped} - {None}, key=str):
            stat = view.stat(LINUX.settings(str(component)))
            changed = max((each.mtime for each in (stat, ca) if each is not None), default=0.0)
            if program.started < changed:
                started = datetime.datetime.fromtimestamp(program.started, datetime.timezone.utc)
                found.append(
                    Restart(program.pid, program.name, str(component), started.isoformat(timespec="seconds"))
                )
    return tuple(found)


def hazards(view: HostView, programs: tuple[Running, ...], sdk: int) -> tuple[Notice, ...]:
    """Return what will bite later. `sdk` is the generation that is meant to be here."""
    notices = list(_log_folder(view, programs, sdk))
    if sdk == 5:
        left = [path for path in (CLIENT3_SETTINGS, f"{LINUX.root}/daemon") if view.stat(path) is not None]
        left += [f"{LINUX.etc}/{name}" for name in view.names(LINUX.etc) if name.endswith(".rpmsave")]
        if left:
            text = f"left by an earlier client, not used any more: {', '.join(left)}"
            notices.append(Notice("client-leftovers", text))
    return tuple(notices)


def _log_folder(view: HostView, programs: tuple[Running, ...], sdk: int) -> list[Notice]:
    """A program that cannot write its log falls back to standard error, or ends (GH cfn-template#16)."""
    stat = view.stat(LINUX.run)
    if stat is None:
        return []
    notices = []
    if sdk == 5 and stat.uid != 0:
        text = f"{LINUX.run} belongs to uid {stat.uid}, as SDK 3 left it; `chown root:root {LINUX.run}` puts it right"
        notices.append(Notice("log-folder-owner", text))
    for program in programs:
        writable = (
            program.uid in (0, stat.uid)
            or stat.mode & 0o002
            or (program.gid == stat.gid and stat.mode & 0o020)
        )
        if not writable:
            text = (
                f"{program.name} (pid {program.pid}, uid {program.uid}) may not write logs in {LINUX.run};"
                " give it --log-file elsewhere or --log-type term"
            )
            notices.append(Notice("log-folder-not-writable", text))
    return notices


def _component(path: str) -> str | None:
    name = path.rsplit("/", 1)[-1]
    return next((component for component, part in LIBRARIES.items() if part in name), None)
