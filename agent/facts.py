"""What is true of a machine now: HostView -> Facts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.catalogue import parse_os_release
from agent.cloudhsm.client_config import parse_client_config
from agent.cloudhsm.components import NAMES, component_of
from agent.cloudhsm.paths import client_paths
from agent.core.errors import AgentError
from agent.core.system import LINUX
from agent.package_managers import MANAGERS, Installed
from agent.state import snapshots
from agent.state.pending import pending_packages
from agent.windows.registry import read_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.cloudhsm.client_config import SavedConfig
    from agent.cloudhsm.paths import ClientPaths
    from agent.core.host import HostView
    from agent.core.system import System

_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
_VERSION = r"HKLM\SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_ENVIRONMENT = r"HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Environment"
# the names of `uname -m`
_PROCESSORS = {"AMD64": "x86_64", "ARM64": "aarch64"}


@dataclass(frozen=True)
class Configured:
    """One SDK 5 component's configuration file: `servers` is empty when it was never configured."""

    component: str
    servers: tuple[str, ...]
    ca: str | None


@dataclass(frozen=True)
class Facts:
    """The machine: its system, its client packages, its configuration. `format` is deb, rpm, msi or empty.

    `init` is the service manager: systemd, scm (that of Windows) or other. `due` are components of SDK 5 that an
    unfinished run still has to install in place of those of SDK 3. `kept` has each component's configuration as it is,
    or the last copy that a client could work with.
    """

    name: str
    os: str
    os_version: str
    id_like: tuple[str, ...]
    title: str
    arch: str
    format: str
    init: str
    installed: tuple[Installed, ...] = ()
    configured: tuple[Configured, ...] = ()
    has_ca: bool = False
    due: tuple[str, ...] = ()
    system: System = LINUX
    kept: Mapping[str, SavedConfig] = field(default_factory=dict, repr=False, compare=False)

    @property
    def paths(self) -> ClientPaths:
        """The vendor's paths on this kind of system."""
        return client_paths(self.system)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every HSM address in the configuration of any component."""
        return tuple(dict.fromkeys(address for each in self.configured for address in each.servers))

    def components(self, sdk: int) -> tuple[str, ...]:
        """Return the components of one SDK generation that the package database knows."""
        known = (component_of(each.package) for each in self.installed)
        return tuple(each.name for each in known if each is not None and each.sdk == sdk)

    def package(self, sdk: int, component: str) -> Installed | None:
        """Return a component's package as in the database, complete or not; None when it is absent there."""
        for each in self.installed:
            known = component_of(each.package)
            if known is not None and (known.sdk, known.name) == (sdk, component):
                return each
        return None


def gather(view: HostView) -> Facts:
    """Read the facts. Raises AgentError when the machine cannot be read; an unknown system is a value."""
    here = client_paths(view.system)
    bare = _windows(view) if view.system.is_windows else _linux(view)
    installed = MANAGERS[bare.format].installed(view) if bare.format else ()
    return replace(
        bare,
        installed=installed,
        configured=tuple(_configured(view, here)),
        has_ca=view.stat(here.ca) is not None,
        due=tuple(known.name for known in map(component_of, pending_packages(view)) if known is not None),
        system=view.system,
        kept=_kept(view, installed),
    )


def _kept(view: HostView, installed: tuple[Installed, ...]) -> dict[str, SavedConfig]:
    """Return the copies of what is still here. Whoever took a package off, file and all, wants nothing of it back."""
    here = client_paths(view.system)
    known = [component_of(each.package) for each in installed]
    names = {each.name for each in known if each is not None and each.sdk == 5}
    names |= {path for each in known if each is not None and each.sdk == 3 for path in here.sdk3.configs}
    return {
        name: saved
        for name, saved in snapshots.copies(view).items()
        if name in names or view.stat(here.settings(name, view) if name in NAMES else name) is not None
    }


def _linux(view: HostView) -> Facts:
    release = {}
    for path in _OS_RELEASE:
        data = view.read(path)
        if data is not None:
            release = parse_os_release(data.decode("utf-8", "replace"))
            break
    return Facts(
        name=view.name,
        os=release.get("ID", "linux"),
        os_version=release.get("VERSION_ID", ""),
        id_like=tuple(release.get("ID_LIKE", "").split()),
        title=release.get("PRETTY_NAME") or release.get("NAME") or "an unknown system",
        arch=view.query(("uname", "-m"), timeout=10).out.strip() or "unknown",
        format=_format(view),
        init="systemd" if view.stat("/run/systemd/system") else "other",
    )


def _windows(view: HostView) -> Facts:
    """Read the version. A Windows for clients may have a server's build: its product type tells the difference."""
    version = read_key(view, _VERSION)
    build = version.text("CurrentBuild")
    processor = read_key(view, _ENVIRONMENT).text("PROCESSOR_ARCHITECTURE") or "unknown"
    is_server = version.text("InstallationType").startswith("Server")
    return Facts(
        name=view.name,
        os="windows",
        os_version=build if is_server or not build else f"{build}-client",
        id_like=(),
        title=version.text("ProductName") or "an unknown Windows",
        arch=_PROCESSORS.get(processor, processor),
        format="msi",
        init="scm",
    )


def _format(view: HostView) -> str:
    # apt-get, not dpkg: dpkg can be installed on an rpm system, and the other way round
    if view.stat("/usr/bin/apt-get"):
        return "deb"
    if view.stat("/usr/bin/dnf") or view.stat("/usr/bin/yum"):
        return "rpm"
    return ""


def _configured(view: HostView, here: ClientPaths) -> list[Configured]:
    found = []
    for path in here.all_settings(view):
        component = here.component(path)
        if component is None:
            continue
        try:
            settings = parse_client_config(view.read(path) or b"")
        except (AgentError, ValueError):
            continue  # a fact that cannot be read is left out; the step that needs the file reports why
        servers = () if settings.placeholder else tuple(server.hostname for server in settings.servers)
        found.append(Configured(component, servers, settings.ca_file))
    return found
