"""An ssh_config with its Include lines written out, since paramiko knows none: the same meaning in one text."""

from __future__ import annotations

import glob
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.hosts import files

if TYPE_CHECKING:
    from collections.abc import Iterator

# As deep as ssh itself follows Include.
_DEPTH = 16
# The largest configuration that is read, in bytes, and how many files.
_SIZE, _FILES = 1024 * 1024, 1000

_LINE = re.compile(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*\S)\s*$")
# Newer ssh takes what follows for a comment, except in a command, which is a shell's affair.
_COMMENT = re.compile(r"\s+#.*$")
_COMMANDS = frozenset({"proxycommand", "localcommand", "remotecommand", "knownhostscommand"})

# The criteria that paramiko knows. It takes any other for one that is met.
_WITH_VALUE = frozenset({"host", "originalhost", "user", "localuser", "exec"})
_ALONE = frozenset({"all", "canonical", "final"})

# What a block asks for, as words of a Match line; none at all outside of any block.
_Criteria = tuple[str, ...]


class Expansion:
    """Collects the lines of one configuration and of all it includes."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder = folder
        self._home = home
        self._files = 0
        self.lines: list[str] = []

    def add(self, path: Path, outer: _Criteria = (), depth: int = 0) -> None:
        """Append a file. What stands under `outer` applies only where that holds, also in the files it includes."""
        self._files += 1
        if depth > _DEPTH or self._files > _FILES:
            raise _wrong(
                f"{path}", f"Include goes deeper than {_DEPTH}, or takes in more than {_FILES} files"
            )
        block = outer
        self.lines.append(_header(block))
        for number, line in enumerate(_read(path).splitlines(), 1):
            where = f"{path}:{number}"
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            found = _LINE.match(line)
            if found is None:
                raise _wrong(where, line.strip())
            key, value = found[1].lower(), found[2]
            if key == "include":
                for included in self._included(_words(value, where)):
                    self.add(included, block, depth + 1)
                self.lines.append(_header(block))
            elif key == "host":
                block = (*outer, "originalhost", ",".join(_words(value, where)))
                self.lines.append(_header(block))
            elif key == "match":
                block = (*outer, *_criteria(_words(value, where), where))
                self.lines.append(_header(block))
            elif key in _COMMANDS or '"' in value:
                self.lines.append(f"{key} {value}")
            else:
                self.lines.append(f"{key} {_COMMENT.sub('', value)}")

    def _included(self, patterns: list[str]) -> Iterator[Path]:
        """Return the files that an Include line names. ssh passes over what is not there, or no file."""
        for pattern in patterns:
            at_home = pattern.startswith("~/")
            anchored = self._home / pattern[2:] if at_home else self._folder / pattern
            for name in sorted(glob.glob(str(anchored))):  # noqa: PTH207 -- Path's takes no absolute pattern
                if Path(name).is_file():
                    yield Path(name)


def _criteria(words: list[str], where: str) -> _Criteria:
    """Check a Match line. `all` says nothing, so it is left out: paramiko takes it beside nothing else."""
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        name = word.lower().lstrip("!")
        if name in _ALONE:
            if name != "all":
                kept.append(word.lower())
        elif name in _WITH_VALUE:
            value = next(rest, None)
            if value is None:
                raise _wrong(where, f"Match {word} needs a value")
            kept += [word.lower(), value]
        else:
            raise _wrong(where, f"Match {word} is not understood here")
    return tuple(kept)


def _header(block: _Criteria) -> str:
    if not block:
        return "Host *"
    return "Match " + " ".join(word if word.isalnum() else shlex.quote(word) for word in block)


def _words(value: str, where: str) -> list[str]:
    try:
        return shlex.split(value, comments=True)
    except ValueError as error:
        raise _wrong(where, str(error)) from None


def _read(path: Path) -> str:
    data = files.read(str(path), 0, _SIZE)
    if data is None:
        raise _wrong(str(path), "no such file")
    return data.decode(errors="surrogateescape")


def _wrong(where: str, saw: str) -> AgentError:
    return AgentError("config-invalid", "ssh's configuration cannot be used", saw=f"{where}: {saw}")
