"""The agent's own package: installed with its daily verify, as a roll-out brings it; or absent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from agent.catalogue import parse_version
from agent.cloudhsm.disk_space import refuse_without_room
from agent.core.errors import AgentError
from agent.core.model import Finding
from agent.core.urls import PUSHED, below
from agent.package_managers.agent_package import AGENT_MANAGERS, PACKAGE, TIMER
from agent.steps.package import Download
from agent.windows import scheduler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.codes import CodeName
    from agent.core.host import Host, HostView
    from agent.core.model import Notice
    from agent.core.timeouts import Timeouts
    from agent.facts import Facts
    from agent.package_managers import Installed, PackageManager

# below what a roll-out pushes: its own packages, beside those of the vendor
OWN = f"{PUSHED}/agent"
# The packages run by the distribution's Python 3.9 or newer, which is what its `python3` means; X.Y.Z of a version.
_PYTHON, _FLOOR, _PARTS = "/usr/bin/python3", 9, 3
_SYSTEMD = "/run/systemd/system"


@dataclass(frozen=True)
class AgentPackages:
    """What a roll-out brings: the agent's packages of one version, by kind, each with its file name and SHA-256.

    A kind is that of the manager; with a processor after it, the package has an interpreter in it.
    """

    version: str
    files: Mapping[str, tuple[str, str]]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> AgentPackages:
        """Read what an operator sent. Raises KeyError for an incomplete one."""
        packages = values["packages"]
        return cls(
            values["version"], {kind: (each["file"], each["sha256"]) for kind, each in packages.items()}
        )

    def to_json(self) -> dict[str, Any]:
        packages = {kind: {"file": file, "sha256": sha256} for kind, (file, sha256) in self.files.items()}
        return {"version": self.version, "packages": packages}

    def step(self, view: HostView, facts: Facts, limits: Timeouts) -> AgentInstalled:
        """Return the step that installs what fits this host. Raises AgentError `package-not-found`."""
        has_python = facts.format == "msi" or _has_python(view)
        kind = facts.format if has_python else f"{facts.format}-{facts.arch}"
        if kind not in self.files:
            raise AgentError(
                "package-not-found",
                "the roll-out has no package of the agent for this host",
                saw=", ".join(sorted(self.files)) or "none",
                want=kind
                if has_python
                else f"{kind}, with an interpreter in it: there is no Python 3.9 here",
                hint="`python packaging/build.py` makes them, `--windows` and `--linux` the others; then name their "
                "directory: `--agent-packages DIR`",
            )
        file, sha256 = self.files[kind]
        download = Download(below(OWN, file), file, sha256)
        return AgentInstalled(self.version, download, AGENT_MANAGERS[facts.format], limits)


def _has_python(view: HostView) -> bool:
    """Return whether the distribution's own Python is new enough, by the name that its link leads to."""
    target = (view.readlink(_PYTHON) or "").rpartition("/")[2]
    major, _, minor = (
        target.removeprefix("python").partition(".") if target.startswith("python") else ("", "", "")
    )
    return major == "3" and minor.isdigit() and int(minor) >= _FLOOR


@dataclass(frozen=True)
class AgentInstalled:
    """The agent's package is installed, at this version or a newer one, and its daily verify is on.

    Without systemd nothing could start that, and the package alone is wanted.
    """

    id: ClassVar[str] = "agent"
    not_applied_code: ClassVar[CodeName] = "package-failed"

    version: str
    download: Download
    manager: PackageManager = field(repr=False)
    limits: Timeouts = field(repr=False)

    def check(self, view: HostView) -> Finding:
        there = _there(view, self.manager)
        has_timer = view.system.is_windows or view.stat(_SYSTEMD) is not None
        verifies = not has_timer or _verifies(view)
        want = f"{self.version}{', its daily verify on' if has_timer else ', and no systemd for its daily verify'}"
        if there is not None and self._is_enough(there):
            newer = "" if _number(there.version) == _number(self.version) else ", which is newer and stays"
            off = "" if verifies else ", its daily verify off"
            return Finding(met=verifies, saw=f"{there.version}{newer}{off}", want=want)
        refuse_without_room(view, *view.system.package_db_paths, view.system.cache)
        remark = f" ({there.remark})" if there is not None and there.remark else ""
        return Finding.unmet(f"{there.version}{remark}" if there is not None else "absent", want)

    def apply(self, host: Host) -> tuple[Notice, ...]:
        """Install what is not there, and turn the daily verify on."""
        notices: tuple[Notice, ...] = ()
        there = _there(host, self.manager)
        if there is None or not self._is_enough(there):
            self.download.ensure_cached(host, self.limits)
            notices = self.manager.install(host, (self.download.path(host),), self.limits)
            host.remove(self.download.path(host))
        if host.system.is_windows:
            return (*notices, *scheduler.ensure_daily_verify(host))
        if host.stat(_SYSTEMD) is not None and not _verifies(host):
            host.run(("systemctl", "enable", "-q", "--now", TIMER), timeout=self.limits.tool)
        return notices

    def _is_enough(self, there: Installed) -> bool:
        return there.is_complete and _number(there.version) >= _number(self.version)


@dataclass(frozen=True)
class AgentAbsent:
    """The package named hsm-agent is not installed, whoever installed it. What it kept of this host stays."""

    id: ClassVar[str] = "agent"
    not_applied_code: ClassVar[CodeName] = "package-failed"

    manager: PackageManager = field(repr=False)
    limits: Timeouts = field(repr=False)

    def check(self, view: HostView) -> Finding:
        there = _there(view, self.manager)
        return Finding(met=there is None, saw=there.version if there else "absent", want="absent")

    def apply(self, host: Host) -> None:
        self.manager.remove(host, (PACKAGE,), self.limits)


def _there(view: HostView, manager: PackageManager) -> Installed | None:
    return next(iter(manager.installed(view)), None)


def _number(version: str) -> tuple[int, ...]:
    return parse_version(version)[:_PARTS]


def _verifies(view: HostView) -> bool:
    """Return whether the daily verify is enabled, and its timer runs."""
    tasks = view.system.tasks
    if tasks is not None:
        return view.stat(view.system.join(tasks.registered, scheduler.VERIFY)) is not None
    done = view.query(("systemctl", "show", "--property=UnitFileState,ActiveState", TIMER), timeout=10)
    return {"UnitFileState=enabled", "ActiveState=active"} <= set(done.out.splitlines())
