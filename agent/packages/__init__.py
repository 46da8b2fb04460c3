"""Package managers behind one Protocol: what is installed, install this file, remove these."""

from agent.packages.deb import Deb
from agent.packages.msi import Msi
from agent.packages.protocol import Condition, Installed, PackageManager
from agent.packages.rpm import Rpm

MANAGERS: dict[str, PackageManager] = {"deb": Deb(), "rpm": Rpm(), "msi": Msi()}

__all__ = ["MANAGERS", "Condition", "Deb", "Installed", "Msi", "PackageManager", "Rpm"]
