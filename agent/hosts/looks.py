"""What `ask` may run: everything the agent ever looks at with a program, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.authenticode import ARGV as AUTHENTICODE
from agent.core.system import LINUX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.system import System


@dataclass(frozen=True)
class Look:
    """A program, a pattern for each of its first words, and one for all further words (None: no more)."""

    program: str
    words: tuple[str, ...] = ()
    rest: str | None = None


_ANY = r".*"
_NO_FLAG = r"[^-].*"
# what the client is asked on either system
_CLIENT = (
    ((r"--version",), None),
    ((r"cluster", r"hsm-info"), _ANY),
    ((r"user", r"list"), _ANY),
)
_JOURNAL = (r"--lines=\d+", r"--output=cat", r"--no-pager")
LOOKS = (
    Look("dpkg-query", (r"-W|--show|-L|--listfiles",), _ANY),
    Look("dpkg-deb", (r"-f|--field", _NO_FLAG), _NO_FLAG),
    Look("dpkg", (r"--audit",), _NO_FLAG),
    # --pipe runs a command, and so does a macro with parentheses
    Look("rpm", (r"-q[acdfilpsR]*",), r"(?!--pipe|--define|--eval|-E|-D).*"),
    Look("rpm", (r"--eval", r"%\{[\w?!:.]+\}")),
    Look("ldd", (_NO_FLAG,)),
    Look("uname", (r"-m",)),
    Look("systemctl", (r"is-active|is-enabled|show",), _ANY),
    Look("journalctl", (r"_SYSTEMD_UNIT=[\w.-]+", *_JOURNAL)),
    Look("journalctl", (r"_SYSTEMD_UNIT=[\w.-]+", r"_PID=\d+", *_JOURNAL)),
    Look("journalctl", (r"_SYSTEMD_INVOCATION_ID=[0-9a-f]{32}", *_JOURNAL)),
    *(Look("/opt/cloudhsm/bin/cloudhsm-cli", words, rest) for words, rest in _CLIENT),
    Look("/opt/cloudhsm/bin/cloudhsm_mgmt_util", (r"/.*",)),
)

# On Windows; a program of the system is called by its bare name, so that it comes from a folder of the system.
_WINDOWS = (
    Look(AUTHENTICODE[0], tuple(re.escape(word) for word in AUTHENTICODE[1:])),
    Look("tasklist", (r"/fi", r"PID eq \d+", r"/fo", r"csv", r"/nh")),
    Look("sc", (r"query|queryex|qc", r"[\w.-]+")),
)


class ForbiddenLook(BaseException):
    """A program outside the allow-list was given to `ask`.

    A defect of the agent that could change a machine during a dry run: it is no Exception, so that no handler
    meant for failures of the machine (`except Exception`) can turn it into one more finding.
    """


def of(system: System) -> tuple[Look, ...]:
    """Return the table of a kind of system."""
    if system == LINUX:
        return LOOKS
    root = system.join(system.programs, "Amazon", "CloudHSM")
    client = system.join(root, "bin", "cloudhsm-cli.exe")
    utility = Look(system.join(root, "cloudhsm_mgmt_util.exe"), (r"[^/-].*\.cfg",))
    return (*_WINDOWS, utility, *(Look(client, words, rest) for words, rest in _CLIENT))


def allowed(argv: Sequence[str], looks: Sequence[Look] = LOOKS) -> bool:
    """Tell whether this command only looks. With another table than that of Linux, programs are named in full."""
    if not argv:
        return False
    program = argv[0]
    if looks is LOOKS and not program.startswith("/opt/cloudhsm/"):
        program = program.rsplit("/", 1)[-1]
    return any(program == look.program and _fits(argv[1:], look) for look in looks)


def require(argv: Sequence[str], looks: Sequence[Look] = LOOKS) -> None:
    """Raise ForbiddenLook unless the command only looks."""
    if not allowed(argv, looks):
        raise ForbiddenLook(f"not in agent/hosts/looks.py: {' '.join(argv)!r}")


def _fits(words: Sequence[str], look: Look) -> bool:
    patterns = (*look.words, *(() if look.rest is None else (look.rest,) * (len(words) - len(look.words))))
    return len(words) == len(patterns) and all(
        re.fullmatch(pattern, word, re.DOTALL) for pattern, word in zip(patterns, words)
    )
