"""The two kinds of system, as rows: where each keeps the agent's files, and which services of it the agent uses."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Tasks:
    """The use of the Task Scheduler of Windows: the folder in which it keeps a file for each registered task.

    `verify` is the description of the daily check that an installed agent brings, `first_boot` the request that
    user-data left for the first boot.
    """

    registered: str
    verify: str
    first_boot: str


@dataclass(frozen=True)
class System:
    r"""One kind of system. Paths are as people write them there, with spaces and backslashes on Windows.

    `programs` and `data` are the folders of installed software and of its data: `/opt` and `/var`, %ProgramFiles% and
    %ProgramData%. `package_db_paths` are the package managers' databases, where an installation writes too.
    `log_command` is the command that shows what happens before there is a report; `admin_role` is the role that may
    change a host. `report_mode` decides who can read the last report: all users, or the administrators alone.
    `firewall` is the name of the system's firewall, None where the agent cannot add rules to one; `tasks` is None where
    packages bring systemd units.
    """

    kind: str
    programs: str
    data: str
    separator: str
    configuration: str
    configuration_folder: str
    state: str
    cache: str
    log: str
    lock: str
    delivery_lock: str
    package_db_paths: tuple[str, ...]
    log_command: str
    admin_role: str
    report_mode: int = 0o644
    firewall: str | None = None
    tasks: Tasks | None = None

    @property
    def is_windows(self) -> bool:
        return self.kind == "windows"

    @property
    def report(self) -> str:
        return self.join(self.state, "report.json")

    @property
    def desired(self) -> str:
        return self.join(self.state, "desired.json")

    @property
    def snapshots(self) -> str:
        return self.join(self.state, "snapshots")

    @property
    def spool(self) -> str:
        return self.join(self.state, "spool")

    def join(self, *names: str) -> str:
        return self.separator.join(names)


LINUX = System(
    kind="linux",
    programs="/opt",
    data="/var",
    separator="/",
    configuration="/etc/hsm-agent/config.toml",
    configuration_folder="/etc/hsm-agent/conf.d",
    # 0711: any user may read report.json by its name (`status` works without root), none may list the other files.
    state="/var/lib/hsm-agent",
    cache="/var/cache/hsm-agent",
    log="/var/log/hsm-agent",
    lock="/run/hsm-agent.lock",
    delivery_lock="/run/hsm-agent-spool.lock",
    package_db_paths=("/var/lib/dpkg", "/var/lib/rpm"),
    log_command="journalctl -t hsm-agent -u hsm-agent-first-boot",
    admin_role="root",
)


def windows(
    programs: str = r"C:\Program Files", data: str = r"C:\ProgramData", root: str = r"C:\Windows"
) -> System:
    """Return the row of a Windows; the folders are the values of %ProgramFiles%, %ProgramData% and %SystemRoot%."""
    own = rf"{data}\hsm-agent"
    return System(
        kind="windows",
        programs=programs,
        data=data,
        separator="\\",
        configuration=rf"{own}\config.toml",
        configuration_folder=rf"{own}\conf.d",
        state=rf"{own}\state",
        cache=rf"{own}\cache",
        log=rf"{own}\log",
        lock=rf"{own}\state\hsm-agent.lock",
        delivery_lock=rf"{own}\state\hsm-agent-spool.lock",
        # a user who has a file open there, to read it, prevents its replacement
        report_mode=0o600,
        package_db_paths=(),
        log_command="wevtutil qe Application \"/q:*[System[Provider[@Name='hsm-agent']]]\" /f:text",
        admin_role="an administrator, elevated",
        firewall="Windows Firewall",
        tasks=Tasks(
            registered=rf"{root}\System32\Tasks",
            verify=rf"{programs}\hsm-agent\agent\templates\windows\hsm-agent-verify.xml",
            first_boot=rf"{own}\first-boot.json",
        ),
    )


def is_absolute(path: str) -> bool:
    """Tell whether a path is absolute on either kind of system: a path may be for another host than this one."""
    return re.match(r"/(?!/)|[A-Za-z]:[\\/]|\\\\[^\\/]+\\[^\\/]+", path) is not None


def is_stream(path: str) -> bool:
    """Tell whether a path of Linux names a stream of this process or a device that takes text.

    Such a name is written to, and never replaced; most are links, whose targets do not matter.
    """
    return (
        re.fullmatch(
            r"/dev/(std(out|err)|fd/\d{1,9}|null|full|console|tty\w*|pts/\d{1,9})|/proc/self/fd/\d{1,9}", path
        )
        is not None
    )
