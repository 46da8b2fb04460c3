"""Package managers behind one Protocol: what is installed, install this file, remove these."""

from agent.packages.deb import Deb
from agent.packages.protocol import Installed, PackageManager
from agent.packages.rpm import Rpm

MANAGERS: dict[str, PackageManager] = {"deb": Deb(), "rpm": Rpm()}

__all__ = ["MANAGERS", "Deb", "Installed", "PackageManager", "Rpm"]
