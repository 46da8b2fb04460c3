"""What runs SDK 3's daemon on each kind of system: systemd, or the service control manager of Windows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.core.errors import AgentError
from agent.windows.registry import read_key

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

# USER_HZ, in which /proc counts; the same on every processor the client is made for
_TICKS = 100.0
_SERVICES = r"HKLM\SYSTEM\CurrentControlSet\Services"
_STATES = {
    "RUNNING": "active",
    "START_PENDING": "activating",
    "STOP_PENDING": "deactivating",
    "STOPPED": "inactive",
}
_START_TYPES = {2: "enabled", 3: "disabled", 4: "disabled"}
_ABSENT = 1060
# the state of a daemon that is frozen (SIGSTOP, a debugger): its service manager still calls it active
HALTED = "stopped by a signal"


@dataclass(frozen=True)
class ServiceStatus:
    """The state of the daemon, in systemd's words. `started` is epoch seconds, None when it does not run.

    `run` identifies one run of the daemon; `restarts` counts how often its service manager restarted it because it had
    ended by itself.
    """

    active: str
    enabled: str
    started: float | None
    run: str = ""
    restarts: int = 0

    @property
    def is_masked(self) -> bool:
        """Whether nobody can start it; it may run all the same, and once it is stopped it stays so."""
        return self.enabled.startswith("masked")

    @property
    def is_up(self) -> bool:
        return self.active in ("active", "activating", "reloading")


class ServiceManager(Protocol):
    """What keeps a service running. The tuples are complete commands."""

    def status(self, view: HostView, service: str, daemon: str, timeout: float) -> ServiceStatus:
        """Return its state; a missing service is `inactive, not installed`, and what cannot be known is unknown."""

    def recent_log(self, view: HostView, service: str, timeout: float) -> str:
        """Return the daemon's last log lines, empty when there are none."""

    def is_running(self, host: Host, service: str, timeout: float) -> bool:
        """Tell whether it runs. Takes a Host: an interrupt refuses every query of a view, and not its `run`."""

    def start(self, service: str) -> tuple[str, ...]: ...

    def stop(self, service: str) -> tuple[str, ...]: ...

    def enable(self, service: str) -> tuple[str, ...]: ...

    def disable(self, service: str) -> tuple[str, ...]:
        """Stop it too."""


@dataclass(frozen=True)
class Systemd:
    """The daemon as a unit of systemd; a release that does not know a property leaves it out."""

    def status(self, view: HostView, service: str, daemon: str, timeout: float) -> ServiceStatus:  # noqa: ARG002
        is_known, properties = _shown(view, service, timeout)
        pid, restarts = properties.get("MainPID", "0"), properties.get("NRestarts", "")
        fields = _fields(view, pid)
        return ServiceStatus(
            HALTED if fields[:1] in (["T"], ["t"]) else properties.get("ActiveState") or "unknown",
            properties.get("UnitFileState") or ("not installed" if is_known else "unknown"),
            _started(view, fields),
            f"{properties.get('InvocationID', '')} {pid}",
            int(restarts) if restarts.isascii() and restarts.isdigit() else 0,
        )

    def recent_log(self, view: HostView, service: str, timeout: float) -> str:
        # its own lines alone: without those of systemd, and without those of the run before
        _, said_of = _shown(view, service, timeout)
        invocation, pid = said_of.get("InvocationID", ""), said_of.get("ExecMainPID", "0")
        if re.fullmatch(r"[0-9a-f]{32}", invocation):
            whose: tuple[str, ...] = (f"_SYSTEMD_INVOCATION_ID={invocation}",)
        elif pid.isdigit() and pid != "0":  # systemd before 232
            whose = (f"_SYSTEMD_UNIT={service}.service", f"_PID={pid}")
        else:
            whose = (f"_SYSTEMD_UNIT={service}.service",)
        journal = ("journalctl", *whose, "--lines=3", "--output=cat", "--no-pager")
        done = view.query(journal, timeout=timeout)
        lines = [line.strip()[:300] for line in done.out.splitlines() if line.strip()]
        return " / ".join(lines) if done.ok and "-- No entries --" not in lines else ""

    def is_running(self, host: Host, service: str, timeout: float) -> bool:
        return host.run(("systemctl", "is-active", "--quiet", service), timeout=timeout).ok

    def start(self, service: str) -> tuple[str, ...]:
        return ("systemctl", "start", service)

    def stop(self, service: str) -> tuple[str, ...]:
        return ("systemctl", "stop", service)

    def enable(self, service: str) -> tuple[str, ...]:
        return ("systemctl", "enable", service)

    def disable(self, service: str) -> tuple[str, ...]:
        return ("systemctl", "disable", "--now", service)


@dataclass(frozen=True)
class WindowsServices:
    """The daemon as a service of Windows; the words of `sc` that are read here are not translated."""

    def status(self, view: HostView, service: str, daemon: str, timeout: float) -> ServiceStatus:
        done = view.query(("sc", "query", service), timeout=timeout)
        if done.status == _ABSENT:
            return ServiceStatus("inactive", "not installed", None)
        state = re.search(rf": \d+ +({'|'.join(_STATES)})\b", done.out)
        active = _STATES[state[1]] if state else "unknown"
        return ServiceStatus(
            active,
            _start_type(view, service),
            _began(view, daemon, timeout) if active == "active" else None,
        )

    def recent_log(self, view: HostView, service: str, timeout: float) -> str:  # noqa: ARG002
        """Return nothing: the name of the daemon's log has a time stamp that is not documented (facts 3.3)."""
        return ""

    def is_running(self, host: Host, service: str, timeout: float) -> bool:
        return "RUNNING" in host.run(("sc", "query", service), timeout=timeout).out

    def start(self, service: str) -> tuple[str, ...]:
        return ("net", "start", service)

    def stop(self, service: str) -> tuple[str, ...]:
        return ("net", "stop", service)

    def enable(self, service: str) -> tuple[str, ...]:
        return ("sc", "config", service, "start=", "auto")

    def disable(self, service: str) -> tuple[str, ...]:
        return ("net", "stop", service)


def _shown(view: HostView, service: str, timeout: float) -> tuple[bool, dict[str, str]]:
    """Ask systemd; and tell whether it answered."""
    wanted = "ActiveState,UnitFileState,MainPID,ExecMainPID,InvocationID,NRestarts"
    done = view.query(("systemctl", "show", f"--property={wanted}", service), timeout=timeout)
    return done.ok, dict(line.partition("=")[::2] for line in done.out.splitlines())


def _start_type(view: HostView, service: str) -> str:
    try:
        return _START_TYPES.get(read_key(view, rf"{_SERVICES}\{service}").number("Start") or 0, "unknown")
    except AgentError as error:
        if error.ends_run:
            raise
        return "unknown"


def _began(view: HostView, daemon: str, timeout: float) -> float | None:
    """Return when the youngest process of this program began: its own file is mapped by it."""
    found = view.processes_mapping(daemon, timeout=timeout)
    return max((each.started for each in found), default=None)


def _fields(view: HostView, pid: str) -> list[str]:
    """Return what the kernel says of a process behind its name, which stands in parentheses and may hold anything."""
    stat = view.read(f"/proc/{pid}/stat") if pid not in ("", "0") else None
    return (stat or b"").rpartition(b")")[2].decode("ascii", "replace").split()


def _started(view: HostView, fields: list[str]) -> float | None:
    """Return when a process began, on the clock that files are dated by.

    systemd reports that in whole seconds of the local time zone, or on a clock that stands still while the machine
    sleeps; /proc counts from the boot on, in hundredths.
    """
    uptime = view.read("/proc/uptime")
    now = view.now().timestamp()
    if not fields or uptime is None:
        return None
    return now - float(uptime.split()[0]) + float(fields[19]) / _TICKS  # the 22nd, with pid and name
