"""customerCA.crt: the trust anchor in its place, normalised, readable by every program that uses the client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.cloudhsm.ca import find_certificates, written
from agent.cloudhsm.paths import client_paths
from agent.cloudhsm.protection import close, exposed, shut
from agent.core.errors import AgentError, CodeName
from agent.core.links import goal, require_whole
from agent.core.model import Finding

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
    def not_applied_code(self) -> CodeName:
        return "write-failed"

    def check(self, view: HostView) -> Finding:
        """Compare certificates, not bytes: line ends and comments do not make another CA. Refuses to replace one.

        A client trusts each certificate in the file, so one more or one less is another CA. Of a file that is damaged,
        what can be made out must be wanted.
        """
        want = written(self.fingerprints)
        here = client_paths(view.system)
        open_to_others = exposed(view, here, (self.path,))
        for each in open_to_others:
            if not each.ours:
                raise each.refuse()
        data = view.read(self.path)
        if data is None:
            require_whole(view, self.path)
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
        stat = view.stat(goal(view, self.path))
        rights = [f"{each.path}: {each.words}" for each in open_to_others]
        rights += [f"{folder}: mode {each.mode:04o}" for folder, each in shut(view, here, self.path)]
        if stat is not None and not stat.mode & 0o004:
            rights.append(f"mode {stat.mode:04o}")
        if rights:
            return Finding(
                False,
                "; ".join([want, *rights]),
                f"{want}; mode {_MODE:04o}, all to read, root alone to write",
            )
        return Finding(met=True, saw=want, want=want)

    def apply(self, host: Host) -> None:
        """Write it, through a link where it is one, once nobody else can change what leads there, and all can go."""
        here = client_paths(host.system)
        for each in exposed(host, here, (self.path,)):
            if each.stat.kind == "directory":
                close(host, each)
        for folder, stat in shut(host, here, self.path):
            host.chmod(folder, stat.mode | 0o011)
        host.write(goal(host, self.path), self.pem, mode=_MODE)
