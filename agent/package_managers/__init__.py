"""Package managers behind one Protocol: what is installed, install this file, remove these."""

from agent.package_managers.deb import Deb
from agent.package_managers.msi import Msi
from agent.package_managers.protocol import Condition, Installed, PackageManager
from agent.package_managers.rpm import Rpm

MANAGERS: dict[str, PackageManager] = {"deb": Deb(), "rpm": Rpm(), "msi": Msi()}

__all__ = ["MANAGERS", "Condition", "Deb", "Installed", "Msi", "PackageManager", "Rpm"]
