"""The two kinds of system, as rows: where each keeps the agent's own things, and what lies beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Tasks:
    """What the Task Scheduler of Windows does for us: the folder where it keeps what is registered, a file each.

    `verify` is the description of the daily look that an installed agent brings, `first_boot` what user-data left to be
    configured.
    """

    registered: str
    verify: str
    first_boot: str


@dataclass(frozen=True)
class System:
    r"""One kind of system. Paths are as people write them there, with blanks and back strokes on Windows.

    `programs` and `data` are the folders below which software lies and keeps what it makes: `/opt` and `/var`,
    %ProgramFiles% and %ProgramData%. `databases` are those of the package managers, where an installation writes too.
    `story` is the command that shows what goes on when there is no report yet, `mighty` who may change a host.
    `report_mode` is for whom the last report is: everybody, or the administrators alone.
    `firewall` is what the system's own firewall is called, None where none can be told to let us out; `tasks` is None
    where packages bring units.
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
    # 0711: anyone may read report.json by its name (`status` works without root), nobody may list what else there is.
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
    """Return the row of a Windows; the folders are what it says in %ProgramFiles%, %ProgramData% and %SystemRoot%."""
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
        # whoever has a file open there, to read it, keeps it from being replaced
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
    """Tell whether a path is absolute on either kind of system: what is typed may be for another host than this one."""
    return re.match(r"/(?!/)|[A-Za-z]:[\\/]|\\\\[^\\/]+\\[^\\/]+", path) is not None


def is_stream(path: str) -> bool:
    """Tell whether a path of Linux names a stream of this process or a device that takes text.

    Such a name is written to, and never replaced; most are links, and what they lead to is no file's business.
    """
    return (
        re.fullmatch(
            r"/dev/(std(out|err)|fd/\d{1,9}|null|full|console|tty\w*|pts/\d{1,9})|/proc/self/fd/\d{1,9}", path
        )
        is not None
    )
