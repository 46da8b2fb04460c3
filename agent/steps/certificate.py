"""customerCA.crt: the trust anchor in its place, normalised, readable by every program that uses the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.ca import find_certificates, written
from agent.core.errors import AgentError
from agent.core.words import Finding

if TYPE_CHECKING:
    from agent.core.host import Host, HostView

_MODE = 0o644


@dataclass(frozen=True)
class Certificate:
    """The CA as it must lie at `path`, all of whose certificates are named. `replace` allows one that differs."""

    path: str
    pem: bytes
    fingerprints: tuple[str, ...]
    not_after: str
    replace: bool = False

    @property
    def id(self) -> str:
        return "certificate"

    @property
    def unproven(self) -> str:
        return "write-failed"

    def check(self, view: HostView) -> Finding:
        """Compare certificates, not bytes: line ends and comments do not make another CA. Refuses to replace one.

        A client trusts each certificate in the file, so one more or one less is another CA. Of a file that is damaged,
        what can be made out must be wanted.
        """
        want = written(self.fingerprints)
        data = view.read(self.path)
        if data is None:
            return Finding(met=False, saw="absent", want=want)
        if not data.strip():
            return Finding(met=False, saw="empty", want=want)
        found = find_certificates(data)
        there, wanted = set(found.fingerprints), set(self.fingerprints)
        saw = written(found.fingerprints) if there else "not a certificate"
        if not (there == wanted or (not found.whole and there <= wanted)) and not self.replace:
            raise AgentError("ca-would-be-replaced", "another CA is on this host", saw=saw, want=want)
        if there != wanted or not found.plain:
            form = "" if there != wanted else ", in a form that a client may not read"
            return Finding(met=False, saw=f"{saw}{form}", want=want)
        stat = view.stat(self.path)
        mode = stat.mode if stat and stat.kind == "file" else _MODE
        if mode & 0o022 or not mode & 0o004:
            return Finding(met=False, saw=f"{want}, mode {mode:04o}", want=f"{want}, mode {_MODE:04o}")
        return Finding(met=True, saw=want, want=want)

    def apply(self, host: Host) -> None:
        host.write(self.path, self.pem, mode=_MODE)
