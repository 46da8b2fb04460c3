"""A POSIX machine behind one function that runs a shell command: all quoting is here, and nothing else is."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from agent.core.errors import AgentError, fix
from agent.core.host import READ_LIMIT, Holder, Reached, Room, Running, Stat
from agent.core.system import LINUX
from agent.hosts import connect, files, looks
from agent.hosts.processes import Ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.core.host import Done
    from agent.core.system import System

# How long the small commands of a look may take, in seconds; the machine behind may be slow or far.
_LOOK = 30.0
# Statuses of our own scripts, between those of the programs in them (1, 2) and of the shell (126 up).
_ABSENT, _WRONG_KIND, _FORBIDDEN = 91, 92, 93

_ENVIRONMENT = (
    "export LC_ALL=C LANG=C DEBIAN_FRONTEND=noninteractive "
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; cd /"
)

# Leaves with a status that tells absence from a refusal: `test` says the same of both.
_FIND_OUT = f"""
find_out() {{
  why=$(ls -d $2 -- "$1" 2>&1 >/dev/null) && return
  case $why in
    *'No such file or directory'*|*'Not a directory'*) exit {_ABSENT} ;;
    *) printf '%s\\n' "$why" >&2; exit {_FORBIDDEN} ;;
  esac
}}
"""

_READ = """
find_out "$1" -L
[ -f "$1" ] || exit 92
[ -r "$1" ] || { echo 'Permission denied' >&2; exit 93; }
if [ "$2" = 1 ]; then head -c "$3" -- "$1"; else tail -c "+$2" -- "$1" | head -c "$3"; fi
"""

_STAT = """
find_out "$1"
stat -c '%f %u %g %s %.9Y' -- "$1"
"""

_READLINK = f"""
find_out "$1"
[ -h "$1" ] || exit {_ABSENT}
readlink -n -- "$1"
"""

_NAMES = """
find_out "$1" -L
[ -d "$1" ] || exit 92
[ -r "$1" ] || { echo 'Permission denied' >&2; exit 93; }
find -H "$1" -mindepth 1 -maxdepth 1 -printf '%f\\0'
"""

# A lost connection looks like the end of the input, so the length decides whether the name appears.
_WRITE = """
set -e
umask 066
mkdir -p -- "$1"
umask 077
rm -f -- "$1/.$2.hsm-agent-"*
new=$(mktemp -- "$1/.$2.hsm-agent-XXXXXXXX")
trap 'rm -f -- "$new"' EXIT
trap 'exit 1' HUP INT TERM
cat > "$new"
[ "$(wc -c < "$new")" -eq "$3" ] || { echo 'the connection ended early' >&2; exit 1; }
[ -z "$5" ] || chown -- "$5" "$new"
chmod -- "$4" "$new"
sync -- "$new" 2>/dev/null || sync
mv -fT -- "$new" "$1/$2"
trap - EXIT
sync -- "$1" 2>/dev/null || sync
"""

_SYMLINK = """
set -e
umask 066
mkdir -p -- "$1"
new=$1/.$2.hsm-agent-$$
trap 'rm -f -- "$new"' EXIT
ln -s -- "$3" "$new"
mv -fT -- "$new" "$1/$2"
trap - EXIT
"""

_CHMOD = """
set -e
[ ! -h "$1" ] || { echo 'Too many levels of symbolic links' >&2; exit 1; }
[ -z "$3" ] || chown -h -- "$3" "$1"
chmod -- "$2" "$1"
"""

_PYTHON = """
for python in python3 /usr/libexec/platform-python; do
  command -v "$python" >/dev/null && exec "$python" -I -
done
exit 127
"""


class Run(Protocol):
    """Runs a command line in the machine's `sh`, bytes in and out, and ends it after `timeout` seconds.

    A standard output of up to READ_LIMIT bytes and a few lines must come back whole.
    """

    def __call__(self, command: str, stdin: bytes, timeout: float, /) -> Ended: ...


class Shell:
    """A Host behind `run`, such as `sh -c` or a channel of SSH.

    Every command first marks both of its outputs, and what comes before (the banner of a login shell) is thrown
    away. `monotonic` is this machine's clock: only differences mean anything. What needs a process that stays
    (a lock) or the agent's own libraries (a download) is done by the agent over there, and refused here.
    """

    def __init__(self, run: Run, name: str, *, stop: threading.Event | None = None) -> None:
        self._run = run
        self._name = name
        self._stop = stop or threading.Event()

    @property
    def name(self) -> str:
        return self._name

    @property
    def system(self) -> System:
        return LINUX

    def read(self, path: str, *, offset: int = 0, limit: int = READ_LIMIT) -> bytes | None:
        ended = self._look(path, _READ, path, str(offset + 1), str(limit + 1))
        if ended is None:
            return None
        if len(ended.out) > limit:
            raise files.unreadable(path, f"more than {limit} bytes", want=f"at most {limit} bytes")
        return ended.out

    def stat(self, path: str) -> Stat | None:
        ended = self._look(path, _STAT, path)
        if ended is None:
            return None
        mode, uid, gid, size, mtime = ended.out.split()
        bits = int(mode, 16)
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
        kind = kinds.get(stat.S_IFMT(bits), "other")
        return Stat(kind, stat.S_IMODE(bits), int(uid), int(gid), int(size), float(mtime))

    def readlink(self, path: str) -> str | None:
        ended = self._look(path, _READLINK, path)
        return None if ended is None else ended.out.decode(errors="surrogateescape")

    def names(self, path: str) -> tuple[str, ...]:
        ended = self._look(path, _NAMES, path)
        if ended is None:
            return ()
        return tuple(sorted(name.decode(errors="surrogateescape") for name in ended.out.split(b"\0") if name))

    def ask(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Done:
        looks.require(argv)
        return self.do(argv, timeout=timeout, stdin=stdin)

    def reach(self, address: str, port: int, *, timeout: float, tls: bool = True) -> Reached:
        # beside it, Python's own start
        seen = self._python(f"reach({address!r}, {port}, {timeout!r}, {tls})", timeout + _LOOK)
        return Reached(address, port, **seen)

    def holder(self, path: str) -> Holder | None:
        found = self._python(f"holder({path!r})", _LOOK)
        return Holder(*found) if found else None

    def registry(self, key: str) -> None:  # noqa: ARG002 -- there is none
        return None

    def mapping(self, prefix: str) -> tuple[Running, ...]:
        found = self._python(f"mapping({prefix!r})", _LOOK)
        return tuple(Running(**{**each, "mapped": tuple(each["mapped"])}) for each in found)

    def get(self, url: str, *, limit: int, timeout: float) -> NoReturn:
        raise NotImplementedError(
            f"get {url}, {limit} bytes, {timeout:g} s: the agent on {self._name} does that"
        )

    def room(self, path: str) -> Room:
        return Room(**self._python(f"room({path!r})", _LOOK))

    def now(self) -> dt.datetime:
        seconds = float(self._must("date -u +%s.%N").out)
        return dt.datetime.fromtimestamp(seconds, dt.timezone.utc)

    def monotonic(self) -> float:
        return time.monotonic()

    def is_root(self) -> bool:
        return self._must("id -u").out.strip() == b"0"

    def pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise AgentError("interrupted", "the run was interrupted", saw=f"waiting on {self._name}")

    def write(self, path: str, data: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
        folder, _, name = path.rpartition("/")
        who = "" if owner is None else f"{owner[0]}:{owner[1]}"
        self._touch(path, _WRITE, folder or "/", name, str(len(data)), f"{mode:04o}", who, stdin=data)

    def symlink(self, path: str, target: str) -> None:
        folder, _, name = path.rpartition("/")
        self._touch(path, _SYMLINK, folder or "/", name, target)

    def chmod(self, path: str, mode: int, *, owner: tuple[int, int] | None = None) -> None:
        who = "" if owner is None else f"{owner[0]}:{owner[1]}"
        self._touch(path, _CHMOD, path, f"{mode:04o}", who)

    def remove(self, path: str) -> None:
        name = path.rstrip("/")  # with a slash at its end a link would be followed
        if not name:
            raise AgentError("write-failed", f"{path!r} is never removed", saw=path)
        self._touch(path, 'rm -rf -- "$1"', name)

    def do(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Done:
        return self._shell(f"{_ENVIRONMENT}; exec {shlex.join(argv)}", stdin, timeout).decoded()

    def lock(self, path: str, words: str) -> NoReturn:
        raise NotImplementedError(f"lock {path} ({words}): the agent on {self._name} does that")

    def fetch(self, url: str, path: str, *, sha256: str | None, limit: int, timeout: float) -> NoReturn:
        what = f"fetch {url} to {path}, {sha256}, {limit} bytes, {timeout:g} s"
        raise NotImplementedError(f"{what}: the agent on {self._name} does that")

    def _look(self, path: str, script: str, *words: str) -> Ended | None:
        """Run one of the looking scripts; None when there is no such name."""
        if "\0" in path:
            raise files.unreadable(path, "a zero byte in its name")
        ended = self._script(_FIND_OUT + script, words)
        if ended.status == _ABSENT:
            return None
        if ended.status == _WRONG_KIND:
            raise files.unreadable(path, "a folder, a FIFO or a device, or not a folder")
        if ended.status != 0:
            raise files.unreadable(path, _last(ended))
        return ended

    def _touch(self, path: str, script: str, *words: str, stdin: bytes = b"") -> None:
        """Run one of the touching scripts. The system's own words, in the C locale, tell why one failed."""
        ended = self._script(script, words, stdin)
        if ended.status == 0:
            return
        said = _last(ended)
        if re.search("No space left on device|Disk quota exceeded", said):
            raise AgentError("no-space", f"there is no room for {path}", saw=said)
        if "Read-only file system" in said:
            hint = fix("read-only", PATH=path)
            raise AgentError("read-only", f"{path} cannot be written", saw=said, hint=hint)
        hint = fix("write-failed", PATH=path)
        raise AgentError("write-failed", f"{path} cannot be written", saw=f"{path}: {said}", hint=hint)

    def _python(self, call: str, timeout: float) -> Any:
        """Have the machine's own Python answer one of the questions of connect.py."""
        source = Path(connect.__file__).read_text(encoding="utf-8")
        program = f"{source}\nimport json\nprint(json.dumps({call}))\n"
        ended = self._shell(f"{_ENVIRONMENT}; {_PYTHON}", program.encode(errors="surrogateescape"), timeout)
        if ended.status != 0:
            saw = "there is no python3" if ended.status == 127 else _last(ended)
            raise AgentError(
                "unreadable", f"{self._name} could not be looked at", saw=saw, want="python3 on it"
            )
        return json.loads(ended.out.splitlines()[-1])

    def _must(self, command: str) -> Ended:
        ended = self._script(command, ())
        if ended.status != 0:
            raise AgentError("unreadable", f"`{command}` failed on {self._name}", saw=_last(ended))
        return ended

    def _script(self, script: str, words: Sequence[str], stdin: bytes = b"") -> Ended:
        """Run a script with `words` as its $1, $2 and so on."""
        return self._shell(f"{_ENVIRONMENT}; set -- {shlex.join(words)}\n{script}", stdin, _LOOK)

    def _shell(self, command: str, stdin: bytes, timeout: float) -> Ended:
        mark = f"hsm-agent-{os.urandom(8).hex()}\n".encode()
        say = f"echo {mark.decode().strip()}"
        ended = self._run(f"{say}; {say} >&2\n{command}", stdin, timeout)
        return Ended(ended.status, _after(mark, ended.out), _after(mark, ended.err))


def _after(mark: bytes, said: bytes) -> bytes:
    before, found, after = said.partition(mark)
    return after if found else before


def _last(ended: Ended) -> str:
    return ended.decoded().tail(2) or ("no answer" if ended.status is None else f"exit {ended.status}")
