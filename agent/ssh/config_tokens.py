"""Placeholders in a value of ssh's configuration: `~`, `%h`, `${HOME}` (ssh_config(5), TOKENS)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.ssh.openssh import wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.ssh.operator import Operator

# The tokens of a command; a file name may have more.
_OF_COMMANDS = "%hknpr"
_SIGN = re.compile(r"%(.?)|\$\{([^}]{0,255})\}", re.DOTALL)


@dataclass(frozen=True)
class ConfigExpander:
    """The values of all tokens for one host. `digest` is ssh's own value of %C, None when it was not requested.

    `jump` is the last host of ProxyJump, empty without one.
    """

    operator: Operator
    host: str
    name: str
    port: int
    user: str
    key_alias: str | None
    digest: str | None = None
    jump: str = ""

    def path(self, value: str) -> str:
        """Expand the name of a file. Raises AgentError `config-invalid` where ssh fails."""
        return _SIGN.sub(lambda found: self._meaning(found, self._known(), value), self.home(value))

    def command(self, value: str) -> str:
        """Expand a command, in which the shell expands `~` and variables."""
        known = {sign: meaning for sign, meaning in self._known().items() if sign in _OF_COMMANDS}
        return re.sub(r"%(.?)", lambda found: self._meaning(found, known, value), value, flags=re.DOTALL)

    def home(self, value: str) -> str:
        """Expand a leading `~`, and nothing else."""
        if not value.startswith("~"):
            return value
        named, slash, rest = value[1:].partition("/")
        if not named:
            return f"{self.operator.home}{slash}{rest}"
        try:
            return f"{Path(f'~{named}').expanduser()}{slash}{rest}"
        except RuntimeError:
            raise wrong(self.name, f"{value}: there is no user {named}") from None

    def _known(self) -> Mapping[str, str]:
        operator = self.operator
        found = {
            "%": "%",
            "C": self.digest,
            "d": str(operator.home),
            "h": self.host,
            "i": str(operator.uid),
            "j": self.jump,  # since OpenSSH 9.6
            "k": self.key_alias or self.name,
            "L": operator.host.partition(".")[0],
            "l": operator.host,
            "n": self.name,
            "p": str(self.port),
            "r": self.user,
            "u": operator.name,
        }
        return {sign: meaning for sign, meaning in found.items() if meaning is not None}

    def _meaning(self, found: re.Match[str], known: Mapping[str, str], value: str) -> str:
        variable = found[2] if found.re is _SIGN else None
        source: Mapping[str, str] = known if variable is None else self.operator.environment
        sign = found[1] if variable is None else variable
        if sign not in source:
            raise wrong(self.name, f"{value}: {found[0]} has no value here")
        return source[sign]
