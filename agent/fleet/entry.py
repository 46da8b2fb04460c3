"""How the far end is entered on each kind of system: the line for its shell, and what goes over standard input first.

Every line is constant, so nothing is ever quoted: what a host is to do goes over standard input.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import landing
from agent.core.errors import AgentError
from agent.core.system import LINUX, windows
from agent.render.templates import render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.core.fleet import Target
    from agent.fleet.tree import Tree, Trees

POSIX, WINDOWS = LINUX.kind, windows().kind

# One line in single quotes without a backslash or an exclamation mark means the same to every login shell. The first
# Python that is new enough runs what comes: the length of the landing program in a line, and then the program. -S
# leaves out the host's own site-packages, which cost time and might hold another version of a library of ours. The
# last word says in a list of processes whose it is; `status --wait` looks for it too.
_TOO_OLD = 93
_PYTHON = (
    f"import sys; sys.exit({_TOO_OLD}) if sys.version_info < (3, 9) else "
    "exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
)
_PYTHONS = "python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9"
COMMAND = (
    "exec /bin/sh -c '"
    's=; [ "$(id -u)" = 0 ] || s="sudo -n"; '
    f"for p in {_PYTHONS}; do "
    "p=$(command -v $p) || continue; "
    f'$s $p -I -S -X utf8 -c "{_PYTHON}" hsm-agent; '
    f"r=$?; [ $r = {_TOO_OLD} ] || exit $r; "
    "$p --version >&2; "
    f"done; exit {_TOO_OLD}'"
)

# cmd answers `Windows_NT $env:OS`, PowerShell `%OS%` and `Windows_NT` on lines of their own, any other shell neither.
QUESTION = "echo %OS% $env:OS"
_ANSWERS = (b"Windows_NT $env:OS", b"Windows_NT")

# cmd and PowerShell read this alike, whichever is the default shell of sshd. -InputFormat None: PowerShell itself must
# not read the input.
_POWERSHELL = "powershell -NoProfile -NonInteractive -InputFormat None -EncodedCommand "
# What it says of an encoded command is XML: errors as `S`, with line ends as _x000D__x000A_. Around an error's words
# stands where in the script it was, and how PowerShell files it.
_XML_ERROR = re.compile(r'<S S="Error">(.*?)</S>', re.DOTALL)
_XML_CHARACTER = re.compile(r"_x([0-9A-F]{4})_")
_AROUND = re.compile(r"\s*(\+ |At line:)")

_LANDING = Path(landing.__file__)


class SilentError(AgentError):
    """Nobody of ours answered, and it may be that the host's shell is of another kind."""


@dataclass(frozen=True)
class Entry:
    """One way in. `tree` is what travels there; `program` sees to it, and is run by what `command` starts.

    One that `settles` takes of the request only what it says of the tree, and the rest when it says `settled`: the
    program there starts another, which finds its request on the same input.
    """

    system: str
    command: str
    program: bytes = field(repr=False)
    tree: Tree
    settles: bool

    def opening(self, request: Mapping[str, Any]) -> bytes:
        """Return what is sent before anything was heard."""
        first = {**request["tree"], "word": request["word"]} if self.settles else request
        return f"{len(self.program)}\n".encode() + self.program + line(first)

    def silence(self, status: int | None, said: str) -> AgentError:
        """Say why nothing came: the words of whoever answered instead are all that there is to go by."""
        if self.system == WINDOWS:
            saw = last_words(status, _said_by_powershell(said))
            return AgentError(
                "far-end-failed", "no PowerShell script could be run on the host", saw=saw,
                want="Windows with PowerShell 5.1, and cmd or PowerShell as the default shell of sshd",
                hint="look whether a policy, or software against viruses, forbids `powershell -EncodedCommand` there",
            )  # fmt: skip
        saw = last_words(status, said)
        if status == _TOO_OLD:
            return AgentError(
                "python-missing", "the host has no Python that the agent can use",
                saw=saw if said else "no python3 at all", want="Python 3.9 or newer",
            )  # fmt: skip
        if "sudo: " in said:
            return AgentError(
                "sudo-refused", "the user may not become root without a password", saw=saw, want="sudo -n"
            )
        return SilentError(
            "far-end-failed", "no Python program could be started on the host", saw=saw,
            want="a login shell that runs commands",
        )  # fmt: skip


class Ways:
    """The ways into the hosts of a whole roll-out, made once, and which of them led into each host before."""

    def __init__(self, trees: Trees) -> None:
        self._posix = Entry(POSIX, COMMAND, _LANDING.read_bytes(), trees.posix, settles=False)
        self._tree = trees.windows
        self._lock = threading.Lock()
        self._windows: Entry | None = None
        self._found: set[str] = set()

    def into(self, target: Target) -> Entry:
        """Return the way that was said or found, else that of most hosts. Raises AgentError `tree-missing`."""
        if target.system == WINDOWS or target.name in self._found:
            return self.into_windows(target)
        return self._posix

    def into_windows(self, target: Target) -> Entry:
        """Return the way into a host that turned out to be Windows. Raises AgentError `tree-missing`."""
        self._found.add(target.name)
        if self._tree is None:
            raise AgentError(
                "tree-missing", "there is no build for Windows to send to the host", saw="none",
                want="hsm-agent-VERSION-x86_64-windows-HASH.zip",
                hint="`python packaging/build.py --windows` makes it in dist/; then name it: `--windows-tree FILE`",
            )  # fmt: skip
        with self._lock:
            self._windows = self._windows or _windows(self._tree)
            return self._windows


def _windows(tree: Tree) -> Entry:
    start = render("fleet/start.ps1", patience=landing.PATIENCE)
    program = render("fleet/landing.ps1", draft=landing.DRAFT, kept=landing.KEPT)
    encoded = base64.b64encode(start.encode("utf-16-le")).decode("ascii")
    return Entry(WINDOWS, f"{_POWERSHELL}{encoded}", program.encode("ascii"), tree, settles=True)


def _said_by_powershell(said: str) -> str:
    errors = _XML_ERROR.findall(said)
    if errors:
        said = _XML_CHARACTER.sub(lambda found: chr(int(found[1], 16)), html.unescape("".join(errors)))
    lines = [each.rstrip() for each in said.splitlines() if each.strip()]
    return "\n".join([each for each in lines if not _AROUND.match(each)] or lines)


def last_words(status: int | None, said: str) -> str:
    """Return the end of what was said on standard error, or else how the command ended."""
    ended = "death by a signal" if status is None else f"exit {status}"
    return "\n".join(said.splitlines()[-3:]) or ended


def line(value: Mapping[str, Any]) -> bytes:
    """Write a value as the other side reads it: JSON in one line, in ASCII."""
    return json.dumps(value).encode() + b"\n"


def is_windows(answer: bytes) -> bool:
    """Tell by the answer to `QUESTION` whether it is a shell of Windows, whatever else was printed around it."""
    return any(each.strip() in _ANSWERS for each in answer.splitlines())
