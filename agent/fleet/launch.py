"""How the agent is started on a host of each kind: the command for its shell, and what standard input has first.

Every command is constant, so no value is ever quoted: what a host is to do goes over standard input.
"""

from __future__ import annotations

import ast
import base64
import html
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent import __version__
from agent.core.errors import AgentError
from agent.core.system import LINUX, windows
from agent.remote import protocol
from agent.render.templates import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.core.fleet_model import Target
    from agent.fleet.agent_archive import AgentArchive, AgentArchives
    from agent.remote.protocol import HostRequest

POSIX, WINDOWS = LINUX.kind, windows().kind

# Two words in single quotes without a backslash or an exclamation mark mean the same to every login shell. The first
# becomes root, once, so that sudo is asked and refuses once. The second, as root, looks for a Python that is new enough
# and has working TLS. That one reads the length of the bootstrap program in a line, and then runs the program. Until it
# begins to read it has consumed no input, so the next one can be tried: the first may be a version manager's shim, or
# an interpreter without its libraries. Its exit status says whether it began: ours ends with a number of its own, since
# a shim that does nothing ends with 0, or by a signal from outside (129 and so on). root's own directories come before
# those of the user, and the usual ones are added where start files lose them. -S leaves out the host's own
# site-packages, which cost time and may hold another version of a library of ours. The last word identifies the process
# in a list; `status --wait` looks for it too. No single `|`: cmd, which understands none of this, would start what
# follows it. A Python that is a script, as a version manager's shim is, may never start one: it is tried with a limit
# first. Others are not, since each start costs every host 20 ms.
_NO_PYTHON, _DONE, _NO_INPUT = 93, 94, 95
# how long such a script may take to start a Python, in seconds, and what stands for its exit status after that
_START, _HUNG = 10, 124
_PYTHON = (
    "import sys; sys.version_info < (3, 9) and sys.exit(sys.version.split()[0]); "
    "import ssl, json, hashlib, zlib, signal; ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); "
    f"sys.stdin or sys.exit({_NO_INPUT}); "
    f"signal.alarm({protocol.PATIENCE}); n = sys.stdin.buffer.readline().strip(); "
    f"n.isdigit() or sys.exit({_NO_INPUT}); exec(sys.stdin.buffer.read(int(n))); sys.exit({_DONE})"
)
_PYTHONS = (
    "python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 /usr/bin/python3 /usr/local/bin/python3 "
    "/usr/libexec/platform-python"
)
_ROOT = (
    'PATH="${PATH:+$PATH:}/usr/bin:/bin:/usr/sbin:/sbin"; '
    's=; [ "$(id -u)" = 0 ] || s="sudo -n"; exec $s /bin/sh -c "$0" hsm-agent "$PATH"'
)
_BEGIN = (
    'PATH="$PATH:$1"; t=; '
    f"for p in {_PYTHONS}; do "
    'p=$(command -v "$p") || continue; '
    'case "$t" in *":$p:"*) continue;; esac; t="$t:$p:"; '
    'm=; [ -r "$p" ] && read -r m <"$p"; '
    'case "$m" in "#"*) '
    f'timeout -k 2 {_START} "$p" -I -S -c pass </dev/null >/dev/null 2>&1; '
    f'case $? in 124) echo "hsm-agent: $p ended with {_HUNG}" >&2; continue;; esac;; esac; '
    f'"$p" -I -S -X utf8 -c "{_PYTHON}" hsm-agent; r=$?; '
    f'case "$r" in {_DONE}) exit 0;; esac; '
    f'case " {_NO_INPUT} 129 130 131 137 141 142 143 " in *" $r "*) exit $r;; esac; '
    'echo "hsm-agent: $p ended with $r" >&2; '
    f'done; echo "hsm-agent: processor $(uname -m)" >&2; exit {_NO_PYTHON}'
)
COMMAND = f"exec /bin/sh -c '{_ROOT}' '{_BEGIN}'"
# The same for a host without a Python: its shell runs a program that puts an interpreter in place and starts it. None
# reads a line and no more of what comes, so the length of the program is in the command.
_READ = 'PATH="$PATH:$1"; p=$(timeout {patience} head -c {length}); eval "$p"'
_VERSION = re.compile(r"\d+\.\d+\S*")
_TRIED = re.compile(r"hsm-agent: (.+) ended with (\d+)")
_PROCESSOR = re.compile(r"hsm-agent: processor (\S*)")
# the exit status of a shell for a program that exists and cannot be started
_NOT_STARTED = "126"
_NO_MEMORY = re.compile(r"MemoryError|Cannot allocate memory|failed to map segment", re.IGNORECASE)

# The output of a program that answers a login instead of the agent; shown at once, since it sleeps before it ends.
_OTHER_USER = re.compile(r"[Pp]lease login as the user [\"']?([\w.-]{1,32})[\"']? rather than")
_EXPIRED_LOGIN = re.compile(
    r"(password has expired|[Pp]assword change required|required to change your password)"
)
_NOPASSWD = "`USER ALL=(ALL) NOPASSWD: ALL` in a file in /etc/sudoers.d"
# What sudo prints when it refuses (also sudo-rs), with the hint; the last pattern is for any other refusal.
_SUDO = tuple(
    (re.compile(pattern, re.IGNORECASE), hint)
    for pattern, hint in (
        (r"sudo: (command )?not found|sudo: No such file|sudo: cannot execute",
         "install sudo there, or log in as root: `user: root` in the inventory"),
        (r"expired|change your password", "set a new password for the user there, or let it last: `chage -M -1 USER`"),
        (r"have a tty|no tty present", "have sudo run without a terminal: `Defaults:USER !requiretty` in sudoers"),
        (r"not in the sudoers|not allowed|may not run|unknown user|not permitted|afraid I can't",
         f"let the user become root there: {_NOPASSWD}"),
        (r"password is required|authentication (is )?required|read the password|askpass",
         f"let the user become root without a password there: {_NOPASSWD}"),
        (r"\bsudo(-rs)?: ", "look what `sudo -n true` says there as the same user"),
    )
)  # fmt: skip
_BETWEEN = (
    "look what comes between a login there and its command: a forced command (`ForceCommand` in sshd_config, "
    "`command=` in authorized_keys), a restricted login shell, or that shell's own start files (.bashrc)"
)
# Warnings of sudo, which starts the command nevertheless.
_WARNING = re.compile(r"sudo: (unable to resolve host|setrlimit|unable to send audit)|^\s*$")

# cmd answers `Windows_NT $env:OS`, PowerShell `%OS%` and `Windows_NT` on lines of their own, any other shell neither.
SHELL_PROBE = "echo %OS% $env:OS"
_ANSWERS = (b"Windows_NT $env:OS", b"Windows_NT")

# cmd and PowerShell read this alike, whichever is the default shell of sshd. -InputFormat None: PowerShell itself must
# not read the input.
_POWERSHELL = "powershell -NoProfile -NonInteractive -InputFormat None -EncodedCommand "
# Its standard error is XML for an encoded command: errors as `S`, with line ends as _x000D__x000A_. Around the message
# of an error stand its place in the script and its PowerShell category.
_XML_ERROR = '<S S="Error">'
_XML_CHARACTER = re.compile(r"_x([0-9A-F]{4})_")
_AROUND = re.compile(r"\s*(\+ |At line:)")

_FUTURE = "from __future__ import annotations\n"


class NoAnswerError(AgentError):
    """The agent did not answer, and the host's shell may be of another kind."""


class NoPythonError(AgentError):
    """The host has no Python that the agent can use; `processor` is its kind, as `uname -m` has it."""

    processor = ""


@dataclass(frozen=True)
class LaunchMethod:
    """One way to start the agent: `command` reads and runs the program of `preamble`, which puts `archive` in place.

    With `then`, it gets only the reference of the archive, and says Settled when that is there. What it starts reads
    from the same input, and is begun by that second method, whose command is not used.
    """

    system: str
    command: str
    preamble: bytes = field(repr=False)
    archive: AgentArchive
    then: LaunchMethod | None = None

    def opening(self, request: HostRequest) -> bytes:
        """Return what is sent first."""
        return self.preamble + (request.line() if self.then is None else request.archive_line())

    def no_answer_error(self, status: int | None, stderr: str, stdout: str) -> AgentError:
        """Return why the agent did not answer: by the command's exit status, and then by the output of what did."""
        if self.system == WINDOWS:
            saw = last_words(status, _powershell_errors(stderr), stdout)
            return AgentError(
                "far-end-failed", "no PowerShell script could be run on the host", saw=saw,
                want="Windows with PowerShell 5.1, and cmd or PowerShell as the default shell of sshd",
                hint="look whether a policy, or software against viruses, forbids `powershell -EncodedCommand` there",
            )  # fmt: skip
        if status == _NO_PYTHON:
            return _no_python(stderr)
        if status == _NO_INPUT:
            return AgentError(
                "far-end-failed", "another program there took what was sent to the agent",
                saw=last_words(status, stderr, stdout), want="a login shell that leaves standard input alone",
                hint="a `read`, `cat` or `exec <` in the user's .bashrc or .profile, or in /etc/profile.d, is for "
                "terminals: put `[ -t 0 ] || return` before it",
            )  # fmt: skip
        # sh begins its messages with its name, here the second word of the command
        stderr = stderr.replace(f"{_BEGIN}: ", "sh: ")
        words = "\n".join(line for line in stderr.splitlines() if not _WARNING.search(line))
        for pattern, hint in _SUDO if "sudo" in words else ():
            if pattern.search(words):
                saw = last_words(status, words)
                return AgentError(
                    "sudo-refused", "sudo did not make the user root", saw=saw, want="sudo -n", hint=hint
                )
        return NoAnswerError(
            "far-end-failed", "no Python program could be started on the host", saw=last_words(status, words, stdout),
            want="a login shell that runs commands", hint=_BETWEEN,
        )  # fmt: skip


def refusal(output: str) -> AgentError | None:
    """Return the error that the output of a refused login means; None when it may be a login shell's usual output."""
    other = _OTHER_USER.search(output)
    hint = f"log in as {other[1]}: `user` in the inventory, or `User` in ssh's configuration" if other else ""
    if other is None and _EXPIRED_LOGIN.search(output):
        hint = (
            "log in there with a terminal and set a new password, or have it not expire: `chage -M -1 USER`"
        )
    if not hint:
        return None
    return AgentError("login-refused", "the host refuses the user", saw=last_words(None, output), hint=hint)


def _no_python(stderr: str) -> AgentError:
    """Return the error for a host on which no Python took the program: why not, in the output of each."""
    processor = _PROCESSOR.search(stderr)
    stderr = _PROCESSOR.sub("", stderr).strip()
    saw = _tried(stderr) or stderr or "no python3 at all"
    if _NO_MEMORY.search(stderr):
        return AgentError(
            "no-resources", "the host has no memory for a Python", saw=saw, want="30 MB for a process of root",
            hint="look at `ulimit -v` and /etc/security/limits.conf there, and at `free -m`",
        )  # fmt: skip
    ends = {ended[2] for ended in map(_TRIED.fullmatch, stderr.splitlines()) if ended is not None}
    if ends == {_NOT_STARTED}:
        return AgentError(
            "python-missing", "the host lets root start no Python", saw=saw, want="Python 3.9 or newer, with TLS",
            hint="look there whether `sudo -l` names NOEXEC, whether the programs may be run, and for SELinux: "
            "`ausearch -m avc`",
        )  # fmt: skip
    missing = NoPythonError(
        "python-missing", "the host has no Python that the agent can use", saw=saw,
        want="Python 3.9 or newer, with TLS",
    )  # fmt: skip
    missing.processor = processor[1] if processor else ""
    return missing


def _tried(stderr: str) -> str:
    """Return each Python that was tried with its last output, from the output of all of them."""
    found, before = [], []
    for line in stderr.splitlines():
        ended = _TRIED.fullmatch(line)
        if ended is None:
            before += [] if _WARNING.search(line) else [line]
        else:
            status = int(ended[2])
            words = last_words(status, "\n".join(before)).splitlines()[-1]
            if status == _HUNG and not before:
                words = f"it did not start in {_START} s"
            found.append(f"{ended[1]}: {'Python ' if _VERSION.fullmatch(words) else ''}{words}")
            before = []
    return "\n".join(found)


class LaunchMethods:
    """The launch methods of a run, each made once, and the hosts that turned out to need another than the first."""

    def __init__(self, archives: AgentArchives) -> None:
        self._archives = archives
        self._posix = LaunchMethod(POSIX, COMMAND, _with_length(bootstrap_program()), archives.posix)
        self._lock = threading.Lock()
        self._made: dict[str, LaunchMethod] = {}
        self._found: dict[str, LaunchMethod] = {}

    def for_target(self, target: Target) -> LaunchMethod:
        """Return the method of the system that was given or found, else of POSIX. Raises AgentError `tree-missing`."""
        if target.system == WINDOWS:
            return self.for_windows(target)
        return self._found.get(target.name, self._posix)

    def for_windows(self, target: Target) -> LaunchMethod:
        """Return the method for a host that turned out to be Windows. Raises AgentError `tree-missing`."""
        archive = self._archives.windows
        if archive is None:
            raise AgentError(
                "tree-missing", "there is no build for Windows to send to the host", saw="none",
                want="hsm-agent-VERSION-x86_64-windows-HASH.zip",
                hint="`python packaging/build.py --windows` makes it in dist/; then name it: `--windows-tree FILE`",
            )  # fmt: skip
        return self._remembered(target, WINDOWS, lambda: _windows(archive))

    def without_python(self, target: Target, missing: NoPythonError) -> LaunchMethod:
        """Return the method for a host without a Python. Raises `missing` where there is nothing to send."""
        archive = self._archives.linux.get(missing.processor)
        if archive is None:
            want = f"hsm-agent-{__version__}-{missing.processor or 'ARCH'}-linux-HASH.tar.gz"
            missing.hint = (
                f"name the build that has an interpreter in it: `--linux-tree {want}` "
                f"(`python packaging/build.py --linux` makes it in dist/)"
            )
            raise missing
        return self._remembered(target, missing.processor, lambda: _without_python(archive, self._posix))

    def _remembered(self, target: Target, kind: str, make: Callable[[], LaunchMethod]) -> LaunchMethod:
        with self._lock:
            if kind not in self._made:
                self._made[kind] = make()
            self._found[target.name] = self._made[kind]
            return self._made[kind]


def _with_length(program: bytes) -> bytes:
    return f"{len(program)}\n".encode() + program


def bootstrap_program() -> bytes:
    """Return the bootstrap program as one text, with the protocol in the place of its import."""
    path = Path(protocol.__file__)
    imported = path.read_text(encoding="utf-8").partition(_FUTURE)[2]
    source = path.with_name("bootstrap.py").read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module == protocol.__name__:
            lines[node.lineno - 1 : node.end_lineno] = [imported]
            break
    return "".join(lines).encode()


def _windows(archive: AgentArchive) -> LaunchMethod:
    start = render("fleet/start.ps1", patience=protocol.PATIENCE)
    program = render("fleet/landing.ps1", draft=protocol.STAGING_PREFIX, kept=protocol.KEPT)
    encoded = base64.b64encode(start.encode("utf-16-le")).decode("ascii")
    command = f"{_POWERSHELL}{encoded}"
    agent = LaunchMethod(WINDOWS, command, b"", archive)
    return LaunchMethod(WINDOWS, command, _with_length(program.encode("ascii")), archive, agent)


def _without_python(archive: AgentArchive, then: LaunchMethod) -> LaunchMethod:
    program = render(
        "fleet/landing.sh", patience=protocol.PATIENCE, draft=protocol.STAGING_PREFIX, python=_PYTHON
    ).encode("ascii")
    read = _READ.format(patience=protocol.PATIENCE, length=len(program))
    return LaunchMethod(POSIX, f"exec /bin/sh -c '{_ROOT}' '{read}'", program, archive, then)


def _powershell_errors(stderr: str) -> str:
    errors = [each.partition("</S>")[0] for each in stderr.split(_XML_ERROR)[1:] if "</S>" in each]
    if errors:
        stderr = _XML_CHARACTER.sub(lambda found: chr(int(found[1], 16)), html.unescape("".join(errors)))
    lines = [each.rstrip() for each in stderr.splitlines() if each.strip()]
    return "\n".join([each for each in lines if not _AROUND.match(each)] or lines)


def last_words(status: int | None, stderr: str, stdout: str = "") -> str:
    """Return the end of standard error, else of standard output, else how the command ended.

    Of a traceback only the last line is kept: the others help only its authors.
    """
    ended = "death by a signal" if status is None else f"exit {status}"
    for text in (stderr, stdout):
        lines = _untraced(text.splitlines())
        if lines:
            return "\n".join(lines[-3:])
    return ended


def _untraced(lines: list[str]) -> list[str]:
    kept: list[str] = []
    traced = False
    for each in lines:
        begins = each.startswith("Traceback (most recent call last)")
        traced = begins or (traced and (not each.strip() or each.startswith((" ", "\t"))))
        if not traced and each.strip():
            kept.append(each.rstrip())
    return kept


def is_windows(answer: bytes) -> bool:
    """Return whether the answer to `SHELL_PROBE` is that of a Windows shell, whatever else was printed around it."""
    return any(each.strip() in _ANSWERS for each in answer.splitlines())
