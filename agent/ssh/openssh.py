"""A configuration as OpenSSH's own client reads it: `ssh -G HOST` prints it, and connects to nothing.

Our own parser and paramiko's were tried first. Each knew another grammar (quotes, comments, `Match`,
`CanonicalizeHostname`) and led to other hosts than ssh does.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.core.errors import AgentError
from agent.hosts import processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# How long ssh may take for one host, in seconds: it may resolve names, and run the commands of `Match exec`.
LIMIT = 30.0
# How much of ssh's output is read, and how much of its errors is shown.
_PRINTED, _SHOWN = 256 * 1024, 400
# Values that show what this version of ssh prints unchanged, and what it expands.
_PROBE = "/%%"


@dataclass(frozen=True)
class SshQuery:
    """One query to ssh: a name, and options, which override the configuration."""

    name: str
    user: str | None = None
    port: int | None = None
    key: str | None = None
    jump: str | None = None
    options: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        words: list[str] = []
        for option in self.options:
            words += ("-o", option)
        if self.user is not None:
            words += ("-l", _one_line(self.user))
        if self.port is not None:
            words += ("-p", str(self.port))
        if self.key is not None:
            words += ("-o", f"IdentityFile={_quoted(self.key)}")
        if self.jump is not None:
            words += ("-o", f"ProxyJump={_one_line(self.jump)}")
        return (*words, "--", _one_line(self.name))


@dataclass(frozen=True)
class ResolvedConfig:
    """The output of ssh: for each keyword its values, in ssh's order."""

    values: Mapping[str, tuple[str, ...]]

    def all(self, keyword: str) -> tuple[str, ...]:
        return self.values.get(keyword, ())

    def name(self, keyword: str) -> str | None:
        """Return the value, None without one; a host or a user may be called `none`."""
        return next(iter(self.all(keyword)), None)

    def get(self, keyword: str) -> str | None:
        """Return the value, None without one or for `none`."""
        value = self.name(keyword)
        return None if value is None or value.lower() == "none" else value


class SshProgram:
    """The ssh program, run once for each name; threads run it in parallel."""

    def __init__(
        self,
        program: str,
        file: Path | None,
        environment: Mapping[str, str],
        folder: str,
        limit: float = LIMIT,
    ) -> None:
        self._program = program
        self._file = file
        self._environment = environment
        self._folder = folder
        self._limit = limit
        self._answers: dict[SshQuery, Future[ResolvedConfig]] = {}
        self._lock = threading.Lock()
        probe = (f"CertificateFile={_PROBE}", f"IdentityAgent={_PROBE}", f"UserKnownHostsFile={_PROBE}")
        plain = self._run(("-F", "/dev/null"), SshQuery("localhost", options=probe), lambda: False)
        # the key files that ssh tries by default
        self.default_keys = plain.all("identityfile")
        # keywords whose values are printed with `~`, tokens and variables expanded
        self.expanded = frozenset(key for key, values in plain.values.items() if values == ("/%",))

    def ask(self, asked: SshQuery, stopped: Callable[[], bool]) -> ResolvedConfig:
        """Return the resolved configuration. Raises AgentError `config-invalid`, `interrupted`."""
        with self._lock:
            future = self._answers.get(asked)
            if mine := future is None:
                future = self._answers[asked] = Future()
        if mine:
            file = () if self._file is None else ("-F", str(self._file))
            try:
                future.set_result(self._run(file, asked, stopped))
            except AgentError as error:
                future.set_exception(error)
            finally:
                future.cancel()  # only those without a result, so that every wait ends
        return future.result()

    def _run(self, file: tuple[str, ...], asked: SshQuery, stopped: Callable[[], bool]) -> ResolvedConfig:
        # %C is a digest that differs between versions: ssh prints it on request
        argv = (self._program, "-T", "-G", *file, "-o", "ControlPath=/%C", *asked.words())
        try:
            ended = processes.run(
                argv,
                env=self._environment,
                timeout=self._limit,
                keep=_PRINTED,
                stopped=stopped,
                folder=self._folder,
            )
        except processes.Stopped:
            raise AgentError(
                "interrupted", "ssh's configuration was not read to its end", saw=f"it was at {asked.name}"
            ) from None
        if ended.status is None:
            raise wrong(
                asked.name, f"`ssh -G` did not end within {self._limit:g} s; does a `Match exec` hang?"
            )
        if ended.status:
            words = "; ".join(ended.err.decode(errors="replace").split("\r\n")).strip("; \n")
            raise wrong(asked.name, shown(words) or f"`ssh -G` ended with status {ended.status}")
        values: dict[str, tuple[str, ...]] = {}
        for line in ended.out.decode(errors="surrogateescape").split("\n"):
            keyword, _, value = line.partition(" ")
            values[keyword.lower()] = (*values.get(keyword.lower(), ()), value.rstrip("\r"))
        return ResolvedConfig(values)


def wrong(name: str, saw: str) -> AgentError:
    return AgentError("config-invalid", f"ssh's configuration for {name} cannot be used", saw=saw)


def shown(words: str) -> str:
    """Return text of another program without control characters."""
    return "".join(each if each.isprintable() else "?" for each in words)[:_SHOWN]


def _one_line(text: str) -> str:
    if not text.isprintable() or '"' in text:
        raise wrong(repr(text), f"{text!r} cannot be given to ssh")
    return text


def _quoted(path: str) -> str:
    if "\\" in path:  # up to OpenSSH 8.6 it was not expanded
        raise wrong(repr(path), f"{path!r} cannot be given to ssh")
    return f'"{_one_line(path)}"'
