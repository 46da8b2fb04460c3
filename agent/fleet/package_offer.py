"""Which packages one host may ask for, and where the operator has them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.core.errors import AgentError
from agent.core.urls import PUSHED, below, redact_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.catalogue import Catalogue, Published

# No host has more components than this, each with one package. A repeated request counts once.
_MOST = 16


def is_here(source: str | None) -> bool:
    """Return whether a package source is a directory of the operator's machine, which a host cannot read."""
    return source is not None and ("://" not in source or source.lower().startswith("file:"))


def packages_of(desired: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a host that say where its packages come from, and their checksums."""
    return {key: desired[key] for key in ("package_source", "sha256") if key in desired}


@dataclass
class PackageOffer:
    """The packages for one host, of which `desired` is wanted; `names` are the catalogue's.

    They come from the source that was named. Else the host repeats its last `configure`: it asks for what its record
    names, which is the source of `before`, `vendor`, or packages that were pushed from a directory of `before`.

    A host may be compromised, and what it asks for is downloaded to the operator's disk. So it gets only packages that
    the vendor's catalogue names, in a version that `desired` allows, with the known checksum, and only a few.
    """

    catalogue: Catalogue
    names: Published
    desired: Mapping[str, Any]
    vendor: str
    before: Mapping[str, Any] = field(default_factory=dict)
    _asked: set[tuple[str, str | None]] = field(default_factory=set)

    def source_of(self, url: str) -> str:
        """Return the source below which a URL must lie."""
        source, before = (each.get("package_source") for each in (self.desired, self.before))
        if source or not before:
            return source or self.vendor
        is_before = is_here(before) or url.startswith(f"{before.partition('?')[0]}/")
        return before if is_before else self.vendor

    def desired_of_host(self) -> dict[str, Any]:
        """Return what is asked of the host: its packages are pushed where their directory is on this machine."""
        if is_here(self.desired.get("package_source")):
            return {**self.desired, "package_source": PUSHED}
        return dict(self.desired)

    def url(self, url: str, sha256: str | None) -> str:
        """Return where the operator gets the file that a host asks for. Raises AgentError `download-failed`."""
        path = "/".join(url.partition("?")[0].rsplit("/", 2)[-2:])
        version = self.names.version(path)
        # a host asks for pushed packages by this request, or by its record of an earlier roll-out
        source = self.source_of(url)
        places = (below(source, path), below(PUSHED, path))
        if url not in places or version is None or not self._is_allowed(version):
            want = f"a package below {redact_url(source)}"
            raise _refused("the host asked for what is no client package", redact_url(url), want)
        known = self._checksums().get(path.rpartition("/")[2]) or self.catalogue.checksums.get(path)
        if sha256 is not None and known is not None and sha256.lower() != known:
            saw, want = f"sha256:{sha256}", f"sha256:{known}"
            raise _refused("the host asked for other bytes than are published", saw, want)
        self._asked.add((path, sha256))
        if len(self._asked) > _MOST:
            saw = f"{len(self._asked)} packages"
            raise _refused("the host asks for more packages than there are", saw, f"{_MOST} at most")
        return below(source, path)

    def _is_allowed(self, version: str) -> bool:
        """Return whether `desired` allows a version: any where the host decides, by its record or its SDK 3."""
        if not self.desired.get("hsm_ip") or self.desired.get("sdk") == 3:
            return True
        pinned = self.desired.get("client_version")
        if pinned is not None:
            return version == pinned or version.startswith(f"{pinned}-")
        plain = version.partition("-")[0]
        lasts = (client.last for client in self.catalogue.clients)
        return plain in {*(release.version for release in self.catalogue.releases), *lasts}

    def _checksums(self) -> dict[str, str]:
        given = (*self.before.get("sha256", ()), *self.desired.get("sha256", ()))
        return dict(pair.split("=", 1) for pair in given)


def _refused(sentence: str, saw: str, want: str) -> AgentError:
    return AgentError("download-failed", sentence, saw=saw, want=want)
