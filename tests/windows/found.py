r"""What a suite that runs inside Wine finds in Z:\scratch: the packages by source, and the cluster beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.windows.cluster import FOLDER, Cluster

SCRATCH = Path("Z:/scratch")
CLUSTER = Cluster(SCRATCH / FOLDER)


@dataclass(frozen=True)
class Source:
    """One folder that stands for a mirror, laid out as the vendor's: `vendor`, or what is odd in it."""

    name: str

    @property
    def folder(self) -> Path:
        return SCRATCH / "packages" / self.name

    def msi(self, component: str, version: str = "5.18.0") -> str:
        """Return the path of a package, by the name that it has there."""
        return str(self.folder / "Windows" / file_name(component, version))

    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 by what stands behind the mirror's address, such as Windows/AWSCloudHSMCLI-5.18.0-1.msi."""
        lines = (self.folder / "SHA256SUMS").read_text().splitlines()
        return {path: digest for digest, path in (line.split("  ") for line in lines)}


def file_name(component: str, version: str) -> str:
    """Return what the vendor calls a package; that of SDK 3 (`Client`) has no release (facts 2.1)."""
    return f"AWSCloudHSM{component}-{version}{'' if component == 'Client' else '-1'}.msi"
