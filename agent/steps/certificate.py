"""customerCA.crt: the trust anchor in its place, normalised, readable by every program that uses the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.ca import same, sole_fingerprint
from agent.core.errors import AgentError
from agent.core.words import Finding

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_MODE = 0o644


@dataclass(frozen=True)
class Certificate:
    """The CA as it must lie at `path`. `replace` allows one that differs from what is there."""

    path: str
    pem: bytes
    sha256: str
    not_after: str
    replace: bool = False

    @property
    def id(self) -> str:
        return "certificate"

    @property
    def unproven(self) -> str:
        return "write-failed"

    def check(self, view: HostView) -> Finding:
        """Compare certificates, not bytes: line ends and comments do not make another CA. Refuses to replace one."""
        want = f"sha256:{self.sha256}"
        data = view.read(self.path)
        if data is None:
            return Finding(met=False, saw="absent", want=want)
        if not data.strip():
            return Finding(met=False, saw="empty", want=want)
        if not same(data, self.pem):
            saw = sole_fingerprint(data)
            if not self.replace and saw not in (None, self.sha256):
                raise AgentError(
                    "ca-would-be-replaced", "another CA is on this host", saw=f"sha256:{saw}", want=want
                )
            return Finding(met=False, saw=f"sha256:{saw}" if saw else "not a certificate", want=want)
        stat = view.stat(self.path)
        mode = stat.mode if stat and stat.kind == "file" else _MODE
        if mode & 0o022 or not mode & 0o004:
            return Finding(met=False, saw=f"{want}, mode {mode:04o}", want=f"{want}, mode {_MODE:04o}")
        return Finding(met=True, saw=want, want=want)

    def apply(self, host: Host) -> None:
        host.write(self.path, self.pem, mode=_MODE)
