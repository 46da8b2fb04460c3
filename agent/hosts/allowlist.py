"""What `query` may run: every read-only command of the agent, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.windows.authenticode_query import ARGV as AUTHENTICODE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.system import System


@dataclass(frozen=True)
class AllowedCommand:
    """A program, a pattern for each of its first words, and one for all further words (None: no more)."""

    program: str
    words: tuple[str, ...] = ()
    rest: str | None = None


_NO_FLAG = r"[^-].*"
# the queries to the client on either system
_CLIENT = ((r"cluster", r"hsm-info"), (r"user", r"list"))
_JOURNAL = (r"--lines=\d+", r"--output=cat", r"--no-pager")
_ON_LINUX = (
    AllowedCommand("dpkg-query", (r"-W", r"-f=.*"), _NO_FLAG),
    AllowedCommand("dpkg-query", (r"-L", _NO_FLAG)),
    # no further flag: --pipe runs a command, and so does a macro with parentheses
    AllowedCommand("rpm", (r"-qa", r"--qf", r"(%\{\w+\}|\\[tn]|-)+"), _NO_FLAG),
    AllowedCommand("rpm", (r"-ql", _NO_FLAG)),
    AllowedCommand("ldd", (_NO_FLAG,)),
    AllowedCommand("uname", (r"-m",)),
    AllowedCommand("systemctl", (r"show", r"--property=[\w,]+", _NO_FLAG)),
    AllowedCommand("journalctl", (r"_SYSTEMD_UNIT=[\w.-]+", *_JOURNAL)),
    AllowedCommand("journalctl", (r"_SYSTEMD_UNIT=[\w.-]+", r"_PID=\d+", *_JOURNAL)),
    AllowedCommand("journalctl", (r"_SYSTEMD_INVOCATION_ID=[0-9a-f]{32}", *_JOURNAL)),
    AllowedCommand(
        "journalctl",
        (r"(SYSLOG_IDENTIFIER|_SYSTEMD_UNIT)=[\w.-]+", r"--lines=\d+", r"--output=short-iso", r"--no-pager"),
    ),
    *(AllowedCommand("/opt/cloudhsm/bin/cloudhsm-cli", words) for words in _CLIENT),
    AllowedCommand("/opt/cloudhsm/bin/cloudhsm_mgmt_util", (r"/.*",)),
)

# On Windows; a program of the system is called by its bare name, so that it is found in a folder of the system.
_ON_WINDOWS = (
    AllowedCommand(AUTHENTICODE[0], tuple(re.escape(word) for word in AUTHENTICODE[1:])),
    AllowedCommand("tasklist", (r"/fi", r"PID eq \d+", r"/fo", r"csv", r"/nh")),
    AllowedCommand("sc", (r"query", r"[\w.-]+")),
)


class CommandNotAllowed(BaseException):
    """A program outside the allow-list was given to `query`.

    A defect of the agent that could change a machine during a dry run. It is no Exception, so that a handler
    for failures of the machine (`except Exception`) cannot turn it into a finding.
    """


def of(system: System) -> tuple[AllowedCommand, ...]:
    """Return the table for a system."""
    if not system.is_windows:
        return _ON_LINUX
    root = system.join(system.programs, "Amazon", "CloudHSM")
    client = system.join(root, "bin", "cloudhsm-cli.exe")
    utility = AllowedCommand(system.join(root, "cloudhsm_mgmt_util.exe"), (r"[^/-].*\.cfg",))
    return (*_ON_WINDOWS, utility, *(AllowedCommand(client, words) for words in _CLIENT))


def is_allowed(argv: Sequence[str], table: Sequence[AllowedCommand] = _ON_LINUX) -> bool:
    """Tell whether this command changes nothing. Only the table of Linux finds a program by its last path component."""
    if not argv:
        return False
    program = argv[0]
    if table is _ON_LINUX and not program.startswith("/opt/cloudhsm/"):
        program = program.rsplit("/", 1)[-1]
    return any(program == allowed.program and _fits(argv[1:], allowed) for allowed in table)


def require(argv: Sequence[str], table: Sequence[AllowedCommand] = _ON_LINUX) -> None:
    """Raise CommandNotAllowed unless the command changes nothing."""
    if not is_allowed(argv, table):
        raise CommandNotAllowed(f"not in agent/hosts/allowlist.py: {' '.join(argv)!r}")


def _fits(words: Sequence[str], allowed: AllowedCommand) -> bool:
    more = () if allowed.rest is None else (allowed.rest,) * (len(words) - len(allowed.words))
    patterns = (*allowed.words, *more)
    return len(words) == len(patterns) and all(
        re.fullmatch(pattern, word, re.DOTALL) for pattern, word in zip(patterns, words)
    )
