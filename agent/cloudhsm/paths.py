"""Where the vendor's software keeps its things (AWS CloudHSM User Guide: cluster-connect, configure-tool-syntax5)."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.cloudhsm.components import COMPONENTS, NAMES, SDK5, ClientComponent
from agent.cloudhsm.sdk3 import paths as sdk3_paths
from agent.core import system as systems
from agent.core.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent.cloudhsm.sdk3.paths import Sdk3Paths
    from agent.core.host import HostView
    from agent.core.system import System

# the HSMs' port for clients of SDK 5, and for the daemon of SDK 3
PORT = 2223
# How far below a folder that is searched a configuration file may lie.
_DEPTH = 3


@dataclass(frozen=True)
class ClientPaths:
    """The paths of SDK 5 on one kind of host; in `tools`, `file` and `logs` stands `*` for a component.

    `jars` is the folder of JCE's jar, where it is known. `homes` are the folders where configuration files may lie,
    the likeliest first. Where the vendor does not say it, what lies below them is `searched`. `libraries` has a
    part of the name of each component's shared library, and `named` the form of the full name. `loader` is the program
    that tells what such a library lacks, where there is one.
    """

    root: str
    ca: str
    cli: str
    tools: str
    homes: tuple[str, ...]
    file: str
    logs: str
    lib: str
    sdk3: Sdk3Paths
    system: System
    libraries: Mapping[str, str] = field(hash=False)
    named: str
    searched: bool = False
    loader: str | None = None
    jars: str | None = None

    def tool(self, component: str) -> str:
        """Return the configure tool of a component."""
        return self.tools.replace("*", component)

    def settings(self, component: str, view: HostView) -> str:
        """Return a component's configuration file, or where it would be (dyn and openssl-provider by pattern only).

        Of several in the likely folders the newest is meant: the one that its tool wrote. What lies deeper may be
        anybody's copy, and counts only where there is no other.
        """
        name = self.file.replace("*", component)
        likely = [self.system.join(home, name) for home in self.homes]
        if not self.searched:
            return likely[0]
        found = [path for path in likely if view.stat(path) is not None] or [
            path
            for home in self.homes
            for path in _below(view, self.system, home, _DEPTH)
            if path.endswith(f"{self.system.separator}{name}")
        ]
        return max(found, key=lambda path: _written(view, path), default=likely[0])

    def all_settings(self, view: HostView) -> tuple[str, ...]:
        """Return the configuration files that are there: one for each known component of SDK 5, and SDK 3's two.

        Any other file, whatever its name, is not the vendor's.
        """
        known = [self.settings(component, view) for component in NAMES]
        known += self.sdk3.configs
        return tuple(path for path in known if view.stat(path) is not None)

    def component(self, path: str) -> str | None:
        """Return whose configuration file of SDK 5 this is, None for another file."""
        name = path.rpartition(self.system.separator)[2]
        return next((each for each in NAMES if self.file.replace("*", each) == name), None)

    def programs(self, component: str, view: HostView) -> tuple[str, ...]:
        """Return what of a component is run, or loaded by who uses it, as far as it can be listed."""
        java = self.system.join(self.root, "java")
        found = [self.tool(component), *([self.cli] if component == "cli" else [])]
        with contextlib.suppress(AgentError):  # an ordinary user may not list every folder
            found += [
                self.system.join(self.lib, name)
                for name in view.list_dir(self.lib)
                if self.is_library(component, name)
            ]
            if component == "jce":
                found += [
                    self.system.join(java, name) for name in view.list_dir(java) if name.endswith(".jar")
                ]
        return tuple(found)

    def is_library(self, component: str, name: str) -> bool:
        """Tell whether a file in `lib` is a component's shared library: one that a site put beside it is the site's."""
        part = self.libraries.get(component)
        return part is not None and re.fullmatch(self.named.format(re.escape(part)), name) is not None

    def logging(self, component: str) -> dict[str, str]:
        """Return what a fresh package says of logs, by the names in its file (hsm-client-logs)."""
        log_type = SDK5[component].log_type
        file = {"log_file": self.log(component)} if log_type == "file" else {}
        return {"log_type": log_type, **file, "log_level": "info", "log_interval": "daily"}

    def log(self, component: str) -> str:
        """Return the log a component writes by default (dyn and openssl-provider write to standard error)."""
        return self.logs.replace("*", component)


def _written(view: HostView, path: str) -> float:
    stat = view.stat(path)
    return stat.mtime if stat else 0.0


def _below(view: HostView, system: System, folder: str, depth: int) -> Iterator[str]:
    """Walk through the files below a folder, the nearest first; a link leads nowhere."""
    inner = []
    for name in view.list_dir(folder):
        path = system.join(folder, name)
        stat = view.stat(path)
        if stat is not None and stat.kind == "directory":
            inner.append(path)
        else:
            yield path
    for each in inner if depth > 1 else ():
        yield from _below(view, system, each, depth - 1)


def _libraries(components: Iterable[ClientComponent]) -> dict[str, str]:
    return {each.name: each.library for each in components if each.library is not None}


LINUX = ClientPaths(
    root="/opt/cloudhsm",
    ca="/opt/cloudhsm/etc/customerCA.crt",
    cli="/opt/cloudhsm/bin/cloudhsm-cli",
    tools="/opt/cloudhsm/bin/configure-*",
    homes=("/opt/cloudhsm/etc",),
    file="cloudhsm-*.cfg",
    logs="/opt/cloudhsm/run/cloudhsm-*.log",
    lib="/opt/cloudhsm/lib",
    sdk3=sdk3_paths.LINUX,
    system=systems.LINUX,
    libraries=_libraries(each for each in COMPONENTS if each.linux),
    # with its version before or behind the ending; the documents call the provider's lic… as well
    named=r"(li[bc]?)?(cloudhsm_)?{}[\d.-]*\.so(\.\d+)*",
    loader="ldd",
    jars="/opt/cloudhsm/java",
)


def _windows(system: System) -> ClientPaths:
    """Return the paths below the two folders that this Windows keeps software and its data in (facts 3.2, 3.3).

    Where exactly a configuration file lies there is not documented, so it is searched for.
    """
    root = system.join(system.programs, "Amazon", "CloudHSM")
    data = system.join(system.data, "Amazon", "CloudHSM")
    return ClientPaths(
        root=root,
        ca=rf"{data}\customerCA.crt",
        cli=rf"{root}\bin\cloudhsm-cli.exe",
        tools=rf"{root}\bin\configure-*.exe",
        homes=(rf"{data}\data", data, root),
        file="cloudhsm-*.cfg",
        logs=rf"{root}\cloudhsm-*.log",
        lib=rf"{root}\bin",
        sdk3=sdk3_paths.windows(root, data),
        system=system,
        libraries=_libraries(each for each in COMPONENTS if each.windows),
        named=".*{}.*",
        searched=True,
    )


def client_paths(system: System) -> ClientPaths:
    """Return the vendor's paths on a kind of system."""
    return _windows(system) if system.is_windows else LINUX
