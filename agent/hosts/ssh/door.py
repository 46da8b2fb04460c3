"""The way to every host of a fleet: what ssh's configuration, known hosts and keys say, read once for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent.hosts.ssh.gate import Gate
from agent.hosts.ssh.keys import Keyring
from agent.hosts.ssh.link import Link, connect
from agent.hosts.ssh.login import Config
from agent.hosts.ssh.trust import Known

if TYPE_CHECKING:
    from agent.core.fleet import Target
    from agent.hosts.ssh.wire import Lifeline


class Door:
    """Shared by all threads of a roll-out."""

    def __init__(self, ssh_config: str | None, *, trust_new: bool) -> None:
        self._config = Config.read(Path(ssh_config) if ssh_config else None)
        self._known = Known()
        self._keyring = Keyring()
        self._gate = Gate()
        self._trust_new = trust_new

    def place(self, target: Target) -> tuple[str, int]:
        """Return the name or address, and the port, that are connected to. Raises AgentError `config-invalid`."""
        hop = self._config.route(target).target
        return hop.host, hop.port

    def open(self, target: Target, lifeline: Lifeline) -> Link:
        """Connect and log in. Raises AgentError with the cause, CutError when the lifeline is cut."""
        return connect(
            self._config.route(target),
            known=self._known,
            keyring=self._keyring,
            trust_new=self._trust_new,
            lifeline=lifeline,
            gate=self._gate,
        )
