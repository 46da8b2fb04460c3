"""customerCA.crt: the trust anchor in its place, normalised, readable by every program that uses the client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from agent.cloudhsm.ca import find_certificates, written
from agent.cloudhsm.protection import close, exposed, shut
from agent.core.errors import AgentError
from agent.core.links import require_target, resolve_link
from agent.core.model import Finding

if TYPE_CHECKING:
    from agent.cloudhsm.paths import ClientPaths
    from agent.core.codes import CodeName
    from agent.core.host import Host, HostView

_MODE = 0o644


@dataclass(frozen=True)
class Certificate:
    """The CA as it must lie in its place, all of whose certificates are named. `replace` allows one that differs."""

    id: ClassVar[str] = "certificate"
    not_applied_code: ClassVar[CodeName] = "write-failed"

    paths: ClientPaths = field(repr=False)
    pem: bytes
    fingerprints: tuple[str, ...]
    not_after: str
    replace: bool = False

    def check(self, view: HostView) -> Finding:
        """Compare certificates, not bytes: line ends and comments do not make another CA. Refuses to replace one.

        A client trusts each certificate in the file, so one more or one less is another CA. Of a file that is damaged,
        what can be made out must be wanted.
        """
        want = written(self.fingerprints)
        open_to_others = exposed(view, self.paths, (self.paths.ca,))
        for each in open_to_others:
            if not each.ours:
                raise each.refuse()
        data = view.read(self.paths.ca)
        if data is None:
            require_target(view, self.paths.ca)
            return Finding.unmet("absent", want)
        if not data.strip():
            return Finding.unmet("empty", want)
        found = find_certificates(data)
        there, wanted = set(found.fingerprints), set(self.fingerprints)
        saw = written(found.fingerprints) if there else "not a certificate"
        if not (there == wanted or (not found.is_complete and there <= wanted)) and not self.replace:
            raise AgentError("ca-would-be-replaced", "another CA is on this host", saw=saw, want=want)
        if there != wanted or not found.plain:
            form = "" if there != wanted else ", in a form that a client may not read"
            return Finding.unmet(f"{saw}{form}", want)
        stat = view.stat(resolve_link(view, self.paths.ca))
        rights = [f"{each.path}: {each.words}" for each in open_to_others]
        rights += [
            f"{folder}: mode {each.mode:04o}" for folder, each in shut(view, self.paths, self.paths.ca)
        ]
        if stat is not None and not stat.mode & 0o004:
            rights.append(f"mode {stat.mode:04o}")
        if rights:
            return Finding.unmet(
                "; ".join([want, *rights]), f"{want}; mode {_MODE:04o}, all to read, root alone to write"
            )
        return Finding.ok(want, want)

    def apply(self, host: Host) -> None:
        """Write it, through a link if it is one, after no other user can change its path and every user can read it."""
        for each in exposed(host, self.paths, (self.paths.ca,)):
            if each.stat.kind == "directory":
                close(host, each)
        for folder, stat in shut(host, self.paths, self.paths.ca):
            host.chmod(folder, stat.mode | 0o011)
        host.write(resolve_link(host, self.paths.ca), self.pem, mode=_MODE)
